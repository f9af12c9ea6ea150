#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Replace sets: a new livepatch replaces those of its set and of the sets that it
# supersedes. It is refused if it shares a function or an id with one that stays; the
# message names that livepatch and what both have.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh

P=test_klp_rust_set_
MOD_TARGET=${P}target
FILES=(version execdomains cmdline loadavg softirqs)
V=version_proc_show E=execdomains_proc_show C=cmdline_proc_show
L=loadavg_proc_show S=show_softirqs
FIRST=${P}first ALIAS=${P}alias SECOND=${P}second THIRD=${P}third

# The tests after this one need the core as it was, even if a test fails.
function cleanup() {
	local reader

	for reader in "${READERS[@]}"; do
		kill "$reader" 2>/dev/null
	done
	if [[ -n "$RELOADED" ]]; then
		rmmod livepatch
		modprobe livepatch
	fi
	pop_config
}

RELOADED=
READERS=()
need_rust_core
setup_config

INVALID="Invalid parameters"	# what insmod makes of EINVAL
INCOMPATIBLE="is not compatible with the already installed livepatches."
NOT_REPLACED="which it does not replace"
BUSY="Device or resource busy"	# and of EBUSY

# Livepatches have numbers here. Each of these functions adds to EXPECT the messages
# that it must cause.

# begin(name) - begin a test
function begin() {
	EXPECT=
	start_test "$1"
}

# end() - end a test: check all messages, and that no livepatch is left
function end() {
	[[ -z "$(ls "$SYSFS_KLP_DIR")" ]] || fail_test "left: $(ls "$SYSFS_KLP_DIR")"
	check_result "${EXPECT%$'\n'}"
}

function expect() {
	EXPECT+="$1"$'\n'
}

# on(number, params) - load a livepatch and wait until it is enabled
function on() {
	local mod="$P$1"

	shift
	load_lp "$mod" "$@"
	expect "% insmod test_modules/$mod.ko $*
${WARNING:+$WARNING$'\n'}$(expect_enabled "$mod")"
}

# refused(number, message, params) - try to load a livepatch, which must fail
#	message - what the core says, without its last and general line
function refused() {
	local mod="$P$1" message="$2"

	shift 2
	remember_state
	load_failing_mod "$mod" "$@"
	check_nothing_left "$mod"
	expect "% insmod test_modules/$mod.ko $*"
	[[ -z "$message" ]] || expect "livepatch: livepatch '$mod'$message"
	[[ -n "$WRONG" ]] || expect "livepatch: Livepatch patch ($mod) $INCOMPATIBLE"
	expect "insmod: ERROR: could not insert module test_modules/$mod.ko: $INVALID"
}

# wrong(number, message, params) - the same for a mistake in the livepatch
function wrong() {
	WRONG=1 refused "$@"
}

# conflict(number, function, other, params) - the same for a function of another
function conflict() {
	local number="$1" function="$2" other="$3"

	shift 3
	refused "$number" \
		" changes $function, as does '$P$other', $NOT_REPLACED" "$@"
}

# conflict_id(number, id, other, params) - the same for a state
function conflict_id() {
	local number="$1" id="$2" other="$3"

	shift 3
	refused "$number" \
		" has state or shadow id $id, as has '$P$other', $NOT_REPLACED" "$@"
}

# off(number...) - disable and unload livepatches
function off() {
	local number

	for number; do
		disable_lp "$P$number"
		unload_lp "$P$number"
		expect "$(expect_disabled "$P$number")"
	done
}

# gone(number...) - check that livepatches were replaced, and unload them
function gone() {
	local number

	for number; do
		loop_until '[[ ! -e "$SYSFS_KLP_DIR/$P$number" ]]' ||
			fail_test "$P$number was not replaced"
		unload_lp "$P$number"
		expect "% rmmod $P$number"
	done
}

