// SPDX-License-Identifier: GPL-2.0-or-later

//! Since when a transition runs, and how often it was tried to end it: numbers that are read
//! without the mutex.
//!
//! Replaces nothing of the C core, which has no such.

use kernel::{
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    },
    time::{
        ClockSource,
        Monotonic, //
    }, //
};

const NANOS_PER_MILLI: i64 = 1_000_000;

/// When the running transition began, was started or, later, turned round, in nanoseconds.
static SINCE: Atomic<i64> = Atomic::new(0);

/// How often it was tried since then to switch all tasks.
static ATTEMPTS: Atomic<u32> = Atomic::new(0);

/// Grows with each transition that begins, is started or turned round.
static TURN: Atomic<usize> = Atomic::new(0);

/// A transition begins, or begins to go somewhere.
pub(crate) fn begin() {
    SINCE.store(Monotonic::ktime_get(), Relaxed);
    ATTEMPTS.store(0, Relaxed);
    TURN.store(turn().wrapping_add(1), Relaxed);
}

/// All tasks are looked at.
pub(crate) fn attempt() {
    ATTEMPTS.store(attempts().saturating_add(1), Relaxed);
}

/// How often all tasks have been looked at.
pub(crate) fn attempts() -> u32 {
    ATTEMPTS.load(Relaxed)
}

/// Returns a number that only the current direction of the running transition has.
pub(crate) fn turn() -> usize {
    TURN.load(Relaxed)
}

/// For how many milliseconds the running transition has gone where it goes.
pub(crate) fn age_ms() -> u64 {
    age_ms_from(0)
}

/// For how many milliseconds the running transition has had to do with something which was there
/// at `start` only, in nanoseconds by the monotonic clock.
pub(crate) fn age_ms_from(start: i64) -> u64 {
    let age = Monotonic::ktime_get().saturating_sub(SINCE.load(Relaxed).max(start));
    u64::try_from(age.checked_div(NANOS_PER_MILLI).unwrap_or(0)).unwrap_or(0)
}
