// SPDX-License-Identifier: GPL-2.0-or-later

//! Func stacks, and how calls reach them.
//!
//! All versions of one function are on its func stack, the newest on top. The functions that one
//! livepatch is the first to patch share a [`HookSet`], if they are near enough: one `ftrace_ops`,
//! registered in one pass, and one lookup table. Whoever patches one of them later only pushes.
//!
//! Not all functions of the system share one ops, though ftrace can extend the filter of a
//! registered one: only `register_ftrace_function()` tells BPF trampolines on the same functions
//! to make room (`prepare_direct_functions_for_ipmodify()`).
//!
//! Answers to `patch.c`.

use crate::{
    lock::{
        Cell,
        Locked,
        Owned, //
    },
    lookup::Extent,
    patch::{
        Func,
        Object,
        Patch, //
    },
    rules::dispatch::{
        row_of,
        Slot,
        Stray,
        Table, //
    },
    rules::placement::{
        base_of,
        count_rows,
        displacement,
        most_slots,
        place,
        ROW_SIZE,
        ROW_SLOTS,
        STRAY, //
    },
    sort::sort_by_key, //
};
use core::{
    cell::UnsafeCell,
    ptr::null, //
};
use kernel::{
    bindings,
    ftrace::{
        self,
        Ops, //
    },
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        barrier::{
            self,
            smp_mb, //
        },
        Arc, //
    },
    time::delay::fsleep,
    time::Delta,
    warn_on_once, //
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
    /// The address of the function; 0 for the original one.
    func: usize,
    /// Whether the patch of this version is in transition, so that the task's state decides.
    transition: Cell<bool>,
    /// The version below, or NULL for the original function.
    below: Cell<Link>,
    /// The code of this version, while its object is loaded.
    code: Cell<Option<Extent>>,
    on_stack: Cell<bool>,
}

/// A version on a func stack, which holds a reference to it; or NULL.
#[derive(Clone, Copy)]
struct Link(*const Version);

// SAFETY: Followed under the mutex only.
unsafe impl Send for Link {}

impl Link {
    const NULL: Self = Self(null());

    fn get<'a>(self, _locked: &'a Locked) -> Option<&'a Version> {
        // SAFETY: A version that is linked is kept alive by its func stack, which changes only
        // under the mutex; who unlinks it has it from elsewhere.
        unsafe { self.0.as_ref() }
    }
}

impl Version {
    /// Makes a version that runs `func`, or the original function for 0.
    pub(crate) fn new(func: usize) -> Result<Arc<Self>> {
        let version = Self {
            func,
            transition: Cell::new(false),
            below: Cell::new(Link::NULL),
            code: Cell::new(None),
            on_stack: Cell::new(false),
        };
        Ok(Arc::new(version, GFP_KERNEL)?)
    }

    /// Returns the address of the function; 0 for the original one.
    pub(crate) fn func(&self) -> usize {
        self.func
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

    /// Returns the version below this one on the func stack, [`None`] if that is the original.
    pub(crate) fn previous<'a>(&'a self, locked: &'a Locked) -> Option<&'a Version> {
        self.below.get(locked).get(locked)
    }
}

/// A hooked function: its func stack, and where the handler finds what that comes to.
struct Hook {
    ip: usize,
    /// Which slot of the set it has.
    place: usize,
    /// The version on top of the func stack.
    top: Cell<Link>,
    /// Whether the function is in the filter of the ops.
    hooked: Cell<bool>,
}

/// A [`Hook`] with its slot.
struct FuncStack<'a> {
    hook: &'a Hook,
    slot: &'a Slot,
}

