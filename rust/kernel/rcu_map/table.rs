// SPDX-License-Identifier: GPL-2.0

//! The table of an [`RcuMap`](super::RcuMap): chains of entries that are resized under their
//! readers.
//!
//! An entry has two links, and there are two places for an array of buckets; each array uses one
//! of the links. While readers follow the current array, a resize fills the other one in steps,
//! bucket by bucket; what is in buckets that it has passed is kept in both. Then the other array
//! becomes the current one. So a reader, which stays with the array that it began with, finds all
//! that is there throughout, and never waits or begins again.
//!
//! Between two resizes there is a grace period: after it nobody uses the old array and its links
//! any more.
//!
//! Needs nothing of the kernel but [`Ptr`], so that it can be tested elsewhere, also under loom.

use super::Ptr;
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ptr::null, //
};

/// The logarithm of the least number of buckets.
pub const MIN_BITS: u32 = 6;
/// The logarithm of the largest number of buckets.
pub(crate) const MAX_BITS: u32 = usize::BITS / 2 - 5;

/// What entries of a map are found by.
///
/// # Safety
///
/// [`Self::hash`] must return the same for a key at all times: an entry is taken out of the chain
/// that its hash leads to, and freed then.
pub unsafe trait Key: Copy + Eq {
    /// Returns a hash of the key, for which [`hash()`] may be used.
    ///
    /// The map uses its high bits. Keys that are equal have equal hashes.
    fn hash(self) -> usize;
}

// SAFETY: The hash depends on nothing but the number.
unsafe impl Key for usize {
    #[inline(always)]
    fn hash(self) -> usize {
        hash(self, 0)
    }
}

/// Spreads two numbers over all bits of a hash, also if those of many keys are at equal distances.
#[inline(always)]
pub fn hash(first: usize, second: usize) -> usize {
    // An odd number near the golden section. Arm64 loads a word with 16 bits all ones in three
    // instructions, other words in four. Narrower machines take its lower half.
    const FACTOR: usize = 0x9e37_ffff_7f4a_7c15_u64 as usize;

    let mixed = first
        .wrapping_add(second.wrapping_mul(FACTOR))
        .wrapping_mul(FACTOR);
    // A product alone puts numbers at some distances into few buckets.
    (mixed ^ mixed.wrapping_shr(usize::BITS / 2)).wrapping_mul(FACTOR)
}

/// What is chained: the links and the key. Everything else of an entry lies behind it.
#[repr(C)]
pub(crate) struct Chained<K> {
    /// The next entry of the chain, for each of the arrays.
    pub(crate) next: [Ptr<Chained<K>>; 2],
    key: K,
}

impl<K: Copy> Chained<K> {
    /// Makes an entry that is in no chain.
    pub(crate) fn new(key: K) -> Self {
        Self {
            next: [Ptr::null(), Ptr::null()],
            key,
        }
    }

    #[inline(always)]
    pub(crate) fn key(&self) -> K {
        self.key
    }

    /// The link that the array in `place` uses.
    #[inline(always)]
    pub(crate) fn link(&self, place: Place) -> &Ptr<Chained<K>> {
        // SAFETY: There are two links, one for each place.
        unsafe { &*(&raw const self.next).cast::<Ptr<_>>().add(place as usize) }
    }
}

/// Where an array of buckets is, and which links it uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(crate) enum Place {
    First,
    Second,
}

impl Place {
    fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// An array of buckets, as readers use it. The buckets are the heads of chains.
///
/// # Invariants
///
/// While this is the current array, or the other one during a resize, `heads` points to
/// 2 to the power of `usize::BITS - shift` links, which are to valid entries.
pub(crate) struct Buckets {
    pub(crate) heads: *const (),
    shift: u32,
    pub(crate) place: Place,
}

// SAFETY: Plain data, which is constant while anybody may read it; see `Table`.
unsafe impl Sync for Buckets {}

impl Buckets {
    /// There is nothing here yet.
    const fn none(place: Place) -> Self {
        Self {
            heads: null(),
            shift: usize::BITS,
            place,
        }
    }

    /// Makes an array, for [`Table::new`], of two buckets that stay empty.
    pub(crate) const fn empty(heads: *const [Ptr<()>; 2]) -> Self {
        // INVARIANT: There are as many, and they lead to no entry.
        Self {
            heads: heads.cast(),
            shift: usize::BITS - 1,
            place: Place::Second,
        }
    }

    fn bits(&self) -> u32 {
        usize::BITS.wrapping_sub(self.shift)
    }

    fn array<K>(&self) -> RawArray<K> {
        RawArray {
            heads: self.heads.cast(),
            bits: self.bits(),
        }
    }

