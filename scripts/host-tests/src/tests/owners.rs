// SPDX-License-Identifier: GPL-2.0-or-later

//! Random operations on livepatches that share states and shadow variables, against a model that
//! knows only which livepatches there are.

use super::config;
use crate::rules::owners::{
    abort_disable,
    abort_enable,
    begin_disable,
    begin_enable,
    check,
    disown,
    finish_disable,
    finish_enable,
    own,
    Claim,
    Contract, //
    Effects,
    Facts,
    Kind,
    OwnerTable,
    Refusal,
};
use proptest::{
    collection::{
        btree_map,
        vec, //
    },
    prelude::*, //
};
use std::{
    cell::{
        Cell,
        RefCell, //
    },
    collections::{
        BTreeMap,
        BTreeSet, //
    },
};

/// The livepatch that a claim belongs to.
type Owner = usize;

/// Below this, the callbacks and contract of an id follow from the id, so that livepatches agree.
const IDS: std::ops::Range<usize> = 1..7;

fn contract(id: usize) -> Contract {
    Contract {
        shadow: id % 2 == 0,
        block_disable: false,
    }
}

#[derive(Clone, Copy, Debug)]
enum Wish {
    Legacy,
    Managed,
    Type,
}

/// A livepatch: what it claims, and what its object in a module claims.
#[derive(Debug)]
struct Livepatch {
    claims: Vec<Claim<Owner>>,
    object: Vec<Claim<Owner>>,
    forced: Cell<bool>,
}

impl Livepatch {
    fn new(owner: Owner, wishes: &BTreeMap<usize, Wish>, object: &BTreeSet<usize>) -> Self {
        let claim = |(&id, &wish): (&usize, &Wish)| {
            let kind = match wish {
                Wish::Legacy => Kind::Legacy,
                Wish::Type if id % 2 == 0 => Kind::Shadow,
                Wish::Managed | Wish::Type => Kind::Managed(contract(id)),
            };
            Claim::new(id, kind, owner)
        };
        let shadow = |&id: &usize| Claim::new(2 * id, Kind::Shadow, owner);
        Self {
            claims: wishes.iter().map(claim).collect(),
            object: object.iter().map(shadow).collect(),
            forced: Cell::new(false),
        }
    }
}

/// A transition, and which way it goes now.
#[derive(Debug)]
struct Transition {
    livepatch: Owner,
    enables: bool,
    forward: bool,
    replaced: Vec<Owner>,
}

/// How far the core has got with a state, judged by the callbacks that it has called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Absent,
    Introduced,
    InEffect,
    Removing,
}

/// What the callbacks and the ends of shadow variables have led to.
#[derive(Debug, Default)]
struct Done {
    phase: BTreeMap<usize, Phase>,
    /// The owners that have joined, by what they own.
    owners: BTreeMap<usize, usize>,
    leaked: BTreeSet<usize>,
    variables: BTreeMap<usize, usize>,
    /// Livepatches that must lose nothing now.
    staying: Vec<Owner>,
    pre_patch_left: usize,
    /// How many owners can still join.
    joins_left: Option<usize>,
    wrong: Option<String>,
}

impl Done {
    fn step(&mut self, claim: &Claim<Owner>, from: &[Phase], to: Phase) {
        let phase = self.phase.entry(claim.id).or_default();
        if !from.contains(phase) {
            self.wrong = Some(format!("{claim:?}: from {phase:?} to {to:?}"));
        }
        *phase = to;
    }
}

struct World {
    livepatches: Vec<Livepatch>,
    /// Enabled or in transition, oldest first.
    list: Vec<Owner>,
    transition: Option<Transition>,
    module: bool,
    effects: RefCell<Done>,
}

impl OwnerTable<Owner> for World {
    fn for_each<'a>(&'a self, f: &mut dyn FnMut(&'a Claim<Owner>)) {
        for &owner in &self.list {
            self.livepatches[owner].claims.iter().for_each(&mut *f);
            self.livepatches[owner].object.iter().for_each(&mut *f);
        }
    }
}

