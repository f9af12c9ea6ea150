// SPDX-License-Identifier: GPL-2.0-or-later

use super::config;
use crate::{
    rules::dispatch::{
        row_of,
        slot_at,
        Slot,
        Stray,
        Table,
        GRAIN,
        ROW_BITS, //
    },
    rules::placement::{
        base_of,
        count_rows,
        displacement,
        fill_rows,
        lay_out,
        most_slots,
        ROW_SIZE,
        ROW_SLOTS, //
    }, //
};
use proptest::{
    collection::vec,
    prelude::*, //
};
use std::{
    cell::UnsafeCell,
    collections::{
        HashMap,
        HashSet, //
    },
    mem::{
        offset_of,
        size_of, //
    }, //
};

/// Where the kernel's code begins.
const TEXT: usize = 0xffff_ffff_8100_0000;
const MIB: usize = 1 << 20;
/// `ftrace::MCOUNT_INSN_SIZE`
const INSN_SIZE: usize = 5;

/// A table with its slots, as `OpsGroup` of `ops_group.rs`.
struct Set {
    ips: Vec<usize>,
    indexes: Vec<usize>,
    /// A [`Table`], rows included.
    table: Vec<usize>,
    slots: Vec<Slot>,
    strays: Vec<Stray>,
    /// How many slots the handler looks at first.
    used: usize,
}

impl Set {
    /// As `OpsGroup::new()`, with so many slots less to choose from.
    fn new(ips: &[usize], missing: usize) -> Set {
        let mut indexes = vec![0; ips.len()];
        let mut order = vec![(0, 0); ips.len()];
        let most = most_slots(ips.len()).unwrap();
        let mut taken = vec![false; most.saturating_sub(missing)];
        let layout = lay_out(ips, &mut indexes, &mut order, &mut taken);
        assert!(layout.used <= taken.len());

        let free = || Slot {
            ip: 0,
            entry: UnsafeCell::new(0),
            choice: [const { UnsafeCell::new(0) }; 2],
        };
        let mut slots: Vec<Slot> = (0..layout.slots).map(|_| free()).collect();
        let mut rows = vec![0; count_rows(ips)];
        fill_rows(ips, &indexes, &layout, slots.as_ptr().addr(), &mut rows);

        let mut strays = Vec::new();
        for (&ip, &index) in ips.iter().zip(&indexes) {
            if layout.is_stray(index) {
                assert!(index >= layout.used, "the slots of strays are others");
                let slot = slots.as_ptr().wrapping_add(index);
                strays.push(Stray { ip, slot });
            }
            let slot = &mut slots[index];
            assert_eq!(slot.ip, 0, "{ip:#x} meets another function");
            slot.ip = ip;
            *slot.entry.get_mut() = ip.wrapping_add(INSN_SIZE);
        }

        let mut table = vec![base_of(ips[0]), strays.as_ptr().addr(), strays.len()];
        assert_eq!(table.len() * size_of::<usize>(), offset_of!(Table, rows));
        table.extend(rows);
        Set {
            ips: ips.to_vec(),
            indexes,
            table,
            slots,
            strays,
            used: layout.used,
        }
    }

    /// As `slot_of()` of `ftrace_handler.rs`, but for the address of the slot. Panics where the
    /// handler would read behind the table.
    fn slot_of(&self, ip: usize) -> usize {
        let [base, _, _, rows @ ..] = &*self.table else {
            unreachable!()
        };
        let offset = ip.wrapping_sub(*base);
        slot_at(rows[row_of(offset)], offset)
    }

    /// As `redirect_stray()`.
    fn redirect_stray(&self, ip: usize) -> Option<usize> {
        let stray = self.strays.iter().find(|stray| stray.ip == ip)?;
        Some(stray.slot.addr())
    }

    /// Reads the word at an address that must be in the slots, wherever in one.
    fn read_ip(&self, address: usize) -> usize {
        let start = self.slots.as_ptr();
        let offset = address.wrapping_sub(start.addr());
        let end = size_of::<Slot>() * self.slots.len();
        assert!(
            offset <= end - size_of::<Slot>(),
            "{offset:#x} is not a slot of {end:#x} bytes"
        );
        let address = start.cast::<u8>().wrapping_add(offset).cast::<usize>();
        // SAFETY: In the slots, as was checked.
        unsafe { address.read_unaligned() }
    }

