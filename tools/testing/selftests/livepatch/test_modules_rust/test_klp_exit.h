/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _TEST_KLP_EXIT_H
#define _TEST_KLP_EXIT_H

#include <linux/types.h>

/* Whether the current task is a thread that the test has started to exit. */
bool test_klp_exit_is_ours(void);

/* Keeps it as the parameter "how" says, until "release" is written. */
void test_klp_exit_stay(void);

/* What the test waits for before it looks at messages. */
void test_klp_exit_go(void);

#endif /* _TEST_KLP_EXIT_H */
