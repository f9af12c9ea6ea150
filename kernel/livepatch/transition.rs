// SPDX-License-Identifier: GPL-2.0-or-later

//! The transition: moves every task, one by one and each at a safe moment, to or from a livepatch.
//!
//! A task is switched when it leaves the kernel (`klp_update_patch_state()`), when it is found
//! asleep with no changed function on its stack (the pass of [`try_complete`]), or, as a kernel
//! thread that hardly ever sleeps, in the scheduler ([`try_switch_current`]). Until all are, the
//! ftrace handler asks the state of the task.
//!
//! Answers to `transition.c`.
//!
//! # Ordering
//!
//! [`init()`] writes the states of all tasks and the target state. Then the handler is told, for
//! each function, what the task's state is to choose from and, behind a write barrier, that it
//! does ([`stack`]). [`start`] publishes the ranges and, behind another one, sets
//! `TIF_PATCH_PENDING`. Readers go the other way: the handler reads whether it is to choose, then
//! the choices and its task's state; switching a task reads the flag, then the target state and
//! the ranges.
//!
//! A walk over all threads, under `tasklist_lock`, is followed by one over those that are exiting:
//! `klp_task_exit()` comes before the lock under which a task is unhashed. That a task is gone is
//! ordered by [`synchronize`] before what [`complete`] takes away: its last CPU has been through
//! it.
//!
//! `scripts/host-tests` has a model of this, which fails without any one barrier.

use crate::{
    control as klp,
    descriptor::Name,
    hooks::{
        set_sched_try_switch,
        stack_buffer,
        target_state, //
    },
    lock::{
        Locked,
        Shared, //
    },
    patch::{
        Object,
        Patch, //
    },
    ranges::{
        self,
        Range, //
    },
    stack::{
        self,
        synchronize, //
    },
    state,
};
use core::{
    cell::UnsafeCell,
    ptr::null_mut, //
};
use kernel::{
    alloc::kvec::PushError,
    bindings,
    deferred::{
        self,
        round_relative,
        Delayed, //
    },
    error::to_result,
    ffi::c_int,
    ftrace,
    livepatch::{
        for_each_exiting,
        Switcher,
        TaskExt, //
    },
    prelude::*,
    stacktrace,
    static_lock_class,
    str::BStr,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Relaxed,
                Release, //
            },
            Atomic, //
        },
        barrier::{
            self,
            smp_mb, //
        },
        Arc, //
    },
    task::Task,
    tasklist::{
        self,
        CpusReadGuard, //
    },
    time::msecs_to_jiffies,
    warn_on_once, //
};

/// The directory that dynamic debug knows the messages by.
macro_rules! klp_debug {
    ($func:literal, $($args:tt)*) => {
        kernel::pr_dynamic_debug!(dir: "kernel/livepatch/", func: $func, $($args)*)
    };
}

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
    fn state(self) -> c_int {
        match self {
            // CAST: 0 and 1.
            Target::Unpatched => bindings::KLP_TRANSITION_UNPATCHED as c_int,
            Target::Patched => bindings::KLP_TRANSITION_PATCHED as c_int,
        }
    }

    fn reversed(self) -> Self {
        match self {
            Target::Unpatched => Target::Patched,
            Target::Patched => Target::Unpatched,
        }
    }

    /// What messages call a transition to here.
    fn label(self) -> &'static str {
        match self {
            Target::Unpatched => "unpatching",
            Target::Patched => "patching",
        }
    }
}

/// The running transition.
struct Transition {
    patch: Arc<Patch>,
    target: Target,
    /// Where it went at first.
    began_with: Target,
    /// The patches that go away when `patch` is in effect.
    replaced: KVec<Arc<Patch>>,
    /// The wait before the next try, in milliseconds.
    delay_ms: u32,
    /// Tries so far, but for the quick first ones.
    tries: u32,
    /// Whether all tasks have been switched but for such that are exiting.
    only_exiting: bool,
}

static CURRENT: Shared<Option<Transition>> = Shared::new(None);

/// Identifies the patch in transition to those without the mutex; 0 for none.
static CURRENT_ID: Atomic<usize> = Atomic::new(0);

/// What is not to be on the stack of a task that is switched, or NULL.
static STACK_CHECK: Atomic<*mut StackCheck> = Atomic::new(null_mut());

/// Tries that wait less than a second, doubling from this, do not count.
const FIRST_DELAY_MS: u32 = 1;
const DELAY_MS: u32 = 1000;
/// After how many tries, about as many seconds, the remaining tasks are poked; and then again.
const SIGNALS_TIMEOUT: u32 = 15;