struct Recorder<'a>(&'a World);

impl Effects<Owner> for Recorder<'_> {
    type Error = ();

    fn join(&mut self, claim: &Claim<Owner>) -> Result<(), ()> {
        let effects = &mut *self.0.effects.borrow_mut();
        if let Some(left) = &mut effects.joins_left {
            *left = left.checked_sub(1).ok_or(())?;
        }
        *effects.owners.entry(claim.id).or_default() += 1;
        Ok(())
    }

    fn part(&mut self, claim: &Claim<Owner>) {
        let effects = &mut *self.0.effects.borrow_mut();
        match effects.owners.get_mut(&claim.id) {
            Some(0) | None => effects.wrong = Some(format!("{claim:?} parts, but never joined")),
            Some(owners) => *owners -= 1,
        }
    }

    fn collect(&mut self, claim: &Claim<Owner>) {
        self.0.close(claim);
    }

    fn leak(&mut self, claim: &Claim<Owner>) {
        self.0.effects.borrow_mut().leaked.insert(claim.id);
    }

    fn pre_patch(&mut self, claim: &Claim<Owner>) -> Result<(), ()> {
        let effects = &mut *self.0.effects.borrow_mut();
        effects.pre_patch_left = effects.pre_patch_left.checked_sub(1).ok_or(())?;
        effects.step(claim, &[Phase::Absent], Phase::Introduced);
        Ok(())
    }

    fn post_patch(&mut self, claim: &Claim<Owner>) {
        let from = [Phase::Introduced, Phase::Removing];
        self.0
            .effects
            .borrow_mut()
            .step(claim, &from, Phase::InEffect);
    }

    fn pre_unpatch(&mut self, claim: &Claim<Owner>) {
        let from = [Phase::InEffect];
        self.0
            .effects
            .borrow_mut()
            .step(claim, &from, Phase::Removing);
    }

    fn post_unpatch(&mut self, claim: &Claim<Owner>) {
        let from = [Phase::Introduced, Phase::Removing];
        self.0
            .effects
            .borrow_mut()
            .step(claim, &from, Phase::Absent);
    }
}

fn facts(_: &Claim<Owner>) -> Facts<'_> {
    Facts {
        version: 1,
        name: None,
    }
}

impl World {
    /// The last owner of shadow variables has left.
    fn close(&self, claim: &Claim<Owner>) {
        let effects = &mut *self.effects.borrow_mut();
        if effects.owners.remove(&claim.id) != Some(0) {
            effects.wrong = Some(format!("{claim:?} closed before the last owner parted"));
        }
        for &owner in &effects.staying {
            if self.shadow_ids(owner).contains(&claim.id) {
                effects.wrong = Some(format!("{claim:?} closed, but {owner} stays"));
            }
        }
        if !effects.leaked.contains(&claim.id) {
            effects.variables.remove(&claim.id);
        }
    }

    /// The shadow ids that a livepatch owns as long as it is there.
    fn shadow_ids(&self, owner: Owner) -> BTreeSet<usize> {
        let livepatch = &self.livepatches[owner];
        let object = livepatch.object.iter().filter(|_| self.module);
        livepatch
            .claims
            .iter()
            .filter(|claim| claim.is_shadow())
            .chain(object)
            .map(|claim| claim.id)
            .collect()
    }

    fn claims_of(&self, owners: &[Owner]) -> Vec<&Claim<Owner>> {
        owners
            .iter()
            .flat_map(|&owner| &self.livepatches[owner].claims)
            .collect()
    }

    fn set_staying(&self, gone: &[Owner]) {
        let stays = |owner: &&Owner| !gone.contains(owner);
        self.effects.borrow_mut().staying = self.list.iter().filter(stays).copied().collect();
    }

