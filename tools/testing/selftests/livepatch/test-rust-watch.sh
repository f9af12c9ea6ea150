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
STATE=test_klp_rust_initfail

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
			echo "\$SEQNUM \$ACTION@\$DEVPATH \$KLP_PATCH \$KLP_TARGET" \
				"\$KLP_TRANSITION" >> "$OUT"
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


# - a line in the log after a minute, with one of those who are left

start_test "a transition that stalls"

load_mod $BLOCK
hold_task sleep
begin_trace
load_lp_nowait $LP
for ((i = 0; i < 75; i++)); do
	[[ -z "$(new_messages "has stalled for .*")" ]] || break
	sleep 1
done
end_trace
traced klp_transition |
	grep -q "^patch=$LP target=patched stage=stalled age_ms=6[0-9][0-9][0-9][0-9]$" ||
	fail_test "not traced: $(traced klp_transition)"
# Pokes come in between, or just behind.
told=$(new_messages "livepatch: \(signaling remaining tasks\|'$LP': transition has stalled .*\)")
example="klp-sleep:${HELD[0]} sleeping on function test_klp_block_sleep"
grep -q "' has stalled for 6[0-9] s: 1 task left, e.g. $example$" <<< "${told//: transition}" ||
	fail_test "told: $told"
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
[[ "$first" =~ ^patch=$LP\ target=patched\ stage=start\ age_ms=[0-9]+$ ]] ||
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
for function in sleep run; do
	func="object=$BLOCK function=test_klp_block_$function"
	traced klp_func | grep -qx "$func code=livepatch_block.* action=push" ||
		fail_test "not pushed: $(traced klp_func)"
done
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


# - who switches tasks: each thread is in one event for each transition, those that
#   are forked meanwhile included

start_test "tracepoints of tasks that are forked"

load_mod $BLOCK
hold_task sleep
begin_trace
load_lp_nowait $LP
settled 1
sleep 1000 &
HELD+=($!)
let_go_of=${HELD[1]}
traced klp_task_switch | grep -q "pid=$let_go_of target=patched by=fork$" ||
	fail_test "$let_go_of was forked: $(traced klp_task_switch)"
kill $let_go_of
let_go
complete $LP
end_trace
switched=$(traced klp_task_switch |
	sed -n 's/.* pid=\([1-9][0-9]*\) target=patched by=.*/\1/p' | sort)
[[ -z "$(uniq -d <<< "$switched")" ]] || fail_test "switched twice: $(uniq -d <<< "$switched")"
cpus=$(traced klp_task_switch | grep -c ' pid=0 target=patched by=[a-z]*$')
((cpus == $(nproc --all))) || fail_test "$cpus idle tasks were switched"
echo > "$SYSFS_TRACING_DIR/trace"
disable_lp $LP
unload_lp $LP
unload_mod $BLOCK

check_result "% insmod test_modules/$BLOCK.ko
% insmod test_modules/$LP.ko
$(expect_enabled $LP)
$(expect_disabled $LP)
% rmmod $BLOCK"


# - callbacks, functions that come and go with a module, and shadow variables

start_test "tracepoints of callbacks, functions and shadow variables"

# steps(name...) - print what is traced of callbacks of these names
function steps() {
	local name of

	for name in "$@"; do
		of="object=vmlinux id=0"
		[[ "$name" != state_* ]] || of="object= id=9000"
		echo "name=${name#state_} $of code=$name action=begin ret=0"
		echo "name=${name#state_} $of code=$name action=end ret=0"
	done
}

# check_traced(event, line...) - fail unless just these events were traced
function check_traced() {
	local now expected

	now=$(traced "$1" | sed "s/ \[$STATE\]//")
	expected=$(printf '%s\n' "${@:2}")
	[[ "$now" == "$expected" ]] || fail_test "$1 should be:\n$expected\nis:\n$now"
}

func="object=vmlinux function=cmdline_proc_show code=livepatch_cmdline_proc_show"
begin_trace
load_lp $STATE shadow=1
disable_lp $STATE
end_trace
check_traced klp_callback "$(steps state_pre_patch pre_patch state_post_patch post_patch \
	pre_unpatch state_pre_unpatch post_unpatch state_post_unpatch)"
check_traced klp_func "$func action=push" "$func action=pop"
check_traced klp_shadow "id=9000 event=opened count=0" "id=9000 event=closed count=1" \
	"id=9000 event=collected count=1"
unload_lp $STATE

check_result "% insmod test_modules/$STATE.ko shadow=1
livepatch: enabling patch '$STATE'
livepatch: '$STATE': initializing patching transition
$STATE: state_pre_patch
$STATE: pre_patch
livepatch: '$STATE': starting patching transition
livepatch: '$STATE': completing patching transition
$STATE: state_post_patch
$STATE: post_patch
livepatch: '$STATE': patching complete
% echo 0 > $SYSFS_KLP_DIR/$STATE/enabled
livepatch: '$STATE': initializing unpatching transition
$STATE: pre_unpatch
$STATE: state_pre_unpatch
livepatch: '$STATE': starting unpatching transition
livepatch: '$STATE': completing unpatching transition
$STATE: post_unpatch
$STATE: state_post_unpatch
$STATE: dtor
livepatch: '$STATE': unpatching complete
% rmmod $STATE"

exit 0
