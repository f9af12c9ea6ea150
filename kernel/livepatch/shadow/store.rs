// SPDX-License-Identifier: GPL-2.0-or-later

//! All shadow variables and what is known of their ids, behind one lock.
//!
//! Two maps, of variables and of [records](Record), and a work item that resizes them.

use super::{
    name::Name,
    record::{
        Phase,
        Record,
        Shared, //
    }, //
};
use core::mem::replace;
use kernel::{
    alloc::Flags,
    bindings,
    ffi::c_void,
    global_lock,
    prelude::*,
    rcu_map::{
        EntryMut,
        List,
        NewEntry,
        RcuMap,
        Removed,
        Writer, //
    },
    sync::{
        lock::GlobalGuard,
        rcu,
        Arc, //
    },
    time::{
        msecs_to_jiffies,
        Jiffies, //
    },
    warn_on_once,
    workqueue::{
        self,
        impl_has_delayed_work,
        new_delayed_work,
        DelayedWork,
        WorkItem, //
    },
};

/// How many variables or records are looked at before the lock is let go.
pub(super) const BATCH: usize = 100;
/// How many records of ids with neither variables nor owners are kept.
const MAX_IDLE: usize = 64;
/// When to try again to resize a map if there was no memory.
const RETRY_MS: u32 = 1000;

/// A variable that nobody finds any more. Its data are the bytes behind it.
pub(super) type Variable = Removed<Name>;
/// A variable that is not in the store yet.
pub(super) type NewVariable = NewEntry<Name>;
/// A record that is not in the store yet.
pub(super) type NewRecord = NewEntry<Name, Shared, Record>;

/// Makes a record for an id that gets a variable or an owner.
#[inline(never)]
pub(super) fn new_record(id: usize, flags: Flags) -> Result<NewRecord> {
    let name = Name::of_record(id);
    Ok(NewRecord::new(
        name,
        Shared::new(),
        Record::new(),
        0,
        flags,
    )?)
}

static VARIABLES: RcuMap<Name> = RcuMap::new();
static RECORDS: RcuMap<Name, Shared, Record> = RcuMap::new();

global_lock! {
    // SAFETY: `init()` initialises it, before any livepatch comes that could use it.
    unsafe(uninit) static SHADOW: SpinLockIrq<Option<Store>> = None;
}

/// Holds the lock.
pub(super) struct Locked(GlobalGuard<SHADOW>);

/// Takes the lock, in any context in which the C core's could be taken: not in that of an NMI nor,
/// on `PREEMPT_RT`, where it is not to sleep.
#[inline(never)]
pub(super) fn lock() -> Locked {
    Locked(SHADOW.lock())
}

impl Locked {
    /// Returns the store; none before [`init()`] and after [`exit()`].
    pub(super) fn store(&mut self) -> Option<&mut Store> {
        self.0.as_mut()
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if let Some(store) = self.store() {
            store.request_resize();
        }
    }
}

/// Whether somebody sees to it that maps have the right size.
enum Resizing {
    /// They have.
    Settled,
    /// The work was requested, or runs.
    Requested,
    /// The work should try again, but not soon.
    NoMemory,
}

/// What the lock protects.
pub(super) struct Store {
    resize: Arc<Resize>,
    resizing: Resizing,
    variables: Writer<'static, Name>,
    records: Writer<'static, Name, Shared, Record>,
    /// Records of ids with variables or owners.
    used: List<Name, Shared, Record>,
    /// The other records. Those to drop first are the first.
    idle: List<Name, Shared, Record>,
    nr_idle: usize,
    /// The number of the last walk over the used records.
    walk: usize,
    /// There while there are variables.
    core: Option<CoreRef>,
}

/// Keeps the core from being unloaded.
struct CoreRef;

impl CoreRef {
    /// Takes a reference, for a livepatch that adds a variable.
    fn new() -> Self {
        // SAFETY: The caller's module depends on the core, so there is a reference already.
        unsafe { bindings::__module_get(crate::this_module()) };
        Self
    }
}

impl Drop for CoreRef {
    fn drop(&mut self) {
        // SAFETY: Taken by `new()`. It is not the last one: the module of the livepatch that frees
        // the variable depends on the core, or the core itself holds it.
        unsafe { bindings::module_put(crate::this_module()) };
    }
}

/// What cannot fail, as lists and their entries are only used together here.
#[inline(never)]
fn sure(result: Result) {
    warn_on_once!(result.is_err());
}

/// What became of the oldest variable.
pub(super) enum Oldest {
    None,
    Kept,
    Taken(Variable),
}

impl Store {
    /// Returns the data of a variable.
    pub(super) fn data(&mut self, name: Name) -> Option<*mut c_void> {
        Some(self.variables.get(name)?.extra().as_ptr().cast())
    }

    /// Returns what is known of `id`.
    pub(super) fn record(&mut self, id: usize) -> Option<&mut Record> {
        Some(self.records.get(Name::of_record(id))?.into_parts().1)
    }

