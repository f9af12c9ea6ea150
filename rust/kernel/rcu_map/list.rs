// SPDX-License-Identifier: GPL-2.0

//! Lists of entries of an [`RcuMap`](super::RcuMap).

use super::{
    Head,
    Key,
    Removed, //
};
use crate::prelude::*;
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::{
        null_mut,
        without_provenance_mut,
        NonNull, //
    },
};

/// What leads from an entry to its neighbours on a list, NULL at the ends.
pub(super) struct Links<K> {
    prev: *mut Head<K>,
    next: *mut Head<K>,
}

impl<K> Clone for Links<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Links<K> {}

impl<K> Links<K> {
    /// Those of an entry that is on no list: no neighbour has an odd address.
    pub(super) fn none() -> Self {
        Self {
            prev: without_provenance_mut(1),
            next: null_mut(),
        }
    }

    fn is_none(&self) -> bool {
        self.prev.addr() == 1
    }
}

/// Returns the links of an entry.
///
/// # Safety
///
/// The node must be valid, in a map or a queue, and nobody else use its links during `'a`.
unsafe fn links<'a, K>(node: *mut Head<K>) -> &'a mut Links<K> {
    // SAFETY: By the caller's promise, and the type invariant of `Head`.
    unsafe { &mut (*(*node).place.get()).links }
}

/// Returns whether the entry is on a list.
///
/// # Safety
///
/// The node must be valid, in a map, and the caller have exclusive access to that.
pub(super) unsafe fn is_listed<K>(node: NonNull<Head<K>>) -> bool {
    // SAFETY: By the caller's promise.
    !unsafe { links(node.as_ptr()) }.is_none()
}

/// An end of a list.
pub(super) enum End {
    First,
    Last,
}

/// What a [`List`] is whatever the values of its entries.
///
/// # Invariants
///
/// If `first` and `last` are not NULL and there is a writer with the id `writer`, they and what
/// their links lead to are nodes in its map. An entry that has no neighbour in front of it is the
/// `first` of one list at most, one that has none behind it the `last` of that.
pub(super) struct RawList<K> {
    writer: u64,
    first: *mut Head<K>,
    last: *mut Head<K>,
}

impl<K> RawList<K> {
    const fn new() -> Self {
        // INVARIANT: No writer has the id 0, and there are no entries.
        Self {
            writer: 0,
            first: null_mut(),
            last: null_mut(),
        }
    }

    /// The entry at the `end`, if it is in the map of the writer `id`.
    pub(super) fn at(&self, end: End, id: u64) -> Option<NonNull<Head<K>>> {
        let node = match end {
            End::First => self.first,
            End::Last => self.last,
        };
        NonNull::new(node).filter(|_| self.writer == id)
    }

    /// Puts an entry at the `end` of the list.
    ///
    /// # Safety
    ///
    /// The caller must have exclusive access to the map of the writer `id`, and the node be in it.
    #[inline(never)]
    pub(super) unsafe fn insert(&mut self, id: u64, node: NonNull<Head<K>>, end: End) -> Result {
        // SAFETY: By the caller's promise.
        if unsafe { is_listed(node) } {
            return Err(EBUSY);
        }
        if self.writer != id && !self.first.is_null() {
            return Err(EINVAL);
        }
        self.writer = id;
        let node = node.as_ptr();
        let (prev, next) = match end {
            End::First => (null_mut(), self.first),
            End::Last => (self.last, null_mut()),
        };
        // INVARIANT: The node is in the map and gets the neighbours that it has on this list.
        //
        // SAFETY: What is on the list is in the map by the type invariant, and the caller has
        // exclusive access to that.
        unsafe {
            *links(node) = Links { prev, next };
            self.join(prev, node);
            self.join(node, next);
        }
        Ok(())
    }