impl FuncStack<'_> {
    /// Makes `version` the one in effect. The stack keeps it alive.
    fn push(&self, locked: &Locked, version: &Arc<Version>) {
        version.below.set(locked, self.hook.top.get(locked));
        let link = Link(Arc::as_ptr(version));
        core::mem::forget(version.clone());
        version.on_stack.set(locked, true);
        self.hook.top.set(locked, link);
        self.update(locked);
    }

    /// Takes `version` off the stack. Tasks may be on their way into it until [`synchronize`].
    fn remove(&self, locked: &Locked, version: &Arc<Version>) {
        let gone = Arc::as_ptr(version);
        let mut link = &self.hook.top;
        loop {
            let Some(next) = link.get(locked).get(locked) else {
                return;
            };
            if core::ptr::eq(next, gone) {
                link.set(locked, next.below.get(locked));
                break;
            }
            link = &next.below;
        }
        version.on_stack.set(locked, false);
        self.update(locked);
        // SAFETY: `push()` left a reference with the stack. The caller's keeps the version alive.
        drop(unsafe { Arc::from_raw(gone) });
    }

    /// Tells the handler what the stack comes to.
    fn update(&self, locked: &Locked) {
        let original = self.hook.ip.wrapping_add(ftrace::MCOUNT_INSN_SIZE);
        let func = |version: Option<&Version>| match version.map(|version| version.func) {
            None | Some(0) => original,
            Some(func) => func,
        };
        match self.hook.top.get(locked).get(locked) {
            Some(top) if top.transition.get(locked) => {
                self.decide_by_task([func(top.previous(locked)), func(Some(top))]);
            }
            top => Self::target(self.slot).store(func(top), Relaxed),
        }
    }

    /// Lets the handler choose by the state of the task.
    fn decide_by_task(&self, choices: [usize; 2]) {
        for (choice, func) in self.slot.choice.iter().zip(choices) {
            // SAFETY: The handler reads it with volatile reads, and only we write.
            unsafe { Atomic::<usize>::from_ptr(choice.get()) }.store(func, Relaxed);
        }
        // Order the choices, and the states of tasks that `transition::init()` has set, before the
        // target. Pairs with the smp_rmb() of klp_ftrace_handler().
        smp_mb(barrier::Write);
        Self::target(self.slot).store(0, Relaxed);
    }

    fn target(slot: &Slot) -> &Atomic<usize> {
        // SAFETY: The handler reads it with volatile reads, and only we write.
        unsafe { Atomic::from_ptr(slot.target.get()) }
    }
}

/// Code that lies further apart than this is hooked by different sets: their tables have an entry
/// for every 8 KiB in between.
const MAX_GAP: usize = 64 << 20;

/// Functions that are hooked by the same `ftrace_ops`.
#[pin_data]
struct HookSet {
    #[pin]
    ops: Ops,
    /// A [`Table`], rows included.
    table: KVVec<usize>,
    slots: KVVec<Slot>,
    strays: KVVec<Stray>,
    /// By their locations.
    hooks: KVVec<Hook>,
    /// As large as the filter was at first, so that shrinking it needs no memory.
    scratch: KVVec<usize>,
}

// SAFETY: What the handler does not read, happens under the mutex.
unsafe impl Send for HookSet {}

impl HookSet {
    /// Makes a set with empty func stacks for `ips`, which must be sorted, not empty and without
    /// duplicates, and no filter.
    fn new(ips: &[usize]) -> Result<Pin<KBox<Self>>> {
        let base = base_of(ips.first().copied().ok_or(EINVAL)?);
        let most = most_slots(ips.len()).ok_or(ENOMEM)?;
        let mut places = KVVec::from_elem(0, ips.len(), GFP_KERNEL)?;
        let mut order = KVVec::from_elem((0, 0), ips.len(), GFP_KERNEL)?;
        let mut taken = KVVec::from_elem(false, most, GFP_KERNEL)?;
        let mut size = place(ips, &mut places, &mut order, &mut taken);
        let nr_strays = places.iter().filter(|&&place| place == STRAY).count();
        if nr_strays != 0 {
            // For the strays themselves, and for where the handler looks for them first.
            size = size
                .checked_add(nr_strays)
                .and_then(|size| size.checked_add(ROW_SLOTS))
                .ok_or(ENOMEM)?;
        }

        let mut slots = KVVec::with_capacity(size, GFP_KERNEL)?;
        for _ in 0..size {
            let slot = Slot {
                ip: 0,
                target: UnsafeCell::new(0),
                choice: [const { UnsafeCell::new(0) }; 2],
            };
            slots.push(slot, GFP_KERNEL)?;
        }
        let address = |place: usize| slots.as_ptr().wrapping_add(place).addr();
        let mut rows = KVVec::from_elem(0, count_rows(ips), GFP_KERNEL)?;
        // A row of strays only: they are looked for from the first slot on.
        for (&ip, &place) in ips.iter().zip(&places).rev() {
            let offset = ip.wrapping_sub(base);
            let row = rows.get_mut(row_of(offset)).ok_or(EINVAL)?;
            if place != STRAY {
                *row = displacement(address(place), offset);
            } else if *row == 0 {
                *row = displacement(address(0), offset & !(ROW_SIZE - 1));
            }
        }

        let mut strays = KVVec::with_capacity(nr_strays, GFP_KERNEL)?;
        let mut hooks = KVVec::with_capacity(ips.len(), GFP_KERNEL)?;
        for (&ip, &place) in ips.iter().zip(&places) {
            let place = if place == STRAY {
                size = size.checked_sub(1).ok_or(EINVAL)?;
                let slot = slots.as_ptr().wrapping_add(size);
                strays.push(Stray { ip, slot }, GFP_KERNEL)?;
                size
            } else {
                place
            };
            let slot = slots.get_mut(place).ok_or(EINVAL)?;
            slot.ip = ip;
            let hook = Hook {
                ip,
                place,
                top: Cell::new(Link::NULL),
                hooked: Cell::new(false),
            };
            *slot.target.get_mut() = ip.wrapping_add(ftrace::MCOUNT_INSN_SIZE);
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
        // live in vectors that the set keeps, unchanged, until the ops is unregistered.
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
        let slot = slots.get(hook.place)?;
        Some(FuncStack { hook, slot })
    }

    /// Returns the func stack of a hooked function.
    fn find(&self, locked: &Locked, ip: usize) -> Option<FuncStack<'_>> {
        let index = self.hooks.binary_search_by_key(&ip, |hook| hook.ip).ok()?;
        let hook = self.hooks.get(index)?;
        let stack = Self::stack(&self.slots, hook)?;
        hook.hooked.get(locked).then_some(stack)
    }

