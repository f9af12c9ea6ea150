# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# Sourced by every script here: the cache, the lock, messages and logs.
# shellcheck disable=SC2034 # the variables are for those scripts

set -euo pipefail
export LC_ALL=C

# Called from make: its flags and overrides (DEBUG=1, ARCH=...) must not leak
# into the kernel's own make, where these names mean other things.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL GNUMAKEFLAGS
export -n ARCH CORE DEBUG TESTS 2>/dev/null || true

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/rust-livepatch
LOGS=$CACHE/log
JOBS=$(nproc)
# One clock for a whole command, however many scripts it runs.
export KLP_T0=${KLP_T0:-$(date +%s)}
mkdir -p "$LOGS"

elapsed() { local s=$(($(date +%s) - KLP_T0)); printf '%d:%02d' $((s / 60)) $((s % 60)); }
# Progress goes to stderr: stdout belongs to what the caller asked for.
say() { echo "[$(elapsed)] $*" >&2; }
die() { echo "error: $*" >&2; exit 1; }

# Whatever ends a script, nothing of what it has started outlives it, and none of
# its temporary directories (TEMPS) is left. A Ctrl-C reaches all that runs in the
# foreground by itself; spawn() is for the rest.
TEMPS=()
NOW=''

# spawn COMMAND...: in the background, as $!, in a process group of its own. A
# plain "&" would make it ignore SIGINT, and its children could not be told from
# others.
spawn() {
	set -m
	"$@" &
	set +m
}

# signal NAME PID: to the process group that PID leads, or else to PID. One that
# sudo has started is root's.
signal() {
	kill -s "$1" -- "-$2" || kill -s "$1" "$2" ||
		{ [[ -d /proc/$2 ]] && sudo -n kill -s "$1" -- "-$2"; }
} 2>/dev/null

is_alive() { kill -0 -- "-$1" 2>/dev/null || [[ -d /proc/$1 ]]; }

# end_jobs: ends what is in the background, and waits for that. make takes its
# time to remove what is half-made, mmdebstrap to unmount: they get 20 s.
end_jobs() {
	local pid pids n=0
	# Not those that have ended: their numbers may be others' by now.
	pids=$(jobs -pr; jobs -ps)
	[[ -n $pids ]] || return 0
	for pid in $pids; do signal TERM "$pid" && signal CONT "$pid"; done || true
	for pid in $pids; do
		while is_alive "$pid"; do
			((++n))
			((n < 200 || n % 50)) || signal KILL "$pid" || true
			((n < 400)) || return 0
			sleep 0.1
		done
	done
}

