# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# Sourced after toolchain.sh: how a build directory is configured.

# configure TREE BUILD ARCH FRAGMENT...
configure() {
	local tree=$1 bld=$2 arch=$3
	shift 3
	kmake "$tree" "$bld" "$arch" tinyconfig &&
		"$tree/scripts/kconfig/merge_config.sh" -m -O "$bld" "$bld/.config" "$@" &&
		kmake "$tree" "$bld" "$arch" olddefconfig &&
		"$REPO/scripts/verify-config.sh" "$bld/.config" "$@"
}