    /// The number of the bucket for a hash.
    #[inline(always)]
    fn index(&self, hash: usize) -> usize {
        hash.wrapping_shr(self.shift)
    }

    /// Returns the bucket `index`.
    ///
    /// # Safety
    ///
    /// The array must be current, or the other one during a resize, and stay so for `'a`; its
    /// entries must have keys of type `K`; there must be as many buckets.
    #[inline(always)]
    unsafe fn head<'a, K>(&self, index: usize) -> &'a Ptr<Chained<K>> {
        // SAFETY: By the type invariant and the caller's promise.
        unsafe { &*self.heads.cast::<Ptr<Chained<K>>>().add(index) }
    }

    /// # Safety
    ///
    /// As for [`Table::insert`]; the array must be current, or the other one during a resize.
    unsafe fn push<K: Key>(&self, entry: *mut Chained<K>) {
        // SAFETY: The entry is valid by the caller's promise, and a hash has as many bits as the
        // number of a bucket.
        let (this, head) = unsafe {
            let this = &*entry;
            (this, self.head(self.index(this.key.hash())))
        };
        this.link(self.place).store(head.load());
        head.store(entry);
    }

    /// # Safety
    ///
    /// As for [`Table::remove`]; the array must be current, or the other one during a resize.
    unsafe fn unlink<K: Key>(&self, entry: &Chained<K>) {
        // SAFETY: A hash has as many bits as the number of a bucket.
        let mut link = unsafe { self.head::<K>(self.index(entry.key.hash())) };
        // SAFETY: Entries in the array are valid, by the type invariant.
        while let Some(at) = unsafe { link.load().as_ref() } {
            if core::ptr::eq(at, entry) {
                // A reader that is at the entry goes on from its link, which stays.
                link.store(entry.link(self.place).load());
                return;
            }
            link = at.link(self.place);
        }
    }
}

/// What of the table only its writer knows.
///
/// ```text
///            begin()              publish()               retired()
/// Settled -----------> Filling -------------> Retiring -------------> Settled
///                      |     ^                a grace period passes
///                      +-----+ step()
/// ```
pub(crate) struct State {
    /// The number of entries.
    pub(crate) len: usize,
    pub(crate) phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// There is no resize.
    Settled,
    /// The other array gets what is in the current one, so far its buckets below this one.
    Filling(usize),
    /// Readers may still use the array that was the current one.
    Retiring,
}

impl State {
    pub(crate) const fn new() -> Self {
        Self {
            len: 0,
            phase: Phase::Settled,
        }
    }
}

/// 2 to the power of `bits` links, all NULL at first.
pub(crate) struct RawArray<K> {
    pub(crate) heads: *const Ptr<Chained<K>>,
    pub(crate) bits: u32,
}

/// The table.
///
/// Writers must be one at a time, with the same [`State`].
///
/// # Invariants
///
/// `current` leads to one of `arrays` or to `empty`. That one is constant for as long as anybody
/// may have loaded `current` before: until a grace period after another one became the current one.
pub(crate) struct Table<K> {
    current: Ptr<Buckets>,
    pub(crate) arrays: [UnsafeCell<Buckets>; 2],
    /// Before there is an array, so that readers need not ask.
    empty: &'static Buckets,
    _keys: PhantomData<UnsafeCell<K>>,
}

// SAFETY: Readers use `current` and what it leads to, which the type invariant lets them do; keys
// are read through references. There is one writer at a time.
unsafe impl<K: Sync + Send> Sync for Table<K> {}
// SAFETY: Nothing is bound to a thread, but perhaps the keys.
unsafe impl<K: Send> Send for Table<K> {}

/// Returns how many buckets, as a logarithm, `len` entries should have instead of `bits`.
///
/// More if there are over three entries for four buckets, fewer if under one for eight. Then there
/// are two to four buckets for an entry, so that neither happens again soon.
pub(crate) fn wanted_bits(len: usize, bits: u32) -> Option<u32> {
    let size = 1usize.wrapping_shl(bits);
    if len <= size.wrapping_sub(size / 4) && len >= size / 8 {
        return None;
    }
    let wanted = len
        .checked_mul(2)
        .and_then(usize::checked_next_power_of_two)
        .map_or(MAX_BITS, usize::trailing_zeros)
        .clamp(MIN_BITS, MAX_BITS);
    // The limits leave nothing to do.
    (wanted != bits).then_some(wanted)
}

impl<K: Key> Table<K> {
    /// Makes a table without buckets. `current` must be the address of `empty`, which is to be
    /// [such](Buckets::empty).
    pub(crate) const fn new(empty: &'static Buckets, current: Ptr<Buckets>) -> Self {
        // INVARIANT: `current` leads to `empty`, which never changes.
        Self {
            current,
            arrays: [
                UnsafeCell::new(Buckets::none(Place::First)),
                UnsafeCell::new(Buckets::none(Place::Second)),
            ],
            empty,
            _keys: PhantomData,
        }
    }

