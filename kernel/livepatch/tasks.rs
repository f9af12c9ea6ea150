// SPDX-License-Identifier: GPL-2.0-or-later

//! Moves tasks: gives them their states, and switches each at a safe moment.
//!
//! A task is switched when it leaves the kernel (`klp_update_patch_state()`), when it is found
//! asleep with no function on its stack that the transition leaves ([`switch_listed`] and
//! [`switch_exiting`]), or, as a kernel thread that hardly ever sleeps, in the scheduler
//! ([`try_switch_current`]). Until all are, the ftrace handler asks the state of the task.
//!
//! A walk over all threads, under `tasklist_lock`, is followed by one over those that are exiting:
//! `klp_task_exit()` comes before the lock under which a task is unhashed.
//!
//! Replaces the loops over tasks of `transition.c`.

use crate::{
    lock::KlpLocked,
    raw::Name,
    resident::{
        set_sched_try_switch,
        stack_buffer,
        target_state, //
    },
    rules::ranges::{
        self,
        Range, //
    },
    stack_check::StackCheck, //
};
use kernel::{
    bindings,
    error::to_result,
    ffi::c_int,
    livepatch::{
        facts,
        for_each_exiting,
        trace::{
            self,
            By,
            Reason, //
        },
        Switcher,
        TaskExt, //
    },
    prelude::*,
    stacktrace,
    str::{
        BStr,
        CStr, //
    },
    sync::{
        atomic::ordering::Relaxed,
        barrier::{
            self,
            smp_mb, //
        }, //
    },
    task::Task,
    tasklist::{
        self,
        CpusReadGuard, //
    },
    warn_on_once, //
};

/// The directory that dynamic debug knows the messages by.
macro_rules! klp_debug {
    ($func:literal, $($args:tt)*) => {
        kernel::pr_dynamic_debug!(dir: "kernel/livepatch/", func: $func, $($args)*)
    };
}
pub(crate) use klp_debug;

/// Where a transition takes the tasks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// To the functions from before the patch.
    Unpatched,
    /// To the functions of the patch.
    Patched,
}

impl Target {
    /// `KLP_TRANSITION_{UNPATCHED,PATCHED}`.
    pub(crate) fn state(self) -> c_int {
        match self {
            // CAST: 0 and 1.
            Target::Unpatched => bindings::KLP_TRANSITION_UNPATCHED as c_int,
            Target::Patched => bindings::KLP_TRANSITION_PATCHED as c_int,
        }
    }

    pub(crate) fn reversed(self) -> Self {
        match self {
            Target::Unpatched => Target::Patched,
            Target::Patched => Target::Unpatched,
        }
    }

    /// What messages call a transition to here.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Target::Unpatched => "unpatching",
            Target::Patched => "patching",
        }
    }
}

const IDLE: c_int = bindings::KLP_TRANSITION_IDLE;

/// The right to switch tasks, which nobody else has.
///
// SAFETY: Only one core can be registered with the hooks. Tasks are switched by what is on their
// stacks, on their way out of the kernel, or by force, after which nothing is let go; and a
// transition, behind which code is let go, ends only when all are.
const SWITCHER: Switcher = unsafe { Switcher::new() };

/// Calls `f`, which may be for a task again, for all tasks, exiting and idle ones included. Who is
/// forked meanwhile is visited, or takes over what `f` has changed: see
/// [`tasklist::for_each_thread`].
fn for_each_task(mut f: impl FnMut(&Task)) {
    tasklist::for_each_thread(&mut f);
    // After that: who is not found there any more is found here. Pairs with klp_task_exit().
    for_each_exiting(&mut f);
    tasklist::for_each_idle(|_, task| f(task));
}

/// Gives all tasks the state from which a transition to `target` begins.
pub(crate) fn set_initial_states(target: Target) {
    warn_on_once!(target_state().load(Relaxed) != IDLE);
    // Without effect until TIF_PATCH_PENDING is set.
    target_state().store(target.state(), Relaxed);

    let initial = target.reversed().state();
    for_each_task(|task| {
        // A child, or one that is visited again, has it already.
        warn_on_once!(task.patch_state() != IDLE && task.patch_state() != initial);
        task.set_patch_state(SWITCHER, initial);
    });
}