    fn accepts(&self, new: Owner, replaced: &[Owner]) -> bool {
        self.list.iter().all(|&old| {
            let leaves = replaced.contains(&old);
            let of_old = &self.livepatches[old];
            of_old.claims.iter().chain(&of_old.object).all(|claim| {
                let of_new = &self.livepatches[new];
                let claims = of_new.claims.iter().chain(&of_new.object);
                check(claims, claim, leaves, !leaves, facts).is_ok()
            })
        })
    }

    fn enable(&mut self, new: Owner, replaces: bool, pre_patch_left: usize) {
        if self.transition.is_some() || self.list.contains(&new) {
            return;
        }
        let replaced = if replaces { self.list.clone() } else { vec![] };
        if !self.accepts(new, &replaced) {
            return;
        }
        self.effects.borrow_mut().pre_patch_left = pre_patch_left;
        self.livepatches[new].forced.set(false);
        self.list.push(new);
        // The new one can fail.
        self.set_staying(&[new]);
        self.transition = Some(Transition {
            livepatch: new,
            enables: true,
            forward: true,
            replaced: replaced.clone(),
        });
        let this = &*self;
        let effects = &mut Recorder(this);
        let entered = begin_enable(&this.livepatches[new].claims, this, effects);
        let failed = entered.is_err() || {
            begin_disable(this.claims_of(&replaced).into_iter(), this, effects);
            let object = this.livepatches[new].object.iter();
            this.module && own(object, this, effects).is_err()
        };
        if failed {
            self.reverse();
            self.finish();
        }
    }

    fn disable(&mut self, old: Owner) {
        if self.transition.is_some() || !self.list.contains(&old) {
            return;
        }
        self.transition = Some(Transition {
            livepatch: old,
            enables: false,
            forward: true,
            replaced: vec![],
        });
        self.set_staying(&[]);
        let claims = self.livepatches[old].claims.iter();
        begin_disable(claims, self, &mut Recorder(self));
    }

    fn reverse(&mut self) {
        if let Some(transition) = &mut self.transition {
            transition.forward ^= true;
        }
    }

    fn force(&mut self) {
        let Some(Transition {
            livepatch,
            enables,
            forward,
            replaced,
        }) = &self.transition
        else {
            return;
        };
        let gone = match enables == forward {
            true => replaced.clone(),
            false => vec![*livepatch],
        };
        for owner in gone {
            self.livepatches[owner].forced.set(true);
        }
        self.finish();
    }

    fn finish(&mut self) {
        let Some(Transition {
            livepatch,
            enables,
            forward,
            replaced,
        }) = self.transition.take()
        else {
            return;
        };
        let patched = enables == forward;
        let gone = if patched {
            replaced.clone()
        } else {
            vec![livepatch]
        };
        self.set_staying(&gone);
        let this = &*self;
        let effects = &mut Recorder(this);
        let claims = &this.livepatches[livepatch].claims;
        for &owner in &gone {
            let old = &this.livepatches[owner];
            let forced = old.forced.get();
            disown(old.object.iter(), this, effects, forced);
        }
        match (enables, patched) {
            (true, true) => {
                for &owner in &replaced {
                    let old = &this.livepatches[owner];
                    finish_disable(old.claims.iter(), this, effects, old.forced.get());
                }
                finish_enable(claims, effects);
            }
            (true, false) => {
                abort_disable(this.claims_of(&replaced).into_iter(), effects);
                let forced = this.livepatches[livepatch].forced.get();
                abort_enable(claims, this, effects, forced);
            }
            (false, false) => {
                let forced = this.livepatches[livepatch].forced.get();
                finish_disable(claims.iter(), this, effects, forced);
            }
            (false, true) => abort_disable(claims.iter(), effects),
        }
        self.list.retain(|owner| !gone.contains(owner));
    }

    fn toggle_module(&mut self) {
        self.module ^= true;
        self.set_staying(&[]);
        let this = &*self;
        for &owner in &this.list {
            let object = this.livepatches[owner].object.iter();
            if this.module {
                own(object, this, &mut Recorder(this)).unwrap();
            } else {
                disown(object, this, &mut Recorder(this), false);
            }
        }
    }

