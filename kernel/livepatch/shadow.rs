// SPDX-License-Identifier: GPL-2.0-or-later

//! Shadow variables: data that livepatches attach to objects of the kernel.
//!
//! A variable is found by the address of its object and an id, in a [table](crate::shadow_table)
//! that grows and shrinks. Readers run under RCU; whoever adds or removes holds the lock, with
//! interrupts off, and constructors and destructors that livepatches pass are called under it. All
//! that takes long lets go of the lock after every [`BATCH`] variables.
//!
//! Each id has a [`Record`] with the lists of its variables. A variable belongs either to whoever
//! made it, with a function of 7.3, and is freed by hand; or to the livepatches that declare its
//! id, and the core frees it when the last of them leaves. Such a *managed* variable was made with
//! its type, or by the code of a livepatch with an `is_shadow` state, which may use the functions
//! of 7.3 ([`Caller`] tells). Which it is stays as it was made. Owners [join](join) and
//! [part](part); an id that has none is [closed](close), and variables of its type cannot be made.
//!
//! Variables outlive the livepatch that made them: while there are any, the core stays.
//!
//! Answers to `shadow.c`.

use crate::{
    hooks::shadow_lock,
    shadow_table::{
        Buckets,
        Entry,
        Table,
        MIN_BITS, //
    },
};
use core::{
    cell::UnsafeCell,
    mem::MaybeUninit,
    ops::{
        Deref,
        DerefMut,
        Range, //
    },
    ptr::{
        null_mut,
        NonNull, //
    },
};
use kernel::{
    alloc::flags::__GFP_NOWARN,
    bindings,
    deferred::{
        self,
        Delayed,
        Run, //
    },
    ffi::{
        c_int,
        c_void, //
    },
    fmt,
    module_ref::Module,
    prelude::*,
    static_lock_class,
    sync::{
        atomic::{
            ordering::{
                Relaxed,
                Release, //
            },
            Atomic, //
        },
        lock::spinlock::SpinLockIrqGuard,
        rcu, //
    },
    time::{
        msecs_to_jiffies,
        Jiffies, //
    },
};

/// Initialises a new variable; called under the lock.
pub(crate) type Ctor = bindings::klp_shadow_ctor_t;
/// Undoes what a constructor did.
pub(crate) type Dtor = bindings::klp_shadow_dtor_t;

/// How many variables are freed, or looked at, before the lock is let go.
const BATCH: usize = 100;
/// How many buckets and variables a resize moves before the lock is let go.
const RESIZE_BATCH: usize = 500;
/// How many records of ids without variables are kept.
const MAX_IDLE: usize = 64;
/// When to try again to resize the table if there was no memory.
const RETRY_MS: u32 = 1000;

/// A pointer that readers follow under RCU, and that changes under the lock.
#[repr(transparent)]
pub(crate) struct Ptr<T>(Atomic<*mut T>);

impl<T> Ptr<T> {
    pub(crate) const fn null() -> Self {
        Self::new(null_mut())
    }

    pub(crate) const fn new(ptr: *mut T) -> Self {
        Self(Atomic::new(ptr))
    }

    /// Mirrors `rcu_dereference()`.
    #[inline(always)]
    pub(crate) fn load(&self) -> *mut T {
        // READ_ONCE(), without a call: what is read through the pointer depends on it for its
        // address, which orders it. Pairs with the release in `store()`.
        //
        // SAFETY: Valid for reads; all concurrent writes are atomic.
        unsafe { self.0.as_ptr().read_volatile() }
    }

    /// Mirrors `rcu_assign_pointer()`.
    pub(crate) fn store(&self, ptr: *mut T) {
        // Pairs with the dependency on `load()`.
        self.0.store(ptr, Release);
    }
}

// SAFETY: A NULL pointer.
unsafe impl<T> Zeroable for Ptr<T> {}

/// What is in front of the data of a variable. Has the size that it has in the C core.
#[repr(C)]
struct Header {
    entry: Entry,
    place: UnsafeCell<Place>,
}

/// Where a variable, or record, is besides the table.
#[repr(C)]
union Place {
    /// As long as it is on a list.
    links: Links,
    /// When it is freed.
    rcu: bindings::kvfree_rcu_head,
}

#[derive(Clone, Copy)]
struct Links {
    prev: *mut Header,
    next: *mut Header,
}

impl Header {
    /// # Safety
    ///
    /// `this` must be valid for writes.
    unsafe fn init(this: *mut Self, obj: *mut c_void, id: usize) {
        let links = Links {
            prev: null_mut(),
            next: null_mut(),
        };
        // SAFETY: By the caller's promise.
        unsafe {
            this.write(Header {
                entry: Entry {
                    next: [const { Ptr::null() }; 2],
                    obj,
                    id,
                },
                place: UnsafeCell::new(Place { links }),
            });
        }
    }

