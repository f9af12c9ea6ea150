// SPDX-License-Identifier: GPL-2.0-or-later

//! Making, finding and freeing variables, for those who know their object or just their id.

use super::{
    name::Name,
    record::{
        say_mixed,
        Caller,
        Record, //
    },
    store::{
        self,
        lock,
        NewRecord,
        NewVariable,
        Store,
        Variable,
        BATCH, //
    }, //
};
use core::ptr::null_mut;
use kernel::{
    alloc::Flags,
    bindings,
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    sync::rcu, //
};

/// Initialises a new variable; called under the lock.
pub(crate) type Ctor = bindings::klp_shadow_ctor_t;
/// Undoes what a constructor did.
pub(crate) type Dtor = bindings::klp_shadow_dtor_t;

/// What to do about a variable that is there already.
#[derive(PartialEq, Eq)]
pub(crate) enum Existing {
    Return,
    Warn,
}

/// A variable to add.
pub(crate) struct Request {
    /// The size of the data, in bytes.
    size: usize,
    gfp: bindings::gfp_t,
    ctor: Ctor,
    ctor_data: *mut c_void,
    existing: Existing,
    with: With,
}

/// How a variable is made, or variables are freed.
#[derive(Clone, Copy)]
pub(crate) enum With {
    /// By its type: it is managed, and its id must have an owner.
    Type,
    /// By its id, as in 7.3.
    Id(Caller),
}

/// Returns the data of a variable, or NULL.
#[inline(always)]
pub(crate) fn get(obj: *mut c_void, id: usize) -> *mut c_void {
    store::find(&rcu::read_lock(), Name::new(obj, id)).unwrap_or(null_mut())
}

impl Request {
    /// Asks for `size` bytes, allocated with `gfp`, that `ctor` initialises with `ctor_data`.
    pub(crate) fn new(
        with: With,
        size: usize,
        gfp: bindings::gfp_t,
        ctor: Ctor,
        ctor_data: *mut c_void,
        existing: Existing,
    ) -> Self {
        Self {
            size,
            gfp,
            ctor,
            ctor_data,
            existing,
            with,
        }
    }

    /// Whether the variable is to be managed; none if it must not be made.
    fn managed(&self, record: Option<&Record>) -> Option<bool> {
        match (self.with, record) {
            (With::Type, record) => record.is_some_and(Record::is_owned).then_some(true),
            (With::Id(caller), record) => Some(record.is_some_and(|record| record.is_user(caller))),
        }
    }

    /// Says that the id has no owner.
    #[cold]
    fn refuse(&self, id: usize) -> *mut c_void {
        let function = match self.existing {
            Existing::Return => "klp_shadow_type_get_or_alloc",
            Existing::Warn => "klp_shadow_type_alloc",
        };
        pr_err!(
            "{}: Trying to get shadow variable of non-registered type: {}\n",
            function,
            id
        );
        null_mut()
    }

    #[cold]
    fn exists(&self, obj: *mut c_void, id: usize, data: *mut c_void) -> *mut c_void {
        match self.existing {
            Existing::Return => data,
            Existing::Warn => {
                // SAFETY: The arguments are what the helper's format says.
                unsafe { bindings::klp_shadow_warn_duplicate(obj, id) };
                null_mut()
            }
        }
    }

    /// Constructs a variable. Returns what the constructor does.
    ///
    /// # Safety
    ///
    /// The constructor must be callable in the caller's context.
    unsafe fn construct(&self, new: &NewVariable) -> c_int {
        match self.ctor {
            // SAFETY: By the caller's promise; the data are as many bytes as were requested.
            Some(ctor) => unsafe {
                ctor(new.key().obj(), new.extra().as_ptr().cast(), self.ctor_data)
            },
            None => 0,
        }
    }

    /// Adds `new`, unless something is against it.
    ///
    /// # Safety
    ///
    /// The constructor must be callable with interrupts off.
    unsafe fn add(
        &self,
        store: &mut Store,
        new: &mut Option<NewVariable>,
        spare: &mut Option<NewRecord>,
    ) -> Option<Outcome> {
        let name = new.as_ref()?.key();
        if let Some(data) = store.data(name) {
            return Some(Outcome::Exists(data));
        }
        let record = store.record(name.id);
        let Some(managed) = self.managed(record.as_deref()) else {
            return Some(Outcome::Refused);
        };
        if record.is_none() && spare.is_none() {
            return Some(Outcome::NoRecord);
        }
        // SAFETY: By the caller's promise.
        let err = unsafe { self.construct(new.as_ref()?) };
        if err != 0 {
            return Some(Outcome::NotConstructed(err));
        }
        if store.record(name.id).is_none() {
            store.add_record(spare.take()?);
        }
        let data = store.add(new.take()?, managed)?;
        let is_mixed = store.record(name.id).is_some_and(Record::becomes_mixed);
        Some(Outcome::Made(data, is_mixed))
    }
}

