#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Shell functions for tests with threads that are kept in the end of their exit,
# on top of functions.sh and functions-rust.sh.

HOLD=test_klp_exit_hold
LP=test_klp_exit_lp
SIDE=test_klp_exit_side
REPLACE=test_klp_atomic_replace
OTHER=test_klp_livepatch
HOLD_PARAMS=/sys/module/$HOLD/parameters
THREADS=$(dirname $0)/test_klp-exit_threads
THREADS_KEPT=()

# need_exit() - skip the whole script unless the kernel knows of exiting tasks
function need_exit() {
	is_root
	grep -q ' klp_task_exit$' /proc/kallsyms ||
		skip "this kernel has no list of exiting tasks"
	[[ -d "$SYSFS_KLP_DIR" ]] || modprobe -q livepatch ||
		skip "the livepatch core is not loaded, and modprobe does not find it"
	[[ -x "$THREADS" ]] || skip "no $THREADS"
}

# rust_core() - whether the core is the one in Rust
function rust_core() {
	grep -q ' klp_register_core$' /proc/kallsyms
}

# start_thread(how, kind, command...) - start a thread that LP keeps in the end
#	of its exit
#	how     - 0 asleep, 1 running, 2 oopses, 3 asleep and not unhashed yet
#	kind    - what it is, for test_klp-exit_threads: "one" if not given, or
#		  "kthread"
#	command - what starts test_klp-exit_threads
function start_thread() {
	local how="$1" kind="${2:-one}"
	local inside=${#THREADS_KEPT[@]}

	shift $(($# < 2 ? $# : 2))
	echo "$how" > $HOLD_PARAMS/how
	echo 0 > $HOLD_PARAMS/release
	if [[ "$kind" == kthread ]]; then
		echo 1 > $HOLD_PARAMS/kthread
		THREADS_KEPT+=("")
	else
		"$@" "$THREADS" "$kind" klp-exit &
		THREADS_KEPT+=($!)
	fi
	[[ "$how" != 2 ]] || return
	loop_until '[[ $(cat $HOLD_PARAMS/inside) == ${#THREADS_KEPT[@]} ]]' ||
		fail_test "no thread exits, but $inside do"
}

# kill_threads() - kill the processes of the threads
function kill_threads() {
	local process

	for process in "${THREADS_KEPT[@]}"; do
		[[ -z "$process" ]] || kill "$process"
	done
}

# end_thread() - let the threads go
function end_thread() {
	[[ ${#THREADS_KEPT[@]} != 0 ]] || return
	echo 1 > $HOLD_PARAMS/release
	loop_until '[[ $(cat $HOLD_PARAMS/inside) == 0 ]]' || fail_test "the thread does not go"
	kill_threads
	wait "${THREADS_KEPT[@]}" 2> /dev/null
	THREADS_KEPT=()
}

# abandon_thread() - let go of what a test that failed has left
function abandon_thread() {
	[[ ${#THREADS_KEPT[@]} != 0 ]] || return
	echo 1 > $HOLD_PARAMS/release
	kill_threads
}

# write_enabled(modname, value) - begin to enable or disable, or turn that round
#	modname - livepatch module name
#	value   - 0 or 1
function write_enabled() {
	log "% echo $2 > $SYSFS_KLP_DIR/$1/enabled"
	echo "$2" > "$SYSFS_KLP_DIR/$1/enabled"
}

# disable_lp_nowait(modname) - begin to disable a livepatch
#	modname - livepatch module name
function disable_lp_nowait() {
	write_enabled "$1" 0
}

# stays_in_transition(modname) - fail if the transition ends
#	modname - livepatch module name
function stays_in_transition() {
	local i

	for ((i = 0; i < 10; i++)); do
		sleep .1
		[[ "$(cat "$SYSFS_KLP_DIR/$1/transition")" == 1 ]] ||
			fail_test "the transition of $1 has ended"
	done
}

# cannot_unload(modname) - fail if a module can be unloaded
#	modname - module name
function cannot_unload() {
	local ret

	log "% rmmod $1"
	ret=$(rmmod "$1" 2>&1) && fail_test "$1 was unloaded"
	log "$ret"
}

# check_side(side) - fail unless interrupts of the thread are on this side
#	side - 0 unpatched, 1 patched
function check_side() {
	check_shows $HOLD_PARAMS/side "$1"
}

# expect_disabling(modname) - print the messages of disable_lp_nowait()
#	modname - livepatch module name
function expect_disabling() {
	echo "% echo 0 > $SYSFS_KLP_DIR/$1/enabled
livepatch: '$1': initializing unpatching transition
livepatch: '$1': starting unpatching transition"
}

# expect_in_use(modname) - print the messages of cannot_unload()
#	modname - module name
function expect_in_use() {
	echo "% rmmod $1
rmmod: ERROR: Module $1 is in use"
}

# check_messages(expected) - check_result(), of what the core at hand prints
#	expected - the messages; empty lines are of the other core
function check_messages() {
	check_result "$(grep . <<< "$1")"
}

# expect_state_ends() - print the messages about the managed state of LP
function expect_state_ends() {
	rust_core || return
	echo "$LP: post_unpatch of the state
$LP: a shadow variable is freed"
}