    /// As `klp_ftrace_handler()`: the address of the slot.
    fn find(&self, ip: usize) -> Option<usize> {
        let slot = self.slot_of(ip);
        if self.read_ip(slot + offset_of!(Slot, ip)) == ip {
            Some(slot)
        } else {
            self.redirect_stray(ip)
        }
    }

    /// Whether the slot of the function is where the handler looks first.
    fn is_stray(&self, ip: usize) -> bool {
        self.strays.iter().any(|stray| stray.ip == ip)
    }
}

/// Checks that each of `ips` is found in the slot that it has. Returns the set.
fn check(ips: Vec<usize>) -> Set {
    check_crowded(ips, 0)
}

/// As [`check`], with so many slots less to choose from.
fn check_crowded(mut ips: Vec<usize>, missing: usize) -> Set {
    ips.sort();
    ips.dedup();
    let set = Set::new(&ips, missing);
    for (&ip, &index) in ips.iter().zip(&set.indexes) {
        let slot = set.slots.as_ptr().wrapping_add(index).addr();
        assert_eq!(set.slots[index].ip, ip);
        assert_eq!(set.find(ip), Some(slot), "{ip:#x} is not found");
        if !set.is_stray(ip) {
            assert!(index < set.used);
        } else {
            // Another one's.
            let first = set.slot_of(ip) - set.slots.as_ptr().addr();
            assert_eq!(first % size_of::<Slot>(), 0);
        }
    }
    let indexes: HashSet<usize> = set.indexes.iter().copied().collect();
    assert_eq!(indexes.len(), ips.len());
    let taken = set.slots.iter().filter(|slot| slot.ip != 0).count();
    assert_eq!(taken, ips.len());
    assert!(set.used == 0 || set.slots[set.used - 1].ip != 0);
    set
}

/// As [`check`], of functions that are where they normally are: there are no strays.
fn check_aligned(ips: Vec<usize>) -> usize {
    let set = check(ips);
    assert_eq!(set.strays.len(), 0);
    assert_eq!(set.slots.len(), set.used);
    set.used
}

fn every(start: usize, count: usize, stride: usize) -> Vec<usize> {
    (0..count).map(|i| start + i * stride).collect()
}

/// Numbers without a pattern (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as usize % bound
    }
}

#[test]
fn one_function() {
    for ip in [1, 4, 16, TEXT, TEXT + 4, 1 << 63, usize::MAX - INSN_SIZE] {
        assert_eq!(check_aligned(vec![ip]), 1);
    }
}

#[test]
fn no_function() {
    assert_eq!(count_rows(&[]), 0);
    let layout = lay_out(&[], &mut [], &mut [], &mut [false; ROW_SLOTS]);
    assert_eq!((layout.used, layout.slots), (0, 0));
    fill_rows(&[], &[], &layout, TEXT, &mut []);
}

#[test]
fn rows_are_counted() {
    assert_eq!(count_rows(&[TEXT]), 1);
    assert_eq!(count_rows(&[TEXT + 4, TEXT + ROW_SIZE - 1]), 1);
    assert_eq!(count_rows(&[TEXT + 4, TEXT + ROW_SIZE]), 2);
    assert_eq!(
        count_rows(&[TEXT, TEXT + 60 * MIB]),
        60 * MIB / ROW_SIZE + 1
    );
    assert_eq!(count_rows(&[usize::MAX]), 1);
    assert_eq!(count_rows(&[usize::MAX - ROW_SIZE, usize::MAX]), 2);
    assert_eq!(count_rows(&[0, usize::MAX]), 1 << (usize::BITS - ROW_BITS));
}

#[test]
fn slots_are_enough() {
    assert_eq!(most_slots(0), Some(ROW_SLOTS));
    let each = most_slots(1).unwrap() - ROW_SLOTS;
    assert!(each > 1);
    let most = (usize::MAX - ROW_SLOTS) / each;
    assert_eq!(most_slots(most), Some(each * most + ROW_SLOTS));
    assert_eq!(most_slots(most + 1), None);
    assert_eq!(most_slots(usize::MAX), None);
}

