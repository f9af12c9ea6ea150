// SPDX-License-Identifier: GPL-2.0-or-later

//! Variables that belong to livepatches which declare their id, and are freed with the last of
//! them.

use super::{
    record::{
        say_mixed,
        User, //
    },
    store::{
        lock,
        new_record,
        Oldest,
        BATCH, //
    },
    variable::{
        destroy,
        Dtor, //
    }, //
};
use core::ops::Range;
use kernel::{
    ffi::c_void,
    fmt,
    prelude::*,
    rcu_map::RemovedQueue, //
};

/// Makes variables of the type `id` possible: an owner has come, the first or another one. What the
/// code of `user` makes by the id is managed, too. May sleep.
///
/// Variables that are there already stay what they are.
///
/// # Errors
///
/// [`ENOMEM`], and [`ENODEV`] before [`init()`](super::init); nothing has changed then.
///
/// # Safety
///
/// The module of `user` must be held until [`part()`].
pub(crate) unsafe fn join(id: usize, user: Option<User>) -> Result {
    let mut spare = Some(new_record(id, GFP_KERNEL)?);
    let mut users = KVec::new();
    let is_mixed = loop {
        let mut locked = lock();
        let store = locked.store().ok_or(ENODEV)?;
        let known = store.record(id).map_or(0, |record| record.users.len());
        let needed = known.saturating_add(1);
        if user.is_some() && users.capacity() < needed {
            drop(locked);
            users.reserve(needed, GFP_KERNEL)?;
            continue;
        }
        let is_new = store.record(id).is_none();
        if let Some(new) = spare.take_if(|_| is_new) {
            store.add_record(new);
        }
        store.join(id);
        let Some(record) = store.record(id) else {
            return Err(ENODEV);
        };
        if let Some(user) = user {
            // INVARIANT: By the caller's promise the module of `user` is held.
            //
            // There is room for all, as was seen.
            for &known in record.users.iter() {
                let _ = users.push_within_capacity(known);
            }
            let _ = users.push_within_capacity(user);
            core::mem::swap(&mut record.users, &mut users);
        }
        break record.becomes_mixed();
    };
    if is_mixed {
        say_mixed(id);
    }
    Ok(())
}

/// Undoes [`join()`] of one owner: what the code of `user` makes from now on is its own.
pub(crate) fn part(id: usize, user: Option<User>) {
    let mut locked = lock();
    let record = locked.store().and_then(|store| store.record(id));
    if let (Some(record), Some(user)) = (record, user) {
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
    if let Some(store) = lock().store() {
        store.close(id);
    }
}

/// Never frees a managed variable with `id` again: tasks may use them for ever. Says so, if there
/// are any, and `after` what.
pub(crate) fn leak(id: usize, after: &str) {
    let is_news = lock()
        .store()
        .and_then(|store| store.record(id))
        .is_some_and(|record| record.leak());
    if is_news {
        pr_warn!(
            "shadow variables with id {} are never freed, after {}\n",
            id,
            after
        );
    }
}

/// Returns the number of variables with `id`.
pub(crate) fn live(id: usize) -> usize {
    lock()
        .store()
        .and_then(|store| store.record(id))
        .map_or(0, |record| record.live)
}

/// Calls `f` with each id that has variables but no owner, and with their number. May sleep.
///
/// # Errors
///
/// That of `f`, which ends it.
pub(crate) fn for_each_unowned(
    _locked: &crate::lock::KlpLocked,
    mut f: impl FnMut(usize, usize) -> fmt::Result,
) -> fmt::Result {
    // There is one walk at a time, as the mutex is held.
    let walk = lock().store().map_or(0, |store| store.begin_walk());
    let mut goes_on = true;
    while goes_on {
        let found;
        (found, goes_on) = match lock().store() {
            Some(store) => store.next_unowned(walk),
            None => (None, false),
        };
        if let Some((id, live)) = found {
            f(id, live)?;
        }
    }
    Ok(())
}

/// Frees all managed variables with `id`, the oldest first, unless they [leak]. May sleep.
///
/// Unlike [`free_all`](super::free_all), it calls `dtor` in process context, without a lock.
///
/// # Safety
///
/// `dtor` must be callable in process context.
pub(crate) unsafe fn collect(id: usize, dtor: Dtor) {
    // SAFETY: By the caller's promise.
    unsafe { collect_if(id, dtor, usize::MAX, &|_| true) };
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
    unsafe { collect_if(id, dtor, live(id), &inside) };
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
    matches: &dyn Fn(*mut c_void) -> bool,
) {
    while left != 0 {
        let mut gone = RemovedQueue::new();
        let mut locked = lock();
        let Some(store) = locked.store() else {
            return;
        };
        if store.record(id).is_none_or(|record| record.leaked) {
            return;
        }
        for _ in 0..left.min(BATCH) {
            match store.remove_oldest_if(id, true, matches) {
                Oldest::Taken(variable) => gone.push(variable),
                Oldest::Kept => (),
                Oldest::None => {
                    left = 0;
                    break;
                }
            }
            left = left.saturating_sub(1);
        }
        store.settle(id);
        drop(locked);

        while let Some(variable) = gone.pop() {
            // SAFETY: By the caller's promise.
            unsafe { destroy(variable, dtor) };
        }
    }
}
