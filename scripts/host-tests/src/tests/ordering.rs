// SPDX-License-Identifier: GPL-2.0-or-later

//! A model of the ftrace handler, the transition and the switching of tasks on weakly ordered
//! machines.
//!
//! [loom](https://docs.rs/loom) runs each of [`SCENARIOS`] in all interleavings with up to
//! [`PREEMPTIONS`] preemptions, and lets each load return all that C11 allows. One thread is the
//! core, which holds `klp_mutex`. The other is a task on its CPU. One CPU is enough: the core never
//! passes on to one CPU what it has read from another.
//!
//! [`Barrier`]s order the protocol. `Documentation/livepatch/rust-core.rst` has a table of them.
//! With all of them nothing bad happens. For each there is a test that shows what happens without
//! it: none is superfluous.
//!
//! These are bad:
//!
//! - The handler finds no entry together with `KLP_TRANSITION_IDLE`, or without choices.
//! - A task runs another function than that of the side to which it was last switched.
//! - A task runs a function whose module was let go.
//! - The scheduler's hook uses ranges that are not there yet, or change.
//! - A task is switched to `KLP_TRANSITION_IDLE`.
//! - A task is switched to another target than it was flagged for, which loses the flag.
//! - When the transition ends, a task is not on its side, or has the flag.
//! - After that, a task is not in `KLP_TRANSITION_IDLE`.
//!
//! # The kernel's code and the model's
//!
//! | kernel | model |
//! |---|---|
//! | `READ_ONCE()`, `WRITE_ONCE()`, plain accesses that are single ones, `Relaxed` | `Relaxed` |
//! | `smp_wmb()`, `barrier::Write` | `fence(Release)`, which orders earlier loads, too |
//! | `smp_rmb()` | `fence(Acquire)`, which orders later stores, too |
//! | `Release`, `Acquire` | the same |
//! | `xchg(Release)` | `swap(Release)` |
//! | `test_and_clear_bit()` | `swap(Acquire)` |
//! | `set_bit()`, `clear_bit()` | `swap(Relaxed)`: atomic, but no barrier |
//! | `tasklist_lock`; `pi_lock` and the run queue's in `task_call_func()` | a mutex |
//! | the list of exiting tasks, read under RCU | a flag per task: `Release`, read `Relaxed` |
//! | section with preemption disabled | [`Shared::preempt`], held |
//! | `synchronize()`, `schedule_on_each_cpu()` | [`Shared::preempt`], taken once |
//!
//! Nothing depends on where the fences are stronger than the kernel's barriers:
//!
//! - All accesses that follow `smp_rmb()` in the handler are loads.
//! - The stores of `start()` are behind a branch on the state that it has loaded.
//! - All accesses before an `smp_wmb()` that matter are stores.
//!
//! Full barriers are modelled as less than they are: nothing here needs a store before a later
//! load.
//!
//! The mutexes are no stronger than what they stand for. `schedule_on_each_cpu()` runs a worker on
//! the CPU, between two sections. All of the earlier section comes before its return, and all that
//! preceded the call comes before the later section. The mutex [`Shared::preempt`] gives just that,
//! and the core holds it for nothing else.
//!
//! No barrier separates the choices from an entry that is an address: the handler does not read the
//! choices any more, and the next transition writes both before it takes the entry away.
//!
//! `__klp_sched_try_switch()` has an `smp_rmb()` behind the flag, as in the C core. The model
//! leaves it out, as nothing depends on it here: [`Publish`] and [`CheckAcquire`] order all that
//! the hook reads, and a reversal takes the ranges away and waits before it publishes them again.
//!
//! # Tasks that exit
//!
//! [`Unhash`] takes a task off the list of tasks in the middle of its exit. The task goes on, runs
//! functions, sleeps, and dies in the end. Only `tasklist_lock` orders its way from one list to the
//! other: whoever does not find it on the first list has taken that lock after the task was put on
//! the second. That a task is found on neither list orders nothing. `synchronize()` orders that, as
//! all that a CPU has done.
//!
//! # Functions that go away
//!
//! The handler keeps nothing but the address that it has chosen. The code at that address stays
//! because the task runs: the task cannot be switched away from the function, neither by itself
//! before the function has returned nor by others ([`TaskPinned`]), and the transition does not
//! end. That needs the handler's section, too: a task that is preempted with an address in its
//! registers does not run, and the function is not on its stack yet.
//!
//! The model lets a task be preempted in the handler where the handler allows it, but not from
//! there to the first instruction of the function. The kernel can preempt it there, with this core
//! as with the one in C: in `preempt_enable()` at the end of the handler, and by an interrupt in
//! the rest of the trampoline.
//!
//! # Not modelled
//!
//! - The way to the slot, which never changes.
//! - The registration with ftrace, which has its own synchronisation. The func stack has a func
//!   version already, so that the core pushes and removes under a live handler, with nothing of
//!   ftrace in between.
//! - Stacks: a task sleeps outside of the patched function only.
//! - The static key of the scheduler's hook, which is taken for on.
//! - CPU hotplug.
//! - Modules that come and go, whose functions nobody calls while their func stacks change.
//!
//! `force()` gives up consistency and keeps all functions. There, only the rest is checked.
//!
//! # Limits
//!
//! In loom a load cannot return what is stored later. In C11 and in the kernel's model it can
//! ("load buffering"). So loom cannot show a need to order a load before a later store. There are
//! three such pairs:
//!
//! - the run of a function, and the store of the state behind it, with the full barrier of
//!   `test_and_clear_bit()` in between;
//! - the handler's loads, and the unlock of its section;
//! - the core's load of a task's state, and its stores when the transition ends, which are behind a
//!   branch on it.
//!
//! The locks of the model order the second pair, and `synchronize()` orders all three: `complete()`
//! waits for the CPU after it has seen the state, so that all that the CPU has done until then,
//! loads included, comes before.
//!
//! Three preemptions are a bound, not a proof. `LOOM_MAX_PREEMPTIONS` sets another one. Five take
//! about two minutes.

