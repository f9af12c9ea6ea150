// SPDX-License-Identifier: GPL-2.0-or-later

//! The table of an `RcuMap` against a map, with resizes in between and at the same time.

#[path = "../../../../rust/kernel/rcu_map/table.rs"]
mod table;

use super::config;
use proptest::{
    collection::vec,
    prelude::*, //
};
use std::{
    collections::HashMap,
    ptr::{
        null_mut,
        slice_from_raw_parts_mut, //
    },
    sync::atomic::{
        AtomicPtr,
        Ordering::{
            Acquire,
            Release, //
        },
    },
};
use table::{
    hash,
    wanted_bits,
    Buckets,
    Chained,
    Phase,
    RawArray,
    State,
    Table,
    MAX_BITS,
    MIN_BITS, //
};

/// What the table takes from `rcu_map.rs`.
pub(crate) struct Ptr<T>(AtomicPtr<T>);

impl<T> Ptr<T> {
    pub(crate) fn null() -> Self {
        Self::new(null_mut())
    }

    pub(crate) fn new(ptr: *mut T) -> Self {
        Self(AtomicPtr::new(ptr))
    }

    pub(crate) fn load(&self) -> *mut T {
        self.0.load(Acquire)
    }

    pub(crate) fn store(&self, ptr: *mut T) {
        self.0.store(ptr, Release);
    }
}

/// An object and an id.
type Key = (usize, usize);

unsafe impl table::Key for Key {
    fn hash(self) -> usize {
        hash(self.0, self.1)
    }
}

type Entry = Chained<Key>;

/// The table with what should be in it; the lock is that there is one thread.
struct Model {
    table: Box<Table<Key>>,
    state: State,
    entries: HashMap<Key, *mut Entry>,
    /// The buckets that the table uses, for as long as it does.
    arrays: Vec<(*const Ptr<Entry>, u32)>,
}

/// A table without buckets.
fn empty() -> Table<Key> {
    let heads = Box::leak(Box::new([Ptr::null(), Ptr::null()]));
    let empty: &Buckets = Box::leak(Box::new(Buckets::empty(heads)));
    Table::new(empty, Ptr::new(std::ptr::from_ref(empty).cast_mut()))
}

impl Model {
    fn new(bits: u32) -> Model {
        let mut model = Model {
            table: Box::new(empty()),
            state: State::new(),
            entries: HashMap::new(),
            arrays: Vec::new(),
        };
        // Before there are buckets nothing is there.
        assert!(model.find((1, 1)).is_null());
        model.begin(bits);
        assert!(unsafe { model.table.step(&mut model.state, 2) });
        assert!(unsafe { model.table.publish(&mut model.state) }.is_none());
        unsafe { model.table.retired(&mut model.state) };
        model
    }

    fn find(&self, key: Key) -> *mut Entry {
        unsafe { self.table.find(key) }
    }

    fn is_resizing(&self) -> bool {
        matches!(self.state.phase, Phase::Filling(_))
    }

    fn insert(&mut self, key: Key) {
        if self.entries.contains_key(&key) {
            return;
        }
        let entry = Box::into_raw(Box::new(Entry::new(key)));
        unsafe { self.table.insert(&mut self.state, entry) };
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: Key) {
        let Some(entry) = self.entries.remove(&key) else {
            return;
        };
        unsafe {
            self.table.remove(&mut self.state, entry);
            // Whoever still leads here is found out.
            (*entry).next = [Ptr::null(), Ptr::null()];
            (*entry).next.iter().for_each(|next| next.store(entry));
            drop(Box::from_raw(entry));
        }
    }

    fn begin(&mut self, bits: u32) {
        let heads: Box<[Ptr<Entry>]> = (0..1usize << bits).map(|_| Ptr::null()).collect();
        let heads = Box::into_raw(heads) as *const Ptr<Entry>;
        self.arrays.push((heads, bits));
        unsafe { (self.table).begin(&mut self.state, &RawArray { heads, bits }) };
    }

    /// Goes on with a resize or, if there is none, begins one.
    fn step(&mut self, bits: u32, budget: usize) {
        if !self.is_resizing() {
            self.begin(bits);
        } else if unsafe { self.table.step(&mut self.state, budget) } {
            let RawArray { heads, bits } = unsafe { self.table.publish(&mut self.state) }.unwrap();
            assert_eq!(self.state.phase, Phase::Retiring);
            unsafe { self.table.retired(&mut self.state) };
            assert_eq!(self.arrays.remove(0), (heads, bits));
            Self::free(heads, bits);
        }
    }

