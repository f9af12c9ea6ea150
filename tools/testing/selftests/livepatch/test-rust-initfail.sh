#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The init function of a module fails after it has enabled its livepatch. The core
# undoes the livepatch before the module is freed, and calls none of its callbacks.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh

MOD=test_klp_rust_initfail
MOD_LIVEPATCH=test_klp_livepatch
MOD_REPLACE=test_klp_atomic_replace
MOD_DEMO=test_klp_callbacks_demo
MOD_BUSY=test_klp_callbacks_busy
MOD_TARGET=test_klp_mod_target

READERS=()

function cleanup() {
	kill "${READERS[@]}" 2>/dev/null
	pop_config
}

need_rust_core
setup_config

CMDLINE=$(cat /proc/cmdline)
PATCHED="this has been live patched"
ERROR="Input/output error"	# what insmod makes of EIO

# begin_load(params) - load MOD, whose init function does not return yet, and wait
#		       until it is enabled
function begin_load() {
	log "% insmod test_modules/$MOD.ko wait=1 $*"
	insmod "test_modules/$MOD.ko" wait=1 "$@" > /tmp/initfail 2>&1 &
	INSMOD=$!
	# Not before its transition has begun.
	loop_until 'grep -qs "^1$" $SYSFS_KLP_DIR/$MOD/enabled' || fail_test "$MOD is not enabled"
}

# enabled() - wait until MOD is in effect
function enabled() {
	loop_until 'grep -q "^0$" $SYSFS_KLP_DIR/$MOD/transition' ||
		fail_test "the transition of $MOD does not end"
	check_shows /proc/cmdline "$MOD: $PATCHED"
}

# fail_init() - let the init function of MOD go on, and fail
function fail_init() {
	echo 0 > /sys/module/$MOD/parameters/wait
}

# end_load() - wait until MOD was refused
function end_load() {
	wait $INSMOD && fail_test "$MOD was loaded"
	log "$(cat /tmp/initfail)"
	[[ ! -e /sys/module/$MOD ]] || fail_test "/sys/module/$MOD is still there"
	[[ ! -e $SYSFS_KLP_DIR/$MOD ]] || fail_test "$SYSFS_KLP_DIR/$MOD is still there"
}

BEGUN="livepatch: enabling patch '$MOD'
livepatch: '$MOD': initializing patching transition
$MOD: state_pre_patch
$MOD: pre_patch
livepatch: '$MOD': starting patching transition"
ENABLED="$BEGUN
livepatch: '$MOD': completing patching transition
$MOD: state_post_patch
$MOD: post_patch
livepatch: '$MOD': patching complete"
WAITING="$MOD: init fails
livepatch: module '$MOD' goes while its livepatch is enabled, waiting until it is undone"
UNDOING="livepatch: '$MOD': initializing unpatching transition
livepatch: '$MOD': starting unpatching transition"
UNDONE="livepatch: '$MOD': completing unpatching transition
livepatch: '$MOD': unpatching complete"
REFUSED="insmod: ERROR: could not insert module test_modules/$MOD.ko: $ERROR"


start_test "init fails when the livepatch is in effect"

remember_state
begin_load error=-5
enabled
fail_init
end_load
check_nothing_left $MOD
check_shows /proc/cmdline "$CMDLINE"

check_result "% insmod test_modules/$MOD.ko wait=1 error=-5
$ENABLED
$WAITING
$UNDOING
$UNDONE
$REFUSED"


# - fail while the transition waits for a task in the original function

start_test "init fails while the transition runs"

load_mod $MOD_BUSY block_transition=Y
remember_state
begin_load error=-5 busy=1
check_sysfs_value $MOD transition 1
fail_init
end_load
check_nothing_left $MOD
check_shows /proc/cmdline "$CMDLINE"
unload_mod $MOD_BUSY

