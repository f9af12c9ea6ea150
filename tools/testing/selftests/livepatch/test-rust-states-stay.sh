#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A state with block_disable cannot be removed. After a forced transition the core
# never frees the shadow variables of the livepatch that is gone.
# LAST: leaves livepatches that cannot be unloaded.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh

A=test_klp_rust_state_a
B=test_klp_rust_state_b
C=test_klp_rust_state_c
STATES=$SYSFS_DEBUG_DIR/livepatch/states

need_rust_core
setup_config


start_test "a forced transition frees nothing"

load_lp $A states=10:shadow,11 types=12 version=1
echo 1 > /sys/module/$A/parameters/hold
cat /proc/version &> /dev/null &
loop_until 'grep -q livepatch_version_proc_show "/proc/$!/stack"' ||
	fail_test "no task sleeps in the function of $A"
log "% echo 0 > $SYSFS_KLP_DIR/$A/enabled"
echo 0 > $SYSFS_KLP_DIR/$A/enabled
log "% echo 1 > $SYSFS_KLP_DIR/$A/force"
echo 1 > $SYSFS_KLP_DIR/$A/force
loop_until '[[ ! -e $SYSFS_KLP_DIR/$A ]]' || fail_test "$A is still there"
echo 0 > /sys/module/$A/parameters/hold
wait
# Later livepatches with the id do not free it either, and the log is silent.
load_lp $B states=10:shadow types=12
disable_lp $B
unload_lp $B
# The core lets go of modules one after the other: by now of that one, if at all.
[[ $(cat /sys/module/$A/refcnt) != 0 ]] || fail_test "$A could be unloaded"

check_result "% insmod test_modules/$A.ko states=10:shadow,11 types=12 version=1
livepatch: enabling patch '$A'
livepatch: '$A': initializing patching transition
$A: pre_patch of state 10
$A: pre_patch of state 11
livepatch: '$A': starting patching transition
livepatch: '$A': completing patching transition
$A: post_patch of state 10
$A: post_patch of state 11
livepatch: '$A': patching complete
% echo 0 > $SYSFS_KLP_DIR/$A/enabled
livepatch: '$A': initializing unpatching transition
$A: pre_unpatch of state 10
$A: pre_unpatch of state 11
livepatch: '$A': starting unpatching transition
% echo 1 > $SYSFS_KLP_DIR/$A/force
livepatch: forcing remaining tasks to the patched state
livepatch: '$A': completing unpatching transition
$A: post_unpatch of state 10
livepatch: shadow variables with id 10 are never freed, after a forced transition
$A: post_unpatch of state 11
livepatch: shadow variables with id 12 are never freed, after a forced transition
livepatch: '$A': unpatching complete
% insmod test_modules/$B.ko states=10:shadow types=12
livepatch: enabling patch '$B'
livepatch: '$B': initializing patching transition
$B: pre_patch of state 10
livepatch: '$B': starting patching transition
livepatch: '$B': completing patching transition
$B: post_patch of state 10
livepatch: '$B': patching complete
% echo 0 > $SYSFS_KLP_DIR/$B/enabled
livepatch: '$B': initializing unpatching transition
$B: pre_unpatch of state 10
livepatch: '$B': starting unpatching transition
livepatch: '$B': completing unpatching transition
$B: post_unpatch of state 10
livepatch: '$B': unpatching complete
% rmmod $B"


start_test "a state that blocks disabling stays"

load_lp $B states=20:block:vendor,21
# There is another owner, so this livepatch may go.
load_lp $C states=20:block
disable_lp $C
unload_lp $C
log "% echo 0 > $SYSFS_KLP_DIR/$B/enabled"
! echo 0 2> /dev/null > $SYSFS_KLP_DIR/$B/enabled || fail_test "$B was disabled"
load_failing_mod $C replace=1 states=21
# Leave out variables without owners: scripts before this one have left some.
OWNED=$(grep -v ' owners=- ' $STATES)
[[ "$OWNED" == "id=20 name=vendor owners=$B managed=1 shadow=0 block_disable=1 live=0
id=21 name=- owners=$B managed=1 shadow=0 block_disable=0 live=0" ]] || fail_test "$OWNED"
load_lp $C replace=1 states=20:block
unload_lp $B

check_result "% insmod test_modules/$B.ko states=20:block:vendor,21
livepatch: enabling patch '$B'
livepatch: '$B': initializing patching transition
$B: pre_patch of state 20
$B: pre_patch of state 21
livepatch: '$B': starting patching transition
livepatch: '$B': completing patching transition
$B: post_patch of state 20
$B: post_patch of state 21
livepatch: '$B': patching complete
% insmod test_modules/$C.ko states=20:block
livepatch: enabling patch '$C'
livepatch: '$C': initializing patching transition
livepatch: '$C': starting patching transition
livepatch: '$C': completing patching transition
livepatch: '$C': patching complete
% echo 0 > $SYSFS_KLP_DIR/$C/enabled
livepatch: '$C': initializing unpatching transition
livepatch: '$C': starting unpatching transition
livepatch: '$C': completing unpatching transition
livepatch: '$C': unpatching complete
% rmmod $C
% echo 0 > $SYSFS_KLP_DIR/$B/enabled
livepatch: livepatch '$B': state 20 (vendor) cannot be removed
livepatch: The livepatch '$B' does not support disable
% insmod test_modules/$C.ko replace=1 states=21
livepatch: livepatch '$C' does not have state 20 (vendor) of livepatch '$B', which cannot be removed
livepatch: Livepatch patch ($C) is not compatible with the already installed livepatches.
insmod: ERROR: could not insert module test_modules/$C.ko: Invalid parameters
% insmod test_modules/$C.ko replace=1 states=20:block
livepatch: enabling patch '$C'
livepatch: '$C': initializing patching transition
$B: pre_unpatch of state 21
livepatch: '$C': starting patching transition
livepatch: '$C': completing patching transition
$B: post_unpatch of state 21
livepatch: '$C': patching complete
% rmmod $B"

exit 0
