// SPDX-License-Identifier: GPL-2.0

//! Walks over all tasks.
//!
//! Not a part of `task.rs`, which is about tasks that somebody knows and holds. Here nobody holds
//! them: `tasklist_lock` or RCU keeps each while the walk is at it.
//!
//! C headers: [`include/linux/sched/signal.h`](srctree/include/linux/sched/signal.h),
//! [`include/linux/sched/task.h`](srctree/include/linux/sched/task.h)

use crate::{
    bindings,
    container_of,
    cpu::{
        nr_cpu_ids,
        CpuId, //
    },
    ffi::c_int,
    sync::{
        aref::ARef,
        rcu, //
    },
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

/// How many threads a walk visits before it lets others run.
const CHUNK: u32 = 64;

/// How often a walk begins anew when it has lost its place.
const ATTEMPTS: u32 = 8;

/// Reads the link to the next node.
///
/// # Safety
///
/// `node` must be valid for a read, and be changed by RCU list operations only.
#[inline]
unsafe fn next(node: *const bindings::list_head) -> *mut bindings::list_head {
    // SAFETY: By the caller's promise. Like READ_ONCE() for `list_entry_rcu()`: what is read
    // through the pointer depends on it.
    unsafe { core::ptr::read_volatile(&raw const (*node).next) }
}

/// Calls `visit` with the leader of the group, and the thread, for each thread of each process
/// until it returns false. Returns whether it never did.
///
/// # Safety
///
/// `tasklist_lock` must be held, and only `visit` may interrupt that. When `visit` returns true,
/// the leader must be on the list of processes, and the thread on that of its group.
#[inline]
unsafe fn walk(mut visit: impl FnMut(*mut bindings::task_struct, &Task) -> bool) -> bool {
    let init = &raw mut bindings::init_task;
    let mut leader = init;
    loop {
        // SAFETY: `tasks` links all leaders through `init_task`. This one is on the list, which
        // does not change while the lock is held.
        leader = unsafe {
            container_of!(
                next(&raw const (*leader).tasks),
                bindings::task_struct,
                tasks
            )
        };
        if leader == init {
            return true;
        }
        // SAFETY: The leader is valid, and holds a reference to its signal struct.
        let head = unsafe { &raw mut (*(*leader).signal).thread_head };
        // SAFETY: The list of threads changes under the lock only.
        let mut node = unsafe { next(head) };
        while node != head {
            // SAFETY: The nodes of `thread_head` are embedded in tasks.
            let task = unsafe { container_of!(node, bindings::task_struct, thread_node) };
            // SAFETY: Valid for as long as the lock is held, as the leader is; `Task` is
            // transparent.
            if !visit(leader, unsafe { &*task.cast::<Task>() }) {
                return false;
            }
            // SAFETY: The links of threads are like those of leaders.
            node = unsafe { next(node) };
        }
    }
}

/// How a walk in chunks ended.
enum Walked {
    /// All threads have been visited.
    All,
    /// `f` did not want to go on.
    Stopped,
    /// The place was lost: after a break the thread that the walk had come to was gone, or was in
    /// another place by exec.
    Lost,
}

/// Calls `f` under `tasklist_lock` for each thread of each process until it returns false, and lets
/// others run, fork and exit after each [`CHUNK`].
#[inline]
fn walk_in_chunks(f: &mut impl FnMut(&Task) -> bool) -> Walked {
    let mut guard = Some(ReadGuard::new());
    let mut left = CHUNK;
    let mut ended = Walked::All;
    let visit = |leader: *mut bindings::task_struct, task: &Task| {
        if !f(task) {
            ended = Walked::Stopped;
            return false;
        }
        left = left.saturating_sub(1);
        if left != 0 {
            return true;
        }
        left = CHUNK;
        // SAFETY: The leader is valid under the lock; `Task` is transparent.
        let leader = ARef::from(unsafe { &*leader.cast::<Task>() });
        let task = ARef::from(task);
        drop(guard.take());
        // SAFETY: Neither the lock nor, by what is asked of the callers, anything else is held.
        unsafe { bindings::cond_resched() };
        guard = Some(ReadGuard::new());
        let there = is_leader(&leader) && is_listed(&leader) && is_listed(&task);
        if !there {
            ended = Walked::Lost;
        }
        there
    };
    // SAFETY: The lock is held, but in the middle of `visit`, which then finds out whether the
    // tasks are still on the lists.
    unsafe { walk(visit) };
    ended
}

/// Calls `f` for each thread of each process, the idle tasks excepted, under RCU. Lets others run,
/// fork and exit meanwhile.
///
/// The walk goes by the threads' ids, so it has no place to lose in a break. It visits each thread
/// that has its id during the whole walk. It may miss a thread that is started meanwhile, or that
/// takes its leader's id by exec. It may visit threads that exit, and twice a leader that loses its
/// id by exec.
///
/// Mirrors `for_each_process_thread()` under `rcu_read_lock()`, in the way in which procfs lists
/// processes.
///
/// # Context
///
/// Process context, may sleep. `f` is called under RCU and must not sleep.
///
/// # Examples
///
/// ```
/// use kernel::{task::Task, tasklist};
///
/// let mut found = false;
/// tasklist::for_each_thread_rcu(|task| found |= task.as_ptr() == Task::current_raw());
/// assert!(found);
/// ```
#[inline]
pub fn for_each_thread_rcu(mut f: impl FnMut(&Task)) {
    let mut from = 1;
    loop {
        let guard = rcu::read_lock();
        for _ in 0..CHUNK {
            let Some((id, task)) = next_id(from, &guard) else {
                return;
            };
            from = id.saturating_add(1);
            if let Some(task) = task {
                f(task);
            }
        }
        drop(guard);
        // SAFETY: Neither RCU nor, by what is asked of the callers, anything else is held.
        unsafe { bindings::cond_resched() };
    }
}

/// Finds the thread with the lowest id, `from` or more, for which `f` returns true. Returns the id.
///
/// Walks as [`for_each_thread_rcu`] does, and so can go on behind a thread that was found before.
///
/// # Context
///
/// As for [`for_each_thread_rcu`].
///
/// # Examples
///
/// ```
/// use kernel::{task::Task, tasklist};
///
/// let is_current = |task: &Task| task.as_ptr() == Task::current_raw();
/// let found = tasklist::find_thread_rcu(0, is_current).ok_or(EINVAL)?;
/// assert!(tasklist::find_thread_rcu(found + 1, is_current).is_none());
/// # Ok::<(), Error>(())
/// ```
pub fn find_thread_rcu(mut from: c_int, mut f: impl FnMut(&Task) -> bool) -> Option<c_int> {
    loop {
        let guard = rcu::read_lock();
        for _ in 0..CHUNK {
            let (id, task) = next_id(from, &guard)?;
            if task.is_some_and(&mut f) {
                return Some(id);
            }
            from = id.saturating_add(1);
        }
        drop(guard);
        // SAFETY: Neither RCU nor, by what is asked of the callers, anything else is held.
        unsafe { bindings::cond_resched() };
    }
}

/// Returns the lowest id from `from` on, and the thread that has it. An id can be without a thread:
/// one that is about to be, has exited, or has left its id to a group or session.
#[inline]
fn next_id<'a>(from: c_int, _guard: &'a rcu::Guard) -> Option<(c_int, Option<&'a Task>)> {
    let ns = &raw mut bindings::init_pid_ns;
    // SAFETY: The namespace is static, and RCU is held.
    let pid = unsafe { bindings::find_ge_pid(from, ns) };
    if pid.is_null() {
        return None;
    }
    // SAFETY: By RCU, what was found is valid. All ids are in this namespace.
    let id = unsafe { bindings::pid_nr_ns(pid, ns) };
    // SAFETY: By RCU, what was found is valid.
    let task = unsafe { bindings::pid_task(pid, bindings::pid_type_PIDTYPE_PID) };
    // SAFETY: NULL, or a task that is not freed as long as RCU is held; `Task` is transparent.
    Some((id.max(from), unsafe { task.cast::<Task>().as_ref() }))
}