    fn set_hooked(&self, locked: &Locked, hooked: bool) {
        for hook in &self.hooks {
            hook.hooked.set(locked, hooked);
        }
    }

    /// Unhooks the functions whose func stack has become empty. Returns whether any is left.
    ///
    /// Functions stay hooked without effect when ftrace has shut itself down.
    fn shrink(self: Pin<&mut Self>, locked: &Locked) -> bool {
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
    if let Ok(set) = HookSet::new(ips) {
        // Somebody else may have taken a function already: then it is he who tells.
        let _ = set.ops.add_filter(ips).and_then(|()| set.ops.register());
        retire(set);
    }
}

/// Words in front of the rows of a [`Table`].
const HEADER: usize = core::mem::offset_of!(Table, rows) / size_of::<usize>();
const _: () = assert!(HEADER == 3);

type HookSets = KVec<Pin<KBox<HookSet>>>;

/// Returns the func stack of the function at `ip`, if that is hooked.
fn find<'a>(sets: &'a HookSets, locked: &Locked, ip: usize) -> Option<FuncStack<'a>> {
    sets.iter().find_map(|set| set.find(locked, ip))
}

/// Returns the func stack of a func whose function must be hooked.
fn stack_of<'a>(sets: &'a HookSets, locked: &Locked, func: &Func) -> Option<FuncStack<'a>> {
    let stack = find(sets, locked, func.ip.get(locked));
    warn_on_once!(stack.is_none());
    stack
}

/// All hooked functions.
static HOOKS: Owned<HookSets> = Owned::new(KVec::new());

/// Frees the list of sets. Statics are not dropped with the module.
pub(crate) fn exit(locked: &Locked) {
    HOOKS.with(locked, |sets| *sets = KVec::new());
}

/// Gives up a set that has no functions left, or was refused.
fn retire(set: Pin<KBox<HookSet>>) {
    if !set.ops.is_registered() {
        // ftrace has had it on its list for a moment, and not for each architecture waits until
        // nobody looks at it.
        synchronize();
    } else if kernel::warn_on!(set.ops.unregister().is_err()) {
        // ftrace has shut itself down, without waiting: the handler may run at any time.
        //
        // SAFETY: The livepatch that hooked functions or lets go of them now depends on the core,
        // so there is a reference already.
        unsafe { bindings::__module_get(crate::this_module()) };
        core::mem::forget(set);
    } // Else nobody is in the handler on behalf of the set any more.
}

/// Finds the ftrace location of a func of a loaded object.
fn locate(locked: &Locked, func: &Func) -> Option<usize> {
    let Extent { start, size } = func.old.get(locked)?;
    let ip = ftrace::location(start, size)?;
    func.ip.set(locked, ip);
    Some(ip)
}

