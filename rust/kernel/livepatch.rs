// SPDX-License-Identifier: GPL-2.0

//! The per-task side of live patching.
//!
//! During a transition each task has a patch state, which decides which version of a function it
//! runs, and a flag which says that the state is to be brought up to date.
//!
//! C header: [`include/linux/livepatch.h`](srctree/include/linux/livepatch.h)

use crate::{
    bindings,
    ffi::{
        c_int,
        c_uint,
        c_void, //
    },
    sync::rcu,
    task::Task, //
};
use core::ptr::null_mut;

pub mod facts;
#[cfg(CONFIG_LIVEPATCH_RUST)]
pub mod trace;

/// Calls `f` for each task that is exiting, from before it can be unhashed until it has left its
/// CPU for good.
///
/// A walk over all threads, as those of [`tasklist`], misses the ones that have been unhashed.
/// After such a walk under `tasklist_lock` this one completes it: it visits all that were missed
/// for that reason and can still run. It may visit others again.
///
/// Mirrors a walk by `klp_next_exiting()`.
///
/// # Context
///
/// Any in which RCU is watching. `f` is called under RCU and must not sleep.
///
/// # Examples
///
/// ```
/// use kernel::{livepatch, task::Task};
///
/// livepatch::for_each_exiting(|task| assert!(task.as_ptr() != Task::current_raw()));
/// ```
///
/// [`tasklist`]: crate::tasklist
#[inline]
pub fn for_each_exiting(mut f: impl FnMut(&Task)) {
    let _guard = rcu::read_lock();
    let mut task = null_mut();
    loop {
        // SAFETY: RCU is held since the first task was asked for, so that this one is not freed.
        task = unsafe { bindings::klp_next_exiting(task) };
        if task.is_null() {
            return;
        }
        // SAFETY: Valid for as long as RCU is held: a task leaves the list before the reference is
        // dropped that it has for being current; `Task` is transparent.
        f(unsafe { &*task.cast::<Task>() });
    }
}

/// The right to change which version of a function a task runs.
///
/// The patch states of all tasks decide which code the livepatch core lets go. Whoever changes them
/// can make it let go code that a task still runs.
#[derive(Clone, Copy)]
pub struct Switcher(());

impl Switcher {
    /// Creates the right.
    ///
    /// # Safety
    ///
    /// It is for the one livepatch core that is loaded. By what is done with it, no task may come
    /// to run, or return to, code that has been let go: while a function depends on the state, that
    /// of a task changes only when the task runs no version of the function, or an administrator
    /// has forced it; and code is let go only when no task has a state that leads to it.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

/// Livepatch operations on a task.
///
/// All of them may be called in any context; what orders them is up to the caller.
pub trait TaskExt {
    /// Returns the task's patch state: `KLP_TRANSITION_{IDLE,UNPATCHED,PATCHED}`.
    fn patch_state(&self) -> c_int;
    /// Sets the task's patch state.
    fn set_patch_state(&self, _: Switcher, state: c_int);
    /// Returns whether the task has `TIF_PATCH_PENDING` set.
    fn patch_pending(&self) -> bool;
    /// Sets `TIF_PATCH_PENDING`. The task then switches when it leaves the kernel.
    fn set_patch_pending(&self, _: Switcher);
    /// Clears `TIF_PATCH_PENDING`.
    fn clear_patch_pending(&self, _: Switcher);
    /// Switches the task to the target patch state if it still has to.
    ///
    /// Mirrors `klp_update_patch_state()`.
    fn update_patch_state(&self, _: Switcher);
    /// Returns whether the task is current on some CPU.
    fn is_running(&self) -> bool;
    /// Returns whether the task is a kernel thread.
    fn is_kthread(&self) -> bool;
    /// Wakes the task if it sleeps interruptibly.
    fn wake_interruptible(&self);
    /// Makes a user task pass through the kernel exit path, without a signal.
    fn notify_signal(&self);
    /// Returns the name of the task. It may change while it is read.
    fn comm(&self) -> [u8; TASK_COMM_LEN];
    /// Calls `f` while the task is kept from running, and returns what `f` does.
    ///
    /// Mirrors `task_call_func()`. `f` runs with interrupts off, under the task's `pi_lock` and
    /// possibly its run queue's lock: it must neither sleep nor wake anybody.
    fn call_pinned(&self, f: impl FnOnce(&Task) -> c_int) -> c_int;
}

/// Length of a task's name, with its NUL.
pub const TASK_COMM_LEN: usize = bindings::TASK_COMM_LEN as usize;

// `bindgen` has got the layout of `task_struct` wrong before.
const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(bindings::task_struct, patch_state) == bindings::TASK_STRUCT_PATCH_STATE);
    assert!(offset_of!(bindings::task_struct, flags) == bindings::TASK_STRUCT_FLAGS);
    assert!(offset_of!(bindings::task_struct, comm) == bindings::TASK_STRUCT_COMM);
    assert!(offset_of!(bindings::task_struct, pid) == bindings::TASK_STRUCT_PID);
    // `CONFIG_THREAD_INFO_IN_TASK`, which the architectures with livepatching select, wants it
    // first.
    assert!(offset_of!(bindings::task_struct, thread_info) == 0);
};