use loom::{
    model::Builder,
    sync::{
        atomic::{
            fence,
            AtomicUsize,
            Ordering::{
                self,
                Acquire,
                Relaxed,
                Release, //
            }, //
        },
        Arc,
        Mutex,
        MutexGuard, //
    },
    thread,
};

/// What orders the protocol. `Documentation/livepatch/rust-core.rst` says which barrier pairs with
/// which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Barrier {
    /// `smp_wmb()` of `FuncStack::decide_by_task()`: patch states and choices before the entry is
    /// taken away.
    Decide,
    /// Release of `StackCheck::publish()`: target state, slots and ranges before the address of the
    /// ranges.
    Publish,
    /// `smp_wmb()` of `tasks::make_pending()`: target state and slots before the flag.
    Start,
    /// `smp_rmb()` of `redirect_by_task()`: the entry before the choices and the state.
    HandlerRmb,
    /// `preempt_disable()` of `klp_ftrace_handler()`.
    HandlerSection,
    /// `test_and_clear_tsk_thread_flag()` of `klp_update_patch_state()`: the flag before the target
    /// state and what the handler reads next.
    SwitchAcquire,
    /// `preempt_disable_notrace()` of `klp_update_patch_state()`.
    SwitchSection,
    /// Acquire of `StackCheck::published()`: the address of the ranges before the ranges, the
    /// target state and what the handler reads next.
    CheckAcquire,
    /// `__schedule()` has preemption disabled.
    SchedSection,
    /// `synchronize()` at the end of the transition: the entries before the patch states, and the
    /// address of the ranges before these go.
    CompleteSync,
    /// `synchronize()` of `reverse()`: switches that have seen the flag before the new target
    /// state.
    ReverseSync,
    /// `synchronize()` of `update()`: uses of the ranges before they change.
    UpdateSync,
    /// `check_and_switch()` in `task_call_func()`: the task does not run.
    TaskPinned,
    /// `klp_copy_process()` under `tasklist_lock`, like `for_each_task()`.
    ForkLocked,
    /// `switch_tasks()` clears a flag that `start()` has set again, right after the switch.
    Unflag,
    /// `klp_task_exit()`: a task that will be unhashed is on the list of exiting tasks.
    ExitListed,
    /// It is there before it is unhashed, by the order of `tasklist_lock`.
    ExitListedFirst,
    /// `klp_task_dead()` in `finish_task_switch()`: it is there while it can run.
    ExitListedToTheEnd,
    /// `for_each_task()` visits exiting tasks, too.
    ExitWalked,
    /// It visits them after the walk under `tasklist_lock`.
    ExitWalkedLast,
    /// `switch_exiting()`: the transition does not end before exiting tasks are switched.
    ExitSwitched,
    /// It clears their flag, as `switch_tasks()` does.
    ExitUnflag,
}
use Barrier::*;

const ALL: &[Barrier] = &[
    Decide,
    Publish,
    Start,
    HandlerRmb,
    HandlerSection,
    SwitchAcquire,
    SwitchSection,
    CheckAcquire,
    SchedSection,
    CompleteSync,
    ReverseSync,
    UpdateSync,
    TaskPinned,
    ForkLocked,
    Unflag,
    ExitListed,
    ExitListedFirst,
    ExitListedToTheEnd,
    ExitWalked,
    ExitWalkedLast,
    ExitSwitched,
    ExitUnflag,
];

/// `KLP_TRANSITION_*`, but not negative.
const UNPATCHED: usize = 0;
const PATCHED: usize = 1;
const IDLE: usize = 2;

const NULL: usize = 0;

/// What memory holds: of a function, or of ranges.
const GARBAGE: usize = 0;
const VALID: usize = 1;
const FREED: usize = 2;

/// The addresses of functions: the original one, that of the func version that was there before, if
/// any, and that of the func version that is patched in or out. [`NULL`] is none.
const ORIGINAL: usize = 1;
const OLD: usize = 2;
const NEW: usize = 3;

// What is bad.
const SAW_IDLE: &str = "the handler saw KLP_TRANSITION_IDLE";
const NO_CHOICE: &str = "the handler found neither entry nor choice";
const PATCHED_RAN_OTHER: &str = "a patched task ran another function than the new one";
const UNPATCHED_RAN_OTHER: &str = "an unpatched task ran another function than the old one";
const GONE_FUNC: &str = "a task ran a function that was gone";
const BAD_CHECK: &str = "the scheduler used ranges that were gone, or not there yet";
const SWITCHED_TO_IDLE: &str = "a task was switched to KLP_TRANSITION_IDLE";
const SWITCHED_TO_STALE: &str = "a task was switched to the target from before a reversal";
const PENDING_LATE: &str = "a task was pending in the end";
const SWITCHED_BACK: &str = "a task was switched back in the end";
const SWITCHED_LATE: &str = "a task was switched after the end";

