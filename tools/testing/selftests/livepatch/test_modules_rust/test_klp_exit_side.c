// SPDX-License-Identifier: GPL-2.0
/*
 * A livepatch of what interrupts of an exiting thread call, and of what this runs
 * in meanwhile, see test_klp_exit_hold.
 */

#include <linux/compiler.h>
#include <linux/livepatch.h>
#include <linux/module.h>

static int livepatch_exit_side(void)
{
	int side = 1;

	OPTIMIZER_HIDE_VAR(side);
	return side;
}

static void livepatch_exit_run(void (*func)(void))
{
	func();
	barrier();
}

static struct klp_func funcs[] = {
	{
		.old_name = "test_klp_exit_side",
		.new_func = livepatch_exit_side,
	}, {
		.old_name = "test_klp_exit_run",
		.new_func = livepatch_exit_run,
	}, { }
};

static struct klp_object objs[] = {
	{
		.name = "test_klp_exit_hold",
		.funcs = funcs,
	}, { }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

static int test_klp_exit_side_init(void)
{
	return klp_enable_patch(&patch);
}

static void test_klp_exit_side_exit(void)
{
}

module_init(test_klp_exit_side_init);
module_exit(test_klp_exit_side_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("Livepatch test: what interrupts of an exiting thread call");
