// SPDX-License-Identifier: GPL-2.0-or-later

//! What can be done with livepatches: enable, disable, reverse, force; and who does it again.
//!
//! Replaces `klp_enable_patch()` and `__klp_disable_patch()` of `core.c`, and
//! `klp_transition_work` of `transition.c`.

use crate::{
    blockers,
    descriptor::Descriptor,
    held::{
        self,
        ModulePtr, //
    },
    lock::{
        self,
        KlpLocked,
        LockedBy, //
    },
    patch::Patch,
    patch_id::PatchId,
    preflight,
    progress,
    registry::{
        self,
        patches, //
    },
    replace,
    stack,
    state,
    sysfs::{
        Requests,
        RootDir, //
    },
    tasks::{
        self,
        Target, //
    },
    transition::{
        self,
        Progress, //
    }, //
};
use kernel::{
    bindings,
    debugfs,
    kobject::{
        Root,
        KERNEL, //
    },
    module_ref::Module,
    prelude::*,
    stacktrace,
    sync::Arc,
    time::{
        msecs_to_jiffies,
        Jiffies, //
    },
    workqueue::{
        self,
        impl_has_delayed_work,
        new_delayed_work,
        DelayedWork,
        OwnedQueue,
        WorkItem, //
    }, //
};

/// What the core needs from its start to its end.
struct Resources {
    root: Root<RootDir>,
    /// [`None`] until [`show()`].
    states: Option<Pin<KBox<debugfs::File<state::View>>>>,
    /// Likewise.
    blockers: Option<Pin<KBox<debugfs::File<blockers::View>>>>,
    /// Likewise.
    preflight: Option<Pin<KBox<debugfs::File<preflight::View>>>>,
    /// Patches are freed here: the request may come from the patch's own file in sysfs, whose
    /// removal waits for the request to end.
    queue: OwnedQueue,
}

static RESOURCES: LockedBy<Option<Resources>> = LockedBy::new(None);

