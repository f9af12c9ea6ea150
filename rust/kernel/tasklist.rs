// SPDX-License-Identifier: GPL-2.0

//! Walks over all tasks.
//!
//! C headers: [`include/linux/sched/signal.h`](srctree/include/linux/sched/signal.h),
//! [`include/linux/sched/task.h`](srctree/include/linux/sched/task.h)

use crate::{
    bindings,
    container_of,
    ffi::c_int,
    task::Task,
    types::NotThreadSafe, //
};

// `bindgen` has got the layout of `task_struct` wrong before.
const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(bindings::task_struct, tasks) == bindings::TASK_STRUCT_TASKS);
    assert!(offset_of!(bindings::task_struct, signal) == bindings::TASK_STRUCT_SIGNAL);
    assert!(offset_of!(bindings::task_struct, thread_node) == bindings::TASK_STRUCT_THREAD_NODE);
    assert!(
        offset_of!(bindings::signal_struct, thread_head) == bindings::SIGNAL_STRUCT_THREAD_HEAD
    );
};

/// Evidence that `tasklist_lock` is held for reading.
///
/// No task is forked into, or unhashed from, the list of tasks while it exists.
pub struct ReadGuard(NotThreadSafe);

impl ReadGuard {
    /// Acquires `tasklist_lock` for reading. Disables preemption.
    #[inline]
    pub fn new() -> Self {
        // SAFETY: `tasklist_lock` is a static, initialised lock.
        unsafe { bindings::read_lock(&raw mut bindings::tasklist_lock) };
        Self(NotThreadSafe)
    }

    /// Calls `f` for each thread of each process, the idle tasks excepted.
    ///
    /// Mirrors `for_each_process_thread()`.
    #[inline]
    pub fn for_each_thread(&self, mut f: impl FnMut(&Task)) {
        let init = &raw mut bindings::init_task;
        let mut leader = init;
        loop {
            // SAFETY: `tasks` links all thread group leaders through `init_task`, and the list
            // does not change under the lock.
            leader = unsafe { container_of!((*leader).tasks.next, bindings::task_struct, tasks) };
            if leader == init {
                return;
            }
            // SAFETY: A task on the list has a signal struct, whose list of threads does not
            // change under the lock.
            let head = unsafe { &raw mut (*(*leader).signal).thread_head };
            // SAFETY: As above.
            let mut node = unsafe { (*head).next };
            while node != head {
                // SAFETY: The nodes of `thread_head` are embedded in tasks.
                let task = unsafe { container_of!(node, bindings::task_struct, thread_node) };
                // SAFETY: A task that is on the list under the lock is valid; `Task` is
                // transparent.
                f(unsafe { &*task.cast::<Task>() });
                // SAFETY: As above.
                node = unsafe { (*node).next };
            }
        }
    }
}

impl Default for ReadGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for ReadGuard {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: The lock was taken by `new()`, on this CPU.
        unsafe { bindings::read_unlock(&raw mut bindings::tasklist_lock) };
    }
}

/// Evidence that no CPU comes online or goes offline.
pub struct CpusReadGuard(NotThreadSafe);

impl CpusReadGuard {
    /// Acquires the CPU hotplug lock for reading. May sleep.
    #[inline]
    pub fn new() -> Self {
        // SAFETY: No requirements but process context.
        unsafe { bindings::cpus_read_lock() };
        Self(NotThreadSafe)
    }

    /// Returns whether `cpu` is online; that holds for as long as the guard exists.
    #[inline]
    pub fn is_online(&self, cpu: u32) -> bool {
        // SAFETY: Numbers beyond the last CPU are caught by the callers' use of possible CPUs.
        unsafe { bindings::cpu_online(cpu) }
    }
}

impl Default for CpusReadGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for CpusReadGuard {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: The lock was taken by `new()`.
        unsafe { bindings::cpus_read_unlock() };
    }
}

/// Calls `f` with the number and the idle task of each possible CPU.
///
/// Mirrors `for_each_possible_cpu()` with `idle_task()`.
#[inline]
pub fn for_each_idle(mut f: impl FnMut(u32, &Task)) {
    // SAFETY: Constant after boot.
    let count = unsafe { bindings::nr_cpu_ids };
    for cpu in 0..count {
        // SAFETY: `cpu` is below `nr_cpu_ids`.
        if !unsafe { bindings::cpu_possible(cpu) } {
            continue;
        }
        // SAFETY: Each possible CPU has an idle task, which is never freed.
        f(cpu, unsafe {
            &*bindings::idle_task(cpu as c_int).cast::<Task>()
        });
    }
}

/// Makes `cpu` pass through its idle loop if it is idle.
///
/// Mirrors `wake_up_if_idle()`.
#[inline]
pub fn wake_if_idle(cpu: u32, _cpus: &CpusReadGuard) {
    // SAFETY: The CPU cannot go away.
    unsafe { bindings::wake_up_if_idle(cpu as c_int) };
}
