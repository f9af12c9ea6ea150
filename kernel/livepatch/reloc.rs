// SPDX-License-Identifier: GPL-2.0-or-later

//! klp relocations: references from a livepatch module to symbols that are not exported, or that
//! are in modules which are not loaded yet.
//!
//! Sections `.klp.rela.vmlinux.*` are applied while the livepatch module is loaded, at the request
//! of the module loader; sections `.klp.rela.<module>.*` when that module is there. Their symbols
//! are in section `SHN_LIVEPATCH`, and named as [`crate::rules::symbol`] says.
//!
//! Replaces `klp_write_section_relocs()`, `klp_resolve_symbols()` and
//! `klp_find_section_by_name()` of `core.c`.

use crate::{
    lookup::{
        self,
        Symbols, //
    },
    rules::symbol, //
};
use core::ffi::CStr;
use kernel::{
    bindings,
    error::to_result,
    ffi::c_uint,
    module_ref::Module,
    prelude::*,
    str::{
        BStr,
        CString, //
    }, //
};

/// The ELF parts of a livepatch module that relocating needs.
#[derive(Clone, Copy)]
pub(crate) struct Image {
    pub(crate) module: *mut bindings::module,
    pub(crate) sections: *mut bindings::Elf64_Shdr,
    pub(crate) section_names: *const c_char,
    pub(crate) strings: *const c_char,
    pub(crate) symbols_index: c_uint,
}

impl Image {
    /// Returns what the module loader kept of a livepatch module, and how many sections it has.
    fn of(module: &Module) -> Option<(Self, c_uint)> {
        let ptr = module.as_ptr();
        // SAFETY: The module is valid, and keeps its `klp_info` until it is freed.
        unsafe {
            let info = (*ptr).klp_info.as_ref()?;
            let image = Self {
                module: ptr,
                sections: info.sechdrs,
                section_names: info.secstrings,
                strings: (*ptr).core_kallsyms.strtab,
                symbols_index: info.symndx,
            };
            Some((image, c_uint::from(info.hdr.e_shnum)))
        }
    }

    /// # Safety
    ///
    /// The image must be valid, and `index` one of its sections.
    unsafe fn section<'a>(self, index: c_uint) -> &'a bindings::Elf64_Shdr {
        // SAFETY: By the caller's promise.
        unsafe { &*self.sections.wrapping_add(index as usize) }
    }

    /// # Safety
    ///
    /// The image must be valid, and `section` one of its sections, not of type `SHT_NULL`.
    unsafe fn section_name<'a>(self, section: &bindings::Elf64_Shdr) -> &'a CStr {
        // SAFETY: The module loader has checked that names are inside the string table.
        unsafe { CStr::from_char_ptr(self.section_names.wrapping_add(section.sh_name as usize)) }
    }

    /// Applies the relocations of section `index` if it belongs to `object`, or clears them.
    ///
    /// # Errors
    ///
    /// After a message: [`EINVAL`] when a name is malformed or a symbol is not found; what
    /// `apply_relocate_add()` returns.
    ///
    /// # Safety
    ///
    /// The image must be valid, and `index` one of its klp relocation sections.
    pub(crate) unsafe fn write_section(self, index: c_uint, object: &CStr, apply: bool) -> Result {
        // SAFETY: By the caller's promise.
        let section = unsafe { self.section(index) };
        // SAFETY: As above.
        let name = unsafe { self.section_name(section) };
        let Some(owner) = symbol::parse_section(name.to_bytes()) else {
            pr_err!("section {} has an incorrectly formatted name\n", name);
            return Err(EINVAL);
        };
        if owner != object.to_bytes() {
            return Ok(());
        }

        if !apply {
            // SAFETY: The image is valid, and the section was applied before.
            unsafe {
                bindings::clear_relocate_add(
                    self.sections,
                    self.strings,
                    self.symbols_index,
                    index,
                    self.module,
                )
            };
            return Ok(());
        }

        // SAFETY: By the caller's promise.
        unsafe { self.resolve_symbols(section, object) }?;
        // SAFETY: The image is valid, and the symbols of the section have their values.
        to_result(unsafe {
            bindings::apply_relocate_add(
                self.sections,
                self.strings,
                self.symbols_index,
                index,
                self.module,
            )
        })
        .inspect_err(|_| {
            // What was applied of it.
            //
            // SAFETY: As for this call.
            let _ = unsafe { self.write_section(index, object, false) };
        })
    }

