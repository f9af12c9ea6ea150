// SPDX-License-Identifier: GPL-2.0-or-later

//! A model of what the ftrace handler, the transition and the switching of tasks do to each other
//! on weakly ordered machines.
//!
//! [loom](https://docs.rs/loom) runs each of [`SCENARIOS`] in all interleavings with up to
//! [`PREEMPTIONS`] preemptions, and lets each load return all that C11 allows. One thread is the
//! core, which holds `klp_mutex`; the other is a task on its CPU. The core never passes on to one
//! CPU what it has read from another, so that one CPU is enough.
//!
//! What orders the protocol are the [`Barrier`]s. With all of them nothing bad happens, and a test
//! per barrier shows what does without it: there is none that another one makes superfluous.
//!
//! What is bad:
//!
//! - the handler finds no entry together with `KLP_TRANSITION_IDLE`, or without choices;
//! - a task that was last switched to a side, by whomever, runs another function than that of its
//!   side;
//! - a task runs a function whose module was let go; the scheduler's hook uses a stack check that
//!   was freed or is not initialised;
//! - a task is switched to `KLP_TRANSITION_IDLE`, or to another target than it was flagged for, which
//!   loses the flag;
//! - when the transition ends, a task is not on its side, or flagged, or not in
//!   `KLP_TRANSITION_IDLE` thereafter.
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
//! Where the fences are stronger than the kernel's barriers, nothing hangs on it: all that follows
//! `smp_rmb()` in the handler are loads; the stores that follow it in `__klp_sched_try_switch()` are
//! behind a branch on what was loaded before it, and so are `start()`'s behind the load of the
//! state. All that precedes an `smp_wmb()` and matters are stores. Full barriers are modelled as
//! less than they are: nothing here needs a store before a later load.
//!
//! The mutexes are no stronger than what they stand for. `schedule_on_each_cpu()` runs a worker on
//! the CPU, between two sections: all of an earlier one is before its return, and what preceded the
//! call is before all of a later one. That is the lock, which the core holds for nothing else.
//!
//! There is no barrier between the choices and what comes after an entry that is an address: they
//! are not read any more, and the next transition writes both before it takes the entry away.
//!
//! # Tasks that exit
//!
//! [`Unhash`] takes a task off the list of tasks in the middle of its exit; it goes on, runs
//! functions, sleeps, and dies in the end. Nothing but `tasklist_lock` orders its way from one list to
//! the other: who does not find it on the first any more has taken that lock behind it. That it is
//! found on neither orders nothing; `synchronize()` does, as for all that a CPU did.
//!
//! # Functions that go away
//!
//! The handler holds on to nothing but the address that it has chosen. What keeps its code there is
//! that the task runs: it is not switched away from the function, neither by itself before the
//! function has returned nor by others ([`TaskPinned`]), and the transition does not end. That needs
//! the handler's section, too: a task that is preempted with an address in its registers does not
//! run, and the function is not on its stack yet.
//!
//! The model lets a task be preempted in the handler where the handler allows it, but not from there
//! to the first instruction of the function. There the kernel can preempt, here as in C: in
//! `preempt_enable()` at the end of the handler, and by an interrupt in the rest of the trampoline.
//!
//! # Not modelled
//!
//! The way to the slot, which never changes, and the registration with ftrace, which has its own
//! synchronisation (the func stack has a version already, so that the core pushes and removes
//! under a live handler, with nothing of ftrace in between); stacks, as a task sleeps outside of
//! the patched function only; the static key of the scheduler's hook, which is taken for on; CPU
//! hotplug; modules that come and go, whose functions nobody calls while their func stacks change.
//! `force()` gives up consistency and keeps all functions: there only the rest is checked.
//!
//! # Limits
//!
//! A load in loom cannot return what is stored later, in C11 and the kernel's model it can ("load
//! buffering"). So loom cannot show a need to order a load before a later store. There are three
//! such pairs: the run of a function, then the full barrier of `test_and_clear_bit()`, then the store
//! of the state; the handler's loads, then the unlock of the section; and the core's load of a task's
//! state, then its stores when the transition ends, which are behind a branch on it. The locks of the
//! model order the second, `synchronize()` all of them: `complete()` waits for the CPU after it has
//! seen the state, and so has all that the CPU did until then, loads included, behind it.
//!
//! Three preemptions are a bound, not a proof. `LOOM_MAX_PREEMPTIONS` sets another; five take about two
//! minutes.

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