/// The displacement of a row puts its functions into consecutive slots, at either end of memory.
#[test]
fn displacements_wrap_around() {
    for slot in [0, size_of::<Slot>(), TEXT, usize::MAX - 31] {
        for offset in [0, GRAIN, ROW_SIZE - GRAIN, 64 * MIB, usize::MAX - 15] {
            let row = displacement(slot, offset);
            assert_eq!(slot_at(row, offset), slot);
            let next = slot_at(row, offset.wrapping_add(GRAIN));
            assert_eq!(next, slot.wrapping_add(size_of::<Slot>()));
            let previous = slot_at(row, offset.wrapping_sub(GRAIN));
            assert_eq!(previous, slot.wrapping_sub(size_of::<Slot>()));
        }
    }
}

#[test]
fn end_of_memory() {
    let end = usize::MAX - (usize::MAX % GRAIN);
    check_aligned(vec![end - GRAIN, end]);
    check_aligned(every(end - 99 * 48, 100, 48));
    check_aligned(vec![end - ROW_SIZE, end]);
    check_aligned(vec![end - ROW_SIZE + GRAIN, end]);
    assert_eq!(check(vec![end - ROW_SIZE, usize::MAX]).strays.len(), 0);
    assert_eq!(check(vec![end, usize::MAX]).strays.len(), 1);
}

/// What usual livepatches take, in slots.
#[test]
fn slots_are_few() {
    let mut random = Random(1);
    let mut anywhere = |count: usize, size: usize| {
        check_aligned(
            (0..count)
                .map(|_| TEXT + GRAIN * random.below(size / GRAIN))
                .collect(),
        )
    };
    let used = [
        check_aligned(every(TEXT, 1000, 64)),
        anywhere(1000, 20 * MIB),
        anywhere(100, 20 * MIB),
        anywhere(10, 20 * MIB),
        check_aligned(vec![TEXT, TEXT + 60 * MIB]),
        check_aligned(vec![TEXT, TEXT + ROW_SIZE - GRAIN]),
    ];
    let most = [1100, 1100, 500, 20, 2, ROW_SLOTS];
    for (index, (used, most)) in used.into_iter().zip(most).enumerate() {
        assert!(used <= most, "{index}: {used}");
    }
}

#[test]
fn all_counts_up_to_300() {
    for count in 1..=300 {
        for stride in [16, 32, 48, 64, 256, 4096, ROW_SIZE, ROW_SIZE + 16, MIB] {
            check_aligned(every(TEXT + 4, count, stride));
        }
    }
}

/// Rows without gaps, which only fit behind each other; `most_slots()` lets the last one in, too.
#[test]
fn full_rows() {
    for rows in 1..=5 {
        let count = rows * ROW_SLOTS;
        assert_eq!(check_aligned(every(TEXT, count, GRAIN)), count);
        assert_eq!(check_aligned(every(TEXT, count - 1, GRAIN)), count - 1);
        assert_eq!(check_aligned(every(TEXT, count + 1, GRAIN)), count + 1);
    }
}

/// Every possible place of a row as that of two functions.
#[test]
fn second_in_a_grain_is_a_stray() {
    for shift in 1..GRAIN {
        for column in 0..ROW_SLOTS {
            let first = TEXT + column * GRAIN;
            let stray = first + shift;
            // Between others, in a row of their own, before and behind others in a row that is
            // not the first.
            for ips in [
                vec![TEXT, first, stray, TEXT + ROW_SIZE - GRAIN],
                vec![TEXT, first + ROW_SIZE, stray + ROW_SIZE],
                vec![
                    TEXT,
                    first + ROW_SIZE,
                    stray + ROW_SIZE,
                    TEXT + 2 * ROW_SIZE - GRAIN,
                ],
                vec![TEXT, TEXT + ROW_SIZE, first + ROW_SIZE, stray + ROW_SIZE],
            ] {
                let set = check(ips);
                assert_eq!(set.strays.len(), 1);
                assert!(set.is_stray(stray) || set.is_stray(stray + ROW_SIZE));
            }
        }
    }
}

/// As where some functions begin with ENDBR or BTI, and others do not.
#[test]
fn a_few_bytes_in() {
    let ips: Vec<usize> = [TEXT]
        .into_iter()
        .chain(every(TEXT + GRAIN + 4, 1000, 64))
        .collect();
    assert_eq!(check(ips).strays.len(), 0);
    let mut random = Random(5);
    let ips = every(TEXT, 1000, 64)
        .into_iter()
        .map(|ip| ip + 4 * random.below(2))
        .collect();
    assert_eq!(check(ips).strays.len(), 0);
}

