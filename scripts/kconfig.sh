# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# Sourced after toolchain.sh: how a build directory is configured.

# verify_config BUILD FRAGMENT...: every symbol that a fragment asks for, and no
# later one differently, holds. One that olddefconfig dropped (renamed, or a
# dependency is off) would otherwise go unnoticed until a test that needs it
# passes for the wrong reason.
verify_config() {
	local bld=$1 line sym bad=0
	declare -A asked
	shift
	while read -r line; do
		case $line in
		CONFIG_*=*) asked[${line%%=*}]=${line#*=} ;;
		'# CONFIG_'*' is not set') sym=${line#\# } && asked[${sym%% *}]=n ;;
		esac
	done < <(cat "$@")
	for sym in "${!asked[@]}"; do
		if [[ ${asked[$sym]} == n ]]; then
			! grep -q "^$sym=" "$bld/.config" || { echo "$sym: asked to be off, is on" && bad=1; }
		else
			grep -qxF "$sym=${asked[$sym]}" "$bld/.config" ||
				{ echo "$sym: asked for ${asked[$sym]}, got $(grep -w "$sym" "$bld/.config" || echo 'no such symbol here')" && bad=1; }
		fi
	done
	if ((bad)); then
		echo "error: the kernel configuration is not what scripts/config asks for"
		return 1
	fi
}

# configure TREE BUILD ARCH FRAGMENT...
configure() {
	local tree=$1 bld=$2 arch=$3
	shift 3
	kmake "$tree" "$bld" "$arch" tinyconfig &&
		"$tree/scripts/kconfig/merge_config.sh" -m -O "$bld" "$bld/.config" "$@" &&
		kmake "$tree" "$bld" "$arch" olddefconfig &&
		verify_config "$bld" "$@"
}
