// SPDX-License-Identifier: GPL-2.0-or-later

//! The ftrace handler: sends a call of a patched function to the version that the task is to run.
//!
//! Replaces `klp_ftrace_handler()` of `patch.c`. A crate, and an object file, of its own: the
//! build checks that it calls nothing but rescheduling, has no panic path and cannot be traced
//! itself. No allocation, no lock, no formatting, no unchecked arithmetic here.
//!
//! # Recursion
//!
//! There is no recursion lock, unlike in C. What could make the handler run inside of itself?
//!
//! - A traceable function that it calls. It calls none: the build allows one symbol, the function
//!   that reschedules, which is behind all accesses and is not traceable. What rescheduling then
//!   leads to is as much inside of the handler as an interrupt behind it is.
//! - An exception that it causes. Tables, slots and registers are mapped kernel memory. `WARN_ON`
//!   is a trap, and its handling may call patched functions, which may warn again: so the warning
//!   is given once, by a flag that is set before.
//! - An interrupt or NMI. It may come anywhere, call patched functions and run the handler to its
//!   end: nothing is written here but that flag, the registers, which are the caller's own, and the
//!   preemption counter, which is balanced. The depth is that of contexts, not unbounded.
//!
//! ftrace does not rely on the lock either: without `FTRACE_OPS_FL_RECURSION` it leaves recursion
//! to the handler, and its own loop over several users has its own protection.
//!
//! # Lifetime
//!
//! Preemption is disabled, which makes `schedule_on_each_cpu()` wait for the handler also where RCU
//! is not watching (idle, entry code), so that an address that was read is not used after the core
//! has waited. The table and its slots live until ftrace has unregistered the ops, and with that
//! has waited for all who are in its trampoline.

use core::{
    arch::asm,
    mem::offset_of,
    ptr::{
        addr_of,
        addr_of_mut, //
    },
};
use kernel::{
    bindings,
    ffi::{
        c_int,
        c_ulong, //
    },
    prelude::export, //
};

#[path = "rules/dispatch.rs"]
mod dispatch;

use dispatch::{
    row_of,
    slot_at,
    Slot,
    Table, //
};

/// Called by ftrace at the entry of a patched function.
///
/// # Safety
///
/// `ops` must be a registered ops whose `private` is the rows of a valid [`Table`], `ip` the ftrace
/// location of one of its functions, `fregs` the registers at the entry of the function.
#[export]
pub unsafe extern "C" fn klp_ftrace_handler(
    ip: c_ulong,
    _parent_ip: c_ulong,
    ops: *mut bindings::ftrace_ops,
    fregs: *mut bindings::ftrace_regs,
) {
    // SAFETY: Undone at the end, here or in what is called instead.
    let before = unsafe { preempt_disable() };

    // SAFETY: `private` of a registered ops is constant and valid, and ftrace calls only for
    // functions of the ops' filter, which are those of the table.
    unsafe {
        let table = table_of((*ops).private.cast());
        let slot = slot_of(table, ip);
        // What is rare is called last, so that the way of most calls need not save any register.
        if (*slot).ip != ip {
            return redirect_stray(ip, table, fregs, before);
        }
        let entry = (*slot).entry.get().read_volatile();
        if entry == 0 {
            return redirect_by_task(slot, fregs, before);
        }
        set_instruction_pointer(fregs, entry);
    }

    // SAFETY: Undoes the one above.
    unsafe { preempt_enable(before) };
}

/// Returns the table that has these rows.
#[inline(always)]
fn table_of(rows: *const usize) -> *const Table {
    rows.wrapping_byte_sub(offset_of!(Table, rows)).cast()
}

/// Returns the slot of the function at `ip`. For a stray it is another slot's.
///
/// # Safety
///
/// `table` must be valid, and `ip` be the location of one of its functions.
#[inline(always)]
unsafe fn slot_of(table: *const Table, ip: usize) -> *const Slot {
    // SAFETY: By the caller's promise `ip` is in a row of the table, and where the displacement
    // leads to is memory of slots.
    unsafe {
        let offset = ip.wrapping_sub((*table).base);
        let rows = (&raw const (*table).rows).cast::<usize>();
        let displacement = *rows.wrapping_add(row_of(offset));
        slot_at(displacement, offset) as *const Slot
    }
}