    fn data(this: *mut Self) -> *mut c_void {
        this.wrapping_add(1).cast()
    }

    /// # Safety
    ///
    /// `this` must be valid and not be freed; the lock held, or its list be the caller's.
    #[allow(
        clippy::mut_from_ref,
        reason = "the lock makes it exclusive, as the caller promises"
    )]
    unsafe fn links<'a>(this: *mut Self) -> &'a mut Links {
        // SAFETY: By the caller's promise; the union has links from `init()` to `release()`.
        unsafe { &mut (*(*this).place.get()).links }
    }

    /// Frees the memory after a grace period.
    ///
    /// # Safety
    ///
    /// `this` must be in the table and on a list no more.
    unsafe fn release(this: *mut Self) {
        // SAFETY: The memory came from the slab allocator, and is gone for new readers.
        unsafe { bindings::kvfree_call_rcu(&raw mut (*(*this).place.get()).rcu, this.cast()) };
    }

    /// # Safety
    ///
    /// The variable must be valid, and `dtor` callable in the caller's context.
    unsafe fn destroy(this: *mut Self, dtor: Dtor) {
        if let Some(dtor) = dtor {
            // SAFETY: By the caller's promise.
            unsafe { dtor((*this).entry.obj, Header::data(this)) };
        }
    }
}

/// A list of variables or records. Those that are on it are valid, and on no other one.
struct List {
    first: *mut Header,
    last: *mut Header,
}

impl List {
    const fn new() -> Self {
        Self {
            first: null_mut(),
            last: null_mut(),
        }
    }

    /// # Safety
    ///
    /// `header` must be valid and on no list, `next` on this one or NULL.
    unsafe fn insert_before(&mut self, header: *mut Header, next: *mut Header) {
        // SAFETY: By the caller's promise.
        unsafe {
            let prev = match next.is_null() {
                true => core::mem::replace(&mut self.last, header),
                false => core::mem::replace(&mut Header::links(next).prev, header),
            };
            match prev.is_null() {
                true => self.first = header,
                false => Header::links(prev).next = header,
            }
            *Header::links(header) = Links { prev, next };
        }
    }

    /// # Safety
    ///
    /// As for [`Self::insert_before`].
    unsafe fn push_front(&mut self, header: *mut Header) {
        // SAFETY: By the caller's promise.
        unsafe { self.insert_before(header, self.first) };
    }

    /// # Safety
    ///
    /// As for [`Self::insert_before`].
    unsafe fn push_back(&mut self, header: *mut Header) {
        // SAFETY: By the caller's promise.
        unsafe { self.insert_before(header, null_mut()) };
    }

    /// Whether `header` is the first or the last one.
    fn ends_with(&self, header: *mut Header) -> bool {
        core::ptr::eq(self.first, header) || core::ptr::eq(self.last, header)
    }

    /// # Safety
    ///
    /// `header` must be on this list, or on another one that does not [end](Self::ends_with) with
    /// it.
    unsafe fn remove(&mut self, header: *mut Header) {
        // SAFETY: By the caller's promise.
        unsafe {
            let Links { prev, next } = *Header::links(header);
            match prev.is_null() {
                true => self.first = next,
                false => Header::links(prev).next = next,
            }
            match next.is_null() {
                true => self.last = prev,
                false => Header::links(next).prev = prev,
            }
        }
    }
}

/// What is known of an id. In the table like a variable, as that of [`record_key`].
#[repr(C)]
struct Record {
    /// On the list of idle records or on that of the others.
    header: Header,
    /// What belongs to the owners of the id. The newest one is the first.
    managed: List,
    /// What belongs to whoever made it. The newest one is the first.
    unmanaged: List,
    /// The number of variables on both.
    live: usize,
    /// Whose code makes managed variables with any function.
    users: KVec<User>,
    /// Whether the id has an owner; also read under RCU.
    open: Atomic<bool>,
    /// Whether it was said that there are variables of both kinds.
    told: bool,
    /// Whether this is on the list of idle records.
    idle: bool,
    /// Whether tasks may use the managed variables for ever.
    leaked: bool,
}

impl Record {
    /// Whether this must not be forgotten before others.
    fn has_news(&self) -> bool {
        self.told || self.leaked
    }

