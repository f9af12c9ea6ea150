// SPDX-License-Identifier: GPL-2.0

//! The tracepoints of livepatching.
//!
//! Off, each is a jump that is not taken.
//!
//! C header: [`include/trace/events/livepatch.h`](srctree/include/trace/events/livepatch.h)

use crate::{
    bindings,
    ffi::{
        c_int,
        c_uint, //
    },
    prelude::*,
    str::CStrExt as _,
    task::Task, //
};

/// What a transition has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Stage {
    /// It begins.
    Start = bindings::klp_stage_KLP_STAGE_START,
    /// It was turned round.
    Reversed = bindings::klp_stage_KLP_STAGE_REVERSED,
    /// The tasks that were left have been switched by force.
    Forced = bindings::klp_stage_KLP_STAGE_FORCED,
    /// It has not ended for a long time.
    Stalled = bindings::klp_stage_KLP_STAGE_STALLED,
    /// It has ended.
    Complete = bindings::klp_stage_KLP_STAGE_COMPLETE,
}

/// Who has switched a task. What is done by C has its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum By {
    /// The walk over all tasks.
    Pass = bindings::klp_switcher_KLP_BY_PASS,
    /// The scheduler.
    Sched = bindings::klp_switcher_KLP_BY_SCHED,
}

/// Why a task was not switched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Reason {
    /// For none: the next who looks switches it.
    Ready = bindings::klp_reason_KLP_REASON_READY,
    /// It is running.
    Running = bindings::klp_reason_KLP_REASON_RUNNING,
    /// Its stack cannot be vouched for.
    Unreliable = bindings::klp_reason_KLP_REASON_UNRELIABLE,
    /// A function that is to be left is on its stack.
    Function = bindings::klp_reason_KLP_REASON_FUNCTION,
    /// Something else.
    Other = bindings::klp_reason_KLP_REASON_OTHER,
}

/// What becomes of shadow variables with an id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Shadow {
    /// A livepatch has become an owner of the id.
    Opened = bindings::klp_shadow_event_KLP_SHADOW_OPENED,
    /// The last owner has left.
    Closed = bindings::klp_shadow_event_KLP_SHADOW_CLOSED,
    /// They have been freed.
    Collected = bindings::klp_shadow_event_KLP_SHADOW_COLLECTED,
    /// They are never freed.
    Leaked = bindings::klp_shadow_event_KLP_SHADOW_LEAKED,
}

/// What a callback is for.
#[derive(Clone, Copy)]
pub enum Of<'a> {
    /// An object, by its name.
    Object(&'a CStr),
    /// A state, by its id.
    State(usize),
}

mod raw {
    use crate::ffi::{
        c_char,
        c_int,
        c_uint,
        c_ulong, //
    };

    crate::declare_trace! {
        /// # Safety
        ///
        /// `patch` must be NUL-terminated.
        pub(super) unsafe fn klp_transition(
            patch: *const c_char, target: c_int, stage: c_uint, age_ms: u64);
        /// # Safety
        ///
        /// `task` must be valid.
        pub(super) unsafe fn klp_task_switch(
            task: *mut crate::bindings::task_struct, target: c_int, by: c_uint);
        /// # Safety
        ///
        /// `task` must be valid, `function` NUL-terminated.
        pub(super) unsafe fn klp_task_blocked(
            task: *mut crate::bindings::task_struct, reason: c_uint, function: *const c_char);
        /// # Safety
        ///
        /// `object` and `function` must be NUL-terminated.
        pub(super) unsafe fn klp_func(
            object: *const c_char, function: *const c_char, code: c_ulong, pushed: bool);
        /// # Safety
        ///
        /// `name` and `object` must be NUL-terminated.
        pub(super) unsafe fn klp_callback(
            name: *const c_char, object: *const c_char, id: c_ulong, code: c_ulong, ended: bool,
            ret: c_int);
        /// # Safety
        ///
        /// None: there are no pointers.
        pub(super) unsafe fn klp_shadow(id: c_ulong, event: c_uint, count: c_ulong);
    }
}

/// The transition of `patch` to the patch state `target`, which began `age_ms` milliseconds ago,
/// has come to `stage`.
#[inline]
pub fn transition(patch: &CStr, target: c_int, stage: Stage, age_ms: u64) {
    // SAFETY: A `&CStr` is NUL-terminated.
    unsafe { raw::klp_transition(patch.as_char_ptr(), target, stage as c_uint, age_ms) }
}

/// `task` was switched to the patch state `target`.
#[inline]
pub fn task_switch(task: &Task, target: c_int, by: By) {
    // SAFETY: A `&Task` is valid.
    unsafe { raw::klp_task_switch(task.as_ptr(), target, by as c_uint) }
}

/// `task` was not switched, as `function` is on its stack if the reason is such a one.
#[inline]
pub fn task_blocked(task: &Task, reason: Reason, function: &CStr) {
    // SAFETY: A `&Task` is valid, a `&CStr` NUL-terminated.
    unsafe { raw::klp_task_blocked(task.as_ptr(), reason as c_uint, function.as_char_ptr()) }
}

/// A version of `function` of `object`, with its code at `code` (0 for the original), was put on
/// the func stack, or else taken off it.
#[inline]
pub fn func(object: &CStr, function: &CStr, code: usize, pushed: bool) {
    // SAFETY: A `&CStr` is NUL-terminated.
    unsafe { raw::klp_func(object.as_char_ptr(), function.as_char_ptr(), code, pushed) }
}

/// Calls `callback`, the callback `name` of a livepatch with its code at `code`, and returns what
/// it does.
#[inline]
pub fn callback(name: &CStr, of: Of<'_>, code: usize, callback: impl FnOnce() -> c_int) -> c_int {
    let (object, id) = match of {
        Of::Object(name) => (name, 0),
        Of::State(id) => (c"", id),
    };
    let (name, object) = (name.as_char_ptr(), object.as_char_ptr());
    // SAFETY: The strings are NUL-terminated.
    unsafe { raw::klp_callback(name, object, id, code, false, 0) };
    let ret = callback();
    // SAFETY: As above.
    unsafe { raw::klp_callback(name, object, id, code, true, ret) };
    ret
}

/// This has become of the shadow variables with `id`; `count` is how many there are, or were freed.
#[inline]
pub fn shadow(id: usize, event: Shadow, count: usize) {
    // SAFETY: There is nothing to be promised.
    unsafe { raw::klp_shadow(id, event as c_uint, count) }
}
