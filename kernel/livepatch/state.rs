// SPDX-License-Identifier: GPL-2.0-or-later

//! System states: what livepatches have changed besides code.
//!
//! Answers to `state.c`.

use crate::{
    control::patches,
    descriptor::{
        Descriptor,
        RawState,
        StateSpec, //
    },
    lock::Locked,
    patch::Patch,
    transition, //
};
use kernel::{
    sync::Arc, //
};

fn find(states: &[StateSpec], id: usize) -> Option<&StateSpec> {
    states.iter().find(|state| state.id == id)
}

/// Whether a new livepatch can deal with what the enabled ones have done.
///
/// A replacing livepatch must have all their states; any livepatch must have those that it does
/// have in no older version.
pub(crate) fn is_compatible(patches: &[Arc<Patch>], new: &Descriptor<'_>) -> bool {
    patches
        .iter()
        .flat_map(|patch| patch.states.iter())
        .all(|old| match find(&new.states, old.id) {
            Some(state) => state.version >= old.version,
            None => !new.replace,
        })
}

/// Returns the state `id` of the newest livepatch that was enabled before the one in transition.
pub(crate) fn previous(locked: &Locked, id: usize) -> Option<RawState> {
    if kernel::warn_on_once!(!transition::is_running(locked)) {
        return None;
    }
    patches(locked)
        .iter()
        .take_while(|patch| !transition::is_current(locked, patch))
        .filter_map(|patch| find(&patch.states, id))
        .last()
        .map(|state| state.raw)
}
