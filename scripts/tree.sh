#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# tree.sh: the Linux tree with this repository grafted on. KSRC=DIR takes the
# tree from there, else it is Debian's linux-source package. Prints the
# directory that holds "pristine", "tree" (grafted) and "build".

. "$(dirname "$0")/lib.sh"

want_version=7.3
package=linux-source-$want_version

# check_version DIR NAME: refuses any tree that the patches are not for.
check_version() {
	local found
	[[ -e $1/Makefile && -e $1/Kbuild ]] || die "$2 is not a Linux source tree"
	found=$(awk '$1 == "VERSION" {v = $3} $1 == "PATCHLEVEL" {p = $3} $1 == "SUBLEVEL" {print v "." p "." $3; exit}' "$1/Makefile")
	[[ $found == "$want_version".* ]] || die "$2 is Linux $found: this needs $want_version.y"
}

# fetch_source DIR: downloads the source package into DIR. apt checks it
# against the archive's signature; its state is private, so that the system's
# own sources stay as they are.
fetch_source() {
	local dir=$1 site keyring suite opts
	. /etc/os-release
	read -r site keyring <<<"$(apt_archive)"
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
	opts=(-o Dir::State::Lists="$dir/lists" -o Dir::Cache="$dir/cache" -o Dir::Etc::SourceList="$dir/sources.list"
		-o Dir::Etc::SourceParts=/dev/null -o Acquire::Languages=none -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false)
	[[ $(id -u) != 0 ]] || opts+=(-o APT::Sandbox::User=root)
	if apt-cache show "$package" >/dev/null 2>&1; then
		(cd "$dir" && apt-get download "$package") && return 0
	fi
	for suite in "$VERSION_CODENAME-backports" trixie-backports forky sid; do
		echo "deb [signed-by=$keyring] $site $suite main" >"$dir/sources.list"
		echo "trying $suite"
		apt-get "${opts[@]}" update || continue
		apt-cache "${opts[@]}" show "$package" >/dev/null 2>&1 || continue
		(cd "$dir" && apt-get "${opts[@]}" download "$package") && return 0
	done
	echo "error: $package could not be had from any suite tried"
	return 1
}

unpack_source() {
	mkdir -p "$2"
	dpkg-deb --fsys-tarfile "$1" | tar -xO "./usr/src/$package.tar.xz" | tar -xJ --no-same-owner --strip-components=1 -C "$2"
}

take_lock
if [[ -n ${KSRC:-} ]]; then
	[[ -d $KSRC ]] || die "KSRC=$KSRC: no such directory"
	ksrc=$(cd "$KSRC" && pwd)
	check_version "$ksrc" "KSRC=$ksrc"
	[[ ! -e $ksrc/.config && ! -d $ksrc/include/config ]] ||
		die "KSRC=$ksrc has been built in: clean it first (make mrproper)"
	base=$CACHE/linux-$(basename "$ksrc")-$(echo "$ksrc" | sha256sum | cut -c1-8)
	mkdir -p "$base"
	# The list stays until the graft is right again. If it is still there, a copy was
	# interrupted, or the disk was full: nobody knows what has changed.
	[[ ! -e $base/copied ]] || rm -rf "$base/tree" "$base/manifest"
	rsync -a --delete --exclude=/.git --out-format=%n "$ksrc/" "$base/pristine/" >"$base/copied" ||
		die "$ksrc could not be copied to $base/pristine"
	changed=$(grep -vc '/$' "$base/copied" || true)
	# A fresh hardlinked copy keeps the time stamps: only what changed is rebuilt.
	if [[ $changed != 0 && -d $base/tree ]]; then
		say "$changed files of KSRC changed since the last graft"
		rm -rf "$base/tree" "$base/manifest"
	fi
	rm "$base/copied"
else
	base=$CACHE/linux
	mkdir -p "$base"
	if [[ ! -d $base/pristine ]]; then
		rm -rf "$base/fetch" "$base/pristine.tmp"
		mkdir -p "$base/fetch"
		run_log fetch "fetching $package with apt (private state)" fetch_source "$base/fetch"
		run_log unpack "unpacking $package" unpack_source "$(echo "$base"/fetch/"$package"_*.deb)" "$base/pristine.tmp"
		check_version "$base/pristine.tmp" "$package"
		rm -rf "$base/fetch"
		mv "$base/pristine.tmp" "$base/pristine"
	fi
	check_version "$base/pristine" "$package"
fi
"$REPO/scripts/graft.sh" "$base"
echo "$base"