/// Creates `/sys/kernel/livepatch`.
pub(crate) fn init() -> Result {
    let resources = Resources {
        queue: OwnedQueue::new_percpu(c"livepatch")?,
        states: None,
        blockers: None,
        preflight: None,
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
    let states = KBox::<debugfs::File<state::View>>::new_uninit(GFP_KERNEL)?;
    let blockers = KBox::<debugfs::File<blockers::View>>::new_uninit(GFP_KERNEL)?;
    let preflight_room = KBox::<debugfs::File<preflight::View>>::new_uninit(GFP_KERNEL)?;
    // Nothing of this fails any more: the first file may be open from now on.
    let states = states.write_pin_init(dir.read_only_file(c"states", state::View))?;
    let blockers = blockers.write_pin_init(dir.records_file(c"transition", blockers::View))?;
    let preflight = dir.writable_records_file(c"preflight", preflight::View);
    let preflight = preflight_room.write_pin_init(preflight)?;
    if let Some(resources) = RESOURCES.borrow_mut(&mut lock::lock()) {
        resources.states = Some(states);
        resources.blockers = Some(blockers);
        resources.preflight = Some(preflight);
    }
    Ok(())
}

/// Undoes [`init()`] and [`show()`]. There must be no patches left.
pub(crate) fn exit() {
    let mut locked = lock::lock();
    registry::exit(&mut locked);
    held::exit(&mut locked);
    stack::exit(&locked);
    let resources = RESOURCES.borrow_mut(&mut locked).take();
    drop(locked);
    if let Some(Resources {
        root,
        states,
        blockers,
        preflight,
        queue,
    }) = resources
    {
        // Waits for those who read them, who take the mutex.
        drop((states, blockers, preflight));
        preflight::exit(&mut lock::lock());
        // Patches that are being freed still need the mutex, and their directories the root.
        drop(queue);
        drop(root);
    }
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
    if held::is_held(&locked, desc.module) {
        pr_err!(
            "module '{}' has a livepatch enabled already\n",
            desc.module.name()
        );
        return Err(EEXIST);
    }
    if transition::current(&locked).is_some() || withdrawn(&locked).is_some() {
        return Err(EBUSY);
    }
    let replaced = replace::replaced(&locked, &desc)?;
    replace::check_conflicts(&locked, &desc)?;
    state::check_states(&locked, &desc, &replaced)?;

    let module = ModulePtr::new(desc.module);
    let patch = Patch::new(&locked, desc, &replaced)?;
    let result = replace::check_aliases(&locked, &patch)
        .and_then(|()| held::hold(&mut locked, module))
        .and_then(|()| publish(&mut locked, &patch))
        .and_then(|()| start(&mut locked, &patch, replaced));
    if result.is_err() {
        registry::remove(&mut locked, &patch);
        patch.free_start(&mut locked);
        drop(locked);
        patch.free_finish();
    }
    result
}

/// Makes `patch` visible in sysfs and puts it on the list.
fn publish(locked: &mut KlpLocked, patch: &Arc<Patch>) -> Result {
    // Borrowed from under the mutex, but as constant as the core itself.
    let root = RESOURCES
        .borrow(locked)
        .as_ref()
        .map(|resources| resources.root.reference())
        .ok_or(ENODEV)?;
    patch.show(locked);
    patch.add_dirs(locked, &root, &REQUESTS)?;
    patch.relocate(locked)?;
    registry::add(locked, patch)
}

/// Starts the transition to `patch`.
fn start(locked: &mut KlpLocked, patch: &Arc<Patch>, replaced: KVec<Arc<Patch>>) -> Result {
    pr_notice!("enabling patch '{}'\n", &*patch.name);
    let begun = transition::begin(locked, patch, Target::Patched, replaced);

    let patched = state::begin_enable(locked, patch, begun.replaced())
        .and_then(|()| patch_objects(locked, patch));
    if let Err(err) = patched {
        pr_warn!("failed to enable patch '{}'\n", &*patch.name);
        begun.cancel(locked);
        return Err(err);
    }

    begun.start(locked);
    patch.set_enabled(locked, true);
    go_on(locked);
    Ok(())
}

fn patch_objects(locked: &KlpLocked, patch: &Patch) -> Result {
    stack::hook_ahead(locked, patch);
    for object in patch.objects.borrow(locked) {
        if !object.is_loaded(locked) {
            continue;
        }
        state::own_shadow_types(locked, object)?;
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
fn disable(locked: &mut KlpLocked, patch: &Arc<Patch>) -> Result {
    if kernel::warn_on!(!patch.is_enabled(locked)) {
        return Err(EINVAL);
    }
    if transition::current(locked).is_some() {
        return Err(EBUSY);
    }
    if !patch.is_withdrawn(locked) {
        state::check_disable(locked, patch)?;
    }
    let begun = transition::begin(locked, patch, Target::Unpatched, KVec::new());
    for object in patch.objects.borrow(locked) {
        if object.patched.get(locked) {
            object.pre_unpatch(locked);
        }
    }
    state::begin_disable(locked, patch);
    begun.start(locked);
    patch.set_enabled(locked, false);
    go_on(locked);
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
pub(crate) fn set_enabled(locked: &mut KlpLocked, id: PatchId, enabled: bool) -> Result {
    let patch = registry::find(locked, id).ok_or(EINVAL)?;
    if patch.is_withdrawn(locked) {
        return Err(EBUSY);
    }
    if patch.is_enabled(locked) == enabled {
        return Err(EINVAL);
    }
    // A transition can be reversed at any time: that may be the only way to end it without force.
    let result = if transition::is_current(locked, &patch) {
        reverse(locked)
    } else if !enabled {
        disable(locked, &patch)
    } else {
        Err(EINVAL)
    };
    resume(locked);
    result
}

/// The newest livepatch that is still to be undone.
fn withdrawn(locked: &KlpLocked) -> Option<&Arc<Patch>> {
    let mut patches = patches(locked).iter().rev();
    patches.find(|patch| patch.is_withdrawn(locked))
}

/// Undoes the livepatch of `module`, which is about to be freed whatever uses it: its init function
/// has failed behind `klp_enable_patch()`, or it is unloaded by force. Nothing of it is called or
/// written to any more. Returns whether the core, or a task, still needs it; call again then.
pub(crate) fn withdraw(locked: &mut KlpLocked, module: &Module) -> bool {
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
    held::is_held(locked, module)
}

/// Goes on with undoing livepatches whose modules go. Called again when a transition has ended that
/// was in the way.
pub(crate) fn resume(locked: &mut KlpLocked) {
    while let Some(patch) = withdrawn(locked).cloned() {
        let result = if transition::is_current(locked, &patch) && patch.is_enabled(locked) {
            reverse(locked)
        } else if transition::current(locked).is_some() {
            Err(EBUSY)
        } else {
            disable(locked, &patch)
        };
        if result.is_err() {
            return;
        }
    }
}

/// Turns the running transition round.
///
/// # Errors
///
/// [`EINVAL`] when none runs.
fn reverse(locked: &KlpLocked) -> Result {
    transition::running(locked).ok_or(EINVAL)?.reverse(locked);
    retry_now(locked);
    Ok(())
}

/// Ends the transition of a patch, whatever the remaining tasks do.
///
/// # Errors
///
/// [`EINVAL`] when the patch is not in transition.
pub(crate) fn force(locked: &mut KlpLocked, id: PatchId) -> Result {
    if transition::current_id() != Some(id) {
        return Err(EINVAL);
    }
    transition::running(locked).ok_or(EINVAL)?.force(locked);
    retry_now(locked);
    Ok(())
}

/// Ends `patch`, in part from a worker. No handler may be able to see its functions.
pub(crate) fn free_async(locked: &mut KlpLocked, patch: &Arc<Patch>) {
    registry::remove(locked, patch);
    patch.free_start(locked);
    if let Some(resources) = RESOURCES.borrow(locked) {
        // A patch is freed once, so its work is never queued yet.
        let _ = resources.queue.enqueue(patch.clone());
    }
}

/// What the files in sysfs ask for.
static REQUESTS: Requests = Requests {
    set_enabled: |id, enabled| set_enabled(&mut lock::lock(), id, enabled),
    force: |id| force(&mut lock::lock(), id),
    is_in_transition: |id| transition::current_id() == Some(id),
    stack_order: |id| registry::stack_order(&lock::lock(), id),
    pending: |id| in_transition(id, tasks::pending),
    attempts: |id| in_transition(id, progress::attempts),
    age_ms: |id| in_transition(id, progress::age_ms),
};

/// Returns what `f` does if a patch is in transition, meanwhile too, else 0. Nobody waits for the
/// mutex, which a transition holds for as long as it takes to look at all tasks.
fn in_transition<R: Default>(id: PatchId, f: impl FnOnce() -> R) -> R {
    let is_current = || transition::current_id() == Some(id);
    let value = is_current().then(f);
    value.filter(|_| is_current()).unwrap_or_default()
}

/// Goes on with the running transition: frees what is gone with it, or asks to be called again.
fn go_on(locked: &mut KlpLocked) {
    match transition::try_complete(locked) {
        Some(Progress::Complete(ended)) => {
            for patch in ended.gone(locked) {
                free_async(locked, patch);
            }
        }
        Some(Progress::Incomplete(delay)) => retry_after(locked, delay),
        // The transition that this was about has ended meanwhile.
        None => (),
    }
}

/// The work that tries again.
#[pin_data]
struct Retry {
    #[pin]
    work: DelayedWork<Retry>,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Retry { self.work }
}

impl WorkItem for Retry {
    type Pointer = Arc<Retry>;

    fn run(_this: Arc<Retry>) {
        let mut locked = lock::lock();
        go_on(&mut locked);
        resume(&mut locked);
    }
}

static RETRY: LockedBy<Option<Arc<Retry>>> = LockedBy::new(None);

/// Sets up the retry work.
pub(crate) fn init_work() -> Result {
    let retry = Arc::pin_init(
        pin_init!(Retry {
            work <- new_delayed_work!("livepatch::retry"),
        }),
        GFP_KERNEL,
    )?;
    *RETRY.borrow_mut(&mut lock::lock()) = Some(retry);
    Ok(())
}

/// Undoes [`init_work`].
pub(crate) fn exit_work() {
    // The work takes the mutex: wait for it without.
    let retry = RETRY.borrow_mut(&mut lock::lock()).take();
    if let Some(retry) = retry {
        retry.work.cancel_sync();
    }
}

/// Lets the next try follow in so many jiffies.
fn retry_after(locked: &KlpLocked, delay: Jiffies) {
    if let Some(retry) = RETRY.borrow(locked) {
        // If it is enqueued already, that will do.
        let _ = workqueue::system_percpu().enqueue_delayed(retry.clone(), delay);
    }
}

/// Lets the next try follow soon, in place of one that may be a second away.
fn retry_now(locked: &KlpLocked) {
    if let Some(retry) = RETRY.borrow(locked) {
        drop(retry.work.cancel());
        // Only this enqueues it, under the mutex.
        retry_after(locked, msecs_to_jiffies(transition::FIRST_DELAY_MS));
    }
}