/// Ends what a task does if something bad has happened.
fn ensure(holds: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if holds {
        Ok(())
    } else {
        Err(otherwise)
    }
}

/// What a task was switched to, or is to be switched to: which transition of the scenario, and
/// which patch state.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Side {
    transition: usize,
    state: usize,
}

impl Side {
    fn pack(self) -> usize {
        self.transition << 2 | self.state
    }

    fn unpack(packed: usize) -> Side {
        Side {
            transition: packed >> 2,
            state: packed & 3,
        }
    }
}

/// What the handler reads: `Slot` of `dispatch.rs`.
struct Slot {
    /// The function for all tasks, or NULL.
    entry: AtomicUsize,
    choice: [AtomicUsize; 2],
}

struct Task {
    patch_state: AtomicUsize,
    /// The [`Side`] that `TIF_PATCH_PENDING` was set for, or `IDLE` while it is clear.
    patch_pending: AtomicUsize,
    /// Under the locks that `task_call_func()` takes.
    scheduled: Mutex<Scheduled>,
    /// Whether it is on the list of exiting tasks, which is read under RCU.
    exiting: AtomicUsize,
}

struct Scheduled {
    /// `task_curr()`
    running: bool,
    /// What the task was switched to last. While it runs: what it was switched to when it woke up.
    side: Side,
}

/// What the core and the task share.
struct Shared {
    without: &'static [Barrier],
    /// The functions that run in `UNPATCHED` and in `PATCHED`, for each transition.
    funcs: &'static [[usize; 2]],
    /// Whether a transition is forced, so that tasks may run any function.
    forced: bool,
    /// Whether the first task exits. If it does not, the model spends no steps on that.
    exits: bool,
    slot: Slot,
    /// Of [`OLD`] and [`NEW`].
    code: [AtomicUsize; 2],
    target_state: AtomicUsize,
    /// The address of the ranges of the livepatch in transition.
    stack_check: AtomicUsize,
    /// The ranges: a livepatch, and so a transition, has its own.
    checks: [AtomicUsize; 2],
    tasks: [Task; 2],
    /// `tasklist_lock`, and which tasks are there.
    tasklist: Mutex<[bool; 2]>,
    /// Held in sections with preemption disabled, of the CPU on which the tasks run.
    preempt: Mutex<()>,
}

impl Shared {
    fn has(&self, barrier: Barrier) -> bool {
        !self.without.contains(&barrier)
    }

    fn fence(&self, barrier: Barrier, ordering: Ordering) {
        if self.has(barrier) {
            fence(ordering);
        }
    }

    /// Disables preemption until the guard is dropped.
    fn section(&self, barrier: Barrier) -> Option<MutexGuard<'_, ()>> {
        self.has(barrier).then(|| self.preempt.lock().unwrap())
    }

    /// The function that tasks on that side run.
    fn func(&self, side: Side) -> usize {
        self.funcs[side.transition][side.state]
    }

    /// What is at the address of a function; the original one is always there.
    fn code(&self, func: usize) -> Option<&AtomicUsize> {
        self.code.get(func.checked_sub(OLD)?)
    }
}

/// What a task does.
#[derive(Clone, Copy)]
enum Op {
    /// Calls the patched function.
    Call,
    /// Leaves the kernel.
    Exit,
    /// Is about to sleep, but does not.
    Schedule,
    /// Sleeps.
    Sleep,
    /// Forks, and goes on as the child.
    Fork,
    /// Is unhashed in the middle of its exit; at the end of its operations it dies.
    Unhash,
}
use Op::*;

/// A task that is running.
struct Current<'a> {
    shared: &'a Shared,
    task: &'a Task,
    index: usize,
    /// What it was switched to last.
    side: Side,
}

impl<'a> Current<'a> {
    fn wake(shared: &'a Shared, index: usize) -> Self {
        let task = &shared.tasks[index];
        let mut scheduled = task.scheduled.lock().unwrap();
        scheduled.running = true;
        let side = scheduled.side;
        Self {
            shared,
            task,
            index,
            side,
        }
    }

    fn sleep(&self) {
        let mut scheduled = self.task.scheduled.lock().unwrap();
        scheduled.running = false;
        scheduled.side = self.side;
    }

