// SPDX-License-Identifier: GPL-2.0-or-later

//! Who owns which state and which shadow variables: when they are introduced, and when removed.
//!
//! A livepatch makes claims: one for each of its states and shadow types. All claims of the
//! livepatches that are enabled or in transition, oldest livepatch first, are the owner table; the
//! owners of an id are the held claims with that id. A state is introduced by the first livepatch
//! that holds it, and removed by the newest of those that leave when none stays. Shadow variables
//! go with the last owner, whatever kind of claim that has.
//!
//! [`begin_enable`] and [`begin_disable`] begin an operation. It ends with [`finish_disable`] for
//! the livepatches that go away and [`finish_enable`] for one that stays, or, when it is turned
//! round, with [`abort_disable`] and [`abort_enable`]. `state.c` has nothing like it: see
//! `Documentation/livepatch/managed-states.rst`. Pure; tested on the host.

use core::cell::Cell;

/// What a claim is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A state as in 7.3, which the core only compares.
    Legacy,
    /// A state that the core introduces and removes.
    Managed(Contract),
    /// Shadow variables without a state.
    Shadow,
}

/// What the rules ask about a managed state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contract {
    /// Shadow variables with the id belong to the state. Livepatches that share it agree in this.
    pub(crate) shadow: bool,
    /// The livepatch cannot remove the state.
    pub(crate) block_disable: bool,
}

/// How far the core has got with a claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Marks {
    /// The livepatch is an owner.
    held: bool,
    /// `pre_patch` was called; `post_patch` or `post_unpatch` is due.
    introduced: bool,
    /// The livepatch is about to go away.
    leaving: bool,
    /// `pre_unpatch` was called; `post_unpatch` or `post_patch` is due.
    removing: bool,
}

/// What a livepatch has to do with one id. `T` is what the caller needs to act on it.
#[derive(Debug)]
pub(crate) struct Claim<T> {
    pub(crate) id: usize,
    pub(crate) kind: Kind,
    pub(crate) data: T,
    marks: Cell<Marks>,
}

impl<T> Claim<T> {
    pub(crate) fn new(id: usize, kind: Kind, data: T) -> Self {
        Self {
            id,
            kind,
            data,
            marks: Cell::new(Marks::default()),
        }
    }

    /// Whether this is a state, and not just shadow variables.
    pub(crate) fn is_state(&self) -> bool {
        self.kind != Kind::Shadow
    }

    /// Whether the core calls callbacks for it.
    pub(crate) fn is_managed(&self) -> bool {
        self.contract().is_some()
    }

    /// Whether shadow variables belong to it.
    pub(crate) fn is_shadow(&self) -> bool {
        self.kind == Kind::Shadow || self.contract().is_some_and(|contract| contract.shadow)
    }

    /// What the rules ask about, for a managed state.
    pub(crate) fn contract(&self) -> Option<Contract> {
        match self.kind {
            Kind::Managed(contract) => Some(contract),
            Kind::Legacy | Kind::Shadow => None,
        }
    }

    /// Whether the livepatch is an owner now.
    pub(crate) fn is_held(&self) -> bool {
        self.marks.get().held
    }

    /// Whether the livepatch is an owner of the state `id`.
    pub(crate) fn owns_state(&self, id: usize) -> bool {
        self.id == id && self.is_state() && self.is_held()
    }

    fn mark(&self, change: impl FnOnce(&mut Marks)) {
        let mut marks = self.marks.get();
        change(&mut marks);
        self.marks.set(marks);
    }
}

/// The claims of all livepatches that are enabled or in transition.
pub(crate) trait OwnerTable<T> {
    /// Calls `f` for all claims, those of the oldest livepatch first.
    fn for_each<'a>(&'a self, f: &mut dyn FnMut(&'a Claim<T>));

    /// Returns the newest claim that passes `test`.
    fn newest<'a>(&'a self, test: impl Fn(&Claim<T>) -> bool) -> Option<&'a Claim<T>>
    where
        T: 'a,
    {
        let mut newest = None;
        self.for_each(&mut |claim| {
            if test(claim) {
                newest = Some(claim);
            }
        });
        newest
    }

    /// Whether any claim passes `test`.
    fn any(&self, test: impl Fn(&Claim<T>) -> bool) -> bool {
        self.newest(test).is_some()
    }

