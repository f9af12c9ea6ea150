// SPDX-License-Identifier: GPL-2.0-or-later

//! The ftrace handler: sends a call of a patched function to the version that the task is to run.
//!
//! Answers to `klp_ftrace_handler()` of `patch.c`. A crate, and an object file, of its own: the
//! build checks that it calls nothing but four untraceable helpers, has no panic path and cannot
//! be traced itself. No allocation, no lock, no formatting, no unchecked arithmetic here.

use kernel::{
    bindings,
    ffi::c_ulong,
    prelude::export, //
};

mod dispatch;

use dispatch::{
    first_slot,
    next_slot,
    Node,
    Table, //
};

/// Called by ftrace at the entry of a patched function.
///
/// # Safety
///
/// `ops` must be a registered ops whose `private` is a valid [`Table`], `fregs` the registers at
/// the entry of the function.
#[export]
pub unsafe extern "C" fn klp_ftrace_handler(
    ip: c_ulong,
    parent_ip: c_ulong,
    ops: *mut bindings::ftrace_ops,
    fregs: *mut bindings::ftrace_regs,
) {
    // Also disables preemption, which is what makes schedule_on_each_cpu() wait for us: RCU may
    // not be watching here.
    //
    // SAFETY: No requirements.
    let bit = unsafe { bindings::ftrace_test_recursion_trylock(ip, parent_ip) };
    if bit < 0 {
        warn_once();
        return;
    }

    // SAFETY: `private` of a registered ops is constant and valid.
    let new_func = unsafe { choose((*ops).private.cast::<Table>(), ip) };
    if new_func != 0 {
        // SAFETY: ftrace hands out valid registers.
        unsafe { set_instruction_pointer(fregs, new_func) };
    }

    // SAFETY: The lock was taken above.
    unsafe { bindings::ftrace_test_recursion_unlock(bit) };
}

/// Returns the address to run instead of the function at `ip`, or 0 for the function itself.
///
/// # Safety
///
/// `table` must be valid, and preemption disabled.
#[inline(always)]
unsafe fn choose(table: *const Table, ip: usize) -> usize {
    // SAFETY: The table is valid; `first_slot()` and `next_slot()` return indices of slots, and a
    // free slot ends the search, as at most half of them are taken.
    let slot = unsafe {
        let mut index = first_slot(ip, (*table).shift);
        loop {
            let slot = (*table).slots.wrapping_add(index);
            if (*slot).ip == ip {
                break slot;
            }
            if (*slot).ip == 0 {
                return 0;
            }
            index = next_slot(index, (*table).mask);
        }
    };

    // READ_ONCE(): pairs with the release in `FuncStack::push()`. All further reads of the node
    // depend on this one for their address, which orders them.
    //
    // SAFETY: A func stack may be read at any time; nodes outlive all handlers that can see them.
    let mut node: *const Node = unsafe { (*slot).top.get().read_volatile() };
    if node.is_null() {
        // The func was just removed, all tasks run the original.
        return 0;
    }

    // SAFETY: As above.
    if unsafe { (*node).transition.get().read_volatile() } {
        // Order the mark before the read of the task's state. Pairs with the smp_wmb() between
        // the initial states and the marks in `transition::init()`: whoever sees the mark does not
        // see KLP_TRANSITION_IDLE.
        //
        // SAFETY: No requirements.
        unsafe { bindings::smp_rmb() };

        // SAFETY: The current task is valid, and its state is one aligned int.
        let state =
            unsafe { core::ptr::read_volatile(&raw const (*bindings::get_current()).patch_state) };
        if state == bindings::KLP_TRANSITION_IDLE {
            warn_once();
        }
        if state == bindings::KLP_TRANSITION_UNPATCHED as i32 {
            // SAFETY: As for the top of the stack; a node that was removed keeps its link.
            node = unsafe { (*node).next.get().read_volatile() };
            if node.is_null() {
                return 0;
            }
        }
    }

    // SAFETY: As above.
    unsafe { (*node).new_func.get().read_volatile() }
}

/// `WARN_ON_ONCE(1)`: a trap, not a call.
#[inline(always)]
fn warn_once() {
    kernel::warn_flags!(
        file!(),
        bindings::BUGFLAG_ONCE | kernel::bug::bugflag_taint(bindings::TAINT_WARN)
    );
}

/// `ftrace_regs_set_instruction_pointer()`.
///
/// # Safety
///
/// `fregs` must be valid.
#[inline(always)]
unsafe fn set_instruction_pointer(fregs: *mut bindings::ftrace_regs, addr: usize) {
    let fregs = fregs.cast::<bindings::__arch_ftrace_regs>();
    #[cfg(CONFIG_X86_64)]
    // SAFETY: By the caller's promise.
    unsafe {
        (*fregs).regs.ip = addr
    };
    #[cfg(CONFIG_ARM64)]
    // SAFETY: By the caller's promise.
    unsafe {
        (*fregs).pc = addr
    };
}
