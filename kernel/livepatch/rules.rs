// SPDX-License-Identifier: GPL-2.0-or-later

//! What needs nothing of the kernel: `scripts/host-tests` runs these files as they are.
//!
//! Nothing in this folder may use `kernel` or `bindings`, which `scripts/levels.py` checks. Its
//! levels are
//!
//!     2  placement
//!     1  dispatch owners ranges sets symbol symtab wanted

pub(crate) mod dispatch;
pub(crate) mod owners;
pub(crate) mod placement;
pub(crate) mod ranges;
pub(crate) mod sets;
pub(crate) mod symbol;
pub(crate) mod symtab;
pub(crate) mod wanted;
