// SPDX-License-Identifier: GPL-2.0-or-later

//! The border to C: the functions of `include/linux/livepatch.h`, and the operations that
//! `resident.c`, which is always in vmlinux, calls.
//!
//! Replaces the exported functions of the C core.

use crate::{
    control,

    lock::KlpLocked,
    modules,
    reloc,
    shadow::{
        self,
        Caller,
        Existing,
        Request,
        Type,
        With, //
    },
    state,
    tasks,
    transition, //
};
use kernel::{
    bindings,
    error::{
        from_result,
        to_result, //
    },
    ffi::{
        c_char,
        c_int,
        c_uint,
        c_ulong,
        c_void, //
    },
    module_ref::Module,
    prelude::*, //
};

/// Makes `resident.c` call the core.
///
/// # Errors
///
/// [`EBUSY`] when another core is registered.
///
/// # Safety
///
/// [`unregister`] must be called before the module goes away.
pub(crate) unsafe fn register() -> Result {
    // SAFETY: The table is constant, and unregistered in time by the caller's promise.
    to_result(unsafe { bindings::klp_register_core(&OPS) })
}

/// Undoes [`register`]. Waits until the core is not called any more.
///
/// # Safety
///
/// The core must be registered.
pub(crate) unsafe fn unregister() {
    // SAFETY: By the caller's promise.
    unsafe { bindings::klp_unregister_core() };
}

static OPS: bindings::klp_core_ops = bindings::klp_core_ops {
    module_coming: Some(module_coming),
    module_going: Some(module_going),
    withdraw: Some(withdraw),
    apply_section_relocs: Some(apply_section_relocs),
    try_switch_current: Some(try_switch_current),
};

/// # Safety
///
/// Called by `resident.c` under `klp_mutex`, with a valid module.
unsafe extern "C" fn module_coming(module: *mut bindings::module) -> c_int {
    // SAFETY: By the contract of the hook.
    unsafe {
        KlpLocked::assume(|locked| {
            from_result(|| modules::coming(locked, Module::from_raw(module)).map(|()| 0))
        })
    }
}

/// # Safety
///
/// Called by `resident.c` under `klp_mutex`, with a valid module.
unsafe extern "C" fn module_going(module: *mut bindings::module) {
    // SAFETY: By the contract of the hook.
    unsafe { KlpLocked::assume(|locked| modules::going(locked, Module::from_raw(module))) }
}

/// # Safety
///
/// Called by `resident.c` under `klp_mutex`, which it has just taken, with a valid module.
unsafe extern "C" fn withdraw(module: *mut bindings::module) -> bool {
    // SAFETY: By the contract of the hook.
    unsafe { KlpLocked::assume_mut(|locked| control::withdraw(locked, Module::from_raw(module))) }
}

/// # Safety
///
/// Called by `resident.c` under `klp_mutex`, with what the module loader has of a livepatch module.
unsafe extern "C" fn apply_section_relocs(
    module: *mut bindings::module,
    sections: *mut bindings::Elf64_Shdr,
    section_names: *const c_char,
    strings: *const c_char,
    symbols_index: c_uint,
    index: c_uint,
    object: *const c_char,
) -> c_int {
    let image = reloc::Image {
        module,
        sections,
        section_names,
        strings,
        symbols_index,
    };
    let object = if object.is_null() {
        c"vmlinux"
    } else {
        // SAFETY: A name that is given is NUL-terminated.
        unsafe { CStr::from_char_ptr(object) }
    };
    // SAFETY: By the contract of the hook.
    from_result(|| unsafe { image.write_section(index, object, true) }.map(|()| 0))
}

/// # Safety
///
/// Called by `resident.c` with preemption disabled.
unsafe extern "C" fn try_switch_current() {
    // SAFETY: By the contract of the hook.
    unsafe { tasks::try_switch_current() };
}

