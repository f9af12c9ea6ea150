// SPDX-License-Identifier: GPL-2.0-or-later

//! Names of klp relocation sections and klp symbols.
//!
//! ```text
//! .klp.rela.<object>.<section>
//! .klp.sym.<object>.<symbol>,<position>
//! ```
//!
//! Replaces the `sscanf()` calls of `core.c`. Refused here, though `sscanf()` lets it pass: text
//! behind the position or white space before it, positions that overflow, a section's name that
//! ends with the object, and names of objects that are too long. Pure; tested on the host.

/// What a section's name begins with.
const SECTION_PREFIX: &[u8] = b".klp.rela.";
/// What a symbol's name begins with.
const SYMBOL_PREFIX: &[u8] = b".klp.sym.";
/// Length of the longest object name: the smallest `MODULE_NAME_LEN` of any architecture, less NUL.
pub(crate) const MAX_OBJECT_LEN: usize = 55;
/// Length of the longest symbol name: `KSYM_NAME_LEN`, less NUL.
pub(crate) const MAX_SYMBOL_LEN: usize = 511;

/// The parts of a klp symbol's name.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) struct Symbol<'a> {
    /// `vmlinux` or the name of a module.
    pub(crate) object: &'a [u8],
    /// The name that the symbol has in the object.
    pub(crate) name: &'a [u8],
    /// Which of several symbols of this name, from 1; 0 if there must be only one.
    pub(crate) position: usize,
}

/// Splits `text` at the first `separator`; the first part may be neither empty nor longer than
/// `max`.
fn split(text: &[u8], separator: u8, max: usize) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&byte| byte == separator)?;
    let (head, tail) = text.split_at_checked(at)?;
    let tail = tail.get(1..)?;
    (!head.is_empty() && head.len() <= max).then_some((head, tail))
}

/// Returns the object that a relocation section belongs to.
pub(crate) fn parse_section(name: &[u8]) -> Option<&[u8]> {
    let rest = name.strip_prefix(SECTION_PREFIX)?;
    let (object, _section) = split(rest, b'.', MAX_OBJECT_LEN)?;
    Some(object)
}

/// Takes a klp symbol's name apart.
pub(crate) fn parse_symbol(name: &[u8]) -> Option<Symbol<'_>> {
    let rest = name.strip_prefix(SYMBOL_PREFIX)?;
    let (object, rest) = split(rest, b'.', MAX_OBJECT_LEN)?;
    let (name, digits) = split(rest, b',', MAX_SYMBOL_LEN)?;
    Some(Symbol {
        object,
        name,
        position: parse_decimal(digits)?,
    })
}

fn parse_decimal(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0usize, |value, &digit| {
        let digit = match digit {
            b'0'..=b'9' => usize::from(digit.wrapping_sub(b'0')),
            _ => return None,
        };
        value.checked_mul(10)?.checked_add(digit)
    })
}
