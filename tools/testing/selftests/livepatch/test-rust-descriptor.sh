#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A livepatch with a mistake in its descriptor is refused with a message that
# names the mistake, and leaves nothing behind.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh

MOD_BAD=test_klp_rust_bad
MOD_UNMARKED=test_klp_rust_unmarked
MOD_LIVEPATCH=test_klp_livepatch

need_rust_core
setup_config

CMDLINE=$(cat /proc/cmdline)
INVALID="Invalid parameters"	# what insmod makes of EINVAL
BUSY="Device or resource busy"	# and of EEXIST, which the module loader turns into EBUSY

# refused(name, module, params, messages, error) - a test that a livepatch is
#						   refused
#	name     - the name of the test
#	module   - livepatch module name
#	params   - parameters of the module, in one word
#	messages - what the core says
#	error    - what insmod says, if that is not INVALID
function refused() {
	local name="$1" mod="$2" params="$3" messages="$4" error="${5:-$INVALID}"
	local insmod="% insmod test_modules/$mod.ko $params"

	start_test "$name"
	remember_state

	# shellcheck disable=SC2086 # several parameters
	load_failing_mod "$mod" $params

	check_nothing_left "$mod"
	check_shows /proc/cmdline "$CMDLINE"

	check_result "${insmod% }
$messages
insmod: ERROR: could not insert module test_modules/$mod.ko: $error"
}

# accepted(name, params, dirs, cmdline) - a test that a livepatch works
#	name    - the name of the test
#	params  - parameters of the module, in one word
#	dirs    - directories of objects and functions in its directory in sysfs
#	cmdline - what /proc/cmdline shows
function accepted() {
	local name="$1" params="$2" dirs="$3" cmdline="$4"
	local now

	start_test "$name"
	remember_state

	# shellcheck disable=SC2086 # several parameters
	load_lp $MOD_BAD $params

	now=$(cd "$SYSFS_KLP_DIR/$MOD_BAD" && find . -mindepth 1 -type d -printf '%P\n' | sort)
	[[ "$now" == "$dirs" ]] || fail_test "directories expected:\n$dirs\nfound:\n$now"
	check_shows /proc/cmdline "$cmdline"

	disable_lp $MOD_BAD
	unload_lp $MOD_BAD

	check_nothing_left $MOD_BAD
	check_shows /proc/cmdline "$CMDLINE"

	check_result "% insmod test_modules/$MOD_BAD.ko $params
$(expect_enabled $MOD_BAD)
$(expect_disabled $MOD_BAD)"
}

PATCHED="$MOD_BAD: this has been live patched"
FUNC="vmlinux/cmdline_proc_show,1"

# repeat(count, char) - print a name of that length
function repeat() {
	printf "%${1}s" | tr ' ' "$2"
}

# KSYM_NAME_LEN and MODULE_NAME_LEN on 64 bits, less the end of the string
LONGEST_NAME=$(repeat 511 f)
LONGEST_OBJECT=$(repeat 55 o)


# - without a mistake, the module that the other tests use works

accepted "descriptor without a mistake" "bad=none" "vmlinux
$FUNC" "$PATCHED"


# - the livepatch itself

refused "NULL patch" $MOD_BAD "bad=patch" \
	"livepatch: klp_enable_patch() was called without a livepatch"

refused "NULL mod" $MOD_BAD "bad=mod" \
	"livepatch: a livepatch does not say which module it is in"

refused "module that is not marked as a livepatch" $MOD_UNMARKED "" \
	"livepatch: module $MOD_UNMARKED is not marked as a livepatch module"

# The module loader writes the second line.
refused "enabled when a parameter is set" $MOD_BAD "early=1" \
	"livepatch: livepatch '$MOD_BAD' cannot be enabled before its init function runs
