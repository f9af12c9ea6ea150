#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The core is a module. It cannot be unloaded while a livepatch, a shadow variable or
# an open file needs it. Otherwise it can be unloaded and loaded again, which the last
# test does ROUNDS times.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh

MOD_CORE=livepatch
MOD_LIVEPATCH=test_klp_livepatch
MOD_SAMPLE=livepatch_sample
STATES=$SYSFS_DEBUG_DIR/livepatch/states
ROUNDS=${ROUNDS:-10}

need_rust_core
module_loaded $MOD_CORE || skip "the livepatch core is not a module here"
[[ -z "$(ls "$SYSFS_KLP_DIR")" ]] || skip "a livepatch is loaded: $(ls "$SYSFS_KLP_DIR")"

# The tests after this one need the core, even if one fails while it is unloaded.
function cleanup() {
	modprobe $MOD_CORE
	pop_config
}

setup_config

CMDLINE=$(cat /proc/cmdline)
PATCHED="$MOD_LIVEPATCH: this has been live patched"

# check_result() only sees messages about the core that begin with 'livepatch:'.

# load_core() - load the core, and switch its debug messages on anew
function load_core() {
	local ret

	log "livepatch: % modprobe $MOD_CORE"
	ret=$(modprobe $MOD_CORE 2>&1)
	[[ -z "$ret" ]] || fail_test "$ret"
	[[ -d "$SYSFS_KLP_DIR" ]] || fail_test "no $SYSFS_KLP_DIR"
	set_dynamic_debug
}

# unload_core() - unload the core
function unload_core() {
	log "livepatch: % rmmod $MOD_CORE"
	unload_mod $MOD_CORE
	[[ ! -e "$SYSFS_KLP_DIR" ]] || fail_test "$SYSFS_KLP_DIR is still there"
	! grep -q "\[$MOD_CORE\]" /proc/kallsyms ||
		fail_test "symbols of the core are still there"
}

# unload_core_in_use() - try to unload the core while MOD_LIVEPATCH is loaded
function unload_core_in_use() {
	local ret

	log "livepatch: % rmmod $MOD_CORE"
	ret=$(rmmod $MOD_CORE 2>&1) && fail_test "$MOD_CORE was unexpectedly unloaded"
	log "$ret"
	[[ -e "/sys/module/$MOD_CORE/holders/$MOD_LIVEPATCH" ]] ||
		fail_test "$MOD_LIVEPATCH is not among the holders of $MOD_CORE"
}

IN_USE="livepatch: % rmmod $MOD_CORE
rmmod: ERROR: Module $MOD_CORE is in use by: $MOD_LIVEPATCH"


# - load a livepatch and check that the core cannot be unloaded
# - disable it and check that the core cannot be unloaded
# - unload it and check that the core can be unloaded and loaded again

start_test "unload the core"

load_lp $MOD_LIVEPATCH
unload_core_in_use
check_shows /proc/cmdline "$PATCHED"
disable_lp $MOD_LIVEPATCH
unload_core_in_use
check_shows /proc/cmdline "$CMDLINE"
unload_lp $MOD_LIVEPATCH
unload_core
load_core

check_result "% insmod test_modules/$MOD_LIVEPATCH.ko
$(expect_enabled $MOD_LIVEPATCH)
$IN_USE
$(expect_disabled $MOD_LIVEPATCH | head -n -1)
$IN_USE
% rmmod $MOD_LIVEPATCH
livepatch: % rmmod $MOD_CORE
livepatch: % modprobe $MOD_CORE"


# - check that no livepatch can be loaded without the core, and that the same one can
#   be loaded with it

start_test "livepatch without the core"

unload_core
load_failing_mod $MOD_LIVEPATCH
! module_loaded $MOD_LIVEPATCH || fail_test "$MOD_LIVEPATCH is still in /proc/modules"
load_core
load_lp $MOD_LIVEPATCH
check_shows /proc/cmdline "$PATCHED"
disable_lp $MOD_LIVEPATCH
unload_lp $MOD_LIVEPATCH

check_result "livepatch: % rmmod $MOD_CORE
% insmod test_modules/$MOD_LIVEPATCH.ko
$MOD_LIVEPATCH: Unknown symbol klp_enable_patch (err -2)
insmod: ERROR: could not insert module test_modules/$MOD_LIVEPATCH.ko: Unknown symbol in module
livepatch: % modprobe $MOD_CORE
% insmod test_modules/$MOD_LIVEPATCH.ko
$(expect_enabled $MOD_LIVEPATCH)
$(expect_disabled $MOD_LIVEPATCH)"


# hold_open(dir...) - open every file below, and note the descriptors in HELD
function hold_open() {
	local mode file fd

	HELD=()
	while read -r mode file; do
		if ((0$mode & 0444)); then
			exec {fd}<"$file"
		else
			exec {fd}>>"$file"
		fi || fail_test "cannot open $file"
		HELD+=("$fd")
	done < <(find "$@" -type f -printf '%m %p\n')
}

# let_go() - close what hold_open() has opened
function let_go() {
	local fd

	for fd in "${HELD[@]}"; do exec {fd}>&-; done
}


# - open each file in sysfs of the core and of a livepatch
# - unload both: sysfs waits for reads and writes, not for files to be closed
# - check that the open files can neither be read nor written
# - close them when the memory of both modules has other contents

start_test "files in sysfs held open over rmmod"

