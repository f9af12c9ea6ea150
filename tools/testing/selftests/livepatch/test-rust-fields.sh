#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A livepatch can read in its callbacks what include/linux/livepatch.h offers: its
# lists of objects and functions, the addresses of the original functions, sizes,
# and what is patched. Both cores must fill in the same at the same time, and both
# run this.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh

MOD=test_klp_rust_fields
MOD_TARGET=test_klp_mod_target
FUNCTIONS=(cmdline_proc_show version_proc_show)

[[ -f test_modules/$MOD.ko ]] || skip "$MOD is not built"
setup_config

# func(name, loaded, patched, transition, runs) - print what is said of a function
function func() {
	local at="$1" size=right

	[[ $2 == yes ]] || at=nowhere size=-
	echo "$MOD:     $1: at $at
$MOD:       patched=$3 transition=$4 nop=0 old_size=$size new_size=$size runs $5"
}

# shows(callback, object, enabled, due, vmlinux, target) - print what a callback says
#	callback - its name
#	object   - for which it is called
#	enabled  - whether the livepatch is enabled
#	due      - whether post_unpatch will be called for the object
#	vmlinux  - of its functions: patched, transition, and what runs
#	target   - the same for MOD_TARGET, after "yes" if it is loaded, else "no"
function shows() {
	local callback="$1" object="$2" enabled="$3" due="$4" name
	local vmlinux target state

	read -ra vmlinux <<< "$5"
	read -ra target <<< "$6"
	name=$MOD_TARGET
	[[ ${target[0]} == yes ]] || name=-
	state="enabled=$enabled forced=0 post_unpatch_enabled=$due"
	echo "$MOD: $callback of $object: $state lists agree
$MOD:   vmlinux: mod=- dynamic=0 patched=${vmlinux[0]}"
	for function in "${FUNCTIONS[@]}"; do
		func "$function" yes "${vmlinux[@]}"
	done
	echo "$MOD:   $MOD_TARGET: mod=$name dynamic=0 patched=${target[1]}"
	func test_klp_mod_target_show "${target[@]}"
}

BEGIN="livepatch: enabling patch '$MOD'
livepatch: '$MOD': initializing patching transition"
END="$MOD: exit: no objects of the livepatch, no functions of vmlinux"


start_test "functions of vmlinux and of a module"

load_mod $MOD_TARGET
load_lp $MOD
disable_lp $MOD
unload_lp $MOD
unload_mod $MOD_TARGET

check_result "% insmod test_modules/$MOD_TARGET.ko
$MOD_TARGET: test_klp_mod_target_init
% insmod test_modules/$MOD.ko
$BEGIN
$(shows pre_patch vmlinux 0 0 "0 1 original" "yes 0 1 original")
$(shows pre_patch $MOD_TARGET 0 0 "1 1 original" "yes 0 1 original")
livepatch: '$MOD': starting patching transition
livepatch: '$MOD': completing patching transition
$(shows post_patch vmlinux 1 1 "1 0 new" "yes 1 0 new")
$(shows post_patch $MOD_TARGET 1 1 "1 0 new" "yes 1 0 new")
livepatch: '$MOD': patching complete
% echo 0 > $SYSFS_KLP_DIR/$MOD/enabled
livepatch: '$MOD': initializing unpatching transition
$(shows pre_unpatch vmlinux 1 1 "1 1 new" "yes 1 1 new")
$(shows pre_unpatch $MOD_TARGET 1 1 "1 1 new" "yes 1 1 new")
livepatch: '$MOD': starting unpatching transition
livepatch: '$MOD': completing unpatching transition
$(shows post_unpatch vmlinux 0 1 "0 0 original" "yes 0 0 original")
$(shows post_unpatch $MOD_TARGET 0 1 "0 0 original" "yes 0 0 original")
livepatch: '$MOD': unpatching complete
% rmmod $MOD
$END
% rmmod $MOD_TARGET
$MOD_TARGET: test_klp_mod_target_exit"


start_test "a module that comes and goes, twice"

load_lp $MOD
for _ in 1 2; do
	load_mod $MOD_TARGET
	unload_mod $MOD_TARGET
done
disable_lp $MOD
unload_lp $MOD

ROUND="% insmod test_modules/$MOD_TARGET.ko
livepatch: applying patch '$MOD' to loading module '$MOD_TARGET'
$(shows pre_patch $MOD_TARGET 1 0 "1 0 new" "yes 0 0 original")
$(shows post_patch $MOD_TARGET 1 1 "1 0 new" "yes 1 0 new")
$MOD_TARGET: test_klp_mod_target_init
% rmmod $MOD_TARGET
$MOD_TARGET: test_klp_mod_target_exit
$(shows pre_unpatch $MOD_TARGET 1 1 "1 0 new" "yes 1 0 new")
livepatch: reverting patch '$MOD' on unloading module '$MOD_TARGET'
$(shows post_unpatch $MOD_TARGET 1 1 "1 0 new" "yes 0 0 original")"

check_result "% insmod test_modules/$MOD.ko
$BEGIN
$(shows pre_patch vmlinux 0 0 "0 1 original" "no 0 1 nothing")
livepatch: '$MOD': starting patching transition
livepatch: '$MOD': completing patching transition
$(shows post_patch vmlinux 1 1 "1 0 new" "no 0 0 nothing")
livepatch: '$MOD': patching complete
$ROUND
$ROUND
% echo 0 > $SYSFS_KLP_DIR/$MOD/enabled
livepatch: '$MOD': initializing unpatching transition
$(shows pre_unpatch vmlinux 1 1 "1 1 new" "no 0 1 nothing")
livepatch: '$MOD': starting unpatching transition
livepatch: '$MOD': completing unpatching transition
$(shows post_unpatch vmlinux 0 1 "0 0 original" "no 0 0 nothing")
livepatch: '$MOD': unpatching complete
% rmmod $MOD
$END"


start_test "a livepatch that is refused by its callback"

load_failing_mod $MOD refuse=1

check_result "% insmod test_modules/$MOD.ko refuse=1
$BEGIN
$(shows pre_patch vmlinux 0 0 "0 1 original" "no 0 1 nothing")
livepatch: pre-patch callback failed for object 'vmlinux'
livepatch: failed to enable patch '$MOD'
livepatch: '$MOD': canceling patching transition, going to unpatch
livepatch: '$MOD': completing unpatching transition
livepatch: '$MOD': unpatching complete
$MOD: refused: no objects of the livepatch, no functions of vmlinux
insmod: ERROR: could not insert module test_modules/$MOD.ko: No such device"

exit 0
