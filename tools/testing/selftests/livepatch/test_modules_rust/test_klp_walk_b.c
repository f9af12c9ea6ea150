// SPDX-License-Identifier: GPL-2.0
/* test_klp_walk_a under another name. */
#include "test_klp_walk_a.c"