/// What came of [`Request::add`].
enum Outcome {
    /// There is such a variable.
    Exists(*mut c_void),
    /// The id has no owner.
    Refused,
    /// The id has no record, nor is there a spare one.
    NoRecord,
    /// The constructor does not want it.
    NotConstructed(c_int),
    /// The variable is there, and perhaps that is to be said of its id.
    Made(*mut c_void, bool),
}

/// Returns the data of a new variable, or as `request` says of the one that is there.
///
/// # Safety
///
/// The constructor must be callable with interrupts off.
pub(crate) unsafe fn get_or_alloc(obj: *mut c_void, id: usize, request: &Request) -> *mut c_void {
    if matches!(request.with, With::Type) && !store::is_owned(id) {
        return request.refuse(id);
    }
    let data = get(obj, id);
    if !data.is_null() {
        return request.exists(obj, id, data);
    }

    let gfp = Flags::from_raw(request.gfp);
    let mut new = NewVariable::new(Name::new(obj, id), (), (), request.size, gfp).ok();
    let mut spare = None;
    loop {
        let outcome = lock().store().and_then(|store| {
            // SAFETY: By the caller's promise.
            unsafe { request.add(store, &mut new, &mut spare) }
        });
        match outcome {
            Some(Outcome::Made(data, is_mixed)) => {
                if is_mixed {
                    say_mixed(id);
                }
                return data;
            }
            Some(Outcome::Exists(data)) => return request.exists(obj, id, data),
            Some(Outcome::Refused) => return request.refuse(id),
            Some(Outcome::NotConstructed(err)) => {
                pr_err!(
                    "Failed to construct shadow variable <{:p}, {:x}> ({})\n",
                    obj,
                    id,
                    err
                );
                return null_mut();
            }
            Some(Outcome::NoRecord) => match store::new_record(id, gfp) {
                Ok(record) => spare = Some(record),
                Err(_) => return null_mut(),
            },
            // There is no memory for it, or no store.
            None => return null_mut(),
        }
    }
}

/// Undoes what the constructor of a variable did, and frees it.
///
/// # Safety
///
/// `dtor` must be callable in the caller's context.
pub(super) unsafe fn destroy(variable: Variable, dtor: Dtor) {
    if let Some(dtor) = dtor {
        // SAFETY: By the caller's promise. The data stay until the variable is dropped.
        unsafe { dtor(variable.key().obj(), variable.extra().as_ptr().cast()) };
    }
}

/// Frees the variable `<obj, id>`, if there is one.
///
/// # Safety
///
/// `dtor` must be callable with interrupts off.
pub(crate) unsafe fn free(obj: *mut c_void, id: usize, dtor: Dtor) {
    let mut locked = lock();
    let Some(store) = locked.store() else {
        return;
    };
    if let Some(variable) = store.remove(Name::new(obj, id)) {
        // SAFETY: By the caller's promise.
        unsafe { destroy(variable, dtor) };
        store.settle(id);
    }
}

/// Frees all variables with `id` of a kind, the oldest first: by their type the managed ones, by
/// their id the others. A livepatch that makes managed ones by their id frees both.
///
/// So a livepatch that tidies up as in 7.3 does not reach what belongs to others, for which its
/// destructor would be the wrong one. Ends when there are none. Those that are added at the same
/// time are freed, too, or not.
///
/// # Safety
///
/// `dtor` must be callable with interrupts off.
pub(crate) unsafe fn free_all(id: usize, dtor: Dtor, with: With) {
    let mut left = true;
    while left {
        let mut locked = lock();
        let Some(store) = locked.store() else {
            return;
        };
        let Some(record) = store.record(id) else {
            return;
        };
        let kinds: &[bool] = match with {
            With::Type => &[true],
            With::Id(caller) if record.is_user(caller) => &[true, false],
            With::Id(_) => &[false],
        };
        for _ in 0..BATCH {
            let variable = kinds
                .iter()
                .find_map(|&managed| store.remove_oldest(id, managed));
            let Some(variable) = variable else {
                left = false;
                break;
            };
            // SAFETY: By the caller's promise.
            unsafe { destroy(variable, dtor) };
        }
        store.settle(id);
    }
}

/// A copy of what a `struct klp_shadow_type` says.
pub(crate) struct Type {
    pub(crate) id: usize,
    pub(crate) ctor: Ctor,
    pub(crate) dtor: Dtor,
}

impl Type {
    /// Returns [`None`] for NULL and the id 0.
    ///
    /// # Safety
    ///
    /// `raw` must be valid or NULL.
    #[inline(always)]
    pub(crate) unsafe fn read(raw: *const bindings::klp_shadow_type) -> Option<Self> {
        // SAFETY: By the caller's promise.
        let raw = unsafe { raw.as_ref() }?;
        (raw.id != 0).then_some(Self {
            id: raw.id,
            ctor: raw.ctor,
            dtor: raw.dtor,
        })
    }
}
