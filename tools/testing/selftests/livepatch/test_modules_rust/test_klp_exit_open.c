// SPDX-License-Identifier: GPL-2.0
/*
 * Opens the exit window again: with this livepatch no task comes on the list of
 * exiting tasks, as in a kernel without klp_task_exit(). For demonstrations,
 * which end in an oops; nothing else may load it.
 */

#include <linux/livepatch.h>
#include <linux/module.h>

static void livepatch_klp_task_exit(struct task_struct *task)
{
}

static struct klp_func funcs[] = {
	{
		.old_name = "klp_task_exit",
		.new_func = livepatch_klp_task_exit,
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

static int test_klp_exit_open_init(void)
{
	return klp_enable_patch(&patch);
}

static void test_klp_exit_open_exit(void)
{
}

module_init(test_klp_exit_open_init);
module_exit(test_klp_exit_open_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("Livepatch test: opens the exit window");
