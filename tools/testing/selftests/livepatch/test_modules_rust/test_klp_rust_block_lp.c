// SPDX-License-Identifier: GPL-2.0
/* A livepatch of functions in which tasks are kept, see test_klp_rust_block. */

#include <linux/livepatch.h>
#include <linux/module.h>

static int livepatch_block(void)
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
	}, { }
};

static struct klp_object objs[] = {
	{
		.name = "test_klp_rust_block",
		.funcs = funcs,
	}, { }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

static int test_klp_rust_block_lp_init(void)
{
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