    /// Returns the entry with `key`, or NULL.
    ///
    /// # Safety
    ///
    /// The caller must be an RCU reader, or the writer; entries and arrays must be freed a grace
    /// period after they were removed.
    #[inline(always)]
    pub(crate) unsafe fn find(&self, key: K) -> *mut Chained<K> {
        // SAFETY: What the current array leads to is valid for a reader, and for the writer.
        unsafe {
            let buckets = &*self.current.load();
            let mut entry = buckets.head::<K>(buckets.index(key.hash())).load();
            while let Some(this) = entry.as_ref() {
                if this.key == key {
                    break;
                }
                entry = this.link(buckets.place).load();
            }
            entry
        }
    }

    /// The current array.
    ///
    /// # Safety
    ///
    /// The caller must be the writer, and not begin a resize for as long as it has the result.
    unsafe fn current(&self) -> &Buckets {
        // SAFETY: By the type invariant it is one of the table's, or `empty`. It is written to by
        // `begin()` alone, and only when it is not the current one any more.
        unsafe { &*self.current.load() }
    }

    /// The place that `current` does not have.
    fn beside(&self, current: &Buckets) -> &UnsafeCell<Buckets> {
        let [first, second] = &self.arrays;
        match current.place.other() {
            Place::First => first,
            Place::Second => second,
        }
    }

    /// The array that is being filled, if entries with `hash` belong there already.
    ///
    /// # Safety
    ///
    /// The caller must be the writer, and not change the array for as long as it has the result.
    unsafe fn filled(&self, state: &State, hash: usize) -> Option<&Buckets> {
        // SAFETY: The caller is the writer.
        let current = unsafe { self.current() };
        match state.phase {
            Phase::Filling(cursor) if current.index(hash) < cursor => {
                // SAFETY: Nobody but the caller writes there.
                Some(unsafe { &*self.beside(current).get() })
            }
            _ => None,
        }
    }

    /// Adds `entry`.
    ///
    /// # Safety
    ///
    /// The caller must be the writer, there must be an array, and `entry` be valid until it is
    /// removed and a grace period has passed; its key must not be in the table.
    pub(crate) unsafe fn insert(&self, state: &mut State, entry: *mut Chained<K>) {
        // SAFETY: By the caller's promise. The arrays are the current one and, during a resize, the
        // other one.
        unsafe {
            self.current().push(entry);
            if let Some(other) = self.filled(state, (*entry).key.hash()) {
                other.push(entry);
            }
        }
        state.len = state.len.wrapping_add(1);
    }

    /// Removes `entry`.
    ///
    /// # Safety
    ///
    /// The caller must be the writer, and `entry` be in the table.
    pub(crate) unsafe fn remove(&self, state: &mut State, entry: *mut Chained<K>) {
        // SAFETY: The caller is the writer, and the entry is in the current array and, if its
        // bucket has been copied already, in the other one.
        unsafe {
            let entry = &*entry;
            self.current().unlink(entry);
            if let Some(other) = self.filled(state, entry.key.hash()) {
                other.unlink(entry);
            }
        }
        state.len = state.len.wrapping_sub(1);
    }

    /// The logarithm of the number of buckets.
    ///
    /// # Safety
    ///
    /// The caller must be the writer.
    pub(crate) unsafe fn bits(&self) -> u32 {
        // SAFETY: The caller is the writer, and this begins no resize.
        unsafe { self.current() }.bits()
    }

    /// Begins a resize to `array`.
    ///
    /// # Safety
    ///
    /// The caller must be the writer, and the phase [`Phase::Settled`]. The buckets must be valid
    /// until the table gives them back; `bits` must be at least 1 and less than those of `usize`.
    pub(crate) unsafe fn begin(&self, state: &mut State, array: &RawArray<K>) {
        // SAFETY: The caller is the writer, and what is written below is another array.
        let current = unsafe { self.current() };
        // INVARIANT: It is not the current array, and nobody is left who uses it as that: when it
        // was, a grace period has passed since, or else the phase would not be `Settled`.
        //
        // SAFETY: So nobody reads it, and the caller is the only writer.
        unsafe {
            *self.beside(current).get() = Buckets {
                heads: array.heads.cast(),
                shift: usize::BITS.wrapping_sub(array.bits),
                place: current.place.other(),
            };
        }
        state.phase = Phase::Filling(0);
    }