/// Functions behind each other that differ in size: rows of them hardly overlap, and each needs
/// nearly as many slots as it has possible locations.
#[test]
fn functions_of_all_sizes_fit() {
    for most in [2, 4, 8, 16, 32, 64, 128] {
        for count in [10, 100, 1000, 3000] {
            let mut random = Random(most as u64);
            let mut ip = TEXT;
            let mut next = || {
                ip += GRAIN * (1 + random.below(most));
                ip
            };
            let used = check_aligned((0..count).map(|_| next()).collect());
            assert!(
                used <= 6 * count + ROW_SLOTS,
                "{used} for {count} of {most}"
            );
        }
    }
}

/// With too few slots the last rows do not fit, and those first that have most functions do.
#[test]
fn rows_that_do_not_fit() {
    let mut ips = every(TEXT, 100, 16);
    ips.extend(every(TEXT + ROW_SIZE, 50, 16));
    ips.extend(every(TEXT + 2 * ROW_SIZE, 25, 16));
    let most = most_slots(ips.len()).unwrap();
    // The first slot of a row is one that has the slots of a whole row from it on.
    for (slots, strays) in [
        (0, 175),
        (ROW_SLOTS - 1, 75),
        (ROW_SLOTS + 99, 75),
        (ROW_SLOTS + 100, 25),
        (ROW_SLOTS + 149, 25),
        (ROW_SLOTS + 150, 0),
    ] {
        let set = check_crowded(ips.clone(), most - slots);
        assert_eq!(set.strays.len(), strays, "{slots} slots");
    }
}

/// Where functions are, counted from the first one.
fn offsets() -> impl Strategy<Value = Vec<usize>> {
    let aligned = |most: usize| (0..most / GRAIN).prop_map(|column| column * GRAIN);
    let cluster = (
        aligned(MIB),
        1usize..80,
        prop_oneof![Just(16usize), Just(64), 1usize..300],
    )
        .prop_map(|(start, count, stride)| every(start, count, stride));
    prop_oneof![
        vec(aligned(ROW_SIZE), 1..300),
        vec(aligned(4 * ROW_SIZE), 1..300),
        vec(aligned(20 * MIB), 1..100),
        vec(0..3 * ROW_SIZE, 1..100),
        vec(0..MIB, 1..100),
        vec(cluster, 1..6).prop_map(|clusters| clusters.concat()),
        // Mostly aligned, some not.
        (vec(aligned(MIB), 1..100), vec(0..MIB, 1..10)).prop_map(|(a, b)| [a, b].concat()),
        // Some functions have an instruction in front of their location.
        vec((aligned(MIB), prop_oneof![Just(0usize), Just(4)]), 1..100)
            .prop_map(|ips| ips.into_iter().map(|(ip, shift)| ip + shift).collect()),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn each_finds_its_own(offsets in offsets(), start in 0..2 * ROW_SIZE) {
        check(offsets.iter().map(|offset| TEXT + start + offset).collect());
        // The last function ends where memory does.
        let most = *offsets.iter().max().unwrap();
        check(offsets.iter().map(|offset| usize::MAX - most + offset).collect());
    }

    #[test]
    fn aligned_have_a_slot(columns in vec(0..100 * MIB / GRAIN, 1..1000)) {
        check_aligned(columns.into_iter().map(|column| TEXT + 4 + GRAIN * column).collect());
    }

    /// There are too few slots to choose from.
    #[test]
    fn crowded(offsets in offsets(), missing in 0usize..1500) {
        check_crowded(offsets.iter().map(|offset| TEXT + offset).collect(), missing);
    }

    /// All of a row are shifted alike.
    #[test]
    fn rows_are_shifted(offsets in offsets()) {
        let set = check(offsets.iter().map(|offset| TEXT + offset).collect());
        let mut rows = HashMap::new();
        for (&ip, &index) in set.ips.iter().zip(&set.indexes) {
            if !set.is_stray(ip) {
                let offset = ip - base_of(set.ips[0]);
                let shift = displacement(index * size_of::<Slot>(), offset);
                prop_assert_eq!(*rows.entry(row_of(offset)).or_insert(shift), shift);
            }
        }
    }
}
