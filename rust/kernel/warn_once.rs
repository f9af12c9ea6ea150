// SPDX-License-Identifier: GPL-2.0

//! Warnings that are reported once.
//!
//! C header: [`include/asm-generic/bug.h`](srctree/include/asm-generic/bug.h)

/// Reports a warning the first time that `cond` is true, and returns the condition.
///
/// Mirrors `WARN_ON_ONCE()`.
///
/// # Examples
///
/// ```
/// assert!(!kernel::warn_on_once!(1 > 2));
/// ```
#[macro_export]
macro_rules! warn_on_once {
    ($cond:expr) => {{
        let cond = $cond;
        if cond {
            const WARN_ON_ONCE_FLAGS: u32 =
                $crate::warn_once::ONCE | $crate::bug::bugflag_taint($crate::bindings::TAINT_WARN);

            $crate::warn_flags!(file!(), WARN_ON_ONCE_FLAGS);
        }
        cond
    }};
}

/// The flag of a warning that is reported once.
#[doc(hidden)]
#[cfg(CONFIG_BUG)]
pub const ONCE: u32 = crate::bindings::BUGFLAG_ONCE;

/// The flag of a warning that is reported once.
#[doc(hidden)]
#[cfg(not(CONFIG_BUG))]
pub const ONCE: u32 = 0;
