// SPDX-License-Identifier: GPL-2.0-or-later

use super::config;
use crate::sort::sort_by_key;
use proptest::{
    collection::vec,
    prelude::*, //
};
use std::{
    cell::Cell,
    fmt::Debug, //
};

/// Sorts, and compares with what the standard library makes of it.
fn check<T: Ord + Clone + Debug>(items: &[T]) -> Result<(), TestCaseError> {
    let (mut ours, mut theirs) = (items.to_vec(), items.to_vec());
    sort_by_key(&mut ours, T::clone);
    theirs.sort();
    prop_assert_eq!(ours, theirs);
    Ok(())
}

/// Calls `visit` with all orders of `items` (Heap's algorithm).
fn permute(items: &mut [usize], len: usize, visit: &mut impl FnMut(&[usize])) {
    if len <= 1 {
        return visit(items);
    }
    for i in 0..len {
        permute(items, len - 1, visit);
        if i + 1 < len {
            items.swap(if len % 2 == 0 { i } else { 0 }, len - 1);
        }
    }
}

#[test]
fn all_permutations() {
    let mut total = 0;
    for len in 0..=7usize {
        let mut items: Vec<usize> = (0..len).collect();
        permute(&mut items, len, &mut |order| {
            check(order).unwrap();
            total += 1;
        });
    }
    assert_eq!(total, 1 + 1 + 2 + 6 + 24 + 120 + 720 + 5040);
}

/// All sequences of up to seven items out of three.
#[test]
fn all_with_duplicates() {
    for len in 0..=7u32 {
        for number in 0..3usize.pow(len) {
            let digits = (0..len).map(|digit| number / 3usize.pow(digit) % 3);
            check(&digits.collect::<Vec<_>>()).unwrap();
        }
    }
}

#[test]
fn patterns() {
    for len in [0, 1, 2, 3, 15, 16, 17, 1000, 1023, 1024, 1025] {
        check(&(0..len).collect::<Vec<usize>>()).unwrap();
        check(&(0..len).rev().collect::<Vec<usize>>()).unwrap();
        check(&vec![7; len]).unwrap();
        check(&(0..len).map(|i| i % 2).collect::<Vec<_>>()).unwrap();
        let organ_pipe = (0..len).map(|i| i.min(len - i));
        check(&organ_pipe.collect::<Vec<_>>()).unwrap();
    }
}

/// Whatever the input, `O(n log n)` comparisons, so as many keys.
#[test]
fn never_quadratic() {
    let len = 1 << 14;
    let inputs: [&dyn Fn(usize) -> usize; 4] = [&|i| i, &|i| len - i, &|_| 1, &|i| i % 128];
    for input in inputs {
        let mut items: Vec<usize> = (0..len).map(input).collect();
        let keys = Cell::new(0usize);
        sort_by_key(&mut items, |&item| {
            keys.set(keys.get() + 1);
            item
        });
        assert!(items.is_sorted());
        assert!(keys.get() <= 5 * len * 14, "{} keys", keys.get());
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn same_as_std(items in vec(any::<usize>(), 0..500)) {
        check(&items)?;
    }

    #[test]
    fn same_as_std_duplicates(items in vec(0u8..10, 0..500)) {
        check(&items)?;
    }

    /// Sorted by key, and what is not the key stays with it.
    #[test]
    fn keeps_all_items(items in vec((0u8..20, any::<u32>()), 0..300)) {
        let (mut ours, mut theirs) = (items.clone(), items);
        sort_by_key(&mut ours, |item| item.0);
        theirs.sort_by_key(|item| item.0);
        prop_assert!(ours.iter().map(|item| item.0).eq(theirs.iter().map(|item| item.0)));
        ours.sort();
        theirs.sort();
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn pairs_as_keys(items in vec((0usize..6, 0usize..6), 0..100)) {
        check(&items)?;
    }

    /// An order that is none: no panic, no item lost.
    #[test]
    fn inconsistent_order(items in vec(any::<u16>(), 0..200), answers in vec(any::<f32>(), 1..64)) {
        let mut sorted = items.clone();
        let calls = Cell::new(0);
        sort_by_key(&mut sorted, |_| {
            calls.set(calls.get() + 1);
            match answers[calls.get() % answers.len()] {
                answer if answer > 0.0 => answer,
                _ => f32::NAN,
            }
        });
        let mut items = items;
        items.sort();
        sorted.sort();
        prop_assert_eq!(sorted, items);
    }
}
