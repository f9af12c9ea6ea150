// SPDX-License-Identifier: GPL-2.0-or-later

//! What a livepatch module lends the core: its descriptor, with names and callbacks in it.
//!
//! The core writes there what `include/linux/livepatch.h` offers a livepatch to read, and hands the
//! module's own pointers to the module's own callbacks; it reads nothing there again. It does so as
//! long as the module lends its descriptor: see [`RawPatch::take_back`].
//!
//! Replaces the fields of `struct klp_patch`, `klp_object` and `klp_func` in which the C core keeps
//! what it knows.

use crate::{
    lock::{
        KlpLocked,
        LockedCell, //
    },
    lookup::Extent,
    patch_id::PatchId, //
};
use core::{
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    error::to_result,
    ffi::{
        c_char,
        c_int,
        c_void, //
    },
    livepatch::trace::{
        self,
        Of, //
    },
    prelude::*,
    str::CStr,
    sync::Arc, //
};

/// The name of a function, where a livepatch module has it. Compared by its address.
///
/// # Invariants
///
/// A string that ends with NUL, in the memory of the livepatch module whose descriptor names the
/// function. Whoever has the name holds the module: a [`Func`](crate::object::Func) is gone before
/// its [`Patch`](crate::patch::Patch) lets go of it, and a nop before the livepatch that it was
/// made after.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(NonNull<c_char>);

// SAFETY: The string is constant.
unsafe impl Send for Name {}
// SAFETY: The string is constant.
unsafe impl Sync for Name {}

impl Deref for Name {
    type Target = CStr;

    #[inline(never)]
    fn deref(&self) -> &CStr {
        // SAFETY: By the type invariant.
        unsafe { CStr::from_char_ptr(self.0.as_ptr()) }
    }
}

impl Name {
    /// # Safety
    ///
    /// The string must be in the memory of a livepatch module, and whoever has the name hold that.
    pub(crate) unsafe fn new(name: &CStr) -> Self {
        // INVARIANT: By the caller's promise.
        Self(NonNull::from(name).cast())
    }
}

/// The module's `struct klp_state`, to be handed back to it.
#[derive(Clone, Copy)]
pub(crate) struct RawState(pub(crate) *mut bindings::klp_state);

// SAFETY: Never dereferenced by the core after parsing.
unsafe impl Send for RawState {}
// SAFETY: As above.
unsafe impl Sync for RawState {}

/// The module's `struct klp_patch`: its identity, and what the core shows there.
///
/// The module lends its descriptor to the core, until its reference is put or it is about to be
/// freed all the same: see [`Self::take_back`]. Only until then is it written to, or called.
pub(crate) struct RawPatch {
    patch: NonNull<bindings::klp_patch>,
    lent: LockedCell<bool>,
}

// SAFETY: The pointer is followed under the mutex only, and otherwise handed to the module.
unsafe impl Send for RawPatch {}
// SAFETY: As above.
unsafe impl Sync for RawPatch {}

impl RawPatch {
    /// # Safety
    ///
    /// `patch` must be valid until [`Self::take_back`], if the livepatch is enabled, and so must be
    /// its objects, functions and callbacks.
    pub(crate) unsafe fn new(patch: NonNull<bindings::klp_patch>) -> Self {
        Self {
            patch,
            lent: LockedCell::new(true),
        }
    }

    /// The module's descriptor, which may have been taken back.
    pub(crate) fn as_ptr(&self) -> *mut bindings::klp_patch {
        self.patch.as_ptr()
    }

    /// What tells the patch from others.
    pub(crate) fn id(&self) -> PatchId {
        PatchId::of(self.patch)
    }

    /// Whether the module may be called, and its descriptor be written to.
    pub(crate) fn is_lent(&self, locked: &KlpLocked) -> bool {
        self.lent.get(locked)
    }

    /// From here on, nothing of the module is called or written to. Its functions may still run.
    pub(crate) fn take_back(&self, locked: &KlpLocked) {
        self.lent.set(locked, false);
    }

    pub(crate) fn get(&self, locked: &KlpLocked) -> Option<*mut bindings::klp_patch> {
        self.is_lent(locked).then_some(self.patch.as_ptr())
    }