    /// Livepatches make the shadow variables that they may make.
    fn allocate(&self) {
        let effects = &mut *self.effects.borrow_mut();
        for &id in effects.owners.keys() {
            *effects.variables.entry(id).or_default() += 1;
        }
    }

    fn verify(&self) -> Result<(), TestCaseError> {
        let effects = self.effects.borrow();
        prop_assert_eq!(&effects.wrong, &None);
        let owned: BTreeSet<usize> = self.list.iter().flat_map(|&o| self.shadow_ids(o)).collect();
        let joined: BTreeSet<usize> = effects.owners.keys().copied().collect();
        prop_assert_eq!(&joined, &owned);
        prop_assert!(effects.owners.values().all(|&owners| owners > 0));
        for id in effects.variables.keys() {
            prop_assert!(
                owned.contains(id) || effects.leaked.contains(id),
                "{} leaked",
                id
            );
        }
        if self.transition.is_some() {
            return Ok(());
        }
        for id in IDS {
            let claims = self.claims_of(&self.list);
            let there = claims
                .iter()
                .any(|claim| claim.id == id && claim.is_managed());
            let phase = effects.phase.get(&id).copied().unwrap_or_default();
            let expected = if there {
                Phase::InEffect
            } else {
                Phase::Absent
            };
            prop_assert_eq!(phase, expected, "state {}", id);
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Op {
    Enable(Owner, bool, usize),
    Disable(Owner),
    Reverse,
    Finish,
    Force,
    Module,
}

const LIVEPATCHES: usize = 6;

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..LIVEPATCHES, any::<bool>(), prop_oneof![Just(99usize), 0..4usize])
            .prop_map(|(owner, replaces, left)| Op::Enable(owner, replaces, left)),
        2 => (0..LIVEPATCHES).prop_map(Op::Disable),
        2 => Just(Op::Reverse),
        6 => Just(Op::Finish),
        1 => Just(Op::Force),
        1 => Just(Op::Module),
    ]
}

type Wishes = (BTreeMap<usize, Wish>, BTreeSet<usize>);

/// What a livepatch claims. There are no legacy states, as nobody sees their introduction.
fn wishes() -> impl Strategy<Value = Wishes> {
    let wish = prop_oneof![2 => Just(Wish::Managed), 1 => Just(Wish::Type)];
    (
        btree_map(IDS, wish, 0..5),
        proptest::collection::btree_set(1..4usize, 0..3),
    )
}

fn run(wishes: &[Wishes], ops: &[Op]) -> Result<World, TestCaseError> {
    let livepatch =
        |(owner, (claims, object)): (Owner, &Wishes)| Livepatch::new(owner, claims, object);
    let mut world = World {
        livepatches: wishes.iter().enumerate().map(livepatch).collect(),
        list: vec![],
        transition: None,
        module: false,
        effects: RefCell::default(),
    };
    for op in ops {
        match *op {
            Op::Enable(owner, replaces, left) => world.enable(owner, replaces, left),
            Op::Disable(owner) => world.disable(owner),
            Op::Reverse => world.reverse(),
            Op::Finish => world.finish(),
            Op::Force => world.force(),
            Op::Module => world.toggle_module(),
        }
        world.verify()?;
        world.allocate();
    }
    // Everything is undone in the end.
    world.finish();
    while let Some(&owner) = world.list.first() {
        world.verify()?;
        world.disable(owner);
        world.finish();
    }
    world.verify()?;
    Ok(world)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn callbacks_pair_up_and_nothing_is_left(
        wishes in vec(wishes(), LIVEPATCHES),
        ops in vec(op(), 0..40),
    ) {
        let world = run(&wishes, &ops)?;
        let effects = world.effects.borrow();
        prop_assert!(effects.owners.is_empty());
        prop_assert!(effects.phase.values().all(|&phase| phase == Phase::Absent));
        prop_assert!(effects.variables.keys().all(|id| effects.leaked.contains(id)));
    }
}

