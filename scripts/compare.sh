#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# compare.sh: the same selftests, samples and walk on the C core and on the
# Rust core (CORE=m), and every difference in what there is to see that
# compare.expected does not list. Prints TAP. From the environment: ARCH, DEBUG.

. "$(dirname "$0")/lib.sh"

arch=${ARCH:-x86_64} debug=${DEBUG:-0}
check_arch "$arch"
check_debug "$debug"

output() { echo "$LOGS/guest-compare-$arch-$1$([[ $debug == 0 ]] || echo -debug).output"; }

# Side by side: the C core mostly waits, and one kernel is built while the other
# is running.
declare -A guest=()
for core in c m; do
	rm -f "$(output "$core")"
	spawn env ARCH="$arch" CORE="$core" DEBUG="$debug" KLP_LOG=compare \
		"$REPO/scripts/guest.sh" compare,compare-walk >/dev/null
	guest[$core]=$!
done
bad=()
for core in c m; do
	rc=0
	wait "${guest[$core]}" || rc=$?
	((rc == 0)) || bad+=("CORE=$core: exit $rc, see $(output "$core")")
done
for core in c m; do
	[[ -e $(output "$core") ]] || die "the guest with CORE=$core did not run"
done

rc=0
"$REPO/scripts/compare.py" "$REPO/scripts/compare.expected" "$(output c)" "$(output m)" || rc=$?
for line in "${bad[@]}"; do
	# Whatever the outputs, a guest that failed is no proof of anything.
	echo "Bail out! $line"
	rc=1
done
exit "$rc"
