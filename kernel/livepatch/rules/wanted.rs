// SPDX-License-Identifier: GPL-2.0-or-later

//! Functions as people write them: `<object>:<function>[,<position>]`.
//!
//! Replaces nothing of the C core. Pure; tested on the host.

/// A function, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted<'a> {
    /// The module's name, [`None`] for vmlinux.
    pub(crate) object: Option<&'a [u8]>,
    pub(crate) function: &'a [u8],
    /// Which of several functions of that name is meant, from 1; with 0 there must be only one.
    pub(crate) position: usize,
}

/// The line is something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads a line. [`None`] means that it is empty, or a comment.
///
/// # Errors
///
/// [`Malformed`].
pub(crate) fn parse(line: &[u8]) -> Result<Option<Wanted<'_>>, Malformed> {
    let line = line.trim_ascii();
    if line.is_empty() || line.first() == Some(&b'#') {
        return Ok(None);
    }
    let (object, function) = split(line, b':').ok_or(Malformed)?;
    let (function, position) = match split(function, b',') {
        Some((function, position)) => (function, number(position).ok_or(Malformed)?),
        None => (function, 0),
    };
    if !is_name(object) || !is_name(function) {
        return Err(Malformed);
    }
    Ok(Some(Wanted {
        object: (object != b"vmlinux").then_some(object),
        function,
        position,
    }))
}

/// What is before the first `at`, and what is behind it.
fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let index = text.iter().position(|byte| *byte == at)?;
    Some((text.get(..index)?, text.get(index.checked_add(1)?..)?))
}

/// Whether a symbol or a module can be called that.
fn is_name(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_graphic)
}

fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_usize, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        number
            .checked_mul(10)?
            .checked_add(usize::try_from(digit).ok()?)
    })
}
