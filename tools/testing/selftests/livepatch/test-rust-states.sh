#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The core manages states and shadow types. It calls the right callbacks of the right
# livepatch at the right time, frees the shadow variables of the owners, leaves those
# that were made by hand, and refuses livepatches that do not agree.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh

A=test_klp_rust_state_a
B=test_klp_rust_state_b
C=test_klp_rust_state_c
MOD_BUSY=test_klp_callbacks_busy
MOD_TARGET=test_klp_mod_target
STATES=$SYSFS_DEBUG_DIR/livepatch/states
CORE_REFS=/sys/module/livepatch/refcnt
NO_TYPE="livepatch: klp_shadow_type_get_or_alloc: Trying to get shadow variable of"
MIXED="livepatch: some shadow variables with id"
DECLARE="belong to livepatches that do not declare it"

need_rust_core
setup_config

# check_owners(line...) - fail unless debugfs shows just these owners of ids
function check_owners() {
	local now expected

	now=$(cat "$STATES") || fail_test "no $STATES"
	expected=$(printf '%s\n' "$@")
	[[ "$now" == "$expected" ]] ||
		fail_test "$STATES should be:\n$expected\nis:\n$now"
}

# check_live(id, number) - fail unless there are as many shadow variables
function check_live() {
	grep -q "^id=$1 .* live=$2\$" "$STATES" ||
		fail_test "not $2 shadow variables $1:\n$(cat "$STATES")"
}

# ownerless(id, number) - what debugfs shows of shadow variables without owners
function ownerless() {
	echo "id=$1 name=- owners=- managed=0 shadow=0 block_disable=0 live=$2"
}

# end_test(messages) - check_result(), and check that no state is left
function end_test() {
	check_owners
	check_result "$@"
}

# enabling(params, states' messages before and after) - what load_lp() prints
function enabling() {
	local mod="$1" params="$2" before="$3" after="$4"

	echo "% insmod test_modules/$mod.ko $params
livepatch: enabling patch '$mod'
livepatch: '$mod': initializing patching transition${before:+
$before}
livepatch: '$mod': starting patching transition
livepatch: '$mod': completing patching transition${after:+
$after}
livepatch: '$mod': patching complete"
}

# disabling(modname, states' messages before and after) - what disable_lp()
#						and unload_lp() print
function disabling() {
	local mod="$1" before="$2" after="$3"

	echo "% echo 0 > $SYSFS_KLP_DIR/$mod/enabled
livepatch: '$mod': initializing unpatching transition${before:+
$before}
livepatch: '$mod': starting unpatching transition
livepatch: '$mod': completing unpatching transition${after:+
$after}
livepatch: '$mod': unpatching complete
% rmmod $mod"
}

# refused(modname, params, reason) - what load_failing_mod() prints
function refused() {
	echo "% insmod test_modules/$1.ko $2
livepatch: $3${4:+
livepatch: Livepatch patch ($1) is not compatible with the already installed livepatches.}
insmod: ERROR: could not insert module test_modules/$1.ko: Invalid parameters"
}

# wait_transition(modname, value) - until the livepatch is in that state
function wait_transition() {
	loop_until '[[ "$(cat "$SYSFS_KLP_DIR/'"$1"'/transition")" == "'"$2"'" ]]' ||
		fail_test "$1 does not get to transition=$2"
}

# hold_version(modname) - leave a task in the livepatch's function
function hold_version() {
	echo 1 > "/sys/module/$1/parameters/hold"
	cat /proc/version &> /dev/null &
	HOLDER=$!
	loop_until 'grep -q livepatch_version_proc_show "/proc/$HOLDER/stack"' ||
		fail_test "no task sleeps in the function of $1"
}

# release_version(modname) - let it go on
function release_version() {
	echo 0 > "/sys/module/$1/parameters/hold"
	wait "$HOLDER"
}


start_test "callbacks of states and of objects mirror each other"

load_lp $A states=11:vendor,10 callbacks=1
check_owners "id=11 name=vendor owners=$A managed=1 shadow=0 block_disable=0 live=0" \
	"id=10 name=- owners=$A managed=1 shadow=0 block_disable=0 live=0"
disable_lp $A
unload_lp $A

