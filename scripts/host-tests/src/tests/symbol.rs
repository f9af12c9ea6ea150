// SPDX-License-Identifier: GPL-2.0-or-later

use super::{
    config,
    scan::{
        sscanf,
        Scan,
        SECTION_FORMAT,
        SYMBOL_FORMAT, //
    }, //
};
use crate::rules::symbol::{
    parse_section,
    parse_symbol,
    Symbol,
    MAX_OBJECT_LEN,
    MAX_SYMBOL_LEN, //
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::select, //
};
use std::ffi::{
    c_char,
    c_int,
    c_ulong,
    CString, //
};

fn symbol_name(object: &[u8], name: &[u8], position: &[u8]) -> Vec<u8> {
    [b".klp.sym.", object, b".", name, b",", position].concat()
}

fn section_name(object: &[u8], section: &[u8]) -> Vec<u8> {
    [b".klp.rela.", object, b".", section].concat()
}

fn symbol<'a>(object: &'a str, name: &'a str, position: usize) -> Option<Symbol<'a>> {
    Some(Symbol {
        object: object.as_bytes(),
        name: name.as_bytes(),
        position,
    })
}

fn parse(name: &str) -> Option<Symbol<'_>> {
    parse_symbol(name.as_bytes())
}

#[test]
fn examples_of_the_documentation() {
    assert_eq!(
        parse(".klp.sym.ext4.attr_idle,0"),
        symbol("ext4", "attr_idle", 0)
    );
    assert_eq!(
        parse(".klp.sym.vmlinux.snprintf,0"),
        symbol("vmlinux", "snprintf", 0)
    );
    assert_eq!(parse(".klp.sym.btrfs.f,2"), symbol("btrfs", "f", 2));
    assert_eq!(
        parse_section(b".klp.rela.ext4..text.ext4_attr_store"),
        Some(&b"ext4"[..])
    );
    assert_eq!(
        parse_section(b".klp.rela.vmlinux..text"),
        Some(&b"vmlinux"[..])
    );
}

#[test]
fn only_the_first_separators_count() {
    assert_eq!(
        parse(".klp.sym.vmlinux.f.isra.0.cold,1"),
        symbol("vmlinux", "f.isra.0.cold", 1)
    );
    assert_eq!(parse(".klp.sym.a,b.c,1"), symbol("a,b", "c", 1));
    assert_eq!(parse(".klp.sym.a.....,3"), symbol("a", "....", 3));
    assert_eq!(
        parse(".klp.sym..klp.sym.a.b,1"),
        None,
        "the object is empty"
    );
    assert_eq!(parse(".klp.sym.a.b,1,2"), None);
    assert_eq!(
        parse_section(b".klp.rela.a.b.c.d...."),
        Some(&b"a"[..]),
        "a section's name may have dots"
    );
}

#[test]
fn prefix_is_exact() {
    for name in [
        "",
        ".",
        ".klp",
        ".klp.sym",
        "klp.sym.a.b,0",
        ".klp.sy.a.b,0",
        ".klp.sym_a.b,0",
        ".KLP.sym.a.b,0",
        " .klp.sym.a.b,0",
        "..klp.sym.a.b,0",
        ".klp.rela.a.b,0",
    ] {
        assert_eq!(parse(name), None, "{name}");
    }
    for name in [
        "",
        ".klp.rela",
        ".rela.klp.a.b",
        ".klp.sym.a.b",
        "x.klp.rela.a.b",
    ] {
        assert_eq!(parse_section(name.as_bytes()), None, "{name}");
    }
}

#[test]
fn empty_parts() {
    for name in [
        ".klp.sym.",
        ".klp.sym.a",
        ".klp.sym.a.",
        ".klp.sym.a.b",
        ".klp.sym.a.b,",
        ".klp.sym.a.,0",
        ".klp.sym..b,0",
        ".klp.sym..,0",
        ".klp.sym..,",
        ".klp.sym.,",
        ".klp.sym.a,0",
    ] {
        assert_eq!(parse(name), None, "{name}");
    }
    for name in [
        ".klp.rela.",
        ".klp.rela..",
        ".klp.rela..text",
        ".klp.rela.a",
    ] {
        assert_eq!(parse_section(name.as_bytes()), None, "{name}");
    }
}

