// SPDX-License-Identifier: GPL-2.0-or-later

//! Reads a `struct klp_patch`, once, into values that the core owns.
//!
//! A livepatch module's descriptor is input from outside. [`Descriptor::parse`] checks all of it
//! before anything has a side effect; nothing in the core reads it again, but for handing the
//! module's own pointers to the module's own callbacks. What `include/linux/livepatch.h` offers a
//! livepatch to read is written there, by the `Raw` types, for as long as its module lends it.
//! Replaces `klp_check_patch()`, and the checks in `klp_init_object()` and `klp_init_func()`,
//! of `core.c`.

use crate::{
    lock::KlpLocked,
    raw::{
        consent,
        Callbacks,
        Name,
        RawFunc,
        RawObject,
        RawPatch,
        RawState, //
    },
    rules::owners::{
        Claim,
        Contract,
        Kind, //
    },
    rules::symbol::{
        MAX_OBJECT_LEN,
        MAX_SYMBOL_LEN, //
    },
    set_spec::SetSpec,
    shadow::{
        Dtor,
        User, //
    },
    sort::sort_by_key,
    sysfs::PatchDir, //
};
use core::{
    num::NonZero,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    ffi::c_char,
    livepatch::trace::{
        self,
        Of, //
    },
    module_ref::Module,
    prelude::*,
    str::{
        CStr,
        CString, //
    },
    sync::Arc, //
};

/// One entry of `klp_object.funcs`.
pub(crate) struct FuncSpec {
    pub(crate) raw: RawFunc,
    pub(crate) name: Name,
    pub(crate) sympos: usize,
    pub(crate) new_func: NonZero<usize>,
}

impl FuncSpec {
    /// Which of several symbols of this name, from 1: 0 means the only one.
    fn position(&self) -> usize {
        self.sympos.max(1)
    }

    /// What no other function of the object may have.
    fn key(&self) -> (&[u8], usize) {
        (self.name.to_bytes(), self.position())
    }
}

/// Returns a function that `specs` have more than once.
fn find_duplicate(specs: &[FuncSpec]) -> Result<Option<&FuncSpec>> {
    let mut sorted = KVVec::with_capacity(specs.len(), GFP_KERNEL)?;
    for spec in specs {
        sorted.push((spec.key(), spec), GFP_KERNEL)?;
    }
    sort_by_key(&mut sorted, |(key, _)| *key);
    Ok(sorted
        .iter()
        .zip(sorted.iter().skip(1))
        .find(|((one, _), (next, _))| one == next)
        .map(|(_, (_, spec))| *spec))
}

/// One entry of `klp_patch.objs`.
pub(crate) struct ObjectSpec {
    pub(crate) raw: RawObject,
    /// The module's name, [`None`] for vmlinux.
    pub(crate) name: Option<CString>,
    pub(crate) callbacks: Callbacks,
    pub(crate) funcs: KVVec<FuncSpec>,
    /// The shadow variables that belong to the object.
    pub(crate) claims: Claims,
}

impl ObjectSpec {
    /// What messages call the object.
    fn label(&self) -> &CStr {
        self.name.as_deref().unwrap_or(c"vmlinux")
    }
}

/// A checked livepatch.
pub(crate) struct Descriptor<'a> {
    pub(crate) raw: Arc<RawPatch>,
    pub(crate) module: &'a Module,
    pub(crate) replace: bool,
    pub(crate) sets: SetSpec,
    pub(crate) objects: KVVec<ObjectSpec>,
    /// The states, and the shadow variables that belong to no object.
    pub(crate) claims: Claims,
}

/// What a livepatch, or one of its objects, wants to own.
pub(crate) type Claims = KVVec<Claim<Source>>;

/// Where a claim comes from: an entry of `klp_patch.states` or of `shadow_types`.
pub(crate) struct Source {
    pub(crate) patch: Arc<RawPatch>,
    /// NULL for a shadow type.
    pub(crate) raw: RawState,
    pub(crate) version: u32,
    pub(crate) name: Option<CString>,
    /// The livepatch's module, for a state with shadow variables.
    pub(crate) user: Option<User>,
    callbacks: bindings::klp_state_callbacks,
}