end_test "$(enabling $A "states=11:vendor,10 callbacks=1" \
"$A: pre_patch of state 11
$A: pre_patch of state 10
$A: pre_patch of vmlinux" \
"$A: post_patch of state 11
$A: post_patch of state 10
$A: post_patch of vmlinux")
$(disabling $A \
"$A: pre_unpatch of vmlinux
$A: pre_unpatch of state 11
$A: pre_unpatch of state 10" \
"$A: post_unpatch of vmlinux
$A: post_unpatch of state 11
$A: post_unpatch of state 10")"


start_test "a pre_patch that fails undoes those before it"

remember_state
load_failing_mod $A states=10:shadow,11,12 fail=11 callbacks=1
check_nothing_left $A

end_test "% insmod test_modules/$A.ko states=10:shadow,11,12 fail=11 callbacks=1
livepatch: enabling patch '$A'
livepatch: '$A': initializing patching transition
$A: pre_patch of state 10
$A: pre_patch of state 11
livepatch: failed to enable patch '$A'
livepatch: '$A': canceling patching transition, going to unpatch
livepatch: '$A': completing unpatching transition
$A: post_unpatch of state 10
$A: shadow variable 10 is freed
$A: shadow variable 10 is freed
$A: shadow variable 10 is freed
livepatch: '$A': unpatching complete
insmod: ERROR: could not insert module test_modules/$A.ko: No such device"


start_test "livepatches side by side share a state"

load_lp $A states=10:shadow,11
load_lp $B states=10:shadow,12
check_owners "id=11 name=- owners=$A managed=1 shadow=0 block_disable=0 live=0" \
	"id=10 name=- owners=$A,$B managed=1 shadow=1 block_disable=0 live=3" \
	"id=12 name=- owners=$B managed=1 shadow=0 block_disable=0 live=0"
disable_lp $A
unload_lp $A
check_live 10 3
disable_lp $B
unload_lp $B

end_test "$(enabling $A states=10:shadow,11 \
"$A: pre_patch of state 10
$A: pre_patch of state 11" \
"$A: post_patch of state 10
$A: post_patch of state 11")
$(enabling $B states=10:shadow,12 \
"$B: pre_patch of state 12" \
"$B: post_patch of state 12")
$(disabling $A \
"$A: pre_unpatch of state 11" \
"$A: post_unpatch of state 11")
$(disabling $B \
"$B: pre_unpatch of state 10
$B: pre_unpatch of state 12" \
"$B: post_unpatch of state 10
$B: shadow variable 10 is freed
$B: shadow variable 10 is freed
$B: shadow variable 10 is freed
$B: post_unpatch of state 12")"


start_test "an atomic replace keeps, adds and drops states"

load_lp $A states=10:shadow,11,13:shadow
load_lp $B replace=1 states=13:shadow,14
unload_lp $A
check_owners "id=13 name=- owners=$B managed=1 shadow=1 block_disable=0 live=3" \
	"id=14 name=- owners=$B managed=1 shadow=0 block_disable=0 live=0"
disable_lp $B
unload_lp $B

end_test "$(enabling $A states=10:shadow,11,13:shadow \
"$A: pre_patch of state 10
$A: pre_patch of state 11
$A: pre_patch of state 13" \
"$A: post_patch of state 10
$A: post_patch of state 11
$A: post_patch of state 13")
$(enabling $B "replace=1 states=13:shadow,14" \
"$B: pre_patch of state 14
$A: pre_unpatch of state 10
$A: pre_unpatch of state 11" \
"$A: post_unpatch of state 10
$A: shadow variable 10 is freed
$A: shadow variable 10 is freed
$A: shadow variable 10 is freed
$A: post_unpatch of state 11
$B: post_patch of state 14")
% rmmod $A
$(disabling $B \
"$B: pre_unpatch of state 13
$B: pre_unpatch of state 14" \
"$B: post_unpatch of state 13
$B: shadow variable 13 is freed
$B: shadow variable 13 is freed
$B: shadow variable 13 is freed
$B: post_unpatch of state 14")"


start_test "a state of two livepatches goes when both are replaced"

load_lp $A states=10:shadow
load_lp $B states=10:shadow
load_lp $C replace=1
unload_lp $A
unload_lp $B
check_owners
disable_lp $C
unload_lp $C

end_test "$(enabling $A states=10:shadow \
"$A: pre_patch of state 10" "$A: post_patch of state 10")
$(enabling $B states=10:shadow)
$(enabling $C replace=1 \
"$B: pre_unpatch of state 10" \
"$B: post_unpatch of state 10
$B: shadow variable 10 is freed
$B: shadow variable 10 is freed
$B: shadow variable 10 is freed")
% rmmod $A
% rmmod $B
$(disabling $C)"


start_test "a replace that is turned round and back"

load_lp $A states=10:shadow version=1
hold_version $A
load_lp_nowait $B replace=1 states=11:shadow
wait_transition $B 1
check_live 10 3
check_live 11 3
log "% echo 0 > $SYSFS_KLP_DIR/$B/enabled"
echo 0 > $SYSFS_KLP_DIR/$B/enabled
loop_until '[[ ! -e $SYSFS_KLP_DIR/$B ]]' || fail_test "$B is still there"
unload_lp $B
check_owners "id=10 name=- owners=$A managed=1 shadow=1 block_disable=0 live=3"
release_version $A
disable_lp $A
unload_lp $A

end_test "$(enabling $A "states=10:shadow version=1" \
"$A: pre_patch of state 10" "$A: post_patch of state 10")
% insmod test_modules/$B.ko replace=1 states=11:shadow
livepatch: enabling patch '$B'
livepatch: '$B': initializing patching transition
$B: pre_patch of state 11
$A: pre_unpatch of state 10
livepatch: '$B': starting patching transition
% echo 0 > $SYSFS_KLP_DIR/$B/enabled
livepatch: '$B': reversing transition from patching to unpatching
livepatch: '$B': starting unpatching transition
livepatch: '$B': completing unpatching transition
$A: post_patch of state 10
$B: post_unpatch of state 11
$B: shadow variable 11 is freed
$B: shadow variable 11 is freed
$B: shadow variable 11 is freed
livepatch: '$B': unpatching complete
% rmmod $B
$(disabling $A \
"$A: pre_unpatch of state 10" \
"$A: post_unpatch of state 10
$A: shadow variable 10 is freed
$A: shadow variable 10 is freed
$A: shadow variable 10 is freed")"


start_test "a disable that is turned round"

load_lp $A states=10:shadow version=1
hold_version $A
log "% echo 0 > $SYSFS_KLP_DIR/$A/enabled"
echo 0 > $SYSFS_KLP_DIR/$A/enabled
wait_transition $A 1
log "% echo 1 > $SYSFS_KLP_DIR/$A/enabled"
echo 1 > $SYSFS_KLP_DIR/$A/enabled
wait_transition $A 0
check_live 10 3
release_version $A
disable_lp $A
unload_lp $A

end_test "$(enabling $A "states=10:shadow version=1" \
"$A: pre_patch of state 10" "$A: post_patch of state 10")
% echo 0 > $SYSFS_KLP_DIR/$A/enabled
livepatch: '$A': initializing unpatching transition
$A: pre_unpatch of state 10
livepatch: '$A': starting unpatching transition
% echo 1 > $SYSFS_KLP_DIR/$A/enabled
livepatch: '$A': reversing transition from unpatching to patching
livepatch: '$A': starting patching transition
livepatch: '$A': completing patching transition
$A: post_patch of state 10
livepatch: '$A': patching complete
$(disabling $A \
"$A: pre_unpatch of state 10" \
"$A: post_unpatch of state 10
$A: shadow variable 10 is freed
$A: shadow variable 10 is freed
$A: shadow variable 10 is freed")"


start_test "a state that blocks disabling does not block the end of a stuck enable"

load_mod $MOD_BUSY block_transition=Y
load_lp_nowait $A states=10:block
wait_transition $A 1
log "% echo 0 > $SYSFS_KLP_DIR/$A/enabled"
echo 0 > $SYSFS_KLP_DIR/$A/enabled
loop_until '[[ ! -e $SYSFS_KLP_DIR/$A ]]' || fail_test "$A is still there"
unload_lp $A
unload_mod $MOD_BUSY

end_test "% insmod test_modules/$MOD_BUSY.ko block_transition=Y
$MOD_BUSY: ${MOD_BUSY}_init
$MOD_BUSY: busymod_work_func enter
% insmod test_modules/$A.ko states=10:block
livepatch: enabling patch '$A'
livepatch: '$A': initializing patching transition
$A: pre_patch of state 10
livepatch: '$A': starting patching transition
% echo 0 > $SYSFS_KLP_DIR/$A/enabled
livepatch: '$A': reversing transition from patching to unpatching
livepatch: '$A': starting unpatching transition
livepatch: '$A': completing unpatching transition
$A: post_unpatch of state 10
livepatch: '$A': unpatching complete
% rmmod $A
% rmmod $MOD_BUSY
$MOD_BUSY: busymod_work_func exit
$MOD_BUSY: ${MOD_BUSY}_exit"


start_test "a state of 7.3 is handed over to one that is managed"

load_lp $A states=10:quiet=2
load_lp $B replace=1 states=10:shadow=2
unload_lp $A
check_live 10 0
disable_lp $B
unload_lp $B

end_test "$(enabling $A states=10:quiet=2)
$(enabling $B "replace=1 states=10:shadow=2")
% rmmod $A
$(disabling $B \
"$B: pre_unpatch of state 10" \
"$B: post_unpatch of state 10")"


start_test "shadow types of a livepatch and of its object"

load_lp $A types=20 object_types=21
check_owners "id=20 name=- owners=$A managed=1 shadow=1 block_disable=0 live=1"
load_mod $MOD_TARGET
check_owners "id=20 name=- owners=$A managed=1 shadow=1 block_disable=0 live=2" \
	"id=21 name=- owners=$A/$MOD_TARGET managed=1 shadow=1 block_disable=0 live=2"
load_lp $B replace=1 types=20
unload_lp $A
check_owners "id=20 name=- owners=$B managed=1 shadow=1 block_disable=0 live=2"
unload_mod $MOD_TARGET
check_live 20 1
disable_lp $B
unload_lp $B

end_test "$(enabling $A "types=20 object_types=21")
% insmod test_modules/$MOD_TARGET.ko
livepatch: applying patch '$A' to loading module '$MOD_TARGET'
$MOD_TARGET: ${MOD_TARGET}_init
$(enabling $B "replace=1 types=20" "" \
"$A: shadow variable 21 is freed
$A: shadow variable 21 is freed")
% rmmod $A
% rmmod $MOD_TARGET
$MOD_TARGET: ${MOD_TARGET}_exit
livepatch: reverting patch '$B' on unloading module '$MOD_TARGET'
$B: shadow variable 20 is freed
$(disabling $B "" "$B: shadow variable 20 is freed")"


start_test "shadow variables of a type need an owner, others do not"

load_lp $A states=30:shadow types=31
disable_lp $A
unload_lp $A
load_lp $B attempt=30
disable_lp $B
unload_lp $B
load_lp $B attempt=31 attempt_type=31
disable_lp $B
unload_lp $B

end_test "$(enabling $A "states=30:shadow types=31" \
"$A: pre_patch of state 30" "$A: post_patch of state 30")
$(disabling $A \
"$A: pre_unpatch of state 30" \
"$A: post_unpatch of state 30
$A: shadow variable 30 is freed
$A: shadow variable 30 is freed
$A: shadow variable 30 is freed
$A: shadow variable 31 is freed")
$(enabling $B attempt=30 "$B: there is a shadow variable 30 now")
$(disabling $B)
$(enabling $B "attempt=31 attempt_type=31" "$NO_TYPE non-registered type: 31
$B: no shadow variable 31
$B: there is a shadow variable 31 now")
$(disabling $B)"


start_test "shadow variables that are freed by hand have nothing to do with owners"

# Made by the same livepatch, while the id has an owner.
load_lp $C types=31 attempt=31 keep=1
check_live 31 2
disable_lp $C
check_owners "$(ownerless 31 1)"
unload_lp $C
check_owners
# Made by another livepatch, before the id has an owner. The log says so once per id.
load_lp $B attempt=31 keep=1
load_lp $A states=31:shadow
check_live 31 3
disable_lp $A
check_owners "$(ownerless 31 1)"
unload_lp $A
disable_lp $B
unload_lp $B

end_test "$(enabling $C "types=31 attempt=31 keep=1" "$MIXED 31 $DECLARE
$C: there is a shadow variable 31 now")
$(disabling $C "" "$C: shadow variable 31 is freed")
$C: shadow variable 31 is freed
$(enabling $B "attempt=31 keep=1" "$B: there is a shadow variable 31 now")
$(enabling $A states=31:shadow \
"$A: pre_patch of state 31" "$A: post_patch of state 31")
$(disabling $A \
"$A: pre_unpatch of state 31" \
"$A: post_unpatch of state 31
$A: shadow variable 31 is freed
$A: shadow variable 31 is freed")
$(disabling $B)
$B: shadow variable 31 is freed"


start_test "they outlive a livepatch that does not come, however often"

load_lp $C attempt=40 keep=1
load_failing_mod $A types=40 states=41:vendor fail=41
load_lp $B states=40:shadow
disable_lp $B
unload_lp $B
load_failing_mod $A types=40 states=41:vendor fail=41
check_owners "$(ownerless 40 1)"
disable_lp $C
unload_lp $C

FAILED="livepatch: enabling patch '$A'
livepatch: '$A': initializing patching transition"
CANCELED="$A: pre_patch of state 41
livepatch: pre-patch callback failed for state 41 (vendor) (-19)
livepatch: failed to enable patch '$A'
livepatch: '$A': canceling patching transition, going to unpatch
livepatch: '$A': completing unpatching transition
livepatch: '$A': unpatching complete
insmod: ERROR: could not insert module test_modules/$A.ko: No such device"
end_test "$(enabling $C "attempt=40 keep=1" "$C: there is a shadow variable 40 now")
% insmod test_modules/$A.ko types=40 states=41:vendor fail=41
$FAILED
$MIXED 40 $DECLARE
$CANCELED
$(enabling $B states=40:shadow \
"$B: pre_patch of state 40" "$B: post_patch of state 40")
$(disabling $B \
"$B: pre_unpatch of state 40" \
"$B: post_unpatch of state 40
$B: shadow variable 40 is freed
$B: shadow variable 40 is freed")
% insmod test_modules/$A.ko types=40 states=41:vendor fail=41
$FAILED
$CANCELED
$(disabling $C)
$C: shadow variable 40 is freed"


start_test "a livepatch that tidies up by hand leaves the variables of owners alone"

load_lp $A states=33:shadow types=34
load_lp $B tidy=33
load_lp $C attempt=34 leave=1 tidy=34
check_live 34 2
disable_lp $C
unload_lp $C
disable_lp $B
unload_lp $B
check_owners "id=33 name=- owners=$A managed=1 shadow=1 block_disable=0 live=3" \
	"id=34 name=- owners=$A managed=1 shadow=1 block_disable=0 live=1"
disable_lp $A
unload_lp $A

end_test "$(enabling $A "states=33:shadow types=34" \
"$A: pre_patch of state 33" "$A: post_patch of state 33")
$(enabling $B tidy=33)
$(enabling $C "attempt=34 leave=1 tidy=34" "$MIXED 34 $DECLARE
$C: there is a shadow variable 34 now")
$(disabling $C)
$C: shadow variable 34 is freed
$(disabling $B)
$(disabling $A \
"$A: pre_unpatch of state 33" \
"$A: post_unpatch of state 33
$A: shadow variable 33 is freed
$A: shadow variable 33 is freed
$A: shadow variable 33 is freed
$A: shadow variable 34 is freed")"


start_test "shadow variables that are left behind are shown, and keep the core"

load_lp $B attempt=60 leave=1
disable_lp $B
unload_lp $B
check_owners "$(ownerless 60 1)"
if [[ -e $CORE_REFS ]]; then
	check_shows $CORE_REFS 1
	! rmmod livepatch 2> /dev/null || fail_test "the core was unloaded"
fi
# The administrator can load a livepatch that frees them.
load_lp $C tidy=60
disable_lp $C
unload_lp $C
[[ ! -e $CORE_REFS ]] || check_shows $CORE_REFS 0

end_test "$(enabling $B "attempt=60 leave=1" "$B: there is a shadow variable 60 now")
$(disabling $B)
$(enabling $C tidy=60)
$(disabling $C)
$C: shadow variable 60 is freed"


start_test "states repaired and unblocked by a release"

# The first release forgets post_unpatch and cannot be disabled.
load_lp $A states=50:block:forgot
log "% echo 0 > $SYSFS_KLP_DIR/$A/enabled"
! echo 0 2> /dev/null > $SYSFS_KLP_DIR/$A/enabled || fail_test "$A was disabled"
load_failing_mod $B replace=1
load_lp $B replace=1 states=50
unload_lp $A
check_owners "id=50 name=- owners=$B managed=1 shadow=0 block_disable=0 live=0"
# A release without block_disable is the way out of this, too.
load_lp $A replace=1 states=50:block:forgot
unload_lp $B
log "% echo 0 > $SYSFS_KLP_DIR/$A/enabled"
! echo 0 2> /dev/null > $SYSFS_KLP_DIR/$A/enabled || fail_test "$A was disabled"
load_lp $C replace=1 states=50
unload_lp $A
disable_lp $C
unload_lp $C

end_test "$(enabling $A states=50:block:forgot \
"$A: pre_patch of state 50" "$A: post_patch of state 50")
% echo 0 > $SYSFS_KLP_DIR/$A/enabled
livepatch: The livepatch '$A' does not support disable
% insmod test_modules/$B.ko replace=1
livepatch: Livepatch patch ($B) is not compatible with the already installed livepatches.
insmod: ERROR: could not insert module test_modules/$B.ko: Invalid parameters
$(enabling $B "replace=1 states=50")
% rmmod $A
$(enabling $A "replace=1 states=50:block:forgot")
% rmmod $B
% echo 0 > $SYSFS_KLP_DIR/$A/enabled
livepatch: The livepatch '$A' does not support disable
$(enabling $C "replace=1 states=50")
% rmmod $A
$(disabling $C \
"$C: pre_unpatch of state 50" "$C: post_unpatch of state 50")"


start_test "livepatches side by side each go by their own"

load_lp $A states=51:forgot,52
load_lp $B states=51:block,52:quiet:name
# The last livepatch with the state removes it with its own callbacks.
disable_lp $B
unload_lp $B
load_lp $B states=51,52:block
disable_lp $A
unload_lp $A
log "% echo 0 > $SYSFS_KLP_DIR/$B/enabled"
! echo 0 2> /dev/null > $SYSFS_KLP_DIR/$B/enabled || fail_test "$B was disabled"
load_lp $A replace=1 states=51:forgot,52
unload_lp $B
disable_lp $A
unload_lp $A

end_test "$(enabling $A states=51:forgot,52 \
"$A: pre_patch of state 51
$A: pre_patch of state 52" \
"$A: post_patch of state 51
$A: post_patch of state 52")
$(enabling $B states=51:block,52:quiet:name)
$(disabling $B)
$(enabling $B states=51,52:block)
$(disabling $A)
% echo 0 > $SYSFS_KLP_DIR/$B/enabled
livepatch: The livepatch '$B' does not support disable
$(enabling $A "replace=1 states=51:forgot,52")
% rmmod $B
$(disabling $A \
"$A: pre_unpatch of state 51
$A: pre_unpatch of state 52" \
"$A: post_unpatch of state 52")"


start_test "a state and a shadow type with one id"

load_lp $A states=53:shadow types=53
check_owners "id=53 name=- owners=$A managed=1 shadow=1 block_disable=0 live=3"
disable_lp $A
unload_lp $A

end_test "$(enabling $A "states=53:shadow types=53" \
"$A: pre_patch of state 53" "$A: post_patch of state 53")
$(disabling $A \
"$A: pre_unpatch of state 53" \
"$A: post_unpatch of state 53
$A: shadow variable 53 is freed
$A: shadow variable 53 is freed
$A: shadow variable 53 is freed")"


start_test "a state of 7.3 that is there twice counts as in 7.3"

load_lp $A states=54:quiet=1,54:quiet=2
check_owners "id=54 name=- owners=$A managed=0 shadow=0 block_disable=0 live=0"
load_failing_mod $B replace=1 states=54:quiet=1
load_lp $B replace=1 states=54:quiet=2,54:quiet=1
unload_lp $A
disable_lp $B
unload_lp $B

end_test "$(enabling $A states=54:quiet=1,54:quiet=2)
% insmod test_modules/$B.ko replace=1 states=54:quiet=1
livepatch: Livepatch patch ($B) is not compatible with the already installed livepatches.
insmod: ERROR: could not insert module test_modules/$B.ko: Invalid parameters
$(enabling $B "replace=1 states=54:quiet=2,54:quiet=1")
% rmmod $A
$(disabling $B)"


start_test "mistakes in one livepatch are refused"

remember_state
for params in states=10,10 states=10:quiet,10 states=10:dtor types=20,20 types=0 \
		"states=10 types=10" "states=10 object_types=10" "states=10:$(printf %064d 0)" \
		"states=10:shadow:nodtor types=10" "states=10:shadow:nodtor object_types=10" \
		states=10:-; do
	load_failing_mod $A $params
	check_nothing_left $A
done
load_failing_mod $A 'states="10:two words"'
check_nothing_left $A

end_test "$(refused $A states=10,10 "livepatch '$A': state 10 is there twice")
$(refused $A states=10:quiet,10 "livepatch '$A': state 10 is there twice")
$(refused $A states=10:dtor "livepatch '$A': state 10 has a shadow_dtor but is not is_shadow")
$(refused $A types=20,20 "livepatch '$A': shadow type 20 is there twice")
$(refused $A types=0 "livepatch '$A': a shadow type has the id 0")
$(refused $A "states=10 types=10" \
"livepatch '$A': 10 is a shadow type and a state that is not is_shadow")
$(refused $A "states=10 object_types=10" \
"livepatch '$A': 10 is a shadow type and a state that is not is_shadow")
$(refused $A "states=10:$(printf %064d 0)" "livepatch '$A': the name of state 10 is too long")
$(refused $A "states=10:shadow:nodtor types=10" \
"livepatch '$A' has two destructors of shadow variables 10")
$(refused $A "states=10:shadow:nodtor object_types=10" \
"livepatch '$A' has two destructors of shadow variables 10")
$(refused $A states=10:- "livepatch '$A': '-' cannot be the name of state 10")
$(refused $A 'states="10:two words"' \
"livepatch '$A': 'two words' cannot be the name of state 10")"


start_test "livepatches that do not agree are refused"

load_lp $A states=10:vendor,11=2,13
remember_state
for params in states=10:other states=11=1 states=10:quiet states=10:shadow types=10 \
		object_types=13; do
	load_failing_mod $B $params
	check_nothing_left $B
done
# A name that only one of them gives is no disagreement.
load_lp $B states=10,11
disable_lp $B
unload_lp $B
disable_lp $A
unload_lp $A

SHADOW="livepatches '$B' and '$A' do not agree in is_shadow of state"
end_test "$(enabling $A states=10:vendor,11=2,13 \
"$A: pre_patch of state 10
$A: pre_patch of state 11
$A: pre_patch of state 13" \
"$A: post_patch of state 10
$A: post_patch of state 11
$A: post_patch of state 13")
$(refused $B states=10:other \
"livepatch '$B' calls state 10 (vendor) of livepatch '$A' by another name" +)
% insmod test_modules/$B.ko states=11=1
livepatch: Livepatch patch ($B) is not compatible with the already installed livepatches.
insmod: ERROR: could not insert module test_modules/$B.ko: Invalid parameters
$(refused $B states=10:quiet "livepatch '$B' does not manage state 10 (vendor) of livepatch '$A'" +)
$(refused $B states=10:shadow "$SHADOW 10 (vendor)" +)
$(refused $B types=10 "$SHADOW 10 (vendor)" +)
$(refused $B object_types=13 "$SHADOW 13" +)
$(enabling $B states=10,11)
$(disabling $B)
$(disabling $A \
"$A: pre_unpatch of state 10
$A: pre_unpatch of state 11
$A: pre_unpatch of state 13" \
"$A: post_unpatch of state 10
$A: post_unpatch of state 11
$A: post_unpatch of state 13")"


exit 0