/// Enables the livepatch `patch` of the calling module. Returns 0 or an error.
///
/// # Safety
///
/// As for [`Descriptor::parse`](crate::descriptor::Descriptor::parse). Called from the module's
/// init function.
#[export]
pub(crate) unsafe extern "C" fn klp_enable_patch(patch: *mut bindings::klp_patch) -> c_int {
    // SAFETY: By the caller's promise.
    from_result(|| unsafe { control::enable_patch(patch) }.map(|()| 0))
}

/// Returns the address of section `name` of a livepatch module, and its size in `*size`; NULL and
/// 0 if there is none, or the module is not a livepatch.
///
/// # Safety
///
/// `module` and `size` must be valid, `name` NUL-terminated.
#[export]
pub(crate) unsafe extern "C" fn klp_find_section_by_name(
    module: *const bindings::module,
    name: *const c_char,
    size: *mut usize,
) -> *mut c_void {
    // SAFETY: By the caller's promise.
    let (module, name) = unsafe {
        (
            Module::from_raw(module.cast_mut()),
            CStr::from_char_ptr(name),
        )
    };
    let (addr, len) = reloc::find_section(module, name).unwrap_or((0, 0));
    // SAFETY: By the caller's promise.
    unsafe { size.write(len) };
    addr as *mut c_void
}

/// Returns the state `id` of `patch`, or NULL.
///
/// # Safety
///
/// `patch` must be valid. Called by the livepatch itself.
#[export]
pub(crate) unsafe extern "C" fn klp_get_state(
    patch: *mut bindings::klp_patch,
    id: c_ulong,
) -> *mut bindings::klp_state {
    // SAFETY: By the caller's promise.
    let mut state = unsafe { (*patch).states };
    if state.is_null() {
        return state;
    }
    // SAFETY: The array ends with an entry whose id is 0.
    while unsafe { (*state).id } != 0 {
        // SAFETY: As above.
        if unsafe { (*state).id } == id {
            return state;
        }
        state = state.wrapping_add(1);
    }
    ::core::ptr::null_mut()
}

/// Returns the state `id` of the newest livepatch that was enabled before the one in transition,
/// or NULL.
///
/// # Safety
///
/// Called from callbacks of a livepatch only: under `klp_mutex`, and while the core only reads.
#[export]
pub(crate) unsafe extern "C" fn klp_get_prev_state(id: c_ulong) -> *mut bindings::klp_state {
    // SAFETY: By the caller's promise.
    let state = unsafe {
        KlpLocked::assume(|locked| {
            let current = transition::current(locked);
            kernel::warn_on_once!(current.is_none());
            state::previous(locked, current?, id)
        })
    };
    state.map_or(::core::ptr::null_mut(), |state| state.0)
}

/// Returns the data of the shadow variable `<obj, id>`, or NULL.
///
/// # Safety
///
/// None, but that the caller keeps the variable from being freed.
#[export]
pub(crate) unsafe extern "C" fn klp_shadow_get(obj: *mut c_void, id: c_ulong) -> *mut c_void {
    shadow::get(obj, id)
}

/// Adds the shadow variable `<obj, id>` of `size` zeroed bytes, initialised by `ctor` if given.
/// Returns its data; NULL, after a warning, if there is one already, and on an error.
///
/// Whoever calls it has to free the variable, whatever livepatches declare.
///
/// # Safety
///
/// `ctor` must be callable with interrupts off.
#[export]
pub(crate) unsafe extern "C" fn klp_shadow_alloc(
    obj: *mut c_void,
    id: c_ulong,
    size: usize,
    gfp_flags: bindings::gfp_t,
    ctor: bindings::klp_shadow_ctor_t,
    ctor_data: *mut c_void,
) -> *mut c_void {
    // SAFETY: By the caller's promise.
    unsafe { klp_shadow_alloc_from(0, obj, id, size, gfp_flags, ctor, ctor_data) }
}

