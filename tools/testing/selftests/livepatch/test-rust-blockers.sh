#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Who keeps a transition from ending: the file in debugfs names each task with
# the reason, the function, and the stack that was judged; sysfs has how many
# there are, how often it was tried, and for how long.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh
. $(dirname $0)/functions-exit.sh
. $(dirname $0)/functions-watch.sh

EXIT_LP=test_klp_exit_lp
# With waits of 1, 2, 4 ... 512 milliseconds between them.
QUICK_ATTEMPTS=11

need_rust_core
need_exit
setup_config
trap 'end_watch; abandon_thread; cleanup' EXIT INT TERM HUP

# blockers() - print the lines of the file, without what differs each time
function blockers() {
	grep -v '^ ' "$BLOCKERS" |
		sed 's/^tid=[0-9]* //; s/ cpu=[0-9]* / /; s/ nohz_full=0 age_ms=[0-9]*$//' |
		sed 's/ attempts=[1-9][0-9]* age_ms=[0-9]*$//'
}

# check_blockers(line...) - fail unless the file has just these lines; it may have
#	somebody else for a moment, who is on the CPU of a task that runs
function check_blockers() {
	EXPECTED=$(printf '%s\n' "$@")
	loop_until '[[ "$(blockers | sed 1d | sort)" == "$EXPECTED" ]]' ||
		fail_test "$BLOCKERS should be:\n$EXPECTED\nis:\n$(cat "$BLOCKERS")"
}

# check_stack(comm, regex) - fail unless the stack of a task has such a line
function check_stack() {
	local stack

	stack=$(awk -v comm="comm=$1" '/^tid=/ { p = $2 == comm; next } p' "$BLOCKERS")
	grep -q "^ \[<0>\] $2" <<< "$stack" || fail_test "no $2 in the stack of $1:\n$stack"
}

# check_number(file, from, to) - fail unless a file of LP shows a number like that
function check_number() {
	local now

	now=$(cat "$SYSFS_KLP_DIR/$LP/$1")
	((now >= $2 && now <= $3)) || fail_test "$1 shows $now, not $2 to $3"
}

# last_attempts() - note how many attempts there were, and whether that was all
function last_attempts() {
	local now

	now=$(cat "$SYSFS_KLP_DIR/$LP/attempts")
	[[ "$now" != 0 ]] || return 0
	attempts=$now
	return 1
}

# read_files() - read now and then until told to end, without a fork
function read_files() {
	local lines never

	exec {never}<> <(:)
	while [[ ! -e "$OUT.end" ]]; do
		mapfile -t lines < "$BLOCKERS"
		mapfile -t lines < "$SYSFS_KLP_DIR/$LP/pending"
		read -rt 1 -u "$never"
	done
}

# tid(comm) - print the id that the file has for a task
function tid() {
	sed -n "s/^tid=\([0-9]*\) comm=$1 .*/\1/p" "$BLOCKERS"
}


# - a user task and a kernel thread sleep in a function that is patched, another
#   has more on its stack than is checked
# - each is named, with where it sleeps, and nobody else

start_test "tasks that sleep are named"

[[ -z "$(cat "$BLOCKERS")" ]] || fail_test "there are blockers:\n$(cat "$BLOCKERS")"
load_mod $BLOCK kthread=1
loop_until '[[ $(cat $BLOCK_PARAMS/inside) == 1 ]]' || fail_test "no kernel thread"
hold_task sleep
hold_task deep
load_lp_nowait $LP
settled 3

head=$(blockers | head -n 1)
[[ "$head" == "livepatch=$LP target=patched" ]] ||
	fail_test "the first line is: $head"
check_blockers \
	"comm=klp-deep kind=user state=D reason=unreliable function=-" \
	"comm=klp-kthread kind=kthread state=D reason=function function=test_klp_block_sleep" \
	"comm=klp-sleep kind=user state=D reason=function function=test_klp_block_sleep"
