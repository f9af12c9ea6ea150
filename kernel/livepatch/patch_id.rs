// SPDX-License-Identifier: GPL-2.0-or-later

//! What those call a livepatch who do not hold it: the files in sysfs, and readers without the
//! mutex.

use core::{
    num::NonZero,
    ptr::NonNull, //
};
use kernel::bindings;

/// Identifies a livepatch. No other has the same, as long as it exists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PatchId(NonZero<usize>);

impl PatchId {
    /// The id of the livepatch with this descriptor.
    pub(crate) fn of(descriptor: NonNull<bindings::klp_patch>) -> Self {
        Self(descriptor.addr())
    }

    /// Reads what [`Self::to_word`] made.
    pub(crate) fn from_word(word: usize) -> Option<Self> {
        NonZero::new(word).map(Self)
    }

    /// As a word, which can be atomic; 0 is for none.
    pub(crate) fn to_word(id: Option<Self>) -> usize {
        id.map_or(0, |id| id.0.get())
    }
}
