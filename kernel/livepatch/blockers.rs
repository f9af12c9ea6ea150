// SPDX-License-Identifier: GPL-2.0-or-later

//! The tasks that keep the transition from ending, as a file in debugfs.
//!
//! Who reads it looks at the tasks one by one, and holds nothing from one to the next.
//!
//! ```text
//! livepatch=<name> target=patched attempts=17 age_ms=12084
//! tid=93 comm=reader kind=user cpu=1 state=S reason=function function=<name> nohz_full=0 age_ms=12084
//!  [<0>] <where it sleeps>
//!  [<0>] …
//! ```
//!
//! Replaces nothing of the C core, which has no such.

use crate::{
    blocker::{
        Blocker,
        Kind, //
    },
    lock,
    progress,
    tasks::Target,
    transition, //
};
use kernel::{
    debugfs,
    ffi::c_int,
    livepatch::for_each_exiting,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    str::CString,
    sync::aref::ARef,
    task::Task, //
};

/// How many exiting tasks a reader gets to see: they are on no list in which one could go on.
const MAX_EXITING: usize = 128;

/// Where exiting tasks come in the file: behind all ids.
const EXITING: i64 = 1 << 32;
/// Where idle tasks come.
const IDLE: i64 = 2 << 32;

/// The file.
pub(crate) struct View;

/// What is shown.
enum Shown {
    /// Which transition it is about: the livepatch, and where it goes.
    Transition(CString, Target),
    Blocker,
    /// More tasks are exiting than are shown.
    More(usize),
}

/// Somebody who reads the file.
pub(crate) struct Cursor {
    shown: Shown,
    blocker: Blocker,
    /// Which transition, in which direction, this is about.
    turn: usize,
    exiting: KVec<ARef<Task>>,
    more: usize,
}

impl Cursor {
    /// Begins with the running transition. Returns whether there is one.
    fn begin(&mut self) -> Result<bool> {
        self.exiting.clear();
        let locked = lock::lock();
        let Some(running) = transition::running(&locked) else {
            return Ok(false);
        };
        let name = CString::try_from(running.patch_name())?;
        self.turn = progress::turn();
        self.shown = Shown::Transition(name, running.target(&locked));
        Ok(true)
    }

    /// Takes down who is exiting.
    fn list_exiting(&mut self) -> Result {
        self.exiting = KVec::with_capacity(MAX_EXITING, GFP_KERNEL)?;
        self.more = 0;
        for_each_exiting(|task| {
            if self.blocker.look_at(task, Kind::Exiting)
                && self.exiting.push_within_capacity(ARef::from(task)).is_err()
            {
                self.more = self.more.saturating_add(1);
            }
        });
        Ok(())
    }

    /// Goes to an exiting task that is not switched, with the number `from` or a higher one.
    fn find_exiting(&mut self, from: i64) -> Result<Option<i64>> {
        if from == 0 {
            self.list_exiting()?;
        }
        let Ok(from) = usize::try_from(from) else {
            return Ok(None);
        };
        for (index, task) in self.exiting.iter().enumerate().skip(from) {
            if self.blocker.look_at(task, Kind::Exiting) {
                self.shown = Shown::Blocker;
                return Ok(i64::try_from(index).ok());
            }
        }
        if self.more == 0 || from > self.exiting.len() {
            return Ok(None);
        }
        self.shown = Shown::More(self.more);
        Ok(i64::try_from(self.exiting.len()).ok())
    }
}

impl debugfs::Records for View {
    type Cursor = Cursor;

    fn open(&self) -> Result<KBox<Cursor>> {
        let cursor = Cursor {
            shown: Shown::Blocker,
            blocker: Blocker::new(),
            turn: 0,
            exiting: KVec::new(),
            more: 0,
        };
        Ok(KBox::new(cursor, GFP_KERNEL)?)
    }

    fn seek(&self, cursor: &mut Cursor, pos: i64) -> Result<Option<i64>> {
        if pos == 0 {
            return Ok(cursor.begin()?.then_some(0));
        }
        // Of another transition there would be only a part.
        if cursor.turn != progress::turn() {
            return Ok(None);
        }
        if pos < EXITING {
            if let Some(tid) = c_int::try_from(pos)
                .ok()
                .and_then(|from| cursor.blocker.find(from))
            {
                cursor.shown = Shown::Blocker;
                return Ok(Some(tid.into()));
            }
        }
        if pos < IDLE {
            let from = pos.saturating_sub(EXITING).max(0);
            if let Some(index) = cursor.find_exiting(from)? {
                return Ok(Some(index.saturating_add(EXITING)));
            }
        }
        let from = pos.saturating_sub(IDLE).max(0);
        let found = u32::try_from(from)
            .ok()
            .and_then(|from| cursor.blocker.find_idle(from));
        cursor.shown = Shown::Blocker;
        Ok(found.map(|cpu| i64::from(cpu).saturating_add(IDLE)))
    }

    fn show(&self, cursor: &Cursor, out: &SeqFile) {
        match &cursor.shown {
            Shown::Transition(patch, target) => seq_print!(
                out,
                "livepatch={} target={} attempts={} age_ms={}\n",
                &**patch,
                match target {
                    Target::Unpatched => "unpatched",
                    Target::Patched => "patched",
                },
                progress::attempts(),
                progress::age_ms()
            ),
            Shown::Blocker => cursor.blocker.show(out),
            Shown::More(count) => {
                seq_print!(out, "exiting tasks that are not shown: {}\n", *count)
            }
        }
    }
}
