#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# configs.sh [NAME...]: configurations that no guest boots, those of
# scripts/config/configs or the ones named. Each builds rust/, kernel/livepatch/,
# samples/livepatch/ and what patches/ change of the kernel's C files, for x86_64,
# without a warning. On s390 the core in Rust must not be offered, as its handler
# does not know it. Prints TAP.

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

# Which of the two cores is built, and thereby its files, is for Kconfig to say.
targets=(rust/ kernel/livepatch/ samples/livepatch/)
while read -r file; do
	[[ ! -e $base/pristine/$file ]] || targets+=("${file%.c}.o")
done < <(grep -E '^(kernel|lib|mm|fs)/.*\.c$' "$base/manifest" | grep -v '^kernel/livepatch/')

# build_config NAME
build_config() {
	local fragment=$REPO/scripts/config/configs/$1.config more
	# What a configuration adds to them is in its head.
	read -r -a more < <(sed -n 's/^# build: //p' "$fragment") || true
	configure "$tree" "$bld" x86_64 "${common[@]}" "$fragment" || return
	kmake "$tree" "$bld" x86_64 -j"$JOBS" "${targets[@]}" "${more[@]}"
}

# offer_config ARCH: what there is to choose with Rust and livepatching on, by Kconfig
# alone: there may be no compiler for ARCH, or one that is too old.
offer_config() {
	local dir=$base/build/configs-$1 src=$base/build/configs-$1/src fragment=$REPO/scripts/config/configs/$1.config
	rm -rf "$src"
	mkdir -p "$src"
	# A tree of links, but for the script that looks at the compiler, and for
	# kernel/livepatch/, in which rust.Kconfig is to be changed.
	ln -s "$tree"/* "$src"
	rm "$src/scripts" "$src/kernel"
	mkdir "$src/scripts" "$src/kernel"
	ln -s "$tree"/scripts/* "$src/scripts"
	rm "$src/scripts/rust_is_available.sh"
	printf '#!/bin/sh\n' >"$src/scripts/rust_is_available.sh"
	chmod +x "$src/scripts/rust_is_available.sh"
	ln -s "$tree"/kernel/* "$src/kernel"
	rm "$src/kernel/livepatch"
	cp -r "$tree/kernel/livepatch" "$src/kernel/livepatch"

	# It sees to it that RUST and LIVEPATCH are on.
	configure "$src" "$dir" "$1" "$fragment" || return
	# What is not offered is not even in there as "not set".
	if grep LIVEPATCH_RUST "$dir/.config"; then
		echo "error: LIVEPATCH_RUST is offered on $1"
		return 1
	fi
	# The same must show it when nothing forbids it, or it has shown nothing.
	sed -i '/^\tdepends on .*X86_64/d' "$src/kernel/livepatch/rust.Kconfig"
	kmake "$src" "$dir" "$1" olddefconfig || return
	if ! grep LIVEPATCH_RUST "$dir/.config"; then
		echo "error: not the architecture is what keeps LIVEPATCH_RUST from being offered on $1"
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
			if grep -nE 'warning:|WARNING' "$log" >"$log.warnings"; then
				rc=1
				# Or the next run would not see it.
				find "$bld/rust" "$bld/kernel" "$bld/samples" -name '*.o' -delete
			fi
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
