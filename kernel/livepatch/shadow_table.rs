// SPDX-License-Identifier: GPL-2.0-or-later

//! The hash table of shadow variables: found by object and id, and resized under its readers.
//!
//! An entry has two links, and there are two places for an array of buckets; each array uses one
//! of the links. While readers follow the current array, a resize fills the other one in steps,
//! bucket by bucket; what is in buckets that it has passed is kept in both. Then the other array
//! becomes the current one. So a reader, which stays with the array that it began with, finds all
//! that is there throughout, and never waits or begins again.
//!
//! Writers hold a lock, readers RCU. Between two resizes there is a grace period: after it nobody
//! uses the old array and its links any more.
//!
//! Answers to `klp_shadow_hash` of `shadow.c`. Pure, with [`Ptr`] for the kernel's accesses; tested
//! on the host, also under loom.

use super::shadow::Ptr;
use core::{
    cell::UnsafeCell,
    ffi::c_void,
    ptr::null, //
};

/// The logarithms of the least and the largest number of buckets.
pub(crate) const MIN_BITS: u32 = 6;
pub(crate) const MAX_BITS: u32 = 27;

/// What is known by an object and an id.
#[repr(C)]
pub(crate) struct Entry {
    /// The next entry of the chain, for each of the arrays.
    pub(crate) next: [Ptr<Entry>; 2],
    pub(crate) obj: *mut c_void,
    pub(crate) id: usize,
}

impl Entry {
    /// The link that the array with number `place` uses.
    ///
    /// # Safety
    ///
    /// `this` must be valid, and `place` 0 or 1.
    #[inline(always)]
    unsafe fn link<'a>(this: *const Self, place: usize) -> &'a Ptr<Entry> {
        // SAFETY: By the caller's promise.
        unsafe { &*(&raw const (*this).next).cast::<Ptr<Entry>>().add(place) }
    }
}

/// An array of buckets, which are the heads of chains.
pub(crate) struct Buckets {
    pub(crate) heads: *const Ptr<Entry>,
    /// 64 less the logarithm of the number of buckets.
    pub(crate) shift: u32,
    /// Which links the chains use; constant.
    pub(crate) place: usize,
}

// SAFETY: Plain data; the heads are as the table says.
unsafe impl Sync for Buckets {}

impl Buckets {
    const fn none(place: usize) -> Self {
        Self {
            heads: null(),
            shift: usize::BITS,
            place,
        }
    }

    /// Makes an array, for [`Table::new`], of two buckets that stay empty.
    pub(crate) const fn nothing(heads: *const [Ptr<Entry>; 2]) -> Self {
        Self {
            heads: heads.cast(),
            shift: usize::BITS - 1,
            place: 1,
        }
    }

    fn bits(&self) -> u32 {
        usize::BITS.wrapping_sub(self.shift)
    }

    /// # Safety
    ///
    /// The array must be there.
    #[inline(always)]
    unsafe fn head(&self, obj: *mut c_void, id: usize) -> &Ptr<Entry> {
        // SAFETY: The hash has as many bits as the number of a bucket.
        unsafe { &*self.heads.add(hash(obj, id).wrapping_shr(self.shift)) }
    }

    /// # Safety
    ///
    /// The array must be there, the lock held, and `entry` valid.
    unsafe fn push(&self, entry: *mut Entry) {
        // SAFETY: By the caller's promise.
        unsafe {
            let head = self.head((*entry).obj, (*entry).id);
            Entry::link(entry, self.place).store(head.load());
            head.store(entry);
        }
    }

    /// # Safety
    ///
    /// The array must be there, the lock held, and all entries valid.
    unsafe fn unlink(&self, entry: *mut Entry) {
        // SAFETY: By the caller's promise.
        unsafe {
            let mut link = self.head((*entry).obj, (*entry).id);
            loop {
                let at = link.load();
                if at == entry {
                    // A reader that is at the entry goes on from its link, which stays.
                    link.store(Entry::link(entry, self.place).load());
                    return;
                }
                if at.is_null() {
                    return;
                }
                link = Entry::link(at, self.place);
            }
        }
    }
}

/// What only writers use.
pub(crate) struct Writer {
    /// The number of entries.
    pub(crate) count: usize,
    /// Whether a resize is under way.
    resizing: bool,
    /// The buckets of the current array below this one are in the other one, too.
    pub(crate) cursor: usize,
}

/// The table.
pub(crate) struct Table {
    /// One of `arrays`, or `nothing`.
    current: Ptr<Buckets>,
    pub(crate) arrays: [UnsafeCell<Buckets>; 2],
    /// Before there is an array, so that readers need not ask.
    nothing: *const Buckets,
    pub(crate) writer: UnsafeCell<Writer>,
}

