// SPDX-License-Identifier: GPL-2.0
/* A thousand functions for livepatches to change, and one to sleep in. */

#include <linux/compiler.h>
#include <linux/export.h>
#include <linux/module.h>

#include "test_klp_bench.h"

#define EACH(n)								\
	static noinline int test_klp_bench_f ## n(int x)		\
	{								\
		barrier();						\
		return x + 1;						\
	}
#include "test_klp_bench_each.h"
#undef EACH

const test_klp_bench_func_t test_klp_bench_funcs[BENCH_FUNCTIONS] = {
#define EACH(n) test_klp_bench_f ## n,
#include "test_klp_bench_each.h"
#undef EACH
};
EXPORT_SYMBOL_GPL(test_klp_bench_funcs);

/* A livepatch of this function cannot switch the tasks inside. */
noinline int test_klp_bench_hold(int (*inside)(void))
{
	int ret = inside();

	barrier();
	return ret;
}
EXPORT_SYMBOL_GPL(test_klp_bench_hold);

static int test_klp_bench_target_init(void)
{
	return 0;
}

static void test_klp_bench_target_exit(void)
{
}

module_init(test_klp_bench_target_init);
module_exit(test_klp_bench_target_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Livepatch benchmark: what is patched");
