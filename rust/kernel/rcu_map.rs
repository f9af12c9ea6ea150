// SPDX-License-Identifier: GPL-2.0

//! Hash maps that are read under RCU, and resized under their readers.
//!
//! A [`RcuMap`] is what readers search, without a lock. Its one [`Writer`] adds and removes entries
//! and owns what is in the map. The user keeps the writer in a lock of the kind that is needed, so
//! that this map has none of its own:
//!
//! * Adding an entry needs no memory: [`NewEntry`] brings its own, with the flags of the user, and
//!   with bytes behind it whose number is known at run time only.
//! * No entry is freed before all readers have let go of it: [`Removed`] sees to that.
//! * A resize is due when [`Writer::wants_resize`] says so. Then the user lets some work call
//!   [`Writer::resize`], which takes the lock for short times. Adding and removing wakes nobody,
//!   so it can be done under the locks of the scheduler.
//!
//! Besides, an entry can be on a [`List`] of entries of the map, as of all that belong to
//! something, in an order of the user.
//!
//! # Why not `rhashtable`
//!
//! This is for maps whose look-ups are hot. With a million entries on x86_64, a look-up that finds
//! its entry takes 53 instructions, those of `rcu_read_lock()` and of its end included; one in an
//! `rhashtable` 77, if C code makes it with constant parameters, so that hash and comparison are
//! inline, and more on the way there from Rust: a helper is needed for each map. Without it hash
//! and comparison are indirect calls. The difference is what a reader has to find out there:
//! whether the array is nested, the lock in the head of a chain, which chain an end belongs to, and
//! whether a resize has moved what it looks for, in which case it begins again.
//!
//! # Examples
//!
//! ```
//! use kernel::{
//!     rcu_map::{NewEntry, RcuMap},
//!     sync::rcu,
//! };
//!
//! static MAP: RcuMap<usize, u32> = RcuMap::new();
//!
//! let mut writer = MAP.writer(GFP_KERNEL)?;
//! // There is one writer at a time.
//! assert!(MAP.writer(GFP_KERNEL).is_err());
//! assert!(writer.insert(NewEntry::new(1, 10, (), 0, GFP_KERNEL)?).is_ok());
//! assert!(writer.insert(NewEntry::new(2, 20, (), 0, GFP_KERNEL)?).is_ok());
//! // A key that is there already.
//! assert!(writer.insert(NewEntry::new(2, 30, (), 0, GFP_KERNEL)?).is_err());
//!
//! let guard = rcu::read_lock();
//! assert_eq!(MAP.get(&guard, 2).map(|entry| *entry.value()), Some(20));
//! let entry = MAP.get(&guard, 1).ok_or(ENOENT)?;
//! assert!(writer.get(1).ok_or(ENOENT)?.remove().is_ok());
//! assert!(MAP.get(&guard, 1).is_none());
//! // It is there until the reader has let go.
//! assert_eq!(*entry.value(), 10);
//! drop(guard);
//!
//! // Frees what is left.
//! drop(writer);
//! assert!(MAP.get(&rcu::read_lock(), 2).is_none());
//! # Ok::<(), Error>(())
//! ```
//!
//! With bytes behind the entry, and on a list:
//!
//! ```
//! use kernel::rcu_map::{List, NewEntry, RcuMap};
//!
//! static MAP: RcuMap<usize> = RcuMap::new();
//!
//! let mut writer = MAP.writer(GFP_KERNEL)?;
//! let mut list = List::new();
//! for key in 0..3 {
//!     // The bytes are zero.
//!     let new = NewEntry::new(key, (), (), 100, GFP_KERNEL)?;
//!     writer.insert(new).map_err(|_| EEXIST)?.push_front(&mut list)?;
//! }
//! assert_eq!(writer.last(&list).map(|entry| entry.key()), Some(0));
//! let mut entry = writer.get(1).ok_or(ENOENT)?;
//! entry.unlist(&mut list)?;
//! let removed = entry.remove().map_err(|_| EBUSY)?;
//! assert_eq!(removed.key(), 1);
//! // Frees the memory when there is no reader any more.
//! drop(removed);
//! assert_eq!(writer.len(), 2);
//! # Ok::<(), Error>(())
//! ```

