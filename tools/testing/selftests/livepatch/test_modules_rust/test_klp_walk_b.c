// SPDX-License-Identifier: GPL-2.0
/* Another livepatch of the walk, the same but for its name. */
#include "test_klp_walk_a.c"