/// Makes all tasks that are not in the state of `target` switch to it when they can.
///
/// The target must have been set, the handler told, and what is not to be on a stack published.
pub(crate) fn make_pending(target: Target) {
    // Order all that before TIF_PATCH_PENDING. Pairs with the atomic of klp_update_patch_state()
    // and the smp_rmb() of __klp_sched_try_switch().
    smp_mb(barrier::Write);

    let target = target.state();
    for_each_task(|task| {
        if task.patch_state() != target {
            task.set_patch_pending(SWITCHER);
        }
    });

    set_sched_try_switch(true);
}

/// Keeps all tasks from switching, once those are done that have seen the flag.
pub(crate) fn clear_pending() {
    for_each_task(|task| task.clear_patch_pending(SWITCHER));
}

/// Sets what tasks are switched to.
pub(crate) fn set_target(target: Target) {
    target_state().store(target.state(), Relaxed);
}

/// Switches all tasks that are left, whatever they are doing.
pub(crate) fn force() {
    for_each_task(|task| task.update_patch_state(SWITCHER));
}

/// Takes the states from all tasks, which have been switched.
pub(crate) fn set_idle() {
    for_each_task(|task| {
        warn_on_once!(task.patch_pending());
        task.set_patch_state(SWITCHER, IDLE);
    });
}

/// Ends what [`set_initial_states`] began.
pub(crate) fn clear_target() {
    target_state().store(IDLE, Relaxed);
}

/// Returns the function, of those that `ranges` are of, that one of the addresses is in.
fn find<T: Copy>(ranges: &[Range<T>], addresses: &[usize]) -> Option<T> {
    let mut found = addresses.iter().map(|&addr| ranges::find(ranges, addr));
    found.find_map(|range| Some(range?.tag))
}

/// What can be said of a task that is not switched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It will be, when it is tried next.
    Ready,
    /// It is running.
    Running,
    /// Its stack cannot be vouched for.
    Unreliable,
    /// A function that is to be left is on its stack.
    Function,
    /// The stacks of tasks are not checked.
    Unknown,
}

/// The length of the longest stack that is checked.
pub(crate) const MAX_STACK: usize = bindings::KLP_MAX_STACK_ENTRIES as usize;

/// Looks at `task` as [`try_switch`] does, but does not switch it. Saves in `stack` what was
/// judged, and returns how much that is. Calls `name` with the function that the task cannot leave.
///
/// Returns [`None`] if the task is switched already, or no transition runs. `name` is called with
/// interrupts off and must not sleep.
pub(crate) fn judge(
    task: &Task,
    stack: &mut [usize],
    name: &mut dyn FnMut(&CStr),
) -> Option<(Verdict, usize)> {
    let is_left = |task: &Task| {
        let target = target_state().load(Relaxed);
        target != IDLE && task.patch_state() != target
    };
    // Most are switched, and need not be kept from running.
    if !is_left(task) {
        return None;
    }
    let mut judged = None;
    task.call_pinned(|task| {
        // SAFETY: Interrupts are off, and with them preemption.
        let ranges = unsafe { StackCheck::published() };
        if let Some(ranges) = ranges.filter(|_| is_left(task)) {
            let (verdict, depth, function) = judge_pinned(task, stack, ranges);
            if let Some(function) = function {
                name(&function);
            }
            judged = Some((verdict, depth));
        }
        0
    });
    judged
}

/// Looks at `task` as [`judge`] does, as if a transition left the functions at `ranges`. Returns
/// the verdict, how much is in `stack`, and which function it is.
pub(crate) fn judge_by<T: Copy>(
    task: &Task,
    stack: &mut [usize],
    ranges: &[Range<T>],
) -> (Verdict, usize, Option<T>) {
    let mut judged = (Verdict::Unknown, 0, None);
    task.call_pinned(|task| {
        judged = judge_pinned(task, stack, ranges);
        0
    });
    judged
}