use crate::{
    alloc::{
        allocator::Kmalloc,
        flags::{
            __GFP_NOWARN,
            __GFP_ZERO, //
        },
        AllocError,
        Allocator,
        Flags,
        KVVec,
        NumaNode, //
    },
    bindings,
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
use core::{
    alloc::Layout,
    cell::UnsafeCell,
    marker::PhantomData,
    mem::{
        needs_drop,
        replace,
        ManuallyDrop, //
    },
    ptr::{
        null_mut,
        NonNull, //
    },
};

mod list;
mod table;

use self::{
    list::{
        is_listed,
        End,
        Links, //
    },
    table::{
        wanted_bits,
        Buckets,
        Chained,
        Phase,
        RawArray,
        State,
        Table, //
    },
};
pub use self::{
    list::{
        List,
        RemovedQueue, //
    },
    table::{
        hash,
        Key,
        MIN_BITS, //
    },
};

/// How many buckets and entries a resize moves before the lock is let go.
const RESIZE_BATCH: usize = 500;

/// A pointer that readers follow under RCU, and that changes under a lock.
#[repr(transparent)]
struct Ptr<T>(Atomic<*mut T>);

impl<T> Ptr<T> {
    const fn null() -> Self {
        Self::new(null_mut())
    }

    const fn new(ptr: *mut T) -> Self {
        Self(Atomic::new(ptr))
    }

    /// Mirrors `rcu_dereference()`.
    #[inline(always)]
    fn load(&self) -> *mut T {
        // READ_ONCE(), without a call: what is read through the pointer depends on it for its
        // address, which orders it. Pairs with the release in `store()`.
        //
        // SAFETY: Valid for reads; all concurrent writes are atomic.
        unsafe { self.0.as_ptr().read_volatile() }
    }

    /// Mirrors `rcu_assign_pointer()`.
    fn store(&self, ptr: *mut T) {
        // Pairs with the dependency on `load()`.
        self.0.store(ptr, Release);
    }
}

// SAFETY: A NULL pointer.
unsafe impl<T> Zeroable for Ptr<T> {}

/// Two buckets without entries, which are in use before there are others.
static EMPTY_HEADS: [Ptr<()>; 2] = [const { Ptr::null() }; 2];
static EMPTY: Buckets = Buckets::empty(&raw const EMPTY_HEADS);

/// What all entries with keys of a type begin with.
///
/// # Invariants
///
/// `place` has `links` as long as the entry is in the map, and while it is in a queue. Readers
/// leave `place` alone.
#[repr(C)]
struct Head<K> {
    /// First, so that the address of the one is that of the other.
    chained: Chained<K>,
    place: UnsafeCell<Place<K>>,
}

/// Where an entry is besides the table.
#[repr(C)]
union Place<K> {
    links: Links<K>,
    /// When it is freed.
    rcu: bindings::kvfree_rcu_head,
}

/// An entry in memory, behind which there may be more bytes. Readers leave `own` alone.
#[repr(C)]
struct Node<K, V, W> {
    /// First, so that a node, its head and what is chained have one address.
    head: Head<K>,
    value: V,
    own: UnsafeCell<W>,
}

impl<K: Key, V, W> Node<K, V, W> {
    /// Layout of an entry with `extra` bytes behind it.
    fn layout(extra: usize) -> Option<Layout> {
        let size = size_of::<Self>().checked_add(extra)?;
        Layout::from_size_align(size, align_of::<Self>()).ok()
    }

    /// The bytes behind the entry.
    #[inline(always)]
    fn extra(this: NonNull<Self>) -> NonNull<u8> {
        // SAFETY: The bytes begin in, or at the end of, the memory of the entry.
        unsafe { this.add(1) }.cast()
    }
}

/// A hash map that is read under RCU.
///
/// Entries have a key `K`, a value `V` that anybody may read, and `W`, which only the writer can
/// reach. Keys and values are not dropped when entries are freed, so they must not need that.
pub struct RcuMap<K, V = (), W = ()> {
    table: Table<K>,
    /// Whether there is a writer.
    claimed: Atomic<bool>,
    _values: PhantomData<UnsafeCell<(V, W)>>,
}

// SAFETY: Readers share keys and values; what they do not remove they may outlive, so these need to
// be `Send`, too. `W` goes to whatever thread has the writer.
unsafe impl<K: Send + Sync, V: Send + Sync, W: Send> Sync for RcuMap<K, V, W> {}
// SAFETY: What is in the map may be moved and shared for the reasons above, and the map itself is
// bound to no thread.
unsafe impl<K: Send + Sync, V: Send + Sync, W: Send> Send for RcuMap<K, V, W> {}

impl<K: Key, V, W> Default for RcuMap<K, V, W> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Key, V, W> RcuMap<K, V, W> {
    /// Makes an empty map.
    pub const fn new() -> Self {
        const {
            assert!(
                !needs_drop::<(K, V)>(),
                "entries are freed, but not dropped"
            );
            // See `kvfree_rcu()`.
            assert!(size_of::<Head<K>>() < 4096);
        }
        Self {
            table: Table::new(&EMPTY, Ptr::new((&raw const EMPTY).cast_mut())),
            claimed: Atomic::new(false),
            _values: PhantomData,
        }
    }

    /// Returns the entry with `key`.
    #[inline(always)]
    pub fn get<'g>(&'g self, _guard: &'g rcu::Guard, key: K) -> Option<Entry<'g, K, V, W>> {
        // SAFETY: RCU is held. The writer frees what it removes a grace period later.
        let node = unsafe { self.table.find(key) };
        Some(Entry {
            node: NonNull::new(node.cast())?,
            _guard: PhantomData,
        })
    }

    /// Makes the writer. May sleep.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if there is one, and [`ENOMEM`].
    pub fn writer(&self, flags: Flags) -> Result<Writer<'_, K, V, W>> {
        if self.claimed.xchg(true, Acquire) {
            return Err(EBUSY);
        }
        let mut writer = Writer {
            map: self,
            core: Core {
                table: &self.table,
                id: next_id(),
                state: State::new(),
            },
        };
        let array = Array::new(MIN_BITS, flags)?.into_raw();
        let state = &mut writer.core.state;
        // SAFETY: There is no other writer; a predecessor ended with a grace period. The array is
        // freed when the table has given it back, and there is nothing to copy into it.
        unsafe {
            self.table.begin(state, &array);
            self.table.publish(state);
            // What readers may still use is constant, so there is nothing to wait for.
            self.table.retired(state);
        }
        Ok(writer)
    }
}