    /// Whether variables that `caller` makes, and not with their type, are managed.
    ///
    /// # Safety
    ///
    /// The record must be in the table, and the lock held.
    unsafe fn is_user(&self, caller: Caller) -> bool {
        self.users.iter().any(|user| {
            // SAFETY: The module is held until `part()`.
            let module = unsafe { Module::from_raw(user.0.as_ptr()) };
            module.memory().any(|range| range.contains(&caller.0))
        })
    }

    /// Whether the id has come to be used in both ways, and that is still to be said.
    fn becomes_mixed(&mut self) -> bool {
        self.open.load(Relaxed)
            && !self.unmanaged.first.is_null()
            && !core::mem::replace(&mut self.told, true)
    }
}

/// Says that an id is used in both ways.
fn say_mixed(id: usize) {
    pr_warn!(
        "some shadow variables with id {} belong to livepatches that do not declare it\n",
        id
    );
}

/// The module of a livepatch with an `is_shadow` state.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct User(pub(crate) NonNull<bindings::module>);

// SAFETY: Followed only as long as the module is held, from `join()` to `part()`.
unsafe impl Send for User {}
// SAFETY: As above.
unsafe impl Sync for User {}

/// An address in the code that calls, 0 if it did not say.
#[derive(Clone, Copy)]
pub(crate) struct Caller(pub(crate) usize);

/// What stands for the object of records: an address that no object has.
fn record_key() -> *mut c_void {
    (&raw const TABLE).cast_mut().cast()
}

static EMPTY: [Ptr<Entry>; 2] = [const { Ptr::null() }; 2];
static NOTHING: Buckets = Buckets::nothing(&raw const EMPTY);
static TABLE: Table = Table::new(&NOTHING, Ptr::new((&raw const NOTHING).cast_mut()));

/// What is protected by the lock, besides table and records.
struct Store {
    /// Records of ids with variables or owners.
    used: List,
    /// Records that nobody needs, but that say what was told. Those to drop first are the first.
    idle: List,
    nr_idle: usize,
    /// The number of variables with any id.
    variables: usize,
    /// Resizes the table; there while the table is.
    work: Option<Pin<KBox<Delayed<Resize>>>>,
    /// Whether the work was requested, or runs.
    requested: bool,
    /// Whether there was no memory the last time.
    no_memory: bool,
}

struct Protected(UnsafeCell<Store>);

// SAFETY: Accessed only under the lock.
unsafe impl Sync for Protected {}

static STORE: Protected = Protected(UnsafeCell::new(Store {
    used: List::new(),
    idle: List::new(),
    nr_idle: 0,
    variables: 0,
    work: None,
    requested: false,
    no_memory: false,
}));

/// Holds the lock.
struct Locked {
    _guard: SpinLockIrqGuard<'static, ()>,
}

fn lock() -> Locked {
    Locked {
        _guard: shadow_lock().lock(),
    }
}

impl Deref for Locked {
    type Target = Store;

    fn deref(&self) -> &Store {
        // SAFETY: The lock is held, and `self` is borrowed for as long.
        unsafe { &*STORE.0.get() }
    }
}

impl DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut Store {
        // SAFETY: As above; the borrow of `self` is exclusive.
        unsafe { &mut *STORE.0.get() }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: The lock is held.
        if self.requested || unsafe { TABLE.wanted() }.is_none() {
            return;
        }
        // Not at once, which would wake a worker: the caller may hold locks of the scheduler, as
        // with kfree_rcu(), and so may somebody who waits for ours.
        let delay = match self.no_memory {
            true => msecs_to_jiffies(RETRY_MS),
            false => 1 as Jiffies,
        };
        let requested = match &self.work {
            Some(work) => {
                work.schedule(deferred::system_unbound(), delay);
                true
            }
            None => false,
        };
        self.requested = requested;
    }
}

impl Store {
    /// Returns the record of `id`, or NULL.
    fn record(&self, id: usize) -> *mut Record {
        // SAFETY: Who has the store holds the lock. The entry of a record is its first field, and
        // has as much provenance as it was inserted with.
        unsafe { TABLE.find(record_key(), id) }.cast()
    }

    /// Makes a record of `memory`. The table must be there, without such a record.
    fn add_record(&mut self, id: usize, memory: Memory) -> *mut Record {
        let record = memory.into_raw().cast::<Record>();
        // SAFETY: The memory is large enough, zeroed (which is right for the rest) and ours; it
        // stays until `settle()` or `exit()`.
        unsafe {
            Header::init(record.cast(), record_key(), id);
            (&raw mut (*record).managed).write(List::new());
            (&raw mut (*record).unmanaged).write(List::new());
            (&raw mut (*record).users).write(KVec::new());
            TABLE.insert(record.cast());
            self.used.push_back(record.cast());
        }
        record
    }

