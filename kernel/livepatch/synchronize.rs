// SPDX-License-Identifier: GPL-2.0-or-later

//! Waiting for all who may be in the ftrace handler, or on their way from there.

use kernel::{
    bindings,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// Waits until no CPU is inside the ftrace handler or in a section with preemption disabled that
/// began before the call.
///
/// RCU would not do: functions can be patched that run where it is not watching. Mirrors
/// `klp_synchronize_transition()`, with which `schedule_on_each_cpu()` may fail for want of
/// memory; here that only delays.
pub(crate) fn synchronize() {
    extern "C" fn nothing(_work: *mut bindings::work_struct) {}

    // SAFETY: The function does nothing.
    while unsafe { bindings::schedule_on_each_cpu(Some(nothing)) } != 0 {
        fsleep(Delta::from_millis(1));
    }
}