/// Does what is left for the handler to do for a function that is a stray.
///
/// # Safety
///
/// As for [`klp_ftrace_handler`]; preemption must be disabled, and is enabled as it was `before`.
#[cold]
#[inline(never)]
unsafe fn redirect_stray(
    ip: usize,
    table: *const Table,
    fregs: *mut bindings::ftrace_regs,
    before: Before,
) {
    // SAFETY: The table is valid, and has as many strays as it says.
    unsafe {
        for index in 0..(*table).nr_strays {
            let stray = (*table).strays.wrapping_add(index);
            if (*stray).ip != ip {
                continue;
            }
            let slot = (*stray).slot;
            let entry = (*slot).entry.get().read_volatile();
            if entry == 0 {
                return redirect_by_task(slot, fregs, before);
            }
            set_instruction_pointer(fregs, entry);
            break;
        }
    }

    // SAFETY: By the caller's promise.
    unsafe { preempt_enable(before) };
}

/// Does what is left for the handler to do for a function that is in transition.
///
/// # Safety
///
/// `slot` must be valid and its entry have been read as 0, `fregs` be valid; preemption must be
/// disabled, and is enabled as it was `before`.
#[cold]
#[inline(never)]
unsafe fn redirect_by_task(slot: *const Slot, fregs: *mut bindings::ftrace_regs, before: Before) {
    // Order the entry before the choices and the state of the task. Pairs with the smp_wmb() of
    // `FuncStack::decide_by_task()`: whoever finds no entry finds the choices, and does not see
    // KLP_TRANSITION_IDLE.
    read_barrier();

    // SAFETY: The current task is valid, and its state is one aligned int.
    let state: c_int = unsafe { addr_of!((*current()).patch_state).read_volatile() };
    if state == bindings::KLP_TRANSITION_IDLE {
        // SAFETY: As for this.
        return unsafe { redirect_idle(slot, fregs, before) };
    }
    // The states are the indices: no compare, whatever the compiler makes of it.
    const _: () =
        assert!(bindings::KLP_TRANSITION_UNPATCHED == 0 && bindings::KLP_TRANSITION_PATCHED == 1);
    // CAST: 0 or 1.
    let index = (state & 1) as usize;
    // SAFETY: A slot may be read at any time, and has two choices.
    unsafe {
        let choices = (&raw const (*slot).choice).cast::<usize>();
        set_instruction_pointer(fregs, choices.wrapping_add(index).read_volatile());
    }

    // SAFETY: By the caller's promise.
    unsafe { preempt_enable(before) };
}

/// Does the same for a task that is in KLP_TRANSITION_IDLE, which is not to happen.
///
/// # Safety
///
/// As for [`redirect_by_task`].
#[cold]
#[inline(never)]
unsafe fn redirect_idle(slot: *const Slot, fregs: *mut bindings::ftrace_regs, before: Before) {
    warn_once();
    // SAFETY: By the caller's promise.
    unsafe {
        let [_, patched] = &(*slot).choice;
        set_instruction_pointer(fregs, patched.get().read_volatile());
        preempt_enable(before);
    }
}

