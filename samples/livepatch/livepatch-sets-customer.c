// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A customer's own livepatch, in a replace set that no vendor uses. It replaces
 * no others, unless the administrator names their sets:
 *
 * $ insmod livepatch-sets-customer.ko supersedes=1,2
 *
 * See livepatch-sets-cumulative.c.
 */

#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/seq_file.h>

static int livepatch_version_proc_show(struct seq_file *m, void *v)
{
	seq_printf(m, "fixed by %s\n", KBUILD_MODNAME);
	return 0;
}

static struct klp_func funcs[] = {
	{
		.old_name = "version_proc_show",
		.new_func = livepatch_version_proc_show,
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
	KLP_REPLACE_SETS(1000),
};

KLP_PARAM_SUPERSEDES(patch);

static int livepatch_sets_customer_init(void)
{
	return klp_enable_patch(&patch);
}

static void livepatch_sets_customer_exit(void)
{
}

module_init(livepatch_sets_customer_init);
module_exit(livepatch_sets_customer_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("Livepatch sample: a customer's livepatch in a replace set");
