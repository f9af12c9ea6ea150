// SPDX-License-Identifier: GPL-2.0-or-later

//! The transition: takes all tasks, one by one and each at a safe moment, to or from a livepatch.
//!
//! What can be done in a phase is a method of its type. [`begin()`] makes a [`Begun`], for which
//! the functions of the livepatch can be put on their func stacks: it is [cancelled](Begun::cancel)
//! or [started](Begun::start). From there on it is a [`Running`], which moves the tasks, can be
//! turned round and forced, and ends when all tasks are where it goes. How it ends depends on where
//! it began and where it went: see [`Transition::complete`]. Nothing here frees a livepatch: who
//! goes on with a transition is told what is [gone](Ended::gone).
//!
//! How tasks are moved is in [`tasks`].
//!
//! Replaces `transition.c`.
//!
//! # Ordering
//!
//! [`begin()`] writes the states of all tasks and the target state. Then the handler is told, for
//! each function, what the task's state is to choose from and, behind a write barrier, that it
//! does ([`stack`]). [`Begun::start`] publishes the ranges and, behind another one, sets
//! `TIF_PATCH_PENDING`. Readers go the other way: the handler reads whether it is to choose, then
//! the choices and its task's state; switching a task reads the flag, then the target state and
//! the ranges.
//!
//! That a task is gone is ordered by [`synchronize`](crate::synchronize::synchronize) before what
//! [`Transition::complete`] takes away: its last CPU has been through it.
//!
//! `scripts/host-tests` has a model of this, which fails without any one barrier.

use crate::{
    lock::{
        KlpLocked,
        LockedBy,
        LockedCell, //
    },
    object::Object,
    patch::Patch,
    patch_id::PatchId,
    progress,
    resident::set_sched_try_switch,
    stack,
    stack_check::{
        Left,
        StackCheck, //
    },
    state,
    tasks::{
        self,
        klp_debug,
        Exiting,
        Target, //
    },
    watch::{
        self,
        Stage, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Relaxed,
                Release, //
            },
            Atomic, //
        },
        Arc, //
    },
    time::{
        msecs_to_jiffies,
        round_jiffies_relative,
        Jiffies, //
    }, //
};

/// The patch in transition, whichever phase that is in.
static CURRENT: LockedBy<Option<Arc<Patch>>> = LockedBy::new(None);

/// The transition that has been started.
static RUNNING: LockedBy<Option<Running>> = LockedBy::new(None);

/// The [`PatchId`] of the patch in transition, for those without the mutex.
static CURRENT_ID: Atomic<usize> = Atomic::new(0);

/// Tries that wait less than a second, doubling from this, do not count.
pub(crate) const FIRST_DELAY_MS: u32 = 1;
const DELAY_MS: u32 = 1000;
/// Tasks that are still running are poked when the wait before the next try has come to this: after
/// about as long a time, and then again.
const POKE_DELAY_MS: u32 = 128;
/// After how many tries, about as many seconds, the remaining tasks are poked; and then again.
const SIGNALS_TIMEOUT: u32 = 15;

/// Returns the id of the patch in transition.
pub(crate) fn current_id() -> Option<PatchId> {
    // Pairs with the release in `begin()`.
    PatchId::from_word(CURRENT_ID.load(Acquire))
}

/// Returns the patch in transition.
pub(crate) fn current(locked: &KlpLocked) -> Option<&Arc<Patch>> {
    CURRENT.borrow(locked).as_ref()
}

/// Returns whether `patch` is in transition.
pub(crate) fn is_current(locked: &KlpLocked, patch: &Patch) -> bool {
    current(locked).is_some_and(|current| core::ptr::eq(Arc::as_ptr(current), patch))
}

/// Returns the transition that has been started, if there is one.
pub(crate) fn running(locked: &KlpLocked) -> Option<&Running> {
    RUNNING.borrow(locked).as_ref()
}

/// How far a transition has come.
pub(crate) enum Progress {
    /// It has ended.
    Complete(Ended),
    /// Some tasks are left. It is time to try again in so many jiffies.
    Incomplete(Jiffies),
}

/// A transition that has ended.
pub(crate) struct Ended(Transition);

impl Ended {
    /// Returns the patches that are without effect now, and can be freed.
    pub(crate) fn gone(&self, locked: &KlpLocked) -> &[Arc<Patch>] {
        match self.0.target.get(locked) {
            Target::Unpatched => core::slice::from_ref(&self.0.patch),
            Target::Patched => &self.0.replaced,
        }
    }
}

