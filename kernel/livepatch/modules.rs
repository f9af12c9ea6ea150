// SPDX-License-Identifier: GPL-2.0-or-later

//! Modules that come and go while livepatches that change them are enabled.
//!
//! The hooks in vmlinux keep `klp_alive` of each module: it is set, under the mutex, before
//! [`coming`] and cleared before [`going`], so that exactly one of these and of
//! [`crate::control::enable_patch`] patches a module. Replaces `klp_module_coming()` and
//! `klp_module_going()` of `core.c`.

use crate::{
    lock::KlpLocked,
    object::Object,
    patch::Patch,
    registry::patches,
    replace,
    stack,
    state,
    transition, //
};
use kernel::{
    module_ref::Module,
    prelude::*,
    sync::Arc,
    warn_on_once, //
};

/// Returns the object by which `patch` changes `module`.
fn object_of<'a>(locked: &'a KlpLocked, patch: &'a Patch, module: &Module) -> Option<&'a Object> {
    patch
        .objects
        .borrow(locked)
        .iter()
        .find(|object| object.module_name() == Some(module.name()))
}

/// Applies all enabled livepatches to a module that is being loaded.
///
/// # Errors
///
/// Those of [`stack::patch_object`] and of `pre_patch` callbacks, after a message. The module must
/// not be loaded then; nothing of the livepatches is left in it.
pub(crate) fn coming(locked: &KlpLocked, module: &Module) -> Result {
    for (index, patch) in patches(locked).iter().enumerate() {
        if patch.is_withdrawn(locked) {
            continue;
        }
        let Some(object) = object_of(locked, patch, module) else {
            continue;
        };
        if let Err(err) = apply(locked, patch, object, module) {
            pr_warn!(
                "patch '{}' failed for module '{}', refusing to load module '{}'\n",
                &*patch.name,
                module.name(),
                module.name()
            );
            let earlier = patches(locked).get(..index).unwrap_or_default();
            revert(locked, earlier, module);
            // There will be no `going()`.
            state::forget_module(locked, module);
            return Err(err);
        }
    }
    Ok(())
}

/// Applies `patch` to a module, or leaves both as they were.
fn apply(locked: &KlpLocked, patch: &Patch, object: &Object, module: &Module) -> Result {
    object.bind(locked, module.as_ptr());
    let result = apply_bound(locked, patch, object, module);
    if result.is_err() {
        object.unbind(locked);
    }
    result
}

/// Says that `patch` does not come to a module that is being loaded.
#[inline(never)]
fn warn_of_failure(patch: &Patch, module: &Module, err: Error) {
    pr_warn!(
        "failed to initialize patch '{}' for module '{}' ({})\n",
        &*patch.name,
        module.name(),
        err.to_errno()
    );
}

fn apply_bound(locked: &KlpLocked, patch: &Patch, object: &Object, module: &Module) -> Result {
    let warn = |err: &Error| warn_of_failure(patch, module, *err);
    patch.relocate_object(locked, object).inspect_err(warn)?;
    let result = patch
        .resolve_object(locked, object)
        .inspect_err(warn)
        .and_then(|()| apply_relocated(locked, patch, object, module));
    result.inspect_err(|_| {
        state::disown_shadow_types(locked, patch, object);
        // Also the relocations: the module may be loaded again, elsewhere.
        // SAFETY: They were applied above, and nobody was led to the patch's code for the object.
        unsafe { patch.clear_relocations(locked, object) };
    })
}

fn apply_relocated(locked: &KlpLocked, patch: &Patch, object: &Object, module: &Module) -> Result {
    replace::warn_of_alias(locked, patch, object);

    pr_notice!(
        "applying patch '{}' to loading module '{}'\n",
        &*patch.name,
        module.name()
    );

    state::own_shadow_types(locked, object)?;
    object.pre_patch(locked).inspect_err(|_| {
        pr_warn!(
            "pre-patch callback failed for object '{}'\n",
            object.label()
        );
    })?;

    let in_transition = transition::is_current(locked, patch);
    stack::patch_object(locked, object).inspect_err(|err| {
        pr_warn!(
            "failed to apply patch '{}' to module '{}' ({})\n",
            &*patch.name,
            module.name(),
            err.to_errno()
        );
        object.post_unpatch(locked);
    })?;

    if in_transition {
        // Tasks that are switched from here on must not be in the module's functions.
        update_left(locked);
    } else {
        object.post_patch(locked);
    }
    Ok(())
}

/// Brings the transition in which an object was patched, or is not any more, in line with that.
fn update_left(locked: &KlpLocked) {
    match transition::running(locked) {
        Some(running) => running.update_left(locked),
        None => {
            warn_on_once!(true);
        }
    }
}

/// Reverts all livepatches of a module that goes away.
pub(crate) fn going(locked: &KlpLocked, module: &Module) {
    revert(locked, patches(locked), module);
    state::forget_module(locked, module);
}

/// Reverts `patches` of a module that goes away, or has not come after all.
fn revert(locked: &KlpLocked, patches: &[Arc<Patch>], module: &Module) {
    for patch in patches {
        let Some(object) = object_of(locked, patch, module) else {
            continue;
        };
        if !object.is_loaded(locked) {
            continue;
        }
        let in_transition = transition::is_current(locked, patch);
        if !in_transition {
            object.pre_unpatch(locked);
        }
        pr_notice!(
            "reverting patch '{}' on unloading module '{}'\n",
            &*patch.name,
            module.name()
        );
        stack::unpatch_object(locked, object, false);
        if in_transition {
            update_left(locked);
        }
        object.post_unpatch(locked);
        state::disown_shadow_types(locked, patch, object);
        // SAFETY: They were applied when the object was bound. The module is going: nobody runs its
        // functions, nor the patch's for them.
        unsafe { patch.clear_relocations(locked, object) };
        object.unbind(locked);
    }
    // Those of all livepatches together.
    stack::unhook_unused(locked);
}