check_stack klp-sleep 'test_klp_block_sleep+0x[0-9a-f]*/0x[0-9a-f]* \[test_klp_rust_block\]$'
check_stack klp-kthread 'kthread+0x'
check_stack klp-deep 'test_klp_block_deep+0x'
[[ "$(tid klp-sleep)" == "${HELD[0]}" ]] || fail_test "klp-sleep is not $(tid klp-sleep)"
[[ "$(stat -c %a "$BLOCKERS")" == "$(stat -c %a "$SYSFS_DEBUG_DIR/livepatch/states")" ]] ||
	fail_test "others may read it"

sleep 2
check_number pending 3 3
check_number attempts 10 30
check_number age_ms 2000 60000
write_enabled $LP 0
gone $LP
unload_lp $LP
[[ -z "$(cat "$BLOCKERS")" ]] || fail_test "there still are blockers:\n$(cat "$BLOCKERS")"

load_lp_nowait $LP
settled 3
let_go
complete $LP
for file in pending attempts age_ms; do
	check_shows "$SYSFS_KLP_DIR/$LP/$file" 0
done
disable_lp $LP
unload_lp $LP
unload_mod $BLOCK

check_result "% insmod test_modules/$BLOCK.ko kthread=1
% insmod test_modules/$LP.ko
$(expect_enabled $LP | head -n 3)
% echo 0 > $SYSFS_KLP_DIR/$LP/enabled
livepatch: '$LP': reversing transition from patching to unpatching
livepatch: '$LP': starting unpatching transition
livepatch: '$LP': completing unpatching transition
livepatch: '$LP': unpatching complete
% rmmod $LP
% insmod test_modules/$LP.ko
$(expect_enabled $LP)
$(expect_disabled $LP)
% rmmod $BLOCK"


# - a task runs in a function that is patched: nobody knows its stack

start_test "a task that runs is named"

load_mod $BLOCK
hold_task run
load_lp_nowait $LP
settled 1
# Now and then somebody else is on its CPU.
loop_until 'grep -q reason=running "$BLOCKERS"' ||
	fail_test "it is not running:\n$(cat "$BLOCKERS")"
[[ "$(tid klp-run)" == "${HELD[0]}" ]] || fail_test "klp-run is not $(tid klp-run)"
let_go
complete $LP
disable_lp $LP
unload_lp $LP
unload_mod $BLOCK

check_result "% insmod test_modules/$BLOCK.ko
% insmod test_modules/$LP.ko
$(expect_enabled $LP)
$(expect_disabled $LP)
% rmmod $BLOCK"


# - a task runs in the kernel until it is told to leave it, as one does that runs
#   a virtual CPU
# - that is not to take 15 seconds, after which all tasks are told to, but no more
#   than the quick first attempts, which are over in one

start_test "a task that does not leave the kernel by itself is told to"

attempts=0
load_mod $BLOCK
hold_task vcpu
load_lp_nowait $LP
loop_until 'last_attempts'
let_go
disable_lp $LP
unload_lp $LP
unload_mod $BLOCK
((attempts <= QUICK_ATTEMPTS)) || fail_test "that took $attempts attempts"

check_result "% insmod test_modules/$BLOCK.ko
% insmod test_modules/$LP.ko
$(expect_enabled $LP)
$(expect_disabled $LP)
% rmmod $BLOCK"


# - a thread is in the end of its exit, where no walk over all tasks finds it

start_test "a task that exits is named"

load_mod $HOLD
load_lp $EXIT_LP
start_thread 0
disable_lp_nowait $EXIT_LP
LP=$EXIT_LP settled 1
check_blockers \
	"comm=klp-exit kind=exiting state=X reason=function function=exit_task_stack_account"
check_stack klp-exit 'test_klp_exit_stay+0x'
check_stack klp-exit 'do_exit+0x'
end_thread
gone $EXIT_LP
unload_lp $EXIT_LP
unload_mod $HOLD