    /// Whether the shadow variables with `id` have an owner.
    fn is_shadow_owned(&self, id: usize) -> bool {
        self.any(|claim| claim.id == id && claim.is_held() && claim.is_shadow())
    }

    /// Whether `claim`, if its livepatch leaves, is the one that removes its state.
    fn removes(&self, claim: &Claim<T>) -> bool {
        let stays = |owner: &Claim<T>| owner.owns_state(claim.id) && !owner.marks.get().leaving;
        claim.is_managed()
            && !self.any(stays)
            && self
                .newest(|owner| owner.owns_state(claim.id))
                .is_some_and(|newest| core::ptr::eq(newest, claim))
    }
}

/// What is done about claims.
pub(crate) trait Effects<T> {
    /// Why an act can fail.
    type Error;

    /// Shadow variables get an owner, the first or another one. Has no effect if it fails.
    fn join(&mut self, claim: &Claim<T>) -> Result<(), Self::Error>;
    /// Shadow variables lose an owner.
    fn part(&mut self, claim: &Claim<T>);
    /// Shadow variables have lost their last owner, `claim`, and are freed.
    fn collect(&mut self, claim: &Claim<T>);
    /// Tasks may use the shadow variables for ever: they are never freed.
    fn leak(&mut self, claim: &Claim<T>);
    /// Calls the callback of this name.
    fn pre_patch(&mut self, claim: &Claim<T>) -> Result<(), Self::Error>;
    /// Calls the callback of this name.
    fn post_patch(&mut self, claim: &Claim<T>);
    /// Calls the callback of this name.
    fn pre_unpatch(&mut self, claim: &Claim<T>);
    /// Calls the callback of this name.
    fn post_unpatch(&mut self, claim: &Claim<T>);
}

/// Makes the livepatch an owner of all claims in `claims`. On an error it is one of none.
pub(crate) fn own<'a, T: 'a, A: Effects<T>>(
    claims: impl Iterator<Item = &'a Claim<T>> + Clone,
    table: &impl OwnerTable<T>,
    effects: &mut A,
) -> Result<(), A::Error> {
    for claim in claims.clone() {
        if claim.is_shadow() {
            if let Err(err) = effects.join(claim) {
                disown(claims, table, effects, false);
                return Err(err);
            }
        }
        claim.mark(|marks| marks.held = true);
    }
    Ok(())
}

/// Ends the ownership of all claims in `claims`. `forced` says that tasks may still run the
/// livepatch that had it.
pub(crate) fn disown<'a, T: 'a, A: Effects<T>>(
    claims: impl Iterator<Item = &'a Claim<T>>,
    table: &impl OwnerTable<T>,
    effects: &mut A,
    forced: bool,
) {
    for claim in claims {
        disown_one(claim, table, effects, forced);
    }
}

fn disown_one<T, A: Effects<T>>(
    claim: &Claim<T>,
    table: &impl OwnerTable<T>,
    effects: &mut A,
    forced: bool,
) {
    if !claim.is_held() {
        return;
    }
    claim.mark(|marks| *marks = Marks::default());
    if !claim.is_shadow() {
        return;
    }
    effects.part(claim);
    if forced {
        effects.leak(claim);
    }
    if !table.is_shadow_owned(claim.id) {
        effects.collect(claim);
    }
}

/// A livepatch comes: makes it an owner, and introduces the states that are new with it.
///
/// On an error [`abort_enable`] is still due.
pub(crate) fn begin_enable<T, A: Effects<T>>(
    claims: &[Claim<T>],
    table: &impl OwnerTable<T>,
    effects: &mut A,
) -> Result<(), A::Error> {
    for claim in claims {
        let new = claim.is_managed() && !table.any(|owner| owner.owns_state(claim.id));
        claim.mark(|marks| marks.introduced = new);
    }
    let is_new = |claim: &Claim<T>| claim.marks.get().introduced;
    let mut result = own(claims.iter(), table, effects);
    for claim in claims.iter().filter(|claim| is_new(claim)) {
        result = result.and_then(|()| effects.pre_patch(claim));
        // Neither for the one that failed nor for those behind it is anything due.
        let done = result.is_ok();
        claim.mark(|marks| marks.introduced = done);
    }
    result
}

/// Livepatches are about to leave: announces to the states that go with them what comes.
pub(crate) fn begin_disable<'a, T: 'a, A: Effects<T>>(
    claims: impl Iterator<Item = &'a Claim<T>> + Clone,
    table: &impl OwnerTable<T>,
    effects: &mut A,
) {
    for claim in claims.clone() {
        claim.mark(|marks| marks.leaving = true);
    }
    for claim in claims {
        if table.removes(claim) {
            claim.mark(|marks| marks.removing = true);
            effects.pre_unpatch(claim);
        }
    }
}

