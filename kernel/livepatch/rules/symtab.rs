// SPDX-License-Identifier: GPL-2.0-or-later

//! Many names, or many addresses, looked up in one pass over a module's symbol table.
//!
//! The table is in no order, so a lookup is a pass. What is looked up is sorted instead, and each
//! symbol finds by binary search whom it concerns. Replaces `klp_find_object_symbol()` of
//! `core.c`, and what the kernel's own lookup of an address does in a module. Pure; tested on
//! the host.

use crate::sort::sort_by_key;

/// The search for a symbol by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Search<'a> {
    pub(crate) name: &'a [u8],
    /// Which of several symbols of that name is meant, from 1; with 0 there must be only one.
    pub(crate) position: usize,
    /// How many there were, up to the one that decided.
    count: usize,
    /// The address of the last of them.
    addr: usize,
}

/// Why a symbol was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// No symbol has the name.
    Name,
    /// Several symbols have the name, and the position is not given.
    Ambiguous,
    /// Fewer symbols have the name than the position asks for.
    Position,
}

impl<'a> Search<'a> {
    pub(crate) fn new(name: &'a [u8], position: usize) -> Self {
        Self {
            name,
            position,
            count: 0,
            addr: 0,
        }
    }

    fn key(&self) -> (&'a [u8], usize) {
        (self.name, self.position)
    }

    /// Whether the wanted symbol, or one too many, was seen.
    pub(crate) fn is_done(&self) -> bool {
        match self.position {
            0 => self.count > 1,
            position => self.count == position,
        }
    }

    /// Takes the next symbol of the name.
    pub(crate) fn matched(&mut self, addr: usize) {
        if !self.is_done() {
            self.addr = addr;
            self.count = self.count.saturating_add(1);
        }
    }

    /// Returns the address of the wanted symbol, once all symbols were seen.
    pub(crate) fn result(&self) -> Result<usize, Missing> {
        if self.addr == 0 {
            Err(Missing::Name)
        } else if self.position == 0 && self.count > 1 {
            Err(Missing::Ambiguous)
        } else if self.position > 0 && self.count != self.position {
            Err(Missing::Position)
        } else {
            Ok(self.addr)
        }
    }
}

/// Puts `searches` in the order that the other functions need.
pub(crate) fn sort_searches(searches: &mut [Search<'_>]) {
    sort_by_key(searches, Search::key);
}

/// Tells all `searches` of a symbol.
pub(crate) fn match_symbol(searches: &mut [Search<'_>], name: &[u8], addr: usize) {
    let first = searches.partition_point(|search| search.name < name);
    let rest = searches.get_mut(first..).unwrap_or_default();
    for search in rest.iter_mut().take_while(|search| search.name == name) {
        search.matched(addr);
    }
}

/// Returns the search for a name and position.
pub(crate) fn find_search<'s, 'a>(
    searches: &'s [Search<'a>],
    name: &[u8],
    position: usize,
) -> Option<&'s Search<'a>> {
    let at = searches.partition_point(|search| search.key() < (name, position));
    let search = searches.get(at)?;
    (search.key() == (name, position)).then_some(search)
}

/// An address and the symbols next to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) addr: usize,
    /// The last symbol up to, and including, the address; 0 for none.
    below: usize,
    /// The first symbol beyond the address; the maximum for none.
    above: usize,
}

impl Bounds {
    pub(crate) fn new(addr: usize) -> Self {
        Self {
            addr,
            below: 0,
            above: usize::MAX,
        }
    }

    /// Returns the size of the symbol that the address is in, if it is part of the memory from
    /// `start` up to `end`.
    ///
    /// A symbol reaches up to the next one, or to the end of the memory.
    pub(crate) fn size(&self, start: usize, end: usize) -> Option<usize> {
        let inside = start <= self.addr && self.addr < end;
        let found = self.below >= start && self.below != 0;
        (inside && found).then(|| self.above.min(end).saturating_sub(self.below))
    }
}

/// Puts `bounds` in the order that the other functions need.
pub(crate) fn sort_bounds(bounds: &mut [Bounds]) {
    sort_by_key(bounds, |bound| bound.addr);
}

/// Whether a symbol of that name counts as one that addresses belong to.
///
/// Mirrors `find_kallsyms_symbol()` and `is_mapping_symbol()`: marks of assembler and compiler do
/// not.
pub(crate) fn is_boundary(name: &[u8]) -> bool {
    !matches!(name, [] | [b'.', b'L', ..] | [b'L', b'0', ..] | [b'$', ..])
}

/// Tells the `bounds` next to a symbol of it.
pub(crate) fn note_symbol(bounds: &mut [Bounds], addr: usize) {
    let at = bounds.partition_point(|bound| bound.addr < addr);
    if let Some(bound) = bounds.get_mut(at) {
        bound.below = bound.below.max(addr);
    }
    if let Some(bound) = at.checked_sub(1).and_then(|at| bounds.get_mut(at)) {
        bound.above = bound.above.min(addr);
    }
}

/// Completes the bounds after the last symbol: one that has no symbol next to it takes its
/// neighbour's.
pub(crate) fn finish_bounds(bounds: &mut [Bounds]) {
    let mut below = 0;
    for bound in bounds.iter_mut() {
        below = bound.below.max(below);
        bound.below = below;
    }
    let mut above = usize::MAX;
    for bound in bounds.iter_mut().rev() {
        above = bound.above.min(above);
        bound.above = above;
    }
}

/// Returns the bounds of `addr`.
pub(crate) fn find_bounds(bounds: &[Bounds], addr: usize) -> Option<&Bounds> {
    let at = bounds.partition_point(|bound| bound.addr < addr);
    bounds.get(at).filter(|bound| bound.addr == addr)
}
