#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# ftrace refuses one of several functions of a livepatch. The livepatch is refused,
# the message names the function, and nothing of the livepatch is left.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh

MOD_MANY=test_klp_rust_many
MOD_IPMODIFY=test_klp_rust_ipmodify
MOD_LIVEPATCH=test_klp_livepatch
MOD_TARGET=test_klp_mod_target

# The functions that MOD_MANY patches in vmlinux, in the order of its descriptor,
# and the files that show whether they are patched.
FUNCTIONS=(version_proc_show execdomains_proc_show cmdline_proc_show
	   loadavg_proc_show show_softirqs)
FILES=(version execdomains cmdline loadavg softirqs)
ORDINALS=(first second third fourth fifth)

need_rust_core
setup_config

BUSY="Device or resource busy"	# what insmod makes of EBUSY
CMDLINE=$(cat /proc/cmdline)

# check_many(patched) - fail unless all functions, or none, are patched
#	patched - 1 or 0
function check_many() {
	local i line now

	for i in "${!FILES[@]}"; do
		line="$MOD_MANY: ${FUNCTIONS[i]}"
		now=$(cat "/proc/${FILES[i]}")
		[[ "$1" == $([[ "$now" == "$line" ]]; echo $((! $?))) ]] ||
			fail_test "/proc/${FILES[i]} shows: $now"
	done
}

# expect_refused(function, object) - print the messages about MOD_MANY
function expect_refused() {
	echo "% insmod test_modules/$MOD_MANY.ko
livepatch: enabling patch '$MOD_MANY'
livepatch: '$MOD_MANY': initializing patching transition
livepatch: failed to register ftrace handler for function '$1' (-16)
$(expect_canceled $MOD_MANY "$2")
insmod: ERROR: could not insert module test_modules/$MOD_MANY.ko: $BUSY"
}

# refused(name, function, functions) - a test that MOD_MANY is refused
#	name      - the name of the test
#	function  - the function that the message names
#	functions - those that have another user, separated by commas
function refused() {
	local name="$1" function="$2" functions="$3"

	start_test "$name"

	load_mod $MOD_IPMODIFY "functions=$functions"
	remember_state
	load_failing_mod $MOD_MANY
	check_nothing_left $MOD_MANY
	check_many 0
	unload_mod $MOD_IPMODIFY

	check_result "% insmod test_modules/$MOD_IPMODIFY.ko functions=$functions
$(expect_refused "$function" vmlinux)
% rmmod $MOD_IPMODIFY"
}


# - load a livepatch of several functions and check that all are patched
# - try to load another user of one of them, which must be refused
# - unload the livepatch and check that no function is patched any more

start_test "several functions, and another user that comes later"

remember_state
load_lp $MOD_MANY
check_many 1
for function in "${FUNCTIONS[@]}"; do
	load_failing_mod $MOD_IPMODIFY functions="$function"
done
check_many 1
disable_lp $MOD_MANY
check_many 0
unload_lp $MOD_MANY
check_nothing_left $MOD_MANY

check_result "% insmod test_modules/$MOD_MANY.ko
$(expect_enabled $MOD_MANY)
$(for function in "${FUNCTIONS[@]}"; do
	echo "% insmod test_modules/$MOD_IPMODIFY.ko functions=$function"
	echo "insmod: ERROR: could not insert module test_modules/$MOD_IPMODIFY.ko: $BUSY"
done)
$(expect_disabled $MOD_MANY)"


# - let one function have another user already, each in turn
# - let two and all functions have one: the message names the first of them

for i in "${!FUNCTIONS[@]}"; do
	refused "${ORDINALS[i]} of ${#FUNCTIONS[@]} functions is refused" \
		"${FUNCTIONS[i]}" "${FUNCTIONS[i]}"
done

refused "second and fifth of ${#FUNCTIONS[@]} functions are refused" \
	"${FUNCTIONS[1]}" "${FUNCTIONS[4]},${FUNCTIONS[1]}"

refused "all of ${#FUNCTIONS[@]} functions are refused" \
	"${FUNCTIONS[0]}" "$(IFS=,; echo "${FUNCTIONS[*]}")"


# - load a livepatch of the third function
# - try to load a livepatch of several functions, of which a later one has another
#   user: the message must name that one, not the third, which the core has hooked
#   already
# - check that the first livepatch is as it was

start_test "refused livepatch on top of an enabled one"

load_lp $MOD_LIVEPATCH
load_mod $MOD_IPMODIFY "functions=${FUNCTIONS[4]}"
remember_state
load_failing_mod $MOD_MANY
check_nothing_left $MOD_MANY
check_shows /proc/cmdline "$MOD_LIVEPATCH: this has been live patched"
check_sysfs_value $MOD_LIVEPATCH "enabled" "1"
check_sysfs_value $MOD_LIVEPATCH "transition" "0"
check_sysfs_value $MOD_LIVEPATCH "vmlinux/patched" "1"
unload_mod $MOD_IPMODIFY
disable_lp $MOD_LIVEPATCH
unload_lp $MOD_LIVEPATCH
check_shows /proc/cmdline "$CMDLINE"

check_result "% insmod test_modules/$MOD_LIVEPATCH.ko
$(expect_enabled $MOD_LIVEPATCH)
% insmod test_modules/$MOD_IPMODIFY.ko functions=${FUNCTIONS[4]}
$(expect_refused "${FUNCTIONS[4]}" vmlinux)
% rmmod $MOD_IPMODIFY
$(expect_disabled $MOD_LIVEPATCH)"


# - let a function of a module have another user, so that vmlinux is patched first
# - check that vmlinux is not patched any more

start_test "second object is refused after the first was patched"

load_mod $MOD_TARGET
load_mod $MOD_IPMODIFY functions=test_klp_mod_target_show
remember_state
load_failing_mod $MOD_MANY
check_nothing_left $MOD_MANY
check_many 0
check_shows "/proc/$MOD_TARGET" "$MOD_TARGET: original output"
unload_mod $MOD_IPMODIFY
unload_mod $MOD_TARGET

check_result "% insmod test_modules/$MOD_TARGET.ko
$MOD_TARGET: test_klp_mod_target_init
% insmod test_modules/$MOD_IPMODIFY.ko functions=test_klp_mod_target_show
$(expect_refused test_klp_mod_target_show $MOD_TARGET)
% rmmod $MOD_IPMODIFY
% rmmod $MOD_TARGET
$MOD_TARGET: test_klp_mod_target_exit"


# - check that the livepatch that was refused above works when no other user is left

start_test "refused livepatch works once nothing is in its way"

load_mod $MOD_TARGET
load_lp $MOD_MANY
check_many 1
check_shows "/proc/$MOD_TARGET" "$MOD_MANY: test_klp_mod_target_show"
disable_lp $MOD_MANY
unload_lp $MOD_MANY
check_many 0
check_shows "/proc/$MOD_TARGET" "$MOD_TARGET: original output"
unload_mod $MOD_TARGET

check_result "% insmod test_modules/$MOD_TARGET.ko
$MOD_TARGET: test_klp_mod_target_init
% insmod test_modules/$MOD_MANY.ko
$(expect_enabled $MOD_MANY)
$(expect_disabled $MOD_MANY)
% rmmod $MOD_TARGET
$MOD_TARGET: test_klp_mod_target_exit"

exit 0