fn managed(ids: &[usize]) -> Wishes {
    let wishes = ids.iter().map(|&id| (id, Wish::Managed)).collect();
    (wishes, BTreeSet::new())
}

fn phases(world: &World) -> Vec<Phase> {
    let effects = world.effects.borrow();
    IDS.map(|id| effects.phase.get(&id).copied().unwrap_or_default())
        .collect()
}

/// Two livepatches that share a state are replaced together: neither keeps the state for the other,
/// as they would in the series on the mailing list. It is removed, once.
#[test]
fn shared_state_is_removed_with_both() {
    let wishes = [managed(&[2]), managed(&[2]), managed(&[])];
    let mut world = run(&wishes, &[]).unwrap();
    for owner in [0, 1] {
        world.enable(owner, false, 99);
        world.finish();
    }
    assert_eq!(phases(&world)[1], Phase::InEffect);
    world.allocate();
    world.enable(2, true, 99);
    assert_eq!(phases(&world)[1], Phase::Removing);
    world.finish();
    assert_eq!(phases(&world)[1], Phase::Absent);
    assert!(world.effects.borrow().variables.is_empty());
    world.verify().unwrap();
}

/// If one of its claims cannot be held, a livepatch owns none.
#[test]
fn failing_join_leaves_nothing() {
    for left in 0..3 {
        let mut world = run(&[managed(&[2]), managed(&[2, 4, 6])], &[]).unwrap();
        world.enable(0, false, 99);
        world.finish();
        world.effects.borrow_mut().joins_left = Some(left);
        world.enable(1, false, 99);
        assert_eq!(world.list, [0]);
        assert_eq!(world.effects.borrow().owners, BTreeMap::from([(2, 1)]));
        world.verify().unwrap();
    }
}

/// A managed state takes over one of 7.3: only its removal calls anything.
#[test]
fn legacy_state_is_handed_over() {
    let legacy = (BTreeMap::from([(1, Wish::Legacy)]), BTreeSet::new());
    let mut world = run(&[legacy, managed(&[1])], &[]).unwrap();
    world.enable(0, false, 0);
    world.finish();
    world.enable(1, true, 0);
    world.finish();
    assert_eq!(phases(&world)[0], Phase::Absent);
    world.effects.borrow_mut().phase.insert(1, Phase::InEffect);
    world.disable(1);
    world.finish();
    assert_eq!(phases(&world)[0], Phase::Absent);
    world.verify().unwrap();
}

/// After a forced transition the shadow variables of a livepatch that has left are never freed,
/// even if another livepatch owns them as well.
#[test]
fn forced_livepatch_leaks() {
    let mut world = run(&[managed(&[2, 4]), managed(&[2])], &[]).unwrap();
    world.enable(0, false, 99);
    world.finish();
    world.allocate();
    world.enable(1, true, 99);
    world.force();
    assert_eq!(world.effects.borrow().leaked, BTreeSet::from([2, 4]));
    world.disable(1);
    world.finish();
    assert_eq!(
        world.effects.borrow().variables,
        BTreeMap::from([(2, 1), (4, 1)])
    );
    world.verify().unwrap();
}

fn claim(
    kind: Kind,
    version: u32,
    name: Option<&'static str>,
) -> Claim<(u32, Option<&'static str>)> {
    Claim::new(7, kind, (version, name))
}

