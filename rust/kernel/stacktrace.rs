// SPDX-License-Identifier: GPL-2.0

//! Stack traces.
//!
//! C header: [`include/linux/stacktrace.h`](srctree/include/linux/stacktrace.h)

use crate::{
    bindings,
    error::Result,
    ffi::c_uint,
    prelude::*,
    task::Task, //
};

/// Whether this architecture can tell a complete stack trace from an incomplete one.
pub const RELIABLE: bool = cfg!(CONFIG_STACKTRACE) && cfg!(CONFIG_HAVE_RELIABLE_STACKTRACE);

/// Saves the return addresses on the stack of `task` into `entries` and returns those saved.
///
/// Mirrors `stack_trace_save_tsk_reliable()`.
///
/// # Errors
///
/// When the trace cannot be vouched for, or has more entries than fit.
///
/// # Context
///
/// Any. `task` must be current or kept from running, else the trace is not reliable.
#[inline]
pub fn save_reliable<'a>(task: &Task, entries: &'a mut [usize]) -> Result<&'a [usize]> {
    let size = c_uint::try_from(entries.len())?;
    // SAFETY: A `&Task` is valid, and `entries` is valid for `size` writes.
    let count = unsafe {
        bindings::stack_trace_save_tsk_reliable(task.as_ptr(), entries.as_mut_ptr(), size)
    };
    let count = usize::try_from(count).map_err(|_| EINVAL)?;
    entries.get(..count).ok_or(EINVAL)
}

/// Saves the return addresses on the stack of `task`, for people to read. Returns how many, and
/// whether [`save_reliable`] would have saved just these; otherwise they are those up to the first
/// one that cannot be vouched for.
///
/// # Context
///
/// As for [`save_reliable`].
pub fn save_checked(task: &Task, entries: &mut [usize]) -> (usize, bool) {
    entries.fill(0);
    if let Ok(saved) = save_reliable(task, entries) {
        return (saved.len(), true);
    }
    // No return address is 0.
    let saved = entries.iter().take_while(|entry| **entry != 0).count();
    (saved, false)
}
