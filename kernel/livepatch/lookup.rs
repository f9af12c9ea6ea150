// SPDX-License-Identifier: GPL-2.0-or-later

//! From a function's name to its address.
//!
//! Replaces `klp_find_object_symbol()` of `core.c`.

use crate::rules::symtab::{
    self,
    Bounds,
    Missing,
    Search, //
};
use core::ops::ControlFlow;
use kernel::{
    kallsyms,
    module_ref::Module,
    prelude::*,
    str::BStr, //
};

/// Start and size of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) start: usize,
    pub(crate) size: usize,
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
    report(&search(object, name, position), object)
}

/// Returns start and size of the function, as [`find_symbol`] finds it, without a message.
///
/// May sleep; takes the module mutex.
pub(crate) fn find_extent(object: Option<&CStr>, name: &CStr, position: usize) -> Option<Extent> {
    extent(search(object, name, position).result().ok()?).ok()
}

fn search<'a>(object: Option<&CStr>, name: &'a CStr, position: usize) -> Search<'a> {
    let mut search = Search::new(name.to_bytes(), position);
    let mut matched = |addr| {
        search.matched(addr);
        if search.is_done() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    match object {
        Some(module) => kallsyms::for_each_module_symbol(module, |symbol, addr| {
            if symbol == name {
                matched(addr)
            } else {
                ControlFlow::Continue(())
            }
        }),
        None => kallsyms::for_each_match(name, matched),
    }
    search
}

/// Returns what was found, or prints why nothing was.
fn report(search: &Search<'_>, object: Option<&CStr>) -> Result<usize> {
    let label = object.unwrap_or(c"vmlinux");
    let name = BStr::from_bytes(search.name);
    search.result().map_err(|missing| {
        match missing {
            Missing::Name => pr_err!("symbol '{}' not found in symbol table\n", name),
            Missing::Ambiguous => pr_err!(
                "unresolvable ambiguity for symbol '{}' in object '{}'\n",
                name,
                label
            ),
            Missing::Position => pr_err!(
                "symbol position {} for symbol '{}' in object '{}' not found\n",
                search.position,
                name,
                label
            ),
        }
        EINVAL
    })
}

/// Symbols of a module that were all looked up in one pass over its table.
pub(crate) struct Symbols<'a> {
    module: &'a CStr,
    searches: KVVec<Search<'a>>,
}

impl<'a> Symbols<'a> {
    /// Looks up symbols, given as name and position. Prints nothing about those not found.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    ///
    /// May sleep; takes the module mutex.
    pub(crate) fn find(
        module: &'a CStr,
        symbols: impl Iterator<Item = (&'a [u8], usize)>,
    ) -> Result<Self> {
        let mut searches = KVVec::new();
        for (name, position) in symbols {
            searches.push(Search::new(name, position), GFP_KERNEL)?;
        }
        symtab::sort_searches(&mut searches);
        if !searches.is_empty() {
            kallsyms::for_each_module_symbol(module, |name, addr| {
                symtab::match_symbol(&mut searches, name.to_bytes(), addr);
                ControlFlow::Continue(())
            });
        }
        Ok(Self { module, searches })
    }

    /// Returns the addresses that were found.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = usize> + '_ {
        self.searches
            .iter()
            .filter_map(|search| search.result().ok())
    }

    /// Returns the address of one of the symbols that were looked up.
    ///
    /// # Errors
    ///
    /// As of [`find_symbol`], after the same message.
    pub(crate) fn get(&self, name: &[u8], position: usize) -> Result<usize> {
        let search = symtab::find_search(&self.searches, name, position).ok_or(EINVAL)?;
        report(search, Some(self.module))
    }
}

/// Up to this many sizes, asking the kernel for each is as fast as one pass of ours over the table.
const FEW: usize = 3;

/// Sizes of functions of a module that were all found in one pass over its table.
pub(crate) struct Sizes<'a> {
    module: Option<&'a Module>,
    bounds: KVVec<Bounds>,
}