    /// Adds a variable, `managed` or not, to its id.
    ///
    /// # Safety
    ///
    /// `record` must be in the table, `header` initialised, and its object have no such variable.
    unsafe fn insert(&mut self, record: *mut Record, header: *mut Header, managed: bool) {
        // SAFETY: By the caller's promise.
        unsafe { self.wake(record) };
        // SAFETY: By the caller's promise; the memory stays until `remove()` and a grace period.
        unsafe {
            TABLE.insert(header.cast());
            match managed {
                true => (*record).managed.push_front(header),
                false => (*record).unmanaged.push_front(header),
            }
            (*record).live = (*record).live.wrapping_add(1);
        }
        if self.variables == 0 {
            // The caller's module depends on the core, so there is a reference already.
            //
            // SAFETY: As said.
            unsafe { bindings::__module_get(crate::this_module()) };
        }
        self.variables = self.variables.wrapping_add(1);
    }

    /// Removes a variable; readers may still be at it.
    ///
    /// # Safety
    ///
    /// `header` must be a variable of `record`.
    unsafe fn remove(&mut self, record: *mut Record, header: *mut Header) {
        // SAFETY: By the caller's promise. The second list will do unless the first one ends with
        // the variable.
        unsafe {
            TABLE.remove(header.cast());
            match (*record).managed.ends_with(header) {
                true => (*record).managed.remove(header),
                false => (*record).unmanaged.remove(header),
            }
            (*record).live = (*record).live.wrapping_sub(1);
        }
        self.variables = self.variables.wrapping_sub(1);
        if self.variables == 0 {
            // SAFETY: Taken by `insert()`. The caller's module still depends on the core.
            unsafe { bindings::module_put(crate::this_module()) };
        }
    }

    /// Takes a record off the list of idle ones.
    ///
    /// # Safety
    ///
    /// `record` must be in the table.
    unsafe fn wake(&mut self, record: *mut Record) {
        // SAFETY: By the caller's promise, and `idle` says what list it is on.
        unsafe {
            if (*record).idle {
                self.idle.remove(record.cast());
                self.nr_idle = self.nr_idle.wrapping_sub(1);
                (*record).idle = false;
                self.used.push_back(record.cast());
            }
        }
    }

    /// Puts a record that has no more use on the list of idle ones; it may be gone then.
    ///
    /// # Safety
    ///
    /// `record` must be in the table.
    unsafe fn settle(&mut self, record: *mut Record) {
        // SAFETY: By the caller's promise; `idle` says what list the record is on.
        unsafe {
            if (*record).live != 0 || (*record).open.load(Relaxed) || (*record).idle {
                return;
            }
            self.used.remove(record.cast());
            match (*record).has_news() {
                true => self.idle.push_back(record.cast()),
                false => self.idle.push_front(record.cast()),
            }
            (*record).idle = true;
        }
        self.nr_idle = self.nr_idle.wrapping_add(1);
        if self.nr_idle > MAX_IDLE {
            let first = self.idle.first;
            // SAFETY: The record is on this list, and then on none; it has neither variables nor,
            // as nobody owns the id, users.
            unsafe {
                self.idle.remove(first);
                TABLE.remove(first.cast());
                Header::release(first);
            }
            self.nr_idle = self.nr_idle.wrapping_sub(1);
        }
    }

    /// Moves `place` on the list of used records, by one [`BATCH`] at most, behind the next one
    /// that has no owner. Returns its id and number of variables, and whether the list ends there.
    ///
    /// # Safety
    ///
    /// `place` must be on the list, and all others on it be records.
    unsafe fn next_unowned(&mut self, place: *mut Header) -> (Option<(usize, usize)>, bool) {
        for _ in 0..BATCH {
            // SAFETY: What is on the list is valid under the lock; the rest is the caller's
            // promise.
            unsafe {
                let next = Header::links(place).next;
                let Some(record) = next.cast::<Record>().as_ref() else {
                    return (None, true);
                };
                self.used.remove(place);
                self.used.insert_before(place, Header::links(next).next);
                if !record.open.load(Relaxed) {
                    return (Some((record.header.entry.id, record.live)), false);
                }
            }
        }
        (None, false)
    }
}

/// Zeroed memory of the slab allocator that nobody has seen.
struct Memory(NonNull<c_void>);

impl Memory {
    fn new(size: usize, gfp: bindings::gfp_t) -> Option<Self> {
        // SAFETY: No requirements; not under the lock, so `gfp` is the caller's business.
        NonNull::new(unsafe { bindings::klp_shadow_alloc_mem(size, gfp) }).map(Self)
    }