    /// Lists `objects`, in place of what was listed before, for `klp_for_each_object()`.
    pub(crate) fn list<'a>(
        &self,
        locked: &KlpLocked,
        objects: impl Iterator<Item = &'a RawObject> + 'a,
    ) {
        let Some(patch) = self.get(locked) else {
            return;
        };
        // SAFETY: The descriptor is lent, and nobody else writes to these fields.
        unsafe {
            let objects = objects.filter_map(|object| object.get(locked));
            let nodes = objects.map(|object| &raw mut (*object).node);
            link(&raw mut (*patch).obj_list, nodes);
        }
    }

    /// Writes what the descriptor says of a livepatch that is about to be enabled.
    pub(crate) fn reset(&self, locked: &KlpLocked) {
        if let Some(patch) = self.get(locked) {
            // SAFETY: As in `list()`.
            unsafe {
                // Who else is enabled is the core's own business.
                link(&raw mut (*patch).list, core::iter::empty());
                (&raw mut (*patch).enabled).write_volatile(false);
                (&raw mut (*patch).forced).write_volatile(false);
            }
        }
    }

    /// Writes whether the patch is enabled.
    pub(crate) fn set_enabled(&self, locked: &KlpLocked, enabled: bool) {
        if let Some(patch) = self.get(locked) {
            // SAFETY: As in `list()`.
            unsafe { (&raw mut (*patch).enabled).write_volatile(enabled) };
        }
    }

    /// Writes that the patch was involved in a forced transition.
    pub(crate) fn set_forced(&self, locked: &KlpLocked) {
        if let Some(patch) = self.get(locked) {
            // SAFETY: As in `list()`.
            unsafe { (&raw mut (*patch).forced).write_volatile(true) };
        }
    }
}

/// The module's `struct klp_object`, which its callbacks get.
pub(crate) struct RawObject {
    object: *mut bindings::klp_object,
    patch: Arc<RawPatch>,
}

// SAFETY: As for `RawPatch`.
unsafe impl Send for RawObject {}
// SAFETY: As above.
unsafe impl Sync for RawObject {}

impl RawObject {
    /// The object is one of `patch`, whose promise of validity includes it.
    pub(crate) fn new(object: *mut bindings::klp_object, patch: &Arc<RawPatch>) -> Self {
        Self {
            object,
            patch: patch.clone(),
        }
    }

    fn get(&self, locked: &KlpLocked) -> Option<*mut bindings::klp_object> {
        self.patch.is_lent(locked).then_some(self.object)
    }

    /// Lists `funcs`, which are of the object, in place of what was listed before, for
    /// `klp_for_each_func()`.
    pub(crate) fn list(&self, locked: &KlpLocked, funcs: impl Iterator<Item = RawFunc>) {
        if let Some(object) = self.get(locked) {
            // SAFETY: The descriptor is lent, and nobody else writes to these fields.
            unsafe {
                let nodes = funcs.map(|func| &raw mut (*func.0.as_ptr()).node);
                link(&raw mut (*object).func_list, nodes);
            }
        }
    }

    /// Writes which module the object is bound to.
    pub(crate) fn set_module(&self, locked: &KlpLocked, module: *mut bindings::module) {
        if let Some(object) = self.get(locked) {
            // SAFETY: As in `list()`.
            unsafe { (&raw mut (*object).mod_).write_volatile(module) };
        }
    }

    /// Writes whether the functions of the object are patched.
    pub(crate) fn set_patched(&self, locked: &KlpLocked, patched: bool) {
        if let Some(object) = self.get(locked) {
            // SAFETY: As in `list()`.
            unsafe { (&raw mut (*object).patched).write_volatile(patched) };
        }
    }

    /// Writes whether `post_unpatch` is due.
    pub(crate) fn set_post_unpatch_enabled(&self, locked: &KlpLocked, enabled: bool) {
        if let Some(object) = self.get(locked) {
            // SAFETY: As in `list()`.
            unsafe {
                (&raw mut (*object).callbacks.post_unpatch_enabled).write_volatile(enabled);
            }
        }
    }
}

/// The module's `struct klp_func`, of one of its objects.
#[derive(Clone, Copy)]
pub(crate) struct RawFunc(NonNull<bindings::klp_func>);

// SAFETY: As for `RawPatch`.
unsafe impl Send for RawFunc {}
// SAFETY: As above.
unsafe impl Sync for RawFunc {}

impl RawFunc {
    /// The function is one of a [`RawObject`], with which it is used.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for NULL.
    pub(crate) fn new(func: *mut bindings::klp_func) -> Result<Self> {
        Ok(Self(NonNull::new(func).ok_or(EINVAL)?))
    }

    fn get(self, locked: &KlpLocked, object: &RawObject) -> Option<*mut bindings::klp_func> {
        object.patch.is_lent(locked).then_some(self.0.as_ptr())
    }

    /// Writes what the descriptor says of a function that is not patched.
    pub(crate) fn reset(self, locked: &KlpLocked, object: &RawObject) {
        if let Some(func) = self.get(locked, object) {
            // SAFETY: The descriptor is lent, and nobody else writes to these fields.
            unsafe {
                // Func stacks are the core's own.
                link(&raw mut (*func).stack_node, core::iter::empty());
                (&raw mut (*func).patched).write_volatile(false);
                (&raw mut (*func).transition).write_volatile(false);
            }
        }
    }