impl<'a> Sizes<'a> {
    /// Finds the sizes of the functions at `addrs`, as far as they are in `module`. A few are left
    /// to [`Self::extent`].
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    ///
    /// May sleep; takes the module mutex.
    pub(crate) fn find(
        module: Option<&'a Module>,
        addrs: impl Iterator<Item = usize>,
    ) -> Result<Self> {
        let mut bounds = KVVec::new();
        if let Some(module) = module {
            for addr in addrs {
                bounds.push(Bounds::new(addr), GFP_KERNEL)?;
            }
            if bounds.len() <= FEW {
                bounds.clear();
            }
            symtab::sort_bounds(&mut bounds);
            if !bounds.is_empty() {
                kallsyms::for_each_module_symbol(module.name(), |name, addr| {
                    if symtab::is_boundary(name.to_bytes()) {
                        symtab::note_symbol(&mut bounds, addr);
                    }
                    ControlFlow::Continue(())
                });
            }
            symtab::finish_bounds(&mut bounds);
        }
        Ok(Self { module, bounds })
    }

    /// Returns the size of the function at `addr` if it is one of those found in the module.
    pub(crate) fn get(&self, addr: usize) -> Option<usize> {
        let bounds = symtab::find_bounds(&self.bounds, addr)?;
        self.module?
            .memory()
            .find_map(|memory| bounds.size(memory.start, memory.end))
    }

    /// Returns start and size of the function at `addr`, wherever it is.
    ///
    /// # Errors
    ///
    /// As of [`extent`].
    pub(crate) fn extent(&self, addr: usize) -> Result<Extent> {
        match self.get(addr) {
            Some(size) => Ok(Extent { start: addr, size }),
            None => extent(addr),
        }
    }
}

/// Returns start and size of the function at `addr`.
///
/// # Errors
///
/// [`ENOENT`] when no symbol covers the address. The caller prints the message.
fn extent(addr: usize) -> Result<Extent> {
    let size = kallsyms::symbol_size(addr).ok_or(ENOENT)?;
    Ok(Extent { start: addr, size })
}

#[kunit_tests(rust_livepatch_lookup)]
mod tests {
    use super::*;

    /// The core's own module; [`None`] when it is built in.
    fn this_module() -> Option<&'static Module> {
        let module = crate::this_module();
        // SAFETY: The module of this code stays for as long as that runs.
        (!module.is_null()).then(|| unsafe { Module::from_raw(module) })
    }

    #[test]
    fn sizes_are_the_kernels() -> Result {
        let Some(module) = this_module() else {
            return Ok(());
        };
        let mut addrs = KVVec::new();
        let mut result = Ok(());
        kallsyms::for_each_module_symbol(module.name(), |_, addr| {
            for addr in [addr, addr.saturating_add(1)] {
                if module.memory().any(|memory| memory.contains(&addr)) {
                    result = result.and(addrs.push(addr, GFP_KERNEL));
                }
            }
            ControlFlow::Continue(())
        });
        result?;
        assert!(addrs.len() > 1000);
        let sizes = Sizes::find(Some(module), addrs.iter().copied())?;
        for &addr in &addrs {
            assert_eq!(sizes.get(addr), kallsyms::symbol_size(addr));
        }
        assert_eq!(sizes.get(1), None);
        Ok(())
    }

    #[test]
    fn sizes_elsewhere() -> Result {
        let vmlinux = find_symbol(None, c"kallsyms_lookup_size_offset", 0)?;
        let sizes = Sizes::find(this_module(), [vmlinux].into_iter())?;
        assert_eq!(sizes.get(vmlinux), None);
        assert_eq!(sizes.extent(vmlinux)?, extent(vmlinux)?);
        Ok(())
    }

    #[test]
    fn symbols_together() -> Result {
        let Some(module) = this_module() else {
            return Ok(());
        };
        let wanted = [
            (c"klp_enable_patch", 0),
            (c"klp_shadow_get", 1),
            (c"klp_enable_patch", 1),
        ];
        let names = wanted
            .iter()
            .map(|(name, position)| (name.to_bytes(), *position));
        let symbols = Symbols::find(module.name(), names)?;
        for (name, position) in wanted {
            let addr = find_symbol(Some(module.name()), name, position)?;
            assert_eq!(symbols.get(name.to_bytes(), position)?, addr);
        }
        assert_eq!(symbols.addresses().count(), wanted.len());
        Ok(())
    }
}