// SAFETY: Writers hold the lock. Readers use `current` and what it leads to: an array is written
// only when it is not current, and a grace period after it was.
unsafe impl Sync for Table {}
// SAFETY: As above; nothing is bound to a thread.
unsafe impl Send for Table {}

/// Spreads objects and ids, also those at equal distances, over all bits.
#[inline(always)]
pub(crate) fn hash(obj: *mut c_void, id: usize) -> usize {
    // Arm64 loads a word with 16 bits all ones in three instructions, other words in four.
    const FACTOR: usize = 0x9e37_ffff_7f4a_7c15;
    let mixed = obj
        .addr()
        .wrapping_add(id.wrapping_mul(FACTOR))
        .wrapping_mul(FACTOR);
    // A product alone puts objects at some distances into few buckets.
    (mixed ^ mixed.wrapping_shr(32)).wrapping_mul(FACTOR)
}

/// Returns how many buckets, as a logarithm, `count` entries should have instead of `bits`.
///
/// More if there are over three entries for four buckets, fewer if under one for eight. Then there
/// are two to four buckets for an entry, so that neither happens again soon.
pub(crate) fn wanted_bits(count: usize, bits: u32) -> Option<u32> {
    let size = 1usize.wrapping_shl(bits);
    if count <= size.wrapping_sub(size / 4) && count >= size / 8 {
        return None;
    }
    let wanted = count
        .checked_mul(2)
        .and_then(usize::checked_next_power_of_two)
        .map_or(MAX_BITS, usize::trailing_zeros)
        .clamp(MIN_BITS, MAX_BITS);
    // The limits leave nothing to do.
    (wanted != bits).then_some(wanted)
}

impl Table {
    /// Makes a table without buckets. `current` must be the address of `nothing`, which is to be
    /// [such](Buckets::nothing).
    pub(crate) const fn new(nothing: &'static Buckets, current: Ptr<Buckets>) -> Self {
        Self {
            current,
            arrays: [
                UnsafeCell::new(Buckets::none(0)),
                UnsafeCell::new(Buckets::none(1)),
            ],
            nothing,
            writer: UnsafeCell::new(Writer {
                count: 0,
                resizing: false,
                cursor: 0,
            }),
        }
    }

    /// Returns the entry for `<obj, id>`, or NULL.
    ///
    /// # Safety
    ///
    /// RCU or the lock must be held; entries and arrays must be freed a grace period after they
    /// were removed.
    #[inline(always)]
    pub(crate) unsafe fn find(&self, obj: *mut c_void, id: usize) -> *mut Entry {
        // SAFETY: What the current array leads to is valid for as long as RCU or the lock is held.
        unsafe {
            let buckets = &*self.current.load();
            let mut entry = buckets.head(obj, id).load();
            while let Some(this) = entry.as_ref() {
                if this.obj == obj && this.id == id {
                    break;
                }
                entry = Entry::link(entry, buckets.place).load();
            }
            entry
        }
    }

