#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A livepatch is freed while its files in sysfs are read. Who reads one waits for the
# mutex of the core. Removing the file waits for who reads it, so that the core must
# not hold the mutex then.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh

MOD_LIVEPATCH=test_klp_walk_a
FUNC=version_proc_show
ROUNDS=5
READERS=4

need_rust_core
setup_config

# read_on(file, begun) - read a file until it is gone
#	file  - the file
#	begun - what to make when it has been read for the first time
function read_on() {
	while read -r _ <"$1"; do [[ -e "$2" ]] || : >"$2"; done 2>/dev/null
}

# - load a livepatch, and have several processes read a file of it all the time
# - disable and unload it
# - check that this ends, as do those who read

start_test "files of a livepatch are read while it is freed"

dir=$(mktemp -d)
expected=
for ((round = 0; round < ROUNDS; round++)); do
	load_lp $MOD_LIVEPATCH vmlinux=$FUNC
	for ((i = 0; i < READERS; i++)); do
		read_on "$SYSFS_KLP_DIR/$MOD_LIVEPATCH/stack_order" "$dir/$round.$i" &
	done
	loop_until '[[ $(ls "$dir" | wc -l) == $((READERS * (round + 1))) ]]' ||
		fail_test "nobody reads"
	disable_lp $MOD_LIVEPATCH
	wait
	unload_lp $MOD_LIVEPATCH
	expected+="${expected:+
}% insmod test_modules/$MOD_LIVEPATCH.ko vmlinux=$FUNC
$(expect_enabled $MOD_LIVEPATCH)
$(expect_disabled $MOD_LIVEPATCH)"
done
rm -r "$dir"

check_result "$expected"

exit 0