check_result "% insmod test_modules/$MOD_BUSY.ko block_transition=Y
$MOD_BUSY: ${MOD_BUSY}_init
$MOD_BUSY: busymod_work_func enter
% insmod test_modules/$MOD.ko wait=1 error=-5 busy=1
$BEGUN
$WAITING
livepatch: '$MOD': reversing transition from patching to unpatching
livepatch: '$MOD': starting unpatching transition
$UNDONE
$REFUSED
% rmmod $MOD_BUSY
$MOD_BUSY: busymod_work_func exit
$MOD_BUSY: ${MOD_BUSY}_exit"


# - fail while a task sleeps in the new function
# - check that meanwhile nobody can enable this livepatch again or another one, and
#   that a module that is loaded is not patched

start_test "init fails while a task sleeps in the new function"

begin_load error=-5 hold=1
loop_until 'grep -q "^0$" $SYSFS_KLP_DIR/$MOD/transition' || fail_test "no transition"
cat /proc/cmdline &> /dev/null &
READERS+=($!)
loop_until 'grep -q livepatch_cmdline_proc_show "/proc/${READERS[0]}/stack"' ||
	fail_test "no task sleeps in $MOD"
fail_init
loop_until 'grep -q "^0$" $SYSFS_KLP_DIR/$MOD/enabled' || fail_test "$MOD is not being undone"
(echo 1 > $SYSFS_KLP_DIR/$MOD/enabled) 2>/dev/null && fail_test "$MOD can be enabled again"
load_failing_mod $MOD_LIVEPATCH
load_mod $MOD_TARGET
check_shows /proc/$MOD_TARGET "$MOD_TARGET: original output"
unload_mod $MOD_TARGET
kill -0 $INSMOD || fail_test "the module was freed"
kill "${READERS[0]}"
end_load
READERS=()
check_shows /proc/cmdline "$CMDLINE"

check_result "% insmod test_modules/$MOD.ko wait=1 error=-5 hold=1
$ENABLED
$WAITING
$UNDOING
% insmod test_modules/$MOD_LIVEPATCH.ko
insmod: ERROR: could not insert module test_modules/$MOD_LIVEPATCH.ko: Device or resource busy
% insmod test_modules/$MOD_TARGET.ko
$MOD_TARGET: test_klp_mod_target_init
% rmmod $MOD_TARGET
$MOD_TARGET: test_klp_mod_target_exit
$UNDONE
$REFUSED"


start_test "init fails below another livepatch"

load_mod $MOD_TARGET
begin_load error=-5
enabled
check_shows /proc/$MOD_TARGET "$MOD: $PATCHED"
load_lp $MOD_LIVEPATCH
fail_init
end_load
check_shows /proc/cmdline "$MOD_LIVEPATCH: $PATCHED"
check_shows /proc/$MOD_TARGET "$MOD_TARGET: original output"
disable_lp $MOD_LIVEPATCH
unload_lp $MOD_LIVEPATCH
check_shows /proc/cmdline "$CMDLINE"
unload_mod $MOD_TARGET

check_result "% insmod test_modules/$MOD_TARGET.ko
$MOD_TARGET: test_klp_mod_target_init
% insmod test_modules/$MOD.ko wait=1 error=-5
$ENABLED
% insmod test_modules/$MOD_LIVEPATCH.ko
$(expect_enabled $MOD_LIVEPATCH)
$WAITING
$UNDOING
$UNDONE
$REFUSED
$(expect_disabled $MOD_LIVEPATCH)
% rmmod $MOD_TARGET
$MOD_TARGET: test_klp_mod_target_exit"


# - fail while the other livepatch is stuck in its transition; reverse that

start_test "init fails while another livepatch is in transition"

load_mod $MOD_BUSY block_transition=Y
begin_load error=-5
enabled
load_lp_nowait $MOD_DEMO
check_sysfs_value $MOD_DEMO transition 1
fail_init
loop_until '[[ $(new_messages "waiting until it is undone") ]]' ||
	fail_test "$MOD is not being undone"
sleep 1
kill -0 $INSMOD || fail_test "the module was freed"
check_shows /proc/cmdline "$MOD: $PATCHED"
disable_lp $MOD_DEMO
end_load
check_shows /proc/cmdline "$CMDLINE"
unload_lp $MOD_DEMO
unload_mod $MOD_BUSY

