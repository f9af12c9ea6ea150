#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# verify-config.sh CONFIG FRAGMENT...: every symbol that a fragment asks for holds in
# CONFIG. One that olddefconfig dropped (renamed, or a dependency is off) would
# otherwise go unnoticed until a test that needs it passes for the wrong reason.

set -euo pipefail

config=$1
shift
declare -A asked=()
while read -r line; do
	case $line in
	CONFIG_*=*) asked[${line%%=*}]=${line#*=} ;;
	'# CONFIG_'*' is not set') sym=${line#\# } && asked[${sym%% *}]=n ;;
	esac
done < <(cat "$@")
((${#asked[@]})) || { echo "error: nothing asked for in: $*" && exit 1; }

bad=0
for sym in "${!asked[@]}"; do
	if [[ ${asked[$sym]} == n ]]; then
		! grep -q "^$sym=" "$config" || { echo "$sym: asked to be off, is on" && bad=1; }
	else
		grep -qxF "$sym=${asked[$sym]}" "$config" ||
			{ echo "$sym: asked for ${asked[$sym]}, got $(grep -w "$sym" "$config" || echo 'no such symbol here')" && bad=1; }
	fi
done
((bad == 0)) || echo "error: the kernel configuration is not what is asked for"
exit "$bad"