    fn into_raw(self) -> *mut c_void {
        core::mem::ManuallyDrop::new(self).0.as_ptr()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: It is ours.
        unsafe { bindings::kfree(self.0.as_ptr()) };
    }
}

/// Resizes the table.
struct Resize;

impl Run for Resize {
    fn run() {
        while let Some(bits) = Self::next() {
            let Ok(heads) = new_buckets(bits) else {
                let mut store = lock();
                store.no_memory = true;
                store.requested = false;
                return;
            };
            // SAFETY: The lock is held, nobody else resizes, and the buckets are ours to give. The
            // last resize ended with a grace period, below.
            unsafe { with_lock(|table| table.begin(heads, bits)) };
            // SAFETY: The lock is held, and the resize under way.
            while !unsafe { with_lock(|table| table.step(RESIZE_BATCH)) } {}
            // SAFETY: As above, and all steps are done.
            let (old, old_bits) = unsafe { with_lock(|table| table.publish()) };
            rcu::synchronize_rcu();
            // SAFETY: No reader is left in the old buckets, which are given back.
            unsafe { free_buckets(old, old_bits) };
        }
    }
}

impl Resize {
    /// What to resize to; otherwise the work is done.
    fn next() -> Option<u32> {
        let mut store = lock();
        // SAFETY: The lock is held.
        let bits = unsafe { TABLE.wanted() };
        store.requested = bits.is_some();
        store.no_memory = false;
        bits
    }
}

fn with_lock<R>(f: impl FnOnce(&Table) -> R) -> R {
    let _store = lock();
    f(&TABLE)
}

/// Allocates 2 to the power of `bits` empty buckets. May sleep.
fn new_buckets(bits: u32) -> Result<*const Ptr<Entry>> {
    let size = 1usize.checked_shl(bits).ok_or(EINVAL)?;
    let (heads, _, _) = KVVec::zeroed(size, GFP_KERNEL | __GFP_NOWARN)?.into_raw_parts();
    Ok(heads)
}

/// # Safety
///
/// `heads` must be from [`new_buckets`] with `bits` and used by nobody, or NULL.
unsafe fn free_buckets(heads: *const Ptr<Entry>, bits: u32) {
    if !heads.is_null() {
        let size = 1usize.wrapping_shl(bits);
        // SAFETY: By the caller's promise. The allocator needs no more than the pointer and the
        // kind; the elements need no drop.
        drop(unsafe { KVVec::from_raw_parts(heads.cast_mut(), size, size) });
    }
}

/// Sets up the table.
///
/// # Errors
///
/// [`ENOMEM`]; then [`exit`] must be called as well.
pub(crate) fn init() -> Result {
    let work = KBox::pin_init(
        Delayed::new(
            c"livepatch::shadow",
            static_lock_class!(),
            static_lock_class!(),
        ),
        GFP_KERNEL,
    )?;
    let heads = new_buckets(MIN_BITS)?;
    let mut store = lock();
    // SAFETY: The lock is held, and this is the first array, with nothing to copy into it.
    unsafe {
        TABLE.begin(heads, MIN_BITS);
        TABLE.publish();
    }
    store.work = Some(work);
    Ok(())
}

/// Undoes [`init()`]. Nobody uses shadow variables any more, and there are none.
pub(crate) fn exit() {
    let work = lock().work.take();
    // Waits for a resize, which takes the lock.
    drop(work);

    let mut store = lock();
    store.used = List::new();
    store.idle = List::new();
    store.nr_idle = 0;
    // SAFETY: There is no other user. What is left are records, each from the slab allocator.
    let (heads, bits) = unsafe { TABLE.take(|entry| bindings::kfree(entry.cast())) };
    drop(store);
    // SAFETY: The table has given them back.
    unsafe { free_buckets(heads, bits) };
}

/// As [`rcu::read_lock()`], which goes by way of a helper: that costs [`get`] a tenth.
#[cfg(all(CONFIG_PREEMPT_RCU, not(CONFIG_DEBUG_LOCK_ALLOC)))]
#[inline(always)]
fn read_lock() -> impl Drop {
    struct Guard;

    impl Drop for Guard {
        #[inline(always)]
        fn drop(&mut self) {
            // SAFETY: The guard stands for a section that was begun.
            unsafe { bindings::__rcu_read_unlock() };
        }
    }

    // SAFETY: No requirements; ended by the guard.
    unsafe { bindings::__rcu_read_lock() };
    Guard
}

/// As [`rcu::read_lock()`].
#[cfg(not(all(CONFIG_PREEMPT_RCU, not(CONFIG_DEBUG_LOCK_ALLOC))))]
fn read_lock() -> rcu::Guard {
    rcu::read_lock()
}

