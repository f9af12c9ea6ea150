// SPDX-License-Identifier: GPL-2.0-or-later

//! Functions that share one `ftrace_ops` and one lookup table.
//!
//! Not all functions of the system share one ops, though ftrace can extend the filter of a
//! registered one: only `register_ftrace_function()` tells BPF trampolines on the same functions
//! to make room (`prepare_direct_functions_for_ipmodify()`).
//!
//! Replaces `struct klp_ops` of `patch.c`.

use crate::{
    func_stack::{
        FuncStack,
        Hook,
        Link, //
    },
    lock::{
        KlpLocked,
        LockedCell, //
    },
    rules::dispatch::{
        Slot,
        Stray,
        Table, //
    },
    rules::placement::{
        base_of,
        count_rows,
        fill_rows,
        lay_out,
        most_slots, //
    },
    synchronize::synchronize, //
};
use core::cell::UnsafeCell;
use kernel::{
    bindings,
    ftrace::{
        self,
        Ops, //
    },
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// Functions that are hooked by the same `ftrace_ops`.
#[pin_data]
pub(crate) struct OpsGroup {
    #[pin]
    pub(crate) ops: Ops,
    /// A [`Table`], rows included.
    table: KVVec<usize>,
    slots: KVVec<Slot>,
    strays: KVVec<Stray>,
    /// By their locations.
    hooks: KVVec<Hook>,
    /// As large as the filter was at first, so that shrinking it needs no memory.
    pub(crate) scratch: KVVec<usize>,
}

// SAFETY: What the handler does not read, happens under the mutex.
unsafe impl Send for OpsGroup {}

impl OpsGroup {
    /// Makes a group with empty func stacks for `ips`, which must be sorted, not empty and without
    /// duplicates, and no filter.
    pub(crate) fn new(ips: &[usize]) -> Result<Pin<KBox<Self>>> {
        let base = base_of(ips.first().copied().ok_or(EINVAL)?);
        let most = most_slots(ips.len()).ok_or(ENOMEM)?;
        let mut slot_indexes = KVVec::from_elem(0, ips.len(), GFP_KERNEL)?;
        let mut order = KVVec::from_elem((0, 0), ips.len(), GFP_KERNEL)?;
        let mut taken = KVVec::from_elem(false, most, GFP_KERNEL)?;
        let layout = lay_out(ips, &mut slot_indexes, &mut order, &mut taken);

        let mut slots = KVVec::with_capacity(layout.slots, GFP_KERNEL)?;
        for _ in 0..layout.slots {
            let slot = Slot {
                ip: 0,
                entry: UnsafeCell::new(0),
                choice: [const { UnsafeCell::new(0) }; 2],
            };
            slots.push(slot, GFP_KERNEL)?;
        }
        let mut rows = KVVec::from_elem(0, count_rows(ips), GFP_KERNEL)?;
        fill_rows(
            ips,
            &slot_indexes,
            &layout,
            slots.as_ptr().addr(),
            &mut rows,
        );

        let mut strays = KVVec::new();
        let mut hooks = KVVec::with_capacity(ips.len(), GFP_KERNEL)?;
        for (&ip, &slot_index) in ips.iter().zip(&slot_indexes) {
            if layout.is_stray(slot_index) {
                let slot = slots.as_ptr().wrapping_add(slot_index);
                strays.push(Stray { ip, slot }, GFP_KERNEL)?;
            }
            let slot = slots.get_mut(slot_index).ok_or(EINVAL)?;
            slot.ip = ip;
            *slot.entry.get_mut() = ip.wrapping_add(ftrace::MCOUNT_INSN_SIZE);
            let hook = Hook {
                ip,
                slot_index,
                top: LockedCell::new(Link::NULL),
                hooked: LockedCell::new(false),
            };
            hooks.push(hook, GFP_KERNEL)?;
        }

        let mut table =
            KVVec::with_capacity(rows.len().checked_add(HEADER).ok_or(ENOMEM)?, GFP_KERNEL)?;
        for word in [base, strays.as_ptr().addr(), strays.len()] {
            table.push(word, GFP_KERNEL)?;
        }
        table.extend_from_slice(&rows, GFP_KERNEL)?;
        let mut scratch = KVVec::with_capacity(ips.len(), GFP_KERNEL)?;
        scratch.extend_from_slice(ips, GFP_KERNEL)?;

        let flags = ftrace::PERMANENT
            | if cfg!(CONFIG_HAVE_DYNAMIC_FTRACE_WITH_ARGS) {
                0
            } else {
                ftrace::SAVE_REGS
            };
        let private = table.as_mut_ptr().wrapping_add(HEADER).cast();
        // SAFETY: The handler is untraceable and may be called anywhere; table, slots and strays
        // live in vectors that the group keeps, unchanged, until the ops is unregistered.
        let ops = unsafe { Ops::new(bindings::klp_ftrace_handler, flags, private) };
        KBox::pin_init(
            pin_init!(Self {
                ops <- ops,
                table,
                slots,
                strays,
                hooks,
                scratch,
            }),
            GFP_KERNEL,
        )
    }

    fn stack<'a>(slots: &'a [Slot], hook: &'a Hook) -> Option<FuncStack<'a>> {
        let slot = slots.get(hook.slot_index)?;
        Some(FuncStack { hook, slot })
    }

    /// Returns the func stack of a hooked function.
    pub(crate) fn find(&self, locked: &KlpLocked, ip: usize) -> Option<FuncStack<'_>> {
        let index = self.hooks.binary_search_by_key(&ip, |hook| hook.ip).ok()?;
        let hook = self.hooks.get(index)?;
        let stack = Self::stack(&self.slots, hook)?;
        hook.hooked.get(locked).then_some(stack)
    }

    pub(crate) fn set_hooked(&self, locked: &KlpLocked, hooked: bool) {
        for hook in &self.hooks {
            hook.hooked.set(locked, hooked);
        }
    }

    /// Unhooks the functions whose func stack has become empty. Returns whether any is left.
    ///
    /// Functions stay hooked without effect when ftrace has shut itself down.
    pub(crate) fn shrink(self: Pin<&mut Self>, locked: &KlpLocked) -> bool {
        let mut this = self.project();
        let is_empty = |hook: &Hook| hook.top.get(locked).get(locked).is_none();
        this.scratch.clear();
        let mut left = false;
        for hook in this.hooks.iter().filter(|hook| hook.hooked.get(locked)) {
            if !is_empty(hook) {
                left = true;
            } else if this.scratch.push_within_capacity(hook.ip).is_err() {
                // Cannot happen: the vector was made for all of them.
                return true;
            }
        }
        if !left || this.scratch.is_empty() {
            return left;
        }
        let mut result = this.ops.as_mut().remove_filter(this.scratch);
        // ftrace makes a new filter. The old one must not stay: the functions of a module that
        // goes would be in it for ever, and be refused with all that are in the next ones.
        while result == Err(ENOMEM) {
            fsleep(Delta::from_millis(1));
            result = this.ops.as_mut().remove_filter(this.scratch);
        }
        if result.is_ok() {
            for hook in this.hooks.iter().filter(|hook| is_empty(hook)) {
                hook.hooked.set(locked, false);
            }
            release_direct(this.scratch);
        }
        true
    }
}

