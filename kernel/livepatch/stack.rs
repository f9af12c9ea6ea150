// SPDX-License-Identifier: GPL-2.0-or-later

//! Func stacks, and how calls reach them.
//!
//! All versions of one function are on its func stack, the newest on top. The functions that are
//! patched first by one object of one livepatch share a [`HookSet`]: one `ftrace_ops`, registered
//! in one pass, and one lookup table. Whoever patches one of them later only pushes.
//!
//! Not all functions of the system share one ops, though ftrace can extend the filter of a
//! registered one: only `register_ftrace_function()` tells BPF trampolines on the same functions
//! to make room (`prepare_direct_functions_for_ipmodify()`).
//!
//! Answers to `patch.c`.

use crate::{
    dispatch::{
        first_slot,
        next_slot,
        Node,
        Slot,
        Table, //
    },
    lock::{
        Cell,
        Locked,
        Owned, //
    },
    lookup::Extent,
    patch::{
        Func,
        Object, //
    },
    sort::sort_by_key, //
};
use core::{
    cell::UnsafeCell,
    ptr::null, //
};
use kernel::{
    bindings,
    container_of,
    ftrace::{
        self,
        Ops, //
    },
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Relaxed,
                Release, //
            },
            Atomic, //
        },
        Arc, //
    },
    time::delay::fsleep,
    time::Delta, //
};

/// Waits until no CPU is inside the ftrace handler or in a section with preemption disabled that
/// began before the call.
///
/// RCU would not do: functions can be patched that run where it is not watching. Mirrors
/// `klp_synchronize_transition()`, with which `schedule_on_each_cpu()` may fail for want of
/// memory; here that only delays.
pub(crate) fn synchronize() {
    extern "C" fn nothing(_work: *mut bindings::work_struct) {}

    // SAFETY: The function does nothing.
    while unsafe { bindings::schedule_on_each_cpu(Some(nothing)) } != 0 {
        fsleep(Delta::from_millis(1));
    }
}

/// A version of a function, which can be on a func stack.
pub(crate) struct Version {
    node: Node,
    /// The code of this version, while its object is loaded.
    code: Cell<Option<Extent>>,
    on_stack: Cell<bool>,
}

// SAFETY: The handler reads the node at any time, with volatile reads of what changes; everything
// else happens under the mutex.
unsafe impl Send for Version {}
// SAFETY: As above.
unsafe impl Sync for Version {}

impl Version {
    /// Makes a version that runs `new_func`, or the original function for 0.
    pub(crate) fn new(new_func: usize) -> Result<Arc<Self>> {
        let version = Self {
            node: Node {
                next: UnsafeCell::new(null()),
                new_func: UnsafeCell::new(new_func),
                transition: UnsafeCell::new(false),
            },
            code: Cell::new(None),
            on_stack: Cell::new(false),
        };
        Ok(Arc::new(version, GFP_KERNEL)?)
    }

    /// Sets where the code of the version is.
    pub(crate) fn set_code(&self, locked: &Locked, code: Option<Extent>) {
        self.code.set(locked, code);
    }

    /// Returns where the code of the version is.
    pub(crate) fn code(&self, locked: &Locked) -> Option<Extent> {
        self.code.get(locked)
    }

    /// Whether the version is on its func stack.
    pub(crate) fn on_stack(&self, locked: &Locked) -> bool {
        self.on_stack.get(locked)
    }

    /// Marks the version as being in transition, or not.
    ///
    /// The caller orders this with the states of tasks.
    pub(crate) fn set_transition(&self, _locked: &Locked, transition: bool) {
        // SAFETY: Readers use volatile reads of a byte.
        unsafe { self.node.transition.get().write_volatile(transition) };
    }

    /// Returns the version below this one on the func stack, [`None`] if that is the original.
    pub(crate) fn previous(&self, _locked: &Locked) -> Option<&Version> {
        // SAFETY: Links change only under the mutex.
        let next = unsafe { *self.node.next.get() };
        // SAFETY: A version on a func stack is kept alive by the stack, see `FuncStack::push()`,
        // and its node is in a `Version`.
        (!next.is_null()).then(|| unsafe { &*container_of!(next, Version, node) })
    }
}

/// The func stack in a slot of a [`HookSet`].
struct FuncStack<'a>(&'a Slot);