/// Returns a number that no writer has had before.
fn next_id() -> u64 {
    static LAST: Atomic<i64> = Atomic::new(0);

    LAST.fetch_add(1, Relaxed).wrapping_add(1) as u64
}

/// An entry, as readers see it.
pub struct Entry<'g, K, V = (), W = ()> {
    node: NonNull<Node<K, V, W>>,
    _guard: PhantomData<&'g (K, V)>,
}

impl<K, V, W> Clone for Entry<'_, K, V, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V, W> Copy for Entry<'_, K, V, W> {}

impl<'g, K: Key, V, W> Entry<'g, K, V, W> {
    /// Returns the key.
    #[inline(always)]
    pub fn key(self) -> K {
        // SAFETY: The entry is valid for `'g`.
        unsafe { (*self.node.as_ptr()).head.chained.key() }
    }

    /// Returns the value.
    #[inline(always)]
    pub fn value(self) -> &'g V {
        // SAFETY: The entry is valid for `'g`, and nobody has an exclusive reference to a value in
        // a map.
        unsafe { &(*self.node.as_ptr()).value }
    }

    /// Returns where the bytes behind the entry are: aligned as a `usize`, and as key and value
    /// need it if that is more, and there for as long as the entry is.
    #[inline(always)]
    pub fn extra(self) -> NonNull<u8> {
        Node::extra(self.node)
    }
}

/// An entry that is in no map yet.
///
/// # Invariants
///
/// The node is initialised, and nobody else's.
pub struct NewEntry<K, V = (), W = ()> {
    node: NonNull<Node<K, V, W>>,
    extra: usize,
}

// SAFETY: Owns what is in the node.
unsafe impl<K: Send, V: Send, W: Send> Send for NewEntry<K, V, W> {}

impl<K: Key, V, W> NewEntry<K, V, W> {
    /// Makes an entry with `extra` zeroed bytes behind it.
    ///
    /// # Errors
    ///
    /// There is no memory, or there are too many bytes.
    pub fn new(key: K, value: V, own: W, extra: usize, flags: Flags) -> Result<Self, AllocError> {
        let layout = Node::<K, V, W>::layout(extra).ok_or(AllocError)?;
        let layout = Kmalloc::aligned_layout(layout);
        let node = Kmalloc::alloc(layout, flags | __GFP_ZERO, NumaNode::NO_NODE)?.cast();
        let links = Links::none();
        // INVARIANT: Initialised here, and the memory is new.
        //
        // SAFETY: It is large enough.
        unsafe {
            node.write(Node {
                head: Head {
                    chained: Chained::new(key),
                    place: UnsafeCell::new(Place { links }),
                },
                value,
                own: UnsafeCell::new(own),
            });
        }
        Ok(Self { node, extra })
    }

    /// Returns the key.
    pub fn key(&self) -> K {
        self.as_entry().key()
    }

    /// Returns where the bytes behind the entry are, as [`Entry::extra`].
    pub fn extra(&self) -> NonNull<u8> {
        Node::extra(self.node)
    }

    /// Returns what only the writer will be able to reach.
    pub fn own(&mut self) -> &mut W {
        // SAFETY: By the type invariant the node is initialised and nobody else's.
        unsafe { &mut *(*self.node.as_ptr()).own.get() }
    }

    fn as_entry(&self) -> Entry<'_, K, V, W> {
        Entry {
            node: self.node,
            _guard: PhantomData,
        }
    }
}

impl<K, V, W> Drop for NewEntry<K, V, W> {
    fn drop(&mut self) {
        let size = size_of::<Node<K, V, W>>().wrapping_add(self.extra);
        // SAFETY: The memory was allocated with this layout, and all is ours. The other parts need
        // no drop, or else there is no map that this could go into.
        unsafe {
            (*self.node.as_ptr()).own.get().drop_in_place();
            let layout = Layout::from_size_align_unchecked(size, align_of::<Node<K, V, W>>());
            Kmalloc::free(self.node.cast(), Kmalloc::aligned_layout(layout));
        }
    }
}

