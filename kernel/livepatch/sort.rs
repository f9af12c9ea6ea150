// SPDX-License-Identifier: GPL-2.0-or-later

//! Sorting without memory and without a way to panic.
//!
//! The sorts of `core` panic when the order is inconsistent, in a function that objtool does not
//! know to be one that never returns. The C core sorts nothing. Pure; tested on the host.

/// What can be sorted, by index.
trait Sort {
    /// Whether the item at `low` belongs before that at `high`.
    fn is_before(&self, low: usize, high: usize) -> bool;
    /// Swaps two items, the first of which is at a lower index.
    fn swap(&mut self, low: usize, high: usize);
}

/// Items and what they are sorted by.
struct Keyed<'a, T, F>(&'a mut [T], F);

impl<T, K: PartialOrd, F: Fn(&T) -> K> Sort for Keyed<'_, T, F> {
    fn is_before(&self, low: usize, high: usize) -> bool {
        match (self.0.get(low), self.0.get(high)) {
            (Some(low), Some(high)) => (self.1)(low) < (self.1)(high),
            _ => false,
        }
    }

    fn swap(&mut self, low: usize, high: usize) {
        if let Some((head, tail)) = self.0.split_at_mut_checked(high) {
            if let (Some(low), Some(high)) = (head.get_mut(low), tail.first_mut()) {
                core::mem::swap(low, high);
            }
        }
    }
}

/// Sorts `items` by `key`. Not stable; `O(n log n)` always (a heapsort).
pub(crate) fn sort_by_key<T, K: PartialOrd>(items: &mut [T], key: impl Fn(&T) -> K) {
    let len = items.len();
    sort(&mut Keyed(items, key), len);
}

/// Sorts `len` items. Not generic: of what is sorted only comparing and swapping are compiled anew.
fn sort(items: &mut dyn Sort, len: usize) {
    for root in (0..len / 2).rev() {
        sift_down(items, root, len);
    }
    for end in (1..len).rev() {
        items.swap(0, end);
        sift_down(items, 0, end);
    }
}

/// Restores the heap in the first `end` items, of which only `root` may be out of order.
fn sift_down(items: &mut dyn Sort, mut root: usize, end: usize) {
    loop {
        let mut child = root.saturating_mul(2).saturating_add(1);
        if child >= end {
            return;
        }
        let right = child.saturating_add(1);
        if right < end && items.is_before(child, right) {
            child = right;
        }
        if !items.is_before(root, child) {
            return;
        }
        items.swap(root, child);
        root = child;
    }
}
