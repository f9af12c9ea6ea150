#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The functions of all objects of a livepatch are hooked together, in one ops group,
# before any object is patched. A livepatch that is refused then leaves nothing.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh

MOD_STRESS=test_klp_stress_a
MOD_STRESS_TARGET=test_klp_stress_target
MOD_TARGET=test_klp_mod_target
MOD_WALK=test_klp_walk_a
MOD_WALK_TARGET=test_klp_walk_target

need_rust_core
setup_config

# count_ops() - print how many ftrace_ops there are that call functions
#
# An ops has a trampoline of its own, or ftrace names it at each of its functions.
function count_ops() {
	{
		grep 'ftrace_trampoline' /proc/kallsyms
		enabled_functions | grep -o 'ops: [^ ]*' | sort -u
	} | wc -l
}


# - load a livepatch of vmlinux and of two modules
# - check that the modules share an ftrace_ops, and that all of it is undone

start_test "two modules share an ftrace_ops"

load_mod $MOD_TARGET
load_mod $MOD_STRESS_TARGET idle=1
remember_state
before=$(count_ops)
load_lp $MOD_STRESS
check_sysfs_value $MOD_STRESS "vmlinux/patched" "1"
check_sysfs_value $MOD_STRESS "$MOD_TARGET/patched" "1"
check_sysfs_value $MOD_STRESS "$MOD_STRESS_TARGET/patched" "1"
# vmlinux may be too far from the modules.
added=$(($(count_ops) - before))
((added == 1 || added == 2)) || fail_test "three objects took $added ftrace_ops"
disable_lp $MOD_STRESS
unload_lp $MOD_STRESS
check_nothing_left $MOD_STRESS
unload_mod $MOD_STRESS_TARGET
unload_mod $MOD_TARGET

check_result "% insmod test_modules/$MOD_TARGET.ko
$MOD_TARGET: test_klp_mod_target_init
% insmod test_modules/$MOD_STRESS_TARGET.ko idle=1
% insmod test_modules/$MOD_STRESS.ko
$(expect_enabled $MOD_STRESS)
$(expect_disabled $MOD_STRESS)
% rmmod $MOD_STRESS_TARGET
% rmmod $MOD_TARGET
$MOD_TARGET: test_klp_mod_target_exit"


# - let a pre_patch callback fail, of the first object or of the second
# - check that nothing is left of either object

# refused(name, object, result) - a test that a callback refuses the livepatch
#	name     - the name of the test
#	object   - the object whose pre_patch callback fails
#	messages - those of the callbacks up to that one, and after it
function refused() {
	local name="$1" object="$2" before="$3" after="$4"
	local params=(vmlinux=version_proc_show target=test_klp_walk_second callbacks=1)

	start_test "$name"

	load_mod $MOD_WALK_TARGET
	remember_state
	load_failing_mod $MOD_WALK "${params[@]}" refuse=$object
	check_nothing_left $MOD_WALK
	unload_mod $MOD_WALK_TARGET

	check_result "% insmod test_modules/$MOD_WALK_TARGET.ko
$MOD_WALK_TARGET: init
% insmod test_modules/$MOD_WALK.ko ${params[*]} refuse=$object
livepatch: enabling patch '$MOD_WALK'
livepatch: '$MOD_WALK': initializing patching transition
$before
livepatch: pre-patch callback failed for object '$object'
livepatch: failed to enable patch '$MOD_WALK'
livepatch: '$MOD_WALK': canceling patching transition, going to unpatch
livepatch: '$MOD_WALK': completing unpatching transition${after:+
$after}
livepatch: '$MOD_WALK': unpatching complete
insmod: ERROR: could not insert module test_modules/$MOD_WALK.ko: Invalid cross-device link
% rmmod $MOD_WALK_TARGET
$MOD_WALK_TARGET: exit"
}

refused "the first object is refused, with the second hooked" vmlinux \
	"$MOD_WALK: pre_patch: vmlinux, no module, enabled=0"

refused "the second object is refused, with both hooked" $MOD_WALK_TARGET \
	"$MOD_WALK: pre_patch: vmlinux, no module, enabled=0
$MOD_WALK: pre_patch: $MOD_WALK_TARGET, live, enabled=0" \
	"$MOD_WALK: post_unpatch: vmlinux, no module, enabled=0"

exit 0
