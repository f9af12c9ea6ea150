// SPDX-License-Identifier: GPL-2.0-or-later

//! A livepatch.
//!
//! Replaces `struct klp_patch`, and the code of `core.c` that sets it up and frees it:
//! `klp_init_patch()`, `klp_free_patch_start()` and `klp_free_patch_finish()`.

use crate::{
    descriptor::{
        Claims,
        Descriptor, //
    },
    held,
    lock::{
        KlpLocked,
        LockedBy,
        LockedCell, //
    },
    object::{
        add_nops,
        Object, //
    },
    raw::RawPatch,
    reloc,
    set_spec::SetSpec,
    stack_check::StackCheck,
    sysfs::{
        PatchDir,
        Requests, //
    }, //
};
use kernel::{
    impl_has_work,
    kobject::{
        Dir,
        Parent, //
    },
    module_ref::{
        Module,
        Ref, //
    },
    new_work,
    prelude::*,
    str::CString,
    sync::{
        atomic::ordering::Relaxed,
        Arc, //
    },
    workqueue::Work, //
};

/// A livepatch.
#[pin_data]
pub(crate) struct Patch {
    pub(crate) raw: Arc<RawPatch>,
    pub(crate) name: CString,
    /// The name as a variable of uevents, for which the core allocates nothing later.
    variable: CString,
    pub(crate) replace: bool,
    pub(crate) sets: SetSpec,
    /// The states, and the shadow variables that belong to no object.
    pub(crate) claims: LockedBy<Claims>,
    /// The objects of the descriptor, then those that an atomic replace added.
    pub(crate) objects: LockedBy<KVVec<Object>>,
    /// What tasks must not run to be switched from or to this patch.
    pub(crate) check: StackCheck,
    enabled: LockedCell<bool>,
    /// Some task may run the code of this patch for ever: its module is never let go.
    forced: LockedCell<bool>,
    dir: LockedBy<Option<Dir<PatchDir>>>,
    module: LockedBy<Option<Ref>>,
    #[pin]
    work: Work<Patch>,
}

impl_has_work! {
    impl HasWork<Self> for Patch { self.work }
}

