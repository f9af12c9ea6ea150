#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The samples for managed states and shadow types do what their comments say, and
# get along with the tree's own samples, which attach shadow variables by hand.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh

STATES=$SYSFS_DEBUG_DIR/livepatch/states

need_rust_core
setup_config

# load_sample(name) - load a sample; if it is a livepatch, wait until it is enabled
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
	check_result "$(grep -e 'livepatch:' -e 'test_klp' <<< "$1")"
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
	"id=1001 name=panic_timeout owners=$FIX1 managed=1 shadow=1 block_disable=0 live=1"
load_sample livepatch-state-fix2
unload_lp $FIX1
panic_is 60
check_shows $STATES \
	"id=1001 name=panic_timeout owners=$FIX2 managed=1 shadow=1 block_disable=0 live=1"
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
	for test in "livepatch-shadow-types" "the tree's samples beside ours" \
			"the tree's samples beside livepatches that declare their ids"; do
		skip_test "$test" "livepatch-shadow-mod leaks on purpose"
	done
	exit 0
fi

start_test "livepatch-shadow-types"

MOD=livepatch_shadow_mod
LP=livepatch_shadow_types
modprobe livepatch-shadow-mod || skip "no sample livepatch-shadow-mod"
load_sample livepatch-shadow-types
loop_until "grep -q '^id=1002 .* owners=$LP/$MOD .* live=[1-9]' $STATES" ||
	fail_test "no shadow variables:\n$(cat $STATES)"
rmmod $MOD
check_shows $STATES ""
modprobe livepatch-shadow-mod
loop_until "grep -q '^id=1002 .* live=[1-9]' $STATES" ||
	fail_test "no shadow variables:\n$(cat $STATES)"
disable_lp $LP
check_shows $STATES ""
unload_lp $LP
rmmod $MOD

messages "$(expect_enabled $LP)
livepatch: reverting patch '$LP' on unloading module '$MOD'
livepatch: applying patch '$LP' to loading module '$MOD'
$(expect_disabled $LP)"


# The tree's samples, unmodified. By hand, they attach variables with the ids 1 and 2
# to the structs that livepatch-shadow-mod allocates.
LEAK=livepatch_shadow_fix1
COUNT=livepatch_shadow_fix2
STATE=test_klp_rust_state_a

# variables(id, at least) - wait for so many shadow variables, more every second
function variables() {
	local live

	loop_until "live=\$(sed -n 's/^id=$1 .* live=//p' $STATES); (( live >= $2 ))" ||
		fail_test "not $2 shadow variables $1:\n$(cat $STATES)"
}

# load_leaker() - load the buggy module
function load_leaker() {
	log "% modprobe livepatch-shadow-mod"
	modprobe livepatch-shadow-mod
}

# check_samples() - fail if a sample could not allocate
function check_samples() {
	! dmesg | awk -v last="$LAST_DMESG" 'p; $0 == last { p=1 }' |
		grep "$LEAK: .*: failed to allocate" ||
		fail_test "livepatch-shadow-fix1 does not get its variables"
}

# state_on(messages) - print what load_lp() of STATE with ids 1 and 2 prints
function state_on() {
	echo "% insmod test_modules/$STATE.ko states=1:shadow types=2
livepatch: enabling patch '$STATE'
livepatch: '$STATE': initializing patching transition${1:+
$1}
$STATE: pre_patch of state 1
livepatch: '$STATE': starting patching transition
livepatch: '$STATE': completing patching transition
$STATE: post_patch of state 1
livepatch: '$STATE': patching complete"
}

# state_off() - print what disable_lp() and unload_lp() print then
function state_off() {
	echo "% echo 0 > $SYSFS_KLP_DIR/$STATE/enabled
livepatch: '$STATE': initializing unpatching transition
$STATE: pre_unpatch of state 1
livepatch: '$STATE': starting unpatching transition
livepatch: '$STATE': completing unpatching transition
$STATE: post_unpatch of state 1
$STATE: shadow variable 1 is freed
$STATE: shadow variable 1 is freed
$STATE: shadow variable 1 is freed
$STATE: shadow variable 2 is freed
livepatch: '$STATE': unpatching complete
% rmmod $STATE"
}