# stays(number...) - check that these livepatches are enabled, and no others
function stays() {
	local number all=

	for number; do
		check_sysfs_value "$P$number" "enabled" "1"
		check_sysfs_value "$P$number" "transition" "0"
		all+="$P$number"$'\n'
	done
	all=$(echo -n "$all" | sort)
	[[ "$(ls "$SYSFS_KLP_DIR" | sort)" == "$all" ]] ||
		fail_test "livepatches expected:\n$all\nfound:\n$(ls "$SYSFS_KLP_DIR")"
}

# runs(file, number) - check which livepatch prints a file, - for none
function runs() {
	local now

	read -r now < "/proc/$1"
	if [[ "$2" == - ]]; then
		[[ "$now" != "$P"* ]] || fail_test "/proc/$1 is printed by $now"
	else
		[[ "$now" == "$P$2" ]] || fail_test "/proc/$1 shows $now instead of $P$2"
	fi
}

# run(v e c l s) - the same for the five functions of vmlinux
function run() {
	local i numbers=("$@")

	for i in "${!FILES[@]}"; do
		runs "${FILES[i]}" "${numbers[i]}"
	done
}

function shows() {
	check_sysfs_value "$P$1" "$2" "$3"
}

function load_target() {
	load_mod $MOD_TARGET
	expect "% insmod test_modules/$MOD_TARGET.ko${1:+$'\n'$1}"
}

function unload_target() {
	unload_mod $MOD_TARGET
	expect "% rmmod $MOD_TARGET${1:+$'\n'$1}"
}

function applying() {
	echo "livepatch: applying patch '$P$1' to loading module '$MOD_TARGET'"
}

function reverting() {
	echo "livepatch: reverting patch '$P$1' on unloading module '$MOD_TARGET'"
}

# sleep_in(file, number) - have a task sleep in the function of a livepatch
function sleep_in() {
	local pid

	echo 1 > "/sys/module/$P$2/parameters/hold"
	(exec -a reader "$READER" "/proc/$1" > "/tmp/read.$1") &
	pid=$!
	READERS+=("$pid")
	loop_until 'grep -q livepatch_set_show "/proc/'"$pid"'/stack"' ||
		fail_test "no task sleeps in $P$2"
}

# wake(number) - let the tasks that sleep in a livepatch go on
function wake() {
	echo 0 > "/sys/module/$P$1/parameters/hold"
}

# The kernel knows a task by the name of its program.
READER=$(mktemp -d)/reader
cp "$(command -v cat)" "$READER"


STRICT=/sys/module/livepatch/parameters/strict_replace_sets

# strict_mode() - the test for a core that was told to be strict
function strict_mode() {
	begin "strict mode: all livepatches follow the rules of sets"
	check_shows $STRICT Y
	on 1 replace=0 "vmlinux=$C,$V"
	shows 1 replace 1
	on 2 replace=0 "vmlinux=$C"
	gone 1
	conflict 3 "vmlinux:$C,1" 2 set=1 "vmlinux=$C"
	on 3 set=1 "vmlinux=$V"
	on 4 replace=1 "vmlinux=$L"
	gone 2
	stays 3 4
	run 3 - - 4 -
	off 3 4
	end
}

if [[ "$(cat $STRICT)" == Y ]]; then
	strict_mode
	skip_test "other tests" "livepatch.strict_replace_sets is on"
	exit 0
fi


begin "set 0: livepatches replace each other"
on 1 scoped=1 "vmlinux=$C,$V"
shows 1 replace_set 0
shows 1 supersedes ""
shows 1 replace 1
on 2 scoped=1 "vmlinux=$C"
gone 1
stays 2
run - - 2 - -
off 2
end


begin "another set: livepatches replace each other"
on 1 set=5 "vmlinux=$C,$V"
shows 1 replace_set 5
shows 1 replace 1
run 1 - 1 - -
on 2 set=5 "vmlinux=$C,$E"
gone 1
stays 2
run - 2 2 - -
off 2
run - - - - -
end


