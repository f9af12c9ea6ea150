// SPDX-License-Identifier: GPL-2.0-or-later

//! Host tests of the files of the core that need nothing of the kernel, and a model of its
//! ordering.
//!
//! The files are the kernel's own: what is tested is what runs. `tests/ordering.rs` models how the
//! core, the ftrace handler and the tasks order their accesses. `scripts/host-tests.sh` runs all of
//! this. `kernel/livepatch/tests.rs` has the same tests for KUnit, with fewer cases.

// The core uses all of it, the tests do not.
#![allow(dead_code)]

#[path = "../../../kernel/livepatch/dispatch.rs"]
mod dispatch;
#[path = "../../../kernel/livepatch/owners.rs"]
mod owners;
#[path = "../../../kernel/livepatch/placement.rs"]
mod placement;
#[path = "../../../kernel/livepatch/ranges.rs"]
mod ranges;
#[path = "../../../kernel/livepatch/sets.rs"]
mod sets;
#[path = "../../../kernel/livepatch/sort.rs"]
mod sort;
#[path = "../../../kernel/livepatch/symbol.rs"]
mod symbol;
#[path = "../../../kernel/livepatch/symtab.rs"]
mod symtab;
mod system;

#[cfg(test)]
mod tests;