start_test "the tree's samples beside ours"

load_sample livepatch-state-fix1
disable_lp $FIX1
unload_lp $FIX1
load_sample livepatch-state-fix1
load_sample livepatch-shadow-types
load_sample livepatch-shadow-fix1
load_leaker
load_sample livepatch-shadow-fix2
variables 1 2
variables 2 2
disable_lp $FIX1
unload_lp $FIX1
disable_lp $LP
unload_lp $LP
variables 1 2
variables 2 2
# The other way round; livepatch-state-fix2 replaces them all.
load_sample livepatch-shadow-types
load_sample livepatch-state-fix2
unload_lp $LP
variables 1 2
load_sample livepatch-shadow-types
variables 1002 1
disable_lp $LP
unload_lp $LP
check_samples
unload_lp $COUNT
unload_lp $LEAK
check_shows $STATES \
	"id=1001 name=panic_timeout owners=$FIX2 managed=1 shadow=1 block_disable=0 live=1"
disable_lp $FIX2
unload_lp $FIX2
rmmod $MOD
check_shows $STATES ""

messages "$(expect_enabled $FIX1)
$(expect_disabled $FIX1)
$(expect_enabled $FIX1)
$(expect_enabled $LP)
$(expect_enabled $LEAK)
livepatch: applying patch '$LP' to loading module '$MOD'
livepatch: applying patch '$LEAK' to loading module '$MOD'
$(expect_enabled $COUNT)
$(expect_disabled $FIX1)
$(expect_disabled $LP)
$(expect_enabled $LP)
$(expect_enabled $FIX2)
$(expect_enabled $LP)
$(expect_disabled $LP)
$(expect_disabled $FIX2)"


start_test "the tree's samples beside livepatches that declare their ids"

# The tree's samples come after a livepatch that declares their ids and is gone,
load_lp $STATE states=1:shadow types=2
disable_lp $STATE
unload_lp $STATE
load_leaker
load_sample livepatch-shadow-fix1
load_sample livepatch-shadow-fix2
variables 1 1
variables 2 1
# before one that comes,
load_lp $STATE states=1:shadow types=2
variables 1 5
variables 2 3
disable_lp $STATE
unload_lp $STATE
variables 1 1
variables 2 1
load_lp $STATE states=1:shadow types=2
# (they free their own variables, and no others)
rmmod $MOD
disable_lp $COUNT
unload_lp $COUNT
disable_lp $LEAK
unload_lp $LEAK
OWNED="id=1 name=- owners=$STATE managed=1 shadow=1 block_disable=0 live=3
id=2 name=- owners=$STATE managed=1 shadow=1 block_disable=0 live=1"
check_shows $STATES "$OWNED"
# and after one that is there.
load_sample livepatch-shadow-fix1
load_sample livepatch-shadow-fix2
load_leaker
variables 1 5
variables 2 2
disable_lp $COUNT
unload_lp $COUNT
disable_lp $LEAK
unload_lp $LEAK
check_shows $STATES "$OWNED"
rmmod $MOD
disable_lp $STATE
unload_lp $STATE
check_shows $STATES ""
check_samples

MIXED="belong to livepatches that do not declare it"
messages "$(state_on)
$(state_off)
$(expect_enabled $LEAK)
$(expect_enabled $COUNT)
$(state_on "livepatch: some shadow variables with id 1 $MIXED
livepatch: some shadow variables with id 2 $MIXED")
$(state_off)
$(state_on)
livepatch: reverting patch '$LEAK' on unloading module '$MOD'
livepatch: reverting patch '$COUNT' on unloading module '$MOD'
$(expect_disabled $COUNT)
$(expect_disabled $LEAK)
$(expect_enabled $LEAK)
$(expect_enabled $COUNT)
livepatch: applying patch '$LEAK' to loading module '$MOD'
livepatch: applying patch '$COUNT' to loading module '$MOD'
$(expect_disabled $COUNT)
$(expect_disabled $LEAK)
$(state_off)"

exit 0
