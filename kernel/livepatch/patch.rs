// SPDX-License-Identifier: GPL-2.0-or-later

//! A livepatch, its objects and its functions.
//!
//! Replaces `struct klp_patch`, `klp_object` and `klp_func`, and the code of `core.c` that
//! sets them up: `klp_init_patch()` and what it calls, and `klp_add_nops()`.

use crate::{
    descriptor::{
        Claims,
        Descriptor,
        FuncSpec,
        ObjectSpec, //
    },
    func_stack::{
        Code,
        FuncVersion, //
    },
    held::{
        self,
        ModulePtr, //
    },
    lock::{
        KlpLocked,
        LockedBy,
        LockedCell, //
    },
    lookup::{
        self,
        Extent,
        Sizes,
        Symbols, //
    },
    raw::{
        Callbacks,
        Name,
        RawFunc,
        RawObject,
        RawPatch, //
    },
    reloc,
    set_spec::SetSpec,
    sort::sort_by_key,
    stack_check::StackCheck,
    sysfs::{
        FuncDir,
        ObjectDir,
        PatchDir,
        Requests, //
    }, //
};
use kernel::{
    bindings,
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
    str::{
        CStr,
        CString, //
    },
    sync::{
        atomic::ordering::Relaxed,
        rcu,
        Arc, //
    },
    workqueue::Work, //
};

/// A function that a livepatch changes.
pub(crate) struct Func {
    /// The module's descriptor; [`None`] for a nop.
    raw: Option<RawFunc>,
    pub(crate) name: Name,
    /// Which of several symbols of this name, from 1; 0 if there must be only one.
    pub(crate) sympos: usize,
    /// Whether another func of the object has the same original function, under another name, so
    /// that there is nothing left to do for this nop.
    covered: LockedCell<bool>,
    /// The original function, while its object is loaded.
    pub(crate) old: LockedCell<Option<Extent>>,
    /// The ftrace location of the original function, once it was patched.
    pub(crate) ip: LockedCell<usize>,
    /// This func on its func stack.
    pub(crate) version: Arc<FuncVersion>,
    dir: Option<Dir<FuncDir>>,
}

impl Func {
    fn new(raw: Option<RawFunc>, name: Name, sympos: usize, runs: Code) -> Result<Self> {
        Ok(Self {
            raw,
            name,
            sympos,
            covered: LockedCell::new(false),
            old: LockedCell::new(None),
            ip: LockedCell::new(0),
            version: FuncVersion::new(runs)?,
            dir: None,
        })
    }

    /// What no other function of the object has: position 0 is position 1.
    fn key(&self) -> (&[u8], usize) {
        (self.name.to_bytes(), self.sympos.max(1))
    }

    /// Whether an atomic replace added the func, to run the original function.
    pub(crate) fn is_nop(&self) -> bool {
        self.version.runs() == Code::Original
    }

    /// Whether the func must stay off the func stack, which another func of the object is on.
    pub(crate) fn is_covered(&self, locked: &KlpLocked) -> bool {
        self.covered.get(locked)
    }
}

/// A part of the kernel that a livepatch changes: vmlinux or a module.
pub(crate) struct Object {
    /// The module's descriptor; [`None`] when an atomic replace added the object.
    raw: Option<RawObject>,
    name: Option<CString>,
    callbacks: Callbacks,
    /// Whether `pre_patch` succeeded, so that `post_unpatch` is due.
    post_unpatch_due: LockedCell<bool>,
    /// The loaded module, NULL for none and for vmlinux.
    module: LockedCell<ModulePtr>,
    pub(crate) patched: LockedCell<bool>,
    pub(crate) funcs: KVVec<Func>,
    /// The shadow variables that belong to the object; held while it is loaded.
    pub(crate) claims: Claims,
    dir: Option<Dir<ObjectDir>>,
}

impl Object {
    fn new(spec: ObjectSpec) -> Result<Self> {
        let mut funcs = KVVec::with_capacity(spec.funcs.len(), GFP_KERNEL)?;
        for FuncSpec {
            raw,
            name,
            sympos,
            new_func,
        } in spec.funcs
        {
            let runs = Code::At(new_func);
            funcs.push(Func::new(Some(raw), name, sympos, runs)?, GFP_KERNEL)?;
        }
        Ok(Self {
            raw: Some(spec.raw),
            callbacks: spec.callbacks,
            claims: spec.claims,
            ..Self::empty(spec.name, funcs)
        })
    }

