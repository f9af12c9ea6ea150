// SPDX-License-Identifier: GPL-2.0-or-later

//! System states and shadow types: what livepatches have changed besides code.
//!
//! The rules are in [`owners`]; this is where they meet livepatches, their callbacks and the
//! shadow variables. Callbacks run under the mutex, in process context. Replaces `state.c`.

use crate::{
    descriptor::{
        Descriptor,
        Source, //
    },
    lock::{
        self,
        KlpLocked, //
    },
    object::Object,
    patch::Patch,
    raw::RawState,
    registry::{
        incompatible,
        patches, //
    },
    rules::owners::{
        self,
        Claim,
        Effects,
        Facts,
        OwnerTable,
        Refusal, //
    },
    shadow, //
};
use kernel::{
    debugfs,
    fmt::{
        self,
        Write as _, //
    },
    module_ref::Module,
    prelude::*,
    sync::Arc, //
};

/// The owner table.
#[derive(Clone, Copy)]
struct Owners<'a>(&'a KlpLocked);

impl OwnerTable<Source> for Owners<'_> {
    fn for_each<'a>(&'a self, f: &mut dyn FnMut(&'a Claim<Source>)) {
        for patch in patches(self.0) {
            for_each_claim(self.0, patch, f);
        }
    }
}

/// Calls `f` for the claims of `patch` and of its objects.
fn for_each_claim<'a>(
    locked: &'a KlpLocked,
    patch: &'a Patch,
    f: &mut dyn FnMut(&'a Claim<Source>),
) {
    patch.claims.borrow(locked).iter().for_each(&mut *f);
    for object in patch.objects.borrow(locked) {
        object.claims.iter().for_each(&mut *f);
    }
}

/// Carries out what the rules decide: calls callbacks of livepatches, which are held as long as
/// they have claims.
struct Agent<'a>(&'a KlpLocked);

impl Effects<Source> for Agent<'_> {
    type Error = Error;

    fn join(&mut self, claim: &Claim<Source>) -> Result {
        // SAFETY: The livepatch is held until `part()`, which follows in any case.
        unsafe { shadow::join(claim.id, claim.data.user) }
    }

    fn part(&mut self, claim: &Claim<Source>) {
        shadow::part(claim.id, claim.data.user);
    }

    fn collect(&mut self, claim: &Claim<Source>) {
        shadow::close(claim.id);
        match claim.data.shadow_dtor(self.0) {
            // SAFETY: The livepatch is still held. No task runs its code, or `leak()` was called.
            Some(dtor) => unsafe { shadow::collect(claim.id, dtor) },
            None => shadow::leak(claim.id, "its livepatch failed to load"),
        }
    }

    fn leak(&mut self, claim: &Claim<Source>) {
        shadow::leak(claim.id, "a forced transition");
    }

    fn pre_patch(&mut self, claim: &Claim<Source>) -> Result {
        claim.data.pre_patch(self.0).inspect_err(|err| {
            // A state without a name can be one of the series, which says no more than that the
            // livepatch could not be enabled.
            if claim.data.name.is_some() {
                pr_warn!(
                    "pre-patch callback failed for state {} ({})\n",
                    StateLabel(claim),
                    err.to_errno()
                );
            }
        })
    }

    fn post_patch(&mut self, claim: &Claim<Source>) {
        claim.data.post_patch(self.0);
    }

    fn pre_unpatch(&mut self, claim: &Claim<Source>) {
        claim.data.pre_unpatch(self.0);
    }

    fn post_unpatch(&mut self, claim: &Claim<Source>) {
        claim.data.post_unpatch(self.0);
    }
}

fn leaving<'a>(
    locked: &'a KlpLocked,
    replaced: &'a [Arc<Patch>],
) -> impl Iterator<Item = &'a Claim<Source>> + Clone {
    replaced
        .iter()
        .flat_map(move |patch| patch.claims.borrow(locked).iter())
}

