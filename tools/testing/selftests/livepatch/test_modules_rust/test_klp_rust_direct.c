// SPDX-License-Identifier: GPL-2.0
/*
 * A direct caller of a function, as a BPF trampoline is. When a livepatch changes
 * the function, ftrace asks the caller to share it; it must also be told when
 * that is over.
 */

#include <linux/ftrace.h>
#include <linux/linkage.h>
#include <linux/module.h>
#include <linux/string.h>
#include "test_klp_rust_direct.h"

static char *function = "";
module_param(function, charp, 0444);
MODULE_PARM_DESC(function, "Name of the function");

static bool shared;
module_param(shared, bool, 0444);
MODULE_PARM_DESC(shared, "Whether somebody else changes where the function's calls go");

#ifdef CONFIG_X86_64
#include <asm/ibt.h>

asm(".pushsection .text, \"ax\", @progbits\n"
	".type test_klp_rust_direct_call, @function\n"
	".globl test_klp_rust_direct_call\n"
	"test_klp_rust_direct_call:\n"
	ASM_ENDBR
	ASM_RET
	".size test_klp_rust_direct_call, . - test_klp_rust_direct_call\n"
	".popsection\n");
#endif

#ifdef CONFIG_ARM64
/* The function's own return address is in x9. */
asm(".pushsection .text, \"ax\", @progbits\n"
	".type test_klp_rust_direct_call, @function\n"
	".globl test_klp_rust_direct_call\n"
	"test_klp_rust_direct_call:\n"
	"hint 34\n"
	"mov x10, x30\n"
	"mov x30, x9\n"
	"ret x10\n"
	".size test_klp_rust_direct_call, . - test_klp_rust_direct_call\n"
	".popsection\n");
#endif

static int share(struct ftrace_ops *ops, unsigned long ip, enum ftrace_ops_cmd cmd)
{
	shared = cmd != FTRACE_OPS_CMD_DISABLE_SHARE_IPMODIFY_PEER;
	return 0;
}

static struct ftrace_ops ops = {
	.ops_func = share,
};

static int __init test_klp_rust_direct_init(void)
{
	int ret;

	/* An ops without a filter is for every function. */
	if (!*function)
		return -EINVAL;

	ret = ftrace_set_filter(&ops, function, strlen(function), 0);
	if (!ret)
		ret = register_ftrace_direct(&ops, (unsigned long)test_klp_rust_direct_call);
	if (ret)
		ftrace_free_filter(&ops);
	return ret;
}

static void __exit test_klp_rust_direct_exit(void)
{
	unregister_ftrace_direct(&ops, (unsigned long)test_klp_rust_direct_call, true);
}

module_init(test_klp_rust_direct_init);
module_exit(test_klp_rust_direct_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Livepatch test: a direct caller that shares its function");
