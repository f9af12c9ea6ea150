#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# lint.sh [CHECK...]: all checks of the sources, or those named: spdx, rustfmt,
# levels, copies, checkpatch, shellcheck, python, clippy. Prints TAP; KSRC from
# the environment.

. "$(dirname "$0")/lib.sh"
. "$REPO/scripts/toolchain.sh"

checks=("$@")
((${#checks[@]})) || checks=(spdx rustfmt levels copies checkpatch shellcheck python clippy)
"$REPO/scripts/deps.sh" x86_64
use_toolchain
take_lock
base=$("$REPO/scripts/tree.sh")
tree=$base/tree
cd "$REPO" || exit

. "$REPO/scripts/checks.sh"

# Editors look for these from a file upwards, and here is no tree.
check_copies() {
	local f
	for f in .editorconfig .rustfmt.toml; do
		diff -u "$base/pristine/$f" "$f" || { echo "$f is not the tree's" && return 1; }
	done
}

check_checkpatch() {
	local f bad=0
	# FILE_PATH_CHANGES: MAINTAINERS here has one entry for all of it.
	# EXPORT_SYMBOL: what is exported here is defined in Rust or elsewhere.
	# UNKNOWN_COMMIT_ID: of a Fixes tag; the tree comes without its history.
	local opts=(--strict --no-summary --quiet --show-types --ignore "FILE_PATH_CHANGES,EXPORT_SYMBOL,UNKNOWN_COMMIT_ID")
	# In the grafted tree: it knows the kernel's own type names.
	cd "$tree"
	while read -r f; do
		perl scripts/checkpatch.pl "${opts[@]}" -f "$f" || bad=1
	done < <(with .c .h .S .sh .rs | in_overlay)
	while read -r f; do
		perl scripts/checkpatch.pl "${opts[@]}" "$REPO/$f" || bad=1
	done < <(with .patch)
	return "$bad"
}

# Clippy has a build directory of its own: it compiles with another driver,
# and in the usual one all Rust objects would be built again, twice.
check_clippy() {
	local bld log=$LOGS/clippy-make.log ours f
	bld=$("$REPO/scripts/build.sh" x86_64 m 0 clippy)
	# Warnings come only when a file is compiled: what has not passed is
	# compiled again.
	[[ ! -e $bld/klp/clippy-open ]] || rm -f "$bld"/rust/{kernel,pin_init,macros}.o "$bld"/kernel/livepatch/*.o
	touch "$bld/klp/clippy-open"
	if ! kmake "$tree" "$bld" x86_64 -j"$JOBS" CLIPPY=1 kernel/livepatch/ >"$log" 2>&1; then
		log_matters "$log"
		return 1
	fi
	# The tree's own Rust is not ours to judge.
	ours=$(with .rs | in_overlay | while read -r f; do grep -nE -- "--> (.*/)?$f:" "$log" || true; done)
	if [[ -n $ours ]]; then
		awk '/^(warning|error)/ {w = ""} {w = w $0 "\n"} /^$/ {if (w ~ /-->/) printf "%s", w; w = ""}' "$log" | head -n 150
		echo "$ours" | wc -l | sed 's/$/ clippy warnings in our files; log: /' | tr -d '\n'
		echo "$log"
		return 1
	fi
	rm -f "$bld/klp/clippy-open"
}

echo "TAP version 13"
echo "1..${#checks[@]}"
n=0 failed=0
for check in "${checks[@]}"; do
	declare -F "check_$check" >/dev/null || die "no such check: $check"
	((++n))
	log=$LOGS/lint-$check.log
	# A subshell of its own: "if" would switch off errexit inside the check.
	set +e
	(set -e; "check_$check") >"$log" 2>&1
	rc=$?
	set -e
	if ((rc == 0)); then
		echo "ok $n lint: $check"
	else
		sed 's/^/# /' "$log" | head -n 200
		echo "not ok $n lint: $check"
		failed=1
	fi
done
exit "$failed"