    /// Writes where the original function is, and the sizes of both; or, without an object, that
    /// there is no original function.
    pub(crate) fn set_code(
        self,
        locked: &KlpLocked,
        object: &RawObject,
        code: Option<[Extent; 2]>,
    ) {
        let Some(func) = self.get(locked, object) else {
            return;
        };
        // CAST: Addresses of the kernel as C has them.
        let start = code.map_or(0, |[old, _]| old.start) as *mut c_void;
        // SAFETY: As in `reset()`.
        unsafe {
            (&raw mut (*func).old_func).write_volatile(start);
            if let Some([old, new]) = code {
                (&raw mut (*func).old_size).write_volatile(old.size);
                (&raw mut (*func).new_size).write_volatile(new.size);
            }
        }
    }

    /// Writes whether the function is on its func stack.
    pub(crate) fn set_patched(self, locked: &KlpLocked, object: &RawObject, patched: bool) {
        if let Some(func) = self.get(locked, object) {
            // SAFETY: As in `reset()`.
            unsafe { (&raw mut (*func).patched).write_volatile(patched) };
        }
    }

    /// Writes whether the function is being applied or reverted.
    pub(crate) fn set_transition(self, locked: &KlpLocked, object: &RawObject, transition: bool) {
        if let Some(func) = self.get(locked, object) {
            // SAFETY: As in `reset()`.
            unsafe { (&raw mut (*func).transition).write_volatile(transition) };
        }
    }
}

/// Writes a list of `nodes`, for C to read.
///
/// # Safety
///
/// All of them must be valid for writes.
unsafe fn link(
    head: *mut bindings::list_head,
    nodes: impl Iterator<Item = *mut bindings::list_head>,
) {
    let mut last = head;
    for node in nodes.chain(core::iter::once(head)) {
        // SAFETY: By the caller's promise.
        unsafe {
            (&raw mut (*node).prev).write_volatile(last);
            (&raw mut (*last).next).write_volatile(node);
        }
        last = node;
    }
}

/// What a `pre_patch` callback says: anything but 0 refuses the livepatch.
///
/// # Errors
///
/// What it returned; [`EINVAL`] for a positive value, which the C core takes for a refusal, too.
pub(crate) fn consent(ret: c_int) -> Result {
    to_result(ret)?;
    if ret == 0 {
        Ok(())
    } else {
        Err(EINVAL)
    }
}

/// The per-object callbacks.
///
/// They run under the mutex, in process context, while the core is only reading its state; those of
/// a module that has taken back its descriptor do not run.
#[derive(Clone, Copy, Default)]
pub(crate) struct Callbacks {
    pre_patch: bindings::klp_pre_patch_t,
    post_patch: bindings::klp_post_patch_t,
    pre_unpatch: bindings::klp_pre_unpatch_t,
    post_unpatch: bindings::klp_post_unpatch_t,
}

impl Callbacks {
    /// Takes over what the descriptor has.
    pub(crate) fn new(callbacks: &bindings::klp_callbacks) -> Self {
        Self {
            pre_patch: callbacks.pre_patch,
            post_patch: callbacks.post_patch,
            pre_unpatch: callbacks.pre_unpatch,
            post_unpatch: callbacks.post_unpatch,
        }
    }

    pub(crate) fn pre_patch(&self, locked: &KlpLocked, object: &RawObject, label: &CStr) -> Result {
        match (self.pre_patch, object.get(locked)) {
            (Some(callback), Some(object)) => {
                let (of, code) = (Of::Object(label), callback as usize);
                // SAFETY: The module's own callback, with the module's own descriptor.
                let call = || unsafe { callback(object) };
                consent(trace::callback(c"pre_patch", of, code, call))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn post_patch(&self, locked: &KlpLocked, object: &RawObject, label: &CStr) {
        Self::call(c"post_patch", self.post_patch, locked, object, label);
    }

    pub(crate) fn pre_unpatch(&self, locked: &KlpLocked, object: &RawObject, label: &CStr) {
        Self::call(c"pre_unpatch", self.pre_unpatch, locked, object, label);
    }

    pub(crate) fn post_unpatch(&self, locked: &KlpLocked, object: &RawObject, label: &CStr) {
        Self::call(c"post_unpatch", self.post_unpatch, locked, object, label);
    }

    fn call(
        name: &CStr,
        callback: Option<unsafe extern "C" fn(*mut bindings::klp_object)>,
        locked: &KlpLocked,
        object: &RawObject,
        label: &CStr,
    ) {
        if let (Some(callback), Some(object)) = (callback, object.get(locked)) {
            trace::callback(name, Of::Object(label), callback as usize, || {
                // SAFETY: As in `pre_patch()`.
                unsafe { callback(object) };
                0
            });
        }
    }
}
