#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Shell functions for the test-rust-*.sh scripts, on top of functions.sh.

# fail_test(msg) - end a test that has begun, and all that would come after it
#	msg - what is wrong
function fail_test() {
	echo -e "not ok\n\n$1\n"
	die "livepatch kselftest(s) failed"
}

# skip_test(name, reason) - leave out one test
#	name   - the name of the test
#	reason - why it cannot run here
function skip_test() {
	echo "TEST: $1 ... SKIP $2"
	log "===== TEST: $1 (SKIP: $2) ====="
}

# need_rust_core() - skip the whole script unless the core is the one in Rust
#
# Only its resident part has this function. The core in C says nothing about most
# mistakes.
function need_rust_core() {
	is_root
	grep -q ' klp_register_core$' /proc/kallsyms ||
		skip "these tests are for the livepatch core written in Rust"
	[[ -d "$SYSFS_KLP_DIR" ]] || modprobe -q livepatch ||
		skip "the livepatch core is not loaded, and modprobe does not find it"
}

# module_loaded(modname) - whether a module is loaded, going ones included
#	modname - module name
function module_loaded() {
	grep -q "^$1 " /proc/modules
}

# new_messages(pattern) - print the messages since the test began that match
#	pattern - up to the end of the line
function new_messages() {
	dmesg | awk -v last_dmesg="$LAST_DMESG" 'p; $0 == last_dmesg { p=1 }' | grep -o "$1\$"
}

# enabled_functions() - print the functions that ftrace has hooked, and their ops
function enabled_functions() {
	cat "$SYSFS_TRACING_DIR/enabled_functions"
}

# remember_state() - note the state that a refused livepatch must not change
function remember_state() {
	STATE_LIVEPATCHES=$(ls "$SYSFS_KLP_DIR")
	STATE_FUNCTIONS=$(enabled_functions)
}

# check_nothing_left(modname) - fail unless a refused module left no trace
#	modname - the livepatch that was refused
function check_nothing_left() {
	local mod="$1"
	local now

	[[ ! -e "$SYSFS_KLP_DIR/$mod" ]] ||
		fail_test "$SYSFS_KLP_DIR/$mod is still there"
	[[ ! -e "/sys/module/$mod" ]] || fail_test "/sys/module/$mod is still there"
	! module_loaded "$mod" || fail_test "$mod is still in /proc/modules"

	now=$(ls "$SYSFS_KLP_DIR")
	[[ "$now" == "$STATE_LIVEPATCHES" ]] ||
		fail_test "livepatches before: $STATE_LIVEPATCHES\nnow: $now"
	now=$(enabled_functions)
	[[ "$now" == "$STATE_FUNCTIONS" ]] ||
		fail_test "enabled_functions before:\n$STATE_FUNCTIONS\nnow:\n$now"
}

# check_shows(file, text) - fail unless a file has nothing but this line
#	file - the file
#	text - the line
function check_shows() {
	local now

	now=$(cat "$1")
	[[ "$now" == "$2" ]] || fail_test "$1 should show '$2', but shows: $now"
}

# expect_enabled(modname) - print the messages about a livepatch being enabled
#	modname - livepatch module name
function expect_enabled() {
	echo "livepatch: enabling patch '$1'
livepatch: '$1': initializing patching transition
livepatch: '$1': starting patching transition
livepatch: '$1': completing patching transition
livepatch: '$1': patching complete"
}

# expect_disabled(modname) - print the messages of disable_lp() and unload_lp()
#	modname - livepatch module name
function expect_disabled() {
	echo "% echo 0 > $SYSFS_KLP_DIR/$1/enabled
livepatch: '$1': initializing unpatching transition
livepatch: '$1': starting unpatching transition
livepatch: '$1': completing unpatching transition
livepatch: '$1': unpatching complete
% rmmod $1"
}

# expect_canceled(modname, object) - print the messages from the point where an
#				    object could not be patched
#	modname - livepatch module name
#	object  - what could not be patched
function expect_canceled() {
	echo "livepatch: failed to patch object '$2'
livepatch: failed to enable patch '$1'
livepatch: '$1': canceling patching transition, going to unpatch
livepatch: '$1': completing unpatching transition
livepatch: '$1': unpatching complete"
}
