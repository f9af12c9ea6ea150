#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Modules of livepatches are never freed after a forced transition, nor when the
# init function has failed and tasks keep the core from undoing the livepatch.
# LAST: leaves livepatches that cannot be unloaded.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh

MOD=test_klp_rust_initfail
MOD_FIELDS=test_klp_rust_fields

need_rust_core
setup_config

CMDLINE=$(cat /proc/cmdline)
PATCHED="this has been live patched"
BUSY="Device or resource busy"

# start_reader(function) - have a task sleep in the new function for /proc/cmdline
function start_reader() {
	cat /proc/cmdline > /tmp/reader &
	READER=$!
	loop_until 'grep -q '"$1"' "/proc/$READER/stack"' ||
		fail_test "no task sleeps in $1"
}


# - fail while a task sleeps in the new function
# - wait until the core has given up waiting, then let the task go: it returns to a
#   function that must still be there

start_test "init fails while a task sleeps in the new function for good"

log "% insmod test_modules/$MOD.ko error=-5 wait=1 hold=2 shadow=1"
insmod test_modules/$MOD.ko error=-5 wait=1 hold=2 shadow=1 > /tmp/insmod 2>&1 &
INSMOD=$!
loop_until 'grep -qs "^1$" $SYSFS_KLP_DIR/$MOD/enabled' || fail_test "$MOD is not enabled"
loop_until 'grep -q "^0$" $SYSFS_KLP_DIR/$MOD/transition' || fail_test "no end of its transition"
start_reader livepatch_cmdline_proc_show
echo 0 > /sys/module/$MOD/parameters/wait
wait $INSMOD && fail_test "$MOD was loaded"
log "$(cat /tmp/insmod)"
module_loaded $MOD || fail_test "$MOD was freed"
check_shows /sys/module/$MOD/initstate going
check_sysfs_value $MOD transition 1
load_failing_mod $MOD error=-5
echo 0 > /sys/module/$MOD/parameters/hold
wait $READER || fail_test "the reader failed"
check_shows /tmp/reader "$MOD: $PATCHED"
loop_until '[[ ! -e $SYSFS_KLP_DIR/$MOD ]]' || fail_test "$MOD is not undone"
check_shows /proc/cmdline "$CMDLINE"
module_loaded $MOD || fail_test "$MOD was freed"
rmmod $MOD 2> /dev/null && fail_test "$MOD was unloaded"

check_result "% insmod test_modules/$MOD.ko error=-5 wait=1 hold=2 shadow=1
livepatch: enabling patch '$MOD'
livepatch: '$MOD': initializing patching transition
$MOD: state_pre_patch
$MOD: pre_patch
livepatch: '$MOD': starting patching transition
livepatch: '$MOD': completing patching transition
$MOD: state_post_patch
$MOD: post_patch
livepatch: '$MOD': patching complete
$MOD: init fails
livepatch: module '$MOD' goes while its livepatch is enabled, waiting until it is undone
livepatch: '$MOD': initializing unpatching transition
livepatch: '$MOD': starting unpatching transition
livepatch: signaling remaining tasks
livepatch: module '$MOD' stays for ever: tasks may run functions of its livepatch
insmod: ERROR: could not insert module test_modules/$MOD.ko: Input/output error
% insmod test_modules/$MOD.ko error=-5
insmod: ERROR: could not insert module test_modules/$MOD.ko: $BUSY
livepatch: '$MOD': completing unpatching transition
livepatch: shadow variables with id 9000 are never freed, after its livepatch failed to load
livepatch: '$MOD': unpatching complete"


start_test "a livepatch can tell that it was forced"

load_lp $MOD_FIELDS
echo 1 > /sys/module/$MOD_FIELDS/parameters/hold
start_reader livepatch_show
echo 0 > $SYSFS_KLP_DIR/$MOD_FIELDS/enabled
echo 1 > $SYSFS_KLP_DIR/$MOD_FIELDS/force
loop_until '[[ ! -e $SYSFS_KLP_DIR/$MOD_FIELDS ]]' || fail_test "$MOD_FIELDS is still there"
echo 0 > /sys/module/$MOD_FIELDS/parameters/hold
wait $READER
dmesg | grep "$MOD_FIELDS: .* enabled=" | sed 's/.*\(test_klp\)/\1/' > /tmp/fields
SAID="enabled=0 forced=1 post_unpatch_enabled=1 lists agree"
[[ "$(cat /tmp/fields)" == *"$MOD_FIELDS: post_unpatch of vmlinux: $SAID" ]] ||
	fail_test "what it says:\n$(cat /tmp/fields)"
[[ $(grep -c forced=1 /tmp/fields) == 1 ]] || fail_test "what it says:\n$(cat /tmp/fields)"
echo "ok"

exit 0
