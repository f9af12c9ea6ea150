// SPDX-License-Identifier: GPL-2.0-or-later

//! Sorting without memory and without a way to panic.
//!
//! The sorts of `core` panic when the order is inconsistent, in a function that objtool does not
//! know to be one that never returns. The C core sorts nothing. Pure; tested on the host.

/// Sorts `items` by `key`. Not stable; `O(n log n)` always (a heapsort).
pub(crate) fn sort_by_key<T, K: PartialOrd>(items: &mut [T], key: impl Fn(&T) -> K) {
    let len = items.len();
    for root in (0..len / 2).rev() {
        sift_down(items, root, len, &key);
    }
    for end in (1..len).rev() {
        swap(items, 0, end);
        sift_down(items, 0, end, &key);
    }
}

/// Swaps two items, without a panic when there are no such items.
fn swap<T>(items: &mut [T], low: usize, high: usize) {
    if let Some((head, tail)) = items.split_at_mut_checked(high) {
        if let (Some(low), Some(high)) = (head.get_mut(low), tail.first_mut()) {
            core::mem::swap(low, high);
        }
    }
}

/// Restores the heap in `items[..end]` of which only `root` may be out of order.
fn sift_down<T, K: PartialOrd>(
    items: &mut [T],
    mut root: usize,
    end: usize,
    key: &impl Fn(&T) -> K,
) {
    let key_at = |items: &[T], index: usize| items.get(index).map(key);
    loop {
        let mut child = root.saturating_mul(2).saturating_add(1);
        if child >= end {
            return;
        }
        let right = child.saturating_add(1);
        if right < end && key_at(items, child) < key_at(items, right) {
            child = right;
        }
        if key_at(items, root) >= key_at(items, child) {
            return;
        }
        swap(items, root, child);
        root = child;
    }
}
/// Seeded.
pub fn seeded() -> u32 { kernel::kallsyms::seeded() }
