// SPDX-License-Identifier: GPL-2.0-or-later

//! Func stacks: all versions of one function, the newest on top, and what the handler is told.
//!
//! Replaces `struct klp_func` of `patch.c`, as far as it is on `klp_ops.func_stack`.

use crate::{
    lock::{
        KlpLocked,
        LockedCell, //
    },
    lookup::Extent,
    rules::dispatch::Slot, //
};
use core::{
    num::NonZero,
    ptr::null, //
};
use kernel::{
    ftrace,
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        barrier::{
            self,
            smp_mb, //
        },
        Arc, //
    }, //
};

/// What a version of a function runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// The original function.
    Original,
    /// The function at this address.
    At(NonZero<usize>),
}

/// A version of a function, which can be on a func stack.
pub(crate) struct FuncVersion {
    runs: Code,
    /// Whether the patch of this version is in transition, so that the task's state decides.
    pub(crate) transition: LockedCell<bool>,
    /// The version below, or NULL for the original function.
    below: LockedCell<Link>,
    /// The code of this version, while its object is loaded.
    code: LockedCell<Option<Extent>>,
    on_stack: LockedCell<bool>,
}

/// A version on a func stack, which holds a reference to it; or NULL.
#[derive(Clone, Copy)]
pub(crate) struct Link(*const FuncVersion);

// SAFETY: Followed under the mutex only.
unsafe impl Send for Link {}

impl Link {
    pub(crate) const NULL: Self = Self(null());

    pub(crate) fn get<'a>(self, _locked: &'a KlpLocked) -> Option<&'a FuncVersion> {
        // SAFETY: A version that is linked is kept alive by its func stack, which changes only
        // under the mutex; who unlinks it has it from elsewhere.
        unsafe { self.0.as_ref() }
    }
}

impl FuncVersion {
    /// Makes a version that runs `runs`.
    pub(crate) fn new(runs: Code) -> Result<Arc<Self>> {
        let version = Self {
            runs,
            transition: LockedCell::new(false),
            below: LockedCell::new(Link::NULL),
            code: LockedCell::new(None),
            on_stack: LockedCell::new(false),
        };
        Ok(Arc::new(version, GFP_KERNEL)?)
    }

    /// Returns what the version runs.
    pub(crate) fn runs(&self) -> Code {
        self.runs
    }

    /// Sets where the code of the version is.
    pub(crate) fn set_code(&self, locked: &KlpLocked, code: Option<Extent>) {
        self.code.set(locked, code);
    }

    /// Returns where the code of the version is.
    pub(crate) fn code(&self, locked: &KlpLocked) -> Option<Extent> {
        self.code.get(locked)
    }

    /// Whether the version is on its func stack.
    pub(crate) fn on_stack(&self, locked: &KlpLocked) -> bool {
        self.on_stack.get(locked)
    }

    /// Returns the version below this one on the func stack, [`None`] if that is the original.
    pub(crate) fn previous<'a>(&'a self, locked: &'a KlpLocked) -> Option<&'a FuncVersion> {
        self.below.get(locked).get(locked)
    }
}

/// A hooked function: its func stack, and where the handler finds what that comes to.
pub(crate) struct Hook {
    pub(crate) ip: usize,
    /// Which slot of the group it has.
    pub(crate) slot_index: usize,
    /// The version on top of the func stack.
    pub(crate) top: LockedCell<Link>,
    /// Whether the function is in the filter of the ops.
    pub(crate) hooked: LockedCell<bool>,
}

/// A [`Hook`] with its slot.
pub(crate) struct FuncStack<'a> {
    pub(crate) hook: &'a Hook,
    pub(crate) slot: &'a Slot,
}

impl FuncStack<'_> {
    /// Makes `version` the one in effect. The stack keeps it alive.
    pub(crate) fn push(&self, locked: &KlpLocked, version: &Arc<FuncVersion>) {
        version.below.set(locked, self.hook.top.get(locked));
        let link = Link(Arc::as_ptr(version));
        core::mem::forget(version.clone());
        version.on_stack.set(locked, true);
        self.hook.top.set(locked, link);
        self.update(locked);
    }

    #[inline(never)]
    /// Takes `version` off the stack. Tasks may be on their way into it until
    /// [`synchronize`](crate::synchronize::synchronize).
    pub(crate) fn remove(&self, locked: &KlpLocked, version: &Arc<FuncVersion>) {
        let gone = Arc::as_ptr(version);
        let mut link = &self.hook.top;
        loop {
            let Some(next) = link.get(locked).get(locked) else {
                return;
            };
            if core::ptr::eq(next, gone) {
                link.set(locked, next.below.get(locked));
                break;
            }
            link = &next.below;
        }
        version.on_stack.set(locked, false);
        self.update(locked);
        // SAFETY: `push()` left a reference with the stack. The caller's keeps the version alive.
        drop(unsafe { Arc::from_raw(gone) });
    }

    /// Tells the handler what the stack comes to.
    #[inline(never)]
    pub(crate) fn update(&self, locked: &KlpLocked) {
        let original = self.hook.ip.wrapping_add(ftrace::MCOUNT_INSN_SIZE);
        let func = |version: Option<&FuncVersion>| match version.map(|version| version.runs) {
            None | Some(Code::Original) => original,
            Some(Code::At(func)) => func.get(),
        };
        match self.hook.top.get(locked).get(locked) {
            Some(top) if top.transition.get(locked) => {
                self.decide_by_task([func(top.previous(locked)), func(Some(top))]);
            }
            top => Self::entry(self.slot).store(func(top), Relaxed),
        }
    }

    /// Lets the handler choose by the state of the task.
    fn decide_by_task(&self, choices: [usize; 2]) {
        for (choice, func) in self.slot.choice.iter().zip(choices) {
            // SAFETY: The handler reads it with volatile reads, and only we write.
            unsafe { Atomic::<usize>::from_ptr(choice.get()) }.store(func, Relaxed);
        }
        // Order the choices, and the states of tasks that `transition::begin()` has set, before the
        // entry. Pairs with the smp_rmb() of klp_ftrace_handler().
        smp_mb(barrier::Write);
        Self::entry(self.slot).store(0, Relaxed);
    }

    fn entry(slot: &Slot) -> &Atomic<usize> {
        // SAFETY: The handler reads it with volatile reads, and only we write.
        unsafe { Atomic::from_ptr(slot.entry.get()) }
    }
}
