#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# kunit.sh: the KUnit suites and doctests of all of Rust, in the guest. Prints what
# failed, and how many there were. From the environment as guest.sh.

. "$(dirname "$0")/lib.sh"

arch=${ARCH:-x86_64} core=${CORE:-m} debug=${DEBUG:-0}
log=$LOGS/guest-kunit-$arch-$core
[[ $debug == 0 ]] || log+=-debug
rm -f "$log.console"
rc=0
env ARCH="$arch" CORE="$core" DEBUG="$debug" "$REPO/scripts/guest.sh" kunit || rc=$?
[[ -e $log.console ]] || exit "$rc"
{ read -r passed failed skipped && names=$(cat); } < <("$REPO/scripts/ktap.py" "$log.console")
[[ -z $names ]] || echo "failed: ${names//$'\n'/, }"
echo "$passed passed, $failed failed, $skipped skipped, log: $log.console"
((failed == 0 && passed > 0)) || rc=1
exit "$rc"