/// Who may change a map, and the owner of what is in it.
///
/// When it is dropped, the map is emptied. That waits for a grace period, so it may sleep, and
/// whoever drops it must not be a reader.
///
/// # Invariants
///
/// There is no other writer of the map, and `core` is about its table, which has an array. The
/// nodes in the table are valid, and those of [lists](List) with the id are in it.
pub struct Writer<'m, K: Key, V = (), W = ()> {
    map: &'m RcuMap<K, V, W>,
    core: Core<'m, K>,
}

/// Calls what it gets with a `T`, under the lock that protects that.
type Under<'a, T> = dyn Fn(&mut dyn FnMut(&mut T)) + 'a;

/// What a [`Writer`] has to do with its table, whatever the values.
struct Core<'m, K: Key> {
    table: &'m Table<K>,
    /// No other writer has it, nor had it.
    id: u64,
    state: State,
}

impl<'m, K: Key, V, W> Writer<'m, K, V, W> {
    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.core.state.len
    }

    /// Returns whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the logarithm of the number of buckets.
    pub fn bits(&self) -> u32 {
        self.core.bits()
    }

    /// Returns the entry with `key`.
    pub fn get(&mut self, key: K) -> Option<EntryMut<'_, 'm, K, V, W>> {
        Some(EntryMut {
            node: self.core.find(key)?.cast(),
            writer: self,
        })
    }

    /// Adds an entry. Returns it, or gives `new` back if there is one with its key.
    pub fn insert(
        &mut self,
        new: NewEntry<K, V, W>,
    ) -> Result<EntryMut<'_, 'm, K, V, W>, NewEntry<K, V, W>> {
        if self.core.find(new.key()).is_some() {
            return Err(new);
        }
        let node = ManuallyDrop::new(new).node;
        // SAFETY: By the type invariant there is an array. The node stays until it is given out as
        // `Removed`, or this is dropped, and a grace period longer.
        unsafe { self.core.insert(node.cast()) };
        Ok(EntryMut { node, writer: self })
    }

    /// Returns the first entry of a list; none if that is another map's.
    pub fn first(&mut self, list: &List<K, V, W>) -> Option<EntryMut<'_, 'm, K, V, W>> {
        Some(EntryMut {
            node: list.raw.at(End::First, self.core.id)?.cast(),
            writer: self,
        })
    }

    /// Returns the last entry of a list; none if that is another map's.
    pub fn last(&mut self, list: &List<K, V, W>) -> Option<EntryMut<'_, 'm, K, V, W>> {
        Some(EntryMut {
            node: list.raw.at(End::Last, self.core.id)?.cast(),
            writer: self,
        })
    }

    /// Returns whether there are too many or too few buckets for what is in the map.
    #[inline]
    pub fn wants_resize(&self) -> bool {
        self.core.wanted_bits().is_some()
    }

    /// Resizes a map until that is not [wanted](Self::wants_resize) any more. Must be able to
    /// sleep.
    ///
    /// `locked` must call what it gets with the writer of the map, under the lock that protects
    /// this, or not at all if there is none. It is called many times, each for a short time. If
    /// someone else resizes already, this does nothing.
    ///
    /// # Errors
    ///
    /// There is no memory; nothing has changed then, and it can be tried again later.
    pub fn resize(locked: impl Fn(&mut dyn FnMut(&mut Self))) -> Result<(), AllocError> {
        Core::resize(&|f| locked(&mut |writer| f(&mut writer.core)))
    }
}

