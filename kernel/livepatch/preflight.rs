// SPDX-License-Identifier: GPL-2.0-or-later

//! Who would keep a transition from ending that left given functions, as a file in debugfs.
//!
//! ```text
//! # echo vmlinux:anon_pipe_read >preflight; cat preflight
//! functions=1 missing=0
//! tid=93 comm=reader kind=user cpu=1 state=S reason=function function=anon_pipe_read …
//!  [<0>] <where it sleeps>
//! ```
//!
//! Nothing is hooked, and no task is changed. Replaces nothing of the C core, which has no such.

use crate::{
    blocker::{
        Left,
        Walk, //
    },
    lock::{
        self,
        KlpLocked,
        LockedBy, //
    },
    lookup::{
        self,
        Extent, //
    },
    rules::{
        ranges::{
            self,
            Range, //
        },
        wanted, //
    },
    stack,
    tasks::{
        self,
        Verdict, //
    }, //
};
use kernel::{
    debugfs,
    ftrace,
    livepatch::{
        facts,
        TaskExt, //
    },
    module_ref::Module,
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    str::{
        BStr,
        CString, //
    },
    sync::{
        rcu,
        Arc,
        UniqueArc, //
    },
    task::Task, //
};

/// How many functions can be asked for at a time, and how long a line can be, in bytes.
const MAX_FUNCTIONS: usize = 1 << 16;
const MAX_LINE: usize = 1024;

/// A function that is asked for.
struct Wanted {
    object: Option<CString>,
    function: CString,
    position: usize,
}

impl Wanted {
    /// Reads a line.
    ///
    /// # Errors
    ///
    /// After a message, [`EINVAL`] when the line is malformed or there is no such function,
    /// [`ENOENT`] when the module is not loaded; [`ENOMEM`].
    fn read(line: &[u8]) -> Result<Option<Self>> {
        let wanted = wanted::parse(line).map_err(|wanted::Malformed| {
            pr_err!(
                "preflight: '{}' is not <object>:<function>[,<position>]\n",
                BStr::from_bytes(line)
            );
            EINVAL
        })?;
        let Some(wanted) = wanted else {
            return Ok(None);
        };
        let string = |bytes: &[u8]| CString::try_from_fmt(fmt!("{}", BStr::from_bytes(bytes)));
        let this = Self {
            object: wanted.object.map(string).transpose()?,
            function: string(wanted.function)?,
            position: wanted.position,
        };
        if let Some(object) = &this.object {
            if Module::find(object, &rcu::read_lock()).is_none() {
                pr_err!("preflight: object '{}' is not loaded\n", &**object);
                return Err(ENOENT);
            }
        }
        lookup::find_symbol(this.object.as_deref(), &this.function, this.position)?;
        Ok(Some(this))
    }

    /// Finds where the function is, if it still is anywhere.
    fn find(&self) -> Option<Extent> {
        lookup::find_extent(self.object.as_deref(), &self.function, self.position)
    }
}

type List = KVVec<Wanted>;

/// What was written last, for who only reads.
static LAST: LockedBy<Option<Arc<List>>> = LockedBy::new(None);

/// Frees the list. Statics are not dropped with the module.
pub(crate) fn exit(locked: &mut KlpLocked) {
    *LAST.borrow_mut(locked) = None;
}

/// What somebody who has opened the file asks for.
struct Question {
    /// What was written since then, if anything was.
    written: Option<UniqueArc<List>>,
    last: Option<Arc<List>>,
    /// The code of the functions; the tags are places in the list.
    ranges: KVVec<Range>,
    missing: usize,
}

impl Question {
    fn list(&self) -> &[Wanted] {
        match (&self.written, &self.last) {
            (Some(list), _) => list,
            (None, Some(list)) => list,
            (None, None) => &[],
        }
    }

    /// Finds the code that tasks may be running now of the functions that are asked for. Returns
    /// whether there are any.
    fn begin(&mut self) -> Result<bool> {
        let locked = lock::lock();
        if self.written.is_none() {
            self.last = LAST.borrow(&locked).clone();
        }
        let mut found = KVVec::new();
        let mut missing = 0_usize;
        for (tag, wanted) in self.list().iter().enumerate() {
            if kernel::current!().signal_pending() {
                return Err(EINTR);
            }
            let Some(old) = wanted.find() else {
                missing = missing.saturating_add(1);
                continue;
            };
            let mut add = |start: usize, size: usize| {
                let end = start.saturating_add(size);
                found.push(Range { start, end, tag }, GFP_KERNEL)
            };
            let Some(ip) = ftrace::location(old.start, old.size) else {
                add(old.start, old.size)?;
                continue;
            };
            // As a StackCheck has it.
            add(ip.wrapping_add(ftrace::MCOUNT_INSN_SIZE), 1)?;
            let mut result = Ok(());
            stack::for_each_running(&locked, ip, old, |code| {
                result = result.and_then(|()| add(code.start, code.size));
            });
            result?;
        }
        let count = ranges::normalise(&mut found);
        found.truncate(count);
        self.ranges = found;
        self.missing = missing;
        Ok(!self.list().is_empty())
    }
}

