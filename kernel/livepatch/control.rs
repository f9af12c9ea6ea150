// SPDX-License-Identifier: GPL-2.0-or-later

//! What can be done with livepatches: enable, disable, reverse, force; and the list of them.
//!
//! Answers to `klp_enable_patch()`, `__klp_disable_patch()` and the list `klp_patches` of
//! `core.c`.

use crate::{
    descriptor::Descriptor,
    lock::{
        self,
        Locked,
        Shared, //
    },
    patch::{
        ModulePtr,
        Patch, //
    },
    replace, stack, state,
    sysfs::RootDir,
    transition::{
        self,
        Target, //
    },
};
use kernel::{
    bindings,
    debugfs,
    kobject::{
        Root,
        KERNEL, //
    },
    module_ref::{
        Module,
        Ref, //
    },
    prelude::*,
    stacktrace,
    str::CStr,
    sync::Arc,
    workqueue::OwnedQueue, //
};

/// Patches that are enabled or in transition, in the order in which they were enabled. Replaced
/// and disabled ones are not here, though their modules may be.
static PATCHES: Shared<KVec<Arc<Patch>>> = Shared::new(KVec::new());

/// The modules of all patches, from before they are enabled until the core is done with them: those
/// in [`PATCHES`], those that are being freed, and those that stay for ever.
static HELD: Shared<KVec<ModulePtr>> = Shared::new(KVec::new());

/// What the core needs from its start to its end.
struct Resources {
    root: Root<RootDir>,
    /// [`None`] until [`show()`].
    states: Option<Pin<KBox<debugfs::File<state::View>>>>,
    /// Patches are freed here: the request may come from the patch's own file in sysfs, whose
    /// removal waits for the request to end.
    queue: OwnedQueue,
}

static RESOURCES: Shared<Option<Resources>> = Shared::new(None);

/// Creates `/sys/kernel/livepatch`.
pub(crate) fn init() -> Result {
    let resources = Resources {
        queue: OwnedQueue::new_percpu(c"livepatch")?,
        states: None,
        root: Root::new(&KERNEL, c"livepatch", RootDir)?,
    };
    *RESOURCES.borrow_mut(&mut lock::lock()) = Some(resources);
    Ok(())
}

/// Creates `/sys/kernel/debug/livepatch`, the last step of the start: a module that fails to start
/// is freed at once, also if somebody has a file of it open.
pub(crate) fn show() -> Result {
    // The file keeps the directory.
    let dir = debugfs::Dir::<crate::LocalModule>::new(c"livepatch");
    let states = KBox::pin_init(dir.read_only_file(c"states", state::View), GFP_KERNEL)?;
    if let Some(resources) = RESOURCES.borrow_mut(&mut lock::lock()) {
        resources.states = Some(states);
    }
    Ok(())
}

/// Undoes [`init()`] and [`show()`]. There must be no patches left.
pub(crate) fn exit() {
    let mut locked = lock::lock();
    // Statics are not dropped with the module.
    *PATCHES.borrow_mut(&mut locked) = KVec::new();
    *HELD.borrow_mut(&mut locked) = KVec::new();
    stack::exit(&locked);
    let resources = RESOURCES.borrow_mut(&mut locked).take();
    drop(locked);
    if let Some(Resources {
        root,
        states,
        queue,
    }) = resources
    {
        // Waits for those who read it, who take the mutex.
        drop(states);
        // Patches that are being freed still need the mutex, and their directories the root.
        drop(queue);
        drop(root);
    }
}

/// The patches that are enabled or in transition, oldest first.
pub(crate) fn patches(locked: &Locked) -> &[Arc<Patch>] {
    PATCHES.borrow(locked)
}

fn find(locked: &Locked, id: usize) -> Option<Arc<Patch>> {
    patches(locked)
        .iter()
        .find(|patch| patch.raw.id() == id)
        .cloned()
}