    /// # Safety
    ///
    /// The lock must be held for as long as the result is used.
    #[allow(
        clippy::mut_from_ref,
        reason = "the lock makes it exclusive, as the caller promises"
    )]
    unsafe fn writer(&self) -> &mut Writer {
        // SAFETY: By the caller's promise.
        unsafe { &mut *self.writer.get() }
    }

    /// The current array and the place of the other one.
    ///
    /// # Safety
    ///
    /// The lock must be held.
    unsafe fn places(&self) -> (&Buckets, &UnsafeCell<Buckets>) {
        let [first, second] = &self.arrays;
        // SAFETY: The current array is one of those or `nothing`, and constant as long as it is.
        let current = unsafe { &*self.current.load() };
        (current, if current.place == 0 { second } else { first })
    }

    /// Calls `f` for all arrays that `<obj, id>` must be in.
    ///
    /// # Safety
    ///
    /// The lock must be held.
    unsafe fn for_each_array(&self, obj: *mut c_void, id: usize, f: impl Fn(&Buckets)) {
        // SAFETY: The lock is held.
        let (writer, (current, other)) = unsafe { (self.writer(), self.places()) };
        f(current);
        if writer.resizing && hash(obj, id).wrapping_shr(current.shift) < writer.cursor {
            // SAFETY: During a resize the other array is there, and written by nobody.
            f(unsafe { &*other.get() });
        }
    }

    /// Adds `entry`.
    ///
    /// # Safety
    ///
    /// The lock must be held, the first array be there, and `entry` valid until it is removed and a
    /// grace period has passed; its object and id must be constant, and not in the table.
    pub(crate) unsafe fn insert(&self, entry: *mut Entry) {
        // SAFETY: By the caller's promise.
        unsafe {
            let (obj, id) = ((*entry).obj, (*entry).id);
            self.for_each_array(obj, id, |buckets| buckets.push(entry));
            let writer = self.writer();
            writer.count = writer.count.wrapping_add(1);
        }
    }

    /// Removes `entry`.
    ///
    /// # Safety
    ///
    /// The lock must be held, and `entry` be in the table.
    pub(crate) unsafe fn remove(&self, entry: *mut Entry) {
        // SAFETY: By the caller's promise.
        unsafe {
            let (obj, id) = ((*entry).obj, (*entry).id);
            self.for_each_array(obj, id, |buckets| buckets.unlink(entry));
            let writer = self.writer();
            writer.count = writer.count.wrapping_sub(1);
        }
    }

    /// The logarithm of the number of buckets.
    ///
    /// # Safety
    ///
    /// The lock must be held.
    pub(crate) unsafe fn bits(&self) -> u32 {
        // SAFETY: By the caller's promise.
        unsafe { self.places() }.0.bits()
    }

    /// Returns to what number of buckets, as a logarithm, the table should be resized.
    ///
    /// # Safety
    ///
    /// The lock must be held.
    pub(crate) unsafe fn wanted(&self) -> Option<u32> {
        // SAFETY: By the caller's promise.
        unsafe { wanted_bits(self.writer().count, self.bits()) }
    }

    /// Begins a resize to the 2 to the power of `bits` empty buckets at `heads`.
    ///
    /// # Safety
    ///
    /// The lock must be held, and no resize be under way; since the last one ended there must have
    /// been a grace period. The buckets must be valid until the table gives them back; `bits` must
    /// be 1 to 63.
    pub(crate) unsafe fn begin(&self, heads: *const Ptr<Entry>, bits: u32) {
        // SAFETY: The lock is held, and no reader uses the other place.
        unsafe {
            let other = self.places().1.get();
            (*other).heads = heads;
            (*other).shift = usize::BITS.wrapping_sub(bits);
            let writer = self.writer();
            writer.resizing = true;
            writer.cursor = 0;
        }
    }

    /// Goes on with a resize for about `budget` buckets and entries. Returns whether all is done.
    ///
    /// # Safety
    ///
    /// The lock must be held, and a resize be under way.
    pub(crate) unsafe fn step(&self, mut budget: usize) -> bool {
        // SAFETY: The lock is held; during a resize both arrays are there.
        unsafe {
            let (current, other) = self.places();
            let (writer, other) = (self.writer(), &*other.get());
            let size = 1usize.wrapping_shl(current.bits());
            while writer.cursor < size {
                if budget == 0 {
                    return false;
                }
                // Within the array.
                let mut entry = (*current.heads.add(writer.cursor)).load();
                while !entry.is_null() {
                    other.push(entry);
                    budget = budget.saturating_sub(1);
                    entry = Entry::link(entry, current.place).load();
                }
                budget = budget.saturating_sub(1);
                writer.cursor = writer.cursor.wrapping_add(1);
            }
            true
        }
    }

    /// Ends a resize: makes the new buckets the current ones, and returns the old ones with the
    /// logarithm of their number; NULL if there were none.
    ///
    /// # Safety
    ///
    /// The lock must be held, and [`Self::step`] have returned `true` for the resize.
    pub(crate) unsafe fn publish(&self) -> (*const Ptr<Entry>, u32) {
        // SAFETY: By the caller's promise.
        unsafe {
            let (old, new) = self.places();
            let old = self.give_back(old);
            self.writer().resizing = false;
            self.current.store(new.get());
            old
        }
    }

    /// The buckets of `old`, which is no longer used, if they were given to the table.
    fn give_back(&self, old: &Buckets) -> (*const Ptr<Entry>, u32) {
        if core::ptr::eq(old, self.nothing) {
            return (null(), 0);
        }
        (old.heads, old.bits())
    }

    /// Takes the table down: calls `f` for all entries, and returns the buckets as
    /// [`Self::publish`] does.
    ///
    /// # Safety
    ///
    /// There must be no other user, nor a resize under way.
    pub(crate) unsafe fn take(&self, f: impl Fn(*mut Entry)) -> (*const Ptr<Entry>, u32) {
        // SAFETY: By the caller's promise, which is more than the lock.
        unsafe {
            let current = self.places().0;
            for index in 0..1usize.wrapping_shl(current.bits()) {
                let mut entry = (*current.heads.add(index)).load();
                while !entry.is_null() {
                    let next = Entry::link(entry, current.place).load();
                    f(entry);
                    entry = next;
                }
            }
            self.current.store(self.nothing.cast_mut());
            self.writer().count = 0;
            self.give_back(current)
        }
    }
}
