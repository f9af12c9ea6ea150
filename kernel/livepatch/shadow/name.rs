// SPDX-License-Identifier: GPL-2.0-or-later

//! What variables and records are found by.

use kernel::{
    ffi::c_void,
    rcu_map, //
};

/// What a variable is found by, or, with the object 0, a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    /// The address of the object, which is a number here.
    object: usize,
    pub(super) id: usize,
}

impl Name {
    #[inline(always)]
    pub(super) fn new(obj: *mut c_void, id: usize) -> Self {
        Self {
            object: obj.expose_provenance(),
            id,
        }
    }

    /// What the record of `id` is found by.
    pub(super) fn of_record(id: usize) -> Self {
        Self { object: 0, id }
    }

    /// The object, which may be gone.
    pub(super) fn obj(self) -> *mut c_void {
        core::ptr::with_exposed_provenance_mut(self.object)
    }
}

// SAFETY: The hash depends on nothing but the two numbers.
unsafe impl rcu_map::Key for Name {
    #[inline(always)]
    fn hash(self) -> usize {
        rcu_map::hash(self.object, self.id)
    }
}