begin "two sets: livepatches stay next to each other"
on 1 set=1 "vmlinux=$C"
on 2 set=2 "vmlinux=$V"
on 3 set=4294967295 "vmlinux=$L"
shows 3 replace_set 4294967295
stays 1 2 3
run 2 - 1 3 -
on 4 set=2 "vmlinux=$E"
gone 2
stays 1 3 4
run - 4 1 3 -
off 1 4 3
end


begin "superseded sets are replaced, others are not"
on 1 set=1 "vmlinux=$C"
on 2 set=2 "vmlinux=$V"
on 3 set=3 "vmlinux=$L"
on 4 set=4 "vmlinux=$C,$V" evicts=2,1
shows 4 replace_set 4
shows 4 supersedes "2 1"
gone 1 2
stays 3 4
run 4 - 4 3 -
off 3 4
end


begin "what is superseded is so at the load only"
on 1 set=1 "vmlinux=$C" evicts=2
on 2 set=2 "vmlinux=$V"
stays 1 2
on 3 set=2 "vmlinux=$V,$L"
gone 2
stays 1 3
on 4 set=1 "vmlinux=$C" evicts=2
gone 1 3
stays 4
off 4
end


begin "function of a livepatch in another set"
on 1 set=1 "vmlinux=$C,$V"
conflict 2 "vmlinux:$V,1" 1 set=2 "vmlinux=$L,$V"
conflict 2 "vmlinux:$V,1" 1 set=2 "vmlinux=$V:1"
conflict 2 "vmlinux:$C,1" 1 set=2 "vmlinux=$V,$C"
stays 1
run 1 - 1 - -
# Within the set it is allowed, and so when the set is superseded.
on 3 set=1 "vmlinux=$V"
gone 1
on 4 set=2 "vmlinux=$V" evicts=1
gone 3
stays 4
off 4
end


begin "function of a module that is not loaded"
on 1 set=1 "target=$SECOND"
conflict 2 "$MOD_TARGET:$SECOND,1" 1 set=2 "target=$SECOND"
off 1
end


begin "state of a livepatch in another set"
on 1 set=1 "vmlinux=$C" ids=7,8
conflict_id 2 8 1 set=2 "vmlinux=$V" ids=9,8
on 3 set=1 "vmlinux=$C" ids=8,7
gone 1
on 4 set=2 "vmlinux=$V" ids=7,8 evicts=1
gone 3
# It lacks a state of a livepatch that it replaces.
refused 5 "" set=2 "vmlinux=$V" ids=7
off 4
end


begin "function before state, least function first"
on 1 set=1 "vmlinux=$L" ids=7
on 2 set=2 "vmlinux=$C" ids=8
conflict 3 "vmlinux:$C,1" 2 set=3 "vmlinux=$L,$C" ids=8,7
conflict 3 "vmlinux:$L,1" 1 set=3 "vmlinux=$L" ids=8
conflict_id 3 7 1 set=3 ids=8,7
off 2 1
end


begin "sets that are absent, its own, or there twice"
on 1 set=1 "vmlinux=$C" evicts=1,99,1,99
shows 1 supersedes "1 99 1 99"
on 2 set=1 "vmlinux=$C" evicts=1,1
gone 1
stays 2
off 2
end


begin "livepatches without sets, next to some with"
on 1 set=1 "vmlinux=$V"
on 2 replace=0 "vmlinux=$C"
shows 2 replace 0
shows 2 replace_set 0
shows 2 supersedes ""
on 3 replace=0 "vmlinux=$C"
stays 1 2 3
run 1 - 3 - -
conflict 4 "vmlinux:$V,1" 1 replace=0 "vmlinux=$V"
conflict 4 "vmlinux:$V,1" 1 replace=1 "vmlinux=$V,$C"
conflict 4 "vmlinux:$C,1" 2 set=2 "vmlinux=$C"
# It replaces all that ask for no sets or are in set 0, and no others.
on 4 replace=1 "vmlinux=$L"
gone 2 3
shows 4 replace 1
stays 1 4
run 1 - - 4 -
# Livepatches that ask for no sets count as in set 0.
on 5 scoped=1 "vmlinux=$L,$C"
gone 4
conflict 6 "vmlinux:$C,1" 5 replace=0 "vmlinux=$C"
on 6 replace=1 "vmlinux=$C"
gone 5
on 7 set=1 evicts=0 "vmlinux=$C"
gone 1 6
stays 7
shows 7 supersedes 0
off 7
end


