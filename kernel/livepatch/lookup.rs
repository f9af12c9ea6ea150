// SPDX-License-Identifier: GPL-2.0-or-later

//! From a function's name to its address.
//!
//! Answers to `klp_find_object_symbol()` of `core.c`.

use core::ops::ControlFlow;
use kernel::{
    kallsyms,
    prelude::*, //
};

/// Start and size of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) start: usize,
    pub(crate) size: usize,
}

/// Counts the matches of a name until the wanted one, or one too many, is found.
struct Search {
    position: usize,
    count: usize,
    addr: usize,
}

impl Search {
    fn matched(&mut self, addr: usize) -> ControlFlow<()> {
        self.addr = addr;
        self.count = self.count.saturating_add(1);
        let found = self.position != 0 && self.count == self.position;
        let ambiguous = self.position == 0 && self.count > 1;
        if found || ambiguous {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// Returns the address of the symbol `name` in module `object`, or in vmlinux.
///
/// `position` says which of several symbols of that name is meant, from 1; with 0 there must be
/// only one.
///
/// # Errors
///
/// [`EINVAL`], after a message, when there is no such symbol.
///
/// May sleep; takes the module mutex.
pub(crate) fn find_symbol(object: Option<&CStr>, name: &CStr, position: usize) -> Result<usize> {
    let mut search = Search {
        position,
        count: 0,
        addr: 0,
    };
    match object {
        Some(module) => kallsyms::for_each_module_symbol(module, |symbol, addr| {
            if symbol == name {
                search.matched(addr)
            } else {
                ControlFlow::Continue(())
            }
        }),
        None => kallsyms::for_each_match(name, |addr| search.matched(addr)),
    }

    let label = object.unwrap_or(c"vmlinux");
    if search.addr == 0 {
        pr_err!("symbol '{}' not found in symbol table\n", name);
    } else if search.count > 1 && position == 0 {
        pr_err!(
            "unresolvable ambiguity for symbol '{}' in object '{}'\n",
            name,
            label
        );
    } else if position > 0 && position != search.count {
        pr_err!(
            "symbol position {} for symbol '{}' in object '{}' not found\n",
            position,
            name,
            label
        );
    } else {
        return Ok(search.addr);
    }
    Err(EINVAL)
}

/// Returns start and size of the function at `addr`.
///
/// # Errors
///
/// [`ENOENT`] when no symbol covers the address. The caller prints the message.
pub(crate) fn extent(addr: usize) -> Result<Extent> {
    let size = kallsyms::symbol_size(addr).ok_or(ENOENT)?;
    Ok(Extent { start: addr, size })
}