/// As `klp_shadow_alloc()`, which is a macro for it in C; `ip` is an address in the calling code.
/// In a livepatch that has the state `id`, with `is_shadow`, the variable belongs to the state.
///
/// # Safety
///
/// As for `klp_shadow_alloc()`.
#[export]
pub(crate) unsafe extern "C" fn klp_shadow_alloc_from(
    ip: c_ulong,
    obj: *mut c_void,
    id: c_ulong,
    size: usize,
    gfp_flags: bindings::gfp_t,
    ctor: bindings::klp_shadow_ctor_t,
    ctor_data: *mut c_void,
) -> *mut c_void {
    let with = With::Id(Caller(ip));
    let request = Request::new(with, size, gfp_flags, ctor, ctor_data, Existing::Warn);
    // SAFETY: By the caller's promise.
    unsafe { shadow::get_or_alloc(obj, id, &request) }
}

/// Returns the data of the shadow variable `<obj, id>`, which is added as `klp_shadow_alloc()` does
/// if there is none; NULL on an error.
///
/// # Safety
///
/// `ctor` must be callable with interrupts off.
#[export]
pub(crate) unsafe extern "C" fn klp_shadow_get_or_alloc(
    obj: *mut c_void,
    id: c_ulong,
    size: usize,
    gfp_flags: bindings::gfp_t,
    ctor: bindings::klp_shadow_ctor_t,
    ctor_data: *mut c_void,
) -> *mut c_void {
    // SAFETY: By the caller's promise.
    unsafe { klp_shadow_get_or_alloc_from(0, obj, id, size, gfp_flags, ctor, ctor_data) }
}

/// As `klp_shadow_get_or_alloc()`, with `ip` as in `klp_shadow_alloc_from()`. A variable that is
/// there already belongs to whom it did.
///
/// # Safety
///
/// As for `klp_shadow_get_or_alloc()`.
#[export]
pub(crate) unsafe extern "C" fn klp_shadow_get_or_alloc_from(
    ip: c_ulong,
    obj: *mut c_void,
    id: c_ulong,
    size: usize,
    gfp_flags: bindings::gfp_t,
    ctor: bindings::klp_shadow_ctor_t,
    ctor_data: *mut c_void,
) -> *mut c_void {
    let with = With::Id(Caller(ip));
    let request = Request::new(with, size, gfp_flags, ctor, ctor_data, Existing::Return);
    // SAFETY: By the caller's promise.
    unsafe { shadow::get_or_alloc(obj, id, &request) }
}

/// Frees the shadow variable `<obj, id>`, if there is one.
///
/// # Safety
///
/// `dtor` must be callable with interrupts off.
#[export]
pub(crate) unsafe extern "C" fn klp_shadow_free(
    obj: *mut c_void,
    id: c_ulong,
    dtor: bindings::klp_shadow_dtor_t,
) {
    // SAFETY: By the caller's promise.
    unsafe { shadow::free(obj, id, dtor) }
}

/// Frees all shadow variables with `id`, but those that belong to livepatches which declare it.
///
/// # Safety
///
/// `dtor` must be callable with interrupts off.
#[export]
pub(crate) unsafe extern "C" fn klp_shadow_free_all(
    id: c_ulong,
    dtor: bindings::klp_shadow_dtor_t,
) {
    // SAFETY: By the caller's promise.
    unsafe { klp_shadow_free_all_from(0, id, dtor) }
}

/// As `klp_shadow_free_all()`, with `ip` as in `klp_shadow_alloc_from()`: from a livepatch with the
/// state it frees all.
///
/// # Safety
///
/// As for `klp_shadow_free_all()`.
#[export]
pub(crate) unsafe extern "C" fn klp_shadow_free_all_from(
    ip: c_ulong,
    id: c_ulong,
    dtor: bindings::klp_shadow_dtor_t,
) {
    // SAFETY: By the caller's promise.
    unsafe { shadow::free_all(id, dtor, With::Id(Caller(ip))) }
}