impl Source {
    /// Calls a callback of the managed state `id` that is refused by an error.
    pub(crate) fn pre_patch(&self, locked: &KlpLocked, id: usize) -> Result {
        match (self.callbacks.pre_patch, self.patch.get(locked)) {
            (Some(callback), Some(patch)) => {
                let (of, code) = (Of::State(id), callback as usize);
                // SAFETY: The module's own callback, with the module's own descriptor.
                let call = || unsafe { callback(patch, self.raw.0) };
                consent(trace::callback(c"pre_patch", of, code, call))
            }
            _ => Ok(()),
        }
    }

    /// Calls `post_patch`.
    pub(crate) fn post_patch(&self, locked: &KlpLocked, id: usize) {
        self.call(c"post_patch", self.callbacks.post_patch, locked, id);
    }

    /// Calls `pre_unpatch`.
    pub(crate) fn pre_unpatch(&self, locked: &KlpLocked, id: usize) {
        self.call(c"pre_unpatch", self.callbacks.pre_unpatch, locked, id);
    }

    /// Calls `post_unpatch`.
    pub(crate) fn post_unpatch(&self, locked: &KlpLocked, id: usize) {
        self.call(c"post_unpatch", self.callbacks.post_unpatch, locked, id);
    }

    #[inline(never)]
    fn call(&self, name: &CStr, callback: StateCallback, locked: &KlpLocked, id: usize) {
        if let (Some(callback), Some(patch)) = (callback, self.patch.get(locked)) {
            trace::callback(name, Of::State(id), callback as usize, || {
                // SAFETY: As in `pre_patch()`.
                unsafe { callback(patch, self.raw.0) };
                0
            });
        }
    }

    /// Returns what undoes the constructor of the shadow variables; [`None`] if the module that it
    /// is in must not be called any more.
    pub(crate) fn shadow_dtor(&self, locked: &KlpLocked) -> Option<Dtor> {
        self.patch
            .is_lent(locked)
            .then_some(self.callbacks.shadow_dtor)
    }
}

type StateCallback =
    Option<unsafe extern "C" fn(*mut bindings::klp_patch, *mut bindings::klp_state)>;

/// Length of the longest name of a state, less NUL.
const MAX_STATE_NAME_LEN: usize = 63;

/// Copies a C string of at most `max` bytes.
///
/// # Safety
///
/// `ptr` must be valid for reads up to a NUL, or for `max + 1` bytes.
unsafe fn copy_string(ptr: *const c_char, max: usize) -> Result<Option<CString>> {
    // SAFETY: By the caller's promise.
    let string = unsafe { borrow_string(ptr, max) };
    Ok(string.map(CString::try_from).transpose()?)
}

/// Returns a C string if it has at most `max` bytes.
///
/// # Safety
///
/// `ptr` must be valid for reads up to a NUL, or for `max + 1` bytes, for `'a`.
unsafe fn borrow_string<'a>(ptr: *const c_char, max: usize) -> Option<&'a CStr> {
    // SAFETY: By the caller's promise.
    let len = unsafe { bindings::strnlen(ptr, max.saturating_add(1)) };
    // SAFETY: The string ends within the bounds.
    (len <= max).then(|| unsafe { CStr::from_char_ptr(ptr) })
}

