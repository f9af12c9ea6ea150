// SPDX-License-Identifier: GPL-2.0-or-later

//! What `kernel::sort` is to the core.

pub(crate) fn sort_by_key<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    items.sort_unstable_by_key(key);
}
