// SPDX-License-Identifier: GPL-2.0-or-later

//! Shadow variables: data that livepatches attach to objects of the kernel.
//!
//! A variable is found by the address of its object and an id. Readers run under RCU; whoever adds
//! or removes holds the lock, with interrupts off, and constructors and destructors are called
//! under it. Variables outlive the livepatch that made them: while there are any, the core stays.
//!
//! Answers to `shadow.c`.

use crate::hooks::shadow_lock;
use core::{
    cell::UnsafeCell,
    ptr::{
        null_mut,
        NonNull, //
    },
};
use kernel::{
    bindings,
    ffi::{
        c_int,
        c_void, //
    },
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
        rcu, //
    },
};

/// Initialises a new variable; called under the lock.
pub(crate) type Ctor = bindings::klp_shadow_ctor_t;
/// Undoes what a constructor did; called under the lock.
pub(crate) type Dtor = bindings::klp_shadow_dtor_t;

const BITS: u32 = 12;
const BUCKETS: usize = 1 << BITS;

/// What is in front of the data of a variable.
#[repr(C)]
struct Header {
    next: Atomic<*mut Header>,
    rcu: UnsafeCell<bindings::kvfree_rcu_head>,
    obj: *mut c_void,
    id: usize,
}

/// The heads of the chains of variables.
static TABLE: [Atomic<*mut Header>; BUCKETS] = [const { Atomic::new(null_mut()) }; BUCKETS];

/// The number of variables; changed under the lock.
static COUNT: Atomic<usize> = Atomic::new(0);

fn bucket(obj: *mut c_void) -> &'static Atomic<*mut Header> {
    let hash = obj
        .addr()
        .wrapping_mul(0x61c8_8646_80b5_83eb)
        .wrapping_shr(usize::BITS.wrapping_sub(BITS));
    // The index has as many bits as the table.
    TABLE.get(hash).unwrap_or(&TABLE[0])
}

impl Header {
    fn data(this: *mut Self) -> *mut c_void {
        this.wrapping_add(1).cast()
    }

    fn is(&self, obj: *mut c_void, id: usize) -> bool {
        self.obj == obj && self.id == id
    }
}

/// Looks for a variable in its chain.
///
/// # Safety
///
/// RCU or the lock must be held.
unsafe fn find(obj: *mut c_void, id: usize) -> Option<NonNull<Header>> {
    // Pairs with the release in `insert()`.
    let mut header = bucket(obj).load(Acquire);
    // SAFETY: Variables are freed after a grace period.
    while let Some(this) = unsafe { header.as_ref() } {
        if this.is(obj, id) {
            return NonNull::new(header);
        }
        header = this.next.load(Acquire);
    }
    None
}

/// Returns the data of a variable, or NULL.
pub(crate) fn get(obj: *mut c_void, id: usize) -> *mut c_void {
    let _guard = rcu::read_lock();
    // SAFETY: RCU is held.
    unsafe { find(obj, id) }.map_or(null_mut(), |header| Header::data(header.as_ptr()))
}

/// What to do about a variable that is there already.
#[derive(PartialEq, Eq)]
pub(crate) enum Existing {
    Return,
    Warn,
}

/// Returns the data of a new variable, or as `existing` says of the one that is there.
///
/// # Safety
///
/// `ctor` must be callable with interrupts off.
pub(crate) unsafe fn get_or_alloc(
    obj: *mut c_void,
    id: usize,
    size: usize,
    gfp: bindings::gfp_t,
    ctor: Ctor,
    ctor_data: *mut c_void,
    existing: Existing,
) -> *mut c_void {
    let exists = |data: *mut c_void| match existing {
        Existing::Return => data,
        Existing::Warn => {
            // SAFETY: The arguments are what the helper's format says.
            unsafe { bindings::klp_shadow_warn_duplicate(obj, id) };
            null_mut()
        }
    };
    let data = get(obj, id);
    if !data.is_null() {
        return exists(data);
    }

    let Some(size) = size.checked_add(size_of::<Header>()) else {
        return null_mut();
    };
    // SAFETY: No requirements; not under the lock, so `gfp` is the caller's business.
    let new = unsafe { bindings::klp_shadow_alloc_mem(size, gfp) }.cast::<Header>();
    if new.is_null() {
        return null_mut();
    }

    let guard = shadow_lock().lock();
    // SAFETY: The lock is held.
    if let Some(header) = unsafe { find(obj, id) } {
        drop(guard);
        // SAFETY: Nobody has seen the new variable.
        unsafe { bindings::kfree(new.cast()) };
        return exists(Header::data(header.as_ptr()));
    }
    // SAFETY: The memory is large enough, zeroed and ours.
    unsafe {
        (&raw mut (*new).obj).write(obj);
        (&raw mut (*new).id).write(id);
    }
    if let Some(ctor) = ctor {
        // SAFETY: By the caller's promise.
        let err: c_int = unsafe { ctor(obj, Header::data(new), ctor_data) };
        if err != 0 {
            drop(guard);
            // SAFETY: Nobody has seen the new variable.
            unsafe { bindings::kfree(new.cast()) };
            pr_err!(
                "Failed to construct shadow variable <{:p}, {:x}> ({})\n",
                obj,
                id,
                err
            );
            return null_mut();
        }
    }
    // SAFETY: The variable is initialised, and the lock is held.
    unsafe { insert(new) };
    drop(guard);
    Header::data(new)
}