/// Calls `f` for each thread of each process, the idle tasks excepted, under `tasklist_lock`. Lets
/// others run, fork and exit meanwhile.
///
/// If `f` sets a field that `copy_process()` copies from parent to child under `tasklist_lock`, it
/// is set in every thread when the walk ends. For the walk visits processes, and the threads of
/// each, in the order in which they were started. So it only misses a thread that joins a process
/// which it is done with. Such a thread has copied the field from a thread that was visited, or
/// that was missed for the same reason. Exec does not change this: the new leader takes the old
/// one's place among the processes, and keeps its own among the threads.
///
/// The walk may visit a thread more than once. It loses its place if the thread that it had come to
/// is gone after a break, and then begins again. The last attempt has no breaks, so nobody can fork
/// or exit meanwhile.
///
/// Mirrors `for_each_process_thread()` under `read_lock(&tasklist_lock)`.
///
/// # Context
///
/// Process context, may sleep. `f` must not sleep; it is to be a few instructions, as nobody can
/// fork or exit meanwhile. [`for_each_thread_rcu`] is for all else.
///
/// # Examples
///
/// ```
/// use kernel::{task::Task, tasklist};
///
/// let mut count = 0;
/// tasklist::for_each_thread(|_| count += 1);
/// assert!(count > 0);
/// assert!(!tasklist::all_threads(|task| task.as_ptr() != Task::current_raw()));
/// ```
#[inline]
pub fn for_each_thread(mut f: impl FnMut(&Task)) {
    all_threads(|task| {
        f(task);
        true
    });
}