/// Returns the data of a variable, or NULL.
#[inline(always)]
pub(crate) fn get(obj: *mut c_void, id: usize) -> *mut c_void {
    let _guard = read_lock();
    // SAFETY: RCU is held; what is removed is freed after a grace period.
    let header = unsafe { TABLE.find(obj, id) }.cast::<Header>();
    if header.is_null() {
        return null_mut();
    }
    Header::data(header)
}

/// Whether `id` has an owner.
fn is_open(id: usize) -> bool {
    let _guard = rcu::read_lock();
    // SAFETY: RCU is held; what is found with this key are records.
    let record = unsafe { TABLE.find(record_key(), id) }.cast::<Record>();
    // SAFETY: As above; the field may be read without the lock.
    !record.is_null() && unsafe { (*record).open.load(Relaxed) }
}

/// What to do about a variable that is there already.
#[derive(PartialEq, Eq)]
pub(crate) enum Existing {
    Return,
    Warn,
}

/// A variable to add.
pub(crate) struct Request {
    /// The size of the data, in bytes.
    pub(crate) size: usize,
    pub(crate) gfp: bindings::gfp_t,
    pub(crate) ctor: Ctor,
    pub(crate) ctor_data: *mut c_void,
    pub(crate) existing: Existing,
    pub(crate) with: With,
}

/// How a variable is made, or variables are freed.
#[derive(Clone, Copy)]
pub(crate) enum With {
    /// By its type: it is managed, and its id must have an owner.
    Type,
    /// By its id, as in 7.3.
    Id(Caller),
}

impl Request {
    /// Says that the id is not open.
    fn refuse(&self, id: usize) {
        let function = match self.existing {
            Existing::Return => "klp_shadow_type_get_or_alloc",
            Existing::Warn => "klp_shadow_type_alloc",
        };
        pr_err!(
            "{}: Trying to get shadow variable of non-registered type: {}\n",
            function,
            id
        );
    }

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
}

/// Returns the data of a new variable, or as `request` says of the one that is there.
///
/// # Safety
///
/// The constructor must be callable with interrupts off.
pub(crate) unsafe fn get_or_alloc(obj: *mut c_void, id: usize, request: &Request) -> *mut c_void {
    let typed = matches!(request.with, With::Type);
    if typed && !is_open(id) {
        request.refuse(id);
        return null_mut();
    }
    let data = get(obj, id);
    if !data.is_null() {
        return request.exists(obj, id, data);
    }

    let Some(size) = request.size.checked_add(size_of::<Header>()) else {
        return null_mut();
    };
    let Some(new) = Memory::new(size, request.gfp) else {
        return null_mut();
    };
    let mut spare = None;
    loop {
        let mut store = lock();
        if store.work.is_none() {
            return null_mut();
        }
        // SAFETY: The lock is held.
        let found = unsafe { TABLE.find(obj, id) };
        if !found.is_null() {
            drop(store);
            return request.exists(obj, id, Header::data(found.cast()));
        }
        let mut record = store.record(id);
        // SAFETY: The record, if there is one, is valid under the lock.
        let managed = match (request.with, unsafe { record.as_ref() }) {
            (With::Type, Some(record)) if record.open.load(Relaxed) => true,
            (With::Type, _) => {
                drop(store);
                request.refuse(id);
                return null_mut();
            }
            // SAFETY: As above.
            (With::Id(caller), Some(record)) => unsafe { record.is_user(caller) },
            (With::Id(_), None) => false,
        };
        if record.is_null() && spare.is_none() {
            drop(store);
            spare = Memory::new(size_of::<Record>(), request.gfp);
            if spare.is_none() {
                return null_mut();
            }
            continue;
        }

        let header = new.0.as_ptr().cast::<Header>();
        // SAFETY: The memory is large enough and ours.
        unsafe { Header::init(header, obj, id) };
        if let Some(ctor) = request.ctor {
            // SAFETY: By the caller's promise.
            let err: c_int = unsafe { ctor(obj, Header::data(header), request.ctor_data) };
            if err != 0 {
                drop(store);
                pr_err!(
                    "Failed to construct shadow variable <{:p}, {:x}> ({})\n",
                    obj,
                    id,
                    err
                );
                return null_mut();
            }
        }
        if let Some(memory) = spare.take_if(|_| record.is_null()) {
            record = store.add_record(id, memory);
        }
        let header = new.into_raw().cast::<Header>();
        // SAFETY: The record is there, the variable initialised and, as was seen, not there yet.
        let mixed = unsafe {
            store.insert(record, header, managed);
            (*record).becomes_mixed()
        };
        drop(store);
        if mixed {
            say_mixed(id);
        }
        return Header::data(header);
    }
}