/// Begins the transition to `patch`, in place of `replaced`: introduces the states that are new
/// with it.
///
/// # Errors
///
/// [`ENOMEM`]; what `pre_patch` callbacks return, after a message. [`abort_enable`] is due then.
pub(crate) fn begin_enable(locked: &KlpLocked, patch: &Patch, replaced: &[Arc<Patch>]) -> Result {
    let (table, effects) = (&Owners(locked), &mut Agent(locked));
    owners::begin_enable(patch.claims.borrow(locked), table, effects)?;
    owners::begin_disable(leaving(locked, replaced), table, effects);
    Ok(())
}

/// Ends the transition to `patch`: removes the states that went with `replaced`.
///
/// No task may be able to run functions of the replaced livepatches, but those that were forced.
pub(crate) fn finish_enable(locked: &KlpLocked, patch: &Patch, replaced: &[Arc<Patch>]) {
    let (table, effects) = (&Owners(locked), &mut Agent(locked));
    for old in replaced {
        let forced = old.is_forced(locked);
        for object in old.objects.borrow(locked) {
            owners::disown(object.claims.iter(), table, effects, forced);
        }
        owners::finish_disable(old.claims.borrow(locked).iter(), table, effects, forced);
    }
    owners::finish_enable(patch.claims.borrow(locked), effects);
}

/// Ends a transition to `patch` that failed or was turned round. The mirror of [`begin_enable`].
///
/// No task may be able to run functions of `patch`, unless it was forced.
pub(crate) fn abort_enable(locked: &KlpLocked, patch: &Patch, replaced: &[Arc<Patch>]) {
    let (table, effects) = (&Owners(locked), &mut Agent(locked));
    owners::abort_disable(leaving(locked, replaced), effects);
    let forced = patch.is_forced(locked);
    owners::abort_enable(patch.claims.borrow(locked), table, effects, forced);
}

/// Begins the transition away from `patch`.
pub(crate) fn begin_disable(locked: &KlpLocked, patch: &Patch) {
    let claims = patch.claims.borrow(locked).iter();
    owners::begin_disable(claims, &Owners(locked), &mut Agent(locked));
}

/// Ends the transition away from `patch`: removes the states that went with it.
///
/// No task may be able to run functions of `patch`, unless it was forced.
pub(crate) fn finish_disable(locked: &KlpLocked, patch: &Patch) {
    let claims = patch.claims.borrow(locked).iter();
    let forced = patch.is_forced(locked);
    owners::finish_disable(claims, &Owners(locked), &mut Agent(locked), forced);
}

/// Ends a transition away from `patch` that was turned round.
pub(crate) fn abort_disable(locked: &KlpLocked, patch: &Patch) {
    owners::abort_disable(patch.claims.borrow(locked).iter(), &mut Agent(locked));
}

/// Makes a livepatch an owner of the shadow variables of one of its objects, which is loaded.
///
/// # Errors
///
/// [`ENOMEM`], after a message and with nothing changed.
pub(crate) fn own_shadow_types(locked: &KlpLocked, object: &Object) -> Result {
    let claims = object.claims.iter();
    owners::own(claims, &Owners(locked), &mut Agent(locked)).inspect_err(|err| {
        pr_warn!(
            "failed to register shadow types for object '{}' ({})\n",
            object.label(),
            err.to_errno()
        );
    })
}

/// Ends what [`own_shadow_types`] began, if that was called.
pub(crate) fn disown_shadow_types(locked: &KlpLocked, patch: &Patch, object: &Object) {
    let claims = object.claims.iter();
    let forced = patch.is_forced(locked);
    owners::disown(claims, &Owners(locked), &mut Agent(locked), forced);
}

