// SPDX-License-Identifier: GPL-2.0-or-later

//! A system with livepatches, as far as replace sets and states are concerned.
//!
//! It decides by the core's own rules. `tests/sets.rs` compares them with an independent model.

use crate::rules::sets::{
    self,
    Asked,
    Common,
    Conflict,
    FuncId,
    LivepatchParts,
    Rules, //
};

/// A livepatch, enabled or to be loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Patch {
    pub(crate) name: String,
    pub(crate) scoped: bool,
    pub(crate) replace: bool,
    pub(crate) own: u32,
    pub(crate) supersedes: Option<Vec<u32>>,
    /// Module (or not), name, position; in no order.
    pub(crate) funcs: Vec<(Option<String>, String, usize)>,
    pub(crate) ids: Vec<usize>,
}

impl Patch {
    pub(crate) fn asked(&self, strict: bool) -> Asked<'_> {
        Asked {
            scoped: self.scoped,
            replace: self.replace,
            own: self.own,
            supersedes: self.supersedes.as_deref(),
            strict,
        }
    }

    pub(crate) fn rules(&self, strict: bool) -> Rules<'_> {
        Rules::new(&self.asked(strict))
    }

    pub(crate) fn is_replacing(&self, strict: bool) -> bool {
        self.rules(strict) != Rules::Legacy { replace: false }
    }

    fn livepatch<'a>(
        &'a self,
        strict: bool,
        funcs: &'a [FuncId<'a>],
        ids: &'a [usize],
    ) -> LivepatchParts<'a> {
        LivepatchParts {
            name: self.name.as_bytes(),
            rules: self.rules(strict),
            funcs,
            ids,
        }
    }

    fn sorted(&self) -> (Vec<FuncId<'_>>, Vec<usize>) {
        let mut funcs: Vec<_> = self
            .funcs
            .iter()
            .map(|(object, name, position)| FuncId {
                object: object.as_deref().map(str::as_bytes),
                name: name.as_bytes(),
                position: (*position).max(1),
            })
            .collect();
        let mut ids = self.ids.clone();
        sets::sort(&mut funcs);
        sets::sort(&mut ids);
        (funcs, ids)
    }
}

/// Why a livepatch was not enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another livepatch has the function, named as in messages, or the id.
    Func(String, String),
    Id(usize, String),
    /// It replaces a livepatch with a state that it lacks.
    State,
}

impl From<Conflict<'_>> for Refusal {
    fn from(conflict: Conflict<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let other = text(conflict.other);
        match conflict.shared {
            Common::Func(func) => {
                let object = text(func.object.unwrap_or(b"vmlinux"));
                let label = format!("{object}:{},{}", text(func.name), func.position);
                Refusal::Func(label, other)
            }
            Common::Id(id) => Refusal::Id(id, other),
        }
    }
}

/// The enabled livepatches, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct System {
    pub(crate) strict: bool,
    pub(crate) enabled: Vec<Patch>,
}

impl System {
    /// Says what would keep `new` from being enabled.
    pub(crate) fn find_conflict(&self, new: &Patch) -> Option<Refusal> {
        let parts: Vec<_> = self.enabled.iter().map(Patch::sorted).collect();
        let enabled: Vec<_> = self
            .enabled
            .iter()
            .zip(&parts)
            .map(|(patch, (funcs, ids))| patch.livepatch(self.strict, funcs, ids))
            .collect();
        let (funcs, ids) = new.sorted();
        sets::find_conflict(&new.livepatch(self.strict, &funcs, &ids), &enabled).map(Refusal::from)
    }

    /// Enables `new`, and returns the names of those that it replaces.
    pub(crate) fn load(&mut self, new: Patch) -> Result<Vec<String>, Refusal> {
        if let Some(refusal) = self.find_conflict(&new) {
            return Err(refusal);
        }
        let rules = new.rules(self.strict);
        let (old, stay): (Vec<_>, Vec<_>) = self
            .enabled
            .iter()
            .cloned()
            .partition(|patch| rules.replaces(&patch.rules(self.strict)));
        let mut states = old.iter().flat_map(|patch| &patch.ids);
        if new.is_replacing(self.strict) && !states.all(|id| new.ids.contains(id)) {
            return Err(Refusal::State);
        }
        self.enabled = stay;
        self.enabled.push(new);
        Ok(old.into_iter().map(|patch| patch.name).collect())
    }

    /// Disables the livepatch `name`.
    pub(crate) fn disable(&mut self, name: &str) {
        self.enabled.retain(|patch| patch.name != name);
    }

    /// Returns the livepatch whose function runs: the newest that has it.
    pub(crate) fn runs(&self, object: Option<&str>, name: &str) -> Option<&Patch> {
        let has = |patch: &&Patch| {
            let mut funcs = patch.funcs.iter();
            funcs.any(|func| func.0.as_deref() == object && func.1 == name)
        };
        self.enabled.iter().rev().find(has)
    }
}