/// Enables the livepatch of the calling module.
///
/// # Errors
///
/// [`EINVAL`], after a message, when the descriptor or the combination with enabled livepatches is
/// wrong; [`EEXIST`], after a message, when the module has a livepatch enabled already; [`EBUSY`]
/// while a transition runs, or waits to; [`ENODEV`] when the module is going away; [`ENOMEM`]; what
/// `pre_patch` callbacks return; and the errors of [`stack::patch_object`].
///
/// # Safety
///
/// As for [`Descriptor::parse`].
pub(crate) unsafe fn enable_patch(patch: *mut bindings::klp_patch) -> Result {
    // SAFETY: By the caller's promise.
    let desc = unsafe { Descriptor::parse(patch) }?;

    if !stacktrace::RELIABLE {
        pr_warn!("This architecture doesn't have support for the livepatch consistency model.\n");
        pr_warn!("The livepatch transition may never complete.\n");
    }

    let mut locked = lock::lock();
    // All livepatches of a module would have its name. Also while the other one is being freed.
    if is_held(&locked, desc.module) {
        pr_err!(
            "module '{}' has a livepatch enabled already\n",
            desc.module.name()
        );
        return Err(EEXIST);
    }
    if transition::is_running(&locked) || withdrawn(&locked).is_some() {
        return Err(EBUSY);
    }
    let replaced = replace::replaced(&locked, &desc)?;
    if !replace::is_apart(&locked, &desc)? || !state::is_compatible(&locked, &desc, &replaced) {
        return Err(incompatible(desc.module.name()));
    }

    let module = ModulePtr::new(desc.module);
    let patch = Patch::new(&locked, desc, &replaced)?;
    let result = check_aliases(&locked, &patch)
        .and_then(|()| hold(&mut locked, module))
        .and_then(|()| publish(&mut locked, &patch))
        .and_then(|()| start(&mut locked, &patch, replaced));
    if result.is_err() {
        remove(&mut locked, &patch);
        patch.free_start(&mut locked);
        drop(locked);
        patch.free_finish();
    }
    result
}

/// Says that a livepatch cannot be enabled next to those that are.
fn incompatible(name: &CStr) -> Error {
    pr_err!(
        "Livepatch patch ({}) is not compatible with the already installed livepatches.\n",
        name
    );
    EINVAL
}

fn check_aliases(locked: &Locked, patch: &Patch) -> Result {
    if replace::has_no_alias(locked, patch)? {
        Ok(())
    } else {
        Err(incompatible(&patch.name))
    }
}

/// Makes `patch` visible in sysfs and puts it on the list.
fn publish(locked: &mut Locked, patch: &Arc<Patch>) -> Result {
    // Borrowed from under the mutex, but as constant as the core itself.
    let root = RESOURCES
        .borrow(locked)
        .as_ref()
        .map(|resources| resources.root.reference())
        .ok_or(ENODEV)?;
    patch.show(locked);
    patch.add_dirs(locked, &root)?;
    patch.relocate(locked)?;
    PATCHES.borrow_mut(locked).push(patch.clone(), GFP_KERNEL)?;
    Ok(())
}

/// Starts the transition to `patch`.
fn start(locked: &mut Locked, patch: &Arc<Patch>, replaced: KVec<Arc<Patch>>) -> Result {
    pr_notice!("enabling patch '{}'\n", &*patch.name);
    transition::init(locked, patch, Target::Patched, replaced);

    let patched = state::begin_enable(locked, patch, transition::replaced(locked))
        .and_then(|()| patch_objects(locked, patch));
    if let Err(err) = patched {
        pr_warn!("failed to enable patch '{}'\n", &*patch.name);
        transition::cancel(locked);
        return Err(err);
    }

    transition::start(locked);
    patch.set_enabled(locked, true);
    transition::try_complete(locked);
    Ok(())
}

fn patch_objects(locked: &Locked, patch: &Patch) -> Result {
    stack::hook_ahead(locked, patch);
    for object in patch.objects.borrow(locked) {
        if !object.is_loaded(locked) {
            continue;
        }
        state::begin_object(locked, object)?;
        object.pre_patch(locked).inspect_err(|_| {
            pr_warn!(
                "pre-patch callback failed for object '{}'\n",
                object.label()
            );
        })?;
        stack::patch_object(locked, object).inspect_err(|_| {
            pr_warn!("failed to patch object '{}'\n", object.label());
        })?;
    }
    Ok(())
}

/// Starts the transition away from `patch`.
fn disable(locked: &mut Locked, patch: &Arc<Patch>) -> Result {
    if kernel::warn_on!(!patch.is_enabled(locked)) {
        return Err(EINVAL);
    }
    if transition::is_running(locked) {
        return Err(EBUSY);
    }
    if !patch.is_withdrawn(locked) {
        state::check_disable(locked, patch)?;
    }
    transition::init(locked, patch, Target::Unpatched, KVec::new());
    for object in patch.objects.borrow(locked) {
        if object.patched.get(locked) {
            object.pre_unpatch(locked);
        }
    }
    state::begin_disable(locked, patch);
    transition::start(locked);
    patch.set_enabled(locked, false);
    transition::try_complete(locked);
    Ok(())
}

