// SPDX-License-Identifier: GPL-2.0

//! Debug messages that `/sys/kernel/debug/dynamic_debug/control` switches on and off.
//!
//! Not what `pr_debug!` of `print.rs` does, though it should: dynamic debug knows a message by its
//! function, too, and Rust has no constant for the name of that, as `__func__` is. Nor does
//! `file!()` always begin with the path in the tree. So the caller has to say both here.
//!
//! C header: [`include/linux/dynamic_debug.h`](srctree/include/linux/dynamic_debug.h)

#[cfg(CONFIG_DYNAMIC_DEBUG)]
use crate::{
    bindings,
    fmt,
    prelude::*,
    str::CStrExt as _, //
};
#[cfg(CONFIG_DYNAMIC_DEBUG)]
use core::cell::UnsafeCell;

/// A bit field of `struct _ddebug`: where it begins, in the order of declaration, and its width.
/// bindgen's functions for them are not constant.
#[cfg(CONFIG_DYNAMIC_DEBUG)]
struct Field(u32, u32);

#[cfg(CONFIG_DYNAMIC_DEBUG)]
impl Field {
    const LINE: Self = Self(0, 18);
    const CLASS: Self = Self(18, 6);
    const FLAGS: Self = Self(24, 8);

    /// The first one is at the low end of the word, or at the high end on big endian machines.
    const fn shift(&self) -> u32 {
        if cfg!(target_endian = "big") {
            u32::BITS - self.0 - self.1
        } else {
            self.0
        }
    }

    const fn mask(&self) -> u32 {
        u32::MAX >> (u32::BITS - self.1)
    }

    const fn put(&self, value: u32) -> u32 {
        (value & self.mask()) << self.shift()
    }

    const fn get(&self, word: u32) -> u32 {
        (word >> self.shift()) & self.mask()
    }
}

/// Describes one message to dynamic debug. Made by [`pr_dynamic_debug!`] only.
///
/// [`pr_dynamic_debug!`]: crate::pr_dynamic_debug
#[doc(hidden)]
#[repr(transparent)]
#[cfg(CONFIG_DYNAMIC_DEBUG)]
pub struct Descriptor(UnsafeCell<bindings::_ddebug>);

#[cfg(CONFIG_DYNAMIC_DEBUG)]
// SAFETY: Dynamic debug serialises changes; the flags are read as a single word.
unsafe impl Sync for Descriptor {}

#[cfg(CONFIG_DYNAMIC_DEBUG)]
impl Descriptor {
    /// Makes the descriptor of a message that is off.
    pub const fn new(
        module: &'static CStr,
        function: &'static CStr,
        file: &'static CStr,
        format: &'static CStr,
        line: u32,
    ) -> Self {
        let word = Field::LINE.put(line) | Field::CLASS.put(bindings::_DPRINTK_CLASS_DFLT);
        // SAFETY: All-zero is valid, and means off.
        let mut desc: bindings::_ddebug = unsafe { core::mem::zeroed() };
        desc.modname = crate::str::as_char_ptr_in_const_context(module);
        desc.function = crate::str::as_char_ptr_in_const_context(function);
        desc.filename = crate::str::as_char_ptr_in_const_context(file);
        desc.format = crate::str::as_char_ptr_in_const_context(format);
        desc._bitfield_1 = bindings::__BindgenBitfieldUnit::new(word.to_ne_bytes());
        Self(UnsafeCell::new(desc))
    }

    /// Returns whether the message is switched on.
    #[inline]
    pub fn enabled(&self) -> bool {
        // SAFETY: The bit field is four bytes with the alignment of the pointer before it.
        let word = unsafe {
            core::ptr::read_volatile((&raw const (*self.0.get())._bitfield_1).cast::<u32>())
        };
        Field::FLAGS.get(word) & bindings::_DPRINTK_FLAGS_PRINT != 0
    }

    /// Prints `args` the way that the control file asks for.
    pub fn print(&self, module: &CStr, args: fmt::Arguments<'_>) {
        // SAFETY: The descriptor is static, and the arguments are what the format says.
        unsafe {
            bindings::__dynamic_pr_debug(
                self.0.get(),
                c"%s: %pA".as_char_ptr(),
                module.as_char_ptr(),
                core::ptr::from_ref(&args).cast::<c_void>(),
            )
        };
    }
}

/// Returns the part of a source path that begins with `dir`, NUL-terminated, for [`CStr`]s of
/// constant size `N`. Without `dir` in it, the end of the path.
#[doc(hidden)]
pub const fn source_path<const N: usize>(path: &str, dir: &str) -> [u8; N] {
    let (path, dir) = (path.as_bytes(), dir.as_bytes());
    let start = path_start(path, dir);
    let mut out = [0; N];
    let mut i = 0;
    while start + i < path.len() && i + 1 < N {
        out[i] = path[start + i];
        i += 1;
    }
    out
}

/// Returns the array length that [`source_path`] needs.
#[doc(hidden)]
pub const fn source_path_len(path: &str, dir: &str) -> usize {
    path.len() - path_start(path.as_bytes(), dir.as_bytes()) + 1
}

const fn path_start(path: &[u8], dir: &[u8]) -> usize {
    let mut start = path.len().saturating_sub(dir.len()) + 1;
    while start > 0 {
        start -= 1;
        let mut i = 0;
        while i < dir.len() && start + i < path.len() && path[start + i] == dir[i] {
            i += 1;
        }
        if i == dir.len() {
            return start;
        }
    }
    0
}

/// Prints a debug message, if it has been switched on for its file, function or module.
///
/// Mirrors `pr_debug()` of a kernel with `CONFIG_DYNAMIC_DEBUG`; without it, nothing is printed.
/// `dir` is the directory of the crate in the kernel tree, `func` the name under which the control
/// file knows the function.
///
/// # Examples
///
/// ```
/// kernel::pr_dynamic_debug!(dir: "rust/", func: c"doctest", "{} bottles\n", 99);
/// ```
#[macro_export]
#[expect(clippy::crate_in_macro_def)]
macro_rules! pr_dynamic_debug {
    (dir: $dir:expr, func: $func:expr, $fmt:tt $($args:tt)*) => {{
        #[cfg(CONFIG_DYNAMIC_DEBUG)]
        {
            use $crate::dynamic_debug::{source_path, source_path_len, Descriptor};
            const MODULE: &$crate::str::CStr =
                <crate::LocalModule as $crate::ModuleMetadata>::NAME;
            const LEN: usize = source_path_len(file!(), $dir);
            const PATH: [u8; LEN] = source_path(file!(), $dir);
            const FILE: &$crate::str::CStr = match $crate::str::CStr::from_bytes_with_nul(&PATH) {
                Ok(path) => path,
                Err(_) => c"",
            };
            const FORMAT: &$crate::str::CStr = match $crate::str::CStr::from_bytes_with_nul(
                concat!($fmt, "\0").as_bytes(),
            ) {
                Ok(format) => format,
                Err(_) => c"",
            };
            #[link_section = "__dyndbg"]
            #[used(compiler)]
            static DESCRIPTOR: Descriptor = Descriptor::new(MODULE, $func, FILE, FORMAT, line!());
            if DESCRIPTOR.enabled() {
                DESCRIPTOR.print(MODULE, $crate::prelude::fmt!($fmt $($args)*));
            }
        }
        #[cfg(not(CONFIG_DYNAMIC_DEBUG))]
        if false {
            _ = $crate::prelude::fmt!($fmt $($args)*);
        }
    }};
}
