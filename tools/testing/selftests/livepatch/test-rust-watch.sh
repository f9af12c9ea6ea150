#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What the core tells of a transition: poll() on "transition" and "enabled",
# uevents, and tracepoints.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh
. $(dirname $0)/functions-exit.sh
. $(dirname $0)/functions-watch.sh

LISTENER=
UEVENT_HELPER=/sys/kernel/uevent_helper
LP=test_klp_rust_block_lp

need_rust_core
[[ -x "$WATCH" ]] || skip "no $WATCH"
setup_config
trap 'end_listener; end_events; end_watch; cleanup' EXIT INT TERM HUP

# listen(args) - start a program that listens
#	args - see test_klp-watch.c
function listen() {
	"$WATCH" "$@" > "$OUT" 2>&1 &
	LISTENER=$!
	loop_until 'grep -q ready "$OUT"' || fail_test "it does not listen:\n$(cat "$OUT")"
}

# end_listener() - end the program, if it has not ended
function end_listener() {
	[[ -z "$LISTENER" ]] || kill $LISTENER 2> /dev/null
	LISTENER=
}

# check_heard(line...) - fail unless the program has printed this
function check_heard() {
	local expected

	loop_until '[[ $(wc -l < "$OUT") -gt '$#' ]]' || true
	expected=$(printf '%s\n' ready "$@")
	[[ "$(sort -n "$OUT" | sed 's/^[0-9]* //')" == "$expected" ]] ||
		fail_test "heard should be:\n$expected\nis:\n$(cat "$OUT")"
	end_listener
	end_events
}

# listen_to_events(number) - start to write down uevents about livepatches
#	number - how many there will be
#
# Without CONFIG_NET the kernel tells them to a program of our own, one process for
# each.
function listen_to_events() {
	if [[ -e /proc/net/netlink ]]; then
		listen events "$1"
		return
	fi
	cat > "$OUT.helper" <<- EOF
		#!/bin/bash
		[[ -z "\$KLP_PATCH" ]] ||
			echo "\$SEQNUM \$ACTION@\$DEVPATH \$KLP_PATCH \$KLP_TARGET \$KLP_TRANSITION" >> "$OUT"
	EOF
	chmod +x "$OUT.helper"
	echo "0 ready" > "$OUT"
	echo "$OUT.helper" > $UEVENT_HELPER
}

# end_events() - end what listen_to_events() has begun
function end_events() {
	[[ ! -e "$OUT.helper" ]] || echo > $UEVENT_HELPER
	rm -f "$OUT.helper"
}

