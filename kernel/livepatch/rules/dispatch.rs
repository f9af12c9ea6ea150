// SPDX-License-Identifier: GPL-2.0-or-later

//! What the ftrace handler reads: from the address of a patched function to the one to run.
//!
//! This file is part of two crates, the handler's and the core's, and is their only contract.
//! A [`Table`] never changes in size or place while ftrace can call the handler with it; what its
//! slots say changes under `klp_mutex`, with the handler reading them at any time. The handler
//! reads nothing else of the core.
//!
//! A slot is found without a search. The addresses from that of the first function on are cut into
//! rows, and each row has a displacement: where its slots would begin if each
//! possible location in it had one. Rows overlap, such that no two functions meet in one slot; how,
//! is the business of `placement.rs`.
//!
//! Replaces `struct klp_ops` of `patch.h`, and the func stack as the handler sees it.

use core::cell::UnsafeCell;

/// The distance of functions is a multiple of this; their ftrace locations may be a few bytes in.
#[cfg(not(target_arch = "aarch64"))]
pub(crate) const GRAIN: usize = 16;
/// The distance of functions is a multiple of this; their ftrace locations may be a few bytes in.
#[cfg(target_arch = "aarch64")]
pub(crate) const GRAIN: usize = 8;

/// The logarithm of how many bytes of code share a displacement, a row.
pub(crate) const ROW_BITS: u32 = 13;

/// From a patched function's ftrace location to what is to run. An ops has the address of `rows`,
/// which saves an addition.
#[repr(C)]
pub(crate) struct Table {
    /// The ftrace location of the first function, or up to a grain less.
    pub(crate) base: usize,
    /// The functions whose slot is not where it should be, behind each other.
    pub(crate) strays: *const Stray,
    pub(crate) nr_strays: usize,
    /// The displacements, as addresses; as many as there are rows up to the last function.
    pub(crate) rows: [usize; 0],
}

/// A function whose slot is elsewhere.
#[repr(C)]
pub(crate) struct Stray {
    pub(crate) ip: usize,
    pub(crate) slot: *const Slot,
}

/// What is to run instead of one function. All addresses are ones to go on at: for the original
/// function, the one behind its ftrace location.
#[repr(C)]
pub(crate) struct Slot {
    /// The ftrace location of the function; 0 in a free slot.
    pub(crate) ip: usize,
    /// The address for all tasks; 0 while that depends on the task.
    pub(crate) entry: UnsafeCell<usize>,
    /// While it does, the address in `KLP_TRANSITION_UNPATCHED` and in `KLP_TRANSITION_PATCHED`.
    pub(crate) choice: [UnsafeCell<usize>; 2],
}

/// Bytes of slots for a byte of code.
const SCALE: usize = size_of::<Slot>() / GRAIN;
const _: () = assert!(SCALE * GRAIN == size_of::<Slot>());

/// Returns the row of a location at `offset` from the base.
#[inline(always)]
pub(crate) fn row_of(offset: usize) -> usize {
    offset >> ROW_BITS
}

/// Returns the address of the slot of a location at `offset` from the base, in a row with this
/// displacement: where the slot of the base would be if it were in the row.
#[inline(always)]
pub(crate) fn slot_at(displacement: usize, offset: usize) -> usize {
    displacement.wrapping_add((offset & !(GRAIN - 1)).wrapping_mul(SCALE))
}