    fn free(heads: *const Ptr<Entry>, bits: u32) {
        let heads = slice_from_raw_parts_mut(heads.cast_mut(), 1 << bits);
        drop(unsafe { Box::from_raw(heads) });
    }

    /// All entries that the array `index` of those in use leads to.
    fn walk(&self, index: usize) -> Vec<*mut Entry> {
        let (heads, bits) = self.arrays[index];
        let place = self
            .table
            .arrays
            .iter()
            .map(|array| unsafe { &*array.get() })
            .find(|array| array.heads == heads.cast())
            .unwrap()
            .place;
        let mut all = Vec::new();
        for bucket in 0..1usize << bits {
            let mut entry = unsafe { (*heads.add(bucket)).load() };
            while !entry.is_null() {
                unsafe {
                    let wanted = table::Key::hash((*entry).key()) >> (64 - bits);
                    assert_eq!(bucket, wanted, "an entry is in the wrong bucket");
                    all.push(entry);
                    entry = (*entry).link(place).load();
                }
                assert!(all.len() <= self.entries.len(), "a chain does not end");
            }
        }
        all.sort_unstable();
        all
    }

    /// That all is in the current array, and in the other one what was moved.
    fn check(&self) {
        assert_eq!(self.state.len, self.entries.len());
        let mut all: Vec<*mut Entry> = self.entries.values().copied().collect();
        all.sort_unstable();
        assert_eq!(self.walk(0), all);
        if let Phase::Filling(cursor) = self.state.phase {
            let bits = self.arrays[0].1;
            let moved = |entry: &*mut Entry| unsafe {
                table::Key::hash((**entry).key()) >> (64 - bits) < cursor
            };
            assert_eq!(
                self.walk(1),
                all.into_iter().filter(moved).collect::<Vec<_>>()
            );
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // Also when a test fails half-way.
        for &entry in self.entries.values() {
            drop(unsafe { Box::from_raw(entry) });
        }
        for &(heads, bits) in &self.arrays {
            Self::free(heads, bits);
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Insert(Key),
    Remove(Key),
    Find(Key),
    /// With the size and the budget.
    Step(u32, usize),
}

fn key() -> impl Strategy<Value = Key> {
    (
        (0usize..40).prop_map(|number| 0x1000 + number * 64),
        0usize..4,
    )
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => key().prop_map(Op::Insert),
        2 => key().prop_map(Op::Remove),
        2 => key().prop_map(Op::Find),
        3 => (1u32..8, 1usize..20).prop_map(|(bits, budget)| Op::Step(bits, budget)),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn as_a_map(bits in 1u32..6, ops in vec(op(), 1..300)) {
        let mut model = Model::new(bits);
        for op in ops {
            match op {
                Op::Insert(key) => model.insert(key),
                Op::Remove(key) => model.remove(key),
                Op::Find(key) => {
                    let expected = model.entries.get(&key).copied().unwrap_or(null_mut());
                    prop_assert_eq!(model.find(key), expected);
                }
                Op::Step(bits, budget) => model.step(bits, budget),
            }
            model.check();
        }
    }

    #[test]
    fn sizes(count in 0usize..1 << 40, bits in MIN_BITS..=MAX_BITS) {
        let fits = |bits: u32| {
            let size = 1usize << bits;
            (count <= size / 4 * 3 || bits == MAX_BITS) && (count >= size / 8 || bits == MIN_BITS)
        };
        match wanted_bits(count, bits) {
            None => prop_assert!(fits(bits)),
            Some(wanted) => {
                prop_assert!(!fits(bits) && (MIN_BITS..=MAX_BITS).contains(&wanted));
                prop_assert_eq!(wanted_bits(count, wanted), None);
                // Far from the next resize.
                let size = 1usize << wanted;
                prop_assert!(count <= size / 2 || wanted == MAX_BITS);
                prop_assert!(count > size / 4 || wanted == MIN_BITS);
            }
        }
    }
}

#[test]
fn size_of_none_and_all() {
    assert_eq!(wanted_bits(0, MIN_BITS), None);
    assert_eq!(wanted_bits(0, MAX_BITS), Some(MIN_BITS));
    assert_eq!(wanted_bits(usize::MAX, MIN_BITS), Some(MAX_BITS));
    assert_eq!(wanted_bits(usize::MAX, MAX_BITS), None);
}

/// From nothing to many and back, by the rules that the core resizes by.
#[test]
fn grow_and_shrink() {
    const COUNT: usize = 20_000;
    let mut model = Model::new(MIN_BITS);
    let follow = |model: &mut Model| {
        let wanted = wanted_bits(model.state.len, unsafe { model.table.bits() });
        if model.is_resizing() || wanted.is_some() {
            model.step(wanted.unwrap_or(MIN_BITS), 5);
        }
    };
    for number in 0..COUNT {
        model.insert((number * 64, number % 3));
        follow(&mut model);
        for number in [number / 3, number] {
            assert!(!model.find((number * 64, number % 3)).is_null());
        }
        assert!(model.find((number * 64 + 64, number % 3)).is_null());
    }
    model.check();
    assert!(unsafe { model.table.bits() } >= 14);
    for number in 0..COUNT {
        model.remove((number * 64, number % 3));
        follow(&mut model);
        let last = COUNT - 1;
        assert_eq!(model.find((last * 64, last % 3)).is_null(), number == last);
    }
    for _ in 0..100_000 {
        follow(&mut model);
    }
    model.check();
    assert_eq!(unsafe { model.table.bits() }, MIN_BITS);

    model.insert((1, 1));
    let [current, other] = unsafe { model.table.take(&mut model.state) };
    let current = current.unwrap();
    let mut seen = 0;
    unsafe { current.for_each(|_| seen += 1) };
    assert_eq!(model.arrays[0], (current.array.heads, current.array.bits));
    assert!(seen == 1 && other.is_none() && model.find((1, 1)).is_null());
}

/// Taken down half-way through a resize: both arrays come back, all is in the first one.
#[test]
fn taken_while_resizing() {
    let mut model = Model::new(MIN_BITS);
    (0..1000).for_each(|number| model.insert((number, 1)));
    model.step(MIN_BITS + 1, 0);
    model.step(0, 100);
    assert_eq!(model.arrays.len(), 2);
    let taken = unsafe { model.table.take(&mut model.state) };
    let mut all = Vec::new();
    for (taken, &(heads, bits)) in taken.iter().zip(&model.arrays) {
        let taken = taken.as_ref().unwrap();
        assert_eq!((taken.array.heads, taken.array.bits), (heads, bits));
        unsafe { taken.for_each(|entry| all.push(entry)) };
        if bits == MIN_BITS {
            assert_eq!(all.len(), 1000);
        }
    }
    assert!((1000..2000).contains(&all.len()));
    assert!(model.find((1, 1)).is_null() && model.state.phase == Phase::Settled);
}

/// The mean number of entries that a search for one of them looks at, and the longest chain.
fn chains(keys: &[Key], bits: u32) -> (f64, usize) {
    let mut buckets = vec![0usize; 1 << bits];
    let mut looked = 0;
    for &(obj, id) in keys {
        let bucket = &mut buckets[hash(obj, id) >> (64 - bits)];
        *bucket += 1;
        looked += *bucket;
    }
    (
        looked as f64 / keys.len() as f64,
        buckets.into_iter().max().unwrap(),
    )
}

/// Whatever the distances, chains are as by chance: at half load a hit looks at 1.25 entries.
#[test]
fn spread() {
    for start in [0x1000usize, 0xffff_8880_0123_4500, 0xffff_c900_0000_0000] {
        for stride in [1, 8, 16, 48, 64, 96, 192, 256, 1024, 4096, 1 << 16, 1 << 21] {
            for bits in [10u32, 13, 16] {
                let objects = |count: usize| (0..count).map(move |n| start + n * stride);
                let half = 1usize << (bits - 1);
                let one_id: Vec<Key> = objects(half).map(|obj| (obj, 0x1234)).collect();
                let many_ids: Vec<Key> = (0..half).map(|id| (start, id * stride)).collect();
                let grid: Vec<Key> = objects(half / 16)
                    .flat_map(|obj| (0..16).map(move |id| (obj, id)))
                    .collect();
                let high_ids: Vec<Key> = (0..half).map(|id| (start, id << 32)).collect();
                for keys in [one_id, many_ids, grid, high_ids] {
                    let (mean, longest) = chains(&keys, bits);
                    assert!(
                        mean < 1.45 && longest <= 10,
                        "{mean} entries, {longest} in a chain: {start:#x}, {stride}, {bits} bits"
                    );
                }
            }
        }
    }
}
