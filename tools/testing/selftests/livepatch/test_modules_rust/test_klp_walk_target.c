// SPDX-License-Identifier: GPL-2.0
/*
 * A target module with a function that can be made to hold its callers. A program
 * with the name "reader" that reads /proc/test_klp_walk_first then sleeps in a
 * function that test_klp_walk_a changes.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/printk.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

#include "test_klp_hold.h"

static bool interruptible;
module_param(interruptible, bool, 0444);
MODULE_PARM_DESC(interruptible, "A signal ends the hold");

static int init_ret;
module_param(init_ret, int, 0444);
MODULE_PARM_DESC(init_ret, "What the init function returns");

/* Livepatches know these by name; as callbacks they keep their signature. */
static noinline int test_klp_walk_first(struct seq_file *m, void *v)
{
	int ret = 0;

	if (interruptible)
		ret = wait_event_interruptible(held, let_go());
	else
		wait_event(held, let_go());
	if (ret)
		return ret;

	seq_puts(m, "original\n");
	return 0;
}

static noinline int test_klp_walk_second(struct seq_file *m, void *v)
{
	seq_puts(m, "original\n");
	return 0;
}

static int __init test_klp_walk_target_init(void)
{
	pr_info("init\n");
	if (init_ret)
		return init_ret;

	if (!proc_create_single("test_klp_walk_first", 0, NULL, test_klp_walk_first))
		return -ENOMEM;
	if (!proc_create_single("test_klp_walk_second", 0, NULL, test_klp_walk_second)) {
		remove_proc_entry("test_klp_walk_first", NULL);
		return -ENOMEM;
	}
	return 0;
}

static void __exit test_klp_walk_target_exit(void)
{
	pr_info("exit\n");
	remove_proc_entry("test_klp_walk_first", NULL);
	remove_proc_entry("test_klp_walk_second", NULL);
}

module_init(test_klp_walk_target_init);
module_exit(test_klp_walk_target_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Livepatch test: target module that holds tasks");
