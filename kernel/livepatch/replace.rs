// SPDX-License-Identifier: GPL-2.0-or-later

//! Replace sets, as livepatches have them.
//!
//! The rules are in [`sets`]; this puts them to use, and says what is in the way of a livepatch.
//! Two livepatches that the rules keep apart may still meet in one function that has two names,
//! which shows when its object is loaded.

use crate::{
    descriptor::{
        Claims,
        Descriptor, //
    },
    lock::KlpLocked,
    object::{
        self,
        Object, //
    },
    patch::Patch,
    registry::{
        incompatible,
        patches, //
    },
    rules::sets::{
        self,
        Common,
        LivepatchParts,
        Rules, //
    }, //
};
use kernel::{
    fmt,
    prelude::*,
    str::{
        BStr,
        CStr, //
    },
    sync::Arc, //
};

/// Returns what `new` replaces, oldest first.
///
/// # Errors
///
/// [`ENOMEM`].
pub(crate) fn replaced(locked: &KlpLocked, new: &Descriptor<'_>) -> Result<KVec<Arc<Patch>>> {
    let mut replaced = KVec::new();
    for patch in patches(locked) {
        if new.sets.rules().replaces(&patch.sets.rules()) {
            replaced.push(patch.clone(), GFP_KERNEL)?;
        }
    }
    Ok(replaced)
}

/// What [`sets::find_conflict`] wants to have sorted.
struct Parts<'a> {
    name: &'a CStr,
    rules: Rules<'a>,
    funcs: KVVec<sets::FuncId<'a>>,
    ids: KVVec<usize>,
}

impl<'a> Parts<'a> {
    fn of_descriptor(new: &'a Descriptor<'_>) -> Result<Self> {
        let mut parts = Self {
            name: new.module.name(),
            rules: new.sets.rules(),
            funcs: KVVec::new(),
            ids: KVVec::new(),
        };
        for object in &new.objects {
            parts.funcs.reserve(object.funcs.len(), GFP_KERNEL)?;
            for func in &object.funcs {
                let object = object.name.as_deref();
                parts.push(object, &func.name, func.sympos)?;
            }
            parts.push_ids(&object.claims)?;
        }
        parts.push_ids(&new.claims)?;
        parts.sort();
        Ok(parts)
    }

    fn of_patch(locked: &'a KlpLocked, patch: &'a Patch) -> Result<Self> {
        let mut parts = Self {
            name: &patch.name,
            rules: patch.sets.rules(),
            funcs: KVVec::new(),
            ids: KVVec::new(),
        };
        for object in patch.objects.borrow(locked) {
            parts.funcs.reserve(object.funcs.len(), GFP_KERNEL)?;
            for func in changed(object) {
                parts.push(object.module_name(), &func.name, func.sympos)?;
            }
            parts.push_ids(&object.claims)?;
        }
        parts.push_ids(patch.claims.borrow(locked))?;
        parts.sort();
        Ok(parts)
    }

    fn push(&mut self, object: Option<&'a CStr>, name: &'a CStr, sympos: usize) -> Result {
        let func = sets::FuncId {
            object: object.map(CStr::to_bytes),
            name: name.to_bytes(),
            position: sympos.max(1),
        };
        self.funcs.push(func, GFP_KERNEL)?;
        Ok(())
    }

    fn push_ids(&mut self, claims: &Claims) -> Result {
        self.ids.reserve(claims.len(), GFP_KERNEL)?;
        for claim in claims {
            self.ids.push(claim.id, GFP_KERNEL)?;
        }
        Ok(())
    }

    fn sort(&mut self) {
        sets::sort(&mut self.funcs);
        sets::sort(&mut self.ids);
    }

    #[inline(never)]
    fn livepatch(&self) -> LivepatchParts<'_> {
        LivepatchParts {
            name: self.name.to_bytes(),
            rules: self.rules,
            funcs: &self.funcs,
            ids: &self.ids,
        }
    }
}

/// The functions that a livepatch itself changes in an object: its nops only pass by.
fn changed(object: &Object) -> impl Iterator<Item = &object::Func> {
    object.funcs.iter().filter(|func| !func.is_nop())
}

