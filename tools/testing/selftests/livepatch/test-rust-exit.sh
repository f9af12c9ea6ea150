#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Threads that exit: they have been unhashed, and no walk over all tasks finds
# them, while they are still in functions that a livepatch takes away. Either
# core has to pass.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh
. $(dirname $0)/functions-exit.sh

CPU_ONLINE=/sys/devices/system/cpu/cpu1/online

# all_online() - bring back the CPU that a test has taken
function all_online() {
	[[ ! -w $CPU_ONLINE || $(cat $CPU_ONLINE) == 1 ]] || echo 1 > $CPU_ONLINE
}

need_exit
setup_config
trap 'abandon_thread; all_online; cleanup' EXIT INT TERM HUP


# - a thread sleeps in the livepatch's function when this is disabled
# - nothing is taken away, nothing can be unloaded, until the thread has gone

start_test "a livepatch is disabled while a thread exits in it"

load_mod $HOLD
load_lp $LP
start_thread 0
disable_lp_nowait $LP
stays_in_transition $LP
cannot_unload $LP
end_thread
loop_until '[[ ! -e $SYSFS_KLP_DIR/$LP ]]' || fail_test "$LP is still there"
unload_lp $LP
unload_mod $HOLD

check_messages "% insmod test_modules/$HOLD.ko
% insmod test_modules/$LP.ko
$(expect_enabled $LP)
$LP: a thread stays
$(expect_disabling $LP)
$(expect_in_use $LP)
$LP: a thread goes
livepatch: '$LP': completing unpatching transition
$LP: post_unpatch of the object
$(expect_state_ends)
livepatch: '$LP': unpatching complete
% rmmod $LP
% rmmod $HOLD"


# - whoever exits is waited for: a thread, a kernel thread, a process that has
#   been reaped, one whose other thread has called exec and so taken its place

start_test "a livepatch is disabled while tasks of all kinds exit in it"

load_mod $HOLD
load_lp $LP
start_thread 0
start_thread 0 kthread
start_thread 0 leader
start_thread 0 exec
disable_lp_nowait $LP
stays_in_transition $LP
cannot_unload $LP
end_thread
loop_until '[[ ! -e $SYSFS_KLP_DIR/$LP ]]' || fail_test "$LP is still there"
unload_lp $LP
unload_mod $HOLD

check_messages "% insmod test_modules/$HOLD.ko
% insmod test_modules/$LP.ko
$(expect_enabled $LP)
$LP: a thread stays
$LP: a thread stays
$LP: a thread stays
$LP: a thread stays
$(expect_disabling $LP)
$(expect_in_use $LP)
$LP: a thread goes
$LP: a thread goes
$LP: a thread goes
$LP: a thread goes
livepatch: '$LP': completing unpatching transition
$LP: post_unpatch of the object
$(expect_state_ends)
livepatch: '$LP': unpatching complete
% rmmod $LP
% rmmod $HOLD"


# - the list is that of the CPU where the thread began to exit; this goes offline

TITLE="a livepatch is disabled while a thread exits in it whose CPU is gone"
if [[ ! -w $CPU_ONLINE ]]; then
	skip_test "$TITLE" "no CPU that can go offline"
else
	start_test "$TITLE"

	load_mod $HOLD
	load_lp $LP
	start_thread 0 one taskset -c 1
	# The kernel has a message for what is left of a process without its CPU.
	taskset -p -c 0 "${THREADS_KEPT[0]}" > /dev/null
	echo 0 > $CPU_ONLINE || fail_test "the CPU does not go offline"
	disable_lp_nowait $LP
	stays_in_transition $LP
	cannot_unload $LP
	end_thread
	loop_until '[[ ! -e $SYSFS_KLP_DIR/$LP ]]' || fail_test "$LP is still there"
	echo 1 > $CPU_ONLINE || fail_test "the CPU does not come online"
	unload_lp $LP
	unload_mod $HOLD

	check_messages "% insmod test_modules/$HOLD.ko
% insmod test_modules/$LP.ko
$(expect_enabled $LP)
$LP: a thread stays
$(expect_disabling $LP)
$(expect_in_use $LP)
$LP: a thread goes
livepatch: '$LP': completing unpatching transition
$LP: post_unpatch of the object
$(expect_state_ends)
livepatch: '$LP': unpatching complete
% rmmod $LP
% rmmod $HOLD"
fi


# - the same, but the function goes with a livepatch that is replaced: one that
#   has a nop for the function replaces it

start_test "a livepatch is replaced while a thread exits in it"

load_mod $HOLD
load_lp $LP
start_thread 0
load_lp_nowait $REPLACE replace=1
stays_in_transition $REPLACE
cannot_unload $LP
end_thread
loop_until '[[ $(cat $SYSFS_KLP_DIR/$REPLACE/transition) == 0 ]]' ||
	fail_test "$REPLACE is still in transition"
