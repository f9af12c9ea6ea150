// SPDX-License-Identifier: GPL-2.0
/* The stress test's livepatch, version 1. */

#define STRESS_VERSION	1
#include "test_klp_stress.h"
