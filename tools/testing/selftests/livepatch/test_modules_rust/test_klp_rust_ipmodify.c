// SPDX-License-Identifier: GPL-2.0
/*
 * An ftrace user with IPMODIFY, such as a kprobe with a post_handler on some
 * architectures. ftrace lets only one user change where the calls of a function
 * go: no livepatch can have these functions.
 */

#include <linux/ftrace.h>
#include <linux/module.h>
#include <linux/string.h>

static char *functions[8];
static int nr_functions;
module_param_array(functions, charp, &nr_functions, 0444);
MODULE_PARM_DESC(functions, "Names of the functions");

static void notrace leave_alone(unsigned long ip, unsigned long parent_ip,
				struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
}

static struct ftrace_ops ops = {
	.func = leave_alone,
	.flags = FTRACE_OPS_FL_IPMODIFY |
#ifndef CONFIG_HAVE_DYNAMIC_FTRACE_WITH_ARGS
		 FTRACE_OPS_FL_SAVE_REGS |
#endif
		 FTRACE_OPS_FL_RECURSION,
};

static int __init test_klp_rust_ipmodify_init(void)
{
	int i, ret;

	/* An ops without a filter is for every function. */
	if (!nr_functions)
		return -EINVAL;

	for (i = 0; i < nr_functions; i++) {
		ret = ftrace_set_filter(&ops, functions[i], strlen(functions[i]), 0);
		if (ret)
			goto free;
	}
	ret = register_ftrace_function(&ops);
	if (!ret)
		return 0;
free:
	ftrace_free_filter(&ops);
	return ret;
}

static void __exit test_klp_rust_ipmodify_exit(void)
{
	unregister_ftrace_function(&ops);
	ftrace_free_filter(&ops);
}

module_init(test_klp_rust_ipmodify_init);
module_exit(test_klp_rust_ipmodify_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Livepatch test: another user that changes where calls go");