impl FuncStack<'_> {
    fn link(link: &UnsafeCell<*const Node>) -> &Atomic<*const Node> {
        // SAFETY: Links are read by the handler with volatile reads, and written here only.
        unsafe { Atomic::from_ptr(link.get()) }
    }

    fn is_empty(&self) -> bool {
        Self::link(&self.0.top).load(Relaxed).is_null()
    }

    /// Makes `version` the one in effect. The stack keeps it alive.
    fn push(&self, locked: &Locked, version: &Arc<Version>) {
        let top = Self::link(&self.0.top);
        Self::link(&version.node.next).store(top.load(Relaxed), Relaxed);
        let node = &raw const Arc::as_ref(version).node;
        core::mem::forget(version.clone());
        version.on_stack.set(locked, true);
        // Order the node, its transition mark above all, before its address. Pairs with the
        // dependent reads in klp_ftrace_handler().
        top.store(node, Release);
    }

    /// Takes `version` off the stack. The handler may still see it until [`synchronize`].
    fn remove(&self, locked: &Locked, version: &Arc<Version>) {
        let node = &raw const Arc::as_ref(version).node;
        let mut link = Self::link(&self.0.top);
        loop {
            let next = link.load(Relaxed);
            if next.is_null() {
                return;
            }
            // SAFETY: Nodes on the stack are kept alive by it.
            let below = Self::link(unsafe { &(*next).next });
            if next == node {
                // The removed node keeps its own link, for handlers that are looking at it.
                link.store(below.load(Relaxed), Relaxed);
                break;
            }
            link = below;
        }
        version.on_stack.set(locked, false);
        // SAFETY: `push()` left a reference with the stack. The caller's keeps the node alive.
        drop(unsafe { Arc::from_raw(Arc::as_ptr(version)) });
    }
}

/// Functions that are hooked by the same `ftrace_ops`.
#[pin_data]
struct HookSet {
    #[pin]
    ops: Ops,
    table: KBox<Table>,
    slots: KVec<Slot>,
    /// Whether the function in a slot is in the filter of the ops.
    hooked: KVec<Cell<bool>>,
    /// As large as the filter was at first, so that shrinking it needs no memory.
    scratch: KVec<usize>,
}

// SAFETY: What the handler does not read, happens under the mutex.
unsafe impl Send for HookSet {}

impl HookSet {
    /// Makes a set with empty func stacks for `ips`, which must not be empty, and no filter.
    fn new(mut ips: KVec<usize>) -> Result<Pin<KBox<Self>>> {
        sort_by_key(&mut ips, |&ip| ip);
        let mut last = 0;
        ips.retain(|&mut ip| core::mem::replace(&mut last, ip) != ip);

        let bits = ips
            .len()
            .checked_mul(2)
            .and_then(usize::checked_next_power_of_two)
            .ok_or(ENOMEM)?
            .trailing_zeros();
        let size = 1usize.checked_shl(bits).ok_or(ENOMEM)?;
        let mut slots = KVec::with_capacity(size, GFP_KERNEL)?;
        let mut hooked = KVec::with_capacity(size, GFP_KERNEL)?;
        for _ in 0..size {
            let slot = Slot {
                ip: 0,
                top: UnsafeCell::new(null()),
            };
            slots.push(slot, GFP_KERNEL)?;
            hooked.push(Cell::new(false), GFP_KERNEL)?;
        }
        let table = Table {
            slots: slots.as_ptr(),
            mask: size.wrapping_sub(1),
            shift: usize::BITS.wrapping_sub(bits),
        };
        for &ip in &ips {
            let mut index = first_slot(ip, table.shift);
            while slots.get(index).is_some_and(|slot: &Slot| slot.ip != 0) {
                index = next_slot(index, table.mask);
            }
            slots.get_mut(index).ok_or(EINVAL)?.ip = ip;
        }

        let table = KBox::new(table, GFP_KERNEL)?;
        let flags = ftrace::IPMODIFY
            | ftrace::PERMANENT
            | if cfg!(CONFIG_HAVE_DYNAMIC_FTRACE_WITH_ARGS) {
                0
            } else {
                ftrace::SAVE_REGS
            };
        let private = core::ptr::from_ref::<Table>(&table).cast_mut().cast();
        // SAFETY: The handler is untraceable and may be called anywhere; table and slots live in
        // boxes that the set keeps until the ops is unregistered.
        let ops = unsafe { Ops::new(bindings::klp_ftrace_handler, flags, private) };
        KBox::pin_init(
            pin_init!(Self {
                ops <- ops,
                table,
                slots,
                hooked,
                scratch: ips,
            }),
            GFP_KERNEL,
        )
    }

