#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# guest.sh NAME[,NAME...]: everything from a bare machine to a booted guest
# that runs scripts/guest/NAME, with what the heads of these scripts ask for
# (scripts/guest-heads.sh). From the environment: ARCH, CORE, CONFIG, DEBUG, KSRC, and
# the variables that the heads name; KLP_APPEND (more kernel options), KLP_LOG (name),
# KLP_ICOUNT=1 (instructions are the time); instead of what the heads say
# KLP_SMP (CPUs), KLP_LIMIT (seconds), KLP_MEM (memory).
# Exits as run-guest.py does: 0 pass, 1 fail, 2 hang, 3 crash.

. "$(dirname "$0")/lib.sh"
. "$REPO/scripts/guest-heads.sh"

run=$1 arch=${ARCH:-x86_64} core=${CORE:-m} debug=${DEBUG:-0}
check_arch "$arch"
check_core "$core"
check_debug "$debug"
check_config "${CONFIG:-}"
IFS=, read -r -a names <<<"$run"
for name in "${names[@]}"; do
	[[ -x $REPO/scripts/guest/$name ]] || die "no script scripts/guest/$name"
done
read_heads "${names[@]/#/$REPO/scripts/guest/}"
cpus=${KLP_SMP:-${HEAD[cpus]}}

step 1 4 "tools"
"$REPO/scripts/deps.sh" "$arch"
take_lock
step 2 4 "kernel and modules (ARCH=$arch CORE=$core DEBUG=$debug${CONFIG:+ CONFIG=$CONFIG})"
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
{
	printf '%s=%q\n' ARCH "$arch" CORE "$core" DEBUG "$debug" CPUS "$cpus"
	for name in "${!HEAD_VARS[@]}"; do printf '%s=%q\n' "$name" "${HEAD_VARS[$name]}"; done
} >"$tmp/add/klp/env"
if [[ ,$run, == *,sets-walk,* ]]; then
	seed=${SEED:-$(date +%N)}
	. "$REPO/scripts/toolchain.sh"
	use_toolchain
	"$RUSTC" --edition 2021 -O -o "$tmp/sets-walk" "$REPO/scripts/host-tests/src/bin/sets-walk.rs"
	{ echo "seed $seed" && "$tmp/sets-walk" "$seed" "${HEAD_VARS[STEPS]}"; } >"$tmp/add/klp/sets-walk.steps"
fi
roots=(--dir "$bld/klp/root=.")
for root in "${HEAD_ROOT[@]}"; do roots+=(--dir "$bld/klp/$root"); done
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
log=$LOGS/guest-${KLP_LOG:-${run//,/-}}-$arch-$core
[[ $debug == 0 ]] || log+=-debug
[[ -z ${CONFIG:-} ]] || log+=-$CONFIG
args+=(--limit $((${KLP_LIMIT:-${HEAD[limit]}} * slow)) --log "$log" --cpus "$cpus")
mem=${KLP_MEM:-${HEAD[mem]:-}}
[[ -z $mem ]] || args+=(--mem "$mem")
[[ -z ${KLP_ICOUNT:-} ]] || args+=(--icount)
[[ -z ${HEAD[interactive]:-} ]] || args+=(--interactive)
for option in "${HEAD_APPEND[@]}" ${KLP_APPEND:-}; do args+=(--append "$option"); done
# A tick can stop only where something else tells the time. Under TCG that is the host's
# TSC, which a guest cannot measure.
if [[ ${CONFIG:-} == isolated && $arch == x86_64 ]]; then
	khz=$(awk '/^cpu MHz/ {printf "%d", $4 * 1000; exit}' /proc/cpuinfo)
	[[ -z $khz ]] || args+=(--append "tsc_early_khz=$khz")
fi
step 4 4 "booting"
rc=0
"$REPO/scripts/run-guest.py" "${args[@]}" "${names[@]}" || rc=$?
exit "$rc"
