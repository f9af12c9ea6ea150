#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A livepatched function has a direct caller, such as a BPF trampoline. ftrace asks
# the caller to share the function, and the core tells it when that is over.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh

MOD_DIRECT=test_klp_rust_direct
MOD_LOWER=test_klp_walk_a
MOD_UPPER=test_klp_walk_b

DIRECT=version_proc_show	# what the direct caller is on
OTHER=execdomains_proc_show

need_rust_core
[[ -e test_modules/$MOD_DIRECT.ko ]] || skip "ftrace has no direct calls here"
setup_config

# check_shared(value, when) - fail unless the direct caller shares the function,
#			       or has it for itself
#	value - Y or N
#	when  - the point of the test
function check_shared() {
	local now

	now=$(cat /sys/module/$MOD_DIRECT/parameters/shared)
	[[ "$now" == "$1" ]] || fail_test "shared is $now $2, not $1"
}

# - livepatch one function that has a direct caller, and undo that
# - check that the direct caller is asked to share it, and told when that is over

start_test "a direct caller shares a function for as long as that is livepatched"

load_mod $MOD_DIRECT function=$DIRECT
check_shared N "before"
load_lp $MOD_LOWER vmlinux=$DIRECT
check_shared Y "while livepatched"
check_shows /proc/version "$MOD_LOWER"
disable_lp $MOD_LOWER
unload_lp $MOD_LOWER
check_shared N "afterwards"
unload_mod $MOD_DIRECT

check_result "% insmod test_modules/$MOD_DIRECT.ko function=$DIRECT
% insmod test_modules/$MOD_LOWER.ko vmlinux=$DIRECT
$(expect_enabled $MOD_LOWER)
$(expect_disabled $MOD_LOWER)
% rmmod $MOD_DIRECT"


# - livepatch two functions together, then one of them again
# - disable the first livepatch: the second one keeps the ops group
# - check that the direct caller of the other function is told

start_test "a direct caller is told when the ftrace_ops stays for others"

load_mod $MOD_DIRECT function=$DIRECT
load_lp $MOD_LOWER vmlinux=$DIRECT,$OTHER
load_lp $MOD_UPPER vmlinux=$OTHER
check_shared Y "while livepatched"
disable_lp $MOD_LOWER
unload_lp $MOD_LOWER
check_shared N "afterwards"
enabled_functions | grep -q "^$OTHER " || fail_test "$OTHER is not hooked any more"
disable_lp $MOD_UPPER
unload_lp $MOD_UPPER
check_shared N "in the end"
unload_mod $MOD_DIRECT

check_result "% insmod test_modules/$MOD_DIRECT.ko function=$DIRECT
% insmod test_modules/$MOD_LOWER.ko vmlinux=$DIRECT,$OTHER
$(expect_enabled $MOD_LOWER)
% insmod test_modules/$MOD_UPPER.ko vmlinux=$OTHER
$(expect_enabled $MOD_UPPER)
$(expect_disabled $MOD_LOWER)
$(expect_disabled $MOD_UPPER)
% rmmod $MOD_DIRECT"

exit 0