    fn empty(name: Option<CString>, funcs: KVVec<Func>) -> Self {
        Self {
            raw: None,
            name,
            callbacks: Callbacks::default(),
            post_unpatch_due: LockedCell::new(false),
            module: LockedCell::new(ModulePtr(core::ptr::null_mut())),
            patched: LockedCell::new(false),
            funcs,
            claims: Claims::new(),
            dir: None,
        }
    }

    /// The module's name, [`None`] for vmlinux.
    pub(crate) fn module_name(&self) -> Option<&CStr> {
        self.name.as_deref()
    }

    /// What messages and sysfs call the object.
    pub(crate) fn label(&self) -> &CStr {
        self.module_name().unwrap_or(c"vmlinux")
    }

    /// Whether an atomic replace added the object.
    pub(crate) fn is_dynamic(&self) -> bool {
        self.raw.is_none()
    }

    /// Whether both mean the same module, or vmlinux.
    pub(crate) fn is_same(&self, other: &Object) -> bool {
        self.module_name() == other.module_name()
    }

    /// Whether the functions of the object can be called at this time.
    pub(crate) fn is_loaded(&self, locked: &KlpLocked) -> bool {
        self.name.is_none() || !self.module.get(locked).0.is_null()
    }

    /// Binds the object to its module, or to none.
    pub(crate) fn bind(&self, locked: &KlpLocked, module: *mut bindings::module) {
        self.module.set(locked, ModulePtr(module));
        self.show_module(locked);
    }

    /// Tells the livepatch which module the object is bound to.
    fn show_module(&self, locked: &KlpLocked) {
        if let Some(raw) = &self.raw {
            raw.set_module(locked, self.module.get(locked).0);
        }
    }

    /// Tells the livepatch where the functions are, if they are anywhere.
    fn show_code(&self, locked: &KlpLocked) {
        for (object, func) in self.raw_funcs() {
            let code = (func.old.get(locked), func.version.code(locked));
            let code = match code {
                (Some(old), Some(new)) => Some([old, new]),
                _ => None,
            };
            if let Some(raw) = func.raw {
                raw.set_code(locked, object, code);
            }
        }
    }

    /// The funcs that the descriptor has, with what it has for the object.
    fn raw_funcs(&self) -> impl Iterator<Item = (&RawObject, &Func)> {
        let funcs = self.funcs.iter().filter(|func| func.raw.is_some());
        self.raw
            .iter()
            .flat_map(move |raw| funcs.clone().map(move |func| (raw, func)))
    }

    /// Tells the livepatch that nothing of the object is patched, and what there is of it.
    fn show(&self, locked: &KlpLocked) {
        let Some(raw) = &self.raw else { return };
        raw.list(locked, self.funcs.iter().filter_map(|func| func.raw));
        raw.set_patched(locked, false);
        for func in self.funcs.iter().filter_map(|func| func.raw) {
            func.reset(locked, raw);
        }
        self.show_module(locked);
        self.show_code(locked);
    }

    /// Tells the livepatch whether `func`, of this object, is on its func stack.
    pub(crate) fn show_patched(&self, locked: &KlpLocked, func: &Func, patched: bool) {
        if let (Some(object), Some(func)) = (&self.raw, func.raw) {
            func.set_patched(locked, object, patched);
        }
    }

    /// Tells the livepatch whether `func`, of this object, is in transition.
    pub(crate) fn show_transition(&self, locked: &KlpLocked, func: &Func, transition: bool) {
        if let (Some(object), Some(func)) = (&self.raw, func.raw) {
            func.set_transition(locked, object, transition);
        }
    }