/// What orders the protocol, and what it pairs with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Barrier {
    /// `smp_wmb()` of `FuncStack::decide_by_task()`: the choices, and the states of `init()`, before
    /// the entry is taken away. With [`HandlerRmb`].
    Decide,
    /// Release of `StackCheck::publish()`: the check before its address. With [`CheckAcquire`].
    Publish,
    /// `smp_wmb()` of `tasks::make_pending()`: target state, slots and the address of the check before
    /// the flag. With [`SwitchAcquire`] and [`SchedRmb`].
    Start,
    /// `smp_rmb()` of `redirect_by_task()`: the entry before the choices and the state.
    HandlerRmb,
    /// `preempt_disable()` of `klp_ftrace_handler()`. With [`CompleteSync`] and [`TaskPinned`].
    HandlerSection,
    /// `test_and_clear_tsk_thread_flag()` of `klp_update_patch_state()`: the flag before the target
    /// and what the handler reads next.
    SwitchAcquire,
    /// `preempt_disable_notrace()` of `klp_update_patch_state()`. With [`ReverseSync`].
    SwitchSection,
    /// `smp_rmb()` of `__klp_sched_try_switch()`: the flag before check, target and what the
    /// handler reads next.
    SchedRmb,
    /// `try_switch_current()`: the address of the check before the check.
    CheckAcquire,
    /// `__schedule()` has preemption disabled. With [`ReverseSync`] and [`UpdateSync`].
    SchedSection,
    /// `synchronize()` of `complete()`: the targets before the states, and the address of the check
    /// before it is freed.
    CompleteSync,
    /// `synchronize()` of `reverse()`: switches that have seen the flag before the new target.
    ReverseSync,
    /// `synchronize()` of `update()`: the address of the new check before the old one is freed.
    UpdateSync,
    /// `check_and_switch()` in `task_call_func()`: the task does not run.
    TaskPinned,
    /// `klp_copy_process()` under `tasklist_lock`, like `for_each_task()`.
    ForkLocked,
    /// `switch_tasks()` clears the flag that `start()` has set again, behind the switch.
    Unflag,
    /// `klp_task_exit()`: a task that will be unhashed is on the list of exiting tasks...
    ExitListed,
    /// ...before that, by the order of `tasklist_lock`. With [`ExitWalkedLast`].
    ExitListedFirst,
    /// `klp_task_dead()` in `finish_task_switch()`: the task stays on it while it can run.
    ExitListedToTheEnd,
    /// `for_each_task()` visits exiting tasks, too.
    ExitWalked,
    /// It does so behind the walk under `tasklist_lock`.
    ExitWalkedLast,
    /// `switch_exiting()`: the transition does not end before they are switched.
    ExitSwitched,
    /// It clears the flag, as `switch_tasks()` does.
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
    SchedRmb,
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

/// What is in memory.
const GARBAGE: usize = 0;
const VALID: usize = 1;
const FREED: usize = 2;

/// The addresses of functions: the original one, that of the version that was there before, if
/// any, and that of the version that is patched in or out. [`NULL`] is none.
const ORIGINAL: usize = 1;
const OLD: usize = 2;
const NEW: usize = 3;

// What is bad.
const SAW_IDLE: &str = "the handler saw KLP_TRANSITION_IDLE";
const NO_CHOICE: &str = "the handler found neither entry nor choice";
const PATCHED_RAN_OTHER: &str = "a patched task ran another function than the new one";
const UNPATCHED_RAN_OTHER: &str = "an unpatched task ran another function than the old one";
const GONE_FUNC: &str = "a task ran a function that was gone";
const BAD_CHECK: &str = "the scheduler used ranges that were freed, or not there yet";
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

/// What a task is, or is to be, switched to: which transition of the scenario, and which state.
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
    /// What the task was switched to last; of a running task, as of when it woke up.
    side: Side,
}