impl Descriptor<'_> {
    /// Checks `patch` and copies what the core needs of it.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] after a message that says what is wrong, [`ENOMEM`].
    ///
    /// # Safety
    ///
    /// `patch` must be NULL or valid, in the module that calls `klp_enable_patch()`; its pointers
    /// must be NULL or valid, and its arrays terminated, as `include/linux/livepatch.h` describes.
    /// If the livepatch is enabled all of it must stay valid as long as its module.
    pub(crate) unsafe fn parse(patch: *mut bindings::klp_patch) -> Result<Self> {
        let Some(raw) = NonNull::new(patch) else {
            pr_err!("klp_enable_patch() was called without a livepatch\n");
            return Err(EINVAL);
        };
        // SAFETY: By the caller's promise.
        let owner = Arc::new(unsafe { RawPatch::new(raw) }, GFP_KERNEL)?;
        // SAFETY: By the caller's promise; nobody else writes to a descriptor that is not enabled.
        let patch = unsafe { &*patch };
        if patch.mod_.is_null() {
            pr_err!("a livepatch does not say which module it is in\n");
            return Err(EINVAL);
        }
        // SAFETY: By the caller's promise, it is the calling module.
        let module = unsafe { Module::from_raw(patch.mod_) };
        let name = module.name();
        if patch.objs.is_null() {
            pr_err!("livepatch '{}' has no objects\n", name);
            return Err(EINVAL);
        }
        // SAFETY: A module's fields are valid; `klp` is set before its init function runs.
        if !unsafe { (*module.as_ptr()).klp } {
            pr_err!("module {} is not marked as a livepatch module\n", name);
            return Err(EINVAL);
        }
        // When a parameter is set, say: an error on the way from there to the init function would
        // free the module without asking us. There are no klp relocations yet, either.
        //
        // SAFETY: A module's fields are valid.
        if unsafe { (*module.as_ptr()).klp_info }.is_null() {
            pr_err!(
                "livepatch '{}' cannot be enabled before its init function runs\n",
                name
            );
            return Err(EINVAL);
        }

        // SAFETY: By the caller's promise.
        let mut claims = unsafe { Self::parse_states(name, &owner, patch.states) }?;
        // SAFETY: By the caller's promise.
        let types = unsafe { Self::parse_types(name, &owner, patch.shadow_types, &claims) }?;
        for claim in types {
            claims.push(claim, GFP_KERNEL)?;
        }

        let mut objects = KVVec::new();
        let mut obj = patch.objs;
        // SAFETY: The array ends with an entry that has neither functions nor a name.
        while unsafe { !(*obj).funcs.is_null() || !(*obj).name.is_null() } {
            // SAFETY: As above.
            let spec = unsafe { Self::parse_object(name, &owner, &claims, objects.len(), obj) }?;
            if objects
                .iter()
                .any(|other: &ObjectSpec| other.name.as_deref() == spec.name.as_deref())
            {
                pr_err!("livepatch '{}' has two objects '{}'\n", name, spec.label());
                return Err(EEXIST);
            }
            objects.push(spec, GFP_KERNEL)?;
            obj = obj.wrapping_add(1);
        }

        Self::check_destructors(name, &claims, &objects)?;

        // SAFETY: By the caller's promise.
        let sets = unsafe { SetSpec::parse(name, patch) }?;

        Ok(Self {
            raw: owner,
            module,
            replace: sets.is_replacing(),
            sets,
            objects,
            claims,
        })
    }

    /// Reads the states of a livepatch.
    ///
    /// # Safety
    ///
    /// As for [`Self::parse`].
    unsafe fn parse_states(
        patch: &CStr,
        owner: &Arc<RawPatch>,
        mut raw: *mut bindings::klp_state,
    ) -> Result<Claims> {
        let mut claims = Claims::new();
        // SAFETY: The array, if there is one, ends with an entry whose id is 0.
        while !raw.is_null() && unsafe { (*raw).id } != 0 {
            // SAFETY: As above.
            let state = unsafe { &*raw };
            let name = if state.name.is_null() {
                None
            } else {
                // SAFETY: By the caller's promise.
                let Some(name) = unsafe { copy_string(state.name, MAX_STATE_NAME_LEN) }? else {
                    pr_err!(
                        "livepatch '{}': the name of state {} is too long\n",
                        patch,
                        state.id
                    );
                    return Err(EINVAL);
                };
                // A field of a line in debugfs.
                let graphic = name.to_bytes().iter().all(u8::is_ascii_graphic);
                if !graphic || matches!(name.to_bytes(), b"" | b"-") {
                    pr_err!(
                        "livepatch '{}': '{}' cannot be the name of state {}\n",
                        patch,
                        &*name,
                        state.id
                    );
                    return Err(EINVAL);
                }
                Some(name)
            };
            let callbacks = state.callbacks;
            let contract = Contract {
                shadow: state.is_shadow,
                block_disable: state.block_disable,
            };
            let kind = if name.is_some()
                || contract != Contract::default()
                || callbacks.pre_patch.is_some()
                || callbacks.post_patch.is_some()
                || callbacks.pre_unpatch.is_some()
                || callbacks.post_unpatch.is_some()
                || callbacks.shadow_dtor.is_some()
            {
                Kind::Managed(contract)
            } else {
                Kind::Legacy
            };
            let mut same = claims.iter().filter(|claim| claim.id == state.id);
            // 7.3 takes a state twice: both versions limit what can come later.
            if same.any(|first| first.is_managed() || kind != Kind::Legacy) {
                pr_err!("livepatch '{}': state {} is there twice\n", patch, state.id);
                return Err(EINVAL);
            }
            if callbacks.shadow_dtor.is_some() && !state.is_shadow {
                pr_err!(
                    "livepatch '{}': state {} has a shadow_dtor but is not is_shadow\n",
                    patch,
                    state.id
                );
                return Err(EINVAL);
            }
            let source = Source {
                patch: owner.clone(),
                raw: RawState(raw),
                version: state.version,
                name,
                // SAFETY: By the caller's promise.
                user: NonNull::new(unsafe { (*owner.as_ptr()).mod_ })
                    .filter(|_| state.is_shadow)
                    .map(User),
                callbacks,
            };
            claims.push(Claim::new(state.id, kind, source), GFP_KERNEL)?;
            raw = raw.wrapping_add(1);
        }
        Ok(claims)
    }

    /// Reads the shadow types of a livepatch, or of an object of a livepatch with these `states`.
    ///
    /// # Safety
    ///
    /// As for [`Self::parse`].
    unsafe fn parse_types(
        patch: &CStr,
        owner: &Arc<RawPatch>,
        mut types: *mut *mut bindings::klp_shadow_type,
        states: &Claims,
    ) -> Result<Claims> {
        let mut claims = Claims::new();
        // SAFETY: The array, if there is one, ends with NULL.
        while let Some(shadow_type) = unsafe { types.as_ref().and_then(|entry| entry.as_ref()) } {
            let id = shadow_type.id;
            if id == 0 {
                pr_err!("livepatch '{}': a shadow type has the id 0\n", patch);
                return Err(EINVAL);
            }
            if claims.iter().any(|claim| claim.id == id) {
                pr_err!("livepatch '{}': shadow type {} is there twice\n", patch, id);
                return Err(EINVAL);
            }
            if states
                .iter()
                .any(|state| state.id == id && state.is_managed() && !state.is_shadow())
            {
                pr_err!(
                    "livepatch '{}': {} is a shadow type and a state that is not is_shadow\n",
                    patch,
                    id
                );
                return Err(EINVAL);
            }
            let source = Source {
                patch: owner.clone(),
                raw: RawState(core::ptr::null_mut()),
                version: 0,
                name: None,
                user: None,
                callbacks: bindings::klp_state_callbacks {
                    shadow_dtor: shadow_type.dtor,
                    ..Default::default()
                },
            };
            claims.push(Claim::new(id, Kind::Shadow, source), GFP_KERNEL)?;
            types = types.wrapping_add(1);
        }
        Ok(claims)
    }

    /// Checks that whichever of the claims of a livepatch is the last owner, the same is done to
    /// the shadow variables.
    fn check_destructors(patch: &CStr, claims: &Claims, objects: &[ObjectSpec]) -> Result {
        let of_objects = objects.iter().flat_map(|object| object.claims.iter());
        let shadow = Iterator::chain(claims.iter(), of_objects).filter(|claim| claim.is_shadow());
        for claim in shadow.clone() {
            let dtor =
                |claim: &Claim<Source>| claim.data.callbacks.shadow_dtor.map(|dtor| dtor as usize);
            if shadow
                .clone()
                .any(|other| other.id == claim.id && dtor(other) != dtor(claim))
            {
                pr_err!(
                    "livepatch '{}' has two destructors of shadow variables {}\n",
                    patch,
                    claim.id
                );
                return Err(EINVAL);
            }
        }
        Ok(())
    }

    /// Reads an object of a livepatch with these `states`.
    ///
    /// # Safety
    ///
    /// As for [`Self::parse`].
    unsafe fn parse_object(
        patch: &CStr,
        owner: &Arc<RawPatch>,
        states: &Claims,
        index: usize,
        obj: *mut bindings::klp_object,
    ) -> Result<ObjectSpec> {
        // SAFETY: By the caller's promise.
        let (name, funcs, callbacks, types) = unsafe {
            (
                (*obj).name,
                (*obj).funcs,
                (*obj).callbacks,
                (*obj).shadow_types,
            )
        };
        // SAFETY: By the caller's promise.
        let name = unsafe { Self::parse_object_name(patch, index, name) }?;
        let label = name.as_deref().unwrap_or(c"vmlinux");
        // SAFETY: By the caller's promise.
        let funcs = unsafe { Self::parse_funcs(patch, label, funcs) }?;
        // SAFETY: By the caller's promise.
        let claims = unsafe { Self::parse_types(patch, owner, types, states) }?;
        Ok(ObjectSpec {
            raw: RawObject::new(obj, owner),
            name,
            callbacks: Callbacks::new(&callbacks),
            funcs,
            claims,
        })
    }

    /// Reads the name of an object, [`None`] for vmlinux.
    ///
    /// # Safety
    ///
    /// As for [`Self::parse`].
    unsafe fn parse_object_name(
        patch: &CStr,
        index: usize,
        name: *const c_char,
    ) -> Result<Option<CString>> {
        if name.is_null() {
            return Ok(None);
        }
        // SAFETY: By the caller's promise.
        let Some(name) = unsafe { copy_string(name, MAX_OBJECT_LEN) }? else {
            pr_err!(
                "livepatch '{}': the name of object {} is too long\n",
                patch,
                index
            );
            return Err(EINVAL);
        };
        // sysfs would warn about no name and about that of a file of the livepatch, and would not
        // tell vmlinux from the kernel itself.
        if name.is_empty() || &*name == c"vmlinux" || PatchDir::has_file(&name) {
            pr_err!(
                "livepatch '{}': '{}' cannot be the name of an object\n",
                patch,
                &*name
            );
            return Err(EINVAL);
        }
        Ok(Some(name))
    }

    /// Reads the functions of the object that messages call `object`.
    ///
    /// # Safety
    ///
    /// As for [`Self::parse`].
    unsafe fn parse_funcs(
        patch: &CStr,
        object: &CStr,
        mut func: *mut bindings::klp_func,
    ) -> Result<KVVec<FuncSpec>> {
        if func.is_null() {
            pr_err!(
                "livepatch '{}': object '{}' has no functions\n",
                patch,
                object
            );
            return Err(EINVAL);
        }
        let mut specs = KVVec::new();
        // SAFETY: The array ends with an entry that has no name, function or position.
        while let Some(spec) = unsafe { Self::parse_func(patch, object, specs.len(), func) }? {
            specs.push(spec, GFP_KERNEL)?;
            func = func.wrapping_add(1);
        }
        if let Some(func) = find_duplicate(&specs)? {
            pr_err!(
                "livepatch '{}': function '{},{}' of object '{}' is there twice\n",
                patch,
                &*func.name,
                func.position(),
                object
            );
            return Err(EEXIST);
        }
        Ok(specs)
    }

    /// Reads function `index` of the object that messages call `object`; [`None`] behind the last
    /// one.
    ///
    /// # Safety
    ///
    /// As for [`Self::parse`]; `func` must be an entry of the array, or the one that ends it.
    unsafe fn parse_func(
        patch: &CStr,
        object: &CStr,
        index: usize,
        func: *mut bindings::klp_func,
    ) -> Result<Option<FuncSpec>> {
        // SAFETY: By the caller's promise.
        let (old_name, new_func, sympos) =
            unsafe { ((*func).old_name, (*func).new_func, (*func).old_sympos) };
        if old_name.is_null() && new_func.is_null() && sympos == 0 {
            return Ok(None);
        }
        if old_name.is_null() {
            pr_err!(
                "livepatch '{}': function {} of object '{}' has no old_name\n",
                patch,
                index,
                object
            );
            return Err(EINVAL);
        }
        // SAFETY: By the caller's promise.
        let Some(old_name) = (unsafe { borrow_string(old_name, MAX_SYMBOL_LEN) }) else {
            pr_err!(
                "livepatch '{}': the name of function {} of object '{}' is too long\n",
                patch,
                index,
                object
            );
            return Err(EINVAL);
        };
        if old_name.is_empty() {
            pr_err!(
                "livepatch '{}': the name of function {} of object '{}' is empty\n",
                patch,
                index,
                object
            );
            return Err(EINVAL);
        }
        let Some(new_func) = NonNull::new(new_func) else {
            pr_err!(
                "livepatch '{}': function '{}' of object '{}' has no new_func\n",
                patch,
                old_name,
                object
            );
            return Err(EINVAL);
        };
        Ok(Some(FuncSpec {
            raw: RawFunc::new(func)?,
            // SAFETY: The module is held from here on, or no name is left.
            name: unsafe { Name::new(old_name) },
            sympos,
            new_func: new_func.addr(),
        }))
    }
}
