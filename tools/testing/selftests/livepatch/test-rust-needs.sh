#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A livepatch asks for what only the core in Rust has. The core in C of the same
# tree refuses it, and macros in the header say which core a kernel has.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh

MOD_NEEDS=test_klp_needs
MARKERS="managed_states shadow_types replace_sets"

is_root
if grep -q ' klp_register_core$' /proc/kallsyms; then
	CORE=rust
	need_rust_core
else
	CORE=c
fi

setup_config

CMDLINE=$(cat /proc/cmdline)
remember_state


# - load the livepatch with nothing that only one core has
# - check that the macros of the header say which core it is

start_test "what the header says of the core"

load_lp $MOD_NEEDS
check_shows /proc/cmdline "$MOD_NEEDS: this has been live patched"
for marker in $MARKERS; do
	check_shows /sys/module/$MOD_NEEDS/parameters/$marker \
		"$([[ $CORE == c ]] && echo N || echo Y)"
done
disable_lp $MOD_NEEDS
unload_lp $MOD_NEEDS
check_nothing_left $MOD_NEEDS

check_result "% insmod test_modules/$MOD_NEEDS.ko
$(expect_enabled $MOD_NEEDS)
$(expect_disabled $MOD_NEEDS)"


# refused(what, needs...) - check that the C core refuses each of needs
#	what - what the message calls it
function refused() {
	local what="$1"; shift
	local needs expect

	# The one in Rust has it all.
	[[ $CORE == c ]] || return 0
	start_test "the C core refuses $what"

	for needs; do
		load_failing_mod $MOD_NEEDS needs="$needs"
		check_nothing_left $MOD_NEEDS
		check_shows /proc/cmdline "$CMDLINE"
		expect+="% insmod test_modules/$MOD_NEEDS.ko needs=$needs
livepatch: livepatch '$MOD_NEEDS' needs $what, which this core does not have
insmod: ERROR: could not insert module test_modules/$MOD_NEEDS.ko: Operation not supported
"
	done

	check_result "${expect%$'\n'}"
}

refused "replace sets" scoped replace_set supersedes nr_supersedes nr_param_supersedes
refused "shadow types" shadow_types object_shadow_types
refused "managed states" is_shadow block_disable name pre_patch post_patch pre_unpatch \
	post_unpatch shadow_dtor

exit 0
