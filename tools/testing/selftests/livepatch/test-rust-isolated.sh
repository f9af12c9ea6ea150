#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A task in user mode on a CPU that is in nohz_full= keeps a transition from ending:
# it is named, and nobody disturbs it, also not after the 15 seconds in which the
# core pokes all others.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh
. $(dirname $0)/functions-watch.sh

# Longer than two rounds of pokes.
SECONDS_LEFT_ALONE=35
# The tick itself says so, once.
MAX_INTERRUPTS=1

need_rust_core
[[ -x "$WATCH" ]] || skip "no $WATCH"
CPU=$(sed 's/[-,].*//' /sys/devices/system/cpu/nohz_full 2> /dev/null)
[[ "$CPU" =~ ^[0-9]+$ ]] || skip "no CPU is in nohz_full="
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


start_test "a task in user mode is left alone"

load_mod $BLOCK
"$WATCH" spin "$CPU" > "$OUT" &
hog=$!
HELD+=($hog)
loop_until 'grep -q ready "$OUT"' || fail_test "nobody spins on CPU $CPU"
sleep 3
load_lp_nowait $LP
settled 1
why="kind=user cpu=$CPU state=R reason=running function=- nohz_full=1"
grep -q "^tid=$hog comm=test_klp-watch $why " "$BLOCKERS" ||
	fail_test "$hog is not named:\n$(cat "$BLOCKERS")"
sleep 1
before=$(interrupts)
sleep $SECONDS_LEFT_ALONE
after=$(interrupts)
[[ "$(cat $SYSFS_KLP_DIR/$LP/transition)" == 1 ]] || fail_test "the transition has ended"
[[ "$(cat $SYSFS_KLP_DIR/$LP/pending)" == 1 ]] || fail_test "others are left:\n$(cat "$BLOCKERS")"
more=$(($(count "$after") - $(count "$before")))
((more <= MAX_INTERRUPTS)) ||
	fail_test "CPU $CPU was interrupted $more times:\n$(diff <(echo "$before") <(echo "$after"))"
# The way out.
kill -STOP $hog
complete $LP
{ kill -KILL $hog; wait $hog; } 2> /dev/null
HELD=()
disable_lp $LP
unload_lp $LP
unload_mod $BLOCK

check_result "% insmod test_modules/$BLOCK.ko
% insmod test_modules/$LP.ko
$(expect_enabled $LP | head -n 3)
livepatch: signaling remaining tasks
livepatch: signaling remaining tasks
$(expect_enabled $LP | tail -n 2)
$(expect_disabled $LP)
% rmmod $BLOCK"

exit 0