# check_late(milliseconds...) - fail if poll() was late by 10 ms more often than not
function check_late() {
	local median

	median=$(printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p")
	[[ "$median" =~ ^[0-9]\.[0-9]+$ ]] || fail_test "poll() was late: $* ms"
}

# threads() - print the ids of all threads
function threads() {
	ls -d /proc/[0-9]*/task/[0-9]* 2> /dev/null | sed 's|.*/||' | sort
}


# - poll() wakes for "transition" and "enabled", in each direction

start_test "poll() on transition and enabled"

load_mod $BLOCK
hold_task sleep
load_lp_nowait $LP
settled 1
listen poll "$SYSFS_KLP_DIR/$LP/transition"
let_go
complete $LP
loop_until 'grep -q "^transition 0$" "$OUT"' || fail_test "not heard:\n$(cat "$OUT")"
disable_lp $LP
loop_until 'grep -q gone "$OUT" || [[ $(grep -c "^transition 0$" "$OUT") -ge 2 ]]' ||
	fail_test "the end is not heard of:\n$(cat "$OUT")"
end_listener
unload_lp $LP

echo 1 > $BLOCK_PARAMS/hold
hold_task sleep
load_lp_nowait $LP
settled 1
listen poll "$SYSFS_KLP_DIR/$LP/enabled"
echo 0 > "$SYSFS_KLP_DIR/$LP/enabled"
loop_until 'grep -q -e "^enabled 0$" -e gone "$OUT"' || fail_test "not heard:\n$(cat "$OUT")"
end_listener
gone $LP
unload_lp $LP
let_go
unload_mod $BLOCK

turned="livepatch: '$LP': reversing transition from patching to unpatching
livepatch: '$LP': starting unpatching transition
livepatch: '$LP': completing unpatching transition
livepatch: '$LP': unpatching complete"
check_result "% insmod test_modules/$BLOCK.ko
% insmod test_modules/$LP.ko
$(expect_enabled $LP)
$(expect_disabled $LP)
% insmod test_modules/$LP.ko
$(expect_enabled $LP | head -n 3)
$turned
% rmmod $LP
% rmmod $BLOCK"


# - poll() returns within 10 ms: that is the median, as there is always somebody
#   else who wants the CPU

start_test "poll() returns soon"

late=()
expected=
load_mod $BLOCK
hold_task sleep
for ((i = 0; i < 5; i++)); do
	load_lp_nowait $LP
	settled 1
	late+=("$("$WATCH" write "$SYSFS_KLP_DIR/$LP/enabled" 0)")
	gone $LP
	unload_lp $LP
	expected+="% insmod test_modules/$LP.ko
$(expect_enabled $LP | head -n 3)
$turned
% rmmod $LP
"
done
check_late "${late[@]}"
late=()
for ((i = 0; i < 5; i++)); do
	load_lp_nowait $LP
	settled 1
	(sleep .3; echo 0 > $BLOCK_PARAMS/hold) &
	late+=("$("$WATCH" late "$SYSFS_KLP_DIR/$LP/transition" 0)")
	let_go
	disable_lp $LP
	unload_lp $LP
	echo 1 > $BLOCK_PARAMS/hold
	hold_task sleep
	expected+="% insmod test_modules/$LP.ko
$(expect_enabled $LP)
$(expect_disabled $LP)
"
done
check_late "${late[@]}"
let_go
unload_mod $BLOCK

check_result "% insmod test_modules/$BLOCK.ko
${expected}% rmmod $BLOCK"


# - a uevent of the livepatch's module for each thing that becomes of its transition

if [[ -e /proc/net/netlink || -e $UEVENT_HELPER ]]; then

start_test "uevents"

load_mod $BLOCK
hold_task sleep
listen_to_events 7
load_lp_nowait $LP
settled 1
write_enabled $LP 0
gone $LP
unload_lp $LP
load_lp_nowait $LP
settled 1
let_go
complete $LP
disable_lp $LP
check_heard "change@/module/$LP $LP patched start" \
	"change@/module/$LP $LP unpatched reversed" \
	"change@/module/$LP $LP unpatched complete" \
	"change@/module/$LP $LP patched start" \
	"change@/module/$LP $LP patched complete" \
	"change@/module/$LP $LP unpatched start" \
	"change@/module/$LP $LP unpatched complete"
unload_lp $LP
unload_mod $BLOCK

check_result "% insmod test_modules/$BLOCK.ko
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

else
	skip_test "uevents" "the kernel has neither CONFIG_NET nor CONFIG_UEVENT_HELPER"
fi


# - the tracepoints have the right fields
# - each thread is switched once

start_test "tracepoints"

[[ -d "$EVENTS" ]] || fail_test "no $EVENTS"
load_mod $BLOCK
hold_task sleep
before=$(threads)
begin_trace
load_lp_nowait $LP
settled 1
let_go
complete $LP
end_trace
# Who is forked by one that is switched, is switched.
switched=$(traced klp_task_switch |
	sed -n 's/.* pid=\([1-9][0-9]*\) target=patched by=.*/\1/p' | sort)
[[ -z "$(uniq -d <<< "$switched")" ]] || fail_test "switched twice: $(uniq -d <<< "$switched")"
missed=$(comm -23 <(comm -12 <(echo "$before") <(threads)) <(echo "$switched"))
[[ -z "$missed" ]] || fail_test "not traced: $missed"
first=$(traced klp_transition | head -n 1)
[[ "$first" =~ ^patch=$LP\ target=patched\ stage=start\ age_ms=[0-9]$ ]] ||
	fail_test "first: $first"
traced klp_transition | tail -n 1 |
	grep -qx "patch=$LP target=patched stage=complete age_ms=[0-9]*" ||
	fail_test "last: $(traced klp_transition)"
traced klp_task_blocked |
	grep -qx "comm=klp-sleep pid=[0-9]* reason=function function=test_klp_block_sleep" ||
	fail_test "blocked: $(traced klp_task_blocked)"
traced klp_task_switch | grep -qx "comm=klp-sleep pid=[0-9]* target=patched by=[a-z]*" ||
	fail_test "klp-sleep was not switched: $(traced klp_task_switch)"
traced klp_task_switch | grep -q "comm=swapper/1 pid=0 target=patched" ||
	fail_test "no idle task: $(traced klp_task_switch)"
echo > "$SYSFS_TRACING_DIR/trace"
disable_lp $LP
unload_lp $LP
[[ -z "$(traced 'klp_[a-z_]*')" ]] || fail_test "it is off: $(traced 'klp_[a-z_]*')"
unload_mod $BLOCK

check_result "% insmod test_modules/$BLOCK.ko
% insmod test_modules/$LP.ko
$(expect_enabled $LP)
$(expect_disabled $LP)
% rmmod $BLOCK"

exit 0
