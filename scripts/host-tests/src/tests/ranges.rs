// SPDX-License-Identifier: GPL-2.0-or-later

use super::config;
use crate::rules::ranges::{
    find,
    normalise,
    Range, //
};
use proptest::{
    collection::vec,
    prelude::*, //
};

fn range(start: usize, end: usize, tag: usize) -> Range {
    Range { start, end, tag }
}

fn normalised(mut ranges: Vec<Range>) -> Vec<Range> {
    let kept = normalise(&mut ranges);
    ranges.truncate(kept);
    ranges
}

/// A model of [`normalise`]: merges two ranges that share an address, until no two do.
fn model(ranges: &[Range]) -> Vec<Range> {
    let mut out: Vec<Range> = Vec::new();
    for &range in ranges {
        if range.start >= range.end {
            continue;
        }
        let mut merged = range;
        while let Some(at) = out
            .iter()
            .position(|other| merged.start < other.end && other.start < merged.end)
        {
            let other = out.swap_remove(at);
            let (start, tag) = (merged.start, merged.tag).min((other.start, other.tag));
            merged = Range {
                start,
                end: merged.end.max(other.end),
                tag,
            };
        }
        out.push(merged);
    }
    out.sort_by_key(|range| range.start);
    out
}

/// Checks all that [`normalise`] and [`find`] promise, for `addrs` and the borders of ranges.
fn check(ranges: Vec<Range>, addrs: &[usize]) -> Result<(), TestCaseError> {
    let result = normalised(ranges.clone());
    prop_assert_eq!(&result, &model(&ranges));
    for range in &result {
        prop_assert!(range.start < range.end, "an empty range");
    }
    for pair in result.windows(2) {
        prop_assert!(pair[0].end <= pair[1].start, "not sorted, or not disjoint");
    }
    let borders = ranges.iter().flat_map(|range| [range.start, range.end]);
    let around = borders.flat_map(|addr| [addr.wrapping_sub(1), addr, addr.wrapping_add(1)]);
    for addr in around.chain(addrs.iter().copied()).chain([0, usize::MAX]) {
        let inside = |range: &&Range| range.start <= addr && addr < range.end;
        prop_assert_eq!(find(&result, addr), result.iter().find(inside), "{}", addr);
        prop_assert_eq!(
            find(&result, addr).is_some(),
            ranges.iter().any(|range| inside(&range)),
            "{}",
            addr
        );
    }
    let again = normalised(result.clone());
    prop_assert_eq!(again, result, "not idempotent");
    Ok(())
}

#[test]
fn nothing() {
    assert_eq!(normalise::<usize>(&mut []), 0);
    assert_eq!(find::<usize>(&[], 0), None);
    assert_eq!(find::<usize>(&[], usize::MAX), None);
}

#[test]
fn one() {
    let ranges = normalised(vec![range(10, 20, 7)]);
    assert_eq!(ranges, [range(10, 20, 7)]);
    for (addr, inside) in [(9, false), (10, true), (19, true), (20, false)] {
        assert_eq!(find(&ranges, addr).is_some(), inside, "{addr}");
    }
}

#[test]
fn empty_and_backwards_are_dropped() {
    let all = [range(5, 5, 0), range(9, 3, 1), range(0, 0, 2)];
    assert_eq!(normalised(all.to_vec()), []);
    let all = [range(5, 5, 0), range(5, 6, 1), range(4, 4, 2)];
    assert_eq!(
        normalised(all.to_vec()),
        [range(5, 6, 1)],
        "an empty range gives its tag to no other"
    );
}

#[test]
fn touching_stay_apart() {
    let all = vec![range(20, 30, 1), range(10, 20, 0), range(30, 40, 2)];
    let ranges = normalised(all);
    assert_eq!(
        ranges,
        [range(10, 20, 0), range(20, 30, 1), range(30, 40, 2)]
    );
    assert_eq!(find(&ranges, 20).unwrap().tag, 1);
}