    /// Gives all symbols that a relocation section refers to their addresses.
    ///
    /// # Safety
    ///
    /// The image must be valid, and `section` one of its relocation sections.
    unsafe fn resolve_symbols(self, section: &bindings::Elf64_Shdr, object: &CStr) -> Result {
        let count = section.sh_size as usize / size_of::<bindings::Elf64_Rela>();
        // What is malformed is for the second look, in its turn.
        let wanted = (0..count).filter_map(|i| {
            // SAFETY: By the caller's promise, and as `i` is below the number of entries.
            let name = unsafe { self.symbol(section, i) }.ok()?.1;
            let parsed = symbol::parse_symbol(name.to_bytes())?;
            (parsed.object == object.to_bytes()).then_some((parsed.name, parsed.position))
        });
        let found = if object == c"vmlinux" {
            None
        } else {
            Some(Symbols::find(object, wanted)?)
        };

        for i in 0..count {
            // SAFETY: As above.
            let (entry, name) = unsafe { self.symbol(section, i) }.map_err(|index| {
                pr_err!("rela sec idx {} has no symbol {}\n", i, index);
                EINVAL
            })?;
            // SAFETY: A symbol of the table, which is ours to change under the mutex.
            let entry = unsafe { &mut *entry };
            if u32::from(entry.st_shndx) != bindings::SHN_LIVEPATCH {
                pr_err!(
                    "symbol {} at rela sec {} idx {} is not marked as a livepatch symbol\n",
                    name,
                    self.symbols_index,
                    i
                );
                return Err(EINVAL);
            }
            entry.st_value = resolve(name, object, found.as_ref())? as u64;
        }
        Ok(())
    }

    /// Returns the symbol that entry `i` of a relocation section refers to, and its name.
    ///
    /// # Errors
    ///
    /// The number of the symbol when that is not in the symbol table.
    ///
    /// # Safety
    ///
    /// The image must be valid, `section` one of its relocation sections, and `i` below the number
    /// of its entries.
    unsafe fn symbol<'a>(
        self,
        section: &bindings::Elf64_Shdr,
        i: usize,
    ) -> Result<(*mut bindings::Elf64_Sym, &'a CStr), usize> {
        // SAFETY: By the caller's promise.
        let symbols = unsafe { self.section(self.symbols_index) };
        let table = symbols.sh_addr as *mut bindings::Elf64_Sym;
        let relas = section.sh_addr as *const bindings::Elf64_Rela;
        // SAFETY: By the caller's promise.
        let index = unsafe { (*relas.wrapping_add(i)).r_info } >> 32;
        // CAST: The upper half of 64 bits.
        let index = index as usize;
        if index >= symbols.sh_size as usize / size_of::<bindings::Elf64_Sym>() {
            return Err(index);
        }
        let entry = table.wrapping_add(index);
        // SAFETY: The index is inside the table. The module loader keeps names of livepatch symbols
        // inside the string table.
        let name =
            unsafe { CStr::from_char_ptr(self.strings.wrapping_add((*entry).st_name as usize)) };
        Ok((entry, name))
    }
}

/// Returns the address of the klp symbol `name`, referred to on behalf of `object`, of which the
/// symbols in `found` were looked up.
fn resolve(name: &CStr, object: &CStr, found: Option<&Symbols<'_>>) -> Result<usize> {
    let Some(parsed) = symbol::parse_symbol(name.to_bytes()) else {
        pr_err!("symbol {} has an incorrectly formatted name\n", name);
        return Err(EINVAL);
    };
    let in_vmlinux = parsed.object == b"vmlinux";
    // Such references could be applied only after other code of the module has used them.
    // Exported symbols need none.
    if in_vmlinux && object != c"vmlinux" {
        pr_err!(
            "invalid access to vmlinux symbol '{}' from module-specific livepatch relocation \
             section\n",
            BStr::from_bytes(parsed.name)
        );
        return Err(EINVAL);
    }
    if let Some(found) = found.filter(|_| parsed.object == object.to_bytes()) {
        return found.get(parsed.name, parsed.position);
    }
    let symbol = CString::try_from_fmt(fmt!("{}", BStr::from_bytes(parsed.name)))?;
    let module = CString::try_from_fmt(fmt!("{}", BStr::from_bytes(parsed.object)))?;
    let module = (!in_vmlinux).then_some(&*module);
    lookup::find_symbol(module, &symbol, parsed.position)
}