    fn run(&mut self, ops: &[Op]) -> Result<(), &'static str> {
        for op in ops {
            match op {
                Call => self.call()?,
                Exit => {
                    // `exit_to_user_mode_loop()`
                    if self.task.patch_pending.load(Relaxed) != IDLE {
                        self.update_patch_state()?;
                    }
                }
                Schedule => self.sched_try_switch()?,
                Sleep => {
                    self.sleep();
                    *self = Self::wake(self.shared, self.index);
                }
                Fork => self.fork(),
                Unhash => self.unhash(),
            }
        }
        Ok(())
    }

    /// A call of the patched function.
    fn call(&mut self) -> Result<(), &'static str> {
        let func = self.ftrace_handler()?;
        if let Some(code) = self.shared.code(func) {
            ensure(code.load(Relaxed) == VALID, GONE_FUNC)?;
        }
        ensure(
            self.shared.forced || func == self.shared.func(self.side),
            if self.side.state == PATCHED {
                PATCHED_RAN_OTHER
            } else {
                UNPATCHED_RAN_OTHER
            },
        )
    }

    /// `klp_ftrace_handler()`: returns the function to run.
    fn ftrace_handler(&mut self) -> Result<usize, &'static str> {
        let shared = self.shared;
        let _section = shared.section(HandlerSection);

        let mut func = shared.slot.entry.load(Relaxed);
        if func == NULL {
            // `redirect_by_task()`
            shared.fence(HandlerRmb, Acquire);
            let state = self.task.patch_state.load(Relaxed);
            ensure(state != IDLE, SAW_IDLE)?;
            let [unpatched, patched] = &shared.slot.choice;
            let choice = if state == UNPATCHED {
                unpatched
            } else {
                patched
            };
            func = choice.load(Relaxed);
            ensure(func != NULL, NO_CHOICE)?;
        }
        if !shared.has(HandlerSection) {
            // Preempted, and what was chosen is not on the stack.
            self.sleep();
            *self = Self::wake(shared, 0);
        }
        Ok(func)
    }

    /// `klp_update_patch_state(current)`
    fn update_patch_state(&mut self) -> Result<(), &'static str> {
        let shared = self.shared;
        let _section = shared.section(SwitchSection);

        let ordering = if shared.has(SwitchAcquire) {
            Acquire
        } else {
            Relaxed
        };
        let pending = self.task.patch_pending.swap(IDLE, ordering);
        if pending != IDLE {
            let target = shared.target_state.load(Relaxed);
            self.task.patch_state.store(target, Relaxed);
            self.switched(target, pending)?;
        }
        Ok(())
    }

    /// `__klp_sched_try_switch()`, `try_switch_current()`
    fn sched_try_switch(&mut self) -> Result<(), &'static str> {
        let shared = self.shared;
        let _section = shared.section(SchedSection);

        let pending = self.task.patch_pending.load(Relaxed);
        if pending == IDLE {
            return Ok(());
        }
        let acquire = if shared.has(CheckAcquire) {
            Acquire
        } else {
            Relaxed
        };
        let check = shared.stack_check.load(acquire);
        if check == NULL {
            return Ok(());
        }
        let target = shared.target_state.load(Relaxed);

        // `try_switch()`, `check_and_switch()`
        if self.task.patch_state.load(Relaxed) == target {
            return Ok(());
        }
        ensure(shared.checks[check - 1].load(Relaxed) == VALID, BAD_CHECK)?;
        self.task.patch_pending.swap(IDLE, Relaxed);
        self.task.patch_state.store(target, Relaxed);
        self.switched(target, pending)
    }

    /// The task was switched to `target`, when its flag was set for `pending`.
    fn switched(&mut self, target: usize, pending: usize) -> Result<(), &'static str> {
        ensure(target != IDLE, SWITCHED_TO_IDLE)?;
        let pending = Side::unpack(pending);
        ensure(target == pending.state, SWITCHED_TO_STALE)?;
        self.side = pending;
        Ok(())
    }

    /// `copy_process()`, `klp_copy_process()`
    fn fork(&mut self) {
        let shared = self.shared;
        let mut tasklist = shared
            .has(ForkLocked)
            .then(|| shared.tasklist.lock().unwrap());

        let child = &shared.tasks[1];
        let pending = self.task.patch_pending.load(Relaxed);
        child.patch_pending.store(pending, Relaxed);
        let state = self.task.patch_state.load(Relaxed);
        child.patch_state.store(state, Relaxed);
        child.scheduled.lock().unwrap().side = self.side;

        let mut tasklist = tasklist
            .take()
            .unwrap_or_else(|| shared.tasklist.lock().unwrap());
        tasklist[1] = true;
        drop(tasklist);
        self.sleep();
        *self = Self::wake(shared, 1);
    }

    /// `klp_task_exit()`, `exit_notify()`
    fn unhash(&mut self) {
        if self.shared.has(ExitListedFirst) {
            self.task_exit();
        }
        self.shared.tasklist.lock().unwrap()[self.index] = false;
        if !self.shared.has(ExitListedFirst) {
            self.task_exit();
        }
        if !self.shared.has(ExitListedToTheEnd) {
            self.task_dead();
        }
    }

    fn task_exit(&self) {
        if self.shared.has(ExitListed) {
            self.task.exiting.store(1, Release);
        }
    }

    /// `finish_task_switch()` of the next task
    fn task_dead(&self) {
        self.task.exiting.store(0, Relaxed);
    }
}

/// The core, under `klp_mutex`.
struct Core {
    shared: Arc<Shared>,
    target: usize,
    /// Which transition of the scenario.
    transition: usize,
    /// The functions of the func versions on the func stack. That of a nop is the original one.
    stack: Vec<usize>,
    /// The function of the func version in transition.
    marked: Option<usize>,
    violation: Option<&'static str>,
}

impl Core {
    fn ensure(&mut self, holds: bool, otherwise: &'static str) {
        if !holds {
            self.violation.get_or_insert(otherwise);
        }
    }

    /// `for_each_task()`
    fn for_each_task(&mut self, mut f: impl FnMut(&mut Self, &Task)) {
        let exits = self.shared.has(ExitWalked);
        if exits && !self.shared.has(ExitWalkedLast) {
            self.for_each_exiting(&mut f);
        }
        self.for_each_thread(&mut f);
        if exits && self.shared.has(ExitWalkedLast) {
            self.for_each_exiting(&mut f);
        }
    }

    /// `tasklist::for_each_thread()` with a break after each task. In the end the walk loses its
    /// place and begins anew.
    fn for_each_thread(&mut self, mut f: impl FnMut(&mut Self, &Task)) {
        let shared = self.shared.clone();
        for _ in 0..2 {
            for (index, task) in shared.tasks.iter().enumerate() {
                let tasklist = shared.tasklist.lock().unwrap();
                if tasklist[index] {
                    f(self, task);
                }
            }
        }
    }

