// SPDX-License-Identifier: GPL-2.0-or-later

//! What a descriptor says about replace sets: checked, and copied.

use crate::{
    resident,
    rules::sets::{
        Asked,
        Rules, //
    }, //
};
use kernel::{
    bindings,
    prelude::*,
    str::CStr, //
};

/// The most sets that a livepatch can supersede.
const MAX_SUPERSEDES: usize = bindings::KLP_MAX_SUPERSEDES as usize;

/// What a livepatch asks for.
pub(crate) struct SetSpec {
    /// By its own wish or by the core's parameter.
    scoped: bool,
    replace: bool,
    own: u32,
    supersedes: KVec<u32>,
}

impl SetSpec {
    /// Reads the sets of livepatch `name`, and warns if it asks for what excludes each other.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] after a message that says what is wrong, [`ENOMEM`].
    ///
    /// # Safety
    ///
    /// `supersedes` must be NULL or valid: for as many entries as are said to be there or, without
    /// a number, up to a 0 or [`MAX_SUPERSEDES`] + 1.
    pub(crate) unsafe fn parse(name: &CStr, patch: &bindings::klp_patch) -> Result<Self> {
        // SAFETY: Both names of each are of the same type.
        let (own, list, count) = unsafe {
            (
                patch.__bindgen_anon_1.replace_set,
                patch.__bindgen_anon_2.supersedes,
                patch.__bindgen_anon_3.nr_supersedes,
            )
        };
        let (param, param_count) = (&patch.param_supersedes, patch.nr_param_supersedes);
        let mut supersedes = KVec::new();
        if !list.is_null() && count == 0 {
            // SAFETY: By the caller's promise.
            unsafe { read_terminated(name, list, &mut supersedes) }?;
        } else {
            // SAFETY: By the caller's promise.
            unsafe { read_counted(name, list, count, &mut supersedes) }?;
        }
        // CAST: To a type that is no smaller.
        let Some(param) = param.get(..param_count as usize) else {
            pr_err!(
                "livepatch '{}': param_supersedes has {} sets, more than {}\n",
                name,
                param_count,
                param.len()
            );
            return Err(EINVAL);
        };
        add(name, param, &mut supersedes)?;

        let asked = Asked {
            scoped: patch.scoped,
            replace: patch.replace,
            own,
            supersedes: (!list.is_null() || param_count != 0).then_some(&supersedes[..]),
            strict: resident::strict_replace_sets(),
        };
        if asked.ignores_replace() {
            pr_warn!(
                "livepatch '{}' is in replace set {}, so it does not replace all\n",
                name,
                own
            );
        }
        Ok(Self {
            scoped: asked.scoped(),
            replace: asked.replace,
            own,
            supersedes,
        })
    }

    /// The rules that the livepatch follows.
    // Ten times in place would be 800 bytes more.
    #[inline(never)]
    pub(crate) fn rules(&self) -> Rules<'_> {
        Rules::new(&Asked {
            scoped: self.scoped,
            replace: self.replace,
            own: self.own,
            supersedes: self.scoped.then_some(&self.supersedes),
            strict: false,
        })
    }

    /// Whether the livepatch replaces others, of whichever set.
    pub(crate) fn is_replacing(&self) -> bool {
        self.scoped || self.replace
    }

    /// The set that the livepatch is in.
    pub(crate) fn own(&self) -> u32 {
        self.own
    }

    /// The sets that the livepatch supersedes, as they were given.
    pub(crate) fn supersedes(&self) -> &[u32] {
        &self.supersedes
    }
}

/// Adds `count` sets of `list` to `out`.
///
/// # Safety
///
/// `list` must be NULL or valid for that many.
unsafe fn read_counted(name: &CStr, list: *const u32, count: u32, out: &mut KVec<u32>) -> Result {
    if count == 0 {
        return Ok(());
    }
    // CAST: To a type that is no smaller.
    let count = count as usize;
    if list.is_null() {
        pr_err!(
            "livepatch '{}': supersedes should have {} sets, but is NULL\n",
            name,
            count
        );
        return Err(EINVAL);
    }
    if count > MAX_SUPERSEDES {
        return too_many(name, count);
    }
    // SAFETY: By the caller's promise.
    let list = unsafe { core::slice::from_raw_parts(list, count) };
    add(name, list, out)
}

fn too_many(name: &CStr, count: usize) -> Result {
    pr_err!(
        "livepatch '{}' supersedes {} sets, more than {}\n",
        name,
        count,
        MAX_SUPERSEDES
    );
    Err(EINVAL)
}

/// Adds `list` to `out`.
fn add(name: &CStr, list: &[u32], out: &mut KVec<u32>) -> Result {
    let sum = out.len().saturating_add(list.len());
    if sum > MAX_SUPERSEDES {
        return too_many(name, sum);
    }
    out.extend_from_slice(list, GFP_KERNEL)?;
    Ok(())
}

/// Adds the sets of `list`, up to the first 0, to `out`.
///
/// # Safety
///
/// `list` must be valid up to a 0, or for [`MAX_SUPERSEDES`] + 1 entries.
unsafe fn read_terminated(name: &CStr, list: *const u32, out: &mut KVec<u32>) -> Result {
    for index in 0..=MAX_SUPERSEDES {
        // SAFETY: By the caller's promise: there was no 0 before.
        let set = unsafe { list.wrapping_add(index).read() };
        if set == 0 {
            return Ok(());
        }
        out.push(set, GFP_KERNEL)?;
    }
    pr_err!(
        "livepatch '{}': supersedes has neither a number of sets nor a 0 behind the first {}\n",
        name,
        MAX_SUPERSEDES
    );
    Err(EINVAL)
}