/// Looks at `task`, which is kept from running.
fn judge_pinned<T: Copy>(
    task: &Task,
    stack: &mut [usize],
    ranges: &[Range<T>],
) -> (Verdict, usize, Option<T>) {
    if !stacktrace::RELIABLE {
        return (Verdict::Unknown, 0, None);
    }
    if task.is_running() {
        return (Verdict::Running, 0, None);
    }
    let (depth, reliable) = stacktrace::save_checked(task, stack);
    if !reliable {
        return (Verdict::Unreliable, depth, None);
    }
    match find(ranges, stack.get(..depth).unwrap_or_default()) {
        None => (Verdict::Ready, depth, None),
        function => (Verdict::Function, depth, function),
    }
}

/// Returns how many tasks are not switched yet.
pub(crate) fn pending() -> usize {
    let target = target_state().load(Relaxed);
    let mut count = 0_usize;
    let mut visit = |task: &Task, counts: bool| {
        let state = task.patch_state();
        // At the end of a transition all tasks become idle.
        if counts && state != target && state != IDLE {
            count = count.saturating_add(1);
        }
    };
    tasklist::for_each_thread_rcu(|task| visit(task, !facts::is_exiting(task)));
    for_each_exiting(|task| visit(task, true));
    let cpus = CpusReadGuard::new();
    tasklist::for_each_idle(|cpu, task| visit(task, cpus.is_online(cpu)));
    count
}

/// Why a task cannot be switched.
enum Obstacle {
    Running,
    Unreliable,
    SleepsOn(Name),
    Other(Error),
}

/// Switches `task` if none of the functions to leave, which are at `left`, is on its stack. Returns
/// whether it was not switched before.
///
/// # Safety
///
/// The task must be current or be kept from running, and preemption be disabled.
unsafe fn check_and_switch(
    task: &Task,
    is_current: bool,
    target: c_int,
    left: &[Range<Name>],
) -> Result<bool, Obstacle> {
    if task.is_running() && !is_current {
        return Err(Obstacle::Running);
    }
    // SAFETY: By the caller's promise preemption is disabled, and so nobody else on this CPU is in
    // here.
    let entries = unsafe { stack_buffer() };
    let entries = stacktrace::save_reliable(task, entries).map_err(|_| Obstacle::Unreliable)?;
    if let Some(name) = find(left, entries) {
        return Err(Obstacle::SleepsOn(name));
    }
    let changes = task.patch_state() != target;
    task.clear_patch_pending(SWITCHER);
    task.set_patch_state(SWITCHER, target);
    Ok(changes)
}

/// Switches `task`, whatever it is doing, if that is safe now. Returns whether it is, or was
/// already, switched.
///
/// Interrupts are off only while the stack is checked.
#[inline]
fn try_switch(task: &Task, target: c_int, left: &[Range<Name>]) -> bool {
    task.patch_state() == target || try_switch_pinned(task, target, left)
}

fn try_switch_pinned(task: &Task, target: c_int, left: &[Range<Name>]) -> bool {
    // Tasks then switch when they leave the kernel only.
    if !stacktrace::RELIABLE {
        return false;
    }
    let is_current = core::ptr::eq(task.as_ptr(), Task::current_raw());
    let mut result = Ok(false);
    let called = task.call_pinned(|task| {
        // SAFETY: The task is kept from running, with interrupts off.
        result = unsafe { check_and_switch(task, is_current, target, left) };
        0
    });
    if let Err(err) = to_result(called) {
        result = Err(Obstacle::Other(err));
    }
    if let Ok(true) = result {
        trace::task_switch(task, target, By::Pass);
    }
    result.map_err(|obstacle| report(task, &obstacle)).is_ok()
}