fn verdict(
    new: &[Claim<(u32, Option<&'static str>)>],
    old: Claim<(u32, Option<&'static str>)>,
    leaves: bool,
    others: bool,
) -> Result<(), Refusal> {
    check(new.iter(), &old, leaves, others, |claim| Facts {
        version: claim.data.0,
        name: claim.data.1.map(str::as_bytes),
    })
}

const PLAIN: Contract = Contract {
    shadow: false,
    block_disable: false,
};

#[test]
fn check_versions() {
    let managed = Kind::Managed(PLAIN);
    for leaves in [false, true] {
        for (old, new) in [(0, 0), (1, 1), (1, 2), (0, 1)] {
            for kind in [Kind::Legacy, managed] {
                let new = [claim(kind, new, None)];
                assert_eq!(
                    verdict(&new, claim(Kind::Legacy, old, None), leaves, false),
                    Ok(())
                );
            }
        }
        let older = [claim(Kind::Legacy, 1, None)];
        let result = verdict(&older, claim(Kind::Legacy, 2, None), leaves, false);
        assert_eq!(result, Err(Refusal::Version));
        // 0 means that no version is given.
        let none = [claim(managed, 0, None)];
        assert_eq!(
            verdict(&none, claim(managed, 2, None), leaves, false),
            Ok(())
        );
        let older = [claim(managed, 1, None)];
        let result = verdict(&older, claim(managed, 2, None), leaves, false);
        assert_eq!(result, Err(Refusal::Version));
    }
}

#[test]
fn check_missing() {
    let blocks = Kind::Managed(Contract {
        block_disable: true,
        ..PLAIN
    });
    for others in [false, true] {
        assert_eq!(
            verdict(&[], claim(Kind::Legacy, 0, None), false, others),
            Ok(())
        );
        let result = verdict(&[], claim(Kind::Legacy, 0, None), true, others);
        assert_eq!(result, Err(Refusal::Version));
        let managed = claim(Kind::Managed(PLAIN), 0, None);
        assert_eq!(verdict(&[], managed, true, others), Ok(()));
        assert_eq!(verdict(&[], claim(blocks, 0, None), false, others), Ok(()));
    }
    let result = verdict(&[], claim(blocks, 0, None), true, false);
    assert_eq!(result, Err(Refusal::Blocked));
    assert_eq!(verdict(&[], claim(blocks, 0, None), true, true), Ok(()));
    let again = [claim(blocks, 0, None)];
    assert_eq!(verdict(&again, claim(blocks, 0, None), true, false), Ok(()));
}

#[test]
fn check_agreement() {
    let of = |shadow, block_disable| {
        Kind::Managed(Contract {
            shadow,
            block_disable,
        })
    };
    let old = || claim(of(false, false), 0, Some("a"));
    let cases = [
        (claim(of(false, false), 0, Some("a")), Ok(())),
        (claim(of(false, false), 0, None), Ok(())),
        (claim(of(false, false), 0, Some("b")), Err(Refusal::Name)),
        (claim(of(true, false), 0, None), Err(Refusal::Shadow)),
        (claim(Kind::Shadow, 0, None), Err(Refusal::Shadow)),
        (claim(of(false, true), 0, None), Ok(())),
        (claim(Kind::Legacy, 0, None), Err(Refusal::Legacy)),
    ];
    for (new, expected) in cases {
        assert_eq!(verdict(&[new], old(), false, false), expected);
    }
    // A release can drop the block_disable of the one before it, or be the first to have it.
    for (before, after) in [(true, false), (false, true)] {
        let old = claim(of(false, before), 0, None);
        let new = [claim(of(false, after), 0, None)];
        assert_eq!(verdict(&new, old, true, false), Ok(()));
    }
    // A state of 7.3 may become a managed one.
    let legacy = || claim(Kind::Legacy, 1, None);
    for new in [of(true, true), of(false, false)] {
        assert_eq!(
            verdict(&[claim(new, 0, Some("a"))], legacy(), true, false),
            Ok(())
        );
    }
    // As in 7.3: of two states with one id, the first counts in the new livepatch, and both count
    // in the old one.
    let twice = [claim(Kind::Legacy, 2, None), claim(Kind::Legacy, 1, None)];
    assert_eq!(
        verdict(&twice, claim(Kind::Legacy, 2, None), true, false),
        Ok(())
    );
    let result = verdict(&twice, claim(Kind::Legacy, 3, None), true, false);
    assert_eq!(result, Err(Refusal::Version));
    // Nor does a shadow type disagree with a state of 7.3.
    let both = [claim(Kind::Legacy, 1, None), claim(Kind::Shadow, 0, None)];
    assert_eq!(verdict(&both, legacy(), true, false), Ok(()));
}
