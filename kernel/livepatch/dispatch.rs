// SPDX-License-Identifier: GPL-2.0-or-later

//! What the ftrace handler reads: from the address of a patched function to its func stack.
//!
//! This file is part of two crates, the handler's and the core's, and is their only contract.
//! A [`Table`] never changes in size or place while ftrace can call the handler with it; its func
//! stacks change under `klp_mutex`, with the handler reading them at any time.
//!
//! Answers to `struct klp_ops` of `patch.h`, and the links of `struct klp_func`.

use core::cell::UnsafeCell;

/// An open-addressing hash table from ftrace location to func stack.
#[repr(C)]
pub(crate) struct Table {
    /// The slots; their number is a power of two and at least twice that of the functions.
    pub(crate) slots: *const Slot,
    /// The number of slots less one.
    pub(crate) mask: usize,
    /// 64 less the logarithm of the number of slots.
    pub(crate) shift: u32,
}

/// The func stack of one function.
#[repr(C)]
pub(crate) struct Slot {
    /// The ftrace location of the function; 0 in a free slot.
    pub(crate) ip: usize,
    /// The func that is in effect, or NULL.
    pub(crate) top: UnsafeCell<*const Node>,
}

/// A version of a function on a func stack.
#[repr(C)]
pub(crate) struct Node {
    /// The next older version, or NULL for the original function.
    pub(crate) next: UnsafeCell<*const Node>,
    /// The address of the new function; 0 to run the original (a nop).
    pub(crate) new_func: UnsafeCell<usize>,
    /// Whether the patch of this version is in transition, so that the task's state decides.
    pub(crate) transition: UnsafeCell<bool>,
}

/// Returns the slot at which the search for `ip` begins.
#[inline(always)]
pub(crate) fn first_slot(ip: usize, shift: u32) -> usize {
    // Fibonacci hashing: the upper bits of the product depend on all bits of the address.
    ip.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_shr(shift)
}

/// Returns the slot that follows slot `index`.
#[inline(always)]
pub(crate) fn next_slot(index: usize, mask: usize) -> usize {
    index.wrapping_add(1) & mask
}
