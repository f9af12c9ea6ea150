// SPDX-License-Identifier: GPL-2.0-or-later

//! Does an address lie in one of many functions?
//!
//! Ranges are sorted and merged once per transition, so that a stack entry is checked by binary
//! search whatever the number of functions. Replaces the loops of `klp_check_stack()` and
//! `klp_check_stack_func()` of `transition.c`. Pure; tested on the host.

use crate::sort::sort_by_key;

/// The addresses from `start` up to, but not including, `end`, and what they belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range<T = usize> {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Which function this is; of merged ranges, the one that starts first.
    pub(crate) tag: T,
}

/// Sorts `ranges`, merges those that overlap, drops empty ones and returns how many remain at the
/// front.
pub(crate) fn normalise<T: Copy + Ord>(ranges: &mut [Range<T>]) -> usize {
    sort_by_key(ranges, |range| (range.start, range.tag));
    let mut kept = 0usize;
    for i in 0..ranges.len() {
        let Some(&range) = ranges.get(i) else { break };
        if range.end <= range.start {
            continue;
        }
        if let Some(last) = kept.checked_sub(1).and_then(|last| ranges.get_mut(last)) {
            if range.start < last.end {
                last.end = last.end.max(range.end);
                continue;
            }
        }
        if let Some(slot) = ranges.get_mut(kept) {
            *slot = range;
        }
        kept = kept.saturating_add(1);
    }
    kept
}

/// Returns the range that contains `addr`. `ranges` must be [normalised](normalise).
///
/// Most addresses are outside of all ranges, as when these are functions of a module.
pub(crate) fn find<T>(ranges: &[Range<T>], addr: usize) -> Option<&Range<T>> {
    if addr < ranges.first()?.start || addr >= ranges.last()?.end {
        return None;
    }
    let after = ranges.partition_point(|range| range.start <= addr);
    let range = ranges.get(after.checked_sub(1)?)?;
    (addr < range.end).then_some(range)
}
