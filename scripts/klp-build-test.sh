#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# klp-build-test.sh: livepatches that the kernel tree's own klp-build makes out
# of the diffs of real fixes (scripts/klp-build/*.patch), on the Rust core. The
# fixes are in 7.3.y, so they are first taken out of a copy of the grafted tree;
# klp-build works only inside a tree. Not part of test.sh: it builds a kernel
# of its own. Later runs only boot, unless something changed.

. "$(dirname "$0")/lib.sh"
. "$REPO/scripts/toolchain.sh"
. "$REPO/scripts/guest-heads.sh"

arch=x86_64 core=m
[[ ${ARCH:-$arch} == "$arch" ]] || die "the kernel tree has klp-build for $arch only"
here=$REPO/scripts/klp-build
"$REPO/scripts/deps.sh" "$arch"
use_toolchain
take_lock
base=$("$REPO/scripts/tree.sh")
work=$CACHE/klp-build tree=$CACHE/klp-build/tree tools=$CACHE/klp-build/tools
out=$work/out root=$work/root
mkdir -p "$work"

# What klp-build needs on top is unpacked, not installed: libxxhash-dev would
# have objtool, and with it everything else, built anew in each build directory,
# and gawk would become the system's awk.
fetch_tools() {
	rm -rf "$tools" "$tools.tmp"
	mkdir -p "$tools.tmp/debs" "$tools.tmp/bin" "$tools.tmp/include" "$tools.tmp/lib"
	(cd "$tools.tmp/debs" && apt-get download gawk libmpfr6 libgmp10 libreadline8 libsigsegv2 patchutils libxxhash-dev)
	local deb
	for deb in "$tools.tmp"/debs/*.deb; do dpkg-deb -x "$deb" "$tools.tmp/root"; done
	ln -s ../root/usr/bin/recountdiff "$tools.tmp/bin/"
	cp "$tools.tmp"/root/usr/include/xxh*.h "$tools.tmp/include/"
	cp "$tools.tmp"/root/usr/lib/*/libxxhash.a "$tools.tmp/lib/"
	cat >"$tools.tmp/bin/gawk" <<-EOF
		#!/bin/sh
		libs=\$(echo $tools/root/usr/lib/*-linux-gnu $tools/root/lib/*-linux-gnu | tr ' ' :)
		LD_LIBRARY_PATH=\$libs exec $tools/root/usr/bin/gawk "\$@"
	EOF
	chmod +x "$tools.tmp/bin/gawk"
	mv "$tools.tmp" "$tools"
}

# in_tree COMMAND...: there, and so that every make below it, also klp-build's,
# uses this toolchain. klp-build takes no clang assembler before 20: GNU as.
in_tree() {
	(
		cd "$tree" || exit
		# The same number for each build: what is the same source is the same kernel.
		export KBUILD_BUILD_VERSION=1
		export PATH=$tools/bin:$PATH C_INCLUDE_PATH=$tools/include LIBRARY_PATH=$tools/lib
		export MAKEFLAGS="${KMAKE_ARGS[*]} LLVM_IAS=0 ARCH=$arch"
		"$@"
	)
}

fixes=(cve-2018-17972 cve-2025-38481)
patches=("${fixes[@]/#/$here/}")
patches=("${patches[@]/%/.patch}")
fragments=("$REPO/scripts/config/"{base,$arch,core-$core}.config "$here/kernel.config")

make_tree() {
	local fix
	rm -rf "$tree"
	cp -a --reflink=auto "$base/tree" "$tree"
	for fix in "${fixes[@]}"; do
		patch -d "$tree" -p1 -R --fuzz=0 --no-backup-if-mismatch <"$here/$fix.patch"
	done
	# It says "awk" and means gawk.
	sed -i "1s|.*|#!$tools/bin/gawk -f|" "$tree/scripts/livepatch/fix-patch-lines"
}

configure() {
	local line
	make tinyconfig
	scripts/kconfig/merge_config.sh -m -O . .config "${fragments[@]}"
	make olddefconfig
	# The last word on each symbol counts.
	while read -r line; do
		if [[ $line == *=n ]]; then ! grep -q "^${line%n}" .config; else grep -qxF "$line" .config; fi ||
			{ echo "error: asked for $line" && return 1; }
	done < <(awk -F= '/^CONFIG_/ {last[$1] = $0} END {for (s in last) print last[s]}' "${fragments[@]}")
}

# klp_build NAME OPTIONS... PATCH...
klp_build() {
	local name=$1 keep=()
	shift
	time scripts/livepatch/klp-build -T -j "$JOBS" -o "$out/$name.ko" "$@" && return
	# With lld 19 it fails at comparing the objects, which have lost the entry
	# sizes of some sections. Mend them and go on from there.
	[[ -d klp-tmp/2-patched ]] || return 1
	find klp-tmp/1-orig klp-tmp/2-patched -name '*.o' -exec "$here/set-entsize.py" {} +
	while [[ ${1-} == -* ]]; do
		[[ $1 == -S ]] || keep+=("$1" "$2")
		shift 2
	done
	scripts/livepatch/klp-build -T -S 3 -j "$JOBS" -o "$out/$name.ko" "${keep[@]}" "$@"
}

# refused WANT OPTION...: klp-build does not take the options, says why, and has
# not begun to build.
refused() {
	local want=$1 said
	shift
	rm -rf klp-tmp
	if said=$(scripts/livepatch/klp-build "$@" "$here/${fixes[0]}.patch" 2>&1); then
		echo "error: klp-build took $*" && return 1
	fi
	echo "${said:0:200}"
	[[ $said == "error: klp-build: $want"* && $said != *$'\n'* ]] || { echo "error: should say: $want" && return 1; }
	[[ ! -e klp-tmp ]] || { echo "error: has begun to build" && return 1; }
}

bad_sets() {
	local set
	for set in x -1 4294967296 99999999999999999999 007 0x1 1.5 '' ' 1'; do
		refused "--replace-set: invalid set '$set'" --replace-set "$set" || return 1
	done
	for set in ,1 1,,2 1,x 4294967296,1; do
		refused "--supersedes: invalid set" --supersedes "$set" || return 1
	done
	refused "--supersedes: no set behind the last comma" --supersedes 1, || return 1
	refused "--supersedes: no set given" --supersedes '' || return 1
	refused "--supersedes: more than 256 sets" --supersedes "$(seq -s, 257)" || return 1
	refused "--no-replace and replace sets exclude each other" --replace-set 1 --no-replace
}

# The kernel to boot is the one that klp-build calls the original: its last
# build was of the patched source.
build_original() {
	make -s -j"$JOBS" KLP_SYMIDS=1 KCFLAGS="-ffunction-sections -fdata-sections" bzImage modules
	cmp vmlinux klp-tmp/1-orig/vmlinux
	make -s INSTALL_MOD_PATH="$root/usr" INSTALL_MOD_STRIP=1 modules_install
	rm -f "$root"/usr/lib/modules/*/{build,source}
	mkdir -p "$root/usr/lib/modules/$(make -s kernelrelease)/klp-build" "$root/klp"
	cp "$out"/*.ko "$root/usr/lib/modules/$(make -s kernelrelease)/klp-build/"
	gcc -O2 -Wall -Iusr/include -o "$root/klp/insnlist" "$here/insnlist.c"
}

# relocations MODULE PREFIX: how many a livepatch has for an object.
relocations() {
	readelf -rW "$out/$1.ko" 2>/dev/null | grep -cF " .klp.sym.$2." || true
}

id=$({ cat "$base/id" "$base/pristine/Makefile" "$0" "${fragments[@]}" "$here"/*; echo "$TOOLCHAIN_ID"; } | sha256sum | cut -c1-16)
if [[ ! -e $work/done || $(<"$work/done") != "$id" ]]; then
	rm -rf "$work/done" "$out" "$root"
	mkdir -p "$out" "$root"
	[[ -d $tools ]] || run_log klp-build-tools "fetching what klp-build needs" fetch_tools
	run_log klp-build-tree "taking the fixes out of a copy of the tree" make_tree
	run_log klp-build-config "configuring it" in_tree configure
	# klp-build then finds out at once whether objtool can do its part.
	run_log klp-build-objtool "building objtool" in_tree make -s tools/objtool
	run_log klp-build-refused "bad replace sets for klp-build" in_tree bad_sets
	first=1
	for fix in "${fixes[@]}"; do
		step=(-S 2)
		if [[ $first ]]; then step=(); else step+=(--replace-set 4294967295 --supersedes "0,2"); fi
		run_log "klp-build-$fix" "klp-build $fix" in_tree klp_build "livepatch-$fix" "${step[@]}" "$here/$fix.patch"
		first=''
	done
	run_log klp-build-both "klp-build both" in_tree klp_build livepatch-both -S 2 "${patches[@]}"
	run_log klp-build-original "building the kernel without the fixes" in_tree build_original
	echo "$id" >"$work/done"
fi

# A livepatch that needs no symbol of its object's own proves little.
for want in cve-2018-17972:vmlinux cve-2025-38481:comedi both:vmlinux both:comedi; do
	n=$(relocations "livepatch-${want%:*}" "${want#*:}")
	echo "livepatch-${want%:*}.ko: $n klp relocations against ${want#*:}"
	((n)) || die "livepatch-${want%:*}.ko has no relocation against ${want#*:}"
done

rootfs=$("$REPO/scripts/rootfs.sh" "$arch")
tmp=$(mktemp -d "${TMPDIR:-/tmp}/klp-guest.XXXXXX")
TEMPS+=("$tmp")
mkdir -p "$tmp/add/klp"
cp "$REPO/scripts/guest/"* "$tmp/add/klp/"
mv "$tmp/add/klp/init" "$tmp/add/init"
printf '%s=%q\n' ARCH "$arch" CORE "$core" DEBUG 0 >"$tmp/add/klp/env"
"$REPO/scripts/mkcpio.py" "$tmp/add.cpio" --dir "$tmp/add=." --dir "$root=."
cat "$rootfs" "$tmp/add.cpio" >"$tmp/initrd"
cp "$tree/arch/x86/boot/bzImage" "$tmp/kernel"
drop_lock
read_heads "$REPO/scripts/guest/klp-build"
rc=0
"$REPO/scripts/run-guest.py" --arch "$arch" --kernel "$tmp/kernel" --initrd "$tmp/initrd" --limit "${HEAD[limit]}" \
	--name "klp-build, CORE=$core" --log "$LOGS/guest-klp-build-$arch-$core" klp-build || rc=$?
exit "$rc"