/// Frees the shadow variables that the core manages of what is in a module that goes away.
#[inline(never)]
pub(crate) fn forget_module(locked: &KlpLocked, module: &Module) {
    let table = Owners(locked);
    table.for_each(&mut |claim| {
        // The newest owner does it, once.
        let newest = table
            .newest(|owner| owner.id == claim.id && owner.is_held() && owner.is_shadow())
            .is_some_and(|newest| core::ptr::eq(newest, claim));
        let Some(dtor) = claim.data.shadow_dtor(locked) else {
            return;
        };
        if newest {
            for range in module.memory() {
                // SAFETY: The livepatch is held, and the objects of the variables are gone.
                unsafe { shadow::collect_range(claim.id, range, dtor) };
            }
        }
    });
}

/// Whether `patch` can be disabled.
///
/// # Errors
///
/// [`EINVAL`], after a message, when a state that cannot be removed would be.
pub(crate) fn check_disable(locked: &KlpLocked, patch: &Patch) -> Result {
    let table = Owners(locked);
    let claims = patch.claims.borrow(locked);
    let blocking = claims.iter().find(|claim| {
        claim
            .contract()
            .is_some_and(|contract| contract.block_disable)
            && !table.any(|owner| owner.owns_state(claim.id) && !core::ptr::eq(owner, *claim))
    });
    let Some(claim) = blocking else {
        return Ok(());
    };
    if claim.data.name.is_some() {
        pr_err!(
            "livepatch '{}': state {} cannot be removed\n",
            &*patch.name,
            StateLabel(claim)
        );
    }
    pr_err!(
        "The livepatch '{}' does not support disable\n",
        &*patch.name
    );
    Err(EINVAL)
}

/// The id of a state, and its name if it has one.
struct StateLabel<'a>(&'a Claim<Source>);

impl fmt::Display for StateLabel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.id)?;
        match &self.0.data.name {
            Some(name) => f.write_fmt(fmt!(" ({})", &**name)),
            None => Ok(()),
        }
    }
}

fn facts(claim: &Claim<Source>) -> Facts<'_> {
    Facts {
        version: claim.data.version,
        name: claim.data.name.as_ref().map(|name| name.to_bytes()),
    }
}

/// Checks that a new livepatch can deal with what the enabled ones have done, if those in
/// `replaced` go away.
///
/// # Errors
///
/// [`EINVAL`], after a message that says which livepatch and which state that is about, unless 7.3
/// refuses it too.
pub(crate) fn check_states(
    locked: &KlpLocked,
    new: &Descriptor<'_>,
    replaced: &[Arc<Patch>],
) -> Result {
    let name = new.module.name();
    let types = new.objects.iter().flat_map(|object| object.claims.iter());
    let claims = Iterator::chain(new.claims.iter(), types);
    let is_replaced = |patch: &Arc<Patch>| replaced.iter().any(|other| Arc::ptr_eq(patch, other));
    let stays = |id: usize| {
        let mut rest = patches(locked).iter().filter(|patch| !is_replaced(patch));
        rest.any(|patch| {
            patch
                .claims
                .borrow(locked)
                .iter()
                .any(|claim| claim.owns_state(id))
        })
    };
    for patch in patches(locked) {
        let mut refused = None;
        for_each_claim(locked, patch, &mut |old| {
            let result = owners::check(
                claims.clone(),
                old,
                is_replaced(patch),
                stays(old.id),
                facts,
            );
            if let (None, Err(refusal)) = (&refused, result) {
                refused = Some((refusal, old));
            }
        });
        if let Some((refusal, old)) = refused {
            say_why(refusal, name, &patch.name, StateLabel(old));
            return Err(incompatible(name));
        }
    }
    Ok(())
}