    /// Adds a record that is not there.
    pub(super) fn add_record(&mut self, mut new: NewRecord) {
        new.own().walk = self.walk;
        match self.records.insert(new) {
            Ok(mut entry) => sure(entry.push_back(&mut self.used)),
            Err(_) => sure(Err(EEXIST)),
        }
    }

    /// Adds a variable that is not there to its id, which has a record. Returns its data.
    pub(super) fn add(&mut self, new: NewVariable, managed: bool) -> Option<*mut c_void> {
        let id = new.key().id;
        let record = self.records.get(Name::of_record(id))?.into_parts().1;
        let mut entry = self.variables.insert(new).ok()?;
        sure(entry.push_front(record.list(managed)));
        let data = entry.extra().as_ptr().cast();
        record.live = record.live.wrapping_add(1);
        let phase = record.phase.with_variable();
        self.enter(id, phase);
        self.core.get_or_insert_with(CoreRef::new);
        Some(data)
    }

    /// Removes a variable; readers may still be at it. [`Self::settle`] must follow.
    pub(super) fn remove(&mut self, name: Name) -> Option<Variable> {
        let record = self.records.get(Name::of_record(name.id))?.into_parts().1;
        let mut entry = self.variables.get(name)?;
        // Either list will do, if the variable is at no end of the other one.
        if entry.unlist(record.list(true)).is_err() {
            sure(entry.unlist(record.list(false)));
        }
        let variable = Self::take(entry, record)?;
        self.release_core();
        Some(variable)
    }

    /// Removes the oldest variable with `id` that is managed, or is not. [`Self::settle`] must
    /// follow.
    pub(super) fn remove_oldest(&mut self, id: usize, managed: bool) -> Option<Variable> {
        match self.remove_oldest_if(id, managed, &|_| true) {
            Oldest::Taken(variable) => Some(variable),
            _ => None,
        }
    }

    /// Removes the oldest variable with `id` that is managed, or is not, if it `matches`; otherwise
    /// makes it the newest one. [`Self::settle`] must follow.
    pub(super) fn remove_oldest_if(
        &mut self,
        id: usize,
        managed: bool,
        matches: &dyn Fn(*mut c_void) -> bool,
    ) -> Oldest {
        let Some(entry) = self.records.get(Name::of_record(id)) else {
            return Oldest::None;
        };
        let record = entry.into_parts().1;
        let Some(mut entry) = self.variables.last(record.list(managed)) else {
            return Oldest::None;
        };
        sure(entry.unlist(record.list(managed)));
        if !matches(entry.key().obj()) {
            sure(entry.push_front(record.list(managed)));
            return Oldest::Kept;
        }
        let Some(variable) = Self::take(entry, record) else {
            return Oldest::None;
        };
        self.release_core();
        Oldest::Taken(variable)
    }

    /// Removes a variable that is on no list.
    fn take(entry: EntryMut<'_, '_, Name>, record: &mut Record) -> Option<Variable> {
        let variable = entry.remove().ok();
        sure(variable.as_ref().map(|_| ()).ok_or(EBUSY));
        record.live = record.live.wrapping_sub(1);
        variable
    }

    /// Lets the core be unloaded if there are no variables any more.
    fn release_core(&mut self) {
        if self.variables.is_empty() {
            self.core = None;
        }
    }

    /// Says that an owner of `id`, which has a record, has come.
    pub(super) fn join(&mut self, id: usize) {
        self.enter(id, Phase::Owned);
    }

    /// Says that the last owner of `id` has left.
    pub(super) fn close(&mut self, id: usize) {
        if let Some(record) = self.record(id) {
            let phase = record.phase.without_owner(record.live);
            self.enter(id, phase);
        }
    }

    /// Says that variables with `id` were removed.
    pub(super) fn settle(&mut self, id: usize) {
        if let Some(record) = self.record(id) {
            let phase = record.phase.with_variables(record.live);
            self.enter(id, phase);
        }
    }

    /// Changes the phase of the record of `id`, and puts it where it belongs; it may be gone then.
    fn enter(&mut self, id: usize, phase: Phase) {
        let Some(mut entry) = self.records.get(Name::of_record(id)) else {
            return;
        };
        entry.value().set(phase);
        let old = replace(&mut entry.own().phase, phase);
        match (old == Phase::Idle, phase == Phase::Idle) {
            (false, true) => {
                sure(entry.unlist(&mut self.used));
                match entry.own().has_news() {
                    true => sure(entry.push_back(&mut self.idle)),
                    false => sure(entry.push_front(&mut self.idle)),
                }
                self.nr_idle = self.nr_idle.wrapping_add(1);
                self.forget();
            }
            (true, false) => {
                sure(entry.unlist(&mut self.idle));
                sure(entry.push_back(&mut self.used));
                // Like a new one, which a walk need not come to.
                entry.own().walk = self.walk;
                self.nr_idle = self.nr_idle.wrapping_sub(1);
            }
            _ => (),
        }
    }