#[test]
fn overlapping_are_merged() {
    assert_eq!(
        normalised(vec![range(15, 30, 0), range(10, 20, 1)]),
        [range(10, 30, 1)],
        "the one that starts first is the one that counts"
    );
    let nested = vec![range(12, 13, 0), range(10, 20, 1), range(14, 18, 2)];
    assert_eq!(normalised(nested), [range(10, 20, 1)]);
    let same_start = vec![range(10, 12, 4), range(10, 30, 9), range(10, 11, 3)];
    assert_eq!(normalised(same_start), [range(10, 30, 3)]);
    let twice = vec![range(10, 20, 1), range(10, 20, 0)];
    assert_eq!(normalised(twice), [range(10, 20, 0)]);
    let bridge = vec![range(0, 4, 0), range(6, 9, 1), range(3, 7, 2)];
    assert_eq!(normalised(bridge), [range(0, 9, 0)]);
    let behind_nested = vec![range(0, 100, 0), range(1, 2, 1), range(50, 60, 2)];
    assert_eq!(normalised(behind_nested), [range(0, 100, 0)]);
}

#[test]
fn extremes() {
    const MAX: usize = usize::MAX;
    let ranges = normalised(vec![range(0, MAX, 1)]);
    assert!(find(&ranges, 0).is_some() && find(&ranges, MAX - 1).is_some());
    assert_eq!(find(&ranges, MAX), None, "not included");
    let edges = vec![range(MAX, MAX, 0), range(MAX - 1, MAX, 1), range(0, 1, 2)];
    let ranges = normalised(edges);
    assert_eq!(ranges, [range(0, 1, 2), range(MAX - 1, MAX, 1)]);
    assert_eq!(find(&ranges, MAX - 1).unwrap().tag, 1);
    assert_eq!(find(&ranges, MAX - 2), None);
    assert_eq!(find(&ranges, MAX), None);
    assert_eq!(normalised(vec![range(MAX, 0, 0)]), []);
}

/// All sets of up to four ranges out of those below 4.
#[test]
fn all_small_sets() {
    let mut all = Vec::new();
    for start in 0..4 {
        all.extend((0..4).map(|end| range(start, end, 0)));
    }
    for len in 0..=4u32 {
        for number in 0..all.len().pow(len) {
            let mut number = number;
            let ranges = (0..len as usize).map(|tag| {
                let chosen = all[number % all.len()];
                number /= all.len();
                Range { tag, ..chosen }
            });
            check(ranges.collect(), &[]).unwrap();
        }
    }
}

/// Ranges of few addresses, so that they meet in every way.
fn dense() -> impl Strategy<Value = Range> {
    (0usize..40, 0usize..40, 0usize..8).prop_map(|(start, end, tag)| range(start, end, tag))
}

/// Ranges like those of functions.
fn functions() -> impl Strategy<Value = Range> {
    (0usize..4000, 0usize..300, any::<usize>()).prop_map(|(at, len, tag)| {
        let start = 0xffff_ffff_8100_0000 + 16 * at;
        range(start, start + len, tag)
    })
}

fn extreme() -> impl Strategy<Value = usize> {
    prop_oneof![
        0usize..5,
        (0usize..5).prop_map(|less| usize::MAX - less),
        ((1usize << 63) - 3)..((1 << 63) + 3),
        any::<usize>(),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn same_as_model_dense(ranges in vec(dense(), 0..24)) {
        check(ranges, &(0..42).collect::<Vec<_>>())?;
    }

    #[test]
    fn same_as_model_functions(
        ranges in vec(functions(), 0..100),
        addrs in vec(0xffff_ffff_8100_0000..0xffff_ffff_8101_0000usize, 50),
    ) {
        check(ranges, &addrs)?;
    }

    #[test]
    fn same_as_model_extreme(
        ranges in vec((extreme(), extreme(), 0usize..4), 0..12),
        addrs in vec(extreme(), 20),
    ) {
        let ranges = ranges.into_iter().map(|(start, end, tag)| range(start, end, tag));
        check(ranges.collect(), &addrs)?;
    }
}
