// SPDX-License-Identifier: GPL-2.0-or-later

//! Readers of the table of an `RcuMap` while it is changed and resized, in all interleavings that
//! [loom](https://docs.rs/loom) makes with up to [`PREEMPTIONS`] preemptions.
//!
//! An RCU reader is a thread that holds [`Memory::readers`], a grace period takes it once. That
//! models what counts: what preceded the grace period is before all later readers, all earlier ones
//! are before its return. What would be freed is cut off, and whoever still uses it does not find
//! what is behind it.
//!
//! `Ptr::load()` is an acquire here and a dependency in the kernel; all that readers load after it
//! is at an address that they got from it.

#[path = "../../../../rust/kernel/rcu_map/table.rs"]
mod table;

use loom::{
    model::Builder,
    sync::{
        atomic::{
            AtomicPtr,
            Ordering::{
                Acquire,
                Release, //
            },
        },
        Arc,
        Mutex, //
    },
    thread,
};
use std::{
    cell::RefCell,
    ptr::null_mut, //
};
use table::{
    Buckets,
    Chained,
    RawArray,
    State,
    Table, //
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

type Entry = Chained<usize>;

const PREEMPTIONS: usize = 3;

/// How many entries there are. Those with an even number are there throughout.
const ENTRIES: usize = 4;

struct Memory {
    table: Table<usize>,
    /// The writer's; there is one, in whichever thread.
    state: RefCell<State>,
    entries: Vec<Entry>,
    arrays: Vec<Vec<Ptr<Entry>>>,
    /// Held by readers.
    readers: Mutex<()>,
}

// SAFETY: `Table` is; entries are constant but for their links.
unsafe impl Sync for Memory {}
// SAFETY: As above.
unsafe impl Send for Memory {}

fn key(number: usize) -> usize {
    0x1000 + number * 64
}

impl Memory {
    /// With arrays of 2 to the power of `bits` buckets, the first one in use.
    fn new(bits: &[u32]) -> Arc<Memory> {
        // There is an array before anybody reads.
        let heads = Box::leak(Box::new([Ptr::null(), Ptr::null()]));
        let empty: &Buckets = Box::leak(Box::new(Buckets::empty(heads)));
        let memory = Arc::new(Memory {
            table: Table::new(empty, Ptr::new(std::ptr::from_ref(empty).cast_mut())),
            state: RefCell::new(State::new()),
            entries: (0..ENTRIES).map(|number| Entry::new(key(number))).collect(),
            arrays: bits
                .iter()
                .map(|bits| (0..1usize << bits).map(|_| Ptr::null()).collect())
                .collect(),
            readers: Mutex::new(()),
        });
        memory.begin(0);
        unsafe { memory.table.publish(&mut memory.state.borrow_mut()) };
        unsafe { memory.table.retired(&mut memory.state.borrow_mut()) };
        for number in (0..ENTRIES).step_by(2) {
            memory.insert(number);
        }
        memory
    }

    fn entry(&self, number: usize) -> *mut Entry {
        (&raw const self.entries[number]).cast_mut()
    }

    fn insert(&self, number: usize) {
        unsafe { (self.table).insert(&mut self.state.borrow_mut(), self.entry(number)) };
    }

    fn remove(&self, number: usize) {
        unsafe { (self.table).remove(&mut self.state.borrow_mut(), self.entry(number)) };
    }

    fn begin(&self, to: usize) {
        let array = RawArray {
            heads: self.arrays[to].as_ptr(),
            bits: self.arrays[to].len().ilog2(),
        };
        unsafe { self.table.begin(&mut self.state.borrow_mut(), &array) };
    }

    fn step(&self) -> bool {
        unsafe { self.table.step(&mut self.state.borrow_mut(), 1) }
    }

    fn grace_period(&self) {
        drop(self.readers.lock().unwrap());
    }

    /// What must be found is, and nothing else.
    fn read(&self) {
        for number in (0..ENTRIES).rev() {
            let _section = self.readers.lock().unwrap();
            let found = unsafe { self.table.find(key(number)) };
            if number % 2 == 0 {
                assert_eq!(found, self.entry(number), "an entry was not found");
            } else {
                assert!(found.is_null() || found == self.entry(number));
            }
        }
    }

    /// Resizes to the array with number `to`, calling `between` between any two steps.
    fn resize(&self, to: usize, between: impl Fn(usize)) {
        self.begin(to);
        let mut steps = 0;
        while !self.step() {
            between(steps);
            steps += 1;
        }
        let old = unsafe { self.table.publish(&mut self.state.borrow_mut()) }.unwrap();
        between(steps);
        self.grace_period();
        unsafe { self.table.retired(&mut self.state.borrow_mut()) };
        // Freed: whoever comes here again finds nothing.
        let old = self
            .arrays
            .iter()
            .find(|array| array.as_ptr() == old.heads)
            .unwrap();
        for head in old {
            head.store(null_mut());
        }
    }

    /// Frees an entry that was removed: whoever comes across it loses the rest of the chain.
    fn free(&self, number: usize) {
        self.grace_period();
        for next in &self.entries[number].next {
            next.store(null_mut());
        }
    }
}

fn check(bits: &'static [u32], writer: fn(&Memory)) {
    let mut builder = Builder::new();
    if builder.preemption_bound.is_none() {
        builder.preemption_bound = Some(PREEMPTIONS);
    }
    builder.check(move || {
        let memory = Memory::new(bits);
        let reader = {
            let memory = memory.clone();
            thread::spawn(move || memory.read())
        };
        writer(&memory);
        reader.join().unwrap();
        memory.read();
    });
}

#[test]
fn insert_and_remove() {
    check(&[1], |memory| {
        memory.insert(1);
        memory.insert(3);
        memory.remove(1);
        memory.free(1);
    });
}

#[test]
fn grow() {
    check(&[1, 2], |memory| memory.resize(1, |_| ()));
}

#[test]
fn shrink() {
    check(&[2, 1], |memory| memory.resize(1, |_| ()));
}

#[test]
fn change_while_growing() {
    check(&[1, 2], |memory| {
        memory.insert(1);
        memory.resize(1, |step| match step {
            0 => memory.insert(3),
            1 => memory.remove(1),
            _ => (),
        });
        memory.free(1);
        memory.remove(3);
        memory.free(3);
    });
}

/// The second resize uses the links of the first array again.
#[test]
fn links_are_used_again() {
    check(&[1, 2, 1], |memory| {
        memory.insert(1);
        memory.resize(1, |_| ());
        memory.resize(2, |_| ());
        memory.remove(1);
        memory.free(1);
    });
}