/// Tells BPF trampolines on functions that have left a filter that they are alone again.
///
/// They made room when the ops was registered, and are slower for it. ftrace tells them when an ops
/// goes, by its filter of then, so that one is made to go. If there is no memory for it, they stay
/// as they are.
fn release_direct(ips: &mut KVVec<usize>) {
    ips.retain(|&mut ip| ftrace::has_direct_caller(ip));
    if ips.is_empty() {
        return;
    }
    if let Ok(group) = OpsGroup::new(ips) {
        // Somebody else may have taken a function already: then it is he who tells.
        let _ = group
            .ops
            .add_filter(ips)
            .and_then(|()| group.ops.register());
        retire(group);
    }
}

/// Words in front of the rows of a [`Table`].
const HEADER: usize = core::mem::offset_of!(Table, rows) / size_of::<usize>();
const _: () = assert!(HEADER == 3);

/// Gives up a group that has no functions left, or was refused.
pub(crate) fn retire(group: Pin<KBox<OpsGroup>>) {
    if !group.ops.is_registered() {
        // A refused ops was on ftrace's list for a moment, and not every architecture's ftrace
        // waits for those who read that list. So wait here.
        synchronize();
    } else if kernel::warn_on!(group.ops.unregister().is_err()) {
        // ftrace has shut itself down, without waiting: the handler may run at any time.
        //
        // SAFETY: The livepatch that hooked functions or lets go of them now depends on the core,
        // so there is a reference already.
        unsafe { bindings::__module_get(crate::this_module()) };
        core::mem::forget(group);
    } // Else nobody is in the handler on behalf of the group any more.
}
