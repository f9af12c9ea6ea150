// SPDX-License-Identifier: GPL-2.0-or-later

//! The functions of a patch on their func stacks.
//!
//! The functions that one livepatch is the first to patch share a [`OpsGroup`], if they are near
//! enough: one `ftrace_ops`, registered in one pass, and one lookup table. Whoever patches one of
//! them later only pushes.
//!
//! Replaces `patch.c`.

use crate::{
    func_stack::{
        Code,
        FuncStack, //
    },
    lock::{
        KlpLocked,
        TakeCell, //
    },
    lookup::Extent,
    object::{
        Func,
        Object, //
    },
    ops_group::{
        retire,
        OpsGroup, //
    },
    patch::Patch,
    sort::sort_by_key, //
};
use kernel::{
    ftrace,
    livepatch::trace,
    prelude::*,
    warn_on_once, //
};

/// Code that lies further apart than this is hooked by different groups: their tables have an entry
/// for every 8 KiB in between.
const MAX_GAP: usize = 64 << 20;

type OpsGroups = KVec<Pin<KBox<OpsGroup>>>;

/// Returns the func stack of the function at `ip`, if that is hooked.
// Six times in place would be 800 bytes more.
#[inline(never)]
fn find<'a>(groups: &'a OpsGroups, locked: &KlpLocked, ip: usize) -> Option<FuncStack<'a>> {
    groups.iter().find_map(|group| group.find(locked, ip))
}

/// Returns the func stack of a func whose function must be hooked.
fn stack_of<'a>(groups: &'a OpsGroups, locked: &KlpLocked, func: &Func) -> Option<FuncStack<'a>> {
    let stack = find(groups, locked, func.ip.get(locked));
    warn_on_once!(stack.is_none());
    stack
}

/// All hooked functions.
static GROUPS: TakeCell<OpsGroups> = TakeCell::new(KVec::new());

/// Frees the list of groups. Statics are not dropped with the module.
pub(crate) fn exit(locked: &KlpLocked) {
    GROUPS.with(locked, |groups| *groups = KVec::new());
}

/// Finds the ftrace location of a func of a loaded object.
fn locate(locked: &KlpLocked, func: &Func) -> Option<usize> {
    let Extent { start, size } = func.old.get(locked)?;
    let ip = ftrace::location(start, size)?;
    func.ip.set(locked, ip);
    Some(ip)
}

/// Adds the location of a func to `new` if it is not hooked yet.
fn add_unhooked(
    locked: &KlpLocked,
    groups: &OpsGroups,
    ip: usize,
    new: &mut KVVec<usize>,
) -> Result {
    if find(groups, locked, ip).is_none() {
        new.push(ip, GFP_KERNEL)?;
    }
    Ok(())
}

