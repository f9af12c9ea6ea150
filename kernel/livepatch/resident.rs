// SPDX-License-Identifier: GPL-2.0-or-later

//! What the core shares with `resident.c`, which is always in vmlinux, and `exports.c`.
//!
//! Replaces what `core.c` and `transition.c` keep in static variables that others read.

use kernel::{
    bindings,
    sync::{
        atomic::Atomic,
        lock::{
            mutex::MutexBackend,
            Lock, //
        }, //
    },
};

/// `klp_mutex`.
pub(crate) fn mutex() -> &'static Lock<(), MutexBackend> {
    // SAFETY: A static mutex, initialised at build time.
    unsafe { Lock::from_raw(&raw mut bindings::klp_mutex) }
}

/// The patch state that tasks with `TIF_PATCH_PENDING` switch to. Written by the core only.
pub(crate) fn target_state() -> &'static Atomic<i32> {
    // SAFETY: A static int, which the hooks read with READ_ONCE().
    unsafe { Atomic::from_ptr(&raw mut bindings::klp_target_state) }
}

/// Whether every livepatch follows the rules of replace sets.
pub(crate) fn strict_replace_sets() -> bool {
    // SAFETY: Written when the core is loaded, or the kernel started, and never after.
    unsafe { bindings::klp_strict_replace_sets }
}

/// Makes `__schedule()` try to switch tasks that are about to sleep, or not. May sleep.
pub(crate) fn set_sched_try_switch(enable: bool) {
    // SAFETY: No requirements but process context.
    unsafe { bindings::klp_set_sched_try_switch(enable) };
}

/// This CPU's buffer for a stack trace.
///
/// # Safety
///
/// Preemption must be disabled for as long as the buffer is used, by one user at a time.
pub(crate) unsafe fn stack_buffer<'a>() -> &'a mut [usize] {
    // SAFETY: The per-CPU array has as many entries, and is the caller's.
    unsafe {
        core::slice::from_raw_parts_mut(
            bindings::klp_stack_buffer(),
            bindings::KLP_MAX_STACK_ENTRIES as usize,
        )
    }
}
