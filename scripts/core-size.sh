#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# core-size.sh ARCH CORE: prints the bytes of text (with read-only data), data and
# bss of a core, what is resident for a modular one included, as they are with
# KUnit off. Only the Rust part has tests in it: it is compiled anew without them.

. "$(dirname "$0")/lib.sh"
. "$REPO/scripts/toolchain.sh"

arch=$1 core=$2
check_arch "$arch"
check_core "$core"
use_toolchain
bld=$("$REPO/scripts/build.sh" "$arch" "$core" 0)
take_lock
klp=$bld/kernel/livepatch
out=$bld/klp/size

compile() {
	local command
	# What follows the compiler (objtool) is about the object's usual place.
	command=$(sed -nE '1s/^savedcmd_[^ ]+ := //p' "$klp/.livepatch_main.o.cmd" | sed -E 's/ ; .*//
		s| --emit=dep-info=[^ ]+||; s| --emit=obj=[^ ]+| --emit=obj=klp/size/livepatch_main.o|
		s| @\./include/generated/rustc_cfg| @./klp/size/rustc_cfg|')
	grep -v '^--cfg=CONFIG_KUNIT' "$bld/include/generated/rustc_cfg" >"$out/rustc_cfg"
	cd "$bld" || return
	export RUSTC_BOOTSTRAP=1
	eval "$command"
}

if [[ $core == c ]]; then
	objects=("$klp"/{core,patch,shadow,state,transition}.o)
else
	mkdir -p "$out"
	if [[ ! $out/livepatch_main.o -nt $klp/livepatch_main.o ]]; then
		run_log "size-$arch-$core" "compiling the core without tests ($arch-$core)" compile
	fi
	objects=("$out/livepatch_main.o" "$klp"/{ftrace_handler,exports,resident}.o)
fi
llvm-size-19 -B "${objects[@]}" | awk 'NR > 1 {text += $1; data += $2; bss += $3} END {print text, data, bss}'
