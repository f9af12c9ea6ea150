/* SPDX-License-Identifier: GPL-2.0 */
/* What the modules of `make bench` share. */
#ifndef TEST_KLP_BENCH_H
#define TEST_KLP_BENCH_H

#include <linux/types.h>

#define BENCH_FUNCTIONS 1000

/* EACH(F): F(000) to F(999) */
#define BENCH_EACH10(F, n)						\
	F(n ## 0) F(n ## 1) F(n ## 2) F(n ## 3) F(n ## 4)		\
	F(n ## 5) F(n ## 6) F(n ## 7) F(n ## 8) F(n ## 9)
#define BENCH_EACH100(F, n)						\
	BENCH_EACH10(F, n ## 0) BENCH_EACH10(F, n ## 1)			\
	BENCH_EACH10(F, n ## 2) BENCH_EACH10(F, n ## 3)			\
	BENCH_EACH10(F, n ## 4) BENCH_EACH10(F, n ## 5)			\
	BENCH_EACH10(F, n ## 6) BENCH_EACH10(F, n ## 7)			\
	BENCH_EACH10(F, n ## 8) BENCH_EACH10(F, n ## 9)
#define BENCH_EACH(F)							\
	BENCH_EACH100(F, 0) BENCH_EACH100(F, 1) BENCH_EACH100(F, 2)	\
	BENCH_EACH100(F, 3) BENCH_EACH100(F, 4) BENCH_EACH100(F, 5)	\
	BENCH_EACH100(F, 6) BENCH_EACH100(F, 7) BENCH_EACH100(F, 8)	\
	BENCH_EACH100(F, 9)

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
