/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The livepatch of `make bench`, built as test_klp_bench_a and _b. A parameter says
 * how many functions it changes.
 */

#include <linux/compiler.h>
#include <linux/livepatch.h>
#include <linux/module.h>

#include "test_klp_bench.h"

static unsigned int functions = 1;
module_param(functions, uint, 0444);
MODULE_PARM_DESC(functions, "How many functions of test_klp_bench_target are patched");

static bool hold;
module_param(hold, bool, 0444);
MODULE_PARM_DESC(hold, "Patch also the function that a task sleeps in");

static bool replace;
module_param(replace, bool, 0444);
MODULE_PARM_DESC(replace, "Replace the livepatches that are enabled");

#define EACH(n)								\
	static noinline int livepatch_f ## n(int x)			\
	{								\
		barrier();						\
		return x + 2;						\
	}
#include "test_klp_bench_each.h"
#undef EACH

static noinline int livepatch_hold(int (*inside)(void))
{
	int ret = inside();

	barrier();
	return ret;
}

static const struct {
	const char *old_name;
	test_klp_bench_func_t new_func;
} all[BENCH_FUNCTIONS] = {
#define EACH(n) { "test_klp_bench_f" #n, livepatch_f ## n },
#include "test_klp_bench_each.h"
#undef EACH
};

/* One more for the function to sleep in, and the end. */
static struct klp_func funcs[BENCH_FUNCTIONS + 2];

static int pre_patch(struct klp_object *obj)
{
	test_klp_bench_mark(BENCH_PRE_PATCH);
	return 0;
}

static void post_patch(struct klp_object *obj)
{
	test_klp_bench_mark(BENCH_POST_PATCH);
}

static void post_unpatch(struct klp_object *obj)
{
	test_klp_bench_mark(BENCH_POST_UNPATCH);
}

static struct klp_object objs[] = {
	{
		.name = "test_klp_bench_target",
		.funcs = funcs,
		.callbacks = {
			.pre_patch = pre_patch,
			.post_patch = post_patch,
			.post_unpatch = post_unpatch,
		},
	}, { }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

static int test_klp_bench_patch_init(void)
{
	unsigned int i;
	int ret;

	if (functions > BENCH_FUNCTIONS)
		return -EINVAL;
	for (i = 0; i < functions; i++) {
		funcs[i].old_name = all[i].old_name;
		funcs[i].new_func = all[i].new_func;
	}
	if (hold) {
		funcs[i].old_name = "test_klp_bench_hold";
		funcs[i].new_func = livepatch_hold;
	}
	patch.replace = replace;

	test_klp_bench_mark(BENCH_ENABLE);
	ret = klp_enable_patch(&patch);
	test_klp_bench_mark(BENCH_RETURN);
	return ret;
}

static void test_klp_bench_patch_exit(void)
{
}

module_init(test_klp_bench_patch_init);
module_exit(test_klp_bench_patch_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("Livepatch benchmark: a livepatch of up to 1,000 functions");