/// Applies all relocations of livepatch module `module` that refer to module `object`. On an error
/// those that were applied are cleared again.
pub(crate) fn apply_object(module: &Module, object: &CStr) -> Result {
    let Some((image, count)) = Image::of(module) else {
        return Ok(());
    };
    // Before any of them is applied.
    //
    // SAFETY: The image is that of a live module, with so many sections.
    for index in unsafe { klp_sections(image, count) } {
        // SAFETY: As above, and `index` is one of the klp relocation sections.
        if !unsafe { is_sound(module, image, count, index, object) } {
            pr_err!(
                "livepatch '{}': klp relocation section {} is malformed\n",
                module.name(),
                index
            );
            return Err(EINVAL);
        }
    }
    // SAFETY: The image is that of a live module, with so many sections.
    for index in unsafe { klp_sections(image, count) } {
        // SAFETY: The image is that of a live module, the section a sound klp relocation section.
        if let Err(err) = unsafe { image.write_section(index, object, true) } {
            // SAFETY: The image is that of a live module; the sections before this one are sound,
            // and those of the object have been applied.
            unsafe { clear(image, index, object) };
            return Err(err);
        }
    }
    Ok(())
}

/// Clears all relocations of livepatch module `module` that refer to module `object`.
///
/// # Safety
///
/// They must have been [applied](apply_object), and no task may run code that needs them.
pub(crate) unsafe fn clear_object(module: &Module, object: &CStr) {
    if let Some((image, count)) = Image::of(module) {
        // SAFETY: The image is that of a live module, with so many sections, which were found to be
        // sound when they were applied.
        unsafe { clear(image, count, object) };
    }
}

/// Clears the relocations for `object` in the sections below `end`.
///
/// # Safety
///
/// The image must be that of a live module, which has no fewer sections than `end`. The klp
/// relocation sections below it must be [sound](is_sound), and those for `object` be applied.
#[inline(never)]
unsafe fn clear(image: Image, end: c_uint, object: &CStr) {
    // SAFETY: By the caller's promise.
    for index in unsafe { klp_sections(image, end) } {
        // Fails for malformed names only, which applying has refused.
        //
        // SAFETY: By the caller's promise, and `index` is one of the klp relocation sections.
        let _ = unsafe { image.write_section(index, object, false) };
    }
}

/// The klp relocation sections below `end`.
///
/// # Safety
///
/// The image must be that of a module which is live for as long as the iterator is used, and has no
/// fewer sections than `end`.
unsafe fn klp_sections(image: Image, end: c_uint) -> impl Iterator<Item = c_uint> {
    (1..end).filter(move |&index| {
        // SAFETY: By the caller's promise, and `index` is below `end`.
        let flags = unsafe { image.section(index) }.sh_flags;
        flags & u64::from(bindings::SHF_RELA_LIVEPATCH) != 0
    })
}

/// Whether a klp relocation section, and what it is to change, are what they should be, and are
/// still there. The module loader looks at those for vmlinux only. Those of others than `object`
/// may be gone by now, and are not looked at.
///
/// # Safety
///
/// The image must be that of `module`, and `count` the number of its sections, of which `index` is
/// one.
unsafe fn is_sound(
    module: &Module,
    image: Image,
    count: c_uint,
    index: c_uint,
    object: &CStr,
) -> bool {
    let is_there = |section: &bindings::Elf64_Shdr| {
        let start = section.sh_addr as usize;
        section.sh_flags & u64::from(bindings::SHF_ALLOC) != 0
            && module.memory().any(|range| range.contains(&start))
    };
    // SAFETY: By the caller's promise.
    let section = unsafe { image.section(index) };
    if section.sh_type != bindings::SHT_RELA {
        return false;
    }
    // SAFETY: By the caller's promise, and it is not of type `SHT_NULL`.
    let name = unsafe { image.section_name(section) };
    if symbol::parse_section(name.to_bytes()).is_some_and(|owner| owner != object.to_bytes()) {
        return true;
    }
    (section.sh_addr as *const bindings::Elf64_Rela).is_aligned()
        && is_there(section)
        && section.sh_info < count
        // SAFETY: By the caller's promise, and the comparison.
        && is_there(unsafe { image.section(section.sh_info) })
}

/// Returns address and size of the section `name` of a livepatch module.
pub(crate) fn find_section(module: &Module, name: &CStr) -> Option<(usize, usize)> {
    let (image, count) = Image::of(module)?;
    (1..count).find_map(|index| {
        // SAFETY: The image is that of a live module.
        let section = unsafe { image.section(index) };
        if section.sh_type == bindings::SHT_NULL {
            return None;
        }
        // SAFETY: As above, and by the comparison.
        let found = unsafe { image.section_name(section) } == name;
        found.then_some((section.sh_addr as usize, section.sh_size as usize))
    })
}
