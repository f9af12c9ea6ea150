// SPDX-License-Identifier: GPL-2.0
/*
 * A livepatch of several functions of vmlinux and of a module. Each function
 * prints a file in /proc on which no program depends. test_klp_rust_ipmodify makes
 * ftrace refuse some of them.
 */

#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

#define LIVEPATCH(function)						\
	static int livepatch_ ## function(struct seq_file *m, void *v)	\
	{								\
		seq_printf(m, "%s: %s\n", KBUILD_MODNAME, #function);	\
		return 0;						\
	}

LIVEPATCH(version_proc_show)
LIVEPATCH(execdomains_proc_show)
LIVEPATCH(cmdline_proc_show)
LIVEPATCH(loadavg_proc_show)
LIVEPATCH(show_softirqs)
LIVEPATCH(test_klp_mod_target_show)

#define FUNC(function) {					\
		.old_name = #function,				\
		.new_func = livepatch_ ## function,		\
	}

static struct klp_func vmlinux_funcs[] = {
	FUNC(version_proc_show),
	FUNC(execdomains_proc_show),
	FUNC(cmdline_proc_show),
	FUNC(loadavg_proc_show),
	FUNC(show_softirqs),
	{ }
};

static struct klp_func target_funcs[] = {
	FUNC(test_klp_mod_target_show),
	{ }
};

static struct klp_object objs[] = {
	{
		/* name being NULL means vmlinux */
		.funcs = vmlinux_funcs,
	}, {
		.name = "test_klp_mod_target",
		.funcs = target_funcs,
	}, { }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

static int test_klp_rust_many_init(void)
{
	return klp_enable_patch(&patch);
}

static void test_klp_rust_many_exit(void)
{
}

module_init(test_klp_rust_many_init);
module_exit(test_klp_rust_many_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("Livepatch test: several functions of vmlinux and one of a module");
