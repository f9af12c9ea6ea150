#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Who would keep a transition from ending that left given functions: what the file
# in debugfs says, and whether a transition that leaves them then says the same.
# CASES random ones; SEED repeats them.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh
. $(dirname $0)/functions-watch.sh

PREFLIGHT=$SYSFS_DEBUG_DIR/livepatch/preflight
CASES=${CASES:-20}
SEED=${SEED:-$SRANDOM}
# So many tasks are kept, and so often others.
TASKS=6
CASES_PER_TASKS=10

need_rust_core
[[ -x "$WATCH" ]] || skip "no $WATCH"
setup_config
trap 'end_watch; cleanup' EXIT INT TERM HUP

# ask(line...) - ask for functions
function ask() {
	printf '%s\n' "$@" > "$PREFLIGHT"
}

# check_refused(errno, message, line...) - fail unless such lines are refused, and
#	what was asked for before stays
function check_refused() {
	local error="$1" message="$2" before

	shift 2
	before=$(head -n 1 "$PREFLIGHT")
	ask "$@" 2> "$OUT" && fail_test "taken: $*"
	grep -q "$error" "$OUT" || fail_test "should be '$error': $(cat "$OUT")"
	check_shows <(head -n 1 "$PREFLIGHT") "$before"
	REFUSED+="livepatch: $message
"
}

# in_functions(file) - print who is in which function, by a file
function in_functions() {
	sed -n 's/^\(tid=[0-9]*\) .* reason=function \(function=[^ ]*\) .*/\1 \2/p' "$1"
}

# expect_block(line...) - fail unless PREFLIGHT has these lines about our tasks
function expect_block() {
	local now expected

	now=$(sed -n 's/^tid=[0-9]* \(comm=klp-.*\) nohz_full=0 age_ms=.*/\1/p' "$PREFLIGHT" |
		sed 's/ cpu=[0-9]* / /' | sort)
	expected=$(printf '%s\n' "$@")
	[[ "$now" == "$expected" ]] || fail_test "should be:\n$expected\nis:\n$now"
}

# by_stacks(function) - print the threads that are in a function by /proc
function by_stacks() {
	grep -ls "\[<0>\] $1+0x" /proc/[0-9]*/task/[0-9]*/stack |
		sed 's|.*/task/||; s|/stack||' | sort
}

# check_by_stacks(function) - fail unless PREFLIGHT has the threads that are in a
#	function by /proc; some are
function check_by_stacks() {
	local now by="reason=function function=$1"

	ask "vmlinux:$1"
	# Threads come and go.
	for ((try = 0; try < 20; try++)); do
		before=$(by_stacks "$1")
		now=$(sed -n "s/^tid=\([1-9][0-9]*\) .* $by .*/\1/p" "$PREFLIGHT" | sort)
		[[ -n "$before" && "$now" == "$before" && "$(by_stacks "$1")" == "$before" ]] &&
			return 0
	done
	fail_test "in $1 are by /proc:\n$before\nby $PREFLIGHT:\n$now"
}


start_test "tasks that would block are named"

load_mod $BLOCK kthread=1
loop_until '[[ $(cat $BLOCK_PARAMS/inside) == 1 ]]' || fail_test "no kernel thread"
[[ -z "$(cat "$PREFLIGHT")" ]] || fail_test "nobody has asked:\n$(cat "$PREFLIGHT")"
hold_task sleep
hold_task deep
hold_task 3
ask "# What is asked for" "" "$BLOCK:test_klp_block_sleep"
[[ "$(head -n 1 "$PREFLIGHT")" == "functions=1 missing=0" ]] ||
	fail_test "begins with: $(head -n 1 "$PREFLIGHT")"
deep="comm=klp-deep kind=user state=D reason=unreliable function=-"
sleeping="kind=user state=D reason=function function=test_klp_block_sleep"
kthread="comm=klp-kthread kind=kthread state=D reason=function function=test_klp_block_sleep"
expect_block "$deep" "$kthread" "comm=klp-sleep $sleeping"
grep -q ' \[<0>\] test_klp_block_sleep+0x' "$PREFLIGHT" || fail_test "no stack"
ask "$BLOCK:test_klp_block_1" "$BLOCK:test_klp_block_5,1"
[[ "$(head -n 1 "$PREFLIGHT")" == "functions=2 missing=0" ]] ||
	fail_test "begins with: $(head -n 1 "$PREFLIGHT")"
expect_block "comm=klp-3 kind=user state=D reason=function function=test_klp_block_1" "$deep"
# In a transition, and with what was written to the same open file.
load_lp_nowait $LP
settled 3
exec {own}<> "$PREFLIGHT"
echo "$BLOCK:test_klp_block_sleep" >&$own
now=$(grep -c ' reason=function function=test_klp_block_sleep ' <&$own)
[[ "$now" == 2 ]] || fail_test "$now tasks are in the function that is being changed"
[[ "$(head -n 1 "$PREFLIGHT")" == "functions=2 missing=0" ]] ||
	fail_test "others ask for: $(head -n 1 "$PREFLIGHT")"