/// Adds the location of a func to `new` if it is not hooked yet.
fn add_unhooked(locked: &Locked, sets: &HookSets, ip: usize, new: &mut KVVec<usize>) -> Result {
    if find(sets, locked, ip).is_none() {
        new.push(ip, GFP_KERNEL)?;
    }
    Ok(())
}

/// Hooks the functions of all loaded objects of `patch` together, so that [`patch_object`] need not
/// do it for each of several: a set takes a pass of ftrace, and its end grace periods.
///
/// Without effect on calls: the func stacks stay empty. If this cannot be done, nothing has
/// changed, and patching the objects will tell why. May sleep.
pub(crate) fn hook_ahead(locked: &Locked, patch: &Patch) {
    let objects = || {
        let objects = patch.objects.borrow(locked).iter();
        objects.filter(|object| object.is_loaded(locked) && !object.funcs.is_empty())
    };
    if objects().count() < 2 {
        return;
    }
    // Whether this has failed, the objects will find out.
    let _ = HOOKS.with(locked, |sets| -> Result {
        let mut new = KVVec::new();
        for func in objects().flat_map(|object| &object.funcs) {
            let ip = locate(locked, func).ok_or(EINVAL)?;
            add_unhooked(locked, sets, ip, &mut new)?;
        }
        add_sets(locked, sets, &mut new, None)
    });
}

/// Puts all functions of a loaded object on their func stacks.
///
/// # Errors
///
/// [`EINVAL`] when a function cannot be traced, [`EBUSY`] when somebody else changes where its
/// calls go, [`ENOMEM`]; after a message, and with nothing changed. [`ENOENT`] would be a bug.
///
/// May sleep.
pub(crate) fn patch_object(locked: &Locked, object: &Object) -> Result {
    HOOKS.with(locked, |sets| -> Result {
        // Takes no memory if all are hooked already: the C core takes none for that either.
        let mut new = KVVec::new();
        for func in &object.funcs {
            let ip = locate(locked, func).ok_or_else(|| {
                pr_err!("failed to find location for function '{}'\n", &*func.name);
                EINVAL
            })?;
            add_unhooked(locked, sets, ip, &mut new)?;
        }
        add_sets(locked, sets, &mut new, Some(object))?;
        let mut funcs = object.funcs.iter().filter(|func| !func.is_covered(locked));
        let pushed = funcs.try_for_each(|func| -> Result {
            let stack = stack_of(sets, locked, func).ok_or(ENOENT)?;
            stack.push(locked, &func.version);
            object.show_patched(locked, func, true);
            Ok(())
        });
        pushed.inspect_err(|_| remove_funcs(sets, locked, object, object.funcs.iter()))
    })?;
    object.set_patched(locked, true);
    Ok(())
}

/// Adds sets for the functions at `ips`, or none on an error. Only if all are of one `object`, it
/// is said what went wrong.
fn add_sets(
    locked: &Locked,
    sets: &mut HookSets,
    ips: &mut KVVec<usize>,
    object: Option<&Object>,
) -> Result {
    sort_by_key(ips, |&ip| ip);
    let mut last = 0;
    ips.retain(|&mut ip| core::mem::replace(&mut last, ip) != ip);
    let old = sets.len();
    for part in ips.chunk_by(|&low, &high| high.wrapping_sub(low) < MAX_GAP) {
        if let Err(err) = add_set(locked, sets, part, object) {
            while sets.len() > old {
                let Some(set) = sets.pop() else { break };
                retire(set);
            }
            return Err(err);
        }
    }
    Ok(())
}

/// Adds a set for the functions at `ips`.
fn add_set(locked: &Locked, sets: &mut HookSets, ips: &[usize], object: Option<&Object>) -> Result {
    sets.reserve(1, GFP_KERNEL)?;
    let mut set = HookSet::new(ips)?;
    set.set_hooked(locked, true);
    if let Err(err) = hook(locked, set.as_mut(), object) {
        retire(set);
        return Err(err);
    }
    // The space was reserved.
    sets.push_within_capacity(set).map_err(|_| ENOMEM)
}