    /// Takes an entry off the list.
    ///
    /// # Safety
    ///
    /// As for [`Self::insert`].
    #[inline(never)]
    pub(super) unsafe fn remove(&mut self, id: u64, node: NonNull<Head<K>>) -> Result {
        let node = node.as_ptr();
        // SAFETY: The node is in the map, by the caller's promise.
        let own = *unsafe { links(node) };
        let Links { prev, next } = own;
        if self.writer != id
            || own.is_none()
            || (prev.is_null() && self.first != node)
            || (next.is_null() && self.last != node)
        {
            return Err(EINVAL);
        }
        // INVARIANT: The neighbours become each other's; if there is none, this is the list whose
        // end the entry was.
        //
        // SAFETY: Neighbours are in the same map by the type invariant.
        unsafe {
            self.join(prev, next);
            *links(node) = Links::none();
        }
        Ok(())
    }

    /// Makes two entries neighbours; NULL stands for an end of the list.
    ///
    /// # Safety
    ///
    /// Nodes must be valid, and the caller have exclusive access to their map or queue.
    unsafe fn join(&mut self, prev: *mut Head<K>, next: *mut Head<K>) {
        match prev.is_null() {
            true => self.first = next,
            // SAFETY: By the caller's promise.
            false => unsafe { links(prev) }.next = next,
        }
        match next.is_null() {
            true => self.last = prev,
            // SAFETY: By the caller's promise.
            false => unsafe { links(next) }.prev = prev,
        }
    }
}

/// Entries of a map in some order.
///
/// An entry can be on one list. It stays in the map if the list is dropped, but then it can be
/// taken off by nobody, and not be removed before the rest of the map is.
///
/// A list belongs to the [`Writer`](super::Writer) of the first entry that is put on it, and is of
/// no use to others.
pub struct List<K, V = (), W = ()> {
    pub(super) raw: RawList<K>,
    _entries: PhantomData<fn(V, W)>,
}

// SAFETY: A list does nothing without the writer, who has the entries.
unsafe impl<K, V, W> Send for List<K, V, W> {}
// SAFETY: A shared list only says whether it is empty.
unsafe impl<K, V, W> Sync for List<K, V, W> {}

impl<K, V, W> Default for List<K, V, W> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V, W> List<K, V, W> {
    /// Makes an empty list.
    pub const fn new() -> Self {
        Self {
            raw: RawList::new(),
            _entries: PhantomData,
        }
    }

    /// Returns whether there is no entry on the list.
    pub fn is_empty(&self) -> bool {
        self.raw.first.is_null()
    }
}

/// Entries that were removed, in the order in which they came here.
///
/// Frees those that are left when it is dropped, as [`Removed`] does.
///
/// # Invariants
///
/// The entries on the list are in no map, and in nobody else's hands but those of readers.
pub struct RemovedQueue<K, V = (), W = ()>
where
    K: Key,
{
    list: RawList<K>,
    _entries: PhantomData<Removed<K, V, W>>,
}

// SAFETY: Owns entries as `Removed` does.
unsafe impl<K: Key + Send + Sync, V: Send + Sync, W: Send> Send for RemovedQueue<K, V, W> {}

impl<K: Key, V, W> Default for RemovedQueue<K, V, W> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Key, V, W> RemovedQueue<K, V, W> {
    /// Makes an empty queue.
    pub const fn new() -> Self {
        Self {
            list: RawList::new(),
            _entries: PhantomData,
        }
    }

    /// Adds an entry at the end.
    pub fn push(&mut self, removed: Removed<K, V, W>) {
        let node = ManuallyDrop::new(removed).node.cast().as_ptr();
        let (prev, next) = (self.list.last, null_mut());
        // SAFETY: The node and those in the queue are ours by the type invariants, and nobody but
        // their owner uses links of entries that were removed.
        unsafe {
            *links(node) = Links { prev, next };
            self.list.join(prev, node);
            self.list.join(node, next);
        }
    }

    /// Takes the entry out that came first.
    pub fn pop(&mut self) -> Option<Removed<K, V, W>> {
        let node = NonNull::new(self.list.first)?;
        // SAFETY: By the type invariant the first entry and the next one, if any, are ours; an
        // entry in a queue has links.
        unsafe {
            let next = links(node.as_ptr()).next;
            self.list.join(null_mut(), next);
        }
        // INVARIANT: It was in the queue, and is no more.
        Some(Removed { node: node.cast() })
    }
}

impl<K: Key, V, W> Drop for RemovedQueue<K, V, W> {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}
