#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Who runs on a CPU that is in nohz_full= is not disturbed while a transition waits,
# also not after the 15 seconds in which the core pokes all others; who has not been
# switched there is named.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh
. $(dirname $0)/functions-watch.sh

# Longer than a round of pokes, also for who sleeps half of that.
SECONDS_LEFT_ALONE=32
# The tick itself says so, once.
MAX_INTERRUPTS=1

need_rust_core
[[ -x "$WATCH" ]] || skip "no $WATCH"
CPU=$(sed 's/[-,].*//' /sys/devices/system/cpu/nohz_full 2> /dev/null)
[[ "$CPU" =~ ^[0-9]+$ ]] || skip "no CPU is in nohz_full="
! dmesg | grep -q "Could not switch to high resolution mode" ||
	skip "the timers of this machine cannot stop the tick"
setup_config
trap 'end_watch; cleanup' EXIT INT TERM HUP

# interrupts() - print which interrupts CPU has had, and how many
function interrupts() {
	awk -v cpu="$CPU" '
		NR == 1 { for (i = 1; i <= NF; i++) if ($i == "CPU" cpu) column = i + 1; next }
		$column ~ /^[0-9]+$/ { print $1 $column }' /proc/interrupts
}

# count(interrupts) - print how many interrupts these are
function count() {
	awk -F : '{ sum += $2 } END { print sum + 0 }' <<< "$1"
}


# - it is switched as the core changes its own code when a transition starts: that
#   interrupts all CPUs

start_test "a task in user mode is left alone"

load_mod $BLOCK
hold_task sleep
"$WATCH" spin "$CPU" > "$OUT" &
hog=$!
HELD+=($hog)
loop_until 'grep -q ready "$OUT"' || fail_test "nobody spins on CPU $CPU"
sleep 3
load_lp_nowait $LP
settled 1
grep -q "^tid=${HELD[0]} " "$BLOCKERS" || fail_test "is left:\n$(cat "$BLOCKERS")"
sleep 1
before=$(interrupts)
sleep $SECONDS_LEFT_ALONE
after=$(interrupts)
check_shows $SYSFS_KLP_DIR/$LP/transition 1
more=$(($(count "$after") - $(count "$before")))
changes=$(diff <(echo "$before") <(echo "$after"))
((more <= MAX_INTERRUPTS)) || fail_test "CPU $CPU was interrupted $more times:\n$changes"
{ kill -KILL $hog; wait $hog; } 2> /dev/null
HELD=("${HELD[0]}")
told=$(new_messages "livepatch: \(signaling remaining tasks\|'$LP': transition has stalled .*\)")
let_go
complete $LP
disable_lp $LP
unload_lp $LP
unload_mod $BLOCK

check_result "% insmod test_modules/$BLOCK.ko
% insmod test_modules/$LP.ko
$(expect_enabled $LP | head -n 3)
$told
$(expect_enabled $LP | tail -n 2)
$(expect_disabled $LP)
% rmmod $BLOCK"


# - a task that runs a virtual CPU, as it were, is not made to leave the kernel

start_test "a task that does not leave the kernel is named"

load_mod $BLOCK
(printf klp-vcpu > /proc/$BASHPID/comm && taskset -cp "$CPU" $BASHPID > /dev/null &&
	echo vcpu > $BLOCK_PARAMS/enter) &
vcpu=$!
HELD+=($vcpu)
loop_until '[[ $(cat $BLOCK_PARAMS/inside) == 1 ]]' || fail_test "klp-vcpu does not run"
load_lp_nowait $LP
settled 1
sleep $((SECONDS_LEFT_ALONE / 2))
why="kind=user cpu=$CPU state=R reason=running function=- nohz_full=1"
loop_until 'grep -q "^tid=$vcpu comm=klp-vcpu $why " "$BLOCKERS"' ||
	fail_test "$vcpu is not named:\n$(cat "$BLOCKERS")"
check_shows $SYSFS_KLP_DIR/$LP/transition 1
told=$(new_messages "livepatch: \(signaling remaining tasks\|'$LP': transition has stalled .*\)")
[[ -n "$told" ]] || fail_test "nobody was poked"
# The way out: it has to look whether somebody wants something of it.
kill -STOP $vcpu
loop_until 'grep -q "State:.T" /proc/$vcpu/status' || fail_test "$vcpu is not stopped"
complete $LP
kill -CONT $vcpu
let_go
disable_lp $LP
unload_lp $LP
unload_mod $BLOCK

check_result "% insmod test_modules/$BLOCK.ko
% insmod test_modules/$LP.ko
$(expect_enabled $LP | head -n 3)
$told
$(expect_enabled $LP | tail -n 2)
$(expect_disabled $LP)
% rmmod $BLOCK"

exit 0