    /// Returns the func stack of a hooked function.
    fn find(&self, locked: &Locked, ip: usize) -> Option<FuncStack<'_>> {
        let mut index = first_slot(ip, self.table.shift);
        loop {
            let slot = self.slots.get(index)?;
            if slot.ip == ip {
                let hooked = self.hooked.get(index)?.get(locked);
                return hooked.then_some(FuncStack(slot));
            }
            if slot.ip == 0 {
                return None;
            }
            index = next_slot(index, self.table.mask);
        }
    }

    fn set_hooked(&self, locked: &Locked, hooked: bool) {
        for (slot, flag) in self.slots.iter().zip(&self.hooked) {
            flag.set(locked, hooked && slot.ip != 0);
        }
    }

    /// Unhooks the functions whose func stack has become empty. Returns whether any is left.
    ///
    /// Functions stay hooked without effect when ftrace has no memory to let go of them.
    fn shrink(self: Pin<&mut Self>, locked: &Locked) -> bool {
        let this = self.project();
        this.scratch.clear();
        let mut left = false;
        for (slot, hooked) in this.slots.iter().zip(this.hooked.iter()) {
            if !hooked.get(locked) {
                continue;
            }
            if !FuncStack(slot).is_empty() {
                left = true;
            } else if this.scratch.push_within_capacity(slot.ip).is_err() {
                // Cannot happen: the vector was made for all of them.
                return true;
            }
        }
        if left && this.ops.remove_filter(this.scratch).is_ok() {
            for (slot, hooked) in this.slots.iter().zip(this.hooked.iter()) {
                if FuncStack(slot).is_empty() {
                    hooked.set(locked, false);
                }
            }
        }
        left
    }
}

type HookSets = KVec<Pin<KBox<HookSet>>>;

/// All hooked functions.
static HOOKS: Owned<HookSets> = Owned::new(KVec::new());

/// Frees the list of sets. Statics are not dropped with the module.
pub(crate) fn exit(locked: &Locked) {
    HOOKS.with(locked, |sets| *sets = KVec::new());
}

/// Gives up a set that has no functions left.
fn retire(set: Pin<KBox<HookSet>>) {
    // Waits until nobody is in the handler on behalf of the set.
    if kernel::warn_on!(set.ops.unregister().is_err()) {
        // ftrace has shut itself down, without waiting: the handler may run at any time.
        core::mem::forget(set);
    }
}

/// The ftrace location of a func of a loaded object.
fn location(locked: &Locked, func: &Func) -> Result<usize> {
    let old = func.old.get(locked).ok_or(EINVAL)?;
    ftrace::location(old.start).ok_or_else(|| {
        pr_err!("failed to find location for function '{}'\n", &**func.name);
        EINVAL
    })
}

/// Puts all functions of a loaded object on their func stacks.
///
/// # Errors
///
/// [`EINVAL`] when a function cannot be traced, [`EBUSY`] when somebody else changes where its
/// calls go, [`ENOMEM`]; after a message, and with nothing changed.
///
/// May sleep.
pub(crate) fn patch_object(locked: &Locked, object: &Object) -> Result {
    HOOKS.with(locked, |sets| -> Result {
        let mut new = KVec::with_capacity(object.funcs.len(), GFP_KERNEL)?;
        for func in &object.funcs {
            let ip = location(locked, func)?;
            func.ip.set(locked, ip);
            if !sets.iter().any(|set| set.find(locked, ip).is_some()) {
                new.push(ip, GFP_KERNEL)?;
            }
        }
        if !new.is_empty() {
            sets.reserve(1, GFP_KERNEL)?;
            let mut set = HookSet::new(new)?;
            set.set_hooked(locked, true);
            hook(locked, set.as_mut(), object)?;
            // The space was reserved.
            sets.push_within_capacity(set).map_err(|_| ENOMEM)?;
        }
        for func in &object.funcs {
            let stack = sets
                .iter()
                .find_map(|set| set.find(locked, func.ip.get(locked)));
            if let Some(stack) = stack {
                stack.push(locked, &func.version);
            }
        }
        Ok(())
    })?;
    object.set_patched(locked, true);
    Ok(())
}