on_exit() {
	# A child that is ended before it has become another program still has these.
	[[ $BASHPID == "$$" ]] || return 0
	# Nothing interrupts this.
	trap '' INT TERM HUP QUIT
	end_jobs
	((${#TEMPS[@]} == 0)) || rm -rf "${TEMPS[@]}"
}

# on_signal NAME: ends the script as the signal would have.
on_signal() {
	trap '' INT TERM HUP QUIT
	if [[ -n $NOW && $BASHPID == "$$" ]]; then
		[[ ! -t 2 ]] || printf '\r\033[K' >&2
		say "interrupted: $NOW"
	fi
	on_exit
	trap - "$1"
	kill -s "$1" "$BASHPID"
}

trap on_exit EXIT
for signal in INT TERM HUP QUIT; do
	# shellcheck disable=SC2064 # the name is meant as it is now
	trap "on_signal $signal" "$signal"
done
unset signal

# step N M TEXT: "[step N/M] TEXT", for the long way from nothing to a boot.
step() { local n=$1 m=$2; shift 2; echo "[step $n/$m] $* (at $(elapsed))" >&2; }

# log_matters LOG: the lines of a failed command's log that tell why.
log_matters() {
	local hits
	hits=$(grep -nE '(^|[^_[:alpha:]])(error|Error|ERROR|FATAL|fatal|E)(:|\[E)|undefined (symbol|reference)|warning: |BUG:|asked (for|to be)|No rule|\*\*\* ' "$1" | head -n 40) || true
	if [[ -n $hits ]]; then
		echo "--- lines that matter:"
		echo "$hits"
	fi
	echo "--- last lines:"
	tail -n 15 "$1"
}

# run_log NAME TEXT COMMAND...: a long command with its output in a log file.
# Shows that it is alive: a line rewritten on a terminal, else one every 30 s.
run_log() {
	local text=$2 log=$LOGS/$1.log start now next rc=0 pid last
	shift 2
	say "$text"
	start=$(date +%s) next=$((start + 30))
	NOW=$text
	spawn "$@" >"$log" 2>&1 </dev/null
	pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.2
		now=$(date +%s)
		if [[ -t 2 ]]; then
			last=$(tail -n 1 "$log" | tr -cd '[:print:]' | cut -c1-60)
			printf '\r\033[K    %ds  %s' $((now - start)) "$last" >&2
		elif ((now >= next)); then
			next=$((now + 30))
			last=$(tail -n 1 "$log" | tr -cd '[:print:]' | sed 's/^ *//' | cut -c1-70)
			say "  ... $((now - start)) s, $(wc -l <"$log") lines, now: $last"
		fi
	done
	[[ ! -t 2 ]] || printf '\r\033[K' >&2
	wait "$pid" || rc=$?
	NOW=''
	if ((rc)); then
		{
			echo "error: $text: failed (exit $rc), log: $log"
			log_matters "$log"
		} >&2
		return "$rc"
	fi
	now=$(date +%s)
	((now - start < 5)) || say "  done in $((now - start)) s"
}

# take_lock: one command at a time works on the cache. Scripts called by the
# holder inherit the descriptor and with it the lock.
take_lock() {
	[[ -z ${KLP_LOCK_FD:-} ]] || return 0
	exec {KLP_LOCK_FD}>"$CACHE/lock"
	if ! flock -n "$KLP_LOCK_FD"; then
		say "waiting for another run that is using $CACHE"
		flock "$KLP_LOCK_FD"
	fi
	export KLP_LOCK_FD
}

# drop_lock: a booted guest works on its own copies and needs no lock.
drop_lock() {
	[[ -n ${KLP_LOCK_FD:-} ]] || return 0
	exec {KLP_LOCK_FD}>&-
	unset KLP_LOCK_FD
}

# file_id FILE...: one hash over the contents.
file_id() { cat "$@" | sha256sum | cut -c1-16; }

check_choice() {
	local var=$1 value=$2 choice
	shift 2
	for choice; do [[ $value != "$choice" ]] || return 0; done
	die "$var=$value: must be one of: $*"
}

check_arch() { check_choice ARCH "$1" x86_64 arm64; }
check_core() { check_choice CORE "$1" m y c; }
check_debug() { check_choice DEBUG "$1" 0 1; }
check_config() {
	local all
	[[ -n $1 ]] || return 0
	all=$(cd "$REPO/scripts/config/guests" && ls)
	# shellcheck disable=SC2086 # one argument for each
	check_choice CONFIG "$1" ${all//.config/}
}

# apt_archive: "URI KEYRING" of the archive that this system installs from.
# Nothing here names a host: the system's own configuration does.
apt_archive() {
	local site keyring
	. /etc/os-release
	# shellcheck disable=SC2016 # apt's own variables
	site=$(apt-get indextargets --format '$(SITE) $(RELEASE)' 'Created-By: Packages' |
		awk -v want="${VERSION_CODENAME:-stable}" '$2 == want || $2 == "stable" {print $1; exit}')
	[[ -n $site ]] || die "apt has no archive configured for ${VERSION_CODENAME:-stable}"
	for keyring in /usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do
		[[ ! -e $keyring ]] || { echo "$site $keyring"; return; }
	done
	die "no archive keyring found: install debian-archive-keyring"
}
