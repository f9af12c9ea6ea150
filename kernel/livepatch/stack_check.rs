// SPDX-License-Identifier: GPL-2.0-or-later

//! The functions that a transition leaves, for who looks at the stacks of tasks.
//!
//! Replaces `klp_check_stack()` of `transition.c`, as far as that walks over the functions.

use crate::{
    lock::KlpLocked,
    lookup::Extent,
    raw::Name,
    rules::ranges::{
        self,
        Range, //
    },
    synchronize::synchronize, //
};
use core::{
    cell::UnsafeCell,
    ptr::null_mut, //
};
use kernel::{
    alloc::kvec::PushError,
    ftrace,
    prelude::*,
    sync::atomic::{
        ordering::{
            Acquire,
            Relaxed,
            Release, //
        },
        Atomic, //
    },
    warn_on_once, //
};

/// What is not to be on the stack of a task that is switched, or NULL.
static STACK_CHECK: Atomic<*mut StackCheck> = Atomic::new(null_mut());

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
    /// What [`Left::add`] lists of a function: its code, and where it returns to from ftrace.
    const RANGES_PER_FUNC: usize = 2;

    /// Makes an empty check with room for that many functions.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new(nr_funcs: usize) -> Result<Self> {
        let room = nr_funcs.checked_mul(Self::RANGES_PER_FUNC);
        let ranges = KVVec::with_capacity(room.ok_or(ENOMEM)?, GFP_KERNEL)?;
        // INVARIANT: Nothing has ever pointed here.
        Ok(Self(UnsafeCell::new(ranges)))
    }

    /// Publishes what `list` lists: the functions that a switch of tasks leaves.
    ///
    /// # Safety
    ///
    /// The check must live until [`Self::withdraw`].
    pub(crate) unsafe fn publish(&self, _locked: &KlpLocked, list: impl FnOnce(&mut Left<'_>)) {
        if warn_on_once!(!STACK_CHECK.load(Relaxed).is_null()) {
            Self::withdraw();
        }
        // SAFETY: The mutex is held. Nothing is published, and `withdraw()` has waited.
        let ranges = unsafe { &mut *self.0.get() };
        ranges.clear();
        list(&mut Left(ranges));
        let count = ranges::normalise(ranges);
        ranges.truncate(count);
        // Order the ranges before their address. Pairs with the acquire in `published()`.
        STACK_CHECK.store((&raw const *self).cast_mut(), Release);
    }

    /// Takes back what is published, if anything is, and waits until nobody uses it. Waits as
    /// [`synchronize`] does in any case.
    #[inline(never)]
    pub(crate) fn withdraw() {
        STACK_CHECK.store(null_mut(), Relaxed);
        synchronize();
    }

    /// Returns what is published.
    ///
    /// # Safety
    ///
    /// For as long as the result is used, preemption must be disabled, or the mutex be held and
    /// nothing be withdrawn.
    pub(crate) unsafe fn published<'a>() -> Option<&'a [Range<Name>]> {
        // Pairs with the release in `publish()`.
        let check = STACK_CHECK.load(Acquire);
        // SAFETY: What is published lives until `withdraw()`. That waits for sections with
        // preemption disabled, by which the ranges do not change either; what changes them has the
        // mutex.
        unsafe { check.as_ref().map(|check| &**check.0.get()) }
    }
}

/// The functions that tasks leave, to be listed.
pub(crate) struct Left<'a>(&'a mut KVVec<Range<Name>>);

impl Left<'_> {
    /// Adds the function `name` which tasks may be running now, in `code`. The original one has its
    /// ftrace location at `ip`.
    pub(crate) fn add(&mut self, name: Name, code: Extent, ip: usize) {
        let range = Range {
            start: code.start,
            end: code.start.saturating_add(code.size),
            tag: name,
        };
        // A task with this on its stack is in ftrace's trampoline, and may have been told already
        // where to go on.
        let return_address = ip.wrapping_add(ftrace::MCOUNT_INSN_SIZE);
        let trampoline = Range {
            start: return_address,
            end: return_address.saturating_add(1),
            tag: name,
        };
        let ranges = &mut *self.0;
        let added = ranges
            .push_within_capacity(range)
            .and_then(|()| ranges.push_within_capacity(trampoline));
        if let Err(PushError(range)) = added {
            // A livepatch is not to get more functions. No stack is free of this:
            warn_on_once!(true);
            if let Some(last) = ranges.last_mut() {
                *last = Range {
                    start: 0,
                    end: usize::MAX,
                    ..range
                };
            }
        }
    }
}