$MOD_BAD: \`1' invalid for parameter \`early'"


# - the array of objects

refused "NULL objs" $MOD_BAD "bad=objs" \
	"livepatch: livepatch '$MOD_BAD' has no objects"

accepted "empty array of objects" "bad=no_objs" "" "$CMDLINE"

refused "NULL funcs of an object with a name" $MOD_BAD "bad=funcs" \
	"livepatch: livepatch '$MOD_BAD': object 'test_klp_rust_object' has no functions"

accepted "empty array of functions" "bad=no_funcs" "vmlinux" "$CMDLINE"

refused "object name of 56 characters" $MOD_BAD "bad=long_object" \
	"livepatch: livepatch '$MOD_BAD': the name of object 1 is too long"

refused "empty object name" $MOD_BAD "bad=empty_object" \
	"livepatch: livepatch '$MOD_BAD': '' cannot be the name of an object"

refused "object name vmlinux" $MOD_BAD "bad=vmlinux_object" \
	"livepatch: livepatch '$MOD_BAD': 'vmlinux' cannot be the name of an object"

# The directory of the object would have the name of a file of the livepatch.
for file in enabled transition force replace stack_order replace_set supersedes; do
	refused "object name $file" $MOD_BAD "object=$file" \
		"livepatch: livepatch '$MOD_BAD': '$file' cannot be the name of an object"
done

refused "same module twice" $MOD_BAD "bad=same_object" \
	"livepatch: livepatch '$MOD_BAD' has two objects 'test_klp_rust_object'" "$BUSY"

refused "vmlinux twice" $MOD_BAD "bad=same_vmlinux" \
	"livepatch: livepatch '$MOD_BAD' has two objects 'vmlinux'" "$BUSY"

accepted "object name of 55 characters, of a module that is not loaded" \
	"bad=longest_object" "$LONGEST_OBJECT
$LONGEST_OBJECT/test_klp_rust_no_such_function,1
vmlinux
$FUNC" "$PATCHED"


# - the array of functions

refused "NULL old_name" $MOD_BAD "bad=old_name" \
	"livepatch: livepatch '$MOD_BAD': function 1 of object 'vmlinux' has no old_name"

refused "NULL old_name and new_func, but a position" $MOD_BAD "bad=only_sympos" \
	"livepatch: livepatch '$MOD_BAD': function 1 of object 'vmlinux' has no old_name"

refused "NULL new_func" $MOD_BAD "bad=new_func" \
	"livepatch: livepatch '$MOD_BAD': function 'version_proc_show' of object 'vmlinux' has no new_func"

refused "function name of 512 characters" $MOD_BAD "bad=long_name" \
	"livepatch: livepatch '$MOD_BAD': the name of function 1 of object 'vmlinux' is too long"

refused "empty function name" $MOD_BAD "bad=empty_name" \
	"livepatch: livepatch '$MOD_BAD': the name of function 1 of object 'vmlinux' is empty"

# Position 0 means that the name is unique. Here that is position 1, too.
symbol=cmdline_proc_show,1
refused "same function twice, once with its position" $MOD_BAD "bad=same_func" \
	"livepatch: livepatch '$MOD_BAD': function '$symbol' of object 'vmlinux' is there twice" \
	"$BUSY"

refused "function name of 511 characters, of no function" $MOD_BAD "bad=longest_name" \
	"livepatch: symbol '$LONGEST_NAME' not found in symbol table"


# - functions that do not exist, or cannot be patched

refused "unknown symbol" $MOD_BAD "symbol=test_klp_rust_no_such_function" \
	"livepatch: symbol 'test_klp_rust_no_such_function' not found in symbol table"

refused "position 2 of an unknown symbol" $MOD_BAD \
	"symbol=test_klp_rust_no_such_function sympos=2" \
	"livepatch: symbol 'test_klp_rust_no_such_function' not found in symbol table"

refused "position 2 of a unique symbol" $MOD_BAD "symbol=version_proc_show sympos=2" \
	"livepatch: symbol position 2 for symbol 'version_proc_show' in object 'vmlinux' not found"

# Find a name of several functions of vmlinux that could all be patched, and how
# many symbols have it.
read -r symbol count < <(awk '
	FNR == NR { if (NF == 1) traceable[$1]++; next }
	$4 != "" { exit }			# of a module
	{ n[$3]++ }
	END {
		for (s in traceable)
			if (traceable[s] > 1 && traceable[s] == n[s] && s ~ /^[a-z][a-z0-9_]*$/)
				print s, n[s]
	}' "$SYSFS_TRACING_DIR/available_filter_functions" /proc/kallsyms | sort)
if [[ -n "$symbol" ]]; then
	refused "ambiguous symbol" $MOD_BAD "symbol=$symbol" \
		"livepatch: unresolvable ambiguity for symbol '$symbol' in object 'vmlinux'"
	refused "too high a position of an ambiguous symbol" $MOD_BAD \
		"symbol=$symbol sympos=$((count + 1))" \
		"livepatch: symbol position $((count + 1)) for symbol '$symbol' in object 'vmlinux' not found"
else
	skip_test "ambiguous symbol" "each function of this kernel has a name of its own"
fi

# Find a function of vmlinux that ftrace does not know: the first one in the
# noinstr section that has a unique name. /proc/kallsyms is sorted by address.
symbol=$(awk '
	FNR == NR { traceable[$1]; next }
	$4 != "" { exit }			# of a module
	{ n[$3]++ }
	$3 == "__noinstr_text_start" { inside = 1 }
	$3 == "__noinstr_text_end" { inside = 0 }
	inside && $2 ~ /^[tT]$/ && $3 ~ /^[a-z][a-z0-9_]*$/ { order[++last] = $3 }
	END {
		for (i = 1; i <= last; i++)
			if (n[order[i]] == 1 && !(order[i] in traceable)) {
				print order[i]
				exit
			}
	}' "$SYSFS_TRACING_DIR/available_filter_functions" /proc/kallsyms)
if [[ -n "$symbol" ]]; then
	refused "function that cannot be traced" $MOD_BAD "symbol=$symbol" \
		"livepatch: enabling patch '$MOD_BAD'
livepatch: '$MOD_BAD': initializing patching transition
livepatch: failed to find location for function '$symbol'
$(expect_canceled $MOD_BAD vmlinux)"
else
	skip_test "function that cannot be traced" "this kernel has none in its noinstr section"
fi


# - enable a livepatch without a mistake, and check that one with a mistake is
#   refused next to it

start_test "bad livepatch while a good one is enabled"

load_lp $MOD_LIVEPATCH
remember_state
load_failing_mod $MOD_BAD bad=old_name
check_nothing_left $MOD_BAD
check_shows /proc/cmdline "$MOD_LIVEPATCH: this has been live patched"

disable_lp $MOD_LIVEPATCH
unload_lp $MOD_LIVEPATCH
check_shows /proc/cmdline "$CMDLINE"

check_result "% insmod test_modules/$MOD_LIVEPATCH.ko
$(expect_enabled $MOD_LIVEPATCH)
% insmod test_modules/$MOD_BAD.ko bad=old_name
livepatch: livepatch '$MOD_BAD': function 1 of object 'vmlinux' has no old_name
insmod: ERROR: could not insert module test_modules/$MOD_BAD.ko: $INVALID
$(expect_disabled $MOD_LIVEPATCH)"

exit 0
