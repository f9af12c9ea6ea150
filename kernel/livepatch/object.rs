// SPDX-License-Identifier: GPL-2.0-or-later

//! What a livepatch changes: its objects and their functions.
//!
//! Replaces `struct klp_object` and `klp_func`, and the code of `core.c` that sets them up:
//! `klp_init_object()` and what it calls, and `klp_add_nops()`.

use crate::{
    descriptor::{
        Claims,
        FuncSpec,
        ObjectSpec, //
    },
    func_stack::{
        Code,
        FuncVersion, //
    },
    held::ModulePtr,
    lock::{
        KlpLocked,
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
        RawObject, //
    },
    sort::sort_by_key,
    sysfs::{
        FuncDir,
        ObjectDir, //
    }, //
};
use kernel::{
    bindings,
    kobject::{
        Dir,
        Parent, //
    },
    module_ref::Module,
    prelude::*,
    str::{
        CStr,
        CString, //
    },
    sync::{
        atomic::ordering::Relaxed,
        rcu,
        Arc, //
    }, //
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
    pub(crate) raw: Option<RawObject>,
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
    pub(crate) fn new(spec: ObjectSpec) -> Result<Self> {
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
    #[inline(never)]
    pub(crate) fn show_code(&self, locked: &KlpLocked) {
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
    pub(crate) fn show(&self, locked: &KlpLocked) {
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
    pub(crate) fn find_module(&self, locked: &KlpLocked) {
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
    pub(crate) fn resolve(&self, locked: &KlpLocked, livepatch: &Module) -> Result {
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
                Code::At(addr) => Some(addr.get()),
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
                Code::At(addr) => new_sizes.extent(addr.get()).inspect_err(|_| {
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
            Some(raw) => self.callbacks.pre_patch(locked, raw, self.label()),
            None => Ok(()),
        };
        self.set_post_unpatch_due(locked, result.is_ok());
        result
    }

    /// Calls `post_patch`.
    pub(crate) fn post_patch(&self, locked: &KlpLocked) {
        if let Some(raw) = &self.raw {
            self.callbacks.post_patch(locked, raw, self.label());
        }
    }

    /// Calls `pre_unpatch`.
    pub(crate) fn pre_unpatch(&self, locked: &KlpLocked) {
        if let Some(raw) = &self.raw {
            self.callbacks.pre_unpatch(locked, raw, self.label());
        }
    }

    /// Calls `post_unpatch` if `pre_patch` had succeeded.
    #[inline(never)]
    pub(crate) fn post_unpatch(&self, locked: &KlpLocked) {
        if let (true, Some(raw)) = (self.post_unpatch_due.get(locked), &self.raw) {
            self.callbacks.post_unpatch(locked, raw, self.label());
        }
        self.set_post_unpatch_due(locked, false);
    }

    fn set_post_unpatch_due(&self, locked: &KlpLocked, due: bool) {
        self.post_unpatch_due.set(locked, due);
        if let Some(raw) = &self.raw {
            raw.set_post_unpatch_enabled(locked, due);
        }
    }

    pub(crate) fn add_dirs(&mut self, patch: &dyn Parent) -> Result {
        let dir = Dir::new(patch, self.label(), ObjectDir::new())?;
        for func in &mut self.funcs {
            let name = CString::try_from_fmt(fmt!("{},{}", &*func.name, func.sympos.max(1)))?;
            func.dir = Some(Dir::new(&dir, &name, FuncDir)?);
        }
        self.dir = Some(dir);
        Ok(())
    }
}

/// Adds a nop for each function of `old_object` that `objects` do not change.
pub(crate) fn add_nops(objects: &mut KVVec<Object>, old_object: &Object) -> Result {
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