#[test]
fn longest_object() {
    for len in [1, 54, MAX_OBJECT_LEN] {
        let object = vec![b'o'; len];
        let name = symbol_name(&object, b"s", b"0");
        assert_eq!(parse_symbol(&name).unwrap().object, object);
        assert_eq!(
            parse_section(&section_name(&object, b".text")),
            Some(&object[..])
        );
    }
    for len in [MAX_OBJECT_LEN + 1, 64, 4096] {
        let object = vec![b'o'; len];
        assert_eq!(parse_symbol(&symbol_name(&object, b"s", b"0")), None);
        assert_eq!(parse_section(&section_name(&object, b".text")), None);
    }
    assert_eq!(MAX_OBJECT_LEN, 55);
}

#[test]
fn longest_symbol() {
    for len in [1, 510, MAX_SYMBOL_LEN] {
        let symbol = vec![b's'; len];
        let name = symbol_name(b"vmlinux", &symbol, b"1");
        assert_eq!(parse_symbol(&name).unwrap().name, symbol);
    }
    for len in [MAX_SYMBOL_LEN + 1, 513, 65536] {
        let symbol = vec![b's'; len];
        assert_eq!(parse_symbol(&symbol_name(b"vmlinux", &symbol, b"1")), None);
    }
    assert_eq!(MAX_SYMBOL_LEN, 511);
}

#[test]
fn position_fits_or_is_refused() {
    let position = |digits: &str| parse(&format!(".klp.sym.a.b,{digits}")).map(|s| s.position);
    assert_eq!(position("0"), Some(0));
    assert_eq!(position("007"), Some(7));
    assert_eq!(position("4294967296"), Some(1 << 32));
    assert_eq!(position("18446744073709551615"), Some(usize::MAX));
    assert_eq!(position(&"0".repeat(1000)), Some(0));
    for digits in [
        "18446744073709551616",
        "18446744073709551620",
        "36893488147419103232",
        "99999999999999999999",
        "184467440737095516150",
        &"9".repeat(1000),
    ] {
        assert_eq!(position(digits), None, "{digits}");
    }
}

#[test]
fn position_is_only_digits() {
    for digits in [
        "", " ", "x", "1x", "1 ", " 1", "+1", "-1", "-0", "0x1", "1e3", "1.0", "1,", ",1", "1\n",
        "1\0", "\u{661}", "/", ":", "1_0",
    ] {
        assert_eq!(parse(&format!(".klp.sym.a.b,{digits}")), None, "{digits:?}");
    }
}

#[test]
fn names_need_not_be_text() {
    let name = symbol_name(b"\xff\xfe", b"\x80\xa0 \n\x01\xc3", b"5");
    assert_eq!(
        parse_symbol(&name),
        Some(Symbol {
            object: b"\xff\xfe",
            name: b"\x80\xa0 \n\x01\xc3",
            position: 5
        })
    );
    assert_eq!(parse_section(b".klp.rela.\xf0.\xff"), Some(&b"\xf0"[..]));
}

#[test]
fn hostile_names() {
    for byte in [b'.', b',', b'0', b' ', b'%', 0, 0xff] {
        for len in [0, 1, 2, 54, 55, 56, 57, 510, 511, 512, 513, 1 << 16] {
            let tail = vec![byte; len];
            for head in [".klp.sym.", ".klp.sym.a", ".klp.sym.a.", ".klp.sym.a.b,"] {
                let name = [head.as_bytes(), &tail].concat();
                let number = head.ends_with(',') && byte == b'0' && len > 0;
                assert_eq!(parse_symbol(&name).is_some(), number);
            }
            for head in [".klp.rela.", ".klp.rela.a"] {
                let name = [head.as_bytes(), &tail].concat();
                let object = head.ends_with('a') && byte == b'.' && len > 0;
                assert_eq!(parse_section(&name).is_some(), object);
            }
        }
    }
}

