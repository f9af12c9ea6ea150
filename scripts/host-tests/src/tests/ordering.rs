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
//! - the handler sees a mark together with `KLP_TRANSITION_IDLE`;
//! - a task that was last switched to a side, by whomever, runs the version of the other side, or
//!   one that is older than that of its side;
//! - the handler uses a node, or the scheduler's hook a stack check, that was freed or is not
//!   initialised; a task runs a function whose module was let go;
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
//! | address dependency | [`Current::depend()`] |
//! | `tasklist_lock`; `pi_lock` and the run queue's in `task_call_func()` | a mutex |
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
//! The dependency is not `Acquire`, which would order the task's state, too, and hide a lack of the
//! handler's `smp_rmb()`. The kernel's model (`tools/memory-model`) lets a load whose address
//! depends on an earlier one see what was ordered before the store that the latter read from, and
//! orders no other load. So fields of nodes count their stores, a link says which of them were
//! ordered before it, and an execution in which an older one is read ends without a verdict. The
//! compiler keeps the dependency: the loads are volatile, and it knows nothing that the pointer
//! could be compared with.
//!
//! What is not modelled: the hash table and the registration with ftrace, which has its own
//! synchronisation (the func stack has a version already, so that the core pushes and removes
//! under a live handler, with nothing of ftrace in between); stacks, as a task sleeps outside of
//! the patched function only; the static key of the scheduler's hook, which is taken for on; CPU
//! hotplug; `force()`, which gives up consistency.
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
//! Three preemptions are a bound, not a proof. `LOOM_MAX_PREEMPTIONS` sets another; five take about a
//! minute.

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
    /// `smp_wmb()` of `transition::init()`: states before marks. With [`HandlerRmb`].
    InitStates,
    /// Release of `FuncStack::push()`: the node before its address. With [`Dependency`].
    Push,
    /// Release of `StackCheck::publish()`: the check before its address. With [`CheckAcquire`].
    Publish,
    /// `smp_wmb()` of `transition::start()`: target, marks, func stacks and the address of the check
    /// before the flag. With [`SwitchAcquire`] and [`SchedRmb`].
    Start,
    /// `choose()` reads the node through the address that it has read.
    Dependency,
    /// `smp_rmb()` of `choose()`: the mark before the state.
    HandlerRmb,
    /// `ftrace_test_recursion_trylock()` disables preemption. With [`UnpatchSync`], [`PatchSync`].
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
    /// `synchronize()` of `complete()` when unpatching: the func stacks before the marks.
    UnpatchSync,
    /// `synchronize()` of `complete()` when patching: marks and func stacks before the states, and
    /// before nops and check are freed.
    PatchSync,
    /// `synchronize()` of `reverse()`: switches that have seen the flag before the new target.
    ReverseSync,
    /// `synchronize()` of `update()`: the address of the new check before the old one is freed.
    UpdateSync,
    /// `check_and_switch()` in `task_call_func()`: the task does not run.
    TaskPinned,
    /// `klp_copy_process()` under `tasklist_lock`, like `for_each_task()`.
    ForkLocked,
}
use Barrier::*;

