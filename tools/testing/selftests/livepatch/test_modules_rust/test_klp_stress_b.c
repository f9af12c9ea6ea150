// SPDX-License-Identifier: GPL-2.0
/* The stress test's livepatch, version 2. */

#define STRESS_VERSION	2
#include "test_klp_stress.h"
