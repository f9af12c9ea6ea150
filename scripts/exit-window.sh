#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# exit-window.sh: a livepatch is disabled while a thread that exits is in it.
# WINDOW=closed shows that the core waits for the thread, also when the thread
# before it has oopsed; WINDOW=open takes away what the core knows of such
# threads, and shows the oops that each core had before (the default for the C
# core). ARCH, CORE and DEBUG as for guest.sh.

. "$(dirname "$0")/lib.sh"

arch=${ARCH:-x86_64} core=${CORE:-m} debug=${DEBUG:-0}
window=${WINDOW:-}
[[ $window ]] || { [[ $core == c ]] && window=open || window=closed; }
check_choice WINDOW "$window" open closed

# crash NAME [VAR=VALUE...]: a guest whose kernel has to complain. LOG is the
# prefix of its log files.
crash() {
	local name=$1 rc=0
	shift
	LOG=$LOGS/guest-$name-$arch-$core$([[ $debug == 0 ]] || echo -debug)
	env ARCH="$arch" CORE="$core" DEBUG="$debug" KLP_LOG="$name" "$@" "$REPO/scripts/guest.sh" "$name" || rc=$?
	((rc == 3)) || die "the kernel was to complain, but guest.sh ended with $rc"
}

if [[ $window == open ]]; then
	crash exit-window KLP_APPEND="klp.window=open ${KLP_APPEND:-}"
	grep -q 'echo 1 >.*/release' "$LOG.output" || die "the guest has crashed too early"
	! grep -q '^FAIL' "$LOG.output" || die "the guest has failed in another way"
	echo
	echo "This crash is EXPECTED: it is what happens where the core does not know of tasks that"
	echo "exit. make exit-window CORE=$core WINDOW=closed shows the same where it does."
	exit 0
fi

ARCH=$arch CORE=$core DEBUG=$debug "$REPO/scripts/guest.sh" exit-window
crash exit-oops
if ! grep -q '^PASS' "$LOG.output"; then
	die "transitions do not complete after oopses in the end of an exit, log: $LOG.output"
fi
[[ $(grep -c 'Fixing recursive fault' "$LOG.console") == 2 &&
	$(grep -c 'end trace' "$LOG.console") == 2 ]] || die "the kernel has complained of something else, log: $LOG.console"
echo
echo "Those oopses are EXPECTED: the test module makes threads oops that exit. PASS: livepatches were"
echo "enabled, disabled and unloaded after them."