    /// Binds the object to its module if that is loaded and has been announced to us.
    ///
    /// A module in state GOING still counts until `klp_module_going()`: its functions run until
    /// its exit function returns.
    fn find_module(&self, locked: &KlpLocked) {
        let Some(name) = self.module_name() else {
            return;
        };
        let guard = rcu::read_lock();
        let module = Module::find(name, &guard)
            .filter(|module| module.is_klp_alive())
            .map_or(core::ptr::null_mut(), Module::as_ptr);
        // Once `klp_alive` was seen under the mutex, the module stays until klp_module_going().
        self.module.set(locked, ModulePtr(module));
    }

    /// The module that the object is bound to.
    fn module<'a>(&self, locked: &'a KlpLocked) -> Option<&'a Module> {
        let module = self.module.get(locked).0;
        // SAFETY: A module that is bound stays at least as long as the mutex is held.
        (!module.is_null()).then(|| unsafe { Module::from_raw(module) })
    }

    /// Finds all functions, old and new, of a loaded object of `livepatch`. Changes nothing outside
    /// of the patch.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] when there is no such function, or when it is another one of the object under
    /// another name, and [`ENOENT`] when its size is unknown, all after a message; [`ENOMEM`].
    fn resolve(&self, locked: &KlpLocked, livepatch: &Module) -> Result {
        let funcs = self.funcs.iter();
        let wanted = funcs.map(|func| (func.name.to_bytes(), func.sympos));
        let symbols = self
            .module_name()
            .map(|name| Symbols::find(name, wanted))
            .transpose()?;
        let found = symbols.iter().flat_map(Symbols::addresses);
        let old_sizes = Sizes::find(self.module(locked), found)?;
        let new = self
            .funcs
            .iter()
            .filter_map(|func| match func.version.runs() {
                Code::Original => None,
                Code::At(addr) => Some(addr),
            });
        let new_sizes = Sizes::find(Some(livepatch), new)?;

        for func in &self.funcs {
            let addr = match &symbols {
                Some(symbols) => symbols.get(func.name.to_bytes(), func.sympos)?,
                None => lookup::find_symbol(None, &func.name, func.sympos)?,
            };
            let old = old_sizes.extent(addr).inspect_err(|_| {
                pr_err!("kallsyms size lookup failed for '{}'\n", &*func.name);
            })?;
            let new = match func.version.runs() {
                Code::Original => old,
                Code::At(addr) => new_sizes.extent(addr).inspect_err(|_| {
                    pr_err!(
                        "kallsyms size lookup failed for '{}' replacement\n",
                        &*func.name
                    );
                })?,
            };
            func.old.set(locked, Some(old));
            func.version.set_code(locked, Some(new));
        }
        self.check_aliases(locked, livepatch)
    }

    /// Checks that no two functions are one under two names: tasks that are not switched would run
    /// the lower of the two new ones. A nop for such a one has nothing to do.
    fn check_aliases(&self, locked: &KlpLocked, livepatch: &Module) -> Result {
        let mut funcs = KVVec::with_capacity(self.funcs.len(), GFP_KERNEL)?;
        for (index, func) in self.funcs.iter().enumerate() {
            func.covered.set(locked, false);
            if let Some(old) = func.old.get(locked) {
                funcs.push((old.start, index, func), GFP_KERNEL)?;
            }
        }
        // Nops come last.
        sort_by_key(&mut funcs, |(addr, index, _)| (*addr, *index));
        for ((addr, _, func), (next_addr, _, next)) in funcs.iter().zip(funcs.iter().skip(1)) {
            if addr != next_addr {
                continue;
            }
            if !next.is_nop() {
                pr_err!(
                    "livepatch '{}': functions '{},{}' and '{},{}' of object '{}' are the same\n",
                    livepatch.name(),
                    &*func.name,
                    func.sympos.max(1),
                    &*next.name,
                    next.sympos.max(1),
                    self.label()
                );
                return Err(EINVAL);
            }
            next.covered.set(locked, true);
        }
        Ok(())
    }

    /// Forgets what belonged to a module that goes away.
    pub(crate) fn unbind(&self, locked: &KlpLocked) {
        self.bind(locked, core::ptr::null_mut());
        for func in &self.funcs {
            func.old.set(locked, None);
            func.version.set_code(locked, None);
        }
        self.show_code(locked);
    }

    /// Records whether the functions are patched, for sysfs and the livepatch too.
    pub(crate) fn set_patched(&self, locked: &KlpLocked, patched: bool) {
        self.patched.set(locked, patched);
        if let Some(raw) = &self.raw {
            raw.set_patched(locked, patched);
        }
        if let Some(dir) = &self.dir {
            dir.patched.store(patched, Relaxed);
        }
    }

    /// Calls `pre_patch`. An error means that nothing further may be called for the object.
    pub(crate) fn pre_patch(&self, locked: &KlpLocked) -> Result {
        let result = match &self.raw {
            Some(raw) => self.callbacks.pre_patch(locked, raw),
            None => Ok(()),
        };
        self.set_post_unpatch_due(locked, result.is_ok());
        result
    }

    /// Calls `post_patch`.
    pub(crate) fn post_patch(&self, locked: &KlpLocked) {
        if let Some(raw) = &self.raw {
            self.callbacks.post_patch(locked, raw);
        }
    }

    /// Calls `pre_unpatch`.
    pub(crate) fn pre_unpatch(&self, locked: &KlpLocked) {
        if let Some(raw) = &self.raw {
            self.callbacks.pre_unpatch(locked, raw);
        }
    }

    /// Calls `post_unpatch` if `pre_patch` had succeeded.
    pub(crate) fn post_unpatch(&self, locked: &KlpLocked) {
        if let (true, Some(raw)) = (self.post_unpatch_due.get(locked), &self.raw) {
            self.callbacks.post_unpatch(locked, raw);
        }
        self.set_post_unpatch_due(locked, false);
    }

    fn set_post_unpatch_due(&self, locked: &KlpLocked, due: bool) {
        self.post_unpatch_due.set(locked, due);
        if let Some(raw) = &self.raw {
            raw.set_post_unpatch_enabled(locked, due);
        }
    }

    fn add_dirs(&mut self, patch: &dyn Parent) -> Result {
        let dir = Dir::new(patch, self.label(), ObjectDir::new())?;
        for func in &mut self.funcs {
            let name = CString::try_from_fmt(fmt!("{},{}", &*func.name, func.sympos.max(1)))?;
            func.dir = Some(Dir::new(&dir, &name, FuncDir)?);
        }
        self.dir = Some(dir);
        Ok(())
    }
}

