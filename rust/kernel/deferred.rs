// SPDX-License-Identifier: GPL-2.0

//! Deferred work with an end: workqueues that are destroyed and delayed calls that are cancelled
//! when their owner goes away.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::{
    bindings,
    ffi::c_int,
    prelude::*,
    str::CStrExt as _,
    time::Jiffies,
    types::Opaque,
    workqueue::{
        Queue,
        RawWorkItem, //
    }, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

/// A workqueue of one's own.
///
/// Dropping it waits until all work that was queued has run.
///
/// # Invariants
///
/// The pointer is to a valid workqueue that `self` owns.
pub struct OwnedQueue(NonNull<bindings::workqueue_struct>);

// SAFETY: Workqueues may be used from any thread.
unsafe impl Send for OwnedQueue {}
// SAFETY: As above.
unsafe impl Sync for OwnedQueue {}

impl OwnedQueue {
    /// Creates a workqueue whose workers are bound to the CPU that queues.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn new(name: &CStr) -> Result<Self> {
        // SAFETY: The format matches its argument.
        let queue = unsafe {
            bindings::alloc_workqueue_noprof(
                c"%s".as_char_ptr(),
                bindings::wq_flags_WQ_PERCPU,
                0,
                name.as_char_ptr(),
            )
        };
        // INVARIANT: The workqueue is new, so nobody else owns it.
        NonNull::new(queue).map(Self).ok_or(ENOMEM)
    }
}

impl OwnedQueue {
    /// Queues a work item, as [`Queue::enqueue`].
    ///
    /// There is no delayed variant: `destroy_workqueue()` does not wait for timers.
    pub fn enqueue<W, const ID: u64>(&self, work: W) -> W::EnqueueOutput
    where
        W: RawWorkItem<ID> + Send + 'static,
    {
        // SAFETY: By the type invariant the workqueue is valid.
        unsafe { Queue::from_raw(self.0.as_ptr()) }.enqueue(work)
    }
}

impl Drop for OwnedQueue {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the workqueue is valid and ours.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}

/// What a [`Delayed`] calls.
pub trait Run {
    /// Runs in process context and may sleep.
    fn run();
}

/// A function that can be called later, once for any number of requests.
///
/// Dropping it cancels a pending call and waits for a running one. Mirrors
/// `DECLARE_DELAYED_WORK()` with `cancel_delayed_work_sync()`.
#[pin_data(PinnedDrop)]
pub struct Delayed<R: Run> {
    #[pin]
    work: Opaque<bindings::delayed_work>,
    _run: PhantomData<fn(R)>,
}

// SAFETY: Work items may be used from any thread.
unsafe impl<R: Run> Send for Delayed<R> {}
// SAFETY: As above.
unsafe impl<R: Run> Sync for Delayed<R> {}

impl<R: Run> Delayed<R> {
    /// Creates a call that nobody has requested yet.
    pub fn new(
        name: &'static CStr,
        key: Pin<&'static crate::sync::LockClassKey>,
        timer_key: Pin<&'static crate::sync::LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            work <- Opaque::ffi_init(|slot: *mut bindings::delayed_work| {
                // SAFETY: `slot` is valid for writes, and the keys and the name are static.
                unsafe {
                    bindings::init_work_with_key(
                        &raw mut (*slot).work,
                        Some(Self::trampoline),
                        false,
                        name.as_char_ptr(),
                        key.as_ptr(),
                    );
                    bindings::timer_init_key(
                        &raw mut (*slot).timer,
                        Some(bindings::delayed_work_timer_fn),
                        bindings::TIMER_IRQSAFE,
                        name.as_char_ptr(),
                        timer_key.as_ptr(),
                    );
                }
            }),
            _run: PhantomData,
        })
    }

    extern "C" fn trampoline(_work: *mut bindings::work_struct) {
        R::run();
    }

    /// Requests a call on `queue` in `delay` jiffies. Does nothing if one is pending.
    pub fn schedule(&self, queue: &'static Queue, delay: Jiffies) {
        let queue = core::ptr::from_ref(queue).cast_mut().cast();
        // SAFETY: The work is initialised, pinned, and cancelled before it is dropped.
        unsafe {
            bindings::queue_delayed_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                queue,
                self.work.get(),
                delay,
            )
        };
    }

    /// Requests a call on `queue` in `delay` jiffies, in place of one that is pending.
    pub fn reschedule(&self, queue: &'static Queue, delay: Jiffies) {
        let queue = core::ptr::from_ref(queue).cast_mut().cast();
        // SAFETY: As in `schedule()`.
        unsafe {
            bindings::mod_delayed_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                queue,
                self.work.get(),
                delay,
            )
        };
    }
}

#[pinned_drop]
impl<R: Run> PinnedDrop for Delayed<R> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The work is initialised.
        unsafe { bindings::cancel_delayed_work_sync(self.work.get()) };
    }
}

/// Rounds a delay so that the work shares a timer interrupt with others.
///
/// Mirrors `round_jiffies_relative()`.
pub fn round_relative(delay: Jiffies) -> Jiffies {
    // SAFETY: No requirements.
    unsafe { bindings::round_jiffies_relative(delay) }
}

/// Returns the system's per-CPU workqueue.
pub fn system_percpu() -> &'static Queue {
    // SAFETY: Set at boot, before any module runs, and never destroyed.
    unsafe { Queue::from_raw(bindings::system_percpu_wq) }
}

/// Returns the system's workqueue whose work runs on any CPU, for as long as it takes.
pub fn system_unbound() -> &'static Queue {
    // SAFETY: As in `system_percpu()`.
    unsafe { Queue::from_raw(bindings::system_dfl_wq) }
}
