# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# Sourced by the guest's scripts.

set -u
KLP=/sys/kernel/livepatch

fail() {
	echo "FAIL: $*"
	exit 1
}

# Not "cat": the sample changes what one function shows, not this shell.
cmdline() { cat /proc/cmdline; }

# The variables that the script's head names, where the environment has none.
while IFS='=' read -r name value; do
	[[ $name != [A-Z]* || -n ${!name:-} ]] || declare "$name=$value"
done < <(sed -n 's/^# guest: //p' "$0" | tr ' ' '\n')

# pause MS: nobody writes to the pipe. Unlike sleep, this does not fork.
exec {never}<> <(:)
pause() {
	local t
	printf -v t '%d.%03d' $(($1 / 1000)) $(($1 % 1000))
	read -rt "$t" -u "$never" || true
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds, whose complaints
# are of no interest.
wait_for() {
	local end=$((SECONDS + $1)) what=$2
	shift 2
	until "$@" 2>/dev/null; do
		if ((SECONDS >= end)); then
			in_vain "$what"
			return
		fi
		pause 20
	done
}

# in_vain WHAT: what happens when that takes too long. Scripts may have another.
in_vain() { fail "waited in vain until $1"; }

patched() { [[ -e $KLP/$1/transition && $(<"$KLP/$1/transition") == 0 ]]; }
gone() { [[ ! -e $KLP/$1 ]]; }
unused() { [[ $(<"/sys/module/$1/refcnt") == 0 ]]; }

load_core() {
	[[ $CORE == m ]] || return 0
	modprobe livepatch || fail "modprobe livepatch (see the kernel log)"
	[[ -d $KLP ]] || fail "livepatch is loaded, but there is no $KLP"
}

unload_core() {
	[[ $CORE == m ]] || return 0
	wait_for 60 "nothing uses livepatch.ko" unused livepatch
	rmmod livepatch || fail "rmmod livepatch"
	[[ ! -e $KLP ]] || fail "livepatch is unloaded, but $KLP is still there"
}

sample() { find "/lib/modules/$(uname -r)" -name "$1.ko"; }

# load_patch MODULE, unload_patch MODULE: all the way, there and back.
load_patch() {
	insmod "$(sample "$1")" || fail "insmod $1 (see the kernel log)"
	wait_for 60 "the transition to $1 is complete" patched "${1//-/_}"
}

disable_patch() {
	echo 0 >"$KLP/${1//-/_}/enabled" || fail "disable $1"
	wait_for 60 "$1 is disabled and gone from sysfs" gone "${1//-/_}"
}

unload_patch() {
	wait_for 60 "nothing uses $1" unused "${1//-/_}"
	rmmod "${1//-/_}" || fail "rmmod $1"
}