// One function for all values, which is not repeated where it is called: writers are not as hot as
// readers.
impl<K: Key> Core<'_, K> {
    #[inline(never)]
    fn find(&self, key: K) -> Option<NonNull<Chained<K>>> {
        // SAFETY: This is the writer.
        NonNull::new(unsafe { self.table.find(key) })
    }

    /// # Safety
    ///
    /// As for [`Table::insert`].
    #[inline(never)]
    unsafe fn insert(&mut self, node: NonNull<Chained<K>>) {
        // SAFETY: This is the writer; the caller promises the rest.
        unsafe { self.table.insert(&mut self.state, node.as_ptr()) };
    }

    /// # Safety
    ///
    /// As for [`Table::remove`].
    #[inline(never)]
    unsafe fn remove(&mut self, node: NonNull<Chained<K>>) {
        // SAFETY: This is the writer; the caller promises the rest.
        unsafe { self.table.remove(&mut self.state, node.as_ptr()) };
    }

    fn bits(&self) -> u32 {
        // SAFETY: This is the writer.
        unsafe { self.table.bits() }
    }

    fn wanted_bits(&self) -> Option<u32> {
        wanted_bits(self.state.len, self.bits())
    }

    /// As [`Writer::resize`].
    fn resize(locked: &Under<'_, Self>) -> Result<(), AllocError> {
        loop {
            let mut wanted = None;
            locked(&mut |core| wanted = core.wanted_bits());
            let Some(bits) = wanted else {
                return Ok(());
            };
            let mut new = Some(Array::new(bits, GFP_KERNEL | __GFP_NOWARN)?);
            let mut id = None;
            locked(&mut |core| id = id.or_else(|| core.begin(&mut new)));
            let Some(id) = id else {
                return Ok(());
            };
            let mut done = false;
            while !done {
                done = true;
                locked(&mut |core| done = core.id != id || core.step());
            }
            let mut old = None;
            locked(&mut |core| old = old.take().or_else(|| core.publish(id)));
            let Some(old) = old else {
                // The writer has gone.
                return Ok(());
            };
            rcu::synchronize_rcu();
            drop(old);
            let mut retiring = true;
            locked(&mut |core| {
                // Once: `locked` may call this again when another resize has been published.
                if core.id == id && replace(&mut retiring, false) {
                    // SAFETY: This resize of the writer was published before the grace period, and
                    // no other one could begin since.
                    unsafe { core.retired() };
                }
            });
        }
    }

    /// Takes the array, unless there is a resize, and returns whose resize has begun.
    #[inline(never)]
    fn begin(&mut self, array: &mut Option<Array<K>>) -> Option<u64> {
        if self.state.phase != Phase::Settled {
            return None;
        }
        let raw = array.take()?.into_raw();
        // SAFETY: This is the writer, and the phase as needed; the array is freed when the table
        // has given it back.
        unsafe { self.table.begin(&mut self.state, &raw) };
        Some(self.id)
    }

    #[inline(never)]
    fn step(&mut self) -> bool {
        // SAFETY: This is the writer.
        unsafe { self.table.step(&mut self.state, RESIZE_BATCH) }
    }

    /// Ends the resize of the writer `id`, if its steps are done, and returns the old array.
    #[inline(never)]
    fn publish(&mut self, id: u64) -> Option<Array<K>> {
        // SAFETY: This is the writer.
        if self.id != id || !unsafe { self.table.is_filled(&self.state) } {
            return None;
        }
        // SAFETY: This is the writer, and the new array has all that the current one has.
        let old = unsafe { self.table.publish(&mut self.state) }?;
        // INVARIANT: The table has given it back.
        Some(Array(old))
    }

    /// Lets another resize begin.
    ///
    /// # Safety
    ///
    /// A grace period must have passed since the last [`Self::publish`].
    unsafe fn retired(&mut self) {
        // SAFETY: This is the writer, and the caller promises the grace period.
        unsafe { self.table.retired(&mut self.state) };
    }
    /// Empties the table, waits for readers, and frees all with `free`.
    ///
    /// # Safety
    ///
    /// `free` must be callable, once, for each node in the table.
    #[inline(never)]
    unsafe fn end(&mut self, free: unsafe fn(*mut Chained<K>)) {
        // SAFETY: This is the writer.
        let [current, other] = unsafe { self.table.take(&mut self.state) };
        rcu::synchronize_rcu();
        if let Some(current) = current {
            // SAFETY: It was the current array, and readers have let go of all that is in it. The
            // caller promises the rest.
            unsafe { current.for_each(|chained| free(chained)) };
            // INVARIANT: The array is out of use.
            drop(Array(current.array));
        }
        // INVARIANT: Nobody but this writer has used the array that was being filled.
        drop(other.map(|other| Array(other.array)));
    }
}

impl<K: Key, V, W> Drop for Writer<'_, K, V, W> {
    fn drop(&mut self) {
        /// # Safety
        ///
        /// The node must be of these types, and in nobody's hands but the caller's.
        unsafe fn free<K, V, W>(chained: *mut Chained<K>) {
            let node = chained.cast::<Node<K, V, W>>();
            // SAFETY: By the caller's promise. The memory is from `Kmalloc`, and no other parts
            // need a drop, as `RcuMap::new()` asserts.
            unsafe {
                (*node).own.get().drop_in_place();
                bindings::kfree(node.cast());
            }
        }

        // SAFETY: All nodes in the table are of these types.
        unsafe { self.core.end(free::<K, V, W>) };
        // Pairs with the acquire in `RcuMap::writer()`.
        self.map.claimed.store(false, Release);
    }
}

/// An array of buckets.
///
/// # Invariants
///
/// It is from [`Array::new`], and no table's.
struct Array<K>(RawArray<K>);

impl<K> Array<K> {
    /// Makes 2 to the power of `bits` empty buckets. May sleep.
    fn new(bits: u32, flags: Flags) -> Result<Self, AllocError> {
        let size = 1usize.checked_shl(bits).ok_or(AllocError)?;
        let (heads, _, _) = KVVec::<Ptr<Chained<K>>>::zeroed(size, flags)?.into_raw_parts();
        // INVARIANT: Made here.
        Ok(Self(RawArray { heads, bits }))
    }

    /// Gives it to a table.
    fn into_raw(self) -> RawArray<K> {
        let RawArray { heads, bits } = ManuallyDrop::new(self).0;
        RawArray { heads, bits }
    }
}