/// Hooks the functions of all loaded objects of `patch` together, so that [`patch_object`] need not
/// do it for each of several: a group takes a pass of ftrace, and its end grace periods.
///
/// Without effect on calls: the func stacks stay empty. If this cannot be done, nothing has
/// changed, and patching the objects will tell why. May sleep.
pub(crate) fn hook_ahead(locked: &KlpLocked, patch: &Patch) {
    let objects = || {
        let objects = patch.objects.borrow(locked).iter();
        objects.filter(|object| object.is_loaded(locked) && !object.funcs.is_empty())
    };
    if objects().count() < 2 {
        return;
    }
    // Whether this has failed, the objects will find out.
    let _ = GROUPS.with(locked, |groups| -> Result {
        let mut new = KVVec::new();
        for func in objects().flat_map(|object| &object.funcs) {
            let ip = locate(locked, func).ok_or(EINVAL)?;
            add_unhooked(locked, groups, ip, &mut new)?;
        }
        add_groups(locked, groups, &mut new, None)
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
pub(crate) fn patch_object(locked: &KlpLocked, object: &Object) -> Result {
    GROUPS.with(locked, |groups| -> Result {
        // Takes no memory if all are hooked already: the C core takes none for that either.
        let mut new = KVVec::new();
        for func in &object.funcs {
            let ip = locate(locked, func).ok_or_else(|| {
                pr_err!("failed to find location for function '{}'\n", &*func.name);
                EINVAL
            })?;
            add_unhooked(locked, groups, ip, &mut new)?;
        }
        add_groups(locked, groups, &mut new, Some(object))?;
        let mut funcs = object.funcs.iter().filter(|func| !func.is_covered(locked));
        let pushed = funcs.try_for_each(|func| -> Result {
            let stack = stack_of(groups, locked, func).ok_or(ENOENT)?;
            stack.push(locked, &func.version);
            show_patched(locked, object, func, true);
            Ok(())
        });
        pushed.inspect_err(|_| remove_funcs(groups, locked, object, object.funcs.iter()))
    })?;
    object.set_patched(locked, true);
    Ok(())
}

/// Adds groups for the functions at `ips`, or none on an error. Only if all are of one `object`, it
/// is said what went wrong.
fn add_groups(
    locked: &KlpLocked,
    groups: &mut OpsGroups,
    ips: &mut KVVec<usize>,
    object: Option<&Object>,
) -> Result {
    sort_by_key(ips, |&ip| ip);
    let mut last = 0;
    ips.retain(|&mut ip| core::mem::replace(&mut last, ip) != ip);
    let old = groups.len();
    for part in ips.chunk_by(|&low, &high| high.wrapping_sub(low) < MAX_GAP) {
        if let Err(err) = add_group(locked, groups, part, object) {
            while groups.len() > old {
                let Some(group) = groups.pop() else { break };
                retire(group);
            }
            return Err(err);
        }
    }
    Ok(())
}

/// Adds a group for the functions at `ips`.
fn add_group(
    locked: &KlpLocked,
    groups: &mut OpsGroups,
    ips: &[usize],
    object: Option<&Object>,
) -> Result {
    groups.reserve(1, GFP_KERNEL)?;
    let mut group = OpsGroup::new(ips)?;
    group.set_hooked(locked, true);
    if let Err(err) = hook(locked, group.as_mut(), object) {
        retire(group);
        return Err(err);
    }
    // The space was reserved.
    groups.push_within_capacity(group).map_err(|_| ENOMEM)
}

/// Marks the functions of `patch` as being in transition, or not, and tells the handler: those that
/// are on top of their func stacks now depend on the task, or do so no more.
///
/// The states of all tasks must have been set before.
pub(crate) fn set_transition(locked: &KlpLocked, patch: &Patch, transition: bool) {
    GROUPS.with(locked, |groups| {
        for object in patch.objects.borrow(locked) {
            for func in &object.funcs {
                func.version.transition.set(locked, transition);
                object.show_transition(locked, func, transition);
                if !func.version.on_stack(locked) {
                    continue;
                }
                if let Some(stack) = stack_of(groups, locked, func) {
                    stack.update(locked);
                }
            }
        }
    });
}

/// Makes ftrace call the handler for all functions of a new group. If that fails and they are of
/// `object`, it is said for which one.
///
/// Their func stacks are still empty, so that the handler leaves the calls alone.
fn hook(locked: &KlpLocked, group: Pin<&mut OpsGroup>, object: Option<&Object>) -> Result {
    let this = group.project();
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
/// older group, which would make ftrace refuse them to the search as well.
fn find_refused<'a>(locked: &KlpLocked, object: &'a Object, new: &[usize]) -> Option<&'a Func> {
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
    let probe = OpsGroup::new(new).ok()?;
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

/// Tells the livepatch, and who traces that, whether `func` of `object` is on its func stack.
fn show_patched(locked: &KlpLocked, object: &Object, func: &Func, patched: bool) {
    object.show_patched(locked, func, patched);
    let code = match func.version.runs() {
        Code::Original => 0,
        Code::At(addr) => addr.get(),
    };
    trace::func(object.label(), &func.name, code, patched);
}

/// Takes those of `funcs` that are on their func stacks off these.
fn remove_funcs<'a>(
    groups: &OpsGroups,
    locked: &KlpLocked,
    object: &Object,
    funcs: impl Iterator<Item = &'a Func>,
) {
    for func in funcs.filter(|func| func.version.on_stack(locked)) {
        if let Some(stack) = stack_of(groups, locked, func) {
            stack.remove(locked, &func.version);
            show_patched(locked, object, func, false);
        }
    }
}

/// Calls `f` with the code that tasks may be running of the function at `ip`, whose original code
/// is `old`, as far as they run what is in effect.
pub(crate) fn for_each_running(
    locked: &KlpLocked,
    ip: usize,
    old: Extent,
    mut f: impl FnMut(Extent),
) {
    GROUPS.with(locked, |groups| {
        let hooked = find(groups, locked, ip);
        let top = hooked.and_then(|stack| stack.hook.top.get(locked).get(locked));
        let Some(top) = top else { return f(old) };
        top.code(locked).map(&mut f);
        if top.transition.get(locked) {
            match top.previous(locked) {
                Some(previous) => previous.code(locked).map_or((), f),
                None => f(old),
            }
        }
    });
}

/// Takes the functions of `object` off their func stacks, or only its nops.
///
/// They stay hooked, without effect, until [`unhook_unused`]. Callers may still be on their way
/// into the new functions: see [`synchronize`](crate::synchronize::synchronize).
pub(crate) fn unpatch_object(locked: &KlpLocked, object: &Object, nops_only: bool) {
    GROUPS.with(locked, |groups| {
        let funcs = object.funcs.iter();
        let funcs = funcs.filter(|func| !nops_only || func.is_nop());
        remove_funcs(groups, locked, object, funcs);
    });
    if !nops_only || object.is_dynamic() {
        object.set_patched(locked, false);
    }
}

/// Unhooks all functions that are left without any version.
///
/// May sleep, for a grace period of tasks RCU for each group of which none is left.
pub(crate) fn unhook_unused(locked: &KlpLocked) {
    GROUPS.with(locked, |groups| {
        let mut index = 0;
        while let Some(group) = groups.get_mut(index) {
            if group.as_mut().shrink(locked) {
                index = index.saturating_add(1);
            } else if let Ok(group) = groups.remove(index) {
                retire(group);
            }
        }
    });
}