const IDLE: c_int = bindings::KLP_TRANSITION_IDLE;

/// The right to switch tasks, which nobody else has.
///
// SAFETY: Only one core can be registered with the hooks. Tasks are switched by what is on their
// stacks, on their way out of the kernel, or by force, after which nothing is let go; and a
// transition, behind which code is let go, ends only when all are.
const SWITCHER: Switcher = unsafe { Switcher::new() };

/// Returns the id of the patch in transition, or 0.
pub(crate) fn current_id() -> usize {
    CURRENT_ID.load(Relaxed)
}

/// Returns whether a transition is running.
pub(crate) fn is_running(locked: &Locked) -> bool {
    CURRENT.borrow(locked).is_some()
}

/// Returns whether `patch` is in transition.
pub(crate) fn is_current(locked: &Locked, patch: &Patch) -> bool {
    current(locked).is_some_and(|current| core::ptr::eq(Arc::as_ptr(&current.patch), patch))
}

fn current(locked: &Locked) -> Option<&Transition> {
    CURRENT.borrow(locked).as_ref()
}

/// Returns the running transition to change it, where there must be one.
fn running(locked: &mut Locked) -> Option<&mut Transition> {
    let current = CURRENT.borrow_mut(locked).as_mut();
    warn_on_once!(current.is_none());
    current
}

/// Returns the patches that go away when the one in transition is in effect.
pub(crate) fn replaced(locked: &Locked) -> &[Arc<Patch>] {
    current(locked).map_or(&[], |current| &current.replaced)
}

/// The functions that must not be on the stack of a task when it is switched.
///
/// Each livepatch has one, which is made with it and has room for all its functions. So listing
/// them cannot fail: not when the livepatch is disabled, nor when its transition is turned round,
/// nor when a module goes meanwhile.
///
/// # Invariants
///
/// The ranges change under the mutex only, and only while [`STACK_CHECK`] does not point here and,
/// since it last did, [`synchronize`] has waited for those who have followed it.
pub(crate) struct StackCheck(UnsafeCell<KVVec<Range<Name>>>);

// SAFETY: By the type invariant nobody reads the ranges while they change.
unsafe impl Sync for StackCheck {}

impl StackCheck {
    /// What [`Self::fill`] lists of a function: its code, and where it returns to from ftrace.
    const RANGES_PER_FUNC: usize = 2;

    /// Makes an empty check with room for all functions of `objects`.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new(objects: &[Object]) -> Result<Self> {
        let mut funcs = objects.iter().map(|object| object.funcs.len());
        let room = funcs
            .try_fold(0, usize::checked_add)
            .and_then(|sum| sum.checked_mul(Self::RANGES_PER_FUNC));
        let ranges = KVVec::with_capacity(room.ok_or(ENOMEM)?, GFP_KERNEL)?;
        // INVARIANT: Nothing has ever pointed here.
        Ok(Self(UnsafeCell::new(ranges)))
    }

    /// Lists in `ranges` the functions of all patched objects of `patch` that a switch to `target`
    /// leaves.
    fn fill(
        locked: &Locked,
        patch: &Patch,
        target: Target,
        ranges: &mut KVVec<Range<Name>>,
    ) -> Result<(), PushError<Range<Name>>> {
        ranges.clear();
        let objects = patch.objects.borrow(locked).iter();
        for object in objects.filter(|object| object.patched.get(locked)) {
            let funcs = object.funcs.iter().filter(|func| !func.is_covered(locked));
            for func in funcs {
                let left = match target {
                    Target::Unpatched => func.version.code(locked),
                    Target::Patched => match func.version.previous(locked) {
                        Some(previous) => previous.code(locked),
                        None => func.old.get(locked),
                    },
                };
                let Some(left) = left else { continue };
                let range = Range {
                    start: left.start,
                    end: left.start.saturating_add(left.size),
                    tag: func.name,
                };
                // A task with this on its stack is in ftrace's trampoline, and may have been told
                // already where to go on.
                let return_address = func.ip.get(locked).wrapping_add(ftrace::MCOUNT_INSN_SIZE);
                let trampoline = Range {
                    start: return_address,
                    end: return_address.saturating_add(1),
                    tag: func.name,
                };
                ranges.push_within_capacity(range)?;
                ranges.push_within_capacity(trampoline)?;
            }
        }
        let count = ranges::normalise(ranges);
        ranges.truncate(count);
        Ok(())
    }

    /// Publishes what a switch of tasks to `target` by the transition of `patch` leaves.
    fn publish(locked: &Locked, patch: &Patch, target: Target) {
        if warn_on_once!(!STACK_CHECK.load(Relaxed).is_null()) {
            Self::withdraw();
        }
        // SAFETY: The mutex is held. Nothing is published, and `withdraw()` has waited.
        let ranges = unsafe { &mut *patch.check.0.get() };
        if let Err(PushError(range)) = Self::fill(locked, patch, target, ranges) {
            // A livepatch is not to get more functions. No stack is free of this:
            warn_on_once!(true);
            ranges.clear();
            let all = Range {
                start: 0,
                end: usize::MAX,
                ..range
            };
            let _ = ranges.push_within_capacity(all);
        }
        // Order the ranges before their address. Pairs with the acquire in `published()`.
        STACK_CHECK.store((&raw const patch.check).cast_mut(), Release);
    }

    /// Takes back what is published, if anything is, and waits until nobody uses it. Waits as
    /// [`synchronize`] does in any case.
    fn withdraw() {
        STACK_CHECK.store(null_mut(), Relaxed);
        synchronize();
    }

    /// Returns what is published.
    ///
    /// # Safety
    ///
    /// For as long as the result is used, preemption must be disabled, or the mutex be held and
    /// nothing be withdrawn.
    unsafe fn published<'a>() -> Option<&'a [Range<Name>]> {
        // Pairs with the release in `publish()`.
        let check = STACK_CHECK.load(Acquire);
        // SAFETY: The livepatch whose check is published is held by its transition, which ends
        // after `withdraw()`. That waits for sections with preemption disabled, by which the ranges
        // do not change either; what changes them has the mutex.
        unsafe { check.as_ref().map(|check| &**check.0.get()) }
    }
}

