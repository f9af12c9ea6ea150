// SPDX-License-Identifier: GPL-2.0

//! What there is to say about a task that keeps a transition from ending.
//!
//! All of it may have changed by the time that it is looked at.
//!
//! C headers: [`include/linux/sched.h`](srctree/include/linux/sched.h),
//! [`include/linux/tick.h`](srctree/include/linux/tick.h)

use crate::{
    bindings,
    ffi::{
        c_int,
        c_uint, //
    },
    task::Task, //
};

/// Returns whether [`for_each_exiting`](super::for_each_exiting) visits `task`.
#[inline]
pub fn is_exiting(task: &Task) -> bool {
    // SAFETY: A `&Task` is valid.
    unsafe { bindings::klp_task_exiting(task.as_ptr()) }
}

/// Returns whether `task` is a thread of a user process that never leaves the kernel.
#[inline]
pub fn is_user_worker(task: &Task) -> bool {
    // SAFETY: A `&Task` is valid. Like READ_ONCE(): only the task changes its flags.
    let flags = unsafe { (&raw const (*task.as_ptr()).flags).read_volatile() };
    flags & bindings::PF_USER_WORKER != 0
}

/// Returns the letter that `ps` has for the state of `task`.
///
/// Mirrors `task_state_to_char()`.
#[inline]
pub fn state(task: &Task) -> u8 {
    // SAFETY: A `&Task` is valid.
    unsafe { bindings::task_state_to_char(task.as_ptr()) }
}

/// Returns the CPU that `task` is on, or was last.
///
/// Mirrors `task_cpu()`.
#[inline]
pub fn cpu(task: &Task) -> c_uint {
    // SAFETY: A `&Task` is valid.
    unsafe { bindings::task_cpu(task.as_ptr()) }
}

/// Returns when `task` was started, by the monotonic clock, in nanoseconds.
#[inline]
pub fn start_time(task: &Task) -> i64 {
    // SAFETY: A `&Task` is valid.
    let start = unsafe { bindings::klp_task_start_time(task.as_ptr()) };
    i64::try_from(start).unwrap_or(i64::MAX)
}

/// Returns whether `cpu` is one of those that are left alone, without a tick, while they run one
/// task in user mode.
///
/// Mirrors `tick_nohz_full_cpu()`.
#[inline]
pub fn is_nohz_full(cpu: c_uint) -> bool {
    // SAFETY: Any CPU of a task is possible, and so in the mask, if there is one.
    unsafe { bindings::tick_nohz_full_cpu(cpu as c_int) }
}
