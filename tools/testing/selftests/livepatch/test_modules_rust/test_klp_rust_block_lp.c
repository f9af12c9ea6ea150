// SPDX-License-Identifier: GPL-2.0
/*
 * A livepatch of functions in which tasks are kept, see test_klp_rust_block: of
 * those in which they sleep and run, or with the parameter "functions" of those
 * of the eight whose bits are set. With "exiting" also of that in which
 * test_klp_exit_hold keeps threads in the end of their exit.
 */

#include <linux/array_size.h>
#include <linux/bitops.h>
#include <linux/livepatch.h>
#include <linux/module.h>

static unsigned int functions;
module_param(functions, uint, 0444);
MODULE_PARM_DESC(functions, "Which of the eight functions are changed");

static bool exiting;
module_param(exiting, bool, 0444);
MODULE_PARM_DESC(exiting, "Change a function of test_klp_exit_hold, too");

static int livepatch_block(void)
{
	return 0;
}

static int livepatch_block_number(unsigned int which)
{
	return 0;
}

static struct klp_func funcs[] = {
	{
		.old_name = "test_klp_block_sleep",
		.new_func = livepatch_block,
	}, {
		.old_name = "test_klp_block_run",
		.new_func = livepatch_block,
	}, {
		.old_name = "test_klp_block_vcpu",
		.new_func = livepatch_block,
	}, { }
};

static void livepatch_exit_stay(void)
{
}

static struct klp_func exit_funcs[] = {
	{
		.old_name = "test_klp_exit_stay",
		.new_func = livepatch_exit_stay,
	}, { }
};

static const char *const names[] = {
	"test_klp_block_0", "test_klp_block_1", "test_klp_block_2",
	"test_klp_block_3", "test_klp_block_4", "test_klp_block_5",
	"test_klp_block_6", "test_klp_block_7",
};

static struct klp_func numbered_funcs[ARRAY_SIZE(names) + 1];

static struct klp_object objs[] = {
	{
		.name = "test_klp_rust_block",
		.funcs = funcs,
	}, { }, { }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

static int test_klp_rust_block_lp_init(void)
{
	struct klp_func *func = numbered_funcs;
	int i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		if (!(functions & BIT(i)))
			continue;
		func->old_name = names[i];
		func->new_func = livepatch_block_number;
		func++;
	}
	if (functions)
		objs[0].funcs = numbered_funcs;
	if (exiting) {
		objs[1].name = "test_klp_exit_hold";
		objs[1].funcs = exit_funcs;
	}
	return klp_enable_patch(&patch);
}

static void test_klp_rust_block_lp_exit(void)
{
}

module_init(test_klp_rust_block_lp_init);
module_exit(test_klp_rust_block_lp_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("Livepatch test: functions in which tasks are kept");