/// Returns the function, of those that `ranges` are of, that one of the addresses is in.
fn find(ranges: &[Range<Name>], addresses: &[usize]) -> Option<Name> {
    let mut found = addresses.iter().map(|&addr| ranges::find(ranges, addr));
    found.find_map(|range| Some(range?.tag))
}

/// Calls `f`, which may be for a task again, for all tasks, exiting and idle ones included. Who is
/// forked meanwhile is visited, or takes over what `f` has changed: see
/// [`tasklist::for_each_thread`].
fn for_each_task(mut f: impl FnMut(&Task)) {
    tasklist::for_each_thread(&mut f);
    // After that: who is not found there any more is found here. Pairs with klp_task_exit().
    for_each_exiting(&mut f);
    tasklist::for_each_idle(|_, task| f(task));
}

/// Begins a transition of `patch` to `target`: gives all tasks their initial state and makes the
/// functions depend on it, but switches nobody yet.
pub(crate) fn init(
    locked: &mut Locked,
    patch: &Arc<Patch>,
    target: Target,
    replaced: KVec<Arc<Patch>>,
) {
    warn_on_once!(target_state().load(Relaxed) != IDLE);

    *CURRENT.borrow_mut(locked) = Some(Transition {
        patch: patch.clone(),
        target,
        began_with: target,
        replaced,
        delay_ms: FIRST_DELAY_MS,
        tries: 0,
        only_exiting: false,
    });
    CURRENT_ID.store(patch.raw.id(), Relaxed);
    // Without effect until TIF_PATCH_PENDING is set.
    target_state().store(target.state(), Relaxed);

    klp_debug!(
        c"klp_init_transition",
        "'{}': initializing {} transition\n",
        &*patch.name,
        target.label()
    );

    let initial = target.reversed().state();
    for_each_task(|task| {
        // A child, or one that is visited again, has it already.
        warn_on_once!(task.patch_state() != IDLE && task.patch_state() != initial);
        task.set_patch_state(SWITCHER, initial);
    });

    // What this and patching tell the handler is ordered behind the states there, and before
    // TIF_PATCH_PENDING by the barrier in `start()`.
    stack::set_transition(locked, patch, true);
}

