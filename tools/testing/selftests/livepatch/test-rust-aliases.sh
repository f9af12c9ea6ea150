#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A function has two names (aliases). A livepatch that changes it under both is
# refused. A nop for one name does not hide the change under the other one.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh

P=test_klp_rust_set_
MOD=${P}1
MOD_NEXT=${P}3
MOD_TARGET=${P}target
FIRST=${P}first ALIAS=${P}alias SECOND=${P}second

READERS=()

function cleanup() {
	local reader

	for reader in "${READERS[@]}"; do
		kill "$reader" 2>/dev/null
	done
	pop_config
}

need_rust_core
setup_config

INVALID="Invalid parameters"	# what insmod makes of EINVAL

# same(first, second) - print the message about a function with two names
function same() {
	local functions="functions '$1,1' and '$2,1'"

	echo "livepatch: livepatch '$MOD': $functions of object '$MOD_TARGET' are the same"
}


start_test "two names of one function"

load_mod $MOD_TARGET
remember_state
load_failing_mod $MOD "target=$FIRST,$ALIAS"
check_nothing_left $MOD
load_failing_mod $MOD "target=$ALIAS,$SECOND,$FIRST:1"
check_nothing_left $MOD
check_shows "/proc/$FIRST" "original first"
unload_mod $MOD_TARGET

check_result "% insmod test_modules/$MOD_TARGET.ko
% insmod test_modules/$MOD.ko target=$FIRST,$ALIAS
$(same $FIRST $ALIAS)
insmod: ERROR: could not insert module test_modules/$MOD.ko: $INVALID
% insmod test_modules/$MOD.ko target=$ALIAS,$SECOND,$FIRST:1
$(same $ALIAS $FIRST)
insmod: ERROR: could not insert module test_modules/$MOD.ko: $INVALID
% rmmod $MOD_TARGET"


# - load the livepatch, then the module: the module is refused, as when it lacks a
#   function
# - check that the livepatch stays in effect for its other functions

start_test "two names of one function, which shows when its module is loaded"

load_lp $MOD "vmlinux=cmdline_proc_show" "target=$FIRST,$ALIAS"
load_failing_mod $MOD_TARGET
! module_loaded $MOD_TARGET || fail_test "$MOD_TARGET is still there"
check_sysfs_value $MOD "$MOD_TARGET/patched" 0
check_shows /proc/cmdline $MOD
disable_lp $MOD
unload_lp $MOD
load_mod $MOD_TARGET
check_shows "/proc/$FIRST" "original first"
unload_mod $MOD_TARGET

check_result "% insmod test_modules/$MOD.ko vmlinux=cmdline_proc_show target=$FIRST,$ALIAS
$(expect_enabled $MOD)
% insmod test_modules/$MOD_TARGET.ko
$(same $FIRST $ALIAS)
livepatch: failed to initialize patch '$MOD' for module '$MOD_TARGET' (-22)
livepatch: patch '$MOD' failed for module '$MOD_TARGET', refusing to load module '$MOD_TARGET'
insmod: ERROR: could not insert module test_modules/$MOD_TARGET.ko: $INVALID
$(expect_disabled $MOD)
% insmod test_modules/$MOD_TARGET.ko
% rmmod $MOD_TARGET"


# - replace a livepatch by one that has the function under its other name
# - check, during the transition, that a switched task runs the new function: the
#   nop for the old name must not hide it

start_test "another name in the livepatch that replaces"

load_mod $MOD_TARGET
load_lp $MOD set=1 "target=$FIRST,$SECOND"
echo 1 > /sys/module/$MOD/parameters/hold
READER=$(mktemp -d)/reader
cp "$(command -v cat)" "$READER"
(exec -a reader "$READER" "/proc/$SECOND" > /dev/null) &
READERS+=($!)
loop_until 'grep -q livepatch_set_show "/proc/$!/stack"' ||
	fail_test "no task sleeps in $MOD"
load_lp_nowait $MOD_NEXT set=1 "target=$ALIAS"
loop_until '[[ "$(cat /proc/$FIRST)" == $MOD_NEXT ]]' ||
	fail_test "$FIRST shows: $(cat /proc/$FIRST)"
check_sysfs_value $MOD_NEXT transition 1
echo 0 > /sys/module/$MOD/parameters/hold
wait
loop_until '[[ ! -e $SYSFS_KLP_DIR/$MOD ]]' || fail_test "$MOD is still there"
check_shows "/proc/$FIRST" $MOD_NEXT
check_shows "/proc/$SECOND" "original second"
unload_lp $MOD
disable_lp $MOD_NEXT
unload_lp $MOD_NEXT
check_shows "/proc/$FIRST" "original first"
unload_mod $MOD_TARGET

check_result "% insmod test_modules/$MOD_TARGET.ko
% insmod test_modules/$MOD.ko set=1 target=$FIRST,$SECOND
$(expect_enabled $MOD)
% insmod test_modules/$MOD_NEXT.ko set=1 target=$ALIAS
$(expect_enabled $MOD_NEXT)
% rmmod $MOD
$(expect_disabled $MOD_NEXT)
% rmmod $MOD_TARGET"

exit 0
