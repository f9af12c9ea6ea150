// SPDX-License-Identifier: GPL-2.0-or-later

//! Tests, on the host, of those files of the core that need nothing of the kernel.
//!
//! And a model of how the core, the ftrace handler and tasks order what they do, in
//! `tests/ordering.rs`.
//!
//! The files are the kernel's own, so that what is tested is what runs. `scripts/host-tests.sh`
//! runs this; `kernel/livepatch/tests.rs` has the same as KUnit tests, with fewer cases.

// The core uses all of it, the tests do not.
#![allow(dead_code)]

#[path = "../../../kernel/livepatch/rules"]
mod rules {
    pub(crate) mod dispatch;
    pub(crate) mod owners;
    pub(crate) mod placement;
    pub(crate) mod ranges;
    pub(crate) mod sets;
    pub(crate) mod symbol;
    pub(crate) mod symtab;
}
mod sort;
mod system;

#[cfg(test)]
mod tests;
