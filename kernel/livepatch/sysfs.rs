// SPDX-License-Identifier: GPL-2.0-or-later

//! `/sys/kernel/livepatch`.
//!
//! ```text
//! <patch>/enabled              <patch>/<object>/patched
//! <patch>/transition           <patch>/<object>/<function,sympos>/
//! <patch>/force
//! <patch>/replace
//! <patch>/stack_order
//! <patch>/replace_set
//! <patch>/supersedes
//! <patch>/pending
//! <patch>/attempts
//! <patch>/age_ms
//! ```
//!
//! The files of a patch may take the mutex; the directory of a patch is therefore removed without
//! it. The files of objects must not. Replaces the sysfs part of `core.c`; described in
//! `Documentation/ABI/testing/sysfs-kernel-livepatch` and, for what the C core does not have, in
//! `sysfs-kernel-livepatch-sets` and `-watch` next to it.

use crate::{
    patch_id::PatchId,
    set_spec::SetSpec, //
};
use kernel::{
    fmt::Write as _,
    kobject::{
        Attribute,
        Kobject, //
    },
    prelude::*,
    str::kstrtobool_bytes,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    }, //
};

/// `/sys/kernel/livepatch` itself.
pub(crate) struct RootDir;

impl Kobject for RootDir {
    const ATTRIBUTES: &'static [&'static Attribute<Self>] = &[];
}

/// What the files of a livepatch ask the core for.
pub(crate) struct Requests {
    pub(crate) set_enabled: fn(PatchId, bool) -> Result,
    pub(crate) force: fn(PatchId) -> Result,
    pub(crate) is_in_transition: fn(PatchId) -> bool,
    pub(crate) stack_order: fn(PatchId) -> usize,
    /// How many tasks are still to be switched.
    pub(crate) pending: fn(PatchId) -> usize,
    /// How often it was tried.
    pub(crate) attempts: fn(PatchId) -> u32,
    /// For how long, in milliseconds.
    pub(crate) age_ms: fn(PatchId) -> u64,
}

/// The directory of a livepatch.
pub(crate) struct PatchDir {
    id: PatchId,
    requests: &'static Requests,
    replace: bool,
    set: u32,
    supersedes: KVec<u32>,
    pub(crate) enabled: Atomic<bool>,
}

impl PatchDir {
    pub(crate) fn new(
        id: PatchId,
        replace: bool,
        sets: &SetSpec,
        requests: &'static Requests,
    ) -> Result<Self> {
        let mut supersedes = KVec::new();
        supersedes.extend_from_slice(sets.supersedes(), GFP_KERNEL)?;
        Ok(Self {
            id,
            requests,
            replace,
            set: sets.own(),
            supersedes,
            enabled: Atomic::new(false),
        })
    }

    /// Whether the directory of a livepatch has a file `name`.
    pub(crate) fn has_file(name: &CStr) -> bool {
        Self::ATTRIBUTES.iter().any(|file| file.name() == name)
    }
}

impl Kobject for PatchDir {
    const ATTRIBUTES: &'static [&'static Attribute<Self>] = &[
        &Attribute::read_write(
            c"enabled",
            |this, out| Ok(writeln!(out, "{}", u8::from(this.enabled.load(Relaxed)))?),
            |this, input| (this.requests.set_enabled)(this.id, kstrtobool_bytes(input)?),
        ),
        &Attribute::read_only(c"transition", |this, out| {
            let transition = (this.requests.is_in_transition)(this.id);
            Ok(writeln!(out, "{}", u8::from(transition))?)
        }),
        &Attribute::write_only(c"force", |this, input| {
            if !kstrtobool_bytes(input)? {
                return Ok(());
            }
            (this.requests.force)(this.id)
        }),
        &Attribute::read_only(c"replace", |this, out| {
            Ok(writeln!(out, "{}", u8::from(this.replace))?)
        }),
        &Attribute::read_only(c"stack_order", |this, out| {
            let order = (this.requests.stack_order)(this.id);
            Ok(writeln!(out, "{order}")?)
        }),
        &Attribute::read_only(c"replace_set", |this, out| {
            Ok(writeln!(out, "{}", this.set)?)
        }),
        &Attribute::read_only(c"supersedes", |this, out| {
            for (index, set) in this.supersedes.iter().enumerate() {
                let space = if index == 0 { "" } else { " " };
                write!(out, "{space}{set}")?;
            }
            Ok(writeln!(out)?)
        }),
        &Attribute::read_only(c"pending", |this, out| {
            Ok(writeln!(out, "{}", (this.requests.pending)(this.id))?)
        }),
        &Attribute::read_only(c"attempts", |this, out| {
            Ok(writeln!(out, "{}", (this.requests.attempts)(this.id))?)
        }),
        &Attribute::read_only(c"age_ms", |this, out| {
            Ok(writeln!(out, "{}", (this.requests.age_ms)(this.id))?)
        }),
    ];
}

/// The directory of an object.
pub(crate) struct ObjectDir {
    pub(crate) patched: Atomic<bool>,
}

impl ObjectDir {
    pub(crate) fn new() -> Self {
        Self {
            patched: Atomic::new(false),
        }
    }
}

impl Kobject for ObjectDir {
    const ATTRIBUTES: &'static [&'static Attribute<Self>] =
        &[&Attribute::read_only(c"patched", |this, out| {
            Ok(writeln!(out, "{}", u8::from(this.patched.load(Relaxed)))?)
        })];
}

/// The directory of a function, which is empty.
pub(crate) struct FuncDir;

impl Kobject for FuncDir {
    const ATTRIBUTES: &'static [&'static Attribute<Self>] = &[];
}
