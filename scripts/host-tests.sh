#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# host-tests.sh [ARG...]: tests, on this machine, of the core's pure logic: those
# files of kernel/livepatch that need nothing of the kernel; and of a model of
# its ordering. ARGs go to the test program (a filter, --nocapture). From the
# environment: PROPTEST_CASES and PROPTEST_RNG_SEED, the latter to repeat a run;
# HOST_TESTS_OFFLINE=1 ends with 77 if something would have to be fetched.

. "$(dirname "$0")/lib.sh"
. "$REPO/scripts/toolchain.sh"

# new_enough PROGRAM: cargo or rustc, whose versions go together.
new_enough() {
	local ver
	[[ -x $1 ]] && ver=$("$1" --version 2>/dev/null | awk '{print $2}') || return 1
	version_ge "${ver%%-*}" "$MIN_RUSTC"
}

# The first cargo that is new enough, with a compiler that is: the one next to
# it, or any other.
cargo=''
for c in "$(command -v cargo || true)" /usr/bin/cargo /usr/lib/rust-*/bin/cargo "$HOME/.cargo/bin/cargo"; do
	new_enough "$c" || continue
	for r in "${c%/*}/rustc" "$(command -v rustc || true)" /usr/bin/rustc; do
		new_enough "$r" || continue
		cargo=$c
		export RUSTC=$r
		break 2
	done
done
[[ $cargo || -z ${HOST_TESTS_OFFLINE:-} ]] || exit 77
[[ $cargo ]] || die "no cargo and rustc >= $MIN_RUSTC found: install them (Debian: cargo; Debian 12: cargo-web)"

# Nothing is written into the checkout, whatever the caller has set.
export CARGO_TARGET_DIR=$CACHE/host-tests CARGO_TERM_COLOR=never
export PROPTEST_CASES=${PROPTEST_CASES:-1000}
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-$(date +%s%N)}
unset RUSTFLAGS CARGO_BUILD_TARGET CARGO_ENCODED_RUSTFLAGS
manifest=$REPO/scripts/host-tests/Cargo.toml

# Without the network when all that is locked, and that this machine needs, is there.
how=(--locked --offline)
host=$("$RUSTC" -vV | sed -n 's/^host: //p')
if ! "$cargo" fetch --quiet --manifest-path "$manifest" --target "$host" "${how[@]}" >/dev/null 2>&1; then
	[[ -z ${HOST_TESTS_OFFLINE:-} ]] || exit 77
	how=(--locked)
fi
say "$("$cargo" --version) with $("$RUSTC" --version), PROPTEST_CASES=$PROPTEST_CASES PROPTEST_RNG_SEED=$PROPTEST_RNG_SEED"
rc=0
"$cargo" test --manifest-path "$manifest" "${how[@]}" -- "$@" || rc=$?
say "host tests: exit $rc"
exit "$rc"