impl Left for Question {
    fn judge(
        &self,
        task: &Task,
        stack: &mut [usize],
        name: &mut dyn FnMut(&CStr),
    ) -> Option<(Verdict, usize)> {
        // Who asks leaves the kernel by itself.
        if core::ptr::eq(task.as_ptr(), Task::current_raw()) {
            return None;
        }
        let (verdict, depth, tag) = tasks::judge_by(task, stack, &self.ranges);
        match verdict {
            Verdict::Ready => return None,
            // It is switched when it leaves the kernel, if that is not for long.
            Verdict::Running if leaves_kernel(task) => return None,
            // Idle tasks leave when they are told to.
            Verdict::Running if task.pid() == 0 => return None,
            _ => (),
        }
        if let Some(wanted) = tag.and_then(|tag| self.list().get(tag)) {
            name(&wanted.function);
        }
        Some((verdict, depth))
    }
}

/// Whether `task` leaves the kernel before long, by itself or when it is told to.
fn leaves_kernel(task: &Task) -> bool {
    let stays = task.is_kthread() || facts::is_user_worker(task);
    !stays && !facts::is_nohz_full(facts::cpu(task))
}

/// The file.
pub(crate) struct View;

/// Somebody who has opened the file.
pub(crate) struct Cursor {
    question: Question,
    /// The begin of a line that was written.
    line: KVec<u8>,
    /// Whether something that was written cannot be taken.
    is_bad: bool,
    at_head: bool,
    walk: Walk,
}

impl Cursor {
    /// Takes the line that was written.
    fn take_line(&mut self) -> Result {
        let wanted = Wanted::read(&self.line)?;
        self.line.clear();
        if let (Some(wanted), Some(list)) = (wanted, &mut self.question.written) {
            if list.len() >= MAX_FUNCTIONS {
                pr_err!("preflight: more than {} functions\n", MAX_FUNCTIONS);
                return Err(E2BIG);
            }
            list.push(wanted, GFP_KERNEL)?;
        }
        Ok(())
    }

    fn take(&mut self, data: &[u8]) -> Result {
        for byte in data {
            if *byte == b'\n' {
                self.take_line()?;
                continue;
            }
            if self.line.len() >= MAX_LINE {
                pr_err!("preflight: a line has more than {} characters\n", MAX_LINE);
                return Err(EINVAL);
            }
            self.line.push(*byte, GFP_KERNEL)?;
        }
        Ok(())
    }
}

impl debugfs::Records for View {
    type Cursor = Cursor;

    fn open(&self) -> Result<KBox<Cursor>> {
        let cursor = Cursor {
            question: Question {
                written: None,
                last: None,
                ranges: KVVec::new(),
                missing: 0,
            },
            line: KVec::new(),
            is_bad: false,
            at_head: false,
            walk: Walk::new(),
        };
        Ok(KBox::new(cursor, GFP_KERNEL)?)
    }

    fn seek(&self, cursor: &mut Cursor, pos: i64) -> Result<Option<i64>> {
        cursor.at_head = pos == 0;
        if cursor.at_head {
            return Ok(cursor.question.begin()?.then_some(0));
        }
        cursor.walk.seek(&cursor.question, pos)
    }

    fn show(&self, cursor: &Cursor, out: &SeqFile) {
        if !cursor.at_head {
            return cursor.walk.show(out);
        }
        let Question { missing, .. } = cursor.question;
        let functions = cursor.question.list().len();
        seq_print!(out, "functions={functions} missing={missing}\n");
    }
}

impl debugfs::WritableRecords for View {
    fn write(&self, cursor: &mut Cursor, data: &[u8]) -> Result {
        if cursor.is_bad {
            return Err(EINVAL);
        }
        if cursor.question.written.is_none() {
            cursor.question.written = Some(UniqueArc::new(List::new(), GFP_KERNEL)?);
            cursor.question.ranges.clear();
        }
        cursor.take(data).inspect_err(|_| cursor.is_bad = true)
    }

    /// What was written without a mistake is what others ask for from now on.
    fn close(mut cursor: KBox<Cursor>) {
        if cursor.is_bad || cursor.question.written.is_none() || cursor.take_line().is_err() {
            return;
        }
        let list = cursor.question.written.take().map(Arc::from);
        // Freed without the mutex.
        let _old = core::mem::replace(LAST.borrow_mut(&mut lock::lock()), list);
    }
}
