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
mod sort;
#[path = "../../../kernel/livepatch/symbol.rs"]
mod symbol;
#[path = "../../../kernel/livepatch/symtab.rs"]
mod symtab;
mod system;

#[cfg(test)]
mod tests;
