#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# bench.sh: the same work on the C core and on the Rust core (CORE=m and y), in
# guests whose clock counts instructions. Prints a table, and the directory of
# bench.json and of the plots. From the environment: ARCH, KSRC; QUICK=1 (what CI
# runs: one boot, the expensive cells of the C core left out), BOOTS.
# Exits with 1 when a limit of scripts/bench.gates is exceeded, or when boots
# that should repeat each other do not.

. "$(dirname "$0")/lib.sh"

arch=${ARCH:-x86_64} quick=${QUICK:-0}
check_arch "$arch"
check_choice QUICK "$quick" 0 1
mode=full boots=${BOOTS:-3}
[[ $quick == 0 ]] || mode=quick boots=${BOOTS:-1}
out=$CACHE/bench/$arch-$mode

"$REPO/scripts/deps.sh" "$arch" bench
rm -rf "$out"
mkdir -p "$out"
declare -A size
for core in c m y; do
	"$REPO/scripts/build.sh" "$arch" "$core" 0 >/dev/null
	size[$core]=$("$REPO/scripts/core-size.sh" "$arch" "$core")
done

options="nokaslr mitigations=off quiet rcupdate.rcu_cpu_stall_suppress=1"
[[ $arch != x86_64 ]] || options+=" tsc=reliable"
# boot CORE CPUS NUMBER
boot() {
	local name=bench-$3 log
	[[ $2 == 1 ]] || name=bench-smp-$3
	log=$LOGS/guest-$name-$arch-$1.output
	rm -f "$log"
	env ARCH="$arch" CORE="$1" DEBUG=0 BENCH="$mode" KLP_SMP="$2" KLP_MEM=2G KLP_ICOUNT=1 KLP_LOG="$name" \
		KLP_LIMIT="${KLP_LIMIT:-5400}" KLP_APPEND="$options" "$REPO/scripts/guest.sh" bench >/dev/null || return
	cp "$log" "$out/$1-$3-cpus$2.output"
	[[ $2 != 1 ]] || echo "= size - ${size[$1]}" >>"$out/$1-$3-cpus$2.output"
}

# Side by side: what a guest counts does not depend on the host's load. The C
# core takes longest.
running=0 bad=0
for ((i = 1; i <= boots; i++)); do
	for core in c m y; do
		for cpus in 1 2; do
			if ((running == JOBS)); then
				wait -n || bad=1
				((running--)) || true
			fi
			boot "$core" "$cpus" "$i" &
			((++running))
		done
	done
done
while ((running)); do
	wait -n || bad=1
	((running--)) || true
done
((!bad)) || die "not every guest came through, see above"
say "all guests are done"
"$REPO/scripts/bench.py" --arch "$arch" --mode "$mode" --gates "$REPO/scripts/bench.gates" "$out"
