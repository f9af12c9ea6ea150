#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The samples of what only the livepatch core in Rust has.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh

STATES=$SYSFS_DEBUG_DIR/livepatch/states

need_rust_core
setup_config

# load_sample(name) - load a sample, a livepatch all the way
function load_sample() {
	local lp="$SYSFS_KLP_DIR/${1//-/_}"

	log "% modprobe $1"
	modprobe "$1" || skip "no sample $1 (CONFIG_SAMPLE_LIVEPATCH)"
	[[ $1 == *-mod ]] ||
		loop_until "grep -q '^0\$' $lp/transition" ||
		fail_test "$1 is not enabled"
}

# messages(text) - check_result(), for modules whose names it does not look for
function messages() {
	check_result "$(grep 'livepatch: ' <<< "$1")"
}

# panic_is(seconds) - fail unless that is the time until a reboot
function panic_is() {
	check_shows /proc/sys/kernel/panic "$1"
}


start_test "livepatch-state-fix1 and -fix2"

FIX1=livepatch_state_fix1
FIX2=livepatch_state_fix2
echo 0 > /proc/sys/kernel/panic
load_sample livepatch-state-fix1
panic_is 60
check_shows $STATES \
	"id=1 name=panic_timeout owners=$FIX1 managed=1 shadow=1 block_disable=0 live=1"
load_sample livepatch-state-fix2
unload_lp $FIX1
panic_is 60
check_shows $STATES \
	"id=1 name=panic_timeout owners=$FIX2 managed=1 shadow=1 block_disable=0 live=1"
disable_lp $FIX2
unload_lp $FIX2
panic_is 0
check_shows $STATES ""
# Without the first release it does the same.
load_sample livepatch-state-fix2
panic_is 60
disable_lp $FIX2
unload_lp $FIX2
panic_is 0

messages "livepatch: enabling patch '$FIX1'
livepatch: '$FIX1': initializing patching transition
livepatch: '$FIX1': starting patching transition
livepatch: '$FIX1': completing patching transition
livepatch: '$FIX1': patching complete
livepatch: enabling patch '$FIX2'
livepatch: '$FIX2': initializing patching transition
livepatch: '$FIX2': starting patching transition
livepatch: '$FIX2': completing patching transition
livepatch: '$FIX2': patching complete
$(expect_disabled $FIX2)
$(expect_enabled $FIX2)
$(expect_disabled $FIX2)"


if [[ ${KMEMLEAK:-} == on ]]; then
	skip_test "livepatch-shadow-types" "livepatch-shadow-mod leaks on purpose"
	exit 0
fi

start_test "livepatch-shadow-types"

MOD=livepatch_shadow_mod
LP=livepatch_shadow_types
modprobe livepatch-shadow-mod || skip "no sample livepatch-shadow-mod"
load_sample livepatch-shadow-types
loop_until "grep -q '^id=3 .* owners=$LP/$MOD .* live=[1-9]' $STATES" ||
	fail_test "no shadow variables:\n$(cat $STATES)"
rmmod $MOD
check_shows $STATES ""
modprobe livepatch-shadow-mod
loop_until "grep -q '^id=3 .* live=[1-9]' $STATES" ||
	fail_test "no shadow variables:\n$(cat $STATES)"
disable_lp $LP
check_shows $STATES ""
unload_lp $LP
rmmod $MOD

messages "$(expect_enabled $LP)
livepatch: reverting patch '$LP' on unloading module '$MOD'
livepatch: applying patch '$LP' to loading module '$MOD'
$(expect_disabled $LP)"

exit 0