/// # Safety
///
/// `new` must be initialised and not in the table; the lock must be held.
unsafe fn insert(new: *mut Header) {
    // SAFETY: By the caller's promise.
    let head = unsafe { bucket((*new).obj) };
    // SAFETY: As above.
    unsafe { &(*new).next }.store(head.load(Relaxed), Relaxed);
    // Pairs with the acquire in `find()`.
    head.store(new, Release);
    let count = COUNT.load(Relaxed);
    COUNT.store(count.wrapping_add(1), Relaxed);
    if count == 0 {
        // The caller's module depends on the core, so there is a reference already.
        //
        // SAFETY: As said.
        unsafe { bindings::__module_get(crate::this_module()) };
    }
}

/// Removes the variable that `link` leads to.
///
/// # Safety
///
/// The lock must be held, `link` lead to a variable, and `dtor` be callable with interrupts off.
unsafe fn remove(link: &Atomic<*mut Header>, dtor: Dtor) {
    let header = link.load(Relaxed);
    // SAFETY: By the caller's promise.
    let this = unsafe { &*header };
    // Readers that are at the removed variable go on from its own link.
    link.store(this.next.load(Relaxed), Release);
    if let Some(dtor) = dtor {
        // SAFETY: By the caller's promise.
        unsafe { dtor(this.obj, Header::data(header)) };
    }
    // SAFETY: The variable came from the slab allocator, and is gone for new readers.
    unsafe { bindings::kvfree_call_rcu(this.rcu.get(), header.cast()) };
    let count = COUNT.load(Relaxed).wrapping_sub(1);
    COUNT.store(count, Relaxed);
    if count == 0 {
        // SAFETY: Taken by `insert()`. The caller's module still depends on the core.
        unsafe { bindings::module_put(crate::this_module()) };
    }
}

/// Frees all variables of the chain that `matches`; at most one if `once`.
///
/// # Safety
///
/// The lock must be held, and `dtor` be callable with interrupts off.
unsafe fn free_in(
    mut link: &Atomic<*mut Header>,
    dtor: Dtor,
    once: bool,
    matches: impl Fn(&Header) -> bool,
) {
    // SAFETY: The lock is held, so what is in the table stays.
    while let Some(header) = unsafe { link.load(Relaxed).as_ref() } {
        if !matches(header) {
            link = &header.next;
            continue;
        }
        // SAFETY: By the caller's promise.
        unsafe { remove(link, dtor) };
        if once {
            return;
        }
    }
}

/// Frees the variable `<obj, id>`, if there is one.
///
/// # Safety
///
/// `dtor` must be callable with interrupts off.
pub(crate) unsafe fn free(obj: *mut c_void, id: usize, dtor: Dtor) {
    let _guard = shadow_lock().lock();
    // SAFETY: The lock is held, the rest is the caller's promise.
    unsafe { free_in(bucket(obj), dtor, true, |header| header.is(obj, id)) };
}

/// Frees all variables with `id`.
///
/// # Safety
///
/// `dtor` must be callable with interrupts off.
pub(crate) unsafe fn free_all(id: usize, dtor: Dtor) {
    let _guard = shadow_lock().lock();
    for head in &TABLE {
        // SAFETY: As in `free()`.
        unsafe { free_in(head, dtor, false, |header| header.id == id) };
    }
}