/// Frees the variable `<obj, id>`, if there is one.
///
/// # Safety
///
/// `dtor` must be callable with interrupts off.
pub(crate) unsafe fn free(obj: *mut c_void, id: usize, dtor: Dtor) {
    let mut store = lock();
    // SAFETY: The lock is held.
    let header = unsafe { TABLE.find(obj, id) }.cast::<Header>();
    let record = store.record(id);
    if header.is_null() || record.is_null() {
        return;
    }
    // SAFETY: A variable of the record; the rest is the caller's promise.
    unsafe {
        store.remove(record, header);
        Header::destroy(header, dtor);
        Header::release(header);
    }
    // SAFETY: Found in the table, under the lock that is held since.
    unsafe { store.settle(record) };
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
    loop {
        let mut store = lock();
        let record = store.record(id);
        // SAFETY: The record, if there is one, is valid under the lock.
        let (managed, unmanaged) = match (with, unsafe { record.as_ref() }) {
            (_, None) => return,
            (With::Type, _) => (true, false),
            // SAFETY: As above.
            (With::Id(caller), Some(record)) => (unsafe { record.is_user(caller) }, true),
        };
        for _ in 0..BATCH {
            // SAFETY: The record is valid under the lock.
            let (first, second) = unsafe { ((*record).managed.last, (*record).unmanaged.last) };
            let header = match (managed && !first.is_null(), unmanaged) {
                (true, _) => first,
                (false, true) => second,
                (false, false) => null_mut(),
            };
            if header.is_null() {
                // SAFETY: Found in the table, under the lock that is held since.
                unsafe { store.settle(record) };
                return;
            }
            // SAFETY: As in `free()`.
            unsafe {
                store.remove(record, header);
                Header::destroy(header, dtor);
                Header::release(header);
            }
        }
    }
}

/// Makes variables of the type `id` possible: an owner has come, the first or another one. What the
/// code of `user` makes by the id is managed, too. May sleep.
///
/// Variables that are there already stay what they are.
///
/// # Errors
///
/// [`ENOMEM`], and [`ENODEV`] before [`init()`]; nothing has changed then.
///
/// # Safety
///
/// The module of `user` must be held until [`part()`].
pub(crate) unsafe fn join(id: usize, user: Option<User>) -> Result {
    let mut memory = Some(Memory::new(size_of::<Record>(), bindings::GFP_KERNEL).ok_or(ENOMEM)?);
    let mut users = KVec::new();
    loop {
        let mut store = lock();
        if store.work.is_none() {
            drop(store);
            return Err(ENODEV);
        }
        let mut record = store.record(id);
        if let Some(user) = user {
            // SAFETY: The record, if there is one, is valid under the lock.
            let known = unsafe { record.as_ref() }.map_or(&[][..], |record| &record.users[..]);
            let needed = known.len().saturating_add(1);
            if users.capacity() < needed {
                drop(store);
                users.reserve(needed, GFP_KERNEL)?;
                continue;
            }
            for &user in Iterator::chain(known.iter(), &[user]) {
                // There is room, as was seen.
                let _ = users.push_within_capacity(user);
            }
        }
        if let Some(memory) = memory.take_if(|_| record.is_null()) {
            record = store.add_record(id, memory);
        }
        // SAFETY: Found in the table, or put there, under the lock that is held.
        unsafe { store.wake(record) };
        // SAFETY: The record is valid under the lock.
        let mixed = unsafe {
            if user.is_some() {
                core::mem::swap(&mut (*record).users, &mut users);
            }
            (*record).open.store(true, Relaxed);
            (*record).becomes_mixed()
        };
        drop(store);
        if mixed {
            say_mixed(id);
        }
        return Ok(());
    }
}

/// Undoes [`join()`] of one owner: what the code of `user` makes from now on is its own.
pub(crate) fn part(id: usize, user: Option<User>) {
    let store = lock();
    let record = store.record(id);
    // SAFETY: Records are valid under the lock.
    if let (Some(record), Some(user)) = (unsafe { record.as_mut() }, user) {
        record.users.retain(|other| *other != user);
        if record.users.is_empty() {
            record.users = KVec::new();
        }
    }
}

/// Refuses further variables of the type `id`: its last owner has left.
///
/// The managed ones that are there stay until they are [collected](collect).
pub(crate) fn close(id: usize) {
    let mut store = lock();
    let record = store.record(id);
    if record.is_null() {
        return;
    }
    // SAFETY: The record is valid under the lock.
    unsafe { (*record).open.store(false, Relaxed) };
    // SAFETY: Found in the table, under the lock that is held since.
    unsafe { store.settle(record) };
}