impl Patch {
    /// Makes a patch, with nops for what the patches in `replaced` change and it does not, and
    /// with all functions of loaded objects found. Nothing outside has changed on an error.
    pub(crate) fn new(
        locked: &KlpLocked,
        desc: Descriptor<'_>,
        replaced: &[Arc<Patch>],
    ) -> Result<Arc<Self>> {
        let module = desc.module.try_get().ok_or(ENODEV)?;
        let mut objects = KVVec::with_capacity(desc.objects.len(), GFP_KERNEL)?;
        for spec in desc.objects {
            objects.push(Object::new(spec)?, GFP_KERNEL)?;
        }
        for old in replaced {
            for old_object in old.objects.borrow(locked) {
                add_nops(&mut objects, old_object)?;
            }
        }
        for object in &objects {
            object.find_module(locked);
            if object.is_loaded(locked) {
                object.resolve(locked, desc.module)?;
            }
        }

        let name = CString::try_from(desc.module.name())?;
        let variable = CString::try_from_fmt(fmt!("KLP_PATCH={}", desc.module.name()))?;
        // There will be no more functions.
        let funcs = objects.iter().map(|object| object.funcs.len());
        let nr_funcs = funcs.fold(0, usize::saturating_add);
        let check = StackCheck::new(nr_funcs)?;
        Arc::pin_init(
            try_pin_init!(Self {
                raw: desc.raw,
                name,
                variable,
                replace: desc.replace,
                sets: desc.sets,
                claims: LockedBy::new(desc.claims),
                objects: LockedBy::new(objects),
                check,
                enabled: LockedCell::new(false),
                forced: LockedCell::new(false),
                dir: LockedBy::new(None),
                module: LockedBy::new(Some(module)),
                work <- new_work!("livepatch::free"),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// Fills in what `include/linux/livepatch.h` offers the livepatch to read.
    pub(crate) fn show(&self, locked: &KlpLocked) {
        let objects = self.objects.borrow(locked);
        self.raw.reset(locked);
        self.raw.list(
            locked,
            objects.iter().filter_map(|object| object.raw.as_ref()),
        );
        for object in objects {
            object.show(locked);
        }
    }

    /// Takes back the lists, which lead to objects that the core is about to forget.
    fn hide(&self, locked: &KlpLocked) {
        for object in self.objects.borrow(locked) {
            if let Some(raw) = &object.raw {
                raw.list(locked, core::iter::empty());
            }
        }
        self.raw.list(locked, core::iter::empty());
    }

    /// Whether the patch is in `module`.
    pub(crate) fn is_in(&self, locked: &KlpLocked, module: &Module) -> bool {
        let own = self.module.borrow(locked).as_ref();
        own.is_some_and(|own| core::ptr::eq(own.as_ptr(), module.as_ptr()))
    }

    /// Whether the module of the patch is to be freed, enabled or not: it must be undone, and
    /// nothing of the module be called.
    pub(crate) fn is_withdrawn(&self, locked: &KlpLocked) -> bool {
        !self.raw.is_lent(locked)
    }

    /// Creates the directories of the patch, its objects and its functions.
    ///
    /// On an error what was created is left to [`Self::free_start`] and [`Self::free_finish`]: the
    /// files of the patch take the mutex, so that the directory cannot be removed under it.
    pub(crate) fn add_dirs(
        &self,
        locked: &mut KlpLocked,
        root: &dyn Parent,
        requests: &'static Requests,
    ) -> Result {
        let dir = Dir::new(
            root,
            &self.name,
            PatchDir::new(self.raw.id(), self.replace, &self.sets, requests)?,
        )?;
        let added = self
            .objects
            .borrow_mut(locked)
            .iter_mut()
            .try_for_each(|object| object.add_dirs(&dir));
        *self.dir.borrow_mut(locked) = Some(dir);
        added
    }

    /// Whether the patch is enabled; the transition may be incomplete.
    pub(crate) fn is_enabled(&self, locked: &KlpLocked) -> bool {
        self.enabled.get(locked)
    }

    /// Records whether the patch is enabled, for sysfs and the module too.
    pub(crate) fn set_enabled(&self, locked: &KlpLocked, enabled: bool) {
        self.enabled.set(locked, enabled);
        if let Some(dir) = self.dir.borrow(locked) {
            dir.enabled.store(enabled, Relaxed);
            dir.notify(c"enabled");
        }
        self.raw.set_enabled(locked, enabled);
    }

    /// Wakes those who wait for a change of the file `name` in the directory of the patch.
    pub(crate) fn notify(&self, locked: &KlpLocked, name: &CStr) {
        if let Some(dir) = self.dir.borrow(locked) {
            dir.notify(name);
        }
    }

    /// Sends a uevent about the module of the patch, with two variables besides its name.
    pub(crate) fn change_event(&self, locked: &KlpLocked, variables: [&CStr; 2]) {
        let [first, second] = variables;
        // A module that is about to be freed may have left sysfs.
        if let (Some(module), false) = (self.module.borrow(locked), self.is_withdrawn(locked)) {
            // SAFETY: The module has called `klp_enable_patch()`, so that it is in its init
            // function or behind it. It is held, and so not gone.
            unsafe { module.change_event([&self.variable, first, second]) };
        }
    }

    /// Whether some task may run the code of this patch for ever.
    pub(crate) fn is_forced(&self, locked: &KlpLocked) -> bool {
        self.forced.get(locked)
    }

    /// Keeps the module for ever.
    pub(crate) fn set_forced(&self, locked: &KlpLocked) {
        self.forced.set(locked, true);
        self.raw.set_forced(locked);
    }

    /// Applies the relocations that refer to the modules that are loaded.
    pub(crate) fn relocate(&self, locked: &KlpLocked) -> Result {
        for object in self.objects.borrow(locked) {
            if object.module_name().is_some() && object.is_loaded(locked) {
                self.relocate_object(locked, object)?;
            }
        }
        Ok(())
    }

    /// Applies the relocations that refer to the module of `object`.
    pub(crate) fn relocate_object(&self, locked: &KlpLocked, object: &Object) -> Result {
        let (Some(module), Some(name)) = (self.module.borrow(locked), object.module_name()) else {
            return Ok(());
        };
        reloc::apply_object(module, name)
    }

    /// Finds all functions of the loaded object `object`.
    pub(crate) fn resolve_object(&self, locked: &KlpLocked, object: &Object) -> Result {
        let module = self.module.borrow(locked).as_ref().ok_or(ENODEV)?;
        object.resolve(locked, module)?;
        object.show_code(locked);
        Ok(())
    }

    /// Undoes [`Self::relocate_object`].
    ///
    /// # Safety
    ///
    /// That must have succeeded, and no task may run code that needs the relocations.
    pub(crate) unsafe fn clear_relocations(&self, locked: &KlpLocked, object: &Object) {
        if let (Some(module), Some(name)) = (self.module.borrow(locked), object.module_name()) {
            // SAFETY: By the caller's promise.
            unsafe { reloc::clear_object(module, name) };
        }
    }

    /// Removes the nops of an atomic replace, and the objects that only held nops. No handler may
    /// be able to see them any more.
    pub(crate) fn drop_nops(&self, locked: &mut KlpLocked) {
        let objects = self.objects.borrow_mut(locked);
        for object in objects.iter_mut() {
            object.funcs.retain(|func| !func.is_nop());
        }
        objects.retain(|object| !object.is_dynamic());
    }

    /// First half of the end of a patch, under the mutex: removes the directories of objects and
    /// functions.
    pub(crate) fn free_start(&self, locked: &mut KlpLocked) {
        self.hide(locked);
        drop(core::mem::take(self.objects.borrow_mut(locked)));
    }

    /// Second half, without the mutex: waits until the patch is gone from sysfs, whose files take
    /// the mutex, and lets the module go.
    pub(crate) fn free_finish(&self) {
        let dir = self.dir.borrow_mut(&mut crate::lock::lock()).take();
        // Waits for those who are in a file of it.
        drop(dir);
        let mut locked = crate::lock::lock();
        self.raw.take_back(&locked);
        let module = self.module.borrow_mut(&mut locked).take();
        if self.forced.get(&locked) {
            core::mem::forget(module);
        } else if let Some(module) = module {
            held::let_go(&mut locked, module);
        }
    }
}

impl kernel::workqueue::WorkItem for Patch {
    type Pointer = Arc<Patch>;

    fn run(this: Arc<Patch>) {
        this.free_finish();
    }
}
