// SPDX-License-Identifier: GPL-2.0-or-later

use super::config;
use crate::{
    rules::sets::{
        first_common,
        sort,
        Rules, //
    },
    system::{
        Patch,
        Refusal,
        System, //
    }, //
};
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::select, //
};
use std::cell::Cell;

/// Whether `new` replaces `old`, in the words of the design.
fn model_replaces(new: &Patch, old: &Patch, strict: bool) -> bool {
    let scoped =
        |patch: &Patch| strict || patch.scoped || patch.own != 0 || patch.supersedes.is_some();
    if !scoped(new) {
        return new.replace && (!scoped(old) || old.own == 0);
    }
    let evicts = |set| new.own == set || new.supersedes.iter().flatten().any(|&other| other == set);
    if scoped(old) {
        evicts(old.own)
    } else {
        evicts(0)
    }
}

/// Whether both may have the same functions and ids.
fn model_may_share(new: &Patch, old: &Patch, strict: bool) -> bool {
    let legacy =
        |patch: &Patch| !strict && !patch.scoped && patch.own == 0 && patch.supersedes.is_none();
    legacy(new) && legacy(old) || model_replaces(new, old, strict)
}

/// All functions and ids that two livepatches share and must not share.
fn model_conflicts(new: &Patch, system: &System) -> Vec<Refusal> {
    let mut found = Vec::new();
    for old in &system.enabled {
        if model_may_share(new, old, system.strict) {
            continue;
        }
        for one in &new.funcs {
            for two in &old.funcs {
                if (&one.0, &one.1, one.2.max(1)) == (&two.0, &two.1, two.2.max(1)) {
                    let object = one.0.as_deref().unwrap_or("vmlinux");
                    let label = format!("{object}:{},{}", one.1, one.2.max(1));
                    found.push(Refusal::Func(label, old.name.clone()));
                }
            }
        }
        for &id in &new.ids {
            if old.ids.contains(&id) {
                found.push(Refusal::Id(id, old.name.clone()));
            }
        }
    }
    found
}

fn funcs() -> impl Strategy<Value = Vec<(Option<String>, String, usize)>> {
    let object = option::of(select(vec!["a".to_string(), "b".to_string()]));
    let name = select(vec!["f".to_string(), "g".to_string(), "ff".to_string()]);
    vec((object, name, 0..3usize), 0..4)
}

fn patch(legacy: bool) -> impl Strategy<Value = Patch> {
    let sets = if legacy {
        (Just(false), Just(0), Just(None)).boxed()
    } else {
        let own = prop_oneof![3 => Just(0u32), 5 => 1..4u32];
        (any::<bool>(), own, option::of(vec(0..4u32, 0..3))).boxed()
    };
    (sets, any::<bool>(), funcs(), vec(1..6usize, 0..2)).prop_map(
        |((scoped, own, supersedes), replace, funcs, ids)| Patch {
            scoped,
            replace,
            own,
            supersedes,
            funcs,
            ids,
            ..Patch::default()
        },
    )
}

/// Livepatches with different names.
fn patches(legacy: bool, max: usize) -> impl Strategy<Value = Vec<Patch>> {
    vec(patch(legacy), 1..max).prop_map(|mut patches| {
        for (index, patch) in patches.iter_mut().enumerate() {
            patch.name = format!("p{index}");
        }
        patches
    })
}

