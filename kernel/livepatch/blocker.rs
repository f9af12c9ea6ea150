// SPDX-License-Identifier: GPL-2.0-or-later

//! A task that keeps a transition from ending, and why.
//!
//! The core remembers nothing of a task that it could not switch. Who wants to know looks at the
//! task anew, in the way in which the transition does, and sees the very stack that was judged. The
//! task is kept from running only while that is looked at.
//!
//! In the same way it can be asked which tasks would be in the way of a transition: see [`Left`].
//!
//! Replaces nothing of the C core, which has no such.

use crate::{
    progress,
    tasks::{
        self,
        Verdict,
        MAX_STACK, //
    }, //
};
use kernel::{
    bindings,
    ffi::c_int,
    fmt::{
        self,
        Write as _, //
    },
    livepatch::{
        facts,
        for_each_exiting,
        TaskExt,
        TASK_COMM_LEN, //
    },
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    str::CString,
    sync::aref::ARef,
    task::Task,
    tasklist::{
        self,
        CpusReadGuard, //
    }, //
};

/// Bytes of a function's name that are shown.
const MAX_NAME: usize = bindings::KSYM_NAME_LEN as usize;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    User,
    Kthread,
    /// A thread of a user process that never leaves the kernel.
    Worker,
    /// At the end of its exit: it may be on no list of tasks any more.
    Exiting,
    Idle,
}

/// Functions that are to be left, for who looks at the stacks of tasks.
pub(crate) trait Left {
    /// Looks at `task`, and saves in `stack` what was judged. Returns the verdict and how much was
    /// saved, or [`None`] if nobody waits for the task. Calls `name` with the function that the
    /// task would have to leave, with interrupts off.
    fn judge(
        &self,
        task: &Task,
        stack: &mut [usize],
        name: &mut dyn FnMut(&CStr),
    ) -> Option<(Verdict, usize)>;
}

/// Those of the running transition, for the tasks that it has not switched.
pub(crate) struct Running;

impl Left for Running {
    fn judge(
        &self,
        task: &Task,
        stack: &mut [usize],
        name: &mut dyn FnMut(&CStr),
    ) -> Option<(Verdict, usize)> {
        tasks::judge(task, stack, name)
    }
}

/// A task that is not switched yet, or would not be.
pub(crate) struct Blocker {
    kind: Kind,
    tid: c_int,
    comm: [u8; TASK_COMM_LEN],
    cpu: u32,
    state: u8,
    verdict: Verdict,
    function: [u8; MAX_NAME],
    nohz_full: bool,
    age_ms: u64,
    stack: [usize; MAX_STACK],
    depth: usize,
}

impl Blocker {
    fn new() -> Self {
        Self {
            kind: Kind::User,
            tid: 0,
            comm: [0; TASK_COMM_LEN],
            cpu: 0,
            state: b'?',
            verdict: Verdict::Ready,
            function: [0; MAX_NAME],
            nohz_full: false,
            age_ms: 0,
            stack: [0; MAX_STACK],
            depth: 0,
        }
    }

    /// Looks at `task`. Returns whether it is one that somebody waits for.
    fn look_at(&mut self, left: &dyn Left, task: &Task, kind: Kind) -> bool {
        let (function, stack) = (&mut self.function, &mut self.stack);
        function.fill(0);
        let judged = left.judge(task, stack, &mut |name| {
            for (to, from) in function.iter_mut().zip(name.to_bytes()) {
                *to = *from;
            }
        });
        let Some((verdict, depth)) = judged else {
            return false;
        };
        self.verdict = verdict;
        self.depth = depth;
        self.kind = match kind {
            Kind::User if task.is_kthread() => Kind::Kthread,
            Kind::User if facts::is_user_worker(task) => Kind::Worker,
            kind => kind,
        };
        self.tid = task.pid();
        self.comm = task.comm();
        self.cpu = facts::cpu(task);
        self.state = facts::state(task);
        self.nohz_full = facts::is_nohz_full(self.cpu);
        self.age_ms = progress::age_ms_from(facts::start_time(task));
        true
    }

    /// Finds the thread with the lowest id from `from` on, but for exiting ones. Returns the id.
    fn find(&mut self, left: &dyn Left, from: c_int) -> Option<c_int> {
        tasklist::find_thread_rcu(from, |task| {
            !facts::is_exiting(task) && self.look_at(left, task, Kind::User)
        })
    }

    /// Finds the idle task of the CPU with the lowest number from `from` on.
    fn find_idle(&mut self, left: &dyn Left, from: u32) -> Option<u32> {
        let cpus = CpusReadGuard::new();
        let mut found = None;
        tasklist::for_each_idle(|cpu, task| {
            let number = u32::from(cpu);
            if found.is_none()
                && number >= from
                && cpus.is_online(cpu)
                && self.look_at(left, task, Kind::Idle)
            {
                found = Some(number);
            }
        });
        found
    }

    fn show(&self, out: &SeqFile) {
        let kind = match self.kind {
            Kind::User => "user",
            Kind::Kthread => "kthread",
            Kind::Worker => "worker",
            Kind::Exiting => "exiting",
            Kind::Idle => "idle",
        };
        let reason = match self.verdict {
            Verdict::Ready => "ready",
            Verdict::Running => "running",
            Verdict::Unreliable => "unreliable",
            Verdict::Function => "function",
            Verdict::Unknown => "unknown",
        };
        seq_print!(
            out,
            "tid={} comm={} kind={} cpu={} state={} reason={} function={} nohz_full={} age_ms={}\n",
            self.tid,
            Word(&self.comm),
            kind,
            self.cpu,
            char::from(self.state),
            reason,
            Word(&self.function),
            u8::from(self.nohz_full),
            self.age_ms
        );
        for addr in self.stack.iter().take(self.depth) {
            seq_print!(out, " [<0>] ");
            out.return_address(*addr);
            seq_print!(out, "\n");
        }
    }
}