/// Marks the functions of `patch` as being in transition, or not, and tells the handler: those that
/// are on top of their func stacks now depend on the task, or do so no more.
///
/// The states of all tasks must have been set before.
pub(crate) fn set_transition(locked: &Locked, patch: &Patch, transition: bool) {
    HOOKS.with(locked, |sets| {
        for object in patch.objects.borrow(locked) {
            for func in &object.funcs {
                func.version.transition.set(locked, transition);
                object.show_transition(locked, func, transition);
                if !func.version.on_stack(locked) {
                    continue;
                }
                if let Some(stack) = stack_of(sets, locked, func) {
                    stack.update(locked);
                }
            }
        }
    });
}

/// Makes ftrace call the handler for all functions of a new set. If that fails and they are of
/// `object`, it is said for which one.
///
/// Their func stacks are still empty, so that the handler leaves the calls alone.
fn hook(locked: &Locked, set: Pin<&mut HookSet>, object: Option<&Object>) -> Result {
    let this = set.project();
    let lowest = this.scratch.first().copied();
    let first = object.and_then(|object| {
        let mut funcs = object.funcs.iter();
        funcs.find(|func| Some(func.ip.get(locked)) == lowest)
    });
    this.ops.add_filter(this.scratch).inspect_err(|err| {
        if let Some(func) = first {
            pr_err!(
                "failed to set ftrace filter for function '{}' ({})\n",
                &*func.name,
                err.to_errno()
            );
        }
    })?;
    this.ops.register().inspect_err(|err| {
        let culprit = match object {
            Some(object) if *err == EBUSY => find_refused(locked, object, this.scratch),
            _ => None,
        };
        if let Some(func) = culprit.or(first) {
            pr_err!(
                "failed to register ftrace handler for function '{}' ({})\n",
                &*func.name,
                err.to_errno()
            );
        }
    })
}

/// Finds the first func of `object` whose function ftrace does not let us hook.
///
/// The filter of a registered ops can be extended, and stays as it is if that is refused: a binary
/// search takes a pass per step, and a single grace period in the end.
///
/// `new` is sorted, and holds the locations that were to be hooked. The others are hooked by an
/// older set, which would make ftrace refuse them to the search as well.
fn find_refused<'a>(locked: &Locked, object: &'a Object, new: &[usize]) -> Option<&'a Func> {
    let mut funcs = KVVec::with_capacity(object.funcs.len(), GFP_KERNEL).ok()?;
    let mut ips = KVVec::with_capacity(object.funcs.len(), GFP_KERNEL).ok()?;
    for func in &object.funcs {
        let ip = func.ip.get(locked);
        if new.binary_search(&ip).is_ok() {
            funcs.push(func, GFP_KERNEL).ok()?;
            ips.push(ip, GFP_KERNEL).ok()?;
        }
    }
    // INVARIANT of the search: all before `good` are accepted together, some before `bad` is not.
    let (mut good, mut bad) = (0usize, ips.len());
    // For all of them, as its filter is extended.
    let probe = HookSet::new(new).ok()?;
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
    retire(probe);
    funcs.get(good).copied()
}

/// Takes those of `funcs` that are on their func stacks off these.
fn remove_funcs<'a>(
    sets: &HookSets,
    locked: &Locked,
    object: &Object,
    funcs: impl Iterator<Item = &'a Func>,
) {
    for func in funcs.filter(|func| func.version.on_stack(locked)) {
        if let Some(stack) = stack_of(sets, locked, func) {
            stack.remove(locked, &func.version);
            object.show_patched(locked, func, false);
        }
    }
}

/// Takes the functions of `object` off their func stacks, or only its nops.
///
/// They stay hooked, without effect, until [`unhook_unused`]. Callers may still be on their way
/// into the new functions: see [`synchronize`].
pub(crate) fn unpatch_object(locked: &Locked, object: &Object, nops_only: bool) {
    HOOKS.with(locked, |sets| {
        let funcs = object.funcs.iter();
        let funcs = funcs.filter(|func| !nops_only || func.nop);
        remove_funcs(sets, locked, object, funcs);
    });
    if !nops_only || object.is_dynamic() {
        object.set_patched(locked, false);
    }
}

/// Unhooks all functions that are left without any version.
///
/// May sleep, for a grace period of tasks RCU for each set of which none is left.
pub(crate) fn unhook_unused(locked: &Locked) {
    HOOKS.with(locked, |sets| {
        let mut index = 0;
        while let Some(set) = sets.get_mut(index) {
            if set.as_mut().shrink(locked) {
                index = index.saturating_add(1);
            } else if let Ok(set) = sets.remove(index) {
                retire(set);
            }
        }
    });
}