    /// `tasklist::for_each_thread_rcu()`
    fn for_each_thread_rcu(&mut self, mut f: impl FnMut(&mut Self, &Task)) {
        let shared = self.shared.clone();
        for (index, task) in shared.tasks.iter().enumerate() {
            if shared.tasklist.lock().unwrap()[index] {
                f(self, task);
            }
        }
    }

    /// `for_each_exiting()`
    fn for_each_exiting(&mut self, mut f: impl FnMut(&mut Self, &Task)) {
        let shared = self.shared.clone();
        let [task, _] = &shared.tasks;
        if shared.exits && task.exiting.load(Relaxed) != 0 {
            f(self, task);
        }
    }

    /// What tasks are switched to.
    fn side(&self) -> Side {
        Side {
            transition: self.transition,
            state: self.target,
        }
    }

    /// The function of the func version that is patched in or out.
    fn patch(&self) -> usize {
        self.shared.funcs[self.transition][PATCHED]
    }

    /// `transition::begin()`
    fn init(&mut self, target: usize) {
        self.target = target;
        self.shared.target_state.store(target, Relaxed);
        self.for_each_task(|_, task| task.patch_state.store(target ^ 1, Relaxed));
        self.set_transition(true);
    }

    /// `stack::set_transition()`
    fn set_transition(&mut self, transition: bool) {
        let patch = self.patch();
        self.marked = transition.then_some(patch);
        if self.stack.contains(&patch) {
            self.update_slot();
        }
    }

    /// `FuncStack::push()`
    fn push(&mut self) {
        self.stack.push(self.patch());
        self.update_slot();
    }

    /// `FuncStack::remove()`
    fn remove(&mut self, version: usize) {
        self.stack.retain(|&other| other != version);
        self.update_slot();
    }

    /// `FuncStack::update()`
    fn update_slot(&self) {
        let mut versions = self.stack.iter().rev().copied();
        let top = versions.next();
        let entry = top.unwrap_or(ORIGINAL);
        if top.is_some() && top == self.marked {
            self.decide_by_task([versions.next().unwrap_or(ORIGINAL), entry]);
        } else {
            self.shared.slot.entry.store(entry, Relaxed);
        }
    }

    /// `FuncStack::decide_by_task()`
    fn decide_by_task(&self, choices: [usize; 2]) {
        let slot = &self.shared.slot;
        for (choice, func) in slot.choice.iter().zip(choices) {
            choice.store(func, Relaxed);
        }
        self.shared.fence(Decide, Release);
        slot.entry.store(NULL, Relaxed);
    }

    /// `StackCheck::publish()` of the livepatch in transition
    fn publish(&self) {
        let shared = &self.shared;
        // `fill()`
        shared.checks[self.transition].store(VALID, Relaxed);
        let ordering = if shared.has(Publish) {
            Release
        } else {
            Relaxed
        };
        shared.stack_check.store(self.transition + 1, ordering);
    }

    /// `StackCheck::withdraw()`, with `barrier` for its wait. After it the ranges may change.
    fn withdraw(&self, barrier: Barrier) {
        let shared = &self.shared;
        shared.stack_check.store(NULL, Relaxed);
        self.synchronize(barrier);
        shared.checks[self.transition].store(GARBAGE, Relaxed);
    }

    /// `tasks::make_pending()`
    fn start(&mut self) {
        self.publish();
        self.shared.fence(Start, Release);
        let side = self.side();
        self.for_each_task(|_, task| {
            if task.patch_state.load(Relaxed) != side.state {
                task.patch_pending.swap(side.pack(), Relaxed);
            }
        });
    }

    /// `synchronize()`, where `barrier` says.
    fn synchronize(&self, barrier: Barrier) {
        if self.shared.has(barrier) {
            drop(self.shared.preempt.lock().unwrap());
        }
    }

    /// `Running::update_left()`
    fn update(&mut self) {
        self.withdraw(UpdateSync);
        self.publish();
    }

    /// `Running::reverse()`
    fn reverse(&mut self) {
        self.for_each_task(|_, task| {
            task.patch_pending.swap(IDLE, Relaxed);
        });
        self.withdraw(ReverseSync);
        self.target ^= 1;
        self.shared.target_state.store(self.target, Relaxed);
        self.start();
    }

    /// `Running::force()`
    fn force(&mut self) {
        let side = self.side();
        self.for_each_task(|_, task| {
            // `klp_update_patch_state()`, in no section of the task's CPU
            if task.patch_pending.swap(IDLE, Acquire) != IDLE {
                task.patch_state.store(side.state, Relaxed);
            }
        });
    }

    /// `try_complete()`, until all tasks are switched, and `complete()`
    fn complete(&mut self) {
        while !self.switch_tasks() {
            thread::yield_now();
        }
        while self.shared.has(ExitSwitched) && !self.switch_exiting() {
            thread::yield_now();
        }
        self.finish();
    }

    /// `switch_tasks()`
    fn switch_tasks(&mut self) -> bool {
        let mut complete = true;
        let side = self.side();
        self.for_each_thread_rcu(|this, task| {
            if task.patch_state.load(Relaxed) != side.state {
                complete &= this.try_switch(task);
            }
        });
        if !complete {
            return false;
        }
        self.for_each_thread(|this, task| {
            if task.patch_state.load(Relaxed) != side.state {
                complete = false;
            } else if this.shared.has(Unflag) {
                task.patch_pending.swap(IDLE, Relaxed);
            }
        });
        complete
    }