/// Starts switching tasks.
pub(crate) fn start(locked: &mut Locked) {
    let Some(current) = running(locked) else {
        return;
    };
    current.delay_ms = FIRST_DELAY_MS;
    current.tries = 0;
    current.only_exiting = false;
    pr_notice!(
        "'{}': starting {} transition\n",
        &*current.patch.name,
        current.target.label()
    );

    // From here on TIF_PATCH_PENDING is what lets others look.
    let (patch, target) = (current.patch.clone(), current.target);
    StackCheck::publish(locked, &patch, target);

    // Order the target, what the handler was told and the check before TIF_PATCH_PENDING. Pairs
    // with the atomic of klp_update_patch_state() and the smp_rmb() of __klp_sched_try_switch().
    smp_mb(barrier::Write);

    let target = target.state();
    for_each_task(|task| {
        if task.patch_state() != target {
            task.set_patch_pending(SWITCHER);
        }
    });

    set_sched_try_switch(true);
}

/// Why a task cannot be switched.
enum Obstacle {
    Running,
    Unreliable,
    SleepsOn(Name),
    Other(Error),
}

/// Switches `task` if none of the functions to leave, which are at `left`, is on its stack.
///
/// # Safety
///
/// The task must be current or be kept from running, and preemption be disabled.
unsafe fn check_and_switch(
    task: &Task,
    is_current: bool,
    target: c_int,
    left: &[Range<Name>],
) -> Result<(), Obstacle> {
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
    task.clear_patch_pending(SWITCHER);
    task.set_patch_state(SWITCHER, target);
    Ok(())
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
    let mut result = Ok(());
    let called = task.call_pinned(|task| {
        // SAFETY: The task is kept from running, with interrupts off.
        result = unsafe { check_and_switch(task, is_current, target, left) };
        0
    });
    if let Err(err) = to_result(called) {
        result = Err(Obstacle::Other(err));
    }
    result.map_err(|obstacle| report(task, &obstacle)).is_ok()
}

/// Returns what precedes the first NUL.
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

/// Says how many exiting tasks are to be switched, and names one.
fn name_exiting(current: &Transition) {
    let (mut count, mut example) = (0_usize, None);
    for_each_exiting(|task| {
        if task.patch_state() != current.target.state() {
            count = count.saturating_add(1);
            example = Some((task.comm(), task.pid()));
        }
    });
    if let Some((comm, pid)) = example {
        pr_notice!(
            "'{}': exiting tasks remain: {}, e.g. {}:{}\n",
            &*current.patch.name,
            count,
            name(&comm),
            pid
        );
    }
}

/// Prints why `task` was not switched.
fn report(task: &Task, obstacle: &Obstacle) {
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
    if let Err(obstacle) = unsafe { check_and_switch(task, true, target, left) } {
        report(task, &obstacle);
    }
}

/// Tries to switch all tasks that are left. Ends the transition if none remains, else asks to be
/// called again later.
pub(crate) fn try_complete(locked: &mut Locked) {
    let Some(current) = CURRENT.borrow_mut(locked) else {
        return;
    };
    let (patch, target) = (current.patch.clone(), current.target);
    let was_listed = !current.only_exiting;
    // Once all others are switched, nobody else has to be.
    let only_exiting = !was_listed || switch_tasks(locked, target.state());
    let exiting = match only_exiting {
        true => switch_exiting(locked, target.state()),
        false => Exiting::Left,
    };
    if let Some(current) = running(locked) {
        current.only_exiting = only_exiting;
        // Those who exit are named when they have taken too long, whatever the others took.
        if only_exiting && was_listed {
            current.tries = 0;
        }
        // Most who exit are gone in no time.
        if only_exiting && (was_listed || exiting == Exiting::More) {
            current.delay_ms = FIRST_DELAY_MS;
        }
    }
    if exiting != Exiting::None {
        retry_later(locked);
        return;
    }

    set_sched_try_switch(false);
    let replaced = complete(locked);
    if !patch.is_enabled(locked) {
        klp::free_async(locked, &patch);
    } else {
        for old in &replaced {
            klp::free_async(locked, old);
        }
    }
}