    /// Goes on with a resize for about `budget` buckets and entries. Returns whether all is done.
    ///
    /// # Safety
    ///
    /// The caller must be the writer.
    pub(crate) unsafe fn step(&self, state: &mut State, mut budget: usize) -> bool {
        let Phase::Filling(mut cursor) = state.phase else {
            return true;
        };
        // SAFETY: The caller is the writer, and during a resize none begins.
        let current = unsafe { self.current() };
        // SAFETY: During a resize the other array is there, and nobody else writes.
        let other = unsafe { &*self.beside(current).get() };
        let size = 1usize.wrapping_shl(current.bits());
        while cursor < size && budget != 0 {
            // SAFETY: There are that many buckets.
            let mut entry = unsafe { current.head::<K>(cursor) }.load();
            // SAFETY: What is in the current array is valid.
            while let Some(this) = unsafe { entry.as_ref() } {
                // SAFETY: The entry is valid, and does not use the link for this array yet, as its
                // bucket comes first now.
                unsafe { other.push(entry) };
                budget = budget.saturating_sub(1);
                entry = this.link(current.place).load();
            }
            budget = budget.saturating_sub(1);
            cursor = cursor.wrapping_add(1);
        }
        state.phase = Phase::Filling(cursor);
        cursor >= size
    }

    /// Whether the array of a resize has all that the current one has.
    ///
    /// # Safety
    ///
    /// The caller must be the writer.
    pub(crate) unsafe fn is_filled(&self, state: &State) -> bool {
        // SAFETY: By the caller's promise.
        let size = 1usize.wrapping_shl(unsafe { self.bits() });
        matches!(state.phase, Phase::Filling(cursor) if cursor >= size)
    }

    /// Makes the new array the current one, and returns the old one if it was given to the table.
    ///
    /// # Safety
    ///
    /// The caller must be the writer, and the new array be [filled](Self::is_filled), or the old
    /// one have no entries.
    pub(crate) unsafe fn publish(&self, state: &mut State) -> Option<RawArray<K>> {
        // SAFETY: The caller is the writer, and this begins no resize.
        let current = unsafe { self.current() };
        self.current.store(self.beside(current).get());
        state.phase = Phase::Retiring;
        self.given(current)
    }

    /// Lets another resize begin.
    ///
    /// # Safety
    ///
    /// The caller must be the writer, and a grace period have passed since [`Self::publish`].
    pub(crate) unsafe fn retired(&self, state: &mut State) {
        if state.phase == Phase::Retiring {
            state.phase = Phase::Settled;
        }
    }

    /// The buckets of `array`, if they were given to the table.
    fn given(&self, array: &Buckets) -> Option<RawArray<K>> {
        (!core::ptr::eq(array, self.empty)).then(|| array.array())
    }

    /// Empties the table. Returns the current array, which leads to all entries, and that of an
    /// unfinished resize; both may be freed after a grace period.
    ///
    /// # Safety
    ///
    /// The caller must be the writer.
    pub(crate) unsafe fn take(&self, state: &mut State) -> [Option<Taken<K>>; 2] {
        // SAFETY: The caller is the writer, and this begins no resize.
        let current = unsafe { self.current() };
        let other = match state.phase {
            // SAFETY: The resize has put buckets there, and nobody else writes.
            Phase::Filling(_) => self.given(unsafe { &*self.beside(current).get() }),
            _ => None,
        };
        let place = current.place;
        let taken = [
            self.given(current).map(|array| Taken { array, place }),
            other.map(|array| Taken { array, place }),
        ];
        self.current
            .store(core::ptr::from_ref(self.empty).cast_mut());
        *state = State::new();
        taken
    }
}

/// An array that [`Table::take`] has taken out.
pub(crate) struct Taken<K> {
    pub(crate) array: RawArray<K>,
    place: Place,
}

impl<K: Key> Taken<K> {
    /// Calls `f`, which may free it, for each entry that the buckets lead to.
    ///
    /// # Safety
    ///
    /// The array must have been the current one; it and the entries must be valid, and not be in
    /// use any more.
    pub(crate) unsafe fn for_each(&self, mut f: impl FnMut(*mut Chained<K>)) {
        for index in 0..1usize.wrapping_shl(self.array.bits) {
            // SAFETY: There are that many buckets.
            let mut entry = unsafe { (*self.array.heads.add(index)).load() };
            while !entry.is_null() {
                // SAFETY: The entry is valid until `f()` is called with it.
                let next = unsafe { (*entry).link(self.place) }.load();
                f(entry);
                entry = next;
            }
        }
    }
}