/// Tries to switch all tasks that are left, and ends the transition if none remains. Returns
/// [`None`] when no transition runs.
pub(crate) fn try_complete(locked: &mut KlpLocked) -> Option<Progress> {
    if let Some(delay) = running(locked)?.try_switch(locked) {
        return Some(Progress::Incomplete(delay));
    }
    set_sched_try_switch(false);
    let running = RUNNING.borrow_mut(locked).take()?;
    running.0.complete(locked);
    watch::ended(locked, &running.0.patch, running.0.target.get(locked));
    Some(Progress::Complete(Ended(running.0)))
}

/// What is known of a transition in each phase.
struct Transition {
    patch: Arc<Patch>,
    target: LockedCell<Target>,
    /// Where it went at first.
    began_with: Target,
    /// The patches that go away when `patch` is in effect.
    replaced: KVec<Arc<Patch>>,
}

/// A transition for which all is set up, but which switches nobody yet.
#[must_use = "a transition that has begun is started or cancelled"]
pub(crate) struct Begun(Transition);

/// Begins a transition of `patch` to `target`: gives all tasks their initial state and makes the
/// functions depend on it, but switches nobody yet.
pub(crate) fn begin(
    locked: &mut KlpLocked,
    patch: &Arc<Patch>,
    target: Target,
    replaced: KVec<Arc<Patch>>,
) -> Begun {
    *CURRENT.borrow_mut(locked) = Some(patch.clone());
    progress::begin();
    // Order that before the id. Pairs with the acquire in `current_id()`.
    CURRENT_ID.store(PatchId::to_word(Some(patch.raw.id())), Release);

    klp_debug!(
        c"klp_init_transition",
        "'{}': initializing {} transition\n",
        &*patch.name,
        target.label()
    );

    tasks::set_initial_states(target);

    // What this and patching tell the handler is ordered behind the states there, and before
    // TIF_PATCH_PENDING by the barrier in `tasks::make_pending()`.
    stack::set_transition(locked, patch, true);

    Begun(Transition {
        patch: patch.clone(),
        target: LockedCell::new(target),
        began_with: target,
        replaced,
    })
}

impl Begun {
    /// The patches that go away when the one in transition is in effect.
    pub(crate) fn replaced(&self) -> &[Arc<Patch>] {
        &self.0.replaced
    }

    /// Starts switching tasks.
    // Twice would be 600 bytes more.
    #[inline(never)]
    pub(crate) fn start(self, locked: &mut KlpLocked) {
        let running = Running(self.0, LockedCell::new(Tries::NONE));
        running.start(locked, Stage::Start);
        *RUNNING.borrow_mut(locked) = Some(running);
    }

    /// Ends a transition to a patch, none of whose functions is to stay on its func stack.
    pub(crate) fn cancel(self, locked: &mut KlpLocked) {
        klp_debug!(
            c"klp_cancel_transition",
            "'{}': canceling patching transition, going to unpatch\n",
            &*self.0.patch.name
        );
        self.0.set_target(locked, Target::Unpatched);
        self.0.complete(locked);
        self.0.patch.notify(locked, c"transition");
    }
}

/// What was tried to end a transition.
#[derive(Clone, Copy)]
struct Tries {
    /// The wait before the next try, in milliseconds.
    delay_ms: u32,
    /// Tries so far, but for the quick first ones.
    count: u32,
    /// Whether all tasks have been switched but for such that are exiting.
    only_exiting: bool,
}

impl Tries {
    const NONE: Self = Self {
        delay_ms: FIRST_DELAY_MS,
        count: 0,
        only_exiting: false,
    };
}

/// A transition that switches tasks.
pub(crate) struct Running(Transition, LockedCell<Tries>);

impl Running {
    /// The name of the patch in transition.
    pub(crate) fn patch_name(&self) -> &CStr {
        &self.0.patch.name
    }

    /// Where the transition goes.
    pub(crate) fn target(&self, locked: &KlpLocked) -> Target {
        self.0.target.get(locked)
    }

    /// Lets tasks switch.
    fn start(&self, locked: &KlpLocked, stage: Stage) {
        let target = self.0.target.get(locked);
        pr_notice!(
            "'{}': starting {} transition\n",
            &*self.0.patch.name,
            target.label()
        );
        watch::started(locked, &self.0.patch, target, stage);
        // From here on TIF_PATCH_PENDING is what lets others look.
        self.publish_left(locked);
        tasks::make_pending(target);
    }

    /// Publishes what must not be on the stack of a task that is switched.
    fn publish_left(&self, locked: &KlpLocked) {
        let (patch, target) = (&self.0.patch, self.0.target.get(locked));
        let list = |left: &mut Left<'_>| list_left(locked, patch, target, left);
        // SAFETY: The transition holds the patch until it is complete, which withdraws the check.
        unsafe { patch.check.publish(locked, list) };
    }