/// Returns the data of the shadow variable of `obj` with a type, or NULL.
///
/// # Safety
///
/// The type must be valid, or NULL; the caller must keep the variable from being freed.
#[export]
pub(crate) unsafe extern "C" fn klp_shadow_type_get(
    obj: *mut c_void,
    type_: *const bindings::klp_shadow_type,
) -> *mut c_void {
    // SAFETY: By the caller's promise.
    match unsafe { Type::read(type_) } {
        Some(type_) => shadow::get(obj, type_.id),
        None => ::core::ptr::null_mut(),
    }
}

/// Returns the data of a new shadow variable with a type, or as `existing` says of the one that is
/// there; NULL, after a message, if no livepatch declares the type.
///
/// # Safety
///
/// As for `klp_shadow_type_get()`; the type's constructor must be callable with interrupts off.
unsafe fn alloc_with_type(
    obj: *mut c_void,
    type_: *const bindings::klp_shadow_type,
    size: usize,
    gfp: bindings::gfp_t,
    ctor_data: *mut c_void,
    existing: Existing,
) -> *mut c_void {
    // SAFETY: By the caller's promise.
    let Some(type_) = (unsafe { Type::read(type_) }) else {
        return ::core::ptr::null_mut();
    };
    let request = Request::new(With::Type, size, gfp, type_.ctor, ctor_data, existing);
    // SAFETY: By the caller's promise.
    unsafe { shadow::get_or_alloc(obj, type_.id, &request) }
}

/// Adds a shadow variable with a type, as `klp_shadow_alloc()` does with its id and constructor.
///
/// Refused, with a message, if no livepatch declares the type.
///
/// # Safety
///
/// As for `klp_shadow_type_get()`; the type's constructor must be callable with interrupts off.
#[export]
pub(crate) unsafe extern "C" fn klp_shadow_type_alloc(
    obj: *mut c_void,
    type_: *const bindings::klp_shadow_type,
    size: usize,
    gfp_flags: bindings::gfp_t,
    ctor_data: *mut c_void,
) -> *mut c_void {
    // SAFETY: By the caller's promise.
    unsafe { alloc_with_type(obj, type_, size, gfp_flags, ctor_data, Existing::Warn) }
}

/// Returns the data of a shadow variable with a type, as `klp_shadow_get_or_alloc()` does with its
/// id and constructor.
///
/// Refused, with a message, if no livepatch declares the type.
///
/// # Safety
///
/// As for `klp_shadow_type_get()`; the type's constructor must be callable with interrupts off.
#[export]
pub(crate) unsafe extern "C" fn klp_shadow_type_get_or_alloc(
    obj: *mut c_void,
    type_: *const bindings::klp_shadow_type,
    size: usize,
    gfp_flags: bindings::gfp_t,
    ctor_data: *mut c_void,
) -> *mut c_void {
    // SAFETY: By the caller's promise.
    unsafe { alloc_with_type(obj, type_, size, gfp_flags, ctor_data, Existing::Return) }
}

/// Frees the shadow variable of `obj` with a type, if there is one.
///
/// # Safety
///
/// As for `klp_shadow_type_get()`; the type's destructor must be callable with interrupts off.
#[export]
pub(crate) unsafe extern "C" fn klp_shadow_type_free(
    obj: *mut c_void,
    type_: *const bindings::klp_shadow_type,
) {
    // SAFETY: By the caller's promise.
    if let Some(type_) = unsafe { Type::read(type_) } {
        // SAFETY: By the caller's promise.
        unsafe { shadow::free(obj, type_.id, type_.dtor) }
    }
}

/// Frees all shadow variables that were made with a type.
///
/// # Safety
///
/// As for `klp_shadow_type_free()`.
#[export]
pub(crate) unsafe extern "C" fn klp_shadow_type_free_all(type_: *const bindings::klp_shadow_type) {
    // SAFETY: By the caller's promise.
    if let Some(type_) = unsafe { Type::read(type_) } {
        // SAFETY: By the caller's promise.
        unsafe { shadow::free_all(type_.id, type_.dtor, With::Type) }
    }
}
