#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# guest.sh NAME[,NAME...]: everything from a bare machine to a booted guest
# that runs scripts/guest/NAME. From the environment: ARCH, CORE, DEBUG, TESTS,
# ROUNDS, FLIPS, STEPS, SEED, BENCH, KSRC; KLP_APPEND (kernel options), KLP_SMP (CPUs),
# KLP_LIMIT (seconds), KLP_LOG (name), KLP_ICOUNT=1 (instructions are the time),
# KLP_MEM (memory).
# Exits as run-guest.py does: 0 pass, 1 fail, 2 hang, 3 crash.

. "$(dirname "$0")/lib.sh"

run=$1 arch=${ARCH:-x86_64} core=${CORE:-m} debug=${DEBUG:-0}
check_arch "$arch"
check_core "$core"
check_debug "$debug"
for name in ${run//,/ }; do
	[[ -x $REPO/scripts/guest/$name ]] || die "no script scripts/guest/$name"
done

step 1 4 "tools"
"$REPO/scripts/deps.sh" "$arch"
take_lock
step 2 4 "kernel and modules (ARCH=$arch CORE=$core DEBUG=$debug)"
bld=$("$REPO/scripts/build.sh" "$arch" "$core" "$debug")
step 3 4 "guest"
rootfs=$("$REPO/scripts/rootfs.sh" "$arch")

# What this boot adds to the base system. The two archives one after the other
# are one initramfs.
tmp=$(mktemp -d "${TMPDIR:-/tmp}/klp-guest.XXXXXX")
TEMPS+=("$tmp")
mkdir -p "$tmp/add/klp"
cp "$REPO/scripts/guest/"* "$tmp/add/klp/"
mv "$tmp/add/klp/init" "$tmp/add/init"
printf '%s=%q\n' ARCH "$arch" CORE "$core" DEBUG "$debug" TESTS "${TESTS:-}" ROUNDS "${ROUNDS:-}" \
	FLIPS "${FLIPS:-}" SEED "${SEED:-}" BENCH "${BENCH:-}" CPUS "${KLP_SMP:-2}" >"$tmp/add/klp/env"
if [[ ,$run, == *,sets-walk,* ]]; then
	seed=${SEED:-$(date +%N)}
	. "$REPO/scripts/toolchain.sh"
	use_toolchain
	"$RUSTC" --edition 2021 -O -o "$tmp/sets-walk" "$REPO/scripts/host-tests/src/bin/sets-walk.rs"
	{ echo "seed $seed" && "$tmp/sets-walk" "$seed" "${STEPS:-500}"; } >"$tmp/add/klp/sets-walk.steps"
fi
roots=(--dir "$bld/klp/root=.")
[[ $run != bench ]] || roots+=(--dir "$bld/klp/bench=klp/selftests/bench_modules")
"$REPO/scripts/mkcpio.py" "$tmp/add.cpio" --dir "$tmp/add=." "${roots[@]}"
cat "$rootfs" "$tmp/add.cpio" >"$tmp/initrd"
case $arch in
x86_64) image=arch/x86/boot/bzImage ;;
arm64) image=arch/arm64/boot/Image ;;
esac
cp "$bld/$image" "$tmp/kernel"
drop_lock

args=(--arch "$arch" --kernel "$tmp/kernel" --initrd "$tmp/initrd" --name "$run, CORE=$core${KLP_LOG:+, $KLP_LOG}")
slow=1
if [[ $debug == 1 ]]; then
	args+=(--mem 2G)
	slow=4
fi
case $run in
shell) args+=(--interactive) limit=0 ;;
demo) limit=120 ;;
sets-walk) limit=$((300 + ${STEPS:-500} * 2)) ;;
stress*) limit=$((300 + ${FLIPS:-2000})) ;;
*) limit=900 ;;
esac
log=$LOGS/guest-${KLP_LOG:-${run//,/-}}-$arch-$core
[[ $debug == 0 ]] || log+=-debug
args+=(--limit $((${KLP_LIMIT:-$limit} * slow)) --log "$log")
[[ -z ${KLP_MEM:-} ]] || args+=(--mem "$KLP_MEM")
[[ -z ${KLP_ICOUNT:-} ]] || args+=(--icount)
[[ -z ${KLP_SMP:-} ]] || args+=(--cpus "$KLP_SMP")
for option in ${KLP_APPEND:-}; do args+=(--append "$option"); done
step 4 4 "booting"
rc=0
IFS=, read -r -a names <<<"$run"
"$REPO/scripts/run-guest.py" "${args[@]}" "${names[@]}" || rc=$?
exit "$rc"
