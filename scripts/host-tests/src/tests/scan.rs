// SPDX-License-Identifier: GPL-2.0-or-later

//! A model of the C core's parser: the parts of the kernel's `vsscanf()` that its formats use, with
//! the conversions of `lib/vsprintf.c`.

pub(super) const SECTION_FORMAT: &str = ".klp.rela.%55[^.]";
pub(super) const SYMBOL_FORMAT: &str = ".klp.sym.%55[^.].%511[^,],%lu";

/// The result of a scan.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Scan<'a> {
    pub(super) texts: Vec<&'a [u8]>,
    pub(super) numbers: Vec<u64>,
    /// What was not read.
    pub(super) rest: &'a [u8],
    /// Whether there was white space before a number.
    pub(super) blanks: bool,
    /// Whether a number was too large, and taken for the largest.
    pub(super) overflow: bool,
}

impl Scan<'_> {
    /// What `sscanf()` returns.
    pub(super) fn count(&self) -> usize {
        self.texts.len() + self.numbers.len()
    }
}

/// `isspace()` of `lib/ctype.c`, which is about Latin-1.
fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ' | 0xa0)
}

/// `sscanf(text, format, ...)`. A NUL ends `text`.
pub(super) fn sscanf<'a>(text: &'a [u8], format: &str) -> Scan<'a> {
    let end = text.iter().position(|&byte| byte == 0);
    let mut str = &text[..end.unwrap_or(text.len())];
    let mut fmt = format.as_bytes();
    let mut scan = Scan::default();
    while let Some((&wanted, rest)) = fmt.split_first() {
        fmt = rest;
        if wanted != b'%' {
            match str.split_first() {
                Some((&byte, rest)) if byte == wanted => str = rest,
                _ => break,
            }
            continue;
        }
        let digits = fmt.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let width: Option<usize> = std::str::from_utf8(&fmt[..digits]).unwrap().parse().ok();
        fmt = &fmt[digits..];
        if str.is_empty() {
            break;
        }
        if let Some(rest) = fmt.strip_prefix(b"[^") {
            let (except, rest) = (rest[0], rest[1..].strip_prefix(b"]").unwrap());
            fmt = rest;
            let len = str.iter().take_while(|&&byte| byte != except).count();
            let len = len.min(width.unwrap());
            if len == 0 {
                break;
            }
            scan.texts.push(&str[..len]);
            str = &str[len..];
        } else {
            fmt = fmt.strip_prefix(b"lu").unwrap();
            let blanks = str.iter().take_while(|&&byte| is_space(byte)).count();
            scan.blanks |= blanks > 0;
            str = &str[blanks..];
            let len = str.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if len == 0 {
                break;
            }
            let exact = std::str::from_utf8(&str[..len]).unwrap().parse::<u64>();
            scan.overflow |= exact.is_err();
            scan.numbers.push(exact.unwrap_or(u64::MAX));
            str = &str[len..];
        }
    }
    scan.rest = str;
    scan
}

#[test]
fn counts_what_it_reads() {
    for (text, count) in [
        ("", 0),
        (".klp.rela", 0),
        (".klp.sym.", 0),
        (".klp.sym..x,0", 0),
        (".klp.sym.a", 1),
        (".klp.sym.a.", 1),
        (".klp.sym.a.,0", 1),
        (".klp.sym.a.b", 2),
        (".klp.sym.a.b,", 2),
        (".klp.sym.a.b,x", 2),
        (".klp.sym.a.b,-1", 2),
        (".klp.sym.a.b,1", 3),
        (".klp.sym.a.b,\u{b} 1x", 3),
    ] {
        let scan = sscanf(text.as_bytes(), SYMBOL_FORMAT);
        assert_eq!(scan.count(), count, "{text}");
    }
}

#[test]
fn stops_at_the_width() {
    let scan = sscanf(b"abcdef", "%3[^.]");
    assert_eq!((scan.texts, scan.rest), (vec![&b"abc"[..]], &b"def"[..]));
    assert_eq!(sscanf(b"abcd,1", "%3[^,],%lu").count(), 1);
}

#[test]
fn saturates() {
    let scan = sscanf(b"18446744073709551616", "%lu");
    assert_eq!((scan.numbers, scan.overflow), (vec![u64::MAX], true));
    let scan = sscanf(b"18446744073709551615", "%lu");
    assert_eq!((scan.numbers, scan.overflow), (vec![u64::MAX], false));
}
