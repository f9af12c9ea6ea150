# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# Sourced by the guest's compare scripts: sections that say all there is to see
# of the livepatch core. scripts/compare.py compares those of two cores.

. /klp/lib.sh

MODULES=/klp/selftests/test_modules
declare -A helpers=()
section=''

# complain TEXT: the script goes on, but is not a pass.
complain() {
	echo "!! $*"
	# shellcheck disable=SC2034 # read at the end
	trouble=1
}

# need FILE...: what a walk cannot do without: one that is missing would make
# both cores fail in the same way.
need() {
	local file
	for file; do [[ -e $file ]] || fail "no $file in this guest"; done
}

note() { echo "$*" >/dev/kmsg; }

# begin NAME: ends the section before and begins another.
begin() {
	finish
	section=$1
	printf 'file kernel/livepatch/* +p\nfunc klp_try_switch_task -p\n' >/sys/kernel/debug/dynamic_debug/control
	note "klp-compare: begin $section"
	echo "== $section"
}

# messages: what the kernel has said since the section began.
messages() {
	dmesg -t | awk -v mark="klp-compare: begin $section" '$0 == mark {p = 1; n = 0; next} p {line[++n] = $0}
		END {for (i = 1; i <= n; i++) print line[i]}'
}

# finish: what is to be seen at the end of a section.
finish() {
	local helper
	[[ -n $section ]] || return 0
	echo "-- sysfs"
	tree
	echo "-- modules"
	awk '$1 ~ /^(test_klp|livepatch_)/ {print $1, $3, $4, $5}' /proc/modules | sort
	echo "-- ftrace"
	sed 's/[[:space:]]*\(tramp\|ops\|->\|\tdirect\).*//; s/[[:space:]]*$//; /^$/d' \
		/sys/kernel/tracing/enabled_functions | sort
	echo "-- tainted"
	cat /proc/sys/kernel/tainted
	echo "-- patch_state"
	cat /proc/[0-9]*/task/[0-9]*/patch_state 2>/dev/null | sort -n | uniq
	while read -r helper; do
		echo "$helper: $(<"/proc/${helpers[$helper]}/patch_state")"
	done < <(((${#helpers[@]} == 0)) || printf '%s\n' "${!helpers[@]}" | sort)
	echo "-- dmesg"
	messages
	section=''
}

# tree: all of /sys/kernel/livepatch: mode, links, owner, size and contents.
# Without the files that only the Rust core has.
tree() {
	local mode info file
	while read -r mode info file; do
		if [[ $mode == -*r* ]]; then
			echo "$mode $info $file = $(<"$KLP/$file")"
		else
			echo "$mode $info ${file:-.}"
		fi
	done < <(find "$KLP" \( -name replace_set -o -name supersedes -o -name pending -o -name attempts \
		-o -name age_ms \) -prune -o -printf '%M %n:%U:%G:%s %P\n' | sort -k 3)
}

# run COMMAND...: shows a command, what it prints and its exit code, and leaves
# a note of it in the kernel log.
run() {
	local out rc=0
	echo "% $*"
	note "% $*"
	out=$("$@" 2>&1) || rc=$?
	[[ -z $out ]] || echo "$out"
	((rc == 0)) || echo "exit $rc"
	return 0
}

# put VALUE FILE: the same for a write; \n and the like in VALUE are meant.
put() {
	local out rc=0
	echo "% put '${1:0:60}' $2"
	note "% put ${1:0:60} $2"
	out=$({ printf '%b' "$1" >"$2"; } 2>&1) || rc=$?
	[[ -z $out ]] || echo "${out#*line [0-9]*: }"
	((rc == 0)) || echo "exit $rc"
	return 0
}

# Waiting in vain does not end the script, either.
in_vain() { complain "waited in vain until $1"; }
await() { wait_for 60 "$@"; }

# insmod MODULE [PARAMETER...] without waiting.
load() {
	local module=$1
	shift
	run insmod "$MODULES/$module.ko" "$@"
}

in_transition() { [[ -e $KLP/$1/transition && $(<"$KLP/$1/transition") == 1 ]]; }
released() { gone "$1" && unused "$1"; }
said() { messages | grep -qF -- "$1"; }

# enable MODULE [PARAMETER...], disable MODULE: all the way.
enable() {
	load "$@"
	await "$1 is enabled" patched "$1"
}

disable() {
	put '0\n' "$KLP/$1/enabled"
	await "$1 is disabled" released "$1"
}

# unload MODULE...
unload() {
	local module
	for module; do run rmmod "$module"; done
}
