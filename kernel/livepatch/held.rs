// SPDX-License-Identifier: GPL-2.0-or-later

//! The modules that the core needs for their livepatches.

use crate::lock::{
    KlpLocked,
    LockedBy, //
};
use kernel::{
    bindings,
    module_ref::{
        Module,
        Ref, //
    },
    prelude::*, //
};

/// A module that is bound to an object: it is alive, as its going would undo the binding first. Or
/// one that is only to be recognised.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ModulePtr(pub(crate) *mut bindings::module);

// SAFETY: Followed under the mutex only, as long as the module is bound.
unsafe impl Send for ModulePtr {}

impl ModulePtr {
    pub(crate) fn new(module: &Module) -> Self {
        Self(module.as_ptr())
    }
}

/// The modules of all patches, from before they are enabled until the core is done with them: those
/// of the patches that are enabled or in transition, those of patches that are being freed, and
/// those that stay for ever.
static HELD: LockedBy<KVec<ModulePtr>> = LockedBy::new(KVec::new());

/// Whether the core needs `module` for a livepatch.
pub(crate) fn is_held(locked: &KlpLocked, module: &Module) -> bool {
    HELD.borrow(locked).contains(&ModulePtr::new(module))
}

/// Notes that the core needs `module`, until [`let_go`].
///
/// # Errors
///
/// [`ENOMEM`].
pub(crate) fn hold(locked: &mut KlpLocked, module: ModulePtr) -> Result {
    HELD.borrow_mut(locked).push(module, GFP_KERNEL)?;
    Ok(())
}

/// Lets the module of a livepatch go, which is done with.
pub(crate) fn let_go(locked: &mut KlpLocked, module: Ref) {
    let ptr = ModulePtr::new(&module);
    drop(module);
    // Whoever undoes the livepatch of a module that goes, for whom this makes the difference, waits
    // for the mutex.
    HELD.borrow_mut(locked).retain(|held| *held != ptr);
}

/// Frees the list. Statics are not dropped with the module.
pub(crate) fn exit(locked: &mut KlpLocked) {
    *HELD.borrow_mut(locked) = KVec::new();
}
