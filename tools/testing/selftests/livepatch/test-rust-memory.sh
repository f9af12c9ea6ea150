#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Disabling a livepatch, reversing a transition and unloading a module during a
# transition cannot fail for want of memory: the core allocates none for them.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh

MOD_LIVEPATCH=test_klp_walk_a
MOD_TARGET=test_klp_walk_target
EVENTS=$SYSFS_TRACING_DIR/events/kmem

need_rust_core
[[ -e $EVENTS/kmalloc/trigger ]] || skip "this kernel does not trace allocations"
setup_config

# trace_allocations() - begin to record who allocates memory
function trace_allocations() {
	echo > "$SYSFS_TRACING_DIR/trace"
	echo stacktrace > $EVENTS/kmalloc/trigger
	echo 1 > $EVENTS/kmalloc/enable
	echo 1 > "$SYSFS_TRACING_DIR/tracing_on"
}

# core_allocations() - end that, and print the stacks of allocations by the core
#
# Allocations in ftrace do not count, even if the core has called it.
function core_allocations() {
	echo 0 > $EVENTS/kmalloc/enable
	echo '!stacktrace' > $EVENTS/kmalloc/trigger
	awk '
		function finish() {
			if (stack ~ /livepatch_main/ && stack ~ /realloc/ && stack !~ / ftrace_/)
				print stack
			stack = ""
		}
		/^ => / { stack = stack $0; next }
		{ finish() }
		END { finish() }' "$SYSFS_TRACING_DIR/trace"
	echo > "$SYSFS_TRACING_DIR/trace"
}

# write_enabled(value) - write to the attribute of a livepatch, without waiting
#	value - 0 or 1
function write_enabled() {
	log "% echo $1 > $SYSFS_KLP_DIR/$MOD_LIVEPATCH/enabled"
	echo "$1" > "$SYSFS_KLP_DIR/$MOD_LIVEPATCH/enabled" ||
		fail_test "$1 cannot be written to 'enabled'"
}

# - load a livepatch of vmlinux and of a module: the trace must show allocations
# - hold a task in it; disable it, reverse that, disable it, unload the module
# - let the task go
# - check that the core has not allocated anything

start_test "disable, reverse and a module that goes need no memory"

load_mod $MOD_TARGET
trace_allocations
load_lp_nowait $MOD_LIVEPATCH vmlinux=version_proc_show target=test_klp_walk_second
# Before others fill the buffer, those who wait for the transition for example.
[[ -n "$(core_allocations)" ]] || fail_test "the core's allocations are not seen"
loop_until "grep -q '^0$' $SYSFS_KLP_DIR/$MOD_LIVEPATCH/transition" ||
	fail_test "the livepatch is not enabled"

echo 1 > /sys/module/$MOD_LIVEPATCH/parameters/hold
# The test module holds only programs of this name.
reader=$(mktemp -d)/reader
ln -s "$(type -P cat)" "$reader"
"$reader" /proc/version > /dev/null &
loop_until "grep -q livepatch_walk_show /proc/$!/stack" ||
	fail_test "the reader is not held"

trace_allocations
write_enabled 0
write_enabled 1
loop_until "grep -q '^0$' $SYSFS_KLP_DIR/$MOD_LIVEPATCH/transition" ||
	fail_test "the transition did not turn round"
write_enabled 0
unload_mod $MOD_TARGET
check_sysfs_value $MOD_LIVEPATCH "transition" "1"
echo 0 > /sys/module/$MOD_LIVEPATCH/parameters/hold
wait $!
rm -r "$(dirname "$reader")"
loop_until '[[ ! -e $SYSFS_KLP_DIR/$MOD_LIVEPATCH ]]' ||
	fail_test "the livepatch is still enabled"
found=$(core_allocations)
[[ -z "$found" ]] || fail_test "allocations of the core:\n$found"
unload_lp $MOD_LIVEPATCH

check_result "% insmod test_modules/$MOD_TARGET.ko
$MOD_TARGET: init
% insmod test_modules/$MOD_LIVEPATCH.ko vmlinux=version_proc_show target=test_klp_walk_second
$(expect_enabled $MOD_LIVEPATCH)
% echo 0 > $SYSFS_KLP_DIR/$MOD_LIVEPATCH/enabled
livepatch: '$MOD_LIVEPATCH': initializing unpatching transition
livepatch: '$MOD_LIVEPATCH': starting unpatching transition
% echo 1 > $SYSFS_KLP_DIR/$MOD_LIVEPATCH/enabled
livepatch: '$MOD_LIVEPATCH': reversing transition from unpatching to patching
livepatch: '$MOD_LIVEPATCH': starting patching transition
livepatch: '$MOD_LIVEPATCH': completing patching transition
livepatch: '$MOD_LIVEPATCH': patching complete
% echo 0 > $SYSFS_KLP_DIR/$MOD_LIVEPATCH/enabled
livepatch: '$MOD_LIVEPATCH': initializing unpatching transition
livepatch: '$MOD_LIVEPATCH': starting unpatching transition
% rmmod $MOD_TARGET
$MOD_TARGET: exit
livepatch: reverting patch '$MOD_LIVEPATCH' on unloading module '$MOD_TARGET'
livepatch: '$MOD_LIVEPATCH': completing unpatching transition
livepatch: '$MOD_LIVEPATCH': unpatching complete
% rmmod $MOD_LIVEPATCH"

exit 0
