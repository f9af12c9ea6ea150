// SPDX-License-Identifier: GPL-2.0-or-later

//! The tasks that keep the transition from ending, as a file in debugfs.
//!
//! Who reads it looks at the tasks one by one, and holds nothing from one to the next.
//!
//! ```text
//! livepatch=<name> target=patched attempts=17 age_ms=12084
//! tid=93 comm=reader kind=user cpu=1 state=S reason=function function=<name> nohz_full=0 …
//!  [<0>] <where it sleeps>
//!  [<0>] …
//! ```
//!
//! Replaces nothing of the C core, which has no such.

use crate::{
    blocker::{
        Running,
        Walk, //
    },
    lock,
    progress,
    tasks::Target,
    transition, //
};
use kernel::{
    debugfs,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    str::CString, //
};

/// The file.
pub(crate) struct View;

/// Somebody who reads the file.
pub(crate) struct Cursor {
    /// Which transition it is about, if that is to be shown: the livepatch, and where it goes.
    head: Option<(CString, Target)>,
    walk: Walk,
    /// Which transition, in which direction, this is about.
    turn: usize,
}

impl Cursor {
    /// Begins with the running transition. Returns whether there is one.
    fn begin(&mut self) -> Result<bool> {
        let locked = lock::lock();
        let Some(running) = transition::running(&locked) else {
            return Ok(false);
        };
        let name = CString::try_from(running.patch_name())?;
        self.turn = progress::turn();
        self.head = Some((name, running.target(&locked)));
        Ok(true)
    }
}

impl debugfs::Records for View {
    type Cursor = Cursor;

    fn open(&self) -> Result<KBox<Cursor>> {
        let cursor = Cursor {
            head: None,
            walk: Walk::new(),
            turn: 0,
        };
        Ok(KBox::new(cursor, GFP_KERNEL)?)
    }

    fn seek(&self, cursor: &mut Cursor, pos: i64) -> Result<Option<i64>> {
        if pos == 0 {
            return Ok(cursor.begin()?.then_some(0));
        }
        cursor.head = None;
        // Of another transition there would be only a part.
        if cursor.turn != progress::turn() {
            return Ok(None);
        }
        cursor.walk.seek(&Running, pos)
    }

    fn show(&self, cursor: &Cursor, out: &SeqFile) {
        let Some((patch, target)) = &cursor.head else {
            return cursor.walk.show(out);
        };
        seq_print!(
            out,
            "livepatch={} target={} attempts={} age_ms={}\n",
            &**patch,
            match target {
                Target::Unpatched => "unpatched",
                Target::Patched => "patched",
            },
            progress::attempts(),
            progress::age_ms()
        );
    }
}
