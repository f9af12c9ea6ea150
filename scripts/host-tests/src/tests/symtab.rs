// SPDX-License-Identifier: GPL-2.0-or-later

use super::config;
use crate::rules::symtab::{
    find_bounds,
    find_search,
    finish_bounds,
    is_boundary,
    match_symbol,
    note_symbol,
    sort_bounds,
    sort_searches,
    Bounds,
    Missing,
    Search, //
};
use proptest::{
    collection::vec,
    prelude::*, //
};

type Table = [(&'static str, usize)];

/// A single search like that of `klp_find_object_symbol()`: it stops when it knows the result.
fn naive_address(table: &Table, name: &str, position: usize) -> Result<usize, Missing> {
    let (mut count, mut addr) = (0, 0);
    for symbol in table.iter().filter(|symbol| symbol.0 == name) {
        (count, addr) = (count + 1, symbol.1);
        if count == position || (position == 0 && count > 1) {
            break;
        }
    }
    match (position, count) {
        _ if addr == 0 => Err(Missing::Name),
        (0, 2..) => Err(Missing::Ambiguous),
        (1.., _) if count != position => Err(Missing::Position),
        _ => Ok(addr),
    }
}

/// Looks up a single address like `find_kallsyms_symbol()`.
fn naive_size(table: &Table, addr: usize, (start, end): (usize, usize)) -> Option<usize> {
    if addr < start || addr >= end {
        return None;
    }
    let (mut best, mut next) = (None, end);
    for &(name, value) in table {
        if name.is_empty() || name.starts_with(".L") || name.starts_with("L0") {
            continue;
        }
        if name.starts_with('$') {
            continue;
        }
        if value <= addr && value >= start && best.is_none_or(|best| value > best) {
            best = Some(value);
        }
        if value > addr && value < next {
            next = value;
        }
    }
    Some(next - best?)
}

fn check_names(table: &Table, wanted: &[(&'static str, usize)]) -> Result<(), TestCaseError> {
    let mut searches: Vec<_> = wanted
        .iter()
        .map(|(name, position)| Search::new(name.as_bytes(), *position))
        .collect();
    sort_searches(&mut searches);
    for (name, addr) in table {
        match_symbol(&mut searches, name.as_bytes(), *addr);
    }
    for &(name, position) in wanted {
        let search = find_search(&searches, name.as_bytes(), position).unwrap();
        prop_assert_eq!(search.result(), naive_address(table, name, position));
    }
    prop_assert_eq!(find_search(&searches, b"no such name", 0), None);
    Ok(())
}

fn check_sizes(
    table: &Table,
    addrs: &[usize],
    memory: &[(usize, usize)],
) -> Result<(), TestCaseError> {
    let mut bounds: Vec<_> = addrs.iter().copied().map(Bounds::new).collect();
    sort_bounds(&mut bounds);
    for (name, addr) in table {
        if is_boundary(name.as_bytes()) {
            note_symbol(&mut bounds, *addr);
        }
    }
    finish_bounds(&mut bounds);
    for &addr in addrs {
        let found = find_bounds(&bounds, addr).unwrap();
        for &(start, end) in memory {
            let size = naive_size(table, addr, (start, end));
            prop_assert_eq!(found.size(start, end), size, "{:#x} in {:#x}", addr, start);
        }
    }
    Ok(())
}

#[test]
fn positions() {
    let table = [("a", 10), ("b", 20), ("a", 30), ("ab", 40), ("a", 50)];
    let wanted = [
        ("a", 0),
        ("a", 1),
        ("a", 3),
        ("a", 4),
        ("b", 0),
        ("b", 1),
        ("b", 2),
        ("c", 0),
        ("a", 2),
        ("a", 2),
        ("", 0),
    ];
    check_names(&table, &wanted).unwrap();
    assert_eq!(naive_address(&table, "a", 3), Ok(50));
    assert_eq!(naive_address(&table, "a", 0), Err(Missing::Ambiguous));
    assert_eq!(naive_address(&table, "b", 2), Err(Missing::Position));
    assert_eq!(naive_address(&table, "c", 1), Err(Missing::Name));
}

#[test]
fn nothing() {
    check_names(&[], &[("a", 0), ("a", 1)]).unwrap();
    check_names(&[("a", 1)], &[]).unwrap();
    check_sizes(&[], &[0, 5, usize::MAX], &[(0, 10), (5, 5)]).unwrap();
    check_sizes(&[("a", 1)], &[], &[]).unwrap();
}

#[test]
fn marks_do_not_count() {
    for name in ["", ".L", ".L1", "L0", "L01", "$", "$x", "$d.1"] {
        assert!(!is_boundary(name.as_bytes()), "{name}");
    }
    for name in [".", ".l", "L", "L1", "l0", "x$", "_$"] {
        assert!(is_boundary(name.as_bytes()), "{name}");
    }
}

#[test]
fn sizes() {
    let table = [
        ("c", 130),
        ("a", 100),
        ("", 105),
        ("alias", 100),
        ("b", 120),
    ];
    let addrs = [100, 110, 119, 120, 129, 130, 149, 150, 99];
    check_sizes(
        &table,
        &addrs,
        &[(100, 150), (90, 125), (101, 200), (0, 95)],
    )
    .unwrap();
    assert_eq!(naive_size(&table, 110, (100, 150)), Some(20));
    assert_eq!(naive_size(&table, 130, (100, 150)), Some(20), "to the end");
    assert_eq!(naive_size(&table, 110, (101, 150)), None, "no symbol there");
}

fn name() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "", "a", "aa", "ab", "b", "ba", "c", "d", ".La", "L0", "$d", "\u{e9}",
    ])
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn names_same_as_model(
        table in vec((name(), 0usize..100), 0..40),
        wanted in vec((name(), 0usize..5), 0..30),
    ) {
        check_names(&table, &wanted)?;
    }

    #[test]
    fn sizes_same_as_model(
        table in vec((name(), 1usize..100), 0..40),
        addrs in vec(0usize..110, 0..30),
        memory in vec((1usize..100, 1usize..110), 1..6),
    ) {
        check_sizes(&table, &addrs, &memory)?;
    }

    #[test]
    fn sizes_same_as_model_sparse(
        table in vec((name(), 0xffff_ffff_a000_0000..0xffff_ffff_a001_0000usize), 0..200),
        addrs in vec(0xffff_ffff_a000_0000..0xffff_ffff_a001_0000usize, 0..100),
        len in 0usize..0x10000,
    ) {
        let start = 0xffff_ffff_a000_0000;
        check_sizes(&table, &addrs, &[(start, start + len), (start + len, start + 0x10000)])?;
        let own: Vec<usize> = table.iter().map(|symbol| symbol.1).collect();
        check_sizes(&table, &own, &[(start, start + 0x10000)])?;
    }
}