const ALL: &[Barrier] = &[
    InitStates,
    Push,
    Publish,
    Start,
    Dependency,
    HandlerRmb,
    HandlerSection,
    SwitchAcquire,
    SwitchSection,
    SchedRmb,
    CheckAcquire,
    SchedSection,
    UnpatchSync,
    PatchSync,
    ReverseSync,
    UpdateSync,
    TaskPinned,
    ForkLocked,
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

// What is bad.
const SAW_IDLE: &str = "the handler saw KLP_TRANSITION_IDLE";
const PATCHED_RAN_OTHER: &str = "a patched task ran the old function";
const UNPATCHED_RAN_OTHER: &str =
    "an unpatched task ran the new function, or one older than the old";
const GONE_FUNC: &str = "a task ran a function that was gone";
const BAD_NODE: &str = "the handler used a node that was freed";
const BAD_CHECK: &str = "the scheduler used ranges that were freed, or not there yet";
const SWITCHED_TO_IDLE: &str = "a task was switched to KLP_TRANSITION_IDLE";
const SWITCHED_TO_STALE: &str = "a task was switched to the target from before a reversal";
const PENDING_LATE: &str = "a task was pending in the end";
const SWITCHED_BACK: &str = "a task was switched back in the end";
const SWITCHED_LATE: &str = "a task was switched after the end";

/// Why a task does nothing more.
enum Stop {
    /// The memory model of the kernel forbids what happened.
    Impossible,
    Violation(&'static str),
}

fn ensure(holds: bool, otherwise: &'static str) -> Result<(), Stop> {
    if holds {
        Ok(())
    } else {
        Err(Stop::Violation(otherwise))
    }
}

/// A pointer to a node, or NULL, with the versions of the fields that were ordered before it.
#[derive(Clone, Copy)]
struct Link {
    node: usize,
    mark: usize,
    next: usize,
}

impl Link {
    const fn to(node: usize) -> Link {
        Link {
            node,
            mark: 0,
            next: 0,
        }
    }

    const fn pack(self) -> usize {
        self.node | self.mark << 4 | self.next << 8
    }

    fn unpack(packed: usize) -> Link {
        Link {
            node: packed & 0xf,
            mark: packed >> 4 & 0xf,
            next: packed >> 8,
        }
    }
}

struct Node {
    /// The mark, and above it how often it was written.
    mark: AtomicUsize,
    /// The node below, and above it how often the link was written.
    next: AtomicUsize,
    memory: AtomicUsize,
}

struct Task {
    patch_state: AtomicUsize,
    /// The target that `TIF_PATCH_PENDING` was set for, or `IDLE` while it is clear.
    patch_pending: AtomicUsize,
    /// Under the locks that `task_call_func()` takes.
    scheduled: Mutex<Scheduled>,
}

struct Scheduled {
    /// `task_curr()`
    running: bool,
    /// What the task was switched to last; of a running task, as of when it woke up.
    side: usize,
}

/// All that the transition and the task share.
struct Shared {
    without: &'static [Barrier],
    /// The versions that run in `UNPATCHED` and in `PATCHED`; 0 is the original.
    funcs: [usize; 2],
    top: AtomicUsize,
    nodes: [Node; 2],
    code: [AtomicUsize; 2],
    target_state: AtomicUsize,
    stack_check: AtomicUsize,
    checks: [AtomicUsize; 2],
    tasks: [Task; 2],
    /// `tasklist_lock`, and how many tasks there are.
    tasklist: Mutex<usize>,
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

    fn node(&self, id: usize) -> &Node {
        &self.nodes[id - 1]
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
}
use Op::*;

/// A task that is running.
struct Current<'a> {
    shared: &'a Shared,
    task: &'a Task,
    /// What it was switched to last.
    side: usize,
}

impl<'a> Current<'a> {
    fn wake(shared: &'a Shared, index: usize) -> Self {
        let task = &shared.tasks[index];
        let mut scheduled = task.scheduled.lock().unwrap();
        scheduled.running = true;
        let side = scheduled.side;
        Self { shared, task, side }
    }

    fn sleep(&self) {
        let mut scheduled = self.task.scheduled.lock().unwrap();
        scheduled.running = false;
        scheduled.side = self.side;
    }

    fn run(&mut self, ops: &[Op]) -> Result<(), Stop> {
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
                    *self = Self::wake(self.shared, 0);
                }
                Fork => self.fork(),
            }
        }
        Ok(())
    }

    /// A call of the patched function.
    fn call(&self) -> Result<(), Stop> {
        let func = self.ftrace_handler()?;
        ensure(
            func == self.shared.funcs[self.side],
            if self.side == PATCHED {
                PATCHED_RAN_OTHER
            } else {
                UNPATCHED_RAN_OTHER
            },
        )?;
        if func != 0 {
            ensure(self.shared.code[func - 1].load(Relaxed) == VALID, GONE_FUNC)?;
        }
        Ok(())
    }

    /// `klp_ftrace_handler()`: returns the version to run.
    fn ftrace_handler(&self) -> Result<usize, Stop> {
        let shared = self.shared;
        let _section = shared.section(HandlerSection);

        let top = Link::unpack(shared.top.load(Relaxed));
        if top.node == NULL {
            return Ok(0);
        }
        let mut id = top.node;
        let mut node = shared.node(id);

        let mark = node.mark.load(Relaxed);
        self.depend(top.mark, mark >> 1)?;
        if mark & 1 == 1 {
            shared.fence(HandlerRmb, Acquire);
            let state = self.task.patch_state.load(Relaxed);
            ensure(state != IDLE, SAW_IDLE)?;
            if state == UNPATCHED {
                let next = node.next.load(Relaxed);
                self.depend(top.next, next >> 4)?;
                id = next & 0xf;
                if id == NULL {
                    return Ok(0);
                }
                node = shared.node(id);
            }
        }

        ensure(node.memory.load(Relaxed) == VALID, BAD_NODE)?;
        // A nop's `new_func` is 0.
        Ok(if shared.funcs.contains(&id) { id } else { 0 })
    }

    /// An address dependency: what is read is not older than what was published.
    fn depend(&self, published: usize, read: usize) -> Result<(), Stop> {
        if self.shared.has(Dependency) && read < published {
            return Err(Stop::Impossible);
        }
        Ok(())
    }

    /// `klp_update_patch_state(current)`
    fn update_patch_state(&mut self) -> Result<(), Stop> {
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
    fn sched_try_switch(&mut self) -> Result<(), Stop> {
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

    fn switched(&mut self, target: usize, pending: usize) -> Result<(), Stop> {
        ensure(target != IDLE, SWITCHED_TO_IDLE)?;
        ensure(target == pending, SWITCHED_TO_STALE)?;
        self.side = target;
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
        *tasklist = 2;
        drop(tasklist);
        self.sleep();
        *self = Self::wake(shared, 1);
    }
}

/// The core, under `klp_mutex`.
struct Core {
    shared: Arc<Shared>,
    target: usize,
    /// How often the fields of the new node were written.
    marks: usize,
    links: usize,
    /// How many stack checks were made.
    checks: usize,
    violation: Option<&'static str>,
}

/// The node of the version that is patched in or out.
const NEW: usize = 2;
/// The node of the version that was there before, if any.
const OLD: usize = 1;

impl Core {
    fn ensure(&mut self, holds: bool, otherwise: &'static str) {
        if !holds {
            self.violation.get_or_insert(otherwise);
        }
    }

    fn for_each_task(&mut self, mut f: impl FnMut(&mut Self, &Task)) {
        let shared = self.shared.clone();
        let tasklist = shared.tasklist.lock().unwrap();
        for task in shared.tasks.iter().take(*tasklist) {
            f(self, task);
        }
    }

    /// `for_each_version()`
    fn set_marks(&mut self, mark: bool) {
        self.marks += 1;
        let mark = self.marks << 1 | usize::from(mark);
        self.shared.node(NEW).mark.store(mark, Relaxed);
    }

    /// `transition::init()`
    fn init(&mut self, target: usize) {
        self.target = target;
        self.shared.target_state.store(target, Relaxed);
        self.for_each_task(|_, task| task.patch_state.store(target ^ 1, Relaxed));
        self.shared.fence(InitStates, Release);
        self.set_marks(true);
    }

    /// `FuncStack::push()`
    fn push(&mut self) {
        let shared = &self.shared;
        let below = Link::unpack(shared.top.load(Relaxed));
        self.links += 1;
        let next = below.node | self.links << 4;
        shared.node(NEW).next.store(next, Relaxed);
        let (ordering, mark, next) = if shared.has(Push) {
            (Release, self.marks, self.links)
        } else {
            (Relaxed, 0, 0)
        };
        let link = Link {
            node: NEW,
            mark,
            next,
        };
        shared.top.store(link.pack(), ordering);
    }

    /// `FuncStack::remove()`
    fn remove(&mut self, id: usize) {
        let shared = &self.shared;
        let below = shared.node(id).next.load(Relaxed) & 0xf;
        let top = Link::unpack(shared.top.load(Relaxed));
        if top.node == id {
            shared.top.store(Link::to(below).pack(), Relaxed);
        } else {
            self.links += 1;
            shared
                .node(top.node)
                .next
                .store(below | self.links << 4, Relaxed);
        }
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

    /// `transition::start()`
    fn start(&mut self) {
        let old = self.publish(true);
        self.free_check(old);
        self.shared.fence(Start, Release);
        let target = self.target;
        self.for_each_task(|_, task| {
            if task.patch_state.load(Relaxed) != target {
                task.patch_pending.swap(target, Relaxed);
            }
        });
    }

    /// `synchronize()`, where `barrier` says.
    fn synchronize(&self, barrier: Barrier) {
        if self.shared.has(barrier) {
            drop(self.shared.preempt.lock().unwrap());
        }
    }

    /// `transition::update()`
    fn update(&mut self) {
        let old = self.publish(true);
        self.synchronize(UpdateSync);
        self.free_check(old);
    }

    /// `transition::reverse()`
    fn reverse(&mut self) {
        self.for_each_task(|_, task| {
            task.patch_pending.swap(IDLE, Relaxed);
        });
        self.synchronize(ReverseSync);
        self.target ^= 1;
        self.shared.target_state.store(self.target, Relaxed);
        self.start();
    }

    /// `try_complete()`, until all tasks are switched, and `complete()`
    fn complete(&mut self) {
        while !self.switch_tasks() {
            thread::yield_now();
        }
        self.finish();
    }

    /// `switch_tasks()`
    fn switch_tasks(&mut self) -> bool {
        let mut complete = true;
        let target = self.target;
        self.for_each_task(|this, task| {
            if task.patch_state.load(Relaxed) == target {
                return;
            }
            // `task_call_func()`, which fails for a task that is running
            let mut scheduled = task.scheduled.lock().unwrap();
            if scheduled.running && this.shared.has(TaskPinned) {
                complete = false;
                return;
            }
            task.patch_pending.swap(IDLE, Relaxed);
            task.patch_state.store(target, Relaxed);
            scheduled.side = target;
        });
        complete
    }

    /// `complete()`, and what becomes of the functions that are not needed any more
    fn finish(&mut self) {
        let patching = self.target == PATCHED;
        let replace = self.shared.funcs[PATCHED] == 0;
        if !patching {
            self.remove(NEW);
        } else if replace {
            self.remove(OLD);
            // The nop.
            self.remove(NEW);
        }
        let check = self.publish(false);
        if !patching {
            self.synchronize(UnpatchSync);
        }
        self.set_marks(false);
        if patching {
            self.synchronize(PatchSync);
        }
        let shared = self.shared.clone();
        if patching && replace {
            // `drop_nops()`
            shared.node(NEW).memory.store(FREED, Relaxed);
        }
        self.free_check(check);

        let target = self.target;
        self.for_each_task(|this, task| {
            let pending = task.patch_pending.load(Relaxed);
            this.ensure(pending == IDLE, PENDING_LATE);
            // A store in the kernel. A task may have been switched since switch_tasks().
            let state = task.patch_state.swap(IDLE, Relaxed);
            this.ensure(state == target, SWITCHED_BACK);
        });
        shared.target_state.store(IDLE, Relaxed);

        // `free_async()`
        let freed = match (patching, replace) {
            (true, false) => return,
            (true, true) => OLD,
            (false, _) => NEW,
        };
        shared.node(freed).memory.store(FREED, Relaxed);
        shared.code[freed - 1].store(FREED, Relaxed);
    }
}

/// What happens in one model.
struct Scenario {
    /// The versions that run in `UNPATCHED` and in `PATCHED`.
    funcs: [usize; 2],
    /// Whether the new version is on its func stack in the beginning.
    patched: bool,
    core: fn(&mut Core),
    task: &'static [Op],
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
    funcs: [OLD, NEW],
    patched: false,
    core: |core| {
        enable(core);
        core.complete();
    },
    task: &[Call, Exit, Call],
};

const DISABLE: Scenario = Scenario {
    funcs: [OLD, NEW],
    patched: true,
    core: |core| {
        disable(core);
        core.complete();
    },
    task: &[Call, Exit, Call],
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
    funcs: [OLD, 0],
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

/// `transition::cancel()`
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
    SLEEP,
    FORK,
    CANCEL,
    ENABLE_DISABLE,
];

/// How often a thread is interrupted in one execution.
const PREEMPTIONS: usize = 3;

impl Scenario {
    /// Explores the executions without some barriers until one is bad, and returns in what way.
    fn explore(&self, without: &'static [Barrier]) -> Option<&'static str> {
        let found = std::sync::Arc::new(std::sync::Mutex::new(None));
        let mut builder = Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(PREEMPTIONS));
        let Scenario {
            funcs,
            patched,
            core,
            task,
        } = *self;
        let execute = {
            let found = found.clone();
            move || {
                let violation = execute(Shared::new(without, funcs, patched), core, task);
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
    fn new(without: &'static [Barrier], funcs: [usize; 2], patched: bool) -> Self {
        let node = |next: usize| Node {
            mark: AtomicUsize::new(0),
            next: AtomicUsize::new(next),
            memory: AtomicUsize::new(VALID),
        };
        let task = || Task {
            patch_state: AtomicUsize::new(IDLE),
            patch_pending: AtomicUsize::new(IDLE),
            scheduled: Mutex::new(Scheduled {
                running: false,
                side: if patched { PATCHED } else { UNPATCHED },
            }),
        };
        let valid = || AtomicUsize::new(VALID);
        let garbage = || AtomicUsize::new(GARBAGE);
        let (top, below_new) = if patched { (NEW, OLD) } else { (OLD, NULL) };
        Self {
            without,
            funcs,
            top: AtomicUsize::new(Link::to(top).pack()),
            nodes: [node(NULL), node(below_new)],
            code: [valid(), valid()],
            target_state: AtomicUsize::new(IDLE),
            stack_check: AtomicUsize::new(NULL),
            checks: [garbage(), garbage()],
            tasks: [task(), task()],
            tasklist: Mutex::new(1),
            preempt: Mutex::new(()),
        }
    }
}

/// One execution. Returns what was bad about it.
fn execute(shared: Shared, core: fn(&mut Core), ops: &'static [Op]) -> Option<&'static str> {
    let shared = Arc::new(shared);
    let cpu = shared.clone();
    let cpu = thread::spawn(move || {
        let mut current = Current::wake(&cpu, 0);
        let result = current.run(ops);
        // For ever, so that others can switch it.
        current.sleep();
        match result {
            Err(Stop::Violation(violation)) => Some(violation),
            Err(Stop::Impossible) | Ok(()) => None,
        }
    });
    let mut this = Core {
        shared,
        target: IDLE,
        marks: 0,
        links: 0,
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
        assert_eq!(scenario.explore(without), None, "SCENARIOS[{index}]");
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
                assert_eq!($scenario.explore(&[$barrier]), Some($violation));
            }
        )*

        const NEEDED: &[Barrier] = &[$($barrier),*];
    };
}

needed! {
    without_init_states: InitStates, DISABLE => SAW_IDLE;
    without_push: Push, ENABLE => UNPATCHED_RAN_OTHER;
    without_publish: Publish, UPDATE => BAD_CHECK;
    without_start: Start, ENABLE => PATCHED_RAN_OTHER;
    without_start_after_disable: Start, DISABLE => UNPATCHED_RAN_OTHER;
    without_start_after_check: Start, SCHED_REVERSE => BAD_CHECK;
    without_dependency: Dependency, ENABLE => UNPATCHED_RAN_OTHER;
    without_handler_rmb: HandlerRmb, DISABLE => SAW_IDLE;
    without_handler_section: HandlerSection, ENABLE => SAW_IDLE;
    without_handler_section_of_nop: HandlerSection, REPLACE => BAD_NODE;
    without_switch_acquire: SwitchAcquire, ENABLE => SWITCHED_TO_IDLE;
    without_switch_section: SwitchSection, REVERSE_ENABLE => PATCHED_RAN_OTHER;
    without_sched_rmb: SchedRmb, SCHED_REVERSE => BAD_CHECK;
    without_check_acquire: CheckAcquire, UPDATE => BAD_CHECK;
    without_sched_section: SchedSection, UPDATE => BAD_CHECK;
    without_unpatch_sync: UnpatchSync, DISABLE => SAW_IDLE;
    without_patch_sync: PatchSync, ENABLE => SAW_IDLE;
    without_patch_sync_of_nop: PatchSync, REPLACE => BAD_NODE;
    without_reverse_sync: ReverseSync, REVERSE_ENABLE => SWITCHED_BACK;
    without_update_sync: UpdateSync, UPDATE => BAD_CHECK;
    without_task_pinned: TaskPinned, ENABLE => UNPATCHED_RAN_OTHER;
    without_fork_locked: ForkLocked, FORK => SWITCHED_LATE;
}

#[test]
fn all_barriers_are_tested() {
    for &barrier in ALL {
        assert!(NEEDED.contains(&barrier), "{barrier:?}");
    }
}
