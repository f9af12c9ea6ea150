// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A vendor's hotfix, in replace set 2. It replaces the hotfix before it, if there
 * is one, and nothing else. See livepatch-sets-cumulative.c.
 */

#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

static int livepatch_loadavg_proc_show(struct seq_file *m, void *v)
{
	seq_printf(m, "fixed by %s\n", KBUILD_MODNAME);
	return 0;
}

static struct klp_func funcs[] = {
	{
		.old_name = "loadavg_proc_show",
		.new_func = livepatch_loadavg_proc_show,
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
	KLP_REPLACE_SETS(2),
};

static int livepatch_sets_hotfix_init(void)
{
	return klp_enable_patch(&patch);
}

static void livepatch_sets_hotfix_exit(void)
{
}

module_init(livepatch_sets_hotfix_init);
module_exit(livepatch_sets_hotfix_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("Livepatch sample: a hotfix in a replace set");
