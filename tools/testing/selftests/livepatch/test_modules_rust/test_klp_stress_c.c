// SPDX-License-Identifier: GPL-2.0
/* The stress test's livepatch, version 3. */

#define STRESS_VERSION	3
#include "test_klp_stress.h"