/// Calls `f` as [`for_each_thread`] does until it returns false. Returns whether it never did.
///
/// # Context
///
/// As [`for_each_thread`].
#[inline]
pub fn all_threads(mut f: impl FnMut(&Task) -> bool) -> bool {
    for _ in 0..ATTEMPTS {
        match walk_in_chunks(&mut f) {
            Walked::All => return true,
            Walked::Stopped => return false,
            Walked::Lost => {}
        }
    }
    // There is always somebody who exits. Without breaks there is no place to lose.
    let _guard = ReadGuard::new();
    // SAFETY: `tasklist_lock` is held.
    unsafe { walk(|_, task| f(task)) }
}

/// Returns whether `task`, which may be about to exit, is still on the list of its group's threads.
///
/// Mirrors `pid_alive()`.
#[inline]
fn is_listed(task: &Task) -> bool {
    // SAFETY: A `&Task` is valid.
    unsafe { bindings::pid_alive(task.as_ptr()) != 0 }
}

/// Returns whether `task` leads its group; a former leader is not on the list of processes any
/// more.
///
/// Mirrors `thread_group_leader()`.
#[inline]
fn is_leader(task: &Task) -> bool {
    // SAFETY: A `&Task` is valid.
    unsafe { bindings::thread_group_leader(task.as_ptr()) }
}

/// Evidence that `tasklist_lock` is held for reading.
///
/// No task is forked into, or unhashed from, the list of tasks while it exists.
struct ReadGuard(NotThreadSafe);

impl ReadGuard {
    /// Acquires `tasklist_lock` for reading. Disables preemption, but not on PREEMPT_RT.
    #[inline]
    fn new() -> Self {
        // SAFETY: `tasklist_lock` is a static, initialised lock.
        unsafe { bindings::read_lock(&raw mut bindings::tasklist_lock) };
        Self(NotThreadSafe)
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
    pub fn is_online(&self, cpu: CpuId) -> bool {
        // SAFETY: The mask has a bit for every number below `nr_cpu_ids`.
        unsafe { bindings::cpu_online(cpu.into()) }
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

/// Calls `f` with each possible CPU and its idle task.
///
/// Mirrors `for_each_possible_cpu()` with `idle_task()`.
#[inline]
pub fn for_each_idle(mut f: impl FnMut(CpuId, &Task)) {
    for cpu in (0..nr_cpu_ids()).filter_map(CpuId::from_u32) {
        // SAFETY: The mask has a bit for every number below `nr_cpu_ids`.
        if !unsafe { bindings::cpu_possible(cpu.into()) } {
            continue;
        }
        // SAFETY: Each possible CPU has an idle task, which is never freed.
        f(cpu, unsafe {
            &*bindings::idle_task(cpu.into()).cast::<Task>()
        });
    }
}

/// Makes `cpu` pass through its idle loop if it is online and idle.
///
/// Mirrors `wake_up_if_idle()`.
#[inline]
pub fn wake_if_idle(cpu: CpuId, cpus: &CpusReadGuard) {
    if cpus.is_online(cpu) {
        // SAFETY: The CPU is there, with a run queue, and cannot go away.
        unsafe { bindings::wake_up_if_idle(cpu.into()) };
    }
}