/// Checks that the core reads a symbol's name as the C core's format does, or refuses it for one of
/// the deviations that are meant.
fn check_symbol(name: &[u8]) -> Result<(), TestCaseError> {
    let scan = sscanf(name, SYMBOL_FORMAT);
    let parsed = parse_symbol(name);
    if scan.count() != 3 || scan.blanks || scan.overflow || !scan.rest.is_empty() {
        prop_assert_eq!(parsed, None);
        return Ok(());
    }
    let Scan { texts, numbers, .. } = scan;
    prop_assert_eq!(
        parsed,
        Some(Symbol {
            object: texts[0],
            name: texts[1],
            position: numbers[0] as usize
        })
    );
    Ok(())
}

/// The same as [`check_symbol`] for names of sections. The C core accepts a section without a name
/// of its own, and cuts off an object's name that is too long.
fn check_section(name: &[u8]) -> Result<(), TestCaseError> {
    let scan = sscanf(name, SECTION_FORMAT);
    let object = scan.texts.first().copied();
    prop_assert_eq!(
        parse_section(name),
        object.filter(|_| scan.rest.starts_with(b"."))
    );
    Ok(())
}

extern "C" {
    #[link_name = "sscanf"]
    fn libc_sscanf(text: *const c_char, format: *const c_char, ...) -> c_int;
}

/// The same with the C library's `sscanf()`. It takes other characters for white space than the
/// kernel's, and accepts signs. The core accepts neither.
fn check_libc(name: &[u8]) -> Result<(), TestCaseError> {
    let text = CString::new(name).unwrap();
    let mut object = [0u8; MAX_OBJECT_LEN + 1];
    let mut symbol = [0u8; MAX_SYMBOL_LEN + 1];
    let until_nul = |buf: &[u8]| buf.split(|&byte| byte == 0).next().unwrap().to_vec();
    if let Some(parsed) = parse_symbol(name) {
        let format = CString::new(SYMBOL_FORMAT).unwrap();
        let mut position: c_ulong = 0;
        // SAFETY: The arguments are of the types that the format says, and as large.
        let count = unsafe {
            libc_sscanf(
                text.as_ptr(),
                format.as_ptr(),
                object.as_mut_ptr(),
                symbol.as_mut_ptr(),
                &raw mut position,
            )
        };
        prop_assert_eq!(count, 3);
        prop_assert_eq!(until_nul(&object), parsed.object);
        prop_assert_eq!(until_nul(&symbol), parsed.name);
        prop_assert_eq!(position as usize, parsed.position);
    }
    if let Some(parsed) = parse_section(name) {
        let format = CString::new(SECTION_FORMAT).unwrap();
        // SAFETY: As above.
        let count = unsafe { libc_sscanf(text.as_ptr(), format.as_ptr(), object.as_mut_ptr()) };
        prop_assert_eq!(count, 1);
        prop_assert_eq!(until_nul(&object), parsed);
    }
    Ok(())
}

#[test]
fn stricter_than_c_only_where_meant() {
    let accepted_by_c = |name: &[u8]| sscanf(name, SYMBOL_FORMAT).count() == 3;
    for name in [
        ".klp.sym.a.b,1x",
        ".klp.sym.a.b,1,2",
        ".klp.sym.a.b, 1",
        ".klp.sym.a.b,18446744073709551616",
    ] {
        assert!(accepted_by_c(name.as_bytes()), "{name}");
        assert_eq!(parse(name), None, "{name}");
    }
    let long = section_name(&[b'o'; 56], b".text");
    for name in [&b".klp.rela.a"[..], &long] {
        assert_eq!(sscanf(name, SECTION_FORMAT).count(), 1);
        assert_eq!(parse_section(name), None);
    }
}

/// Bytes other than NUL and `separator`.
fn part(separator: u8, max: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = (1u8..).prop_filter("separator", move |&byte| byte != separator);
    vec(byte, 1..=max)
}