fn say_why(refusal: Refusal, name: &CStr, old_patch: &CStr, state: StateLabel<'_>) {
    match refusal {
        // The kselftests of 7.3, and those of the series, expect no more than the line that
        // follows.
        Refusal::Version => (),
        Refusal::Blocked if state.0.data.name.is_none() => (),
        Refusal::Name => pr_err!(
            "livepatch '{}' calls state {} of livepatch '{}' by another name\n",
            name,
            state,
            old_patch
        ),
        Refusal::Legacy => pr_err!(
            "livepatch '{}' does not manage state {} of livepatch '{}'\n",
            name,
            state,
            old_patch
        ),
        Refusal::Shadow => pr_err!(
            "livepatches '{}' and '{}' do not agree in is_shadow of state {}\n",
            name,
            old_patch,
            state
        ),
        Refusal::Blocked => pr_err!(
            "livepatch '{}' does not have state {} of livepatch '{}', which cannot be removed\n",
            name,
            state,
            old_patch
        ),
    }
}

/// Returns the state `id` of the newest livepatch that was enabled before `current`.
pub(crate) fn previous(locked: &KlpLocked, current: &Arc<Patch>, id: usize) -> Option<RawState> {
    patches(locked)
        .iter()
        .take_while(|patch| !Arc::ptr_eq(patch, current))
        .filter(|patch| !patch.is_withdrawn(locked))
        .filter_map(|patch| {
            // Of two with this id in one livepatch, the first.
            let mut claims = patch.claims.borrow(locked).iter();
            claims.find(|claim| claim.is_state() && claim.id == id)
        })
        .last()
        .map(|claim| claim.data.raw)
}

/// The owner table as a file in debugfs, a line per id; then the ids of shadow variables that have
/// no owner.
pub(crate) struct View;

impl debugfs::Writer for View {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let locked = &*lock::lock();
        let table = Owners(locked);
        let mut result = Ok(());
        table.for_each(&mut |claim| {
            // Once for each id.
            let newest = table
                .newest(|owner| owner.id == claim.id && owner.is_held())
                .is_some_and(|newest| core::ptr::eq(newest, claim));
            if newest && result.is_ok() {
                result = write_line(f, locked, claim.id);
            }
        });
        result?;
        shadow::for_each_unowned(locked, |id, live| {
            // A state of 7.3 with the same id had its line.
            if table.any(|owner| owner.id == id && owner.is_held()) {
                return Ok(());
            }
            writeln!(
                f,
                "id={id} name=- owners=- managed=0 shadow=0 block_disable=0 live={live}"
            )
        })
    }
}

/// Writes what there is to say about the owners of `id`.
fn write_line(f: &mut fmt::Formatter<'_>, locked: &KlpLocked, id: usize) -> fmt::Result {
    let table = Owners(locked);
    let is_owner = |claim: &Claim<Source>| claim.id == id && claim.is_held();
    write!(f, "id={id} name=")?;
    let named = table.newest(|claim| is_owner(claim) && claim.data.name.is_some());
    match named.and_then(|claim| claim.data.name.as_ref()) {
        Some(name) => f.write_fmt(fmt!("{}", &**name))?,
        None => f.write_char('-')?,
    }
    let mut separator = " owners=";
    for patch in patches(locked) {
        if patch.claims.borrow(locked).iter().any(is_owner) {
            f.write_fmt(fmt!("{separator}{}", &*patch.name))?;
            separator = ",";
        }
        for object in patch.objects.borrow(locked) {
            if object.claims.iter().any(is_owner) {
                f.write_fmt(fmt!("{separator}{}/{}", &*patch.name, object.label()))?;
                separator = ",";
            }
        }
    }
    let (mut managed, mut shadow, mut block_disable) = (false, false, false);
    table.for_each(&mut |claim| {
        if is_owner(claim) {
            managed |= claim.is_managed() || !claim.is_state();
            shadow |= claim.is_shadow();
            let contract = claim.contract();
            block_disable |= contract.is_some_and(|contract| contract.block_disable);
        }
    });
    writeln!(
        f,
        " managed={} shadow={} block_disable={} live={}",
        u8::from(managed),
        u8::from(shadow),
        u8::from(block_disable),
        shadow::live(id)
    )
}
