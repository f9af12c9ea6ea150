#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# check.sh [CHECK...]: from an edit to a first verdict, in seconds: spdx, rustfmt,
# types, levels, host-tests, harness, shellcheck, python, or those named. Needs no
# guest and no root, and installs nothing: what a check lacks is named, and it is
# skipped. Prints KTAP.

. "$(dirname "$0")/lib.sh"
. "$REPO/scripts/toolchain.sh"
cd "$REPO" || exit
. "$REPO/scripts/checks.sh"

checks=("$@")
((${#checks[@]})) || checks=(types levels host-tests harness shellcheck rustfmt spdx python)
tmp=$(mktemp -d "${TMPDIR:-/tmp}/klp-check.XXXXXX")
TEMPS+=("$tmp")

# lacks TEXT: the check that calls it is skipped.
lacks() {
	echo "$*" >"$SKIP"
	exit 4
}

# What has passed once is not looked at again, but for those that others source:
# without them it would know nothing of their variables.
quick_shellcheck() {
	local passed=$CACHE/check/shellcheck version sums todo sourced
	command -v shellcheck >/dev/null || lacks "no shellcheck here (Debian: shellcheck)"
	mkdir -p "$CACHE/check"
	: >>"$passed"
	version=$({ shellcheck --version && cat scripts/checks.sh; } | sha256sum | cut -c1-16)
	sums=$(shell_files | xargs sha256sum | sed "s/^/$version /")
	mapfile -t todo < <(grep -vxFf "$passed" <<<"$sums" | sed 's/^[^ ]* [^ ]*  //')
	((${#todo[@]} > 0)) || return 0
	mapfile -t sourced < <(shell_files | xargs grep -l '^# shellcheck shell=' | grep -vxFf <(printf '%s\n' "${todo[@]}"))
	check_shellcheck "${todo[@]}" "${sourced[@]}"
	echo "$sums" >"$passed"
}

quick_rustfmt() {
	find_rustc && RUSTFMT=${RUSTC%/*}/rustfmt || RUSTFMT=$(command -v rustfmt) || true
	[[ -x ${RUSTFMT:-} ]] || lacks "no rustfmt here (Debian: rustfmt; Debian 12: rustfmt-web)"
	check_rustfmt
}

quick_levels() {
	command -v python3 >/dev/null || lacks "no python3 here"
	check_levels
}

quick_python() {
	command -v python3 >/dev/null || lacks "no python3 here"
	check_python
}

# Passed before with the same scripts, it is not run again.
quick_harness() {
	local id
	command -v python3 >/dev/null || lacks "no python3 here"
	id=$(printf '%s\n' "${files[@]}" | grep -E '^(scripts|Makefile)' | xargs sha256sum | sha256sum)
	[[ ! -e $CACHE/check/harness || $(<"$CACHE/check/harness") != "$id" ]] || return 0
	KLP_TESTS=quick scripts/tests/run.py
	mkdir -p "$CACHE/check"
	echo "$id" >"$CACHE/check/harness"
}

# How many cases, of how many of the tests, are a verdict in seconds: HACKING.md.
quick_host-tests() {
	local rc=0
	HOST_TESTS_OFFLINE=1 PROPTEST_CASES=${PROPTEST_CASES:-20} scripts/host-tests.sh --skip ordering || rc=$?
	((rc != 77)) || lacks "no cargo, or not the crates that the tests need: see make host-tests"
	return "$rc"
}

# saved_command BUILD OBJECT: kbuild's own for it, as a shell's command.
saved_command() {
	local dir=${2%/*} name=${2##*/}
	sed -n 's/^savedcmd_[^ ]* := //p' "$1/$dir/.$name.cmd" | sed -E 's/\\#/#/g; s/;.*//; s/ --emit=[^ ]*//g'
}

# type_check BUILD OBJECT OPTION...: that command, made to stop after the types. With
# KERNEL, "=FILE", the kernel's crate is in that.
type_check() {
	local build=$1 object=$2
	shift 2
	(cd "$build" && RUSTC_BOOTSTRAP=1 bash -c "$(saved_command "$build" "$object" | sed "s| --out-dir [^ ]*||; s| --extern kernel | --extern kernel${KERNEL:-} |") $*")
}

# The core's crates, and the kernel's own when rust/ has changed since it was
# built. Of the architectures that were built: each has code that others have not.
quick_types() {
	local base build tree out arch found=() kernel old
	base=$CACHE/linux
	[[ -z ${KSRC:-} ]] || base=$CACHE/linux-$(basename "$KSRC")-$(cd "$KSRC" && pwd | sha256sum | cut -c1-8)
	tree=$base/tree
	for arch in x86_64 arm64; do
		for build in "$base/build/$arch-"{m,y}; do
			[[ ! -e $build/kernel/livepatch/.livepatch_main.o.cmd ]] || { found+=("$build") && break; }
		done
	done
	((${#found[@]})) || lacks "nothing is built yet whose commands could be used: make build (10 minutes, once)"
	exec {lock}>"$CACHE/lock"
	flock -n "$lock" || lacks "another run is using $CACHE"
	KLP_LOCK_FD=$lock scripts/graft.sh "$base"
	exec {lock}>&-
	for build in "${found[@]}"; do
		echo "# ${build##*/}"
		mkdir -p "$build/klp"
		kernel=''
		old=$(find "$tree/rust" -newer "$build/rust/libkernel.rmeta" \( -name '*.rs' -o -name '*.c' -o -name '*.h' \) -printf '%P\n')
		if [[ -n $old ]]; then
			# The C part needs bindgen, and its header all that is configured.
			! grep -vE '\.rs$' <<<"$old" || lacks "the files above have changed since ${build##*/} was built: make build"
			kernel="=$build/klp/check/libkernel.rmeta"
			if [[ -n $(find "$tree/rust" -name '*.rs' -newer "$build/klp/check/libkernel.rmeta" 2>/dev/null || echo none) ]]; then
				mkdir -p "$build/klp/check"
				echo "# the kernel's crate: rust/ has changed"
				type_check "$build" rust/kernel.o -Awarnings --emit=metadata="$build/klp/check/new.rmeta"
				mv "$build/klp/check/new.rmeta" "$build/klp/check/libkernel.rmeta"
			fi
			[[ -e $build/klp/check/libkernel.rmeta ]]
		fi
		for out in livepatch_main ftrace_handler; do
			KERNEL=$kernel type_check "$build" "kernel/livepatch/$out.o" -Dwarnings \
				--emit=metadata="$tmp/${build##*/}-$out.rmeta"
		done
	done 2>&1 | sed -u "s|$tree/||g"
}

# In a subshell of its own, and not in a condition, which would switch off errexit.
run_one() {
	local rc start=${EPOCHREALTIME/./} function=check_$1
	! declare -F "quick_$1" >/dev/null || function=quick_$1
	set +e
	(set -e; SKIP=$tmp/$1.skip; "$function") >"$tmp/$1.log" 2>&1
	rc=$?
	echo "$rc $(((${EPOCHREALTIME/./} - start) / 100000))" >"$tmp/$1.rc"
}

echo "KTAP version 1"
echo "1..${#checks[@]}"
declare -A running=()
for check in "${checks[@]}"; do
	declare -F "quick_$check" >/dev/null || declare -F "check_$check" >/dev/null || die "no such check: $check"
	spawn run_one "$check" </dev/null
	running[$check]=$!
done
n=0 failed=0 start=${EPOCHREALTIME/./}
for check in "${checks[@]}"; do
	wait "${running[$check]}" || true
	((++n))
	read -r rc took <"$tmp/$check.rc" || { rc=1 took=0; }
	took="$((took / 10)).$((took % 10)) s"
	case $rc in
	0) echo "ok $n $check # $took" ;;
	4) echo "ok $n $check # SKIP $(<"$tmp/$check.skip")" ;;
	*)
		sed 's/^/# /' "$tmp/$check.log" | tail -n 150
		echo "not ok $n $check # $took"
		failed=1
		;;
	esac
done
took=$(((${EPOCHREALTIME/./} - start) / 100000))
echo "# all in $((took / 10)).$((took % 10)) s"
exit "$failed"
