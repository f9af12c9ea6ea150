#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Shell functions for tests with tasks that block transitions, on top of
# functions.sh and functions-rust.sh.

BLOCK=test_klp_rust_block
LP=test_klp_rust_block_lp
BLOCK_PARAMS=/sys/module/$BLOCK/parameters
EVENTS=$SYSFS_TRACING_DIR/events/livepatch
BLOCKERS=$SYSFS_DEBUG_DIR/livepatch/transition
WATCH=$(dirname $0)/test_klp-watch
OUT=$(mktemp)
HELD=()

# end_watch() - let go of what a test has left
function end_watch() {
	[[ ! -e $BLOCK_PARAMS/hold ]] || echo 0 > $BLOCK_PARAMS/hold
	end_trace
	# Some are stopped.
	[[ -z "${HELD[*]}" ]] || kill -KILL "${HELD[@]}" 2> /dev/null
	rm -f "$OUT" "$OUT.end"
}

# hold_task(how) - keep a task, of the name "klp-<how>", in a function
#	how - see test_klp_rust_block.c
function hold_task() {
	local before

	before=$(cat $BLOCK_PARAMS/inside)
	(printf "klp-%s" "$1" > /proc/$BASHPID/comm && echo "$1" > $BLOCK_PARAMS/enter) &
	HELD+=($!)
	loop_until '[[ $(cat $BLOCK_PARAMS/inside) -gt '"$before"' ]]' ||
		fail_test "klp-$1 is not in the function"
}

# let_go() - let go of all tasks that are kept
function let_go() {
	echo 0 > $BLOCK_PARAMS/hold
	wait "${HELD[@]}" 2> /dev/null
	HELD=()
	loop_until '[[ $(cat $BLOCK_PARAMS/inside) == 0 ]]' ||
		fail_test "tasks are still in the functions"
}

# settled(number) - wait until only so many tasks are not switched
#	number - of tasks
function settled() {
	loop_until '[[ $(cat $SYSFS_KLP_DIR/$LP/pending) == '"$1"' ]]' ||
		fail_test "not $1 tasks are left:\n$(cat "$BLOCKERS")"
}

# gone(modname) - wait until a livepatch is gone from sysfs
#	modname - livepatch module name
function gone() {
	loop_until '[[ ! -e $SYSFS_KLP_DIR/'"$1"' ]]' || fail_test "$1 is still there"
}

# complete(modname) - wait until the transition to a livepatch is complete
#	modname - livepatch module name
function complete() {
	loop_until '[[ $(cat $SYSFS_KLP_DIR/'"$1"'/transition) == 0 ]]' ||
		fail_test "$1 is still in transition"
}

# begin_trace() - note what the core traces
function begin_trace() {
	echo > "$SYSFS_TRACING_DIR/trace"
	echo 1 > "$EVENTS/enable"
	echo 1 > "$SYSFS_TRACING_DIR/tracing_on"
}

# end_trace() - note no more
function end_trace() {
	[[ ! -e "$EVENTS" ]] || echo 0 > "$EVENTS/enable"
}

# traced(event) - print what was traced of an event
function traced() {
	grep -v '^#' "$SYSFS_TRACING_DIR/trace" | sed -n "s/.*: $1: //p"
}