/// A livepatch.
#[pin_data]
pub(crate) struct Patch {
    pub(crate) raw: Arc<RawPatch>,
    pub(crate) name: CString,
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
        // There will be no more functions.
        let funcs = objects.iter().map(|object| object.funcs.len());
        let nr_funcs = funcs.fold(0, usize::saturating_add);
        let check = StackCheck::new(nr_funcs)?;
        Arc::pin_init(
            try_pin_init!(Self {
                raw: desc.raw,
                name,
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
        }
        self.raw.set_enabled(locked, enabled);
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
        drop(self.dir.borrow_mut(&mut crate::lock::lock()).take());
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

/// Adds a nop for each function of `old_object` that `objects` do not change.
fn add_nops(objects: &mut KVVec<Object>, old_object: &Object) -> Result {
    if !objects.iter().any(|object| object.is_same(old_object)) {
        let name = old_object
            .module_name()
            .map(CString::try_from)
            .transpose()?;
        objects.push(Object::empty(name, KVVec::new()), GFP_KERNEL)?;
    }
    let Some(object) = objects.iter_mut().find(|object| object.is_same(old_object)) else {
        return Ok(());
    };
    let mut known = KVVec::with_capacity(object.funcs.len(), GFP_KERNEL)?;
    for func in &object.funcs {
        known.push(func.key(), GFP_KERNEL)?;
    }
    sort_by_key(&mut known, |key| *key);
    let mut nops = KVVec::new();
    for old in &old_object.funcs {
        if known.binary_search(&old.key()).is_err() {
            nops.push(
                Func::new(None, old.name, old.sympos, Code::Original)?,
                GFP_KERNEL,
            )?;
        }
    }
    drop(known);
    for nop in nops {
        object.funcs.push(nop, GFP_KERNEL)?;
    }
    Ok(())
}

impl kernel::workqueue::WorkItem for Patch {
    type Pointer = Arc<Patch>;

    fn run(this: Arc<Patch>) {
        this.free_finish();
    }
}