impl<K> Drop for Array<K> {
    fn drop(&mut self) {
        let size = 1usize.wrapping_shl(self.0.bits);
        // SAFETY: By the type invariant `heads` are from a vector, of which the allocator needs no
        // more than the pointer and the kind; the elements need no drop.
        drop(unsafe { KVVec::from_raw_parts(self.0.heads.cast_mut(), size, size) });
    }
}

/// An entry in the hands of the writer.
///
/// # Invariants
///
/// The node is in the writer's map.
pub struct EntryMut<'w, 'm, K: Key, V = (), W = ()> {
    node: NonNull<Node<K, V, W>>,
    writer: &'w mut Writer<'m, K, V, W>,
}

impl<'w, K: Key, V, W> EntryMut<'w, '_, K, V, W> {
    /// Returns the key.
    pub fn key(&self) -> K {
        self.as_entry().key()
    }

    /// Returns the value.
    pub fn value(&self) -> &V {
        self.as_entry().value()
    }

    /// Returns where the bytes behind the entry are, as [`Entry::extra`].
    pub fn extra(&self) -> NonNull<u8> {
        Node::extra(self.node)
    }

    /// Returns what only the writer can reach.
    pub fn own(&mut self) -> &mut W {
        // SAFETY: By the type invariant the node is valid; the writer is borrowed exclusively.
        unsafe { &mut *(*self.node.as_ptr()).own.get() }
    }

    /// Returns the value, and what only the writer can reach.
    pub fn into_parts(self) -> (&'w V, &'w mut W) {
        // SAFETY: By the type invariant the node is valid. The writer stays borrowed for `'w`, so
        // there is no other way to `own`, and nobody has an exclusive reference to a value in a
        // map.
        unsafe {
            let node = self.node.as_ptr();
            (&(*node).value, &mut *(*node).own.get())
        }
    }

    /// Puts the entry in front of the others on `list`.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if it is on a list, and [`EINVAL`] if `list` has entries of another map.
    pub fn push_front(&mut self, list: &mut List<K, V, W>) -> Result {
        // SAFETY: The node and those of lists with the writer's id are in the map, and this has
        // exclusive access to it.
        unsafe { (list.raw).insert(self.writer.core.id, self.node.cast(), End::First) }
    }

    /// Puts the entry behind the others on `list`.
    ///
    /// # Errors
    ///
    /// As for [`Self::push_front`].
    pub fn push_back(&mut self, list: &mut List<K, V, W>) -> Result {
        // SAFETY: By the type invariant the node is in the map, to which the borrow of its writer
        // is exclusive access.
        unsafe { (list.raw).insert(self.writer.core.id, self.node.cast(), End::Last) }
    }

    /// Takes the entry off `list`.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if it is on no list, or, as far as that can be seen, on another one.
    pub fn unlist(&mut self, list: &mut List<K, V, W>) -> Result {
        // SAFETY: The node is in the map; nobody else can use lists of its entries, since that
        // takes the writer, which is borrowed exclusively.
        unsafe { (list.raw).remove(self.writer.core.id, self.node.cast()) }
    }

    /// Removes the entry from the map. Gives it back if it is on a list.
    pub fn remove(self) -> Result<Removed<K, V, W>, Self> {
        // SAFETY: The node is in the map, and the writer borrowed.
        if unsafe { is_listed::<K>(self.node.cast()) } {
            return Err(self);
        }
        let Self { node, writer } = self;
        // SAFETY: By the type invariant the node is in the table of this writer.
        unsafe { writer.core.remove(node.cast()) };
        // INVARIANT: The node is out of the map, and on no list.
        Ok(Removed { node })
    }

    fn as_entry(&self) -> Entry<'_, K, V, W> {
        Entry {
            node: self.node,
            _guard: PhantomData,
        }
    }
}

/// An entry that is in its map no more. Readers may still be at it.
///
/// When it is dropped, so is what only the writer could reach, and the memory is freed after a
/// grace period. Mirrors `kfree_rcu()`: no code but that of the allocator runs then, so a module
/// may go without `rcu_barrier()`.
///
/// # Invariants
///
/// The node is valid, and in nobody else's hands but those of readers.
pub struct Removed<K, V = (), W = ()> {
    node: NonNull<Node<K, V, W>>,
}

// SAFETY: Like `RcuMap`: readers share keys and values, and `W` is ours.
unsafe impl<K: Send + Sync, V: Send + Sync, W: Send> Send for Removed<K, V, W> {}

impl<K: Key, V, W> Removed<K, V, W> {
    /// Returns the key.
    pub fn key(&self) -> K {
        self.as_entry().key()
    }

    /// Returns the value.
    pub fn value(&self) -> &V {
        self.as_entry().value()
    }

    /// Returns where the bytes behind the entry are, as [`Entry::extra`].
    pub fn extra(&self) -> NonNull<u8> {
        Node::extra(self.node)
    }