check_result "% insmod test_modules/$MOD_BUSY.ko block_transition=Y
$MOD_BUSY: ${MOD_BUSY}_init
$MOD_BUSY: busymod_work_func enter
% insmod test_modules/$MOD.ko wait=1 error=-5
$ENABLED
% insmod test_modules/$MOD_DEMO.ko
livepatch: enabling patch '$MOD_DEMO'
livepatch: '$MOD_DEMO': initializing patching transition
$MOD_DEMO: pre_patch_callback: vmlinux
$MOD_DEMO: pre_patch_callback: $MOD_BUSY -> [MODULE_STATE_LIVE] Normal state
livepatch: '$MOD_DEMO': starting patching transition
$WAITING
% echo 0 > $SYSFS_KLP_DIR/$MOD_DEMO/enabled
livepatch: '$MOD_DEMO': reversing transition from patching to unpatching
livepatch: '$MOD_DEMO': starting unpatching transition
livepatch: '$MOD_DEMO': completing unpatching transition
$MOD_DEMO: post_unpatch_callback: vmlinux
$MOD_DEMO: post_unpatch_callback: $MOD_BUSY -> [MODULE_STATE_LIVE] Normal state
livepatch: '$MOD_DEMO': unpatching complete
$UNDOING
$UNDONE
$REFUSED
% rmmod $MOD_DEMO
% rmmod $MOD_BUSY
$MOD_BUSY: busymod_work_func exit
$MOD_BUSY: ${MOD_BUSY}_exit"


start_test "init fails when the livepatch was replaced"

remember_state
begin_load error=-5
enabled
load_lp $MOD_REPLACE replace=1
loop_until '[[ ! -e $SYSFS_KLP_DIR/$MOD ]]' || fail_test "$MOD was not replaced"
fail_init
end_load
disable_lp $MOD_REPLACE
unload_lp $MOD_REPLACE
check_nothing_left $MOD
check_shows /proc/cmdline "$CMDLINE"

check_result "% insmod test_modules/$MOD.ko wait=1 error=-5
$ENABLED
% insmod test_modules/$MOD_REPLACE.ko replace=1
livepatch: enabling patch '$MOD_REPLACE'
livepatch: '$MOD_REPLACE': initializing patching transition
$MOD: state_pre_unpatch
livepatch: '$MOD_REPLACE': starting patching transition
livepatch: '$MOD_REPLACE': completing patching transition
$MOD: state_post_unpatch
livepatch: '$MOD_REPLACE': patching complete
$MOD: init fails
$REFUSED
$(expect_disabled $MOD_REPLACE)"


# - enable two livepatches in one module: the second one is refused, as both would
#   have the same directory in sysfs

start_test "second livepatch of one module, which then fails"

remember_state
begin_load two=1
enabled
fail_init
end_load
check_nothing_left $MOD
check_shows /proc/cmdline "$CMDLINE"

SECOND="$ENABLED
livepatch: module '$MOD' has a livepatch enabled already
$MOD: second livepatch: -17"
check_result "% insmod test_modules/$MOD.ko wait=1 two=1
$SECOND
$WAITING
$UNDOING
$UNDONE
insmod: ERROR: could not insert module test_modules/$MOD.ko: Device or resource busy"


start_test "second livepatch of one module, which is loaded all the same"

load_lp $MOD two=1 error=1
check_shows /proc/cmdline "$MOD: $PATCHED"
disable_lp $MOD
unload_lp $MOD
check_shows /proc/cmdline "$CMDLINE"

check_result "% insmod test_modules/$MOD.ko two=1 error=1
$SECOND
% echo 0 > $SYSFS_KLP_DIR/$MOD/enabled
livepatch: '$MOD': initializing unpatching transition
$MOD: pre_unpatch
$MOD: state_pre_unpatch
livepatch: '$MOD': starting unpatching transition
livepatch: '$MOD': completing unpatching transition
$MOD: post_unpatch
$MOD: state_post_unpatch
livepatch: '$MOD': unpatching complete
% rmmod $MOD"

exit 0