fn names(patches: &[Patch]) -> Vec<&str> {
    patches.iter().map(|patch| &*patch.name).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn as_the_model(patches in patches(false, 6), strict: bool) {
        let (new, old) = patches.split_last().unwrap();
        let system = System { strict, enabled: old.to_vec() };
        for old in old {
            prop_assert_eq!(
                new.rules(strict).replaces(&old.rules(strict)),
                model_replaces(new, old, strict)
            );
            prop_assert_eq!(
                new.rules(strict).must_not_share(&old.rules(strict)),
                !model_may_share(new, old, strict)
            );
        }
        let all = model_conflicts(new, &system);
        match system.find_conflict(new) {
            None => prop_assert_eq!(all, vec![]),
            Some(found) => {
                prop_assert!(all.contains(&found), "{:?} is none of {:?}", found, all);
                if matches!(found, Refusal::Id(..)) {
                    prop_assert!(all.iter().all(|one| matches!(one, Refusal::Id(..))));
                }
            }
        }
    }

    #[test]
    fn in_any_order(patches in patches(false, 6), turn in 0..6usize, strict: bool) {
        let (new, old) = patches.split_last().unwrap();
        let mut system = System { strict, enabled: old.to_vec() };
        let first = system.find_conflict(new);
        system.enabled.reverse();
        prop_assert_eq!(&system.find_conflict(new), &first);
        let len = old.len().max(1);
        system.enabled.rotate_left((turn % len).min(old.len()));
        prop_assert_eq!(&system.find_conflict(new), &first);

        let mut replaced = system.load(new.clone());
        let mut again = System { strict, enabled: old.to_vec() }.load(new.clone());
        for names in [&mut replaced, &mut again].into_iter().flatten() {
            names.sort();
        }
        prop_assert_eq!(replaced, again);
    }

    #[test]
    fn what_is_enabled_shares_nothing(patches in patches(false, 12), strict: bool) {
        let mut system = System { strict, ..System::default() };
        for new in patches {
            let before = system.clone();
            let rules = new.rules(strict);
            match system.load(new.clone()) {
                Err(_) => prop_assert_eq!(&system, &before, "a refused load changes nothing"),
                Ok(replaced) => for old in &before.enabled {
                    let gone = !names(&system.enabled).contains(&&*old.name);
                    prop_assert_eq!(gone, rules.replaces(&old.rules(strict)));
                    prop_assert_eq!(gone, replaced.contains(&old.name));
                },
            }
            for (index, old) in system.enabled.iter().enumerate() {
                for new in system.enabled.iter().skip(index + 1) {
                    if let (Rules::Sets { own, .. }, Rules::Sets { own: other, .. }) =
                        (old.rules(strict), new.rules(strict))
                    {
                        prop_assert_ne!(own, other, "a set is exclusive");
                    }
                    let both = System { strict, enabled: vec![old.clone()] };
                    let legacy = |patch: &Patch| {
                        matches!(patch.rules(strict), Rules::Legacy { .. })
                    };
                    if !(legacy(old) && legacy(new)) {
                        let mut stays = new.clone();
                        // If it were loaded it might replace others; here only what both
                        // share counts.
                        stays.supersedes = Some(vec![]);
                        stays.own = 99;
                        prop_assert_eq!(both.find_conflict(&stays), None);
                    }
                }
            }
        }
    }

    /// A livepatch supersedes sets only when it is loaded. A later livepatch goes by its own rules.
    #[test]
    fn eviction_is_an_act_of_the_load(
        old in patch(false),
        mut new in patch(false),
        own in 1..4u32,
        strict: bool,
    ) {
        let cumulative = Patch {
            name: "cumulative".to_string(),
            scoped: true,
            own: 7,
            supersedes: Some(vec![own]),
            ..Patch::default()
        };
        let mut hotfix = Patch { name: "hotfix".to_string(), own, ids: vec![], ..old };
        hotfix.supersedes = None;
        let mut system = System { strict, enabled: vec![hotfix.clone()] };
        prop_assert_eq!(system.load(cumulative), Ok(vec!["hotfix".to_string()]));
        prop_assert_eq!(system.load(hotfix), Ok(vec![]));
        prop_assert_eq!(names(&system.enabled), ["cumulative", "hotfix"]);
        new.own = own;
        new.scoped = true;
        new.supersedes = None;
        prop_assert_eq!(system.load(new), Ok(vec!["hotfix".to_string()]));
        prop_assert_eq!(system.enabled.len(), 2);
    }

    #[test]
    fn without_sets_as_before(patches in patches(true, 8)) {
        let (new, old) = patches.split_last().unwrap();
        let system = System { strict: false, enabled: old.to_vec() };
        prop_assert_eq!(system.find_conflict(new), None);
        for old in old {
            let replaces = new.rules(false).replaces(&old.rules(false));
            prop_assert_eq!(replaces, new.replace, "all or none");
        }
    }

    #[test]
    fn in_linear_time(mut one in vec(0..4000usize, 0..2000), mut two in vec(0..4000usize, 0..2000)) {
        sort(&mut one);
        sort(&mut two);
        let calls = Cell::new(0usize);
        let found = first_common(&one, &two, |item| {
            calls.set(calls.get() + 1);
            *item
        });
        let first = one.iter().find(|item| two.contains(item));
        prop_assert_eq!(found.map(|(item, _)| item), first);
        prop_assert!(calls.get() <= 2 * (one.len() + two.len()));
    }
}

fn with_funcs(own: u32, names: &[&str]) -> Patch {
    let funcs = names.iter().map(|name| (None, name.to_string(), 0));
    Patch {
        name: format!("{own}:{}", names.join("+")),
        scoped: true,
        own,
        funcs: funcs.collect(),
        ..Patch::default()
    }
}

#[test]
fn five_days() {
    let mut system = System::default();
    let monday = with_funcs(1, &["a"]);
    let tuesday = with_funcs(2, &["b"]);
    let wednesday = with_funcs(2, &["b", "c"]);
    let mut thursday = with_funcs(1, &["a", "b", "c"]);
    thursday.supersedes = Some(vec![2]);
    let friday = with_funcs(2, &["d"]);
    let customer = with_funcs(1000, &["z"]);
    assert_eq!(system.load(monday.clone()), Ok(vec![]));
    assert_eq!(system.load(customer.clone()), Ok(vec![]));
    assert_eq!(system.load(tuesday.clone()), Ok(vec![]));
    assert_eq!(
        system.load(wednesday.clone()),
        Ok(vec![tuesday.name.clone()])
    );
    assert_eq!(
        system.load(thursday.clone()),
        Ok(vec![monday.name, wednesday.name])
    );
    assert_eq!(
        system.load(tuesday),
        Err(Refusal::Func(
            "vmlinux:b,1".to_string(),
            thursday.name.clone()
        ))
    );
    assert_eq!(system.load(friday.clone()), Ok(vec![]));
    assert_eq!(
        names(&system.enabled),
        [customer.name, thursday.name, friday.name]
    );
}

#[test]
fn position_0_is_1() {
    let mut one = with_funcs(1, &["a"]);
    let two = with_funcs(2, &["a"]);
    let refused = Some(Refusal::Func("vmlinux:a,1".to_string(), two.name.clone()));
    let system = System {
        enabled: vec![two],
        ..System::default()
    };
    assert_eq!(system.find_conflict(&one), refused);
    one.funcs[0].2 = 1;
    assert_eq!(system.find_conflict(&one), refused);
    one.funcs[0].2 = 2;
    assert_eq!(system.find_conflict(&one), None);
}
