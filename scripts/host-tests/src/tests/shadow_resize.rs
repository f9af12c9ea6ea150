// SPDX-License-Identifier: GPL-2.0-or-later

//! Readers of the table of shadow variables while it is changed and resized, in all interleavings
//! that [loom](https://docs.rs/loom) makes with up to [`PREEMPTIONS`] preemptions.
//!
//! An RCU reader is a thread that holds [`Memory::readers`], a grace period takes it once. That
//! models what counts: what preceded the grace period is before all later readers, all earlier ones
//! are before its return. What would be freed is cut off, and whoever still uses it does not find
//! what is behind it.
//!
//! `Ptr::load()` is an acquire here and a dependency in the kernel; all that readers load after it
//! is at an address that they got from it.

#[path = "../../../../kernel/livepatch/shadow_table.rs"]
mod shadow_table;

/// What the table takes from `shadow.rs`.
mod shadow {
    use loom::sync::atomic::{
        AtomicPtr,
        Ordering::{
            Acquire,
            Release, //
        },
    };

    pub(crate) struct Ptr<T>(AtomicPtr<T>);

    impl<T> Ptr<T> {
        pub(crate) fn null() -> Self {
            Self::new(std::ptr::null_mut())
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
}

use loom::{
    model::Builder,
    sync::{
        Arc,
        Mutex, //
    },
    thread,
};
use shadow::Ptr;
use shadow_table::{
    Buckets,
    Entry,
    Table, //
};
use std::{
    ffi::c_void,
    ptr::null_mut, //
};

const PREEMPTIONS: usize = 3;

/// How many variables there are. Those with an even number are there throughout.
const ENTRIES: usize = 4;

struct Memory {
    table: Table,
    entries: Vec<Entry>,
    arrays: Vec<Vec<Ptr<Entry>>>,
    /// Held by readers.
    readers: Mutex<()>,
}

// SAFETY: `Table` is; entries are constant but for their links.
unsafe impl Sync for Memory {}
// SAFETY: As above.
unsafe impl Send for Memory {}

fn object(number: usize) -> *mut c_void {
    (0x1000 + number * 64) as *mut c_void
}

impl Memory {
    /// With arrays of 2 to the power of `bits` buckets, the first one in use.
    fn new(bits: &[u32]) -> Arc<Memory> {
        // There is an array before anybody reads.
        let heads = Box::leak(Box::new([Ptr::null(), Ptr::null()]));
        let nothing: &Buckets = Box::leak(Box::new(Buckets::nothing(heads)));
        let memory = Arc::new(Memory {
            table: Table::new(nothing, Ptr::new(std::ptr::from_ref(nothing).cast_mut())),
            entries: (0..ENTRIES)
                .map(|number| Entry {
                    next: [Ptr::null(), Ptr::null()],
                    obj: object(number),
                    id: 1,
                })
                .collect(),
            arrays: bits
                .iter()
                .map(|bits| (0..1usize << bits).map(|_| Ptr::null()).collect())
                .collect(),
            readers: Mutex::new(()),
        });
        unsafe {
            memory.table.begin(memory.arrays[0].as_ptr(), bits[0]);
            memory.table.publish();
        }
        for number in (0..ENTRIES).step_by(2) {
            memory.insert(number);
        }
        memory
    }

    fn entry(&self, number: usize) -> *mut Entry {
        (&raw const self.entries[number]).cast_mut()
    }

    fn insert(&self, number: usize) {
        unsafe { self.table.insert(self.entry(number)) };
    }

    fn remove(&self, number: usize) {
        unsafe { self.table.remove(self.entry(number)) };
    }

    fn grace_period(&self) {
        drop(self.readers.lock().unwrap());
    }

    /// What must be found is, and nothing else.
    fn read(&self) {
        for number in (0..ENTRIES).rev() {
            let _section = self.readers.lock().unwrap();
            let found = unsafe { self.table.find(object(number), 1) };
            if number % 2 == 0 {
                assert_eq!(found, self.entry(number), "an entry was not found");
            } else {
                assert!(found.is_null() || found == self.entry(number));
            }
        }
    }

    /// Resizes to the array with number `to`, calling `between` between any two steps.
    fn resize(&self, to: usize, between: impl Fn(usize)) {
        let array = &self.arrays[to];
        unsafe { self.table.begin(array.as_ptr(), array.len().ilog2()) };
        let mut steps = 0;
        while !unsafe { self.table.step(1) } {
            between(steps);
            steps += 1;
        }
        let (old, bits) = unsafe { self.table.publish() };
        between(steps);
        self.grace_period();
        // Freed: whoever comes here again finds nothing.
        let old = self
            .arrays
            .iter()
            .find(|array| array.as_ptr() == old)
            .unwrap();
        assert_eq!(old.len(), 1 << bits);
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