/// How the log puts it.
impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!("{}:{} ", Word(&self.comm), self.tid))?;
        match self.verdict {
            Verdict::Ready => f.write_str("asleep"),
            Verdict::Running => f.write_fmt(fmt!("running on CPU {}", self.cpu)),
            Verdict::Unreliable => f.write_str("with an unreliable stack"),
            Verdict::Function => f.write_fmt(fmt!("sleeping on function {}", Word(&self.function))),
            Verdict::Unknown => f.write_str("with an unknown stack"),
        }?;
        match self.kind {
            Kind::Exiting => f.write_str(", exiting"),
            _ => Ok(()),
        }
    }
}

/// What precedes the first NUL, as one word; "-" if that is nothing.
struct Word<'a>(&'a [u8]);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.0.iter().take_while(|byte| **byte != 0).peekable();
        if bytes.peek().is_none() {
            return f.write_char('-');
        }
        bytes.try_for_each(|byte| match byte {
            b'\\' => f.write_str("\\x5c"),
            byte if byte.is_ascii_graphic() => f.write_char(char::from(*byte)),
            byte => write!(f, "\\x{byte:02x}"),
        })
    }
}

/// Describes one of the tasks that are not switched, an exiting one if there are no others.
///
/// # Errors
///
/// [`ENOMEM`].
pub(crate) fn example() -> Result<Option<CString>> {
    let mut blocker = KBox::new(Blocker::new(), GFP_KERNEL)?;
    let mut found = blocker.find(&Running, 0).is_some();
    if !found {
        for_each_exiting(|task| found = found || blocker.look_at(&Running, task, Kind::Exiting));
    }
    if !found {
        found = blocker.find_idle(&Running, 0).is_some();
    }
    Ok(match found {
        true => Some(CString::try_from_fmt(fmt!("{}", *blocker))?),
        false => None,
    })
}

/// How many exiting tasks a walk shows: they are on no list in which one could go on.
const MAX_EXITING: usize = 128;

/// Where exiting tasks come in a walk: behind all ids.
const EXITING: i64 = 1 << 32;
/// Where idle tasks come.
const IDLE: i64 = 2 << 32;

/// A walk over tasks that are in the way, one by one. Nothing is held from one to the next.
pub(crate) struct Walk {
    blocker: Blocker,
    exiting: KVec<ARef<Task>>,
    more: usize,
    /// Whether what is to be shown is that there are more.
    at_more: bool,
}

impl Walk {
    pub(crate) fn new() -> Self {
        Self {
            blocker: Blocker::new(),
            exiting: KVec::new(),
            more: 0,
            at_more: false,
        }
    }

    /// Goes to the first record at `pos`, which is positive, or behind it, and returns where it is.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn seek(&mut self, left: &dyn Left, pos: i64) -> Result<Option<i64>> {
        self.at_more = false;
        if pos < EXITING {
            let tid = c_int::try_from(pos).ok();
            if let Some(tid) = tid.and_then(|from| self.blocker.find(left, from)) {
                return Ok(Some(tid.into()));
            }
        }
        if pos < IDLE {
            let from = pos.saturating_sub(EXITING).max(0);
            if let Some(index) = self.find_exiting(left, from)? {
                return Ok(Some(index.saturating_add(EXITING)));
            }
        }
        self.exiting = KVec::new();
        let from = u32::try_from(pos.saturating_sub(IDLE).max(0)).ok();
        let found = from.and_then(|from| self.blocker.find_idle(left, from));
        Ok(found.map(|cpu| i64::from(cpu).saturating_add(IDLE)))
    }

    /// Takes down who is exiting.
    fn list_exiting(&mut self, left: &dyn Left) -> Result {
        self.exiting = KVec::with_capacity(MAX_EXITING, GFP_KERNEL)?;
        self.more = 0;
        for_each_exiting(|task| {
            // Nobody else runs meanwhile: the stacks of no more than are shown.
            if self.exiting.len() == self.exiting.capacity() {
                self.more = self.more.saturating_add(1);
            } else if self.blocker.look_at(left, task, Kind::Exiting) {
                // There is room.
                let _ = self.exiting.push_within_capacity(ARef::from(task));
            }
        });
        Ok(())
    }

    /// Goes to an exiting task with the number `from` or a higher one.
    fn find_exiting(&mut self, left: &dyn Left, from: i64) -> Result<Option<i64>> {
        if from == 0 {
            self.list_exiting(left)?;
        }
        let Ok(from) = usize::try_from(from) else {
            return Ok(None);
        };
        for (index, task) in self.exiting.iter().enumerate().skip(from) {
            // It may have died since it was listed.
            if facts::is_exiting(task) && self.blocker.look_at(left, task, Kind::Exiting) {
                return Ok(i64::try_from(index).ok());
            }
        }
        if self.more == 0 || from > self.exiting.len() {
            return Ok(None);
        }
        self.at_more = true;
        Ok(i64::try_from(self.exiting.len()).ok())
    }

    /// Shows the record that [`Self::seek`] has gone to.
    pub(crate) fn show(&self, out: &SeqFile) {
        if self.at_more {
            seq_print!(
                out,
                "exiting tasks that were not looked at: {}\n",
                self.more
            );
        } else {
            self.blocker.show(out);
        }
    }
}
