// SPDX-License-Identifier: GPL-2.0-or-later

//! Which slot each function of a table gets.
//!
//! Rows of code are shifted against each other until no two functions meet in one slot, those with
//! most functions first: the row displacement method of Tarjan and Yao. Functions that do not fit
//! are strays. Pure; tested on the host. What the handler makes of it is in
//! [`crate::rules::dispatch`].

use crate::{
    rules::dispatch::{
        row_of,
        slot_at,
        Slot,
        GRAIN,
        ROW_BITS, //
    },
    sort::sort_by_key, //
};
use core::cmp::Reverse;

/// The bytes of code in a row.
pub(crate) const ROW_SIZE: usize = 1 << ROW_BITS;

/// Returns the displacement of the row of the location at `offset` from the base that puts it into
/// the slot at address `slot`.
pub(crate) fn displacement(slot: usize, offset: usize) -> usize {
    slot.wrapping_sub(slot_at(0, offset))
}

/// A function that has no slot where the handler looks first.
const STRAY: usize = usize::MAX;

/// Returns the number of rows of a table of these functions, which must be sorted.
pub(crate) fn count_rows(ips: &[usize]) -> usize {
    match (ips.first(), ips.last()) {
        (Some(&first), Some(&last)) => row_of(last.wrapping_sub(base_of(first))).saturating_add(1),
        _ => 0,
    }
}

/// Returns how many slots are more than enough for that many functions.
///
/// Most are needed when functions of different sizes lie behind each other: rows that are a quarter
/// to a twentieth full hardly overlap, and take four slots per function, six with a small grain.
pub(crate) fn most_slots(functions: usize) -> Option<usize> {
    functions.checked_mul(8)?.checked_add(ROW_SLOTS)
}

/// Grains in a row: the farthest that the slot of one function of a row can be from that of its
/// first.
pub(crate) const ROW_SLOTS: usize = ROW_SIZE / GRAIN;

/// Returns what offsets are counted from when this is the first location.
pub(crate) fn base_of(first: usize) -> usize {
    first & !(GRAIN - 1)
}

/// Returns which of the possible locations in its row this is.
fn column(offset: usize) -> usize {
    (offset & (ROW_SIZE - 1)) / GRAIN
}

/// Which slots a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The number of slots up to the last one where the handler looks first and finds a function.
    pub(crate) used: usize,
    /// The number of all slots.
    pub(crate) slots: usize,
    /// The first slot of a stray.
    first_stray: usize,
}

impl Layout {
    /// Whether the handler has to look for the function with this slot in a second way.
    pub(crate) fn is_stray(&self, slot_index: usize) -> bool {
        slot_index >= self.first_stray
    }
}

/// Chooses slots for `ips`, which must be sorted and without duplicates. `slot_indexes` becomes the
/// slot of each; `order` is scratch space, as long as `ips`; `taken` is as long as [`most_slots`]
/// says and all false.
///
/// The slots of strays are behind all others, and behind those where the handler may look for a
/// stray first.
pub(crate) fn lay_out(
    ips: &[usize],
    slot_indexes: &mut [usize],
    order: &mut [(usize, usize)],
    taken: &mut [bool],
) -> Layout {
    let used = choose(ips, slot_indexes, order, taken);
    let first_stray = used.saturating_add(ROW_SLOTS);
    let mut slots = first_stray;
    for index in slot_indexes.iter_mut().filter(|index| **index == STRAY) {
        *index = slots;
        slots = slots.saturating_add(1);
    }
    if slots == first_stray {
        slots = used;
    }
    Layout {
        used,
        slots,
        first_stray,
    }
}

/// Fills the `rows` of a table of `ips` with these slots, the first of which is at address `slots`.
/// There must be as many rows as [`count_rows`] says, all of them 0.
pub(crate) fn fill_rows(
    ips: &[usize],
    slot_indexes: &[usize],
    layout: &Layout,
    slots: usize,
    rows: &mut [usize],
) {
    let Some(&first) = ips.first() else { return };
    let base = base_of(first);
    for (&ip, &slot_index) in ips.iter().zip(slot_indexes).rev() {
        let offset = ip.wrapping_sub(base);
        let Some(row) = rows.get_mut(row_of(offset)) else {
            continue;
        };
        if !layout.is_stray(slot_index) {
            let slot = slots.wrapping_add(slot_index.wrapping_mul(size_of::<Slot>()));
            *row = displacement(slot, offset);
        } else if *row == 0 {
            // A row of strays only: they are looked for from the first slot on.
            *row = displacement(slots, offset & !(ROW_SIZE - 1));
        }
    }
}

/// Chooses slots for `ips`, as [`lay_out`] but with [`STRAY`] for the slot of a stray. Returns the
/// number of slots that are used.
///
/// Of the functions of a row the first one, if it is not a stray, has the lowest slot.
fn choose(
    ips: &[usize],
    slot_indexes: &mut [usize],
    order: &mut [(usize, usize)],
    taken: &mut [bool],
) -> usize {
    let Some(&first) = ips.first() else { return 0 };
    let base = base_of(first);
    let offset = |ip: usize| ip.wrapping_sub(base);

    // The functions of each row, as ranges of `ips`.
    let (mut rows, mut begin) = (0usize, 0usize);
    for end in 1..=ips.len() {
        let row = |index: usize| ips.get(index).map(|&ip| row_of(offset(ip)));
        if row(end) != row(begin) {
            if let Some(range) = order.get_mut(rows) {
                *range = (begin, end);
            }
            rows = rows.saturating_add(1);
            begin = end;
        }
    }
    let order = order.get_mut(..rows).unwrap_or_default();
    sort_by_key(order, |&(begin, end)| {
        (Reverse(end.saturating_sub(begin)), begin)
    });

    let (mut used, mut first_free) = (0usize, 0usize);
    let last = taken.len().saturating_sub(ROW_SLOTS);
    for &(begin, end) in &*order {
        let row = ips.get(begin..end).unwrap_or_default();
        // With whether it is the first one there: the next one is a stray.
        let columns = || {
            row.iter().scan(None, |last, &ip| {
                let column = column(offset(ip));
                Some((column, last.replace(column) != Some(column)))
            })
        };
        let lowest = columns().map(|(column, _)| column).min().unwrap_or(0);
        // `start` is the slot of the lowest column.
        let fits = |start: &usize| {
            columns()
                .filter(|&(_, has_slot)| has_slot)
                .all(|(column, _)| {
                    let slot = start.saturating_add(column.saturating_sub(lowest));
                    taken.get(slot) == Some(&false)
                })
        };
        let start = (first_free..last.saturating_add(1)).find(fits);
        let slot_indexes = slot_indexes.get_mut(begin..end).unwrap_or_default();
        for ((column, has_slot), slot_index) in columns().zip(slot_indexes) {
            *slot_index = match start {
                Some(start) if has_slot => start.saturating_add(column.saturating_sub(lowest)),
                _ => STRAY,
            };
            if let Some(slot) = taken.get_mut(*slot_index) {
                *slot = true;
                used = used.max(slot_index.saturating_add(1));
            }
        }
        while taken.get(first_free) == Some(&true) {
            first_free = first_free.saturating_add(1);
        }
    }
    used
}