/// Never frees a managed variable with `id` again: tasks may use them for ever. Says so, if there
/// are any, and `after` what.
pub(crate) fn leak(id: usize, after: &str) {
    let store = lock();
    let record = store.record(id);
    // SAFETY: The record is valid under the lock.
    let Some(record) = (unsafe { record.as_mut() }) else {
        return;
    };
    let news = !core::mem::replace(&mut record.leaked, true) && !record.managed.first.is_null();
    drop(store);
    if news {
        pr_warn!(
            "shadow variables with id {} are never freed, after {}\n",
            id,
            after
        );
    }
}

/// Returns the number of variables with `id`.
pub(crate) fn live(id: usize) -> usize {
    let store = lock();
    // SAFETY: Records are valid under the lock.
    unsafe { store.record(id).as_ref() }.map_or(0, |record| record.live)
}

/// Calls `f` with each id that has variables but no owner, and with their number. May sleep.
///
/// # Errors
///
/// That of `f`, which ends it.
pub(crate) fn for_each_unowned(
    _locked: &crate::lock::Locked,
    mut f: impl FnMut(usize, usize) -> fmt::Result,
) -> fmt::Result {
    // A place on the list that stays when the lock is let go. There is no other one, as the mutex
    // is held.
    let mut place = MaybeUninit::<Header>::uninit();
    let place = place.as_mut_ptr();
    let mut store = lock();
    // SAFETY: The place is ours, and on no list; it leaves this one in any case.
    unsafe {
        Header::init(place, null_mut(), 0);
        store.used.push_front(place);
    }
    loop {
        // SAFETY: The place is on the list.
        let (found, end) = unsafe { store.next_unowned(place) };
        drop(store);
        let result = found.map_or(Ok(()), |(id, live)| f(id, live));
        store = lock();
        if end || result.is_err() {
            // SAFETY: As above.
            unsafe { store.used.remove(place) };
            return result;
        }
    }
}

/// Frees all managed variables with `id`, the oldest first, unless they [leak]. May sleep.
///
/// Unlike [`free_all`], it calls `dtor` in process context, without a lock.
///
/// # Safety
///
/// `dtor` must be callable in process context.
pub(crate) unsafe fn collect(id: usize, dtor: Dtor) {
    // SAFETY: By the caller's promise.
    unsafe { collect_if(id, dtor, usize::MAX, |_| true) };
}

/// Frees the managed variables with `id` whose object's address lies in `range`. May sleep.
///
/// # Safety
///
/// As for [`collect`].
pub(crate) unsafe fn collect_range(id: usize, range: Range<usize>, dtor: Dtor) {
    let inside = |obj: *mut c_void| range.contains(&obj.addr());
    // What does not match is put back behind the newest one: look at each only once.
    //
    // SAFETY: By the caller's promise.
    unsafe { collect_if(id, dtor, live(id), inside) };
}

/// Frees those of the `left` oldest managed variables with `id` whose object `matches`.
///
/// # Safety
///
/// As for [`collect`].
unsafe fn collect_if(
    id: usize,
    dtor: Dtor,
    mut left: usize,
    matches: impl Fn(*mut c_void) -> bool,
) {
    loop {
        let mut gone = List::new();
        let mut store = lock();
        let record = store.record(id);
        // SAFETY: The record is valid under the lock.
        if record.is_null() || unsafe { (*record).leaked } {
            return;
        }
        for _ in 0..BATCH {
            // SAFETY: The record is valid under the lock.
            let header = unsafe { (*record).managed.last };
            if header.is_null() || left == 0 {
                left = 0;
                break;
            }
            left = left.wrapping_sub(1);
            // SAFETY: A variable of the record, which goes from one list to another.
            unsafe {
                if matches((*header).entry.obj) {
                    store.remove(record, header);
                    gone.push_front(header);
                } else {
                    (*record).managed.remove(header);
                    (*record).managed.push_front(header);
                }
            }
        }
        // SAFETY: Found in the table, under the lock that is held since.
        unsafe { store.settle(record) };
        drop(store);

        while let Some(last) = NonNull::new(gone.last) {
            // SAFETY: The variable is ours; the rest is the caller's promise.
            unsafe {
                gone.remove(last.as_ptr());
                Header::destroy(last.as_ptr(), dtor);
                Header::release(last.as_ptr());
            }
        }
        if left == 0 {
            return;
        }
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

/// The logarithm of the number of buckets, and the number of all variables and records.
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) fn table_size() -> (u32, usize) {
    let _store = lock();
    // SAFETY: The lock is held.
    unsafe { (TABLE.bits(), (*TABLE.writer.get()).count) }
}
