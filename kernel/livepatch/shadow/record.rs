// SPDX-License-Identifier: GPL-2.0-or-later

//! What is known of an id.

use super::name::Name;
use core::ptr::NonNull;
use kernel::{
    bindings,
    module_ref::Module,
    prelude::*,
    rcu_map::List,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    }, //
};

/// What an id is to the core. The changes are drawn at the top of [`shadow`](super).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has neither variables nor an owner. What was said about it is remembered for a while.
    Idle,
    /// It has variables, but no owner: none can be made with its type.
    Unowned,
    /// It has an owner, and perhaps variables.
    Owned,
}

impl Phase {
    /// The phase when a variable has been made.
    pub(super) fn with_variable(self) -> Self {
        match self {
            Self::Idle | Self::Unowned => Self::Unowned,
            Self::Owned => Self::Owned,
        }
    }

    /// The phase when variables were freed and `live` are left.
    pub(super) fn with_variables(self, live: usize) -> Self {
        match self {
            Self::Unowned if live == 0 => Self::Idle,
            phase => phase,
        }
    }

    /// The phase when the last owner has left, and `live` variables.
    pub(super) fn without_owner(self, live: usize) -> Self {
        match self {
            Self::Owned => Self::Unowned.with_variables(live),
            phase => phase,
        }
    }
}

/// What of a record is read under RCU, too.
pub(super) struct Shared {
    /// Whether the phase is [`Phase::Owned`].
    owned: Atomic<bool>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            owned: Atomic::new(false),
        }
    }

    pub(super) fn set(&self, phase: Phase) {
        self.owned.store(phase == Phase::Owned, Relaxed);
    }

    pub(super) fn is_owned(&self) -> bool {
        self.owned.load(Relaxed)
    }
}

/// Some of an id's variables, the newest one first.
pub(super) type Variables = List<Name>;

/// What is known of an id, under the lock.
pub(super) struct Record {
    pub(super) phase: Phase,
    /// What belongs to the owners of the id.
    managed: Variables,
    /// What belongs to whoever made it.
    unmanaged: Variables,
    /// The number of variables on both.
    pub(super) live: usize,
    /// Whose code makes managed variables with any function.
    pub(super) users: KVec<User>,
    /// Whether it was said that there are variables of both kinds.
    told: bool,
    /// Whether tasks may use the managed variables for ever.
    pub(super) leaked: bool,
    /// The last walk that has come here, or need not.
    pub(super) walk: usize,
}

impl Record {
    /// Makes one that gets a variable or an owner at once.
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Unowned,
            managed: Variables::new(),
            unmanaged: Variables::new(),
            live: 0,
            users: KVec::new(),
            told: false,
            leaked: false,
            walk: 0,
        }
    }

    /// The variables that are managed, or those that are not.
    pub(super) fn list(&mut self, managed: bool) -> &mut Variables {
        match managed {
            true => &mut self.managed,
            false => &mut self.unmanaged,
        }
    }

    /// Whether the id has an owner.
    pub(super) fn is_owned(&self) -> bool {
        self.phase == Phase::Owned
    }

    /// Whether this must not be forgotten before others.
    pub(super) fn has_news(&self) -> bool {
        self.told || self.leaked
    }

    /// Whether variables that `caller` makes, and not with their type, are managed.
    pub(super) fn is_user(&self, caller: Caller) -> bool {
        self.users.iter().any(|user| {
            user.module()
                .memory()
                .any(|range| range.contains(&caller.0))
        })
    }

    /// Whether the id has come to be used in both ways, and that is still to be said.
    pub(super) fn becomes_mixed(&mut self) -> bool {
        self.is_owned() && !self.unmanaged.is_empty() && !core::mem::replace(&mut self.told, true)
    }

    /// Keeps the managed variables from being freed. Returns whether that is to be said.
    pub(super) fn leak(&mut self) -> bool {
        !core::mem::replace(&mut self.leaked, true) && !self.managed.is_empty()
    }
}

/// Says that an id is used in both ways.
#[inline(never)]
pub(super) fn say_mixed(id: usize) {
    pr_warn!(
        "some shadow variables with id {} belong to livepatches that do not declare it\n",
        id
    );
}

/// The module of a livepatch with an `is_shadow` state.
///
/// # Invariants
///
/// While it is among the users of a record, the module is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct User(pub(crate) NonNull<bindings::module>);

// SAFETY: A module is tied to no thread.
unsafe impl Send for User {}
// SAFETY: As it is followed for addresses that do not change only, any number of threads may.
unsafe impl Sync for User {}

impl User {
    fn module(&self) -> &Module {
        // SAFETY: By the type invariant; those that are borrowed here are among a record's users.
        unsafe { Module::from_raw(self.0.as_ptr()) }
    }
}

/// An address in the code that calls, 0 if it did not say.
#[derive(Clone, Copy)]
pub(crate) struct Caller(pub(crate) usize);
