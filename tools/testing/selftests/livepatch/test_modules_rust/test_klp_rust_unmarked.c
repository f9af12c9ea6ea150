// SPDX-License-Identifier: GPL-2.0
/* A livepatch that lacks MODULE_INFO(livepatch, "Y"). Nothing else is wrong. */

#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

static int livepatch_cmdline_proc_show(struct seq_file *m, void *v)
{
	seq_printf(m, "%s: %s\n", KBUILD_MODNAME, "this has been live patched");
	return 0;
}

static struct klp_func funcs[] = {
	{
		.old_name = "cmdline_proc_show",
		.new_func = livepatch_cmdline_proc_show,
	}, { }
};

static struct klp_object objs[] = {
	{
		/* name being NULL means vmlinux */
		.funcs = funcs,
	}, { }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

static int test_klp_rust_unmarked_init(void)
{
	return klp_enable_patch(&patch);
}

static void test_klp_rust_unmarked_exit(void)
{
}

module_init(test_klp_rust_unmarked_init);
module_exit(test_klp_rust_unmarked_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Livepatch test: a module that is not marked as a livepatch");