begin "a list that ends at its first 0, and one with a number"
on 1 scoped=1 "vmlinux=$C"
on 2 set=2 "vmlinux=$V"
on 3 set=3 list=terminated evicts=0,2
shows 3 supersedes ""
stays 1 2 3
on 4 set=4 evicts=0,2
shows 4 supersedes "0 2"
gone 1 2
stays 3 4
on 5 set=5 list=terminated evicts=3,4,0,1
shows 5 supersedes "3 4"
gone 3 4
off 5
end


begin "KLP_REPLACE_SETS() and the other names of the fields"
on 1 list=macro
shows 1 replace_set 7
shows 1 supersedes "3 0 4"
on 2 list=own_macro
gone 1
shows 2 replace_set 7
shows 2 supersedes ""
# The module sets replace_set before it takes over the others.
on 3 list=alias
gone 2
shows 3 replace_set 7
shows 3 supersedes "3 4"
off 3
end


LONGEST=$(seq -s ' ' 1000 1255)
begin "lists that are too long, without an end, or not there"
wrong 1 " supersedes 257 sets, more than 256" set=1 "vmlinux=$C" list=too_long
wrong 1 ": supersedes has neither a number of sets nor a 0 behind the first 256" \
	set=1 "vmlinux=$C" list=unterminated
wrong 1 ": supersedes should have 3 sets, but is NULL" set=1 "vmlinux=$C" list=null
wrong 1 ": param_supersedes has 33 sets, more than 32" \
	set=1 "vmlinux=$C" list=param_too_many
wrong 1 " supersedes 257 sets, more than 256" set=1 "vmlinux=$C" list=longest supersedes=1
run - - - - -
on 1 set=1 "vmlinux=$C" list=longest
shows 1 supersedes "$LONGEST"
on 2 set=1 "vmlinux=$C" list=longest_terminated
gone 1
shows 2 supersedes "$LONGEST"
off 2
end


begin "sets that the administrator supersedes"
on 1 set=1 "vmlinux=$C"
on 2 set=2 "vmlinux=$V"
on 3 set=3 "vmlinux=$L"
conflict 4 "vmlinux:$C,1" 1 set=4 "vmlinux=$C,$V,$L" evicts=2
on 4 set=4 "vmlinux=$C,$V,$L" evicts=2 supersedes=1,3
shows 4 supersedes "2 1 3"
check_shows /sys/module/${P}4/parameters/supersedes "1,3"
gone 1 2 3
stays 4
off 4
# The parameter alone makes the livepatch follow the rules of sets.
on 5 replace=0 "vmlinux=$C"
on 6 "vmlinux=$V" supersedes=9
gone 5
shows 6 replace 1
off 6
end


begin "replace and sets both asked for"
on 1 set=1 "vmlinux=$C"
WARNING="livepatch: livepatch '${P}2' is in replace set 2, so it does not replace all" \
	on 2 set=2 replace=1 "vmlinux=$V"
shows 2 replace 1
stays 1 2
off 2 1
end


begin "Joe's five days"
# The vendor's cumulative livepatches are in set 1, its hotfixes in 2, the
# customer's own in 1000.
on 9 set=1000 "vmlinux=$S"
on 1 set=1 "vmlinux=$C"			# 1a: Monday, cumulative
on 2 set=2 "vmlinux=$V"			# 1b: Tuesday, a hotfix
stays 1 2 9
run 2 - 1 - 9
on 3 set=2 "vmlinux=$V,$E"		# 1c: Wednesday, a better one
gone 2
stays 1 3 9
run 3 3 1 - 9
on 4 set=1 evicts=2 "vmlinux=$C,$V,$E"	# 2a: Thursday, with all of it
gone 1 3
stays 4 9
run 4 4 4 - 9
on 5 set=2 "vmlinux=$L"			# 2b: Friday, the next hotfix
stays 4 5 9
run 4 4 4 5 9
# The hotfix of Tuesday is in the cumulative one.
conflict 2 "vmlinux:$V,1" 4 set=2 "vmlinux=$V"
# Going back a week also replaces the hotfix. The customer's livepatch stays.
on 1 set=1 evicts=2 "vmlinux=$C"
gone 4 5
stays 1 9
run - - 1 - 9
off 1 9
run - - - - -
end