/// Returns what precedes the first NUL.
// A byte at a time, unrolled: three times in place would be 600 bytes more.
#[inline(never)]
fn name(comm: &[u8]) -> &BStr {
    BStr::from_bytes(comm.split(|&byte| byte == 0).next().unwrap_or_default())
}

/// Prints that `task`, which was not switched, is one that `/proc` need not have any more.
fn report_exiting(task: &Task) {
    klp_debug!(
        c"klp_try_switch_task",
        "klp_try_switch_task: {}:{} is exiting\n",
        name(&task.comm()),
        task.pid()
    );
}

/// Says how many exiting tasks the transition of `patch` has still to switch, and names one.
pub(crate) fn name_exiting(patch: &CStr, target: Target) {
    let (mut count, mut example) = (0_usize, None);
    for_each_exiting(|task| {
        if task.patch_state() != target.state() {
            count = count.saturating_add(1);
            example = Some((task.comm(), task.pid()));
        }
    });
    if let Some((comm, pid)) = example {
        pr_notice!(
            "'{}': exiting tasks remain: {}, e.g. {}:{}\n",
            patch,
            count,
            name(&comm),
            pid
        );
    }
}

/// Prints why `task` was not switched.
fn report(task: &Task, obstacle: &Obstacle) {
    match obstacle {
        Obstacle::Running => trace::task_blocked(task, Reason::Running, c""),
        Obstacle::Unreliable => trace::task_blocked(task, Reason::Unreliable, c""),
        Obstacle::SleepsOn(name) => trace::task_blocked(task, Reason::Function, name),
        Obstacle::Other(_) => trace::task_blocked(task, Reason::Other, c""),
    }
    let comm = task.comm();
    let (comm, pid) = (name(&comm), task.pid());
    match obstacle {
        Obstacle::Running => klp_debug!(
            c"klp_try_switch_task",
            "klp_try_switch_task: {}:{} is running\n",
            comm,
            pid
        ),
        Obstacle::Unreliable => klp_debug!(
            c"klp_try_switch_task",
            "klp_try_switch_task: {}:{} has an unreliable stack\n",
            comm,
            pid
        ),
        Obstacle::SleepsOn(name) => klp_debug!(
            c"klp_try_switch_task",
            "klp_try_switch_task: {}:{} is sleeping on function {}\n",
            comm,
            pid,
            &**name
        ),
        Obstacle::Other(err) => klp_debug!(
            c"klp_try_switch_task",
            "klp_try_switch_task: Unknown error code ({}) when trying to switch {}:{}\n",
            err.to_errno(),
            comm,
            pid
        ),
    }
}

/// Switches the current task if that is safe now.
///
/// Called by `__klp_sched_try_switch()`, which has seen TIF_PATCH_PENDING and ordered that before
/// our reads.
///
/// # Safety
///
/// Preemption must be disabled: reverse() and the end of the transition wait for us.
pub(crate) unsafe fn try_switch_current() {
    // SAFETY: Preemption is disabled by the caller's promise.
    let Some(left) = (unsafe { StackCheck::published() }) else {
        return;
    };
    let (task, target) = (kernel::current!(), target_state().load(Relaxed));
    if !stacktrace::RELIABLE || task.patch_state() == target {
        return;
    }
    // SAFETY: The task is current; preemption is disabled by the caller's promise.
    match unsafe { check_and_switch(task, true, target, left) } {
        // As compared above: nobody else switches a task that runs.
        Ok(_) => trace::task_switch(task, target, By::Sched),
        Err(obstacle) => report(task, &obstacle),
    }
}

