// SPDX-License-Identifier: GPL-2.0-or-later

//! `klp_mutex` as a type.
//!
//! [`KlpLocked`] is the proof that the current thread holds the mutex. State of the core is in
//! [`LockedCell`]s, which are read and written as a whole, and in [`LockedBy`] values, which are
//! borrowed for as long as the proof is: `&KlpLocked` lends for reading, `&mut KlpLocked` for
//! writing.
//!
//! `GlobalLockedBy` of the tree does not do: it is borrowed through the guard itself, which
//! callbacks do not have, and its lock is a Rust static, which this one, of vmlinux, is not.
//!
//! Callbacks of livepatch modules run under the mutex and may call back into the core. They get in
//! with a fresh [`KlpLocked`] that is only ever lent for reading; so whoever calls a callback must
//! have no more than `&KlpLocked` in use, which the signatures of the callers enforce.
//!
//! Replaces `klp_mutex` of `core.c` and the rules in the comment on it.

use core::{
    cell::UnsafeCell,
    ops::{
        Deref,
        DerefMut, //
    }, //
};
use kernel::{
    sync::lock::mutex::MutexBackend,
    types::NotThreadSafe, //
};

/// Proof that the current thread holds `klp_mutex`.
pub(crate) struct KlpLocked(NotThreadSafe);

impl KlpLocked {
    /// Calls `f` with a proof for reading that the caller's caller vouches for.
    ///
    /// # Safety
    ///
    /// The current thread must hold `klp_mutex`, and not be inside a use of another
    /// `&mut KlpLocked`.
    pub(crate) unsafe fn assume<R>(f: impl FnOnce(&KlpLocked) -> R) -> R {
        f(&KlpLocked(NotThreadSafe))
    }

    /// Calls `f` with a proof that the caller's caller vouches for.
    ///
    /// # Safety
    ///
    /// The current thread must hold `klp_mutex`, and not be inside a use of another [`KlpLocked`].
    pub(crate) unsafe fn assume_mut<R>(f: impl FnOnce(&mut KlpLocked) -> R) -> R {
        f(&mut KlpLocked(NotThreadSafe))
    }
}

/// Holds `klp_mutex` and is the proof of it.
pub(crate) struct Guard {
    locked: KlpLocked,
    _guard: kernel::sync::lock::Guard<'static, (), MutexBackend>,
}

/// Acquires `klp_mutex`. May sleep.
pub(crate) fn lock() -> Guard {
    Guard {
        _guard: crate::resident::mutex().lock(),
        locked: KlpLocked(NotThreadSafe),
    }
}

impl Deref for Guard {
    type Target = KlpLocked;

    fn deref(&self) -> &KlpLocked {
        &self.locked
    }
}

impl DerefMut for Guard {
    fn deref_mut(&mut self) -> &mut KlpLocked {
        &mut self.locked
    }
}

/// A small value that is protected by `klp_mutex`.
pub(crate) struct LockedCell<T: Copy>(UnsafeCell<T>);

// SAFETY: Accessed only under the mutex.
unsafe impl<T: Copy + Send> Sync for LockedCell<T> {}

impl<T: Copy> LockedCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    pub(crate) fn get(&self, _locked: &KlpLocked) -> T {
        // SAFETY: The mutex is held, and no reference to the value is ever handed out.
        unsafe { *self.0.get() }
    }

    pub(crate) fn set(&self, _locked: &KlpLocked, value: T) {
        // SAFETY: As in `get()`.
        unsafe { *self.0.get() = value };
    }
}

/// A value that is protected by `klp_mutex` and borrowed with its proof.
pub(crate) struct LockedBy<T>(UnsafeCell<T>);

// SAFETY: Accessed only under the mutex, which passes the value between threads.
unsafe impl<T: Send> Sync for LockedBy<T> {}

impl<T> LockedBy<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    pub(crate) fn borrow<'a>(&'a self, _locked: &'a KlpLocked) -> &'a T {
        // SAFETY: The mutex is held, and a writer would need a `&mut KlpLocked` for as long.
        unsafe { &*self.0.get() }
    }

    #[allow(
        clippy::mut_from_ref,
        reason = "the exclusive borrow is that of the proof"
    )]
    pub(crate) fn borrow_mut<'a>(&'a self, _locked: &'a mut KlpLocked) -> &'a mut T {
        // SAFETY: The mutex is held, and no other borrow can live next to a `&mut KlpLocked`.
        unsafe { &mut *self.0.get() }
    }
}

/// A value that is protected by `klp_mutex` and taken out while it is worked on.
///
/// Unlike [`LockedBy`], it can be changed while others are borrowed; a nested use finds it empty.
pub(crate) struct TakeCell<T: Default>(UnsafeCell<T>);

// SAFETY: Accessed only under the mutex, which passes the value between threads.
unsafe impl<T: Default + Send> Sync for TakeCell<T> {}

impl<T: Default> TakeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Lends the value to `f`.
    pub(crate) fn with<R>(&self, _locked: &KlpLocked, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: The mutex is held, and no reference to the place is ever handed out.
        let mut value = unsafe { self.0.get().replace(T::default()) };
        let result = f(&mut value);
        // SAFETY: As above.
        drop(unsafe { self.0.get().replace(value) });
        result
    }
}
