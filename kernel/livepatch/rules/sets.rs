// SPDX-License-Identifier: GPL-2.0-or-later

//! Replace sets: which livepatches a new one replaces, and next to which it cannot be enabled.
//!
//! A livepatch is in one set and replaces what is in that set, and in the sets that it supersedes,
//! at the moment when it is loaded. It must share nothing with those that stay. A livepatch that
//! asks for none of this follows the rules from before there were sets, and counts as in set 0. The
//! C core has no sets. Pure; tested on the host.

use crate::sort::sort_by_key;

/// What a livepatch, its administrator and the core's parameter say about sets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked<'a> {
    /// `klp_patch.scoped`.
    pub(crate) scoped: bool,
    /// `klp_patch.replace`.
    pub(crate) replace: bool,
    /// `klp_patch.replace_set`.
    pub(crate) own: u32,
    /// The superseded sets; [`None`] if there is no list, not even an empty one.
    pub(crate) supersedes: Option<&'a [u32]>,
    /// The core's parameter `strict_replace_sets`.
    pub(crate) strict: bool,
}

impl Asked<'_> {
    /// Whether the livepatch itself asks for sets.
    fn sets(&self) -> bool {
        self.scoped || self.own != 0 || self.supersedes.is_some()
    }

    /// Whether the rules of sets apply.
    pub(crate) fn scoped(&self) -> bool {
        self.strict || self.sets()
    }

    /// Whether `replace` is asked for, and of no effect because sets are too.
    pub(crate) fn ignores_replace(&self) -> bool {
        self.replace && self.sets()
    }
}

/// The rules that a livepatch follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules<'a> {
    /// Those from before there were sets: it replaces either all others of the kind or none.
    Legacy { replace: bool },
    /// It is in the set `own`, and also replaces what is in the sets `supersedes`.
    Sets { own: u32, supersedes: &'a [u32] },
}

impl<'a> Rules<'a> {
    /// Returns what follows from what was asked for.
    pub(crate) fn new(asked: &Asked<'a>) -> Self {
        if asked.scoped() {
            Rules::Sets {
                own: asked.own,
                supersedes: asked.supersedes.unwrap_or_default(),
            }
        } else {
            Rules::Legacy {
                replace: asked.replace,
            }
        }
    }

    /// The set that a livepatch counts as in when another one is loaded.
    fn set(&self) -> u32 {
        match self {
            Rules::Legacy { .. } => 0,
            Rules::Sets { own, .. } => *own,
        }
    }

    /// Whether a livepatch that is loaded replaces one that is enabled.
    pub(crate) fn replaces(&self, enabled: &Rules<'_>) -> bool {
        let set = enabled.set();
        match self {
            Rules::Legacy { replace } => *replace && set == 0,
            Rules::Sets { own, supersedes } => *own == set || supersedes.contains(&set),
        }
    }

    /// Whether both livepatches can change the same, one on top of the other.
    pub(crate) fn stacks_on(&self, enabled: &Rules<'_>) -> bool {
        matches!(
            (self, enabled),
            (Rules::Legacy { .. }, Rules::Legacy { .. })
        )
    }

    /// Whether a livepatch that is loaded must share nothing with one that is enabled.
    pub(crate) fn must_not_share(&self, enabled: &Rules<'_>) -> bool {
        !self.replaces(enabled) && !self.stacks_on(enabled)
    }
}

/// A function that a livepatch changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FuncId<'a> {
    /// The name of the module, [`None`] for vmlinux.
    pub(crate) object: Option<&'a [u8]>,
    pub(crate) name: &'a [u8],
    /// Which of several functions of that name, from 1.
    pub(crate) position: usize,
}

/// A livepatch, as far as sets are concerned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LivepatchParts<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) rules: Rules<'a>,
    /// What it changes, nops not included; [sorted](sort).
    pub(crate) funcs: &'a [FuncId<'a>],
    /// Its states and shadow variables; sorted.
    pub(crate) ids: &'a [usize],
}

/// What two livepatches have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Common<'a> {
    Func(FuncId<'a>),
    /// The id of a state or of shadow variables.
    Id(usize),
}

/// Why a livepatch cannot be enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Conflict<'a> {
    pub(crate) shared: Common<'a>,
    /// The name of the livepatch that has it, and would stay.
    pub(crate) other: &'a [u8],
}

/// Sorts `items` for use in a [`LivepatchParts`] and in [`first_common`].
pub(crate) fn sort<T: Copy + Ord>(items: &mut [T]) {
    sort_by_key(items, |item| *item);
}

/// Returns the first pair of items, one of each slice, with the same key. Both must be sorted by
/// it. Linear.
pub(crate) fn first_common<'a, T, K: PartialOrd>(
    one: &'a [T],
    two: &'a [T],
    key: impl Fn(&T) -> K,
) -> Option<(&'a T, &'a T)> {
    let (mut one, mut two) = (one.iter().peekable(), two.iter().peekable());
    loop {
        let (&left, &right) = (one.peek()?, two.peek()?);
        let (left_key, right_key) = (key(left), key(right));
        if left_key == right_key {
            return Some((left, right));
        }
        if left_key < right_key {
            one.next();
        } else {
            two.next();
        }
    }
}

/// Returns what two livepatches have in common: the first function, else the first id.
fn shared<'a>(one: &LivepatchParts<'a>, two: &LivepatchParts<'a>) -> Option<Common<'a>> {
    let func = first_common(one.funcs, two.funcs, |func| *func);
    let id = || first_common(one.ids, two.ids, |id| *id);
    func.map(|(func, _)| Common::Func(*func))
        .or_else(|| id().map(|(id, _)| Common::Id(*id)))
}

/// Returns what keeps `new` from being enabled next to those of `enabled` that it does not replace.
///
/// Of several conflicts it is the least, functions before ids, whatever the order of `enabled`.
/// `O(n)` in the functions and ids of all livepatches.
pub(crate) fn find_conflict<'a>(
    new: &LivepatchParts<'a>,
    enabled: &[LivepatchParts<'a>],
) -> Option<Conflict<'a>> {
    let mut found: Option<Conflict<'a>> = None;
    for other in enabled {
        if !new.rules.must_not_share(&other.rules) {
            continue;
        }
        let Some(shared) = shared(new, other) else {
            continue;
        };
        let conflict = Conflict {
            shared,
            other: other.name,
        };
        if found.is_none_or(|found| conflict < found) {
            found = Some(conflict);
        }
    }
    found
}