/// Tries to switch all tasks. Returns whether all are, but for such that are exiting and on no list
/// of tasks any more.
pub(crate) fn switch_listed(_locked: &KlpLocked, target: Target) -> bool {
    let target = target.state();
    // SAFETY: The mutex is held, and nothing is withdrawn here.
    let Some(left) = (unsafe { StackCheck::published() }) else {
        warn_on_once!(true);
        return false;
    };
    let mut complete = true;
    tasklist::for_each_thread_rcu(|task| complete &= try_switch(task, target, left));

    let cpus = CpusReadGuard::new();
    tasklist::for_each_idle(|cpu, task| {
        if cpus.is_online(cpu) {
            if !try_switch(task, target, left) {
                complete = false;
                // Make it pass through the idle loop.
                tasklist::wake_if_idle(cpu, &cpus);
            }
        } else if task.patch_state() != target {
            // The idle task of an offline CPU runs nothing.
            task.clear_patch_pending(SWITCHER);
            task.set_patch_state(SWITCHER, target);
            trace::task_switch(task, target, By::Pass);
        }
    });
    drop(cpus);

    // The walk can miss a thread that was forked, or whose process was replaced by exec, behind it.
    // Threads forked from now on inherit the target from their parents.
    complete
        && tasklist::all_threads(|task| {
            let switched = task.patch_state() == target;
            // `make_pending()` may set the flag of a task that has just switched. While the target
            // stays the same that flag is harmless; clear it before the target changes.
            if switched && task.patch_pending() {
                task.clear_patch_pending(SWITCHER);
            }
            switched
        })
}

/// How many stacks of exiting tasks are checked before others may run.
const EXITING_CHUNK: u32 = 64;

/// Which exiting tasks have not been switched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exiting {
    None,
    /// Some that cannot be switched now.
    Left,
    /// Also some that were not looked at, as there were so many.
    More,
}

/// Tries to switch the tasks that are exiting.
///
/// Must be called after [`switch_listed`] was successful: tasks that begin to exit later are
/// switched.
pub(crate) fn switch_exiting(_locked: &KlpLocked, target: Target) -> Exiting {
    let target = target.state();
    // SAFETY: The mutex is held, and nothing is withdrawn here.
    let Some(ranges) = (unsafe { StackCheck::published() }) else {
        warn_on_once!(true);
        return Exiting::Left;
    };
    let (mut result, mut progress) = (Exiting::None, false);
    let mut room = EXITING_CHUNK;
    for_each_exiting(|task| {
        if task.patch_state() == target {
            // As in switch_listed().
            if task.patch_pending() {
                task.clear_patch_pending(SWITCHER);
            }
        } else if room == 0 {
            result = match progress {
                true => Exiting::More,
                false => Exiting::Left,
            };
        } else {
            room = room.saturating_sub(1);
            if try_switch(task, target, ranges) {
                progress = true;
            } else {
                report_exiting(task);
                result = Exiting::Left;
            }
        }
    });
    result
}

/// Makes the remaining tasks move: kernel threads are woken, others pass through the kernel exit.
///
/// A task may switch meanwhile, which makes the poke useless but does no harm.
pub(crate) fn send_signals(target: Target) {
    let target = target.state();
    // Who is missed is poked the next time.
    tasklist::for_each_thread_rcu(|task| {
        // A task that is switched can have the flag, see switch_listed().
        if !task.patch_pending() || task.patch_state() == target {
            return;
        }
        if task.is_kthread() {
            task.wake_interruptible();
        } else if !is_isolated(task) {
            task.notify_signal();
        }
    });
}

/// Whether `task` runs on a CPU that is to be left alone: who is in user mode there, or runs a
/// guest, is not interrupted. Nor is it told without an interrupt: whoever would tell it something
/// else then found TIF_NOTIFY_SIGNAL set, and would rely on the interrupt that there was none of.
fn is_isolated(task: &Task) -> bool {
    facts::is_nohz_full(facts::cpu(task)) && task.is_running()
}

/// Makes the remaining user tasks that are not asleep leave the kernel, as [`send_signals`] does
/// later: one that runs a virtual CPU stays in the kernel until there is a reason, however long.
pub(crate) fn poke_running(target: Target) {
    let target = target.state();
    tasklist::for_each_thread_rcu(|task| {
        if task.patch_state() != target
            && task.patch_pending()
            && !task.is_kthread()
            && facts::state(task) == b'R'
            && !is_isolated(task)
        {
            task.notify_signal();
        }
    });
}