load_lp $MOD_LIVEPATCH
hold_open "$SYSFS_KLP_DIR" /sys/module/$MOD_CORE /sys/module/$MOD_LIVEPATCH
((${#HELD[@]} > 20)) || fail_test "no more than ${#HELD[@]} files in sysfs"
disable_lp $MOD_LIVEPATCH
unload_lp $MOD_LIVEPATCH
unload_core
for fd in "${HELD[@]}"; do
	! cat <&"$fd" >/dev/null 2>&1 || fail_test "a removed file can still be read"
	! { echo 1 >&"$fd"; } 2>/dev/null || fail_test "a removed file can still be written"
done
load_core
load_lp $MOD_LIVEPATCH
let_go
check_shows /proc/cmdline "$PATCHED"
disable_lp $MOD_LIVEPATCH
unload_lp $MOD_LIVEPATCH

check_result "% insmod test_modules/$MOD_LIVEPATCH.ko
$(expect_enabled $MOD_LIVEPATCH)
$(expect_disabled $MOD_LIVEPATCH)
livepatch: % rmmod $MOD_CORE
livepatch: % modprobe $MOD_CORE
% insmod test_modules/$MOD_LIVEPATCH.ko
$(expect_enabled $MOD_LIVEPATCH)
$(expect_disabled $MOD_LIVEPATCH)"


# - open each file of the core in debugfs, which calls the core when it is closed
# - check that the core cannot be unloaded, however often that is tried
# - close the files and check that it can

name="files in debugfs held open over rmmod"
if [[ ! -e $STATES ]]; then
	skip_test "$name" "no $STATES"
else
	start_test "$name"

	load_lp $MOD_LIVEPATCH
	hold_open "${STATES%/*}"
	disable_lp $MOD_LIVEPATCH
	unload_lp $MOD_LIVEPATCH
	expect=
	for ((i = 0; i < 3; i++)); do
		log "livepatch: % rmmod $MOD_CORE"
		ret=$(rmmod $MOD_CORE 2>&1) && fail_test "$MOD_CORE was unexpectedly unloaded"
		[[ "$ret" == "rmmod: ERROR: Module $MOD_CORE is in use" ]] ||
			fail_test "rmmod $MOD_CORE: $ret"
		expect+="livepatch: % rmmod $MOD_CORE
"
	done
	for fd in "${HELD[@]}"; do
		cat <&"$fd" >/dev/null || fail_test "cannot read a file that is open"
	done
	let_go
	unload_core
	[[ ! -e $STATES ]] || fail_test "$STATES is still there"
	load_core

	check_result "% insmod test_modules/$MOD_LIVEPATCH.ko
$(expect_enabled $MOD_LIVEPATCH)
$(expect_disabled $MOD_LIVEPATCH)
${expect}livepatch: % rmmod $MOD_CORE
livepatch: % modprobe $MOD_CORE"
fi


# - hold the file in debugfs open: try to unload the core, load a livepatch, try to
#   unload both
# - close the file last, whatever happened before

name="debugfs closed after the core has come again"
if [[ ! -e $STATES ]]; then
	skip_test "$name" "no $STATES"
elif ! modprobe -nq $MOD_SAMPLE; then
	skip_test "$name" "no $MOD_SAMPLE"
else
	start_test "$name"

	exec {fd}<"$STATES"
	first=$(rmmod $MOD_CORE 2>&1)
	modprobe $MOD_SAMPLE
	second=$(rmmod $MOD_SAMPLE $MOD_CORE 2>&1)
	exec {fd}>&-

	[[ "$first" == "rmmod: ERROR: Module $MOD_CORE is in use" ]] ||
		fail_test "rmmod $MOD_CORE: $first"
	[[ "$second" == "rmmod: ERROR: Module $MOD_SAMPLE is in use"* ]] ||
		fail_test "rmmod $MOD_SAMPLE $MOD_CORE: $second"
	disable_lp $MOD_SAMPLE
	unload_lp $MOD_SAMPLE
	unload_core
	load_core

	check_result "$(expect_enabled $MOD_SAMPLE)
$(expect_disabled $MOD_SAMPLE | grep '^livepatch:')
livepatch: % rmmod $MOD_CORE
livepatch: % modprobe $MOD_CORE"
fi


# - load and unload the core and a livepatch over and over
# - check the messages every few rounds, before the kernel's buffer overwrites them

remember_state
TAINTED=$(cat /proc/sys/kernel/tainted)

for ((first = 1; first <= ROUNDS; first += 10)); do
	last=$((first + 9 < ROUNDS ? first + 9 : ROUNDS))
	start_test "load and unload the core, rounds $first to $last"

	expect=
	for ((i = first; i <= last; i++)); do
		unload_core
		load_core
		load_lp $MOD_LIVEPATCH
		check_shows /proc/cmdline "$PATCHED"
		disable_lp $MOD_LIVEPATCH
		unload_lp $MOD_LIVEPATCH
		check_shows /proc/cmdline "$CMDLINE"
		expect+="livepatch: % rmmod $MOD_CORE
livepatch: % modprobe $MOD_CORE
% insmod test_modules/$MOD_LIVEPATCH.ko
$(expect_enabled $MOD_LIVEPATCH)
$(expect_disabled $MOD_LIVEPATCH)
"
	done
	check_nothing_left $MOD_LIVEPATCH
	check_shows /proc/sys/kernel/tainted "$TAINTED"

	check_result "${expect%$'\n'}"
done

exit 0
