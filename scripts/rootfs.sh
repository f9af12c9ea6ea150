#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# rootfs.sh ARCH: the guest's base system as an initramfs, made once per
# architecture. Prints its path.

. "$(dirname "$0")/lib.sh"

arch=$1
check_arch "$arch"
case $arch in
x86_64) deb_arch=amd64 ;;
arm64) deb_arch=arm64 ;;
esac

# The selftests need the real stat, sysctl, dmesg, getconf: busybox's will not do.
packages=bash,dash,coreutils,mawk,grep,sed,diffutils,procps,kmod,util-linux,mount,findutils,libc-bin
# Whole parts that no script in the guest touches: 130 MiB become 30.
drop=(
	'dev/*' 'boot*' 'var/lib/dpkg/*' 'var/cache/*' 'etc/pam*' 'etc/security*' 'usr/include*'
	'usr/share/*' 'usr/lib/*perl*' 'usr/bin/perl*' 'usr/lib/*/gconv*' 'usr/lib/locale*'
	'usr/lib/*/libperl*'
	'usr/lib/apt*' 'usr/bin/apt*' 'usr/bin/tar' 'usr/sbin/ldconfig' 'usr/lib/systemd*'
)

. /etc/os-release
suite=${VERSION_CODENAME:?this system does not name its Debian suite in /etc/os-release}
id=$({ echo "$arch $suite $packages ${drop[*]}"; cat "$0" "$(dirname "$0")/mkcpio.py"; } | sha256sum | cut -c1-16)
out=$CACHE/rootfs/$arch-$id.cpio
if [[ ! -e $out ]]; then
	take_lock
	mkdir -p "$CACHE/rootfs"
	tar=$CACHE/rootfs/$arch.tar
	read -r site signed <<<"$(apt_archive)"
	run_log "rootfs-$arch" "making the guest's root filesystem ($deb_arch, $suite)" \
		mmdebstrap --variant=extract --architectures="$deb_arch" --include="$packages" \
		"$suite" "$tar" "deb [signed-by=$signed] $site $suite main"
	dropargs=()
	for glob in "${drop[@]}"; do dropargs+=(--drop "$glob"); done
	# "extract" runs no maintainer scripts: the one alternative that matters is
	# set here.
	"$REPO/scripts/mkcpio.py" "$out" --tar "$tar" "${dropargs[@]}" --link usr/bin/awk=mawk
	rm -f "$tar"
	find "$CACHE/rootfs" -name "$arch-*.cpio" ! -path "$out" -delete
fi
echo "$out"