exec {own}>&-
[[ "$(head -n 1 "$PREFLIGHT")" == "functions=1 missing=0" ]] ||
	fail_test "closed, but what is asked for is: $(head -n 1 "$PREFLIGHT")"
let_go
complete $LP
disable_lp $LP
unload_lp $LP
unload_mod $BLOCK
[[ "$(cat "$PREFLIGHT")" == "functions=1 missing=1" ]] ||
	fail_test "the function is gone, but:\n$(cat "$PREFLIGHT")"

check_result "% insmod test_modules/$BLOCK.ko kthread=1
% insmod test_modules/$LP.ko
$(expect_enabled $LP)
$(expect_disabled $LP)
% rmmod $BLOCK"


start_test "what cannot be asked for"

REFUSED=
long=$(printf 'x%.0s' {1..1100})
ask "vmlinux:kthreadd"
format="<object>:<function>[,<position>]"
check_refused "Invalid argument" "preflight: 'kthreadd' is not $format" vmlinux:schedule kthreadd
check_refused "Invalid argument" "preflight: 'vmlinux:kthreadd,x' is not $format" vmlinux:kthreadd,x
check_refused "Invalid argument" "symbol 'test_klp_none' not found in symbol table" \
	vmlinux:test_klp_none
check_refused "Invalid argument" \
	"symbol position 2 for symbol 'kthreadd' in object 'vmlinux' not found" vmlinux:kthreadd,2
check_refused "No such file or directory" "preflight: object 'test_klp_none' is not loaded" \
	test_klp_none:kthreadd
check_refused "Invalid argument" "preflight: a line has more than 1024 characters" \
	"vmlinux:$long"
grep -q "kind=kthread .* reason=function function=kthreadd " "$PREFLIGHT" ||
	fail_test "kthreadd is not in kthreadd:\n$(cat "$PREFLIGHT")"

check_result "${REFUSED%$'\n'}"


# - by the kernel's own stacks of all threads

start_test "functions that nobody changes"

check_by_stacks kthreadd
check_by_stacks smpboot_thread_fn
check_by_stacks kthread
# Stopped, and stopped by its tracer.
sleep 1000 &
HELD+=($!)
kill -STOP $!
stopped=$!
"$WATCH" traced > "$OUT" &
HELD+=($!)
loop_until 'grep -q ready "$OUT"' || fail_test "nobody is traced"
traced=$(sed 's/ready //' "$OUT")
loop_until 'grep -q "State:.T" /proc/$stopped/status' || fail_test "$stopped is not stopped"
ask vmlinux:get_signal
grep -q "^tid=$stopped comm=.* state=T reason=function function=get_signal " "$PREFLIGHT" ||
	fail_test "$stopped is stopped, but:\n$(cat "$PREFLIGHT")"
grep -q "^tid=$traced comm=.* state=t reason=function function=get_signal " "$PREFLIGHT" ||
	fail_test "$traced is traced, but:\n$(cat "$PREFLIGHT")"
{ kill -KILL "${HELD[@]}"; wait "${HELD[@]}"; } 2> /dev/null
HELD=()

check_result ""


# - tasks sleep in random functions, and a livepatch changes random functions

start_test "the verdict is the outcome"

load_mod $BLOCK
expected="% insmod test_modules/$BLOCK.ko"
RANDOM=$SEED
for ((i = 0; i < CASES; i++)); do
	if ((i % CASES_PER_TASKS == 0)); then
		let_go
		echo 1 > $BLOCK_PARAMS/hold
		for ((task = 0; task < TASKS; task++)); do
			hold_task $((RANDOM & RANDOM & 255))
		done
	fi
	mask=$(((RANDOM & RANDOM & 255) | 1 << RANDOM % 8))
	lines=()
	for ((bit = 0; bit < 8; bit++)); do
		((mask >> bit & 1)) && lines+=("$BLOCK:test_klp_block_$bit")
	done
	ask "${lines[@]}"
	verdict=$(in_functions "$PREFLIGHT")
	load_lp_nowait $LP functions=$mask
	expected+="
% insmod test_modules/$LP.ko functions=$mask
$(expect_enabled $LP | head -n 3)"
	if [[ -z "$verdict" ]]; then
		complete $LP
		disable_lp $LP
		unload_lp $LP
		expected+="
$(expect_enabled $LP | tail -n 2)
$(expect_disabled $LP)"
		continue
	fi
	settled "$(wc -l <<< "$verdict")"
	outcome=$(in_functions "$BLOCKERS")
	[[ "$outcome" == "$verdict" ]] ||
		fail_test "seed $SEED, case $i: verdict:\n$verdict\noutcome:\n$outcome"
	echo 0 > "$SYSFS_KLP_DIR/$LP/enabled"
	gone $LP
	unload_lp $LP
	expected+="
livepatch: '$LP': reversing transition from patching to unpatching
livepatch: '$LP': starting unpatching transition
livepatch: '$LP': completing unpatching transition
livepatch: '$LP': unpatching complete
% rmmod $LP"
done
let_go
unload_mod $BLOCK

check_result "$expected
% rmmod $BLOCK"

exit 0
