/* SPDX-License-Identifier: GPL-2.0 */
/* What the modules of `make bench` share. */
#ifndef TEST_KLP_BENCH_H
#define TEST_KLP_BENCH_H

#include <linux/types.h>

/* As many as there are lines in test_klp_bench_each.h, see the Makefile. */
#define BENCH_FUNCTIONS 1000

typedef int (*test_klp_bench_func_t)(int x);

/* test_klp_bench_target */
extern const test_klp_bench_func_t test_klp_bench_funcs[BENCH_FUNCTIONS];
int test_klp_bench_hold(int (*inside)(void));

/* test_klp_bench */
enum test_klp_bench_mark {
	BENCH_ENABLE,		/* klp_enable_patch() is called */
	BENCH_RETURN,		/* and is back */
	BENCH_PRE_PATCH,	/* symbols are resolved; ftrace and the pass come next */
	BENCH_POST_PATCH,	/* the transition is complete */
	BENCH_POST_UNPATCH,
	BENCH_MARKS,
};

void test_klp_bench_mark(enum test_klp_bench_mark mark);

#endif