/// Makes ftrace call the handler for all functions of a new set.
///
/// Their func stacks are still empty, so that the handler leaves the calls alone.
fn hook(locked: &Locked, set: Pin<&mut HookSet>, object: &Object) -> Result {
    let this = set.project();
    let name_of = |ip: usize| {
        object
            .funcs
            .iter()
            .find(|func| func.ip.get(locked) == ip)
            .map_or(c"?", |func| &**func.name)
    };
    let first = this.scratch.first().copied().unwrap_or(0);
    this.ops.add_filter(this.scratch).inspect_err(|err| {
        pr_err!(
            "failed to set ftrace filter for function '{}' ({})\n",
            name_of(first),
            err.to_errno()
        );
    })?;
    let Err(err) = this.ops.register() else {
        return Ok(());
    };
    let culprit = if err == EBUSY {
        find_refused(locked, object, this.scratch)
    } else {
        None
    };
    pr_err!(
        "failed to register ftrace handler for function '{}' ({})\n",
        culprit.map_or_else(|| name_of(first), |func| &**func.name),
        err.to_errno()
    );
    Err(err)
}

/// Finds the first func of `object` whose function ftrace does not let us hook.
///
/// The filter of a registered ops can be extended, and stays as it is if that is refused: a binary
/// search takes a pass per step, and a single grace period in the end.
///
/// `new` is sorted, and holds the locations that were to be hooked. The others are hooked by an
/// older set, which would make ftrace refuse them to the search as well.
fn find_refused<'a>(locked: &Locked, object: &'a Object, new: &[usize]) -> Option<&'a Func> {
    let mut funcs = KVec::with_capacity(object.funcs.len(), GFP_KERNEL).ok()?;
    let mut ips = KVec::with_capacity(object.funcs.len(), GFP_KERNEL).ok()?;
    for func in &object.funcs {
        let ip = func.ip.get(locked);
        if new.binary_search(&ip).is_ok() {
            funcs.push(func, GFP_KERNEL).ok()?;
            ips.push(ip, GFP_KERNEL).ok()?;
        }
    }
    // INVARIANT of the search: all before `good` are accepted together, some before `bad` is not.
    let (mut good, mut bad) = (0usize, ips.len());
    let probe = HookSet::new(KVec::from_elem(*ips.first()?, 1, GFP_KERNEL).ok()?).ok()?;
    while bad.saturating_sub(good) > 1 {
        let middle = good.midpoint(bad);
        let part = ips.get_mut(good..middle)?;
        let accepted = if probe.ops.is_registered() {
            probe.ops.add_filter(part).is_ok()
        } else {
            probe.ops.replace_filter(part).is_ok() && probe.ops.register().is_ok()
        };
        if accepted {
            good = middle;
        } else {
            bad = middle;
        }
    }
    if probe.ops.is_registered() {
        retire(probe);
    }
    funcs.get(good).copied()
}

/// Takes the functions of `object` off their func stacks, or only its nops.
///
/// Callers may still be on their way into the new functions: see [`synchronize`].
///
/// May sleep, for a grace period of tasks RCU if functions are left without any version.
pub(crate) fn unpatch_object(locked: &Locked, object: &Object, nops_only: bool) {
    HOOKS.with(locked, |sets| {
        for func in &object.funcs {
            if (nops_only && !func.nop) || !func.version.on_stack(locked) {
                continue;
            }
            let stack = sets
                .iter()
                .find_map(|set| set.find(locked, func.ip.get(locked)));
            if let Some(stack) = stack {
                stack.remove(locked, &func.version);
            }
        }
        let mut index = 0;
        while let Some(set) = sets.get_mut(index) {
            if set.as_mut().shrink(locked) {
                index = index.saturating_add(1);
            } else if let Ok(set) = sets.remove(index) {
                retire(set);
            }
        }
    });
    if !nops_only || object.is_dynamic() {
        object.set_patched(locked, false);
    }
}