    fn as_entry(&self) -> Entry<'_, K, V, W> {
        Entry {
            node: self.node,
            _guard: PhantomData,
        }
    }
}

impl<K, V, W> Drop for Removed<K, V, W> {
    fn drop(&mut self) {
        let node = self.node.as_ptr();
        // SAFETY: By the type invariant nobody uses the links and `own` any more. The memory is
        // from `Kmalloc`, and gone for new readers; no other part needs a drop, as `RcuMap::new()`
        // asserts.
        unsafe {
            (*node).own.get().drop_in_place();
            let head = &raw mut (*(*node).head.place.get()).rcu;
            bindings::kvfree_call_rcu(head, node.cast());
        }
    }
}

#[cfg(CONFIG_RUST_RCU_MAP_KUNIT_TEST)]
#[macros::kunit_tests(rust_rcu_map)]
mod tests {
    use super::*;
    use crate::{
        new_spinlock,
        sync::{
            Arc,
            SpinLock, //
        },
    };

    type Map = RcuMap<usize, usize>;

    fn fill(writer: &mut Writer<'_, usize, usize>, keys: core::ops::Range<usize>) -> Result {
        for key in keys {
            let new = NewEntry::new(key, key * 3, (), 0, GFP_KERNEL)?;
            assert!(writer.insert(new).is_ok());
        }
        Ok(())
    }

    fn value(map: &Map, key: usize) -> Option<usize> {
        let guard = rcu::read_lock();
        map.get(&guard, key).map(|entry| *entry.value())
    }

    #[test]
    fn resize() -> Result {
        const COUNT: usize = 3000;

        static MAP: Map = RcuMap::new();
        let slot = Arc::pin_init(new_spinlock!(Some(MAP.writer(GFP_KERNEL)?)), GFP_KERNEL)?;
        let slot: &SpinLock<Option<Writer<'static, usize, usize>>> = &slot;
        let locked = |f: &mut dyn FnMut(&mut Writer<'static, usize, usize>)| {
            if let Some(writer) = &mut *slot.lock() {
                f(writer);
            }
        };
        let mut outcome = Ok(());
        let mut bits = (0, 0);
        for key in 0..COUNT {
            let mut new = Some(NewEntry::new(key, key * 3, (), 0, GFP_KERNEL)?);
            let mut wanted = false;
            locked(&mut |writer| {
                if let Some(new) = new.take() {
                    if writer.insert(new).is_err() {
                        outcome = Err(EEXIST);
                    }
                }
                wanted = writer.wants_resize();
            });
            if wanted {
                Writer::resize(locked)?;
            }
        }
        outcome?;
        locked(&mut |writer| bits.0 = writer.bits());
        assert!(1 << bits.0 > COUNT && 1 << bits.0 < COUNT * 8);
        for key in 0..COUNT {
            assert_eq!(value(&MAP, key), Some(key * 3));
            assert_eq!(value(&MAP, COUNT + key), None);
        }
        for key in 10..COUNT {
            locked(&mut |writer| {
                let removed = writer.get(key).and_then(|entry| entry.remove().ok());
                if removed.is_none() {
                    outcome = Err(ENOENT);
                }
            });
        }
        outcome?;
        Writer::resize(locked)?;
        locked(&mut |writer| bits.1 = writer.bits());
        assert_eq!(bits.1, MIN_BITS);
        assert!((0..COUNT).all(|key| value(&MAP, key).is_some() == (key < 10)));

        // Without a writer there is nothing to resize.
        let writer = slot.lock().take();
        drop(writer);
        assert!((0..COUNT).all(|key| value(&MAP, key).is_none()));
        Writer::resize(locked)?;
        Ok(())
    }

    /// A writer that goes in the middle of a resize, and its successor.
    #[test]
    fn resize_of_another() -> Result {
        static MAP: Map = RcuMap::new();
        let mut writer = MAP.writer(GFP_KERNEL)?;
        fill(&mut writer, 0..1000)?;
        let id = writer.core.begin(&mut Some(Array::new(8, GFP_KERNEL)?));
        assert!(id.is_some() && !writer.core.step());
        assert_eq!(
            writer.core.begin(&mut Some(Array::new(8, GFP_KERNEL)?)),
            None
        );
        drop(writer);

        let mut writer = MAP.writer(GFP_KERNEL)?;
        fill(&mut writer, 0..10)?;
        assert!(id != Some(writer.core.id) && writer.core.step());
        assert!(writer.core.publish(id.unwrap_or_default()).is_none());
        assert_eq!((writer.bits(), value(&MAP, 9)), (MIN_BITS, Some(27)));
        Ok(())
    }

