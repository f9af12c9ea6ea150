#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The client of kpatch looks for /sys/kernel/livepatch. If it is absent, the client
# calls "modprobe kpatch" and looks again: the core is loaded by that name, too.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh

MOD_CORE=livepatch

need_rust_core
module_loaded $MOD_CORE || skip "the livepatch core is not a module here"
[[ -z "$(ls "$SYSFS_KLP_DIR")" ]] || skip "a livepatch is loaded: $(ls "$SYSFS_KLP_DIR")"

# The tests after this one need the core, even if this one fails.
function cleanup() {
	modprobe $MOD_CORE
	pop_config
}

setup_config


start_test "modprobe kpatch loads the core"

log "livepatch: % rmmod $MOD_CORE"
unload_mod $MOD_CORE
[[ ! -d "$SYSFS_KLP_DIR" ]] || fail_test "$SYSFS_KLP_DIR is still there"
log "livepatch: % modprobe -q kpatch"
modprobe -q kpatch || fail_test "modprobe -q kpatch says $?"
[[ -d "$SYSFS_KLP_DIR" ]] || fail_test "no $SYSFS_KLP_DIR"
module_loaded $MOD_CORE || fail_test "$MOD_CORE is not loaded"

check_result "livepatch: % rmmod $MOD_CORE
livepatch: % modprobe -q kpatch"

exit 0
