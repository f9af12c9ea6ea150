// SPDX-License-Identifier: GPL-2.0

//! References to kernel modules.
//!
//! Not a part of `module.rs`, which is about the module that a crate is: [`ThisModule`] needs no
//! reference, as it is there for as long as its code runs. These are other modules, which come and
//! go; they can be in any stage of their life, and not even be in Rust.
//!
//! [`ThisModule`]: crate::ThisModule
//!
//! C header: [`include/linux/module.h`](srctree/include/linux/module.h)

use crate::{
    bindings,
    prelude::*,
    str::CStrExt as _,
    sync::rcu,
    types::Opaque, //
};
use core::{
    ops::Range,
    ptr::NonNull, //
};

// `bindgen` has got the layout of large structs wrong before.
#[cfg(CONFIG_LIVEPATCH)]
const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(bindings::module, mem) == bindings::MODULE_MEM);
    assert!(offset_of!(bindings::module, mkobj) == bindings::MODULE_MKOBJ);
    assert!(offset_of!(bindings::module, klp_alive) == bindings::MODULE_KLP_ALIVE);
    assert!(offset_of!(bindings::module, klp_info) == bindings::MODULE_KLP_INFO);
};

const MEMORY_TYPES: usize = bindings::mod_mem_type_MOD_MEM_NUM_TYPES as usize;

/// A module in some stage of its life.
///
/// Wraps `struct module`.
#[repr(transparent)]
pub struct Module(Opaque<bindings::module>);

impl Module {
    /// Makes a reference from a C pointer.
    ///
    /// # Safety
    ///
    /// `ptr` must be a valid module for all of `'a`.
    #[inline]
    pub unsafe fn from_raw<'a>(ptr: *mut bindings::module) -> &'a Self {
        // SAFETY: `Self` is transparent, the rest is what the caller promises.
        unsafe { &*ptr.cast() }
    }

    /// Returns the C pointer.
    #[inline]
    pub fn as_ptr(&self) -> *mut bindings::module {
        self.0.get()
    }

    /// Returns the module's name.
    #[inline]
    pub fn name(&self) -> &CStr {
        // SAFETY: A module's name is NUL-terminated and never changes.
        unsafe { CStr::from_char_ptr((&raw const (*self.as_ptr()).name).cast()) }
    }

    /// Returns the ranges of addresses that hold the module's code and data.
    ///
    /// While the module is not fully loaded, or going, some of them may be empty.
    #[inline]
    pub fn memory(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        // SAFETY: The fields of a module are valid.
        let memory = unsafe { &raw mut (*self.as_ptr()).mem }.cast::<bindings::module_memory>();
        (0..MEMORY_TYPES).map(move |i| {
            // SAFETY: There are as many. What is only needed for the module's initialisation may be
            // let go meanwhile: like READ_ONCE(), and whoever uses the range is prepared for an
            // address that is not in it.
            let (base, size) = unsafe {
                let memory = memory.add(i);
                (
                    (&raw const (*memory).base).read_volatile(),
                    (&raw const (*memory).size).read_volatile(),
                )
            };
            let start = base.addr();
            start..start.saturating_add(size as usize)
        })
    }

    /// Finds a module by its name.
    ///
    /// Mirrors `find_module()`.
    #[inline]
    pub fn find<'rcu>(name: &CStr, _guard: &'rcu rcu::Guard) -> Option<&'rcu Self> {
        // SAFETY: RCU is held, `name` is NUL-terminated.
        let ptr = unsafe { bindings::find_module(name.as_char_ptr()) };
        // SAFETY: A module that is found is freed only after a grace period.
        (!ptr.is_null()).then(|| unsafe { Self::from_raw(ptr) })
    }

    /// Returns whether the module has been announced to the livepatch core, and is not leaving yet.
    ///
    /// Changes only under `klp_mutex`.
    #[cfg(CONFIG_LIVEPATCH)]
    #[inline]
    pub fn is_klp_alive(&self) -> bool {
        // SAFETY: `self` is a valid module.
        unsafe { (&raw const (*self.as_ptr()).klp_alive).read_volatile() }
    }

    /// Sends a `change` event about the module to user space, with these variables: `NAME=value`.
    ///
    /// Mirrors `kobject_uevent_env()` with `KOBJ_CHANGE`. May sleep. Nobody is told why there was
    /// no event: who listens can miss some in any case.
    ///
    /// # Safety
    ///
    /// The module must be in sysfs and stay there meanwhile: between the calls of its init and exit
    /// functions, or in them.
    pub unsafe fn change_event(&self, env: [&CStr; 3]) {
        let [a, b, c] = env.map(|var| var.as_char_ptr().cast_mut());
        let mut env = [a, b, c, core::ptr::null_mut()];
        // SAFETY: The object is initialised by the caller's promise. The list ends with NULL; the
        // strings, which are copied, with NUL.
        unsafe {
            bindings::kobject_uevent_env(
                &raw mut (*self.as_ptr()).mkobj.kobj,
                bindings::kobject_action_KOBJ_CHANGE,
                env.as_mut_ptr(),
            )
        };
    }

    /// Takes a reference that keeps the module from being unloaded.
    ///
    /// Mirrors `try_module_get()`. [`None`] means that it is already on its way out.
    #[inline]
    pub fn try_get(&self) -> Option<Ref> {
        // SAFETY: `self` is a valid module.
        let live = unsafe { bindings::try_module_get(self.as_ptr()) };
        let ptr = NonNull::new(self.as_ptr())?;
        // INVARIANT: The reference was just taken.
        live.then_some(Ref(ptr))
    }
}

/// A counted reference to a live [`Module`].
///
/// # Invariants
///
/// The pointer is to a module of which `self` owns one reference.
pub struct Ref(NonNull<bindings::module>);

// SAFETY: Module references are counted atomically and tied to no thread.
unsafe impl Send for Ref {}
// SAFETY: As above.
unsafe impl Sync for Ref {}

impl core::ops::Deref for Ref {
    type Target = Module;

    #[inline]
    fn deref(&self) -> &Module {
        // SAFETY: By the type invariant the module is valid for as long as `self`.
        unsafe { Module::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for Ref {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariant there is a reference to give back.
        unsafe { bindings::module_put(self.0.as_ptr()) };
    }
}