    /// `switch_exiting()`
    fn switch_exiting(&mut self) -> bool {
        let mut complete = true;
        let side = self.side();
        self.for_each_exiting(|this, task| {
            if task.patch_state.load(Relaxed) != side.state {
                complete &= this.try_switch(task);
            } else if this.shared.has(ExitUnflag) {
                task.patch_pending.swap(IDLE, Relaxed);
            }
        });
        complete
    }

    /// `try_switch_pinned()`
    fn try_switch(&self, task: &Task) -> bool {
        // `task_call_func()`, which fails for a task that is running
        let mut scheduled = task.scheduled.lock().unwrap();
        if scheduled.running && self.shared.has(TaskPinned) {
            return false;
        }
        task.patch_pending.swap(IDLE, Relaxed);
        task.patch_state.store(self.target, Relaxed);
        scheduled.side = self.side();
        true
    }

    /// `complete()`, and the end of the functions that are not needed any more
    fn finish(&mut self) {
        let patch = self.patch();
        let mut gone = Vec::new();
        if self.target == UNPATCHED {
            gone.push(patch);
            self.remove(patch);
            self.set_transition(false);
        } else {
            self.set_transition(false);
            if patch == ORIGINAL {
                // All that were replaced, then the nop.
                gone.extend(self.stack.iter().copied().filter(|&func| func != patch));
                for &func in &gone {
                    self.remove(func);
                }
                self.remove(patch);
            }
        }
        self.withdraw(CompleteSync);

        let target = self.target;
        self.for_each_task(|this, task| {
            let pending = task.patch_pending.load(Relaxed);
            this.ensure(pending == IDLE, PENDING_LATE);
            // In the kernel, a store. The task may have been switched after switch_tasks().
            let state = task.patch_state.swap(IDLE, Relaxed);
            // A child, forked after the visit of its parent, is in KLP_TRANSITION_IDLE.
            this.ensure(state == target || state == IDLE, SWITCHED_BACK);
        });
        self.shared.target_state.store(IDLE, Relaxed);

        // `free_async()`, which keeps the modules after a forced transition
        for func in gone.into_iter().filter(|_| !self.shared.forced) {
            if let Some(code) = self.shared.code(func) {
                code.store(FREED, Relaxed);
            }
        }
    }
}

/// What happens in one model.
struct Scenario {
    /// The functions that run in `UNPATCHED` and in `PATCHED`, for each transition.
    funcs: &'static [[usize; 2]],
    /// The func stack in the beginning.
    stack: &'static [usize],
    core: fn(&mut Core),
    task: &'static [Op],
    forced: bool,
}

/// `klp_enable_patch()`
fn enable(core: &mut Core) {
    core.init(PATCHED);
    core.push();
    core.start();
}

/// `control::disable()`
fn disable(core: &mut Core) {
    core.init(UNPATCHED);
    core.start();
}

const ENABLE: Scenario = Scenario {
    funcs: &[[OLD, NEW]],
    stack: &[OLD],
    core: |core| {
        enable(core);
        core.complete();
    },
    task: &[Call, Exit, Call],
    forced: false,
};

const DISABLE: Scenario = Scenario {
    funcs: &[[OLD, NEW]],
    stack: &[OLD, NEW],
    core: |core| {
        disable(core);
        core.complete();
    },
    task: &[Call, Exit, Call],
    forced: false,
};

const REVERSE_ENABLE: Scenario = Scenario {
    core: |core| {
        enable(core);
        core.reverse();
        core.complete();
    },
    task: &[Exit, Call, Exit, Call],
    ..ENABLE
};

const REVERSE_DISABLE: Scenario = Scenario {
    core: |core| {
        disable(core);
        core.reverse();
        core.complete();
    },
    task: &[Exit, Call, Exit, Call],
    ..DISABLE
};

const SCHED_ENABLE: Scenario = Scenario {
    task: &[Schedule, Call],
    ..ENABLE
};

const SCHED_DISABLE: Scenario = Scenario {
    task: &[Schedule, Call],
    ..DISABLE
};

const SCHED_REVERSE: Scenario = Scenario {
    task: &[Schedule, Call, Schedule],
    ..REVERSE_ENABLE
};

/// A module comes while the transition runs.
const UPDATE: Scenario = Scenario {
    core: |core| {
        enable(core);
        core.update();
        core.complete();
    },
    task: &[Schedule, Call],
    ..ENABLE
};

/// A livepatch with a nop for the function replaces the old one.
const REPLACE: Scenario = Scenario {
    funcs: &[[OLD, ORIGINAL]],
    ..ENABLE
};

/// The first livepatch of the function comes and goes.
const FIRST: Scenario = Scenario {
    funcs: &[[ORIGINAL, NEW]],
    stack: &[],
    ..ENABLE_DISABLE
};

/// Two transitions with other choices.
const NEXT: Scenario = Scenario {
    funcs: &[[OLD, NEW], [NEW, ORIGINAL]],
    core: |core| {
        enable(core);
        core.complete();
        core.transition = 1;
        enable(core);
        core.complete();
    },
    task: &[Exit, Call, Exit, Call],
    ..ENABLE
};

const SLEEP: Scenario = Scenario {
    task: &[Call, Sleep, Call],
    ..ENABLE
};

