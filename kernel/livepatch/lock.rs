// SPDX-License-Identifier: GPL-2.0-or-later

//! `klp_mutex` as a type.
//!
//! [`Locked`] is the proof that the current thread holds the mutex. State of the core is in
//! [`Cell`]s, which are read and written as a whole, and in [`Shared`] values, which are borrowed
//! for as long as the proof is: `&Locked` lends for reading, `&mut Locked` for writing.
//!
//! Callbacks of livepatch modules run under the mutex and may call back into the core. They get in
//! with a fresh [`Locked`] that is only ever lent for reading; so whoever calls a callback must
//! have no more than `&Locked` in use, which the signatures of the callers enforce.
//!
//! Replaces `klp_mutex` of `core.c` and the rules in the comment on it.

use core::{
    cell::UnsafeCell,
    ops::{
        Deref,
        DerefMut, //
    },
};
use kernel::{
    sync::lock::mutex::MutexBackend,
    types::NotThreadSafe, //
};

/// Proof that the current thread holds `klp_mutex`.
pub(crate) struct Locked(NotThreadSafe);

impl Locked {
    /// Calls `f` with a proof for reading that the caller's caller vouches for.
    ///
    /// # Safety
    ///
    /// The current thread must hold `klp_mutex`, and not be inside a use of another `&mut Locked`.
    pub(crate) unsafe fn assume<R>(f: impl FnOnce(&Locked) -> R) -> R {
        f(&Locked(NotThreadSafe))
    }

    /// Calls `f` with a proof that the caller's caller vouches for.
    ///
    /// # Safety
    ///
    /// The current thread must hold `klp_mutex`, and not be inside a use of another [`Locked`].
    pub(crate) unsafe fn assume_mut<R>(f: impl FnOnce(&mut Locked) -> R) -> R {
        f(&mut Locked(NotThreadSafe))
    }
}

/// Holds `klp_mutex` and is the proof of it.
pub(crate) struct Guard {
    locked: Locked,
    _guard: kernel::sync::lock::Guard<'static, (), MutexBackend>,
}

/// Acquires `klp_mutex`. May sleep.
pub(crate) fn lock() -> Guard {
    Guard {
        _guard: crate::resident::mutex().lock(),
        locked: Locked(NotThreadSafe),
    }
}

impl Deref for Guard {
    type Target = Locked;

    fn deref(&self) -> &Locked {
        &self.locked
    }
}

impl DerefMut for Guard {
    fn deref_mut(&mut self) -> &mut Locked {
        &mut self.locked
    }
}

/// A small value that is protected by `klp_mutex`.
pub(crate) struct Cell<T: Copy>(UnsafeCell<T>);

// SAFETY: Accessed only under the mutex.
unsafe impl<T: Copy + Send> Sync for Cell<T> {}

impl<T: Copy> Cell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    pub(crate) fn get(&self, _locked: &Locked) -> T {
        // SAFETY: The mutex is held, and no reference to the value is ever handed out.
        unsafe { *self.0.get() }
    }

    pub(crate) fn set(&self, _locked: &Locked, value: T) {
        // SAFETY: As in `get()`.
        unsafe { *self.0.get() = value };
    }
}

/// A value that is protected by `klp_mutex` and borrowed with its proof.
pub(crate) struct Shared<T>(UnsafeCell<T>);

// SAFETY: Accessed only under the mutex, which passes the value between threads.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    pub(crate) fn borrow<'a>(&'a self, _locked: &'a Locked) -> &'a T {
        // SAFETY: The mutex is held, and a writer would need a `&mut Locked` for as long.
        unsafe { &*self.0.get() }
    }

    #[allow(
        clippy::mut_from_ref,
        reason = "the exclusive borrow is that of the proof"
    )]
    pub(crate) fn borrow_mut<'a>(&'a self, _locked: &'a mut Locked) -> &'a mut T {
        // SAFETY: The mutex is held, and no other borrow can live next to a `&mut Locked`.
        unsafe { &mut *self.0.get() }
    }
}

/// A value that is protected by `klp_mutex` and taken out while it is worked on.
///
/// Unlike [`Shared`], it can be changed while others are borrowed; a nested use finds it empty.
pub(crate) struct Owned<T: Default>(UnsafeCell<T>);

// SAFETY: Accessed only under the mutex, which passes the value between threads.
unsafe impl<T: Default + Send> Sync for Owned<T> {}

impl<T: Default> Owned<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Lends the value to `f`.
    pub(crate) fn with<R>(&self, _locked: &Locked, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: The mutex is held, and no reference to the place is ever handed out.
        let mut value = unsafe { self.0.get().replace(T::default()) };
        let result = f(&mut value);
        // SAFETY: As above.
        drop(unsafe { self.0.get().replace(value) });
        result
    }
}