    /// Brings the transition in line with an object that was patched, or is not any more.
    pub(crate) fn update_left(&self, locked: &KlpLocked) {
        // In between the scheduler switches nobody.
        StackCheck::withdraw();
        self.publish_left(locked);
    }

    /// Tries to switch all tasks that are left. Returns the wait before the next try, in jiffies,
    /// unless none is left.
    fn try_switch(&self, locked: &KlpLocked) -> Option<Jiffies> {
        let target = self.0.target.get(locked);
        let mut tries = self.1.get(locked);
        progress::attempt();
        let was_listed = !tries.only_exiting;
        // Once all others are switched, nobody else has to be.
        tries.only_exiting = !was_listed || tasks::switch_listed(locked, target);
        let exiting = match tries.only_exiting {
            true => tasks::switch_exiting(locked, target),
            false => Exiting::Left,
        };
        // Those who exit are named when they have taken too long, whatever the others took.
        if tries.only_exiting && was_listed {
            tries.count = 0;
        }
        // Most who exit are gone in no time.
        if tries.only_exiting && (was_listed || exiting == Exiting::More) {
            tries.delay_ms = FIRST_DELAY_MS;
        }
        if exiting == Exiting::None {
            return None;
        }
        let delay = self.next_delay(locked, target, &mut tries);
        self.1.set(locked, tries);
        Some(delay)
    }

    /// Returns the wait before the next try, and pokes the remaining tasks when it is time.
    fn next_delay(&self, locked: &KlpLocked, target: Target, tries: &mut Tries) -> Jiffies {
        if tries.delay_ms < DELAY_MS {
            if tries.delay_ms >= POKE_DELAY_MS && !tries.only_exiting {
                tasks::poke_running(target);
            }
            let delay = msecs_to_jiffies(tries.delay_ms);
            tries.delay_ms = tries.delay_ms.saturating_mul(2);
            return delay;
        }
        if tries.count != 0 && tries.count.checked_rem(SIGNALS_TIMEOUT) == Some(0) {
            let is_first = tries.count == SIGNALS_TIMEOUT;
            if !tries.only_exiting {
                if is_first {
                    pr_notice!("signaling remaining tasks\n");
                }
                tasks::send_signals(target);
            } else if is_first {
                // There is nobody whom a signal would reach.
                tasks::name_exiting(&self.0.patch.name, target);
            }
        }
        tries.count = tries.count.saturating_add(1);
        watch::check_stall(locked, &self.0.patch, target);
        round_jiffies_relative(msecs_to_jiffies(DELAY_MS))
    }

    /// Turns the transition round.
    pub(crate) fn reverse(&self, locked: &KlpLocked) {
        let Running(transition, tries) = self;
        let target = transition.target.get(locked).reversed();
        klp_debug!(
            c"klp_reverse_transition",
            "'{}': reversing transition from {}\n",
            &*transition.patch.name,
            match target {
                Target::Unpatched => "patching to unpatching",
                Target::Patched => "unpatching to patching",
            }
        );

        // Nobody switches from here on, once those are done that have seen the flag.
        tasks::clear_pending();
        StackCheck::withdraw();

        let enabled = target == Target::Patched;
        transition.patch.set_enabled(locked, enabled);
        transition.set_target(locked, target);
        tries.set(locked, Tries::NONE);
        self.start(locked, Stage::Reversed);
    }

    /// Switches all tasks that are left, whatever they are doing.
    ///
    /// That may break them, as the administrator who asked for it knows. The patches that lose
    /// their functions keep their modules.
    pub(crate) fn force(&self, locked: &KlpLocked) {
        let Running(transition, tries) = self;
        let (patch, target) = (&transition.patch, transition.target.get(locked));
        pr_warn!("forcing remaining tasks to the patched state\n");
        if tries.get(locked).only_exiting {
            tasks::name_exiting(&patch.name, target);
        }
        tasks::force();
        watch::forced(locked, patch, target);
        match target {
            Target::Unpatched => patch.set_forced(locked),
            Target::Patched => {
                for old in &transition.replaced {
                    old.set_forced(locked);
                }
            }
        }
    }
}

/// Lists in `left` the functions of all patched objects of `patch` that a switch to `target`
/// leaves.
fn list_left(locked: &KlpLocked, patch: &Patch, target: Target, left: &mut Left<'_>) {
    let objects = patch.objects.borrow(locked).iter();
    for object in objects.filter(|object| object.patched.get(locked)) {
        for func in object.funcs.iter().filter(|func| !func.is_covered(locked)) {
            let code = match target {
                Target::Unpatched => func.version.code(locked),
                Target::Patched => match func.version.previous(locked) {
                    Some(previous) => previous.code(locked),
                    None => func.old.get(locked),
                },
            };
            if let Some(code) = code {
                left.add(func.name, code, func.ip.get(locked));
            }
        }
    }
}

