// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A vendor's cumulative livepatch, which is in replace set 1 and supersedes the
 * vendor's hotfixes, in set 2.
 *
 * Load the three samples in this order:
 *
 * $ insmod livepatch-sets-customer.ko
 * $ insmod livepatch-sets-hotfix.ko
 * $ cd /sys/kernel/livepatch
 * $ cat livepatch_sets_customer/replace_set livepatch_sets_hotfix/replace_set
 * 1000
 * 2
 * $ insmod livepatch-sets-cumulative.ko
 * $ ls
 * livepatch_sets_cumulative  livepatch_sets_customer
 * $ cat /proc/loadavg /proc/cmdline /proc/version
 * fixed by livepatch_sets_cumulative
 * fixed by livepatch_sets_cumulative
 * fixed by livepatch_sets_customer
 *
 * The cumulative livepatch contains the hotfix, and has replaced it. The
 * customer's livepatch stays as it was.
 */

#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

static int livepatch_show(struct seq_file *m, void *v)
{
	seq_printf(m, "fixed by %s\n", KBUILD_MODNAME);
	return 0;
}

static struct klp_func funcs[] = {
	{
		.old_name = "cmdline_proc_show",
		.new_func = livepatch_show,
	}, {
		/* The fix that the hotfix brought. */
		.old_name = "loadavg_proc_show",
		.new_func = livepatch_show,
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
	KLP_REPLACE_SETS(1, 2),
};

static int livepatch_sets_cumulative_init(void)
{
	return klp_enable_patch(&patch);
}

static void livepatch_sets_cumulative_exit(void)
{
}

module_init(livepatch_sets_cumulative_init);
module_exit(livepatch_sets_cumulative_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("Livepatch sample: a cumulative livepatch in a replace set");
