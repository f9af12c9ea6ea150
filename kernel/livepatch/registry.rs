// SPDX-License-Identifier: GPL-2.0-or-later

//! The list of livepatches that are enabled or in transition.
//!
//! Replaces `klp_patches` of `core.c`.

use crate::{
    lock::{
        KlpLocked,
        LockedBy, //
    },
    patch::Patch,
    patch_id::PatchId, //
};
use kernel::{
    prelude::*,
    str::CStr,
    sync::Arc, //
};

/// Patches that are enabled or in transition, in the order in which they were enabled. Replaced
/// and disabled ones are not here, though their modules may be.
static PATCHES: LockedBy<KVec<Arc<Patch>>> = LockedBy::new(KVec::new());

/// The patches that are enabled or in transition, oldest first.
pub(crate) fn patches(locked: &KlpLocked) -> &[Arc<Patch>] {
    PATCHES.borrow(locked)
}

/// Returns the patch with this id.
pub(crate) fn find(locked: &KlpLocked, id: PatchId) -> Option<Arc<Patch>> {
    patches(locked)
        .iter()
        .find(|patch| patch.raw.id() == id)
        .cloned()
}

/// Returns which of the patches that are enabled this is, from 1; 0 if it is none of them.
pub(crate) fn stack_order(locked: &KlpLocked, id: PatchId) -> usize {
    patches(locked)
        .iter()
        .position(|patch| patch.raw.id() == id)
        .map_or(0, |index| index.saturating_add(1))
}

/// Puts `patch` at the end of the list.
///
/// # Errors
///
/// [`ENOMEM`].
pub(crate) fn add(locked: &mut KlpLocked, patch: &Arc<Patch>) -> Result {
    PATCHES.borrow_mut(locked).push(patch.clone(), GFP_KERNEL)?;
    Ok(())
}

/// Takes `patch` off the list.
pub(crate) fn remove(locked: &mut KlpLocked, patch: &Arc<Patch>) {
    PATCHES
        .borrow_mut(locked)
        .retain(|other| !Arc::ptr_eq(other, patch));
}

/// Says that livepatch `name` cannot be enabled next to those that are. Returns [`EINVAL`].
#[inline(never)]
pub(crate) fn incompatible(name: &CStr) -> Error {
    pr_err!(
        "Livepatch patch ({}) is not compatible with the already installed livepatches.\n",
        name
    );
    EINVAL
}

/// Frees the list. Statics are not dropped with the module.
pub(crate) fn exit(locked: &mut KlpLocked) {
    *PATCHES.borrow_mut(locked) = KVec::new();
}