    /// Drops the first of the idle records if there are too many.
    fn forget(&mut self) {
        if self.nr_idle <= MAX_IDLE {
            return;
        }
        if let Some(mut entry) = self.records.first(&self.idle) {
            sure(entry.unlist(&mut self.idle));
            sure(entry.remove().map(|_| ()).map_err(|_| EBUSY));
            self.nr_idle = self.nr_idle.wrapping_sub(1);
        }
    }

    /// Begins a walk over the ids, and returns its number. A walk that goes on ends early then.
    pub(super) fn begin_walk(&mut self) -> usize {
        self.walk = self.walk.wrapping_add(1);
        self.walk
    }

    /// Goes on with a walk by one [`BATCH`] at most, up to an id without owner. Returns it with its
    /// number of variables, and whether the walk goes on.
    pub(super) fn next_unowned(&mut self, walk: usize) -> (Option<(usize, usize)>, bool) {
        for _ in 0..BATCH {
            let Some(mut entry) = self.records.first(&self.used) else {
                return (None, false);
            };
            // All are at the end again that the walk has come to, as are those that came later.
            if self.walk != walk || replace(&mut entry.own().walk, walk) == walk {
                return (None, false);
            }
            sure(entry.unlist(&mut self.used));
            sure(entry.push_back(&mut self.used));
            let id = entry.key().id;
            let record = entry.own();
            if record.phase != Phase::Owned {
                return (Some((id, record.live)), true);
            }
        }
        (None, true)
    }

    /// Lets the work resize the maps, if that is due and nobody has asked for it.
    fn request_resize(&mut self) {
        // Not at once, which would wake a worker: the caller may hold locks of the scheduler, as
        // with kfree_rcu(), and so may somebody who waits for ours.
        let delay = match self.resizing {
            Resizing::Requested => return,
            Resizing::NoMemory => msecs_to_jiffies(RETRY_MS),
            Resizing::Settled => 1 as Jiffies,
        };
        if self.variables.wants_resize() || self.records.wants_resize() {
            let resize = self.resize.clone();
            // It is not there yet, as nobody has requested it.
            let _ = workqueue::system_dfl().enqueue_delayed(resize, delay);
            self.resizing = Resizing::Requested;
        }
    }
}

/// Returns the data of a variable. Readers of RCU and the lock keep it.
#[inline(always)]
pub(super) fn find(guard: &rcu::Guard, name: Name) -> Option<*mut c_void> {
    Some(VARIABLES.get(guard, name)?.extra().as_ptr().cast())
}

/// Returns whether `id` has an owner.
pub(super) fn is_owned(id: usize) -> bool {
    let guard = rcu::read_lock();
    RECORDS
        .get(&guard, Name::of_record(id))
        .is_some_and(|record| record.value().is_owned())
}

/// The work that resizes the maps.
#[pin_data]
struct Resize {
    #[pin]
    work: DelayedWork<Resize>,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Resize { self.work }
}

impl WorkItem for Resize {
    type Pointer = Arc<Resize>;

    fn run(_this: Arc<Resize>) {
        let variables = Writer::resize(|f| {
            if let Some(store) = lock().store() {
                f(&mut store.variables);
            }
        });
        let records = Writer::resize(|f| {
            if let Some(store) = lock().store() {
                f(&mut store.records);
            }
        });
        if let Some(store) = lock().store() {
            store.resizing = match variables.and(records) {
                Ok(()) => Resizing::Settled,
                Err(_) => Resizing::NoMemory,
            };
        }
    }
}

/// Sets up the store. To be called once, before any livepatch can come.
///
/// # Errors
///
/// [`ENOMEM`]; there is nothing to undo then.
pub(crate) fn init() -> Result {
    // SAFETY: Called once.
    unsafe { SHADOW.init() };
    let resize = Arc::pin_init(
        pin_init!(Resize {
            work <- new_delayed_work!("livepatch::shadow"),
        }),
        GFP_KERNEL,
    )?;
    let store = Store {
        resize,
        resizing: Resizing::Settled,
        variables: VARIABLES.writer(GFP_KERNEL)?,
        records: RECORDS.writer(GFP_KERNEL)?,
        used: List::new(),
        idle: List::new(),
        nr_idle: 0,
        walk: 0,
        core: None,
    };
    *lock().0 = Some(store);
    Ok(())
}

/// Undoes [`init()`]. Nobody uses shadow variables any more, and there are none.
///
/// What was freed before may still wait for readers to end. It does so in the allocator, as with
/// `kfree_rcu()`, which needs no code of the core.
pub(crate) fn exit() {
    let store = lock().0.take();
    if let Some(store) = store {
        // Takes the lock, so wait for it without.
        store.resize.work.cancel_sync();
        // Waits for readers.
        drop(store);
    }
}

/// The logarithm of the number of buckets for variables, and the number of variables and records.
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) fn table_size() -> (u32, usize) {
    lock().store().map_or((0, 0), |store| {
        let len = store.variables.len().wrapping_add(store.records.len());
        (store.variables.bits(), len)
    })
}