    /// A `locked` that calls all that it gets twice, with another resize in between.
    #[test]
    fn resize_twice() -> Result {
        static MAP: Map = RcuMap::new();
        let mut writer = MAP.writer(GFP_KERNEL)?;
        fill(&mut writer, 0..1000)?;
        let writer = core::cell::RefCell::new(writer);
        let other = core::cell::Cell::new(None);
        Writer::resize(|f| {
            let mut writer = writer.borrow_mut();
            let before = writer.core.state.phase;
            f(&mut writer);
            if before == Phase::Retiring && writer.core.state.phase == Phase::Settled {
                let mut new = Array::new(7, GFP_KERNEL).ok();
                let id = writer.core.begin(&mut new).unwrap_or_default();
                while !writer.core.step() {}
                other.set(writer.core.publish(id));
            }
            f(&mut writer);
        })?;
        // Readers may still use the array that the second resize has replaced.
        assert_eq!(writer.borrow().core.state.phase, Phase::Retiring);
        assert_eq!((writer.borrow().bits(), value(&MAP, 999)), (7, Some(2997)));
        rcu::synchronize_rcu();
        assert!(other.take().is_some());
        Ok(())
    }

    #[test]
    fn lists() -> Result {
        static MAP: Map = RcuMap::new();
        static OTHER: Map = RcuMap::new();
        let mut writer = MAP.writer(GFP_KERNEL)?;
        let mut other = OTHER.writer(GFP_KERNEL)?;
        fill(&mut writer, 0..5)?;
        fill(&mut other, 0..5)?;
        let (mut list, mut second) = (List::new(), List::new());
        // 3 1 2 4
        for key in [1, 2] {
            writer.get(key).ok_or(ENOENT)?.push_back(&mut list)?;
        }
        writer.get(3).ok_or(ENOENT)?.push_front(&mut list)?;
        writer.get(4).ok_or(ENOENT)?.push_back(&mut list)?;
        writer.get(0).ok_or(ENOENT)?.push_back(&mut second)?;

        // It is on a list, on another one, on none, and of another map.
        let mut entry = writer.get(3).ok_or(ENOENT)?;
        assert_eq!(entry.push_back(&mut second), Err(EBUSY));
        assert_eq!(entry.unlist(&mut second), Err(EINVAL));
        let Err(mut entry) = entry.remove() else {
            return Err(EINVAL);
        };
        entry.unlist(&mut list)?;
        assert_eq!(entry.unlist(&mut list), Err(EINVAL));
        assert_eq!(entry.key(), 3);
        assert!(entry.remove().is_ok());
        assert!(other.first(&list).is_none() && other.last(&list).is_none());
        let mut entry = other.get(1).ok_or(ENOENT)?;
        assert_eq!(entry.push_front(&mut list), Err(EINVAL));
        assert_eq!(entry.unlist(&mut list), Err(EINVAL));
        assert_eq!(
            writer.get(4).ok_or(ENOENT)?.unlist(&mut second),
            Err(EINVAL)
        );

        // What is left, taken off in order.
        let mut queue = RemovedQueue::new();
        while let Some(mut entry) = writer.first(&list) {
            entry.unlist(&mut list)?;
            queue.push(entry.remove().map_err(|_| EBUSY)?);
        }
        assert!(list.is_empty() && !second.is_empty());
        assert_eq!(writer.len(), 1);
        for key in [1, 2] {
            assert_eq!(queue.pop().map(|removed| removed.key()), Some(key));
        }
        // An empty list may be used for another map; the queue frees what is left.
        other.get(1).ok_or(ENOENT)?.push_front(&mut list)?;
        drop(other);
        // That map is gone, and its list with it.
        assert!(writer.first(&list).is_none());
        assert_eq!(writer.get(0).ok_or(ENOENT)?.unlist(&mut list), Err(EINVAL));
        Ok(())
    }

    /// What only the writer can reach is dropped once, whichever way the entry goes.
    #[test]
    fn drops() -> Result {
        static DROPPED: Atomic<i32> = Atomic::new(0);

        struct Counted;

        impl Drop for Counted {
            fn drop(&mut self) {
                DROPPED.fetch_add(1, Relaxed);
            }
        }

        let dropped = || DROPPED.xchg(0, Relaxed);
        let map = RcuMap::<usize, (), Counted>::new();
        let mut writer = map.writer(GFP_KERNEL)?;
        let new = |key| NewEntry::new(key, (), Counted, 1000, GFP_KERNEL);
        drop(new(1)?);
        assert_eq!(dropped(), 1);
        for key in 0..100 {
            assert!(writer.insert(new(key)?).is_ok());
        }
        assert!(writer.insert(new(7)?).is_err());
        assert_eq!(dropped(), 1);
        let removed = writer.get(7).and_then(|entry| entry.remove().ok());
        assert_eq!(dropped(), 0);
        drop(removed);
        assert_eq!(dropped(), 1);
        drop(writer);
        assert_eq!(dropped(), 99);
        // Too many bytes, or no memory for them.
        assert!(NewEntry::<usize>::new(0, (), (), usize::MAX, GFP_KERNEL).is_err());
        assert!(NewEntry::<usize>::new(0, (), (), isize::MAX as usize, GFP_KERNEL).is_err());
        Ok(())
    }
}