check_messages "% insmod test_modules/$HOLD.ko
% insmod test_modules/$EXIT_LP.ko
$(expect_enabled $EXIT_LP)
$EXIT_LP: a thread stays
$(expect_disabling $EXIT_LP)
$EXIT_LP: a thread goes
livepatch: '$EXIT_LP': completing unpatching transition
$EXIT_LP: post_unpatch of the object
$EXIT_LP: post_unpatch of the state
$EXIT_LP: a shadow variable is freed
livepatch: '$EXIT_LP': unpatching complete
% rmmod $EXIT_LP
% rmmod $HOLD"


# - all of that at once

start_test "all of them at once"

load_mod $HOLD
load_lp $EXIT_LP
start_thread 0
load_mod $BLOCK kthread=1
hold_task sleep
hold_task deep
hold_task run
load_lp_nowait $LP exiting=1
settled 5
check_blockers \
	"comm=klp-deep kind=user state=D reason=unreliable function=-" \
	"comm=klp-exit kind=exiting state=X reason=function function=test_klp_exit_stay" \
	"comm=klp-kthread kind=kthread state=D reason=function function=test_klp_block_sleep" \
	"comm=klp-run kind=user state=R reason=running function=-" \
	"comm=klp-sleep kind=user state=D reason=function function=test_klp_block_sleep"
let_go
end_thread
complete $LP
disable_lp $LP
unload_lp $LP
unload_mod $BLOCK
disable_lp $EXIT_LP
unload_lp $EXIT_LP
unload_mod $HOLD

check_messages "% insmod test_modules/$HOLD.ko
% insmod test_modules/$EXIT_LP.ko
$(expect_enabled $EXIT_LP)
$EXIT_LP: a thread stays
% insmod test_modules/$BLOCK.ko kthread=1
% insmod test_modules/$LP.ko exiting=1
$(expect_enabled $LP | head -n 3)
$EXIT_LP: a thread goes
$(expect_enabled $LP | tail -n 2)
$(expect_disabled $LP)
% rmmod $BLOCK
$(expect_disabling $EXIT_LP)
livepatch: '$EXIT_LP': completing unpatching transition
$EXIT_LP: post_unpatch of the object
$EXIT_LP: post_unpatch of the state
$EXIT_LP: a shadow variable is freed
livepatch: '$EXIT_LP': unpatching complete
% rmmod $EXIT_LP
% rmmod $HOLD"


# - many read while the transition is turned round, ends, and begins anew

start_test "many who read"

load_mod $BLOCK kthread=1
hold_task sleep
readers=()
for ((i = 0; i < 100; i++)); do
	read_files > /dev/null 2>&1 &
	readers+=($!)
done
load_lp_nowait $LP
for ((i = 0; i < 5; i++)); do
	# Each turn ends at once if nobody sleeps in the livepatch's function.
	echo 0 > "$SYSFS_KLP_DIR/$LP/enabled"
	gone $LP
	unload_lp $LP
	load_lp_nowait $LP
done
: > "$OUT.end"
wait "${readers[@]}"
rm "$OUT.end"
settled 2
check_blockers \
	"comm=klp-kthread kind=kthread state=D reason=function function=test_klp_block_sleep" \
	"comm=klp-sleep kind=user state=D reason=function function=test_klp_block_sleep"
let_go
complete $LP
disable_lp $LP
unload_lp $LP
unload_mod $BLOCK

turns=
for ((i = 0; i < 5; i++)); do
	turns+="livepatch: '$LP': reversing transition from patching to unpatching
livepatch: '$LP': starting unpatching transition
livepatch: '$LP': completing unpatching transition
livepatch: '$LP': unpatching complete
% rmmod $LP
% insmod test_modules/$LP.ko
$(expect_enabled $LP | head -n 3)
"
done
check_result "% insmod test_modules/$BLOCK.ko kthread=1
% insmod test_modules/$LP.ko
$(expect_enabled $LP | head -n 3)
${turns}$(expect_enabled $LP | tail -n 2)
$(expect_disabled $LP)
% rmmod $BLOCK"

exit 0
