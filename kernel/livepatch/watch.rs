// SPDX-License-Identifier: GPL-2.0-or-later

//! Tells whoever watches what becomes of a transition: tracepoints, `poll()` on the files in sysfs,
//! uevents, and a line in the log when it has stalled.
//!
//! Replaces nothing of the C core, which has none of it; see
//! `Documentation/livepatch/watching.rst`.

use crate::{
    blocker,
    lock::KlpLocked,
    patch::Patch,
    progress,
    tasks::{
        self,
        Target, //
    }, //
};
use kernel::{
    livepatch::trace,
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    }, //
};

pub(crate) use kernel::livepatch::trace::Stage;

/// When the log tells of a transition that has stalled for the first time.
const FIRST_WARNING_MS: u64 = 60_000;

/// When the log tells of it next.
static WARN_AT_MS: Atomic<u64> = Atomic::new(FIRST_WARNING_MS);

/// The transition of `patch` to `target` was started, or turned round.
pub(crate) fn started(locked: &KlpLocked, patch: &Patch, target: Target, stage: Stage) {
    progress::begin();
    WARN_AT_MS.store(FIRST_WARNING_MS, Relaxed);
    patch.notify(locked, c"transition");
    tell(locked, patch, target, stage);
}

/// The tasks that are left are switched whatever they do.
pub(crate) fn forced(locked: &KlpLocked, patch: &Patch, target: Target) {
    tell(locked, patch, target, Stage::Forced);
}

/// The transition has ended.
pub(crate) fn ended(locked: &KlpLocked, patch: &Patch, target: Target) {
    patch.notify(locked, c"transition");
    tell(locked, patch, target, Stage::Complete);
}

/// Says so if the transition has not ended for a minute, for two, four, and so on.
pub(crate) fn check_stall(locked: &KlpLocked, patch: &Patch, target: Target) {
    let (age, limit) = (progress::age_ms(), WARN_AT_MS.load(Relaxed));
    if age < limit {
        return;
    }
    WARN_AT_MS.store(limit.saturating_mul(2), Relaxed);
    let seconds = age.checked_div(1000).unwrap_or(0);
    let count = tasks::pending();
    let tasks = match count {
        1 => "task",
        _ => "tasks",
    };
    let name = &*patch.name;
    match blocker::example() {
        Ok(Some(example)) => pr_notice!(
            "'{name}': transition has stalled for {seconds} s: {count} {tasks} left, e.g. {}\n",
            &*example
        ),
        _ => pr_notice!("'{name}': transition has stalled for {seconds} s: {count} {tasks} left\n"),
    }
    tell(locked, patch, target, Stage::Stalled);
}

fn tell(locked: &KlpLocked, patch: &Patch, target: Target, stage: Stage) {
    trace::transition(&patch.name, target.state(), stage, progress::age_ms());
    let stage = match stage {
        Stage::Start => c"KLP_TRANSITION=start",
        Stage::Reversed => c"KLP_TRANSITION=reversed",
        Stage::Forced => c"KLP_TRANSITION=forced",
        Stage::Stalled => c"KLP_TRANSITION=stalled",
        Stage::Complete => c"KLP_TRANSITION=complete",
    };
    let target = match target {
        Target::Unpatched => c"KLP_TARGET=unpatched",
        Target::Patched => c"KLP_TARGET=patched",
    };
    patch.change_event(locked, [stage, target]);
}
