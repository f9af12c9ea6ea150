#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The livepatch core as a module: it cannot be unloaded while a livepatch needs
# it, and can be unloaded and loaded again when none does. ROUNDS says how often
# the last test does so.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh

MOD_CORE=livepatch
MOD_LIVEPATCH=test_klp_livepatch
ROUNDS=${ROUNDS:-10}

need_rust_core
module_loaded $MOD_CORE || skip "the livepatch core is not a module here"
[[ -z "$(ls "$SYSFS_KLP_DIR")" ]] || skip "a livepatch is loaded: $(ls "$SYSFS_KLP_DIR")"

# What comes after this needs the core, also if a test fails while it is gone.
function cleanup() {
	modprobe $MOD_CORE
	pop_config
}

setup_config

CMDLINE=$(cat /proc/cmdline)
PATCHED="$MOD_LIVEPATCH: this has been live patched"

# Messages about the core begin with 'livepatch:', or check_result() would not
# see them.

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


# - without the core no livepatch can be loaded, with it the same one can

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


# - load and unload the core and a livepatch over and over; the messages are
#   checked every few rounds, the kernel's buffer does not hold them for ever

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
