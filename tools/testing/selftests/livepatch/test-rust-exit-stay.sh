#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A transition that waits for a thread which exits says so, and can be forced.
# LAST: leaves a livepatch that cannot be unloaded.

. $(dirname $0)/functions.sh
. $(dirname $0)/functions-rust.sh
. $(dirname $0)/functions-exit.sh

need_rust_core
need_exit
setup_config
trap 'abandon_thread; cleanup' EXIT INT TERM HUP

REMAIN="livepatch: '$LP': exiting tasks remain: 1, e.g. klp-exit:"


# - as long as the process has not been reaped, it is a task like others
# - 15 seconds later it is named, however long others were waited for
# - debug messages name it, and the function that it is in

start_test "a transition that waits for a thread which exits names it"

load_mod $HOLD
load_lp $LP
start_thread 3 zombie
disable_lp_nowait $LP
loop_until '[[ $(new_messages "signaling remaining tasks") ]]' || fail_test "nobody is signaled"
kill -s USR1 ${THREADS_KEPT[0]}
loop_until '[[ $(new_messages "${REMAIN}[0-9]*") ]]' || fail_test "nobody names the thread"
LINE=$(new_messages "${REMAIN}[0-9]*")

check_result "% insmod test_modules/$HOLD.ko
% insmod test_modules/$LP.ko
$(expect_enabled $LP)
$LP: a thread stays
$(expect_disabling $LP)
livepatch: signaling remaining tasks
$LINE"

TID=${LINE##*:}
echo "func klp_try_switch_task +p" > "$SYSFS_DEBUG_DIR/dynamic_debug/control"
loop_until '[[ $(new_messages "klp-exit:$TID is exiting") ]]' ||
	fail_test "no debug message names the thread"
SLEEPS="is sleeping on function exit_task_stack_account"
loop_until '[[ $(new_messages "klp-exit:$TID $SLEEPS") ]]' ||
	fail_test "no debug message names the function"
echo "func klp_try_switch_task -p" > "$SYSFS_DEBUG_DIR/dynamic_debug/control"


# - a forced transition ends at once, and names the thread once more; the module
#   stays for good

start_test "a transition that waits for a thread which exits is forced"

stays_in_transition $LP
log "% echo 1 > $SYSFS_KLP_DIR/$LP/force"
echo 1 > $SYSFS_KLP_DIR/$LP/force
loop_until '[[ ! -e $SYSFS_KLP_DIR/$LP ]]' || fail_test "$LP is still there"
# What is left of the forced transition is nothing for the next one.
load_lp $OTHER
disable_lp $OTHER
unload_lp $OTHER
# The core lets go of modules one after the other: by now of that one, if at all.
[[ $(cat /sys/module/$LP/refcnt) != 0 ]] || fail_test "$LP could be unloaded"
end_thread

check_result "% echo 1 > $SYSFS_KLP_DIR/$LP/force
livepatch: forcing remaining tasks to the patched state
$LINE
livepatch: '$LP': completing unpatching transition
$LP: post_unpatch of the object
$LP: post_unpatch of the state
livepatch: shadow variables with id 59415 are never freed, after a forced transition
livepatch: '$LP': unpatching complete
% insmod test_modules/$OTHER.ko
$(expect_enabled $OTHER)
$(expect_disabled $OTHER)
$LP: post_unpatch of the object was called
$LP: post_unpatch of the state was called
$LP: a thread goes"

exit 0