/// Pieces of names, some in places where they do not belong.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let pieces: [&[u8]; 20] = [
        b"",
        b".",
        b",",
        b".klp.sym.",
        b".klp.rela.",
        b"vmlinux",
        b"a",
        b"0",
        b"1",
        b"007",
        b" ",
        b"\t",
        b"\xa0",
        b"-",
        b"+",
        b"x",
        b"\xff",
        b"..",
        b",,",
        b"\n",
    ];
    let lens: [usize; 8] = [53, 54, 55, 56, 509, 510, 511, 512];
    let near_max = (u64::MAX as u128 - 20)..=(u64::MAX as u128 + 20);
    prop_oneof![
        6 => select(pieces.to_vec()).prop_map(<[u8]>::to_vec),
        2 => (select(lens.to_vec()), 1u8..).prop_map(|(len, byte)| vec![byte; len]),
        2 => near_max.prop_map(|number| number.to_string().into_bytes()),
        1 => any::<u128>().prop_map(|number| number.to_string().into_bytes()),
        2 => vec(1u8.., 0..8),
    ]
}

/// A name that is nearly right: each of its parts is mostly well-formed.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let prefix = prop_oneof![
        9 => select(vec![&b".klp.sym."[..], b".klp.rela."]).prop_map(<[u8]>::to_vec),
        1 => piece()
    ];
    let dot = prop_oneof![9 => Just(b".".to_vec()), 1 => piece()];
    let comma = prop_oneof![9 => Just(b",".to_vec()), 1 => piece()];
    let object = prop_oneof![3 => part(b'.', 60), 1 => piece()];
    let name = prop_oneof![3 => part(b',', 520), 1 => piece()];
    let number = prop_oneof![
        3 => any::<u64>().prop_map(|number| number.to_string().into_bytes()),
        1 => piece()
    ];
    let tail = prop_oneof![3 => Just(Vec::new()), 1 => piece()];
    (prefix, object, dot, name, comma, number, tail).prop_map(|parts| {
        let (prefix, object, dot, name, comma, number, tail) = parts;
        [prefix, object, dot, name, comma, number, tail].concat()
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn symbol_round_trip(
        object in part(b'.', MAX_OBJECT_LEN),
        name in part(b',', MAX_SYMBOL_LEN),
        position in any::<usize>(),
    ) {
        let text = symbol_name(&object, &name, position.to_string().as_bytes());
        prop_assert_eq!(
            parse_symbol(&text),
            Some(Symbol { object: &object, name: &name, position })
        );
        check_symbol(&text)?;
        check_libc(&text)?;
    }

    #[test]
    fn section_round_trip(
        object in part(b'.', MAX_OBJECT_LEN),
        section in vec(1u8.., 0..80),
    ) {
        let text = section_name(&object, &section);
        prop_assert_eq!(parse_section(&text), Some(&object[..]));
        check_section(&text)?;
        check_libc(&text)?;
    }

    #[test]
    fn same_as_sscanf_nearly_right(name in nearly()) {
        check_symbol(&name)?;
        check_section(&name)?;
        check_libc(&name)?;
    }

    #[test]
    fn same_as_sscanf_pieces(
        prefix in select(vec!["", ".klp.sym.", ".klp.rela."]),
        pieces in vec(piece(), 0..8),
    ) {
        let name = [prefix.as_bytes(), &pieces.concat()].concat();
        check_symbol(&name)?;
        check_section(&name)?;
        check_libc(&name)?;
    }

    /// Arbitrary bytes cause no panic, and the result is part of the input. NUL, which no
    /// name contains, is among them.
    #[test]
    fn any_bytes(
        prefix in select(vec!["", ".klp.sym.", ".klp.sym.a.", ".klp.sym.a.b,", ".klp.rela."]),
        bytes in vec(any::<u8>(), 0..700),
    ) {
        let name = [prefix.as_bytes(), &bytes].concat();
        if let Some(parsed) = parse_symbol(&name) {
            prop_assert!((1..=MAX_OBJECT_LEN).contains(&parsed.object.len()));
            prop_assert!((1..=MAX_SYMBOL_LEN).contains(&parsed.name.len()));
            prop_assert!(!parsed.object.contains(&b'.'));
            prop_assert!(!parsed.name.contains(&b','));
            let head = symbol_name(parsed.object, parsed.name, b"");
            prop_assert!(name.starts_with(&head));
            prop_assert!(name[head.len()..].iter().all(u8::is_ascii_digit));
        }
        if let Some(object) = parse_section(&name) {
            prop_assert!((1..=MAX_OBJECT_LEN).contains(&object.len()));
            prop_assert!(name.starts_with(&section_name(object, b"")));
        }
    }
}
