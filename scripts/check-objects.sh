#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# check-objects.sh TREE BUILDDIR ARCH CORE: checks what the compiler made of the
# core: the ftrace handler calls nothing but what it may and cannot panic, and
# neither it, the helpers nor any Rust object of the core can be traced. Prints
# one TAP line per check.

. "$(dirname "$0")/lib.sh"

bld=$2 arch=$3
klp=$bld/kernel/livepatch
handler=$klp/ftrace_handler.o
rust_objects=("$handler" "$klp/livepatch_main.o")
helpers=$bld/rust/helpers/helpers.o
nm=llvm-nm-19 objdump=llvm-objdump-19 readelf=llvm-readelf-19

# What the handler may refer to: rescheduling when preemption is enabled again,
# which cannot be traced, and per-CPU variables of the architecture.
handler_symbols=(
	__preempt_count current_task preempt_schedule_notrace_thunk
	preempt_schedule_notrace dynamic_preempt_schedule_notrace
)
# What the compiler adds for mitigations.
thunks='__x86_return_thunk|__x86_indirect_thunk_[a-z0-9]*'
# A debug kernel instruments everything, and its Rust code has more ways to
# panic: the handler is checked on the others.
debug=$(grep -cE '^CONFIG_(KASAN|KCSAN|UBSAN|RUST_DEBUG_ASSERTIONS|DEBUG_PREEMPT)=y' "$bld/.config" || true)

count=0 failed=0
check() { # check NAME OFFENDERS
	count=$((count + 1))
	if [[ -z $2 ]]; then
		echo "ok $count $1"
	else
		failed=$((failed + 1))
		echo "not ok $count $1"
		while read -r line; do echo "# error: $line"; done <<<"$2"
	fi
}

for object in "${rust_objects[@]}" "$helpers"; do
	[[ -e $object ]] || die "$object does not exist"
done

echo "TAP version 13"
if ((debug == 0)); then
	undefined=$("$nm" -u "$handler" | awk '{ print $2 }' | grep -vxE "$thunks" || true)
	allowed=$(printf '%s\n' "${handler_symbols[@]}")
	check "the ftrace handler refers to nothing but what it may" \
		"$(grep -vxF "$allowed" <<<"$undefined" || true)"
	check "the ftrace handler has no panic path" \
		"$("$nm" "$handler" | grep -iE 'panic|unwrap|expect' || true)"
fi

for object in "${rust_objects[@]}" "$helpers"; do
	check "no tracing call in ${object##*/}" \
		"$("$objdump" -dr "$object" | grep -E '__fentry__|_mcount' || true)"
	# Where ftrace lives off patchable entries, there must be none. Elsewhere
	# the section is about padding in front of functions.
	pattern='__mcount_loc'
	if grep -q '^CONFIG_FTRACE_MCOUNT_USE_PATCHABLE_FUNCTION_ENTRY=y' "$bld/.config"; then
		pattern+='|__patchable_function_entries'
	fi
	check "no entry for ftrace to patch in ${object##*/} ($arch)" \
		"$("$readelf" -SW "$object" | grep -E "$pattern" || true)"
done
echo "1..$count"
exit "$((failed > 0))"
