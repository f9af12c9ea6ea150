#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# build.sh ARCH CORE DEBUG [VARIANT]: kernel, modules, test modules and programs, in a
# build directory of their own, whose path is printed. What the guest needs of
# them is in klp/root there. Does nothing when nothing changed.
# CONFIG=NAME from the environment adds scripts/config/guests/NAME.config.
# A VARIANT is only a directory to start from: a configured one, clippy for lint.sh,
# or a seeded one, configs for configs.sh.

. "$(dirname "$0")/lib.sh"
. "$REPO/scripts/toolchain.sh"
. "$REPO/scripts/kconfig.sh"

arch=$1 core=$2 debug=$3 variant=${4:-} config=${CONFIG:-}
check_arch "$arch"
check_core "$core"
check_debug "$debug"
check_config "$config"
use_toolchain
take_lock
base=$("$REPO/scripts/tree.sh")
tree=$base/tree
name=$arch-$core
[[ $debug == 0 ]] || name+=-debug
[[ -z $config ]] || name+=-$config
bld=$base/build/$name${variant:+-$variant}
name=$(basename "$bld")

fragments=("$REPO/scripts/config/"{base,"$arch","core-$core"}.config)
[[ $debug == 0 ]] || fragments+=("$REPO/scripts/config/debug.config")
[[ -z $config ]] || fragments+=("$REPO/scripts/config/guests/$config.config")

id=$({ cat "$base/id" "$0" "${fragments[@]}"; echo "$TOOLCHAIN_ID"; } | sha256sum | cut -c1-16)
if [[ -e $bld/klp/done && $(<"$bld/klp/done") == "$id" ]]; then
	echo "$bld"
	exit 0
fi

# seed: a new build directory starts as a copy of a finished one that differs
# only in its core, and kbuild rebuilds what the changed options reach. The
# saved command lines hold the directory's own path here and there (Rust), so
# they are rewritten, or all of Rust would be built again.
seed() {
	local from='' d suffix=''
	[[ $debug == 0 ]] || suffix=-debug
	for d in "$base/build/$arch"-[myc]"$suffix"; do
		[[ ! -e $d/klp/done ]] || from=$d
	done
	[[ -n $from ]] || return 0
	say "starting $name as a copy of $(basename "$from")"
	rm -rf "$bld.tmp"
	cp -a "$from" "$bld.tmp"
	rm -rf "$bld.tmp/klp"
	grep -rlZF --include='*.cmd' -e "$from" "$bld.tmp" | xargs -0r sed -i "s|$from\([^-_[:alnum:]]\)|$bld\1|g"
	mv "$bld.tmp" "$bld"
}

case $arch in
x86_64) image=bzImage user_cc=gcc ;;
arm64) image=Image user_cc=aarch64-linux-gnu-gcc ;;
esac

# install_selftests: as the tree's make installs them for other machines, from a
# copy of their sources: kbuild writes next to those. Also into run_kselftest.sh's
# directory, where the collection is a link.
install_selftests() {
	local st=$bld/klp/st dir=tools/testing/selftests file
	mkdir -p "$st/$dir" "$st/scripts"
	cp -p "$tree/scripts/subarch.include" "$st/scripts/"
	for file in Makefile lib.mk run_kselftest.sh kselftest.h kselftest_harness.h kselftest livepatch; do
		rsync -a --delete --exclude='*.ko' --exclude='*.o' --exclude='*.cmd' --exclude='*.mod' --exclude='*.mod.c' \
			--exclude=Module.symvers --exclude=modules.order --exclude='test_klp_rust_set_[0-9]*.c' \
			"$tree/$dir/$file" "$st/$dir/"
	done
	make -C "$st/$dir" TARGETS=livepatch ARCH="$arch" KDIR="$bld" "${KMAKE_ARGS[@]}" -j"$JOBS" \
		FORCE_TARGETS=1 KSFT_INSTALL_PATH="$root/klp/ksft" install
	mv "$root/klp/ksft/livepatch" "$root/klp/selftests"
	ln -s ../selftests "$root/klp/ksft/livepatch"
}

# install_root: what a guest gets: /lib/modules and /klp/selftests.
install_root() {
	local root=$bld/klp/root st=tools/testing/selftests/livepatch prog
	rm -rf "$root"
	mkdir -p "$root/klp"
	kmake "$tree" "$bld" "$arch" INSTALL_MOD_PATH="$root/usr" INSTALL_MOD_STRIP=1 modules_install
	rm -f "$root"/usr/lib/modules/*/{build,source}
	install_selftests
	# Only the benchmark's guest gets these: they are large.
	rm -rf "$bld/klp/bench"
	mkdir -p "$bld/klp/bench" "$bld/klp/bench_modules"
	kmake "$tree" "$bld" "$arch" -j"$JOBS" M="$tree/$st/bench_modules" MO="$bld/klp/bench_modules" modules
	cp "$bld/klp/bench_modules"/*.ko "$bld/klp/bench/"
	for prog in test_klp-bench test_klp-stress_load; do
		"$user_cc" -O2 -o "$root/klp/selftests/$prog" "$tree/$st/$prog.c"
	done
}

[[ -d $bld ]] || seed
mkdir -p "$bld/klp"
rm -f "$bld/klp/done"

if [[ $variant == configs ]]; then
	echo "$bld"
	exit 0
fi

# The graft brings new Kconfig symbols: they configure anew, as the fragments do.
cfg=$({ cat "${fragments[@]}" "$base/pristine/Makefile" "$tree/kernel/livepatch/"*Kconfig* "$tree"/samples/Kconfig; echo "$TOOLCHAIN_ID"; } | sha256sum)
if [[ ! -e $bld/klp/config || $(<"$bld/klp/config") != "$cfg" ]]; then
	rm -f "$bld/klp/config"
	run_log "config-$name" "configuring $name" configure "$tree" "$bld" "$arch" "${fragments[@]}"
	echo "$cfg" >"$bld/klp/config"
fi
if [[ $variant == clippy ]]; then
	echo "$bld"
	exit 0
fi

run_log "build-$name" "building the kernel ($name)" kmake "$tree" "$bld" "$arch" -j"$JOBS" "$image" modules
run_log "install-$name" "building the test modules ($name)" install_root
if [[ $core != c && -x $REPO/scripts/check-objects.sh ]]; then
	run_log "check-objects-$name" "checking the core's objects ($name)" \
		"$REPO/scripts/check-objects.sh" "$tree" "$bld" "$arch" "$core"
fi
echo "$id" >"$bld/klp/done"
echo "$bld"