/// Tries to switch all tasks. Returns whether all are, but for such that are exiting and on no list
/// of tasks any more.
fn switch_tasks(_locked: &Locked, target: c_int) -> bool {
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
        }
    });
    drop(cpus);

    // The walk can miss a thread that was forked, or whose process was replaced by exec, behind it.
    // Threads forked from now on inherit the target from their parents.
    complete
        && tasklist::all_threads(|task| {
            let switched = task.patch_state() == target;
            // A task that start() had visited before, or a child of one, may have switched right
            // before start() set its flag. Until now it could only be switched to what it is, but
            // it must not have the flag when the target changes.
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
enum Exiting {
    None,
    /// Some that cannot be switched now.
    Left,
    /// Also some that were not looked at, as there were so many.
    More,
}

/// Tries to switch the tasks that are exiting.
///
/// Must be called after [`switch_tasks`] was successful: tasks that begin to exit later are
/// switched.
fn switch_exiting(_locked: &Locked, target: c_int) -> Exiting {
    // SAFETY: The mutex is held, and nothing is withdrawn here.
    let Some(ranges) = (unsafe { StackCheck::published() }) else {
        warn_on_once!(true);
        return Exiting::Left;
    };
    let (mut result, mut progress) = (Exiting::None, false);
    let mut room = EXITING_CHUNK;
    for_each_exiting(|task| {
        if task.patch_state() == target {
            // As in switch_tasks().
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

/// The work that tries again.
struct Retry;

impl deferred::Run for Retry {
    fn run() {
        let mut locked = crate::lock::lock();
        try_complete(&mut locked);
        klp::resume(&mut locked);
    }
}

static RETRY: Shared<Option<Pin<KBox<Delayed<Retry>>>>> = Shared::new(None);

/// Sets up the retry work.
pub(crate) fn init_work() -> Result {
    let work = KBox::pin_init(
        Delayed::new(
            c"livepatch::retry",
            static_lock_class!(),
            static_lock_class!(),
        ),
        GFP_KERNEL,
    )?;
    *RETRY.borrow_mut(&mut crate::lock::lock()) = Some(work);
    Ok(())
}

/// Undoes [`init_work`].
pub(crate) fn exit_work() {
    // The work takes the mutex: wait for it without.
    let work = RETRY.borrow_mut(&mut crate::lock::lock()).take();
    drop(work);
}

fn retry_later(locked: &mut Locked) {
    let Some(current) = running(locked) else {
        return;
    };
    let delay = if current.delay_ms < DELAY_MS {
        let delay = msecs_to_jiffies(current.delay_ms);
        current.delay_ms = current.delay_ms.saturating_mul(2);
        delay
    } else {
        if current.tries != 0 && current.tries.checked_rem(SIGNALS_TIMEOUT) == Some(0) {
            if !current.only_exiting {
                send_signals(current.tries, current.target.state());
            } else if current.tries == SIGNALS_TIMEOUT {
                // There is nobody whom a signal would reach.
                name_exiting(current);
            }
        }
        current.tries = current.tries.saturating_add(1);
        round_relative(msecs_to_jiffies(DELAY_MS))
    };
    if let Some(retry) = RETRY.borrow(locked) {
        retry.schedule(deferred::system_percpu(), delay);
    }
}

/// Makes the remaining tasks move: kernel threads are woken, others pass through the kernel exit.
///
/// A task may switch meanwhile, which makes the poke useless but does no harm.
fn send_signals(tries: u32, target: c_int) {
    if tries == SIGNALS_TIMEOUT {
        pr_notice!("signaling remaining tasks\n");
    }
    // Who is missed is poked the next time.
    tasklist::for_each_thread_rcu(|task| {
        // A task that is switched can have the flag, see switch_tasks().
        if !task.patch_pending() || task.patch_state() == target {
            return;
        }
        if task.is_kthread() {
            task.wake_interruptible();
        } else {
            task.notify_signal();
        }
    });
}

/// Ends a transition in which all tasks have been switched. Returns the patches that were replaced.
fn complete(locked: &mut Locked) -> KVec<Arc<Patch>> {
    let Some(Transition {
        patch,
        target,
        began_with,
        replaced,
        ..
    }) = running(locked).map(|current| Transition {
        patch: current.patch.clone(),
        replaced: core::mem::take(&mut current.replaced),
        ..*current
    })
    else {
        return KVec::new();
    };

    klp_debug!(
        c"klp_complete_transition",
        "'{}': completing {} transition\n",
        &*patch.name,
        target.label()
    );

    let patching = target == Target::Patched;
    if patching {
        // All tasks run the functions of the patch: the handler need not ask any more.
        stack::set_transition(locked, &patch, false);
        // No task runs anything of them: what they changed is now changed by the patch, or run in
        // the original by its nops. After a forced transition some may, but then nothing of the
        // old patches is let go.
        for old in &replaced {
            old.set_enabled(locked, false);
            unpatch_objects(locked, old, false);
        }
        // Only after that: the nops cover what is below them.
        unpatch_objects(locked, &patch, true);
    } else {
        unpatch_objects(locked, &patch, false);
        stack::set_transition(locked, &patch, false);
    }
    stack::unhook_unused(locked);

    // Waits: the handler must see that it need not ask before it could see KLP_TRANSITION_IDLE,
    // and be done with the functions that are gone.
    StackCheck::withdraw();
    patch.drop_nops(locked);

    for_each_task(|task| {
        warn_on_once!(task.patch_pending());
        task.set_patch_state(SWITCHER, IDLE);
    });

    // What was begun first ends last, but for states that go with replaced patches: the functions
    // of the patch must not meet them.
    if patching {
        match began_with {
            Target::Patched => state::finish_enable(locked, &patch, &replaced),
            Target::Unpatched => state::abort_disable(locked, &patch),
        }
        for object in loaded_objects(locked, &patch) {
            object.post_patch(locked);
        }
    } else {
        for object in loaded_objects(locked, &patch) {
            object.post_unpatch(locked);
            state::end_object(locked, &patch, object);
        }
        match began_with {
            Target::Patched => state::abort_enable(locked, &patch, &replaced),
            Target::Unpatched => state::finish_disable(locked, &patch),
        }
    }

    pr_notice!("'{}': {} complete\n", &*patch.name, target.label());

    target_state().store(IDLE, Relaxed);
    CURRENT_ID.store(0, Relaxed);
    *CURRENT.borrow_mut(locked) = None;
    replaced
}

fn loaded_objects<'a>(locked: &'a Locked, patch: &'a Patch) -> impl Iterator<Item = &'a Object> {
    let objects = patch.objects.borrow(locked).iter();
    objects.filter(|object| object.is_loaded(locked))
}

fn unpatch_objects(locked: &Locked, patch: &Patch, nops_only: bool) {
    let objects = patch.objects.borrow(locked).iter();
    for object in objects.filter(|object| object.patched.get(locked)) {
        stack::unpatch_object(locked, object, nops_only);
    }
}

/// Ends a transition to a patch for which [`start`] was not called yet.
pub(crate) fn cancel(locked: &mut Locked) {
    let Some(current) = running(locked) else {
        return;
    };
    klp_debug!(
        c"klp_cancel_transition",
        "'{}': canceling patching transition, going to unpatch\n",
        &*current.patch.name
    );
    current.target = Target::Unpatched;
    target_state().store(current.target.state(), Relaxed);
    complete(locked);
}

/// Turns the running transition round.
pub(crate) fn reverse(locked: &mut Locked) {
    let Some(current) = running(locked) else {
        return;
    };
    let (patch, target) = (current.patch.clone(), current.target.reversed());

    klp_debug!(
        c"klp_reverse_transition",
        "'{}': reversing transition from {}\n",
        &*patch.name,
        match target {
            Target::Unpatched => "patching to unpatching",
            Target::Patched => "unpatching to patching",
        }
    );

    // Nobody switches from here on, once those are done that have seen the flag.
    for_each_task(|task| task.clear_patch_pending(SWITCHER));
    StackCheck::withdraw();

    let enabled = !patch.is_enabled(locked);
    patch.set_enabled(locked, enabled);
    if let Some(current) = running(locked) {
        current.target = target;
    }
    target_state().store(target.state(), Relaxed);
    start(locked);
    retry_now(locked);
}

/// Lets the next try follow soon, in place of one that may be a second away.
fn retry_now(locked: &Locked) {
    if let Some(retry) = RETRY.borrow(locked) {
        retry.reschedule(deferred::system_percpu(), msecs_to_jiffies(FIRST_DELAY_MS));
    }
}

/// Switches all tasks that are left, whatever they are doing.
///
/// That may break them, as the administrator who asked for it knows. The patches that lose their
/// functions keep their modules.
pub(crate) fn force(locked: &mut Locked) {
    let Some(current) = current(locked) else {
        warn_on_once!(true);
        return;
    };
    pr_warn!("forcing remaining tasks to the patched state\n");
    if current.only_exiting {
        name_exiting(current);
    }
    for_each_task(|task| task.update_patch_state(SWITCHER));
    match current.target {
        Target::Unpatched => current.patch.set_forced(locked),
        Target::Patched => {
            for old in &current.replaced {
                old.set_forced(locked);
            }
        }
    }
    retry_now(locked);
}

/// Brings the running transition in line with an object that was patched, or is not any more.
pub(crate) fn update(locked: &Locked) {
    let Some(current) = current(locked) else {
        warn_on_once!(true);
        return;
    };
    // In between the scheduler switches nobody.
    StackCheck::withdraw();
    StackCheck::publish(locked, &current.patch, current.target);
}