/// Checks that `new` shares nothing with the livepatches that must not have it too.
///
/// # Errors
///
/// [`EINVAL`], after a message that says what it shares and with whom; [`ENOMEM`].
pub(crate) fn check_conflicts(locked: &KlpLocked, new: &Descriptor<'_>) -> Result {
    let rules = new.sets.rules();
    let mut others = KVec::new();
    for patch in patches(locked) {
        if rules.must_not_share(&patch.sets.rules()) {
            others.push(Parts::of_patch(locked, patch)?, GFP_KERNEL)?;
        }
    }
    if others.is_empty() {
        return Ok(());
    }
    let mut enabled = KVec::with_capacity(others.len(), GFP_KERNEL)?;
    for other in &others {
        enabled.push(other.livepatch(), GFP_KERNEL)?;
    }
    let new = Parts::of_descriptor(new)?;
    let Some(conflict) = sets::find_conflict(&new.livepatch(), &enabled) else {
        return Ok(());
    };
    let other = BStr::from_bytes(conflict.other);
    match conflict.shared {
        Common::Func(func) => pr_err!(
            "livepatch '{}' changes {}, as does '{}', which it does not replace\n",
            new.name,
            FuncLabel(func.object, func.name, func.position),
            other
        ),
        Common::Id(id) => pr_err!(
            "livepatch '{}' has state or shadow id {}, as has '{}', which it does not replace\n",
            new.name,
            id,
            other
        ),
    }
    Err(incompatible(new.name))
}

/// Shows a function as `object:name,position`.
struct FuncLabel<'a>(Option<&'a [u8]>, &'a [u8], usize);

impl<'a> FuncLabel<'a> {
    fn new(object: &'a Object, func: &'a object::Func) -> Self {
        Self(
            object.module_name().map(CStr::to_bytes),
            func.name.to_bytes(),
            func.sympos.max(1),
        )
    }
}

impl fmt::Display for FuncLabel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!(
            "{}:{},{}",
            BStr::from_bytes(self.0.unwrap_or(b"vmlinux")),
            BStr::from_bytes(self.1),
            self.2
        ))
    }
}

/// The functions of an object that is loaded, by their addresses.
fn by_address<'a>(
    locked: &KlpLocked,
    object: &'a Object,
) -> Result<KVVec<(usize, &'a object::Func)>> {
    let mut funcs = KVVec::with_capacity(object.funcs.len(), GFP_KERNEL)?;
    for func in changed(object) {
        if let Some(old) = func.old.get(locked) {
            funcs.push((old.start, func), GFP_KERNEL)?;
        }
    }
    crate::sort::sort_by_key(&mut funcs, |(addr, _)| *addr);
    Ok(funcs)
}

/// Calls `found` if `object` of `patch` and that object of an older livepatch change the same
/// function, under two names, and must not.
fn find_alias(
    locked: &KlpLocked,
    patch: &Patch,
    object: &Object,
    older: &Patch,
    found: impl FnOnce(FuncLabel<'_>, FuncLabel<'_>),
) -> Result {
    let (rules, older_rules) = (patch.sets.rules(), older.sets.rules());
    if !rules.must_not_share(&older_rules) {
        return Ok(());
    }
    let objects = older.objects.borrow(locked);
    let Some(older_object) = objects.iter().find(|other| other.is_same(object)) else {
        return Ok(());
    };
    let funcs = by_address(locked, object)?;
    let older_funcs = by_address(locked, older_object)?;
    let common = sets::first_common(&funcs, &older_funcs, |(addr, _)| *addr);
    if let Some(((_, func), (_, older_func))) = common {
        found(
            FuncLabel::new(object, func),
            FuncLabel::new(older_object, older_func),
        );
    }
    Ok(())
}

/// Checks that no function of `patch`, which is not enabled yet, is one of a livepatch that must
/// not have it too, under another name. Only what is loaded can be told.
///
/// # Errors
///
/// [`EINVAL`], after a message that says which function is; [`ENOMEM`].
pub(crate) fn check_aliases(locked: &KlpLocked, patch: &Patch) -> Result {
    let mut refused = false;
    for other in patches(locked) {
        for object in patch.objects.borrow(locked) {
            find_alias(locked, patch, object, other, |func, other_func| {
                refused = true;
                pr_err!(
                    "livepatch '{}' changes {}, which is {} of '{}', which it does not replace\n",
                    &*patch.name,
                    func,
                    other_func,
                    &*other.name
                );
            })?;
            if refused {
                return Err(incompatible(&patch.name));
            }
        }
    }
    Ok(())
}

/// Warns if `object`, of a module that is being loaded, changes a function that an older livepatch
/// changes under another name, and must not. The module is not to blame, so it is not refused: the
/// newer livepatch has its way.
pub(crate) fn warn_of_alias(locked: &KlpLocked, patch: &Patch, object: &Object) {
    let older = patches(locked)
        .iter()
        .take_while(|other| !core::ptr::eq(Arc::as_ptr(other), patch));
    for other in older {
        let result = find_alias(locked, patch, object, other, |func, other_func| {
            pr_warn!(
                "livepatch '{}' changes {}, which is {} of '{}', which it did not replace\n",
                &*patch.name,
                func,
                other_func,
                &*other.name
            );
        });
        if result.is_err() {
            pr_warn!(
                "no memory to compare the functions of '{}' and '{}'\n",
                &*patch.name,
                &*other.name
            );
        }
    }
}
