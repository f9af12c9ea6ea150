// SPDX-License-Identifier: GPL-2.0

//! Sorting in place, in any context that can sleep.
//!
//! The sorts of `core` are large, and panic when the order is inconsistent. This is one function
//! for all types, with a comparison for each.
//!
//! C header: [`include/linux/sort.h`](srctree/include/linux/sort.h)

use crate::{
    bindings,
    ffi::{
        c_int,
        c_void, //
    },
};
use core::cmp::Ordering;

/// Sorts `items` with `compare`, in `O(n log n)` always; equal items may change places. May sleep.
///
/// If the order is not a total one, neither is that of the result.
///
/// Mirrors `sort_r_nonatomic()`.
///
/// # Examples
///
/// ```
/// use kernel::sort::sort_by;
///
/// let mut items = [3, 1, 2];
/// sort_by(&mut items, |a, b| b.cmp(a));
/// assert_eq!(items, [3, 2, 1]);
/// ```
pub fn sort_by<T, F>(items: &mut [T], compare: F)
where
    F: Fn(&T, &T) -> Ordering,
{
    /// # Safety
    ///
    /// `a` and `b` must be valid items, and `compare` be a valid `F`.
    unsafe extern "C" fn call<T, F>(
        a: *const c_void,
        b: *const c_void,
        compare: *const c_void,
    ) -> c_int
    where
        F: Fn(&T, &T) -> Ordering,
    {
        // SAFETY: By the caller's promise.
        let (a, b, compare) = unsafe { (&*a.cast::<T>(), &*b.cast::<T>(), &*compare.cast::<F>()) };
        compare(a, b) as c_int
    }

    // The function counts the bytes of an item in an `int`.
    const { assert!(size_of::<T>() <= c_int::MAX as usize) };
    // SAFETY: The items are valid, and exclusively borrowed. Whatever the comparison returns, they
    // are only swapped with each other, as a whole, between calls of it; it gets nothing but items
    // and what it was passed.
    unsafe {
        bindings::sort_r_nonatomic(
            items.as_mut_ptr().cast(),
            items.len(),
            size_of::<T>(),
            Some(call::<T, F>),
            None,
            (&raw const compare).cast(),
        );
    }
}

/// Sorts `items` by what `key` returns for them, as [`sort_by`] does.
///
/// # Examples
///
/// ```
/// use kernel::sort::sort_by_key;
///
/// let mut items = [(3, 'a'), (1, 'b'), (2, 'c')];
/// sort_by_key(&mut items, |&(number, _)| number);
/// assert_eq!(items, [(1, 'b'), (2, 'c'), (3, 'a')]);
///
/// let mut nothing: [u8; 0] = [];
/// sort_by_key(&mut nothing, |&item| item);
/// // Items without a size are all the same.
/// sort_by_key(&mut [(), ()], |&()| 0);
/// ```
pub fn sort_by_key<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    sort_by(items, |a, b| key(a).cmp(&key(b)));
}