unload_lp $LP
disable_lp $REPLACE
unload_lp $REPLACE
unload_mod $HOLD

check_messages "% insmod test_modules/$HOLD.ko
% insmod test_modules/$LP.ko
$(expect_enabled $LP)
$LP: a thread stays
% insmod test_modules/$REPLACE.ko replace=1
$(expect_enabled $REPLACE | head -n 3)
$(expect_in_use $LP)
$LP: a thread goes
livepatch: '$REPLACE': completing patching transition
$(expect_state_ends)
livepatch: '$REPLACE': patching complete
% rmmod $LP
$(expect_disabled $REPLACE)
% rmmod $HOLD"


# - a thread that exits blocks the livepatches only whose functions it is in

start_test "a livepatch is enabled and disabled while a thread exits in another"

load_mod $HOLD
load_lp $LP
start_thread 0
load_lp $OTHER
disable_lp $OTHER
unload_lp $OTHER
end_thread
disable_lp $LP
unload_lp $LP
unload_mod $HOLD

check_messages "% insmod test_modules/$HOLD.ko
% insmod test_modules/$LP.ko
$(expect_enabled $LP)
$LP: a thread stays
% insmod test_modules/$OTHER.ko
$(expect_enabled $OTHER)
$(expect_disabled $OTHER)
$LP: a thread goes
$(expect_disabling $LP)
livepatch: '$LP': completing unpatching transition
$LP: post_unpatch of the object
$(expect_state_ends)
livepatch: '$LP': unpatching complete
% rmmod $LP
% rmmod $HOLD"


# - a thread was unhashed, in no transition, and still runs when one begins
# - its interrupts call a function in transition, in both directions: the thread
#   stays on the side where it was; turned round, the transition has not to wait
#   for it

start_test "an exiting thread is interrupted in a transition"

load_mod $HOLD
load_lp $LP
start_thread 1
check_side 0
load_lp_nowait $SIDE
stays_in_transition $SIDE
check_side 0
write_enabled $SIDE 0
loop_until '[[ ! -e $SYSFS_KLP_DIR/$SIDE ]]' || fail_test "$SIDE is still there"
check_side 0
unload_lp $SIDE
load_lp_nowait $SIDE
stays_in_transition $SIDE
check_side 0
end_thread
loop_until '[[ $(cat $SYSFS_KLP_DIR/$SIDE/transition) == 0 ]]' ||
	fail_test "$SIDE is still in transition"

start_thread 1
check_side 1
write_enabled $SIDE 0
stays_in_transition $SIDE
check_side 1
write_enabled $SIDE 1
loop_until '[[ $(cat $SYSFS_KLP_DIR/$SIDE/transition) == 0 ]]' ||
	fail_test "$SIDE is still in transition"
check_side 1
write_enabled $SIDE 0
stays_in_transition $SIDE
check_side 1
end_thread
loop_until '[[ ! -e $SYSFS_KLP_DIR/$SIDE ]]' || fail_test "$SIDE is still there"
unload_lp $SIDE
disable_lp $LP
unload_lp $LP
unload_mod $HOLD

check_messages "% insmod test_modules/$HOLD.ko
% insmod test_modules/$LP.ko
$(expect_enabled $LP)
$LP: a thread stays
% insmod test_modules/$SIDE.ko
$(expect_enabled $SIDE | head -n 3)
% echo 0 > $SYSFS_KLP_DIR/$SIDE/enabled
livepatch: '$SIDE': reversing transition from patching to unpatching
livepatch: '$SIDE': starting unpatching transition
livepatch: '$SIDE': completing unpatching transition
livepatch: '$SIDE': unpatching complete
% rmmod $SIDE
% insmod test_modules/$SIDE.ko
$(expect_enabled $SIDE | head -n 3)
$LP: a thread goes
$(expect_enabled $SIDE | tail -n 2)
$LP: a thread stays
$(expect_disabling $SIDE)
% echo 1 > $SYSFS_KLP_DIR/$SIDE/enabled
livepatch: '$SIDE': reversing transition from unpatching to patching
livepatch: '$SIDE': starting patching transition
$(expect_enabled $SIDE | tail -n 2)
$(expect_disabling $SIDE)
$LP: a thread goes
livepatch: '$SIDE': completing unpatching transition
livepatch: '$SIDE': unpatching complete
% rmmod $SIDE
$(expect_disabling $LP)
livepatch: '$LP': completing unpatching transition
$LP: post_unpatch of the object
$(expect_state_ends)
livepatch: '$LP': unpatching complete
% rmmod $LP
% rmmod $HOLD"

exit 0