begin "pending transition before conflicts"
on 1 set=1 "vmlinux=$V,$C"
sleep_in version 1
load_lp_nowait ${P}2 set=1 "vmlinux=$C"
remember_state
load_failing_mod ${P}3 set=2 "vmlinux=$C"
check_nothing_left ${P}3
shows 2 transition 1
wake 1
loop_until 'grep -q "^0$" $SYSFS_KLP_DIR/${P}2/transition' ||
	fail_test "the transition did not end"
expect "% insmod test_modules/${P}2.ko set=1 vmlinux=$C
$(expect_enabled ${P}2 | head -n 3)
% insmod test_modules/${P}3.ko set=2 vmlinux=$C
insmod: ERROR: could not insert module test_modules/${P}3.ko: $BUSY
$(expect_enabled ${P}2 | tail -n 2)"
gone 1
# The nop for this function is gone, and never counted as the livepatch's own.
on 3 set=2 "vmlinux=$V"
stays 2 3
off 2 3
end


begin "two hotfixes and a cumulative replaced, with a task in each"
load_target
on 1 set=1 "vmlinux=$C" "target=$FIRST"
on 2 set=2 "vmlinux=$V"
on 3 set=3 "target=$THIRD"
on 9 set=1000 "vmlinux=$S"
sleep_in $FIRST 1
sleep_in version 2
sleep_in $THIRD 3
sleep_in softirqs 9
load_lp_nowait ${P}4 set=1 evicts=2,3 "vmlinux=$C" "target=$SECOND"
for number in 1 2 3; do
	sleep 1.2
	shows 4 transition 1
	for other in 1 2 3; do
		shows $other enabled 1
	done
	[[ $number == 3 ]] || wake $number
done
wake 3
loop_until 'grep -q "^0$" $SYSFS_KLP_DIR/${P}4/transition' ||
	fail_test "the transition did not end"
expect "% insmod test_modules/${P}4.ko set=1 evicts=2,3 vmlinux=$C target=$SECOND
$(expect_enabled ${P}4)"
gone 1 2 3
stays 4 9
wake 9
wait
check_shows /tmp/read.$FIRST "${P}1"
check_shows /tmp/read.version "${P}2"
check_shows /tmp/read.$THIRD "${P}3"
check_shows /tmp/read.softirqs "${P}9"
run - - 4 - 9
runs $FIRST -
runs $SECOND 4
runs $THIRD -
off 4 9
unload_target
end


begin "eviction while a module is being loaded"
on 1 set=1 "vmlinux=$V" "target=$SECOND"
on 2 set=2 "vmlinux=$L" "target=$THIRD"
on 9 set=1000 "target=$FIRST"
sleep_in version 1
sleep_in loadavg 2
load_lp_nowait ${P}4 set=3 evicts=1,2 "vmlinux=$C" "target=$SECOND"
shows 4 transition 1
expect "% insmod test_modules/${P}4.ko set=3 evicts=1,2 vmlinux=$C target=$SECOND
$(expect_enabled ${P}4 | head -n 3)"
load_target "$(for number in 1 2 9 4; do applying $number; done)"
shows 4 transition 1
runs $FIRST 9
wake 1
wake 2
loop_until 'grep -q "^0$" $SYSFS_KLP_DIR/${P}4/transition' ||
	fail_test "the transition did not end"