/// `WARN_ON_ONCE(1)`: a trap, not a call. See the top of the file for the flag.
#[cold]
#[inline(always)]
fn warn_once() {
    static mut WARNED: bool = false;

    // SAFETY: One byte; two CPUs that find it clear warn twice.
    unsafe {
        if addr_of!(WARNED).read_volatile() {
            return;
        }
        addr_of_mut!(WARNED).write_volatile(true);
    }
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

#[cfg(CONFIG_X86_64)]
mod arch {
    //! What C has as inline functions, and Rust as calls.

    use super::*;

    // The counter and the inverted request to reschedule are one value of 64 bits.
    #[cfg(not(CONFIG_HAS_SEPARATE_PREEMPT_RESCHED_BITS))]
    compile_error!("__preempt_count has 32 bits");

    extern "C" {
        static __preempt_count: c_ulong;
        static current_task: *mut kernel::ffi::c_void;
        #[cfg(CONFIG_PREEMPTION)]
        fn preempt_schedule_notrace_thunk();
    }

    /// What the counter was: not needed, as decrementing it also tells whether to reschedule.
    pub(crate) struct Before;

    /// `preempt_disable_notrace()`.
    ///
    /// # Safety
    ///
    /// [`preempt_enable`] must follow.
    #[inline(always)]
    pub(crate) unsafe fn preempt_disable() -> Before {
        // SAFETY: This CPU's counter.
        unsafe { asm!("inc qword ptr gs:[rip + {}]", sym __preempt_count, options(nostack)) };
        Before
    }

    /// `preempt_enable_notrace()`.
    ///
    /// # Safety
    ///
    /// Undoes the [`preempt_disable`] that has returned `before`.
    #[inline(always)]
    pub(crate) unsafe fn preempt_enable(_before: Before) {
        // The counter becomes 0 when a request to reschedule is in it, too. The thunk saves all
        // registers.
        //
        // SAFETY: This CPU's counter.
        #[cfg(CONFIG_PREEMPTION)]
        unsafe {
            asm!(
                "dec qword ptr gs:[rip + {count}]",
                "jnz 2f",
                "call {schedule}",
                "2:",
                count = sym __preempt_count,
                schedule = sym preempt_schedule_notrace_thunk,
                // There is no red zone, and the thunk does not care about alignment.
                options(nostack),
            )
        };
        // SAFETY: As above.
        #[cfg(not(CONFIG_PREEMPTION))]
        unsafe {
            asm!("dec qword ptr gs:[rip + {}]", sym __preempt_count, options(nostack))
        };
    }

    /// `current`.
    #[inline(always)]
    pub(crate) fn current() -> *mut bindings::task_struct {
        let task: *mut bindings::task_struct;
        // SAFETY: This CPU's current task, which is the same wherever we are moved to.
        unsafe {
            asm!(
                "mov {}, qword ptr gs:[rip + {}]",
                out(reg) task,
                sym current_task,
                options(pure, readonly, nostack, preserves_flags)
            )
        };
        task
    }

    /// `smp_rmb()`.
    #[inline(always)]
    pub(crate) fn read_barrier() {
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(CONFIG_ARM64)]
mod arch {
    //! What C has as inline functions, and Rust as calls.

    use super::*;

    /// `current`.
    #[inline(always)]
    pub(crate) fn current() -> *mut bindings::task_struct {
        let task: *mut bindings::task_struct;
        // SAFETY: The register holds the current task in the kernel.
        unsafe {
            asm!("mrs {}, sp_el0", out(reg) task, options(pure, nomem, nostack, preserves_flags))
        };
        task
    }

    fn count() -> *mut u32 {
        // SAFETY: The current task is valid; its thread_info is part of it.
        unsafe { addr_of_mut!((*current()).thread_info.__bindgen_anon_1.preempt.count) }
    }

    /// What the counter was.
    pub(crate) struct Before(u32);

    /// `preempt_disable_notrace()`.
    ///
    /// # Safety
    ///
    /// [`preempt_enable`] must follow.
    #[inline(always)]
    pub(crate) unsafe fn preempt_disable() -> Before {
        let count = count();
        // SAFETY: Written by the task itself only; interrupts leave it as it was.
        let before = unsafe { count.read_volatile() };
        // SAFETY: As above.
        unsafe { count.write_volatile(before.wrapping_add(1)) };
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
        Before(before)
    }

    /// `preempt_enable_notrace()`.
    ///
    /// # Safety
    ///
    /// Undoes the [`preempt_disable`] that has returned `before`.
    #[inline(always)]
    pub(crate) unsafe fn preempt_enable(before: Before) {
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
        // SAFETY: As above.
        unsafe { count().write_volatile(before.0) };
        #[cfg(CONFIG_PREEMPTION)]
        {
            // Together with the count: 0 when rescheduling was asked for, too. Read anew, as an
            // interrupt may just have done so.
            //
            // SAFETY: The current task is valid.
            let all = unsafe {
                addr_of!((*current()).thread_info.__bindgen_anon_1.preempt_count).read_volatile()
            };
            if all == 0 {
                reschedule();
            }
        }
    }

    /// `__preempt_schedule_notrace()`.
    #[cfg(CONFIG_PREEMPTION)]
    #[inline(always)]
    fn reschedule() {
        extern "C" {
            #[cfg(CONFIG_PREEMPT_DYNAMIC)]
            fn dynamic_preempt_schedule_notrace();
            #[cfg(not(CONFIG_PREEMPT_DYNAMIC))]
            fn preempt_schedule_notrace();
        }
        // SAFETY: No requirements.
        #[cfg(CONFIG_PREEMPT_DYNAMIC)]
        unsafe {
            dynamic_preempt_schedule_notrace()
        };
        // SAFETY: No requirements.
        #[cfg(not(CONFIG_PREEMPT_DYNAMIC))]
        unsafe {
            preempt_schedule_notrace()
        };
    }

    /// `smp_rmb()`.
    #[inline(always)]
    pub(crate) fn read_barrier() {
        // SAFETY: A barrier.
        unsafe { asm!("dmb ishld", options(nostack, preserves_flags)) };
    }
}

use arch::{
    current,
    preempt_disable,
    preempt_enable,
    read_barrier,
    Before, //
};