impl Transition {
    /// Changes where it goes. Nobody must be able to switch.
    fn set_target(&self, locked: &KlpLocked, target: Target) {
        self.target.set(locked, target);
        tasks::set_target(target);
    }

    /// Ends the transition, for which all tasks have been switched.
    ///
    /// What was begun first ends last, but for states that go with replaced patches: the functions
    /// of the patch must not meet them.
    fn complete(&self, locked: &mut KlpLocked) {
        let (patch, target) = (&*self.patch, self.target.get(locked));
        klp_debug!(
            c"klp_complete_transition",
            "'{}': completing {} transition\n",
            &*patch.name,
            target.label()
        );

        match (self.began_with, target) {
            (Target::Patched, Target::Patched) => self.finish_enable(locked),
            (Target::Patched, Target::Unpatched) => self.abort_enable(locked),
            (Target::Unpatched, Target::Unpatched) => self.finish_disable(locked),
            (Target::Unpatched, Target::Patched) => self.abort_disable(locked),
        }

        pr_notice!("'{}': {} complete\n", &*patch.name, target.label());

        tasks::clear_target();
        CURRENT_ID.store(PatchId::to_word(None), Relaxed);
        *CURRENT.borrow_mut(locked) = None;
    }

    /// The patch is in effect, and nothing else is of those that it replaces.
    fn finish_enable(&self, locked: &mut KlpLocked) {
        let Self {
            patch, replaced, ..
        } = self;
        // All tasks run the functions of the patch: the handler need not ask any more.
        stack::set_transition(locked, patch, false);
        // No task runs anything of them: what they changed is now changed by the patch, or run in
        // the original by its nops. After a forced transition some may, but then nothing of the
        // old patches is let go.
        for old in replaced {
            old.set_enabled(locked, false);
            unpatch_objects(locked, old, false);
        }
        // Only after that: the nops cover what is below them.
        unpatch_objects(locked, patch, true);
        self.release_tasks(locked);
        state::finish_enable(locked, patch, replaced);
        self.post_patch(locked);
    }

    /// The patch is not in effect after all: its transition was turned round, or did not start.
    fn abort_enable(&self, locked: &mut KlpLocked) {
        self.unpatch(locked);
        state::abort_enable(locked, &self.patch, &self.replaced);
    }

    /// The patch is not in effect any more.
    fn finish_disable(&self, locked: &mut KlpLocked) {
        self.unpatch(locked);
        state::finish_disable(locked, &self.patch);
    }

    /// The patch stays in effect: its transition was turned round.
    fn abort_disable(&self, locked: &mut KlpLocked) {
        stack::set_transition(locked, &self.patch, false);
        self.release_tasks(locked);
        state::abort_disable(locked, &self.patch);
        self.post_patch(locked);
    }

    /// Takes all functions of the patch off their func stacks, and calls what is due for that.
    fn unpatch(&self, locked: &mut KlpLocked) {
        unpatch_objects(locked, &self.patch, false);
        stack::set_transition(locked, &self.patch, false);
        self.release_tasks(locked);
        for object in loaded_objects(locked, &self.patch) {
            object.post_unpatch(locked);
            state::disown_shadow_types(locked, &self.patch, object);
        }
    }

    /// Lets go of the functions that are on no func stack any more, and of the tasks.
    fn release_tasks(&self, locked: &mut KlpLocked) {
        stack::unhook_unused(locked);
        // Waits: the handler must see that it need not ask before it could see KLP_TRANSITION_IDLE,
        // and be done with the functions that are gone.
        StackCheck::withdraw();
        self.patch.drop_nops(locked);
        tasks::set_idle();
    }

    fn post_patch(&self, locked: &KlpLocked) {
        for object in loaded_objects(locked, &self.patch) {
            object.post_patch(locked);
        }
    }
}

fn loaded_objects<'a>(locked: &'a KlpLocked, patch: &'a Patch) -> impl Iterator<Item = &'a Object> {
    let objects = patch.objects.borrow(locked).iter();
    objects.filter(|object| object.is_loaded(locked))
}

fn unpatch_objects(locked: &KlpLocked, patch: &Patch, nops_only: bool) {
    let objects = patch.objects.borrow(locked).iter();
    for object in objects.filter(|object| object.patched.get(locked)) {
        stack::unpatch_object(locked, object, nops_only);
    }
}