/// All that the transition and the task share.
struct Shared {
    without: &'static [Barrier],
    /// The functions that run in `UNPATCHED` and in `PATCHED`, for each transition.
    funcs: &'static [[usize; 2]],
    /// Whether a transition is forced, so that tasks may run any function.
    forced: bool,
    /// Whether the first task exits. Where it does not, no steps are spent on that.
    exits: bool,
    slot: Slot,
    /// Of [`OLD`] and [`NEW`].
    code: [AtomicUsize; 2],
    target_state: AtomicUsize,
    stack_check: AtomicUsize,
    checks: [AtomicUsize; 2],
    tasks: [Task; 2],
    /// `tasklist_lock`, and which tasks are there.
    tasklist: Mutex<[bool; 2]>,
    /// Held in sections with preemption disabled of the CPU that the tasks are on.
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
    /// Is unhashed in the middle of its exit, so that it dies in the end.
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
        shared.fence(SchedRmb, Acquire);
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
    /// Which one of the scenario.
    transition: usize,
    /// The functions of the versions on the func stack; a nop's is the original one.
    stack: Vec<usize>,
    /// That of the version in transition.
    marked: Option<usize>,
    /// How many stack checks were made.
    checks: usize,
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

    /// `tasklist::for_each_thread()` with a break after each, whose place was lost in the end.
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

    /// The version that is patched in or out.
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

    /// `StackCheck::new()` and `publish()`: returns what was published before.
    fn publish(&mut self, new: bool) -> usize {
        let shared = &self.shared;
        let mut check = NULL;
        if new {
            shared.checks[self.checks].store(VALID, Relaxed);
            self.checks += 1;
            check = self.checks;
        }
        let ordering = if shared.has(Publish) {
            Release
        } else {
            Relaxed
        };
        shared.stack_check.swap(check, ordering)
    }

    fn free_check(&self, check: usize) {
        if check != NULL {
            self.shared.checks[check - 1].store(FREED, Relaxed);
        }
    }

    /// `tasks::make_pending()`
    fn start(&mut self) {
        let old = self.publish(true);
        self.free_check(old);
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
        let old = self.publish(true);
        self.synchronize(UpdateSync);
        self.free_check(old);
    }

    /// `Running::reverse()`
    fn reverse(&mut self) {
        self.for_each_task(|_, task| {
            task.patch_pending.swap(IDLE, Relaxed);
        });
        self.synchronize(ReverseSync);
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

    /// `complete()`, and what becomes of the functions that are not needed any more
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
        let check = self.publish(false);
        self.synchronize(CompleteSync);
        self.free_check(check);

        let target = self.target;
        self.for_each_task(|this, task| {
            let pending = task.patch_pending.load(Relaxed);
            this.ensure(pending == IDLE, PENDING_LATE);
            // A store in the kernel. A task may have been switched since switch_tasks().
            let state = task.patch_state.swap(IDLE, Relaxed);
            // A child may have been forked behind the visit of its parent.
            this.ensure(state == target || state == IDLE, SWITCHED_BACK);
        });
        self.shared.target_state.store(IDLE, Relaxed);

        // `free_async()`, which keeps the modules of what was forced
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

/// A task that is unhashed before or in the transition, and goes on.
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
    /// Explores the executions without some barriers until one is bad, in the way that is looked for
    /// or in any, and returns in what way.
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

/// One execution. Returns what was bad about it.
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
        // For ever, so that others can switch it.
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
        checks: 0,
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

/// A test per barrier: without it, what happens in a scenario.
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
    without_start_after_check: Start, SCHED_REVERSE => BAD_CHECK;
    without_handler_rmb: HandlerRmb, DISABLE => SAW_IDLE;
    without_handler_rmb_of_choices: HandlerRmb, ENABLE => NO_CHOICE;
    without_handler_section: HandlerSection, ENABLE => SAW_IDLE;
    without_handler_section_of_old: HandlerSection, ENABLE => PATCHED_RAN_OTHER;
    without_handler_section_of_gone: HandlerSection, REPLACE => GONE_FUNC;
    without_switch_acquire: SwitchAcquire, ENABLE => SWITCHED_TO_IDLE;
    without_switch_section: SwitchSection, REVERSE_ENABLE => PATCHED_RAN_OTHER;
    without_sched_rmb: SchedRmb, SCHED_REVERSE => BAD_CHECK;
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
