#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# configs.sh [NAME...]: configurations that no guest boots, those of
# scripts/config/configs or the ones named. Each builds rust/, kernel/livepatch/
# and samples/livepatch/, for x86_64, without a warning. On s390 the core in Rust
# must not be offered, as its handler does not know it. Prints TAP.

. "$(dirname "$0")/lib.sh"
. "$REPO/scripts/toolchain.sh"
. "$REPO/scripts/kconfig.sh"

names=("$@")
((${#names[@]})) || names=(up builtin none s390)
for name in "${names[@]}"; do
	[[ -e $REPO/scripts/config/configs/$name.config ]] || die "no scripts/config/configs/$name.config"
done
"$REPO/scripts/deps.sh" x86_64
use_toolchain
take_lock
base=$("$REPO/scripts/tree.sh")
tree=$base/tree
common=("$REPO/scripts/config/"{base,x86_64}.config)
# One directory for all: what a configuration does not change is not built anew.
bld=
id=

# build_config NAME
build_config() {
	local fragments=("${common[@]}" "$REPO/scripts/config/configs/$1.config")
	configure "$tree" "$bld" x86_64 "${fragments[@]}" || return
	kmake "$tree" "$bld" x86_64 -j"$JOBS" rust/ kernel/livepatch/ samples/livepatch/
}

# offer_config ARCH: what there is to choose with Rust and livepatching on.
offer_config() {
	local dir=$base/build/configs-$1
	mkdir -p "$dir"
	configure "$tree" "$dir" "$1" "$REPO/scripts/config/configs/$1.config" || return
	# What is not offered is not even in there as "not set".
	if grep LIVEPATCH_RUST "$dir/.config"; then
		echo "error: LIVEPATCH_RUST is offered on $1"
		return 1
	fi
}

echo "TAP version 13"
echo "1..${#names[@]}"
n=0 failed=0
for name in "${names[@]}"; do
	((++n))
	log=$LOGS/configs-$name.log rc=0
	if [[ $name == s390 ]]; then
		run_log "configs-$name" "configuring for $name" offer_config "$name" || rc=$?
	else
		[[ -n $bld ]] || bld=$("$REPO/scripts/build.sh" x86_64 m 0 configs)
		id=$(cat "$base/id" "$0" "${common[@]}" "$REPO/scripts/config/configs/$name.config" <(echo "$TOOLCHAIN_ID") | sha256sum)
		if [[ ! -e $bld/klp/done-$name || $(<"$bld/klp/done-$name") != "$id" ]]; then
			rm -f "$bld/klp/done-$name"
			run_log "configs-$name" "building configuration $name" build_config "$name" || rc=$?
			! grep -nE 'warning:|WARNING' "$log" >"$log.warnings" || rc=1
			((rc)) || echo "$id" >"$bld/klp/done-$name"
		fi
	fi
	if ((rc == 0)); then
		echo "ok $n configs: $name"
	else
		[[ ! -s $log.warnings ]] || sed 's/^/# /' "$log.warnings" | head -n 50
		echo "not ok $n configs: $name # log: $log"
		failed=1
	fi
done
exit "$failed"