/// Livepatches have left: removes the states that go with them, and ends their ownership.
pub(crate) fn finish_disable<'a, T: 'a, A: Effects<T>>(
    claims: impl Iterator<Item = &'a Claim<T>>,
    table: &impl OwnerTable<T>,
    effects: &mut A,
    forced: bool,
) {
    for claim in claims {
        if claim.marks.get().removing {
            effects.post_unpatch(claim);
        }
        disown_one(claim, table, effects, forced);
    }
}

/// Livepatches stay after all.
pub(crate) fn abort_disable<'a, T: 'a, A: Effects<T>>(
    claims: impl Iterator<Item = &'a Claim<T>>,
    effects: &mut A,
) {
    for claim in claims {
        let removing = claim.marks.get().removing;
        claim.mark(|marks| (marks.leaving, marks.removing) = (false, false));
        if removing {
            effects.post_patch(claim);
        }
    }
}

/// A livepatch has come: the states that it introduced are in effect.
pub(crate) fn finish_enable<T, A: Effects<T>>(claims: &[Claim<T>], effects: &mut A) {
    for claim in claims {
        let introduced = claim.marks.get().introduced;
        claim.mark(|marks| marks.introduced = false);
        if introduced {
            effects.post_patch(claim);
        }
    }
}

/// A livepatch has not come after all: removes the states that it introduced, and ends its
/// ownership.
pub(crate) fn abort_enable<T, A: Effects<T>>(
    claims: &[Claim<T>],
    table: &impl OwnerTable<T>,
    effects: &mut A,
    forced: bool,
) {
    for claim in claims {
        if claim.marks.get().introduced {
            effects.post_unpatch(claim);
        }
        disown_one(claim, table, effects, forced);
    }
}

/// Why a livepatch does not go together with those that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 7.3 refuses it too: a state is missing, or of an older version.
    Version,
    /// The livepatches call the id by different names.
    Name,
    /// A state that the core manages would no longer be.
    Legacy,
    /// The livepatches do not agree about shadow variables.
    Shadow,
    /// A state that cannot be removed would be.
    Blocked,
}

/// A state, as far as [`check`] compares it.
pub(crate) struct Facts<'a> {
    pub(crate) version: u32,
    pub(crate) name: Option<&'a [u8]>,
}

/// Checks the claims of a new livepatch against one claim of a livepatch that is there.
///
/// `leaves` says whether the latter is to be replaced, `others` whether any livepatch that stays
/// has the state too.
pub(crate) fn check<'c, T: 'c>(
    new: impl Iterator<Item = &'c Claim<T>> + Clone,
    old: &Claim<T>,
    leaves: bool,
    others: bool,
    facts: impl for<'a> Fn(&'a Claim<T>) -> Facts<'a>,
) -> Result<(), Refusal> {
    let mut same = new.filter(|claim| claim.id == old.id);
    for claim in same.clone() {
        let names = (facts(claim).name, facts(old).name);
        if matches!(names, (Some(new), Some(old)) if new != old) {
            return Err(Refusal::Name);
        }
        // A state of 7.3 and shadow variables have nothing to do with each other.
        if old.kind != Kind::Legacy
            && claim.kind != Kind::Legacy
            && claim.is_shadow() != old.is_shadow()
        {
            return Err(Refusal::Shadow);
        }
    }
    if !old.is_state() {
        return Ok(());
    }
    let Some(claim) = same.find(|claim| claim.is_state()) else {
        return match old.contract() {
            _ if !leaves => Ok(()),
            None => Err(Refusal::Version),
            Some(contract) if contract.block_disable && !others => Err(Refusal::Blocked),
            Some(_) => Ok(()),
        };
    };
    // Callbacks and `block_disable` may differ: whichever livepatch removes the state goes by its
    // own, so that a release can repair what the one before it lacked.
    if old.is_managed() && !claim.is_managed() {
        return Err(Refusal::Legacy);
    }
    // A managed state need not have a version.
    let (old, new) = (facts(old).version, facts(claim).version);
    if new < old && (new != 0 || !claim.is_managed()) {
        return Err(Refusal::Version);
    }
    Ok(())
}