expect "$(expect_enabled ${P}4 | tail -n 2)"
gone 1 2
stays 4 9
runs $FIRST 9
runs $SECOND 4
runs $THIRD -
run - - 4 - -
unload_target "$(for number in 9 4; do reverting $number; done)"
off 4 9
wait
end


begin "one function with two names"
load_target
on 1 set=1 "target=$FIRST"
refused 2 " changes $MOD_TARGET:$ALIAS,1, which is $MOD_TARGET:$FIRST,1 of '${P}1', $NOT_REPLACED" \
	set=2 "target=$ALIAS"
# In the same set it is allowed.
on 3 set=1 "target=$ALIAS"
gone 1
runs $FIRST 3
off 3
# Livepatches that ask for no sets go on top of each other.
on 4 replace=0 "target=$FIRST"
on 5 replace=0 "target=$ALIAS"
runs $FIRST 5
off 5 4
unload_target
end


begin "one function with two names, which shows when its module is loaded"
on 1 set=1 "target=$FIRST"
on 2 set=2 "target=$ALIAS"
alias="$MOD_TARGET:$ALIAS,1, which is $MOD_TARGET:$FIRST,1 of '${P}1'"
load_target "$(applying 1)
livepatch: livepatch '${P}2' changes $alias, which it did not replace
$(applying 2)"
runs $FIRST 2
off 2
runs $FIRST 1
unload_target "$(reverting 1)"
off 1
end


# sample_on(name, params), sample_off(name) - the same for the samples, which
#					       are installed
function sample_on() {
	local mod="livepatch_sets_$1" ret

	shift
	log "livepatch: % modprobe $mod"
	ret=$(modprobe "$mod" "$@" 2>&1)
	[[ -z "$ret" ]] || fail_test "$ret"
	loop_until 'grep -q "^0$" "$SYSFS_KLP_DIR/$mod/transition"' ||
		fail_test "$mod is not enabled"
	expect "livepatch: % modprobe $mod
$(expect_enabled "$mod")"
}

function sample_off() {
	disable_lp "livepatch_sets_$1"
	unload_lp "livepatch_sets_$1"
	# check_result() does not see the first and the last line: neither has
	# the name of a test module.
	expect "$(expect_disabled "livepatch_sets_$1" | sed '1d;$d')"
}

if modprobe -n -q livepatch_sets_customer; then
	begin "samples: a customer's livepatch, a hotfix and a cumulative one"
	sample_on customer
	sample_on hotfix
	check_shows /proc/version "fixed by livepatch_sets_customer"
	check_shows /proc/loadavg "fixed by livepatch_sets_hotfix"
	sample_on cumulative
	loop_until '[[ ! -e $SYSFS_KLP_DIR/livepatch_sets_hotfix ]]' ||
		fail_test "the hotfix was not replaced"
	unload_lp livepatch_sets_hotfix
	check_shows /proc/version "fixed by livepatch_sets_customer"
	check_shows /proc/loadavg "fixed by livepatch_sets_cumulative"
	check_shows /proc/cmdline "fixed by livepatch_sets_cumulative"
	check_sysfs_value livepatch_sets_customer replace_set 1000
	check_sysfs_value livepatch_sets_cumulative replace_set 1
	check_sysfs_value livepatch_sets_cumulative supersedes 2
	sample_off customer
	sample_on customer supersedes=2,1
	loop_until '[[ ! -e $SYSFS_KLP_DIR/livepatch_sets_cumulative ]]' ||
		fail_test "the cumulative livepatch was not replaced"
	unload_lp livepatch_sets_cumulative
	check_shows /proc/version "fixed by livepatch_sets_customer"
	sample_off customer
	run - - - - -
	end
else
	skip_test "samples" "they are not installed"
fi


if grep -q '^livepatch ' /proc/modules; then
	check_shows $STRICT N
	unload_mod livepatch
	modprobe livepatch strict_replace_sets=1
	RELOADED=1
	set_dynamic_debug
	strict_mode
else
	skip_test "strict mode" "the core is built in, and was not told to be strict"
fi

exit 0
