// SPDX-License-Identifier: GPL-2.0-or-later

//! Host tests of the files of the core that need nothing of the kernel, and a model of its
//! ordering.
//!
//! The files are the kernel's own: what is tested is what runs. `tests/ordering.rs` models how the
//! core, the ftrace handler and the tasks order their accesses. `scripts/host-tests.sh` runs all of
//! this. `kernel/livepatch/tests.rs` has the same tests for KUnit, with fewer cases.

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
    pub(crate) mod wanted;
}
mod sort;
mod system;

#[cfg(test)]
mod tests;
