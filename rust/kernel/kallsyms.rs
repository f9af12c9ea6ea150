// SPDX-License-Identifier: GPL-2.0

//! Kernel symbol lookup.
//!
//! C header: [`include/linux/kallsyms.h`](srctree/include/linux/kallsyms.h)

use crate::{
    bindings,
    ffi::{
        c_char,
        c_int,
        c_ulong,
        c_void, //
    },
    prelude::*,
    str::CStrExt as _, //
};
use core::ops::ControlFlow;

/// Returns the size in bytes of the symbol that contains `addr`.
///
/// [`None`] means that no symbol does.
///
/// # Examples
///
/// ```
/// assert!(kernel::kallsyms::symbol_size(0).is_none());
/// ```
#[inline]
pub fn symbol_size(addr: usize) -> Option<usize> {
    let mut size: c_ulong = 0;
    // SAFETY: Any address may be asked for, `size` is valid for a write, the offset is optional.
    let found =
        unsafe { bindings::kallsyms_lookup_size_offset(addr, &mut size, core::ptr::null_mut()) };
    (found != 0).then_some(size)
}

fn to_c(flow: ControlFlow<()>) -> c_int {
    c_int::from(flow.is_break())
}

/// # Safety
///
/// `data` must be the closure of a running [`for_each_match`].
unsafe extern "C" fn match_trampoline<F: FnMut(usize) -> ControlFlow<()>>(
    data: *mut c_void,
    addr: c_ulong,
) -> c_int {
    // SAFETY: `data` is the closure that `for_each_match()` has exclusive access to.
    let f = unsafe { &mut *data.cast::<F>() };
    to_c(f(addr))
}

/// Calls `f` with the address of each vmlinux symbol called `name`, in the order of the symbol
/// table, until it breaks.
///
/// Mirrors `kallsyms_on_each_match_symbol()`. May sleep.
#[inline]
pub fn for_each_match<F: FnMut(usize) -> ControlFlow<()>>(name: &CStr, mut f: F) {
    // SAFETY: The trampoline is called only during this call and gets back the closure's type.
    unsafe {
        bindings::kallsyms_on_each_match_symbol(
            Some(match_trampoline::<F>),
            name.as_char_ptr(),
            (&raw mut f).cast(),
        )
    };
}

/// # Safety
///
/// `data` must be the closure of a running [`for_each_module_symbol`], `name` NUL-terminated.
unsafe extern "C" fn module_trampoline<F: FnMut(&CStr, usize) -> ControlFlow<()>>(
    data: *mut c_void,
    name: *const c_char,
    addr: c_ulong,
) -> c_int {
    // SAFETY: `data` is the closure that `for_each_module_symbol()` has exclusive access to.
    let f = unsafe { &mut *data.cast::<F>() };
    // SAFETY: The module loader hands out NUL-terminated names, valid during the call.
    to_c(f(unsafe { CStr::from_char_ptr(name) }, addr))
}

/// Calls `f` with name and address of each symbol of the loaded module `module`, in the order of
/// its symbol table, until it breaks.
///
/// Mirrors `module_kallsyms_on_each_symbol()`. Takes the module mutex, may sleep.
#[inline]
pub fn for_each_module_symbol<F: FnMut(&CStr, usize) -> ControlFlow<()>>(module: &CStr, mut f: F) {
    // SAFETY: The trampoline is called only during this call and gets back the closure's type.
    unsafe {
        bindings::module_kallsyms_on_each_symbol(
            module.as_char_ptr(),
            Some(module_trampoline::<F>),
            (&raw mut f).cast(),
        )
    };
}