/// Does what a write to `enabled` asks for.
///
/// # Errors
///
/// [`EINVAL`] when it is so already, for a patch that is to be enabled again, and, after a message,
/// for one with a state that cannot be removed; [`EBUSY`] when another patch is in transition, and
/// for a patch that is undone anyway. Never for want of memory: what disabling and turning round
/// need was set aside with the patch.
pub(crate) fn set_enabled(locked: &mut Locked, id: usize, enabled: bool) -> Result {
    let patch = find(locked, id).ok_or(EINVAL)?;
    if patch.is_withdrawn(locked) {
        return Err(EBUSY);
    }
    if patch.is_enabled(locked) == enabled {
        return Err(EINVAL);
    }
    // A transition can be reversed at any time: that may be the only way to end it without force.
    let result = if transition::current_id() == id {
        transition::reverse(locked);
        Ok(())
    } else if !enabled {
        disable(locked, &patch)
    } else {
        Err(EINVAL)
    };
    resume(locked);
    result
}

/// Whether the core needs `module` for a livepatch.
fn is_held(locked: &Locked, module: &Module) -> bool {
    HELD.borrow(locked).contains(&ModulePtr::new(module))
}

/// Notes that the core needs `module`, until [`let_go`].
fn hold(locked: &mut Locked, module: ModulePtr) -> Result {
    HELD.borrow_mut(locked).push(module, GFP_KERNEL)?;
    Ok(())
}

/// Lets the module of a livepatch go, which is done with.
pub(crate) fn let_go(locked: &mut Locked, module: Ref) {
    let ptr = ModulePtr::new(&module);
    drop(module);
    // `withdraw()`, for which this makes the difference, waits for the mutex.
    HELD.borrow_mut(locked).retain(|held| *held != ptr);
}

/// The newest livepatch that is still to be undone.
fn withdrawn(locked: &Locked) -> Option<&Arc<Patch>> {
    let mut patches = patches(locked).iter().rev();
    patches.find(|patch| patch.is_withdrawn(locked))
}

/// Undoes the livepatch of `module`, which is about to be freed whatever uses it: its init function
/// has failed behind `klp_enable_patch()`, or it is unloaded by force. Nothing of it is called or
/// written to any more. Returns whether the core, or a task, still needs it; call again then.
pub(crate) fn withdraw(locked: &mut Locked, module: &Module) -> bool {
    for patch in patches(locked) {
        if patch.is_in(locked, module) && !patch.is_withdrawn(locked) {
            pr_warn!(
                "module '{}' goes while its livepatch is enabled, waiting until it is undone\n",
                module.name()
            );
            patch.raw.take_back(locked);
        }
    }
    resume(locked);
    is_held(locked, module)
}

/// Goes on with undoing livepatches whose modules go. Called again when a transition has ended that
/// was in the way.
pub(crate) fn resume(locked: &mut Locked) {
    while let Some(patch) = withdrawn(locked).cloned() {
        if transition::is_current(locked, &patch) && patch.is_enabled(locked) {
            transition::reverse(locked);
        } else if transition::is_running(locked) || disable(locked, &patch).is_err() {
            return;
        }
    }
}

/// Ends the transition of a patch, whatever the remaining tasks do.
///
/// # Errors
///
/// [`EINVAL`] when the patch is not in transition.
pub(crate) fn force(locked: &mut Locked, id: usize) -> Result {
    if transition::current_id() != id {
        return Err(EINVAL);
    }
    transition::force(locked);
    Ok(())
}

/// Returns the place of a patch among those that are enabled, from 1; 0 if it is not.
pub(crate) fn stack_order(locked: &Locked, id: usize) -> usize {
    patches(locked)
        .iter()
        .position(|patch| patch.raw.id() == id)
        .map_or(0, |index| index.saturating_add(1))
}

/// Takes `patch` off the list.
fn remove(locked: &mut Locked, patch: &Arc<Patch>) {
    PATCHES
        .borrow_mut(locked)
        .retain(|other| !Arc::ptr_eq(other, patch));
}

/// Ends `patch`, in part from a worker. No handler may be able to see its functions.
pub(crate) fn free_async(locked: &mut Locked, patch: &Arc<Patch>) {
    remove(locked, patch);
    patch.free_start(locked);
    if let Some(resources) = RESOURCES.borrow(locked) {
        // A patch is freed once, so its work is never queued yet.
        let _ = resources.queue.enqueue(patch.clone());
    }
}