const FORK: Scenario = Scenario {
    task: &[Fork, Call, Exit],
    ..ENABLE
};

const FORK_REVERSE: Scenario = Scenario {
    task: &[Fork, Exit, Call],
    ..REVERSE_ENABLE
};

const FORK_FORCE: Scenario = Scenario {
    task: &[Fork, Exit, Call],
    ..FORCE
};

const FORCE: Scenario = Scenario {
    core: |core| {
        enable(core);
        core.force();
        core.complete();
    },
    task: &[Call, Schedule, Exit, Call],
    forced: true,
    ..ENABLE
};

/// `Begun::cancel()`
const CANCEL: Scenario = Scenario {
    core: |core| {
        core.init(PATCHED);
        core.push();
        core.target = UNPATCHED;
        core.shared.target_state.store(UNPATCHED, Relaxed);
        core.finish();
    },
    task: &[Call, Call],
    ..ENABLE
};

const ENABLE_DISABLE: Scenario = Scenario {
    core: |core| {
        enable(core);
        core.complete();
        disable(core);
        core.complete();
    },
    task: &[Exit, Call, Exit, Call],
    ..ENABLE
};

/// A task is unhashed before or during the transition, and goes on.
const EXIT_ENABLE: Scenario = Scenario {
    task: &[Unhash, Sleep, Call],
    ..ENABLE
};

const EXIT_DISABLE: Scenario = Scenario {
    task: &[Unhash, Call, Sleep, Call],
    ..DISABLE
};

const EXIT_REPLACE: Scenario = Scenario {
    task: &[Unhash, Call],
    ..REPLACE
};

const EXIT_REVERSE_ENABLE: Scenario = Scenario {
    task: &[Unhash, Schedule, Call],
    ..REVERSE_ENABLE
};

const EXIT_REVERSE_DISABLE: Scenario = Scenario {
    task: &[Unhash, Schedule, Call],
    ..REVERSE_DISABLE
};

const EXIT_SCHED: Scenario = Scenario {
    task: &[Unhash, Schedule, Call],
    ..ENABLE
};

const EXIT_FORCE: Scenario = Scenario {
    task: &[Unhash, Schedule, Call],
    ..FORCE
};

const SCENARIOS: &[Scenario] = &[
    ENABLE,
    DISABLE,
    REVERSE_ENABLE,
    REVERSE_DISABLE,
    SCHED_ENABLE,
    SCHED_DISABLE,
    SCHED_REVERSE,
    UPDATE,
    REPLACE,
    FIRST,
    NEXT,
    SLEEP,
    FORK,
    FORK_REVERSE,
    FORK_FORCE,
    FORCE,
    CANCEL,
    ENABLE_DISABLE,
    EXIT_ENABLE,
    EXIT_DISABLE,
    EXIT_REPLACE,
    EXIT_REVERSE_ENABLE,
    EXIT_REVERSE_DISABLE,
    EXIT_SCHED,
    EXIT_FORCE,
];

/// How often a thread is interrupted in one execution.
const PREEMPTIONS: usize = 3;

impl Scenario {
    /// Explores the executions without some barriers until one of them is bad, and returns what was
    /// bad about it. If `wanted` is given, only that counts as bad.
    fn explore(
        &self,
        without: &'static [Barrier],
        wanted: Option<&'static str>,
    ) -> Option<&'static str> {
        let found = std::sync::Arc::new(std::sync::Mutex::new(None));
        let mut builder = Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(PREEMPTIONS));
        let Scenario {
            funcs,
            stack,
            core,
            task,
            forced,
        } = *self;
        let execute = {
            let found = found.clone();
            move || {
                let shared = Shared::new(without, funcs, stack, task, forced);
                let violation = execute(shared, stack, core, task);
                let violation =
                    violation.filter(|violation| wanted.is_none_or(|wanted| wanted == *violation));
                if let Some(violation) = violation {
                    *found.lock().unwrap() = Some(violation);
                    // There is no other way to stop. All threads have ended.
                    panic!("without {without:?}: {violation}");
                }
            }
        };
        let check = std::panic::AssertUnwindSafe(|| builder.check(execute));
        let result = std::panic::catch_unwind(check);
        let found = found.lock().unwrap().take();
        match result {
            Err(panic) if found.is_none() => std::panic::resume_unwind(panic),
            _ => found,
        }
    }
}

impl Shared {
    fn new(
        without: &'static [Barrier],
        funcs: &'static [[usize; 2]],
        stack: &[usize],
        ops: &[Op],
        forced: bool,
    ) -> Self {
        let top = stack.last().copied().unwrap_or(ORIGINAL);
        let state = usize::from(funcs[0][PATCHED] == top);
        let task = || Task {
            patch_state: AtomicUsize::new(IDLE),
            patch_pending: AtomicUsize::new(IDLE),
            scheduled: Mutex::new(Scheduled {
                running: false,
                side: Side {
                    transition: 0,
                    state,
                },
            }),
            exiting: AtomicUsize::new(0),
        };
        let valid = || AtomicUsize::new(VALID);
        let garbage = || AtomicUsize::new(GARBAGE);
        Self {
            without,
            funcs,
            forced,
            exits: ops.iter().any(|op| matches!(op, Unhash)),
            slot: Slot {
                entry: AtomicUsize::new(top),
                choice: [AtomicUsize::new(NULL), AtomicUsize::new(NULL)],
            },
            code: [valid(), valid()],
            target_state: AtomicUsize::new(IDLE),
            stack_check: AtomicUsize::new(NULL),
            checks: [garbage(), garbage()],
            tasks: [task(), task()],
            tasklist: Mutex::new([true, false]),
            preempt: Mutex::new(()),
        }
    }
}