const PENDING: c_int = bindings::TIF_PATCH_PENDING as c_int;

impl TaskExt for Task {
    #[inline]
    fn patch_state(&self) -> c_int {
        // SAFETY: A `&Task` is valid. Like READ_ONCE(): others store whole ints. All tasks are
        // asked under `tasklist_lock`, so this is no call of a helper as that of an `Atomic` is.
        unsafe { core::ptr::read_volatile(&raw const (*self.as_ptr()).patch_state) }
    }

    #[inline]
    fn set_patch_state(&self, _: Switcher, state: c_int) {
        // SAFETY: A `&Task` is valid. Like WRITE_ONCE().
        unsafe { core::ptr::write_volatile(&raw mut (*self.as_ptr()).patch_state, state) }
    }

    #[inline]
    fn patch_pending(&self) -> bool {
        // SAFETY: A `&Task` is valid. Like READ_ONCE(): flags are changed atomically.
        let flags =
            unsafe { core::ptr::read_volatile(&raw const (*self.as_ptr()).thread_info.flags) };
        flags & (1 << PENDING) != 0
    }

    #[inline]
    fn set_patch_pending(&self, _: Switcher) {
        // SAFETY: A `&Task` is valid.
        unsafe { bindings::set_tsk_thread_flag(self.as_ptr(), PENDING) }
    }

    #[inline]
    fn clear_patch_pending(&self, _: Switcher) {
        // SAFETY: A `&Task` is valid.
        unsafe { bindings::clear_tsk_thread_flag(self.as_ptr(), PENDING) }
    }

    #[inline]
    fn update_patch_state(&self, _: Switcher) {
        // SAFETY: A `&Task` is valid.
        unsafe { bindings::klp_update_patch_state(self.as_ptr()) }
    }

    #[inline]
    fn is_running(&self) -> bool {
        // SAFETY: A `&Task` is valid.
        unsafe { bindings::task_curr(self.as_ptr()) != 0 }
    }

    #[inline]
    fn is_kthread(&self) -> bool {
        // SAFETY: A `&Task` is valid; the bit never changes.
        let flags = unsafe { core::ptr::read_volatile(&raw const (*self.as_ptr()).flags) };
        flags & bindings::PF_KTHREAD != 0
    }

    #[inline]
    fn wake_interruptible(&self) {
        // SAFETY: A `&Task` is valid.
        unsafe { bindings::wake_up_state(self.as_ptr(), bindings::TASK_INTERRUPTIBLE as c_uint) };
    }

    #[inline]
    fn notify_signal(&self) {
        // SAFETY: A `&Task` is valid.
        unsafe { bindings::set_notify_signal(self.as_ptr()) }
    }

    #[inline]
    fn comm(&self) -> [u8; TASK_COMM_LEN] {
        // SAFETY: A `&Task` is valid. Like C readers of `comm`, accept a torn name; the last byte
        // is always NUL.
        unsafe { core::ptr::read_volatile((&raw const (*self.as_ptr()).comm).cast()) }
    }

    #[inline]
    fn call_pinned(&self, f: impl FnOnce(&Task) -> c_int) -> c_int {
        /// # Safety
        ///
        /// `task` must be valid, `arg` the closure of a running `call_pinned()`.
        unsafe extern "C" fn trampoline<F: FnOnce(&Task) -> c_int>(
            task: *mut bindings::task_struct,
            arg: *mut c_void,
        ) -> c_int {
            // SAFETY: `arg` is the `Option<F>` below, to which this call has exclusive access.
            let f = unsafe { (*arg.cast::<Option<F>>()).take() };
            // SAFETY: `task_call_func()` passes on the valid task that it was given.
            let task = unsafe { &*task.cast::<Task>() };
            f.map_or(0, |f| f(task))
        }

        fn func<F: FnOnce(&Task) -> c_int>(_: &Option<F>) -> bindings::task_call_f {
            Some(trampoline::<F>)
        }

        let mut f = Some(f);
        // SAFETY: A `&Task` is valid, and the trampoline runs only during this call.
        unsafe { bindings::task_call_func(self.as_ptr(), func(&f), (&raw mut f).cast()) }
    }
}