/// Runs one execution. Returns what was bad about it.
fn execute(
    shared: Shared,
    stack: &[usize],
    core: fn(&mut Core),
    ops: &'static [Op],
) -> Option<&'static str> {
    let shared = Arc::new(shared);
    let cpu = shared.clone();
    let cpu = thread::spawn(move || {
        let mut current = Current::wake(&cpu, 0);
        let result = current.run(ops);
        // For ever, so that the core can switch it.
        current.sleep();
        if cpu.exits {
            current.task_dead();
        }
        result.err()
    });
    let mut this = Core {
        shared,
        target: IDLE,
        transition: 0,
        stack: stack.to_vec(),
        marked: None,
        violation: None,
    };
    core(&mut this);
    let violation = cpu.join().unwrap();
    this.for_each_task(|this, task| {
        let state = task.patch_state.load(Relaxed);
        this.ensure(state == IDLE, SWITCHED_LATE);
    });
    violation.or(this.violation)
}

fn explore_all(without: &'static [Barrier]) {
    for (index, scenario) in SCENARIOS.iter().enumerate() {
        assert_eq!(scenario.explore(without, None), None, "SCENARIOS[{index}]");
    }
}

#[test]
fn nothing_bad_happens() {
    explore_all(&[]);
}

/// Makes a test per barrier, which shows what happens in a scenario without it.
macro_rules! needed {
    ($($name:ident: $barrier:ident, $scenario:ident => $violation:ident;)*) => {
        $(
            #[test]
            fn $name() {
                assert_eq!($scenario.explore(&[$barrier], Some($violation)), Some($violation));
            }
        )*

        const NEEDED: &[Barrier] = &[$($barrier),*];
    };
}

needed! {
    without_decide: Decide, DISABLE => SAW_IDLE;
    without_decide_of_choices: Decide, ENABLE => NO_CHOICE;
    without_decide_next: Decide, NEXT => PATCHED_RAN_OTHER;
    without_publish: Publish, UPDATE => BAD_CHECK;
    without_start: Start, ENABLE => PATCHED_RAN_OTHER;
    without_start_after_disable: Start, DISABLE => UNPATCHED_RAN_OTHER;
    without_handler_rmb: HandlerRmb, DISABLE => SAW_IDLE;
    without_handler_rmb_of_choices: HandlerRmb, ENABLE => NO_CHOICE;
    without_handler_section: HandlerSection, ENABLE => SAW_IDLE;
    without_handler_section_of_old: HandlerSection, ENABLE => PATCHED_RAN_OTHER;
    without_handler_section_of_gone: HandlerSection, REPLACE => GONE_FUNC;
    without_switch_acquire: SwitchAcquire, ENABLE => SWITCHED_TO_IDLE;
    without_switch_section: SwitchSection, REVERSE_ENABLE => PATCHED_RAN_OTHER;
    without_check_acquire: CheckAcquire, UPDATE => BAD_CHECK;
    without_sched_section: SchedSection, UPDATE => BAD_CHECK;
    without_complete_sync: CompleteSync, ENABLE => SAW_IDLE;
    without_complete_sync_of_disable: CompleteSync, DISABLE => SAW_IDLE;
    without_complete_sync_of_check: CompleteSync, FORCE => BAD_CHECK;
    without_complete_sync_next: CompleteSync, NEXT => SAW_IDLE;
    without_reverse_sync: ReverseSync, REVERSE_ENABLE => SWITCHED_BACK;
    without_update_sync: UpdateSync, UPDATE => BAD_CHECK;
    without_task_pinned: TaskPinned, ENABLE => UNPATCHED_RAN_OTHER;
    without_task_pinned_of_gone: TaskPinned, REPLACE => GONE_FUNC;
    without_fork_locked: ForkLocked, FORK => SWITCHED_LATE;
    without_unflag: Unflag, FORK => PENDING_LATE;
    without_exit_listed: ExitListed, EXIT_REPLACE => GONE_FUNC;
    without_exit_listed_when_idle: ExitListed, EXIT_DISABLE => SAW_IDLE;
    without_exit_listed_first: ExitListedFirst, EXIT_DISABLE => SAW_IDLE;
    without_exit_listed_to_the_end: ExitListedToTheEnd, EXIT_REPLACE => GONE_FUNC;
    without_exit_walked: ExitWalked, EXIT_DISABLE => SAW_IDLE;
    without_exit_walked_last: ExitWalkedLast, EXIT_DISABLE => SAW_IDLE;
    without_exit_switched: ExitSwitched, EXIT_REPLACE => GONE_FUNC;
    without_exit_switched_of_side: ExitSwitched, EXIT_ENABLE => UNPATCHED_RAN_OTHER;
    without_exit_unflag: ExitUnflag, EXIT_SCHED => PENDING_LATE;
}

#[test]
fn all_barriers_are_tested() {
    for &barrier in ALL {
        assert!(NEEDED.contains(&barrier), "{barrier:?}");
    }
}

#[test]
fn all_barriers_are_documented() {
    let document = include_str!("../../../../Documentation/livepatch/rust-core.rst");
    for barrier in ALL {
        let row = format!("\n   * - *{barrier:?}*");
        assert!(document.contains(&row), "{barrier:?}");
    }
}
