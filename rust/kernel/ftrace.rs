// SPDX-License-Identifier: GPL-2.0

//! Function tracer callbacks.
//!
//! C header: [`include/linux/ftrace.h`](srctree/include/linux/ftrace.h)

use crate::{
    bindings,
    error::to_result,
    ffi::{
        c_int,
        c_uint,
        c_ulong,
        c_void, //
    },
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    },
    types::Opaque, //
};

/// The C signature of an ftrace callback: traced address, its caller, the [`Ops`], the registers.
pub type Callback = unsafe extern "C" fn(
    ip: c_ulong,
    parent_ip: c_ulong,
    ops: *mut bindings::ftrace_ops,
    fregs: *mut bindings::ftrace_regs,
);

/// The ops cannot be switched off by `kernel.ftrace_enabled`.
pub const PERMANENT: c_ulong = bindings::FTRACE_OPS_FL_PERMANENT as c_ulong;
/// The registers at function entry are saved for the callback.
pub const SAVE_REGS: c_ulong = bindings::FTRACE_OPS_FL_SAVE_REGS as c_ulong;
/// How far behind its [`location`] a function goes on when it is not redirected, in bytes.
pub const MCOUNT_INSN_SIZE: usize = bindings::MCOUNT_INSN_SIZE as usize;
const DYNAMIC: c_ulong = bindings::FTRACE_OPS_FL_DYNAMIC as c_ulong;
const IPMODIFY: c_ulong = bindings::FTRACE_OPS_FL_IPMODIFY as c_ulong;

/// Returns the address that ftrace patches for the function of `size` bytes at `start`.
///
/// [`None`] means that the function cannot be traced. `ftrace_location()` is the same for who does
/// not know the size: it looks that up, among all symbols of a module.
///
/// # Examples
///
/// ```
/// assert!(kernel::ftrace::location(0, 1).is_none());
/// ```
pub fn location(start: usize, size: usize) -> Option<usize> {
    let last = start.checked_add(size)?.checked_sub(1)?;
    [start, last].into_iter().find_map(|end| {
        // SAFETY: `ftrace_location_range()` accepts any values.
        match unsafe { bindings::ftrace_location_range(start, end) } {
            0 => None,
            ip => Some(ip),
        }
    })
}

/// Returns whether calls of the function whose [`location`] is `ip` go to a direct caller, such as
/// a BPF trampoline.
///
/// # Examples
///
/// ```
/// assert!(!kernel::ftrace::has_direct_caller(0));
/// ```
pub fn has_direct_caller(ip: usize) -> bool {
    #[cfg(CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS)]
    // SAFETY: `ftrace_find_rec_direct()` accepts any value.
    let direct = unsafe { bindings::ftrace_find_rec_direct(ip) };
    #[cfg(not(CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS))]
    let (_, direct) = (ip, 0);
    direct != 0
}

/// A callback for a set of functions, which may change where they go on.
///
/// Wraps `struct ftrace_ops` as a dynamic ops: [`Ops::unregister`] waits until no CPU and no task
/// can be inside the callback or its trampoline. It is also one that may change the instruction
/// pointer.
///
/// To ftrace an empty filter means all functions. Here it is refused: an ops with an empty filter
/// cannot be registered, and the filter of a registered one cannot be emptied.
///
/// # Invariants
///
/// `ops` is initialised, and not registered with ftrace once `self` is dropped. If `filled` is set,
/// its filter is not empty.
///
/// # Examples
///
/// ```
/// use core::ptr::null_mut;
/// use kernel::{
///     bindings,
///     ffi::c_ulong,
///     ftrace::{Ops, PERMANENT},
/// };
///
/// unsafe extern "C" fn callback(
///     _ip: c_ulong,
///     _parent_ip: c_ulong,
///     _ops: *mut bindings::ftrace_ops,
///     _fregs: *mut bindings::ftrace_regs,
/// ) {
/// }
///
/// // SAFETY: The callback is never called: the filter stays empty.
/// let ops = unsafe { Ops::new(callback, PERMANENT, null_mut()) };
/// let ops = KBox::pin_init(ops, GFP_KERNEL)?;
/// assert_eq!(ops.replace_filter(&mut []), Err(EINVAL));
/// assert_eq!(ops.register(), Err(EINVAL));
/// assert!(!ops.is_registered());
/// # Ok::<(), Error>(())
/// ```
#[pin_data(PinnedDrop)]
pub struct Ops {
    #[pin]
    ops: Opaque<bindings::ftrace_ops>,
    filled: Atomic<bool>,
}

// SAFETY: ftrace serialises all operations on an ops by its own locks.
unsafe impl Send for Ops {}
// SAFETY: As above.
unsafe impl Sync for Ops {}

impl Ops {
    /// Creates an ops that calls `callback` with `flags` and carries `private`.
    ///
    /// # Safety
    ///
    /// `callback` and all that it calls must not be traceable, and must cope with every context
    /// in which a function of the filter may run, from the registration to the end of
    /// [`Ops::unregister`]. What it reads through `private` must be valid for as long.
    ///
    /// When ftrace shuts itself down, [`Ops::register`] and [`Ops::unregister`] can fail and leave
    /// the ops [registered](Ops::is_registered). Then it must never be dropped, and the promises
    /// above are for ever.
    pub unsafe fn new(
        callback: Callback,
        flags: c_ulong,
        private: *mut c_void,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            ops <- Opaque::ffi_init(|slot: *mut bindings::ftrace_ops| {
                let ops = bindings::ftrace_ops {
                    func: Some(callback),
                    flags: flags | DYNAMIC | IPMODIFY,
                    private,
                    ..Default::default()
                };
                // SAFETY: `slot` is valid for writes; all other fields of an ops start as zero.
                unsafe { slot.write(ops) };
            }),
            filled: Atomic::new(false),
        })
    }

    /// Adds the [`location`]s `ips` to the filter, in one pass over the kernel's call sites.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] when the ops is registered and another one already changes the instruction
    /// pointer at one of `ips`, [`EINVAL`] when one of them is not a location, [`ENOMEM`],
    /// [`ENODEV`] when ftrace has shut itself down. The filter is then unchanged.
    ///
    /// May sleep.
    pub fn add_filter(&self, ips: &mut [usize]) -> Result {
        self.set_filter(ips, false, false)
    }

    /// Makes `ips` the whole filter. See [`Ops::add_filter`].
    ///
    /// # Errors
    ///
    /// As for [`Ops::add_filter`]; [`EINVAL`] when `ips` is empty.
    pub fn replace_filter(&self, ips: &mut [usize]) -> Result {
        if ips.is_empty() {
            return Err(EINVAL);
        }
        self.set_filter(ips, false, true)
    }

    /// Removes `ips` from the filter. See [`Ops::add_filter`].
    ///
    /// Callers that had already entered the callback may still be in it. An ops that is not
    /// registered has to be given further functions before it can be.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] when the ops is registered and nothing would be left of its filter, [`ENOMEM`],
    /// [`ENODEV`] when ftrace has shut itself down. The filter is then unchanged.
    pub fn remove_filter(self: Pin<&mut Self>, ips: &mut [usize]) -> Result {
        // ftrace lets nobody empty the filter of an ops that is registered and may change the
        // instruction pointer. Nobody else can register this one meanwhile.
        if !self.is_registered() {
            self.filled.store(false, Relaxed);
        }
        self.set_filter(ips, true, false)
    }

    fn set_filter(&self, ips: &mut [usize], remove: bool, reset: bool) -> Result {
        // The C function takes an empty list for "no change", but copies the hash all the same.
        if ips.is_empty() {
            return Ok(());
        }
        let count = c_uint::try_from(ips.len())?;
        // SAFETY: By the type invariant the ops is initialised, `ips` is valid for `count` reads.
        to_result(unsafe {
            bindings::ftrace_set_filter_ips(
                self.ops.get(),
                ips.as_mut_ptr(),
                count,
                c_int::from(remove),
                c_int::from(reset),
            )
        })?;
        if !remove {
            // INVARIANT: `ips` is not empty, and now in the filter. Who takes them out has the ops
            // for itself.
            self.filled.store(true, Relaxed);
        }
        Ok(())
    }

    /// Starts calling the callback for the functions of the filter.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] when another ops already changes the instruction pointer at one of the addresses,
    /// [`EINVAL`] when the filter is empty, [`ENODEV`] when ftrace has shut itself down. What was
    /// refused may still be looked at in sections with preemption disabled that began before.
    ///
    /// May sleep.
    pub fn register(&self) -> Result {
        // ftrace would refuse an empty filter, too, but only when the ops is on its list already.
        if !self.filled.load(Relaxed) {
            return Err(EINVAL);
        }
        // SAFETY: By the type invariant the ops is initialised; it is pinned, and removed from
        // ftrace before it is dropped.
        to_result(unsafe { bindings::register_ftrace_function(self.ops.get()) })
    }

    /// Stops calling the callback and waits until nobody is in it.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] when it is not registered, [`ENODEV`] when ftrace has shut itself down.
    ///
    /// Sleeps for a grace period of tasks RCU, about 100 ms.
    pub fn unregister(&self) -> Result {
        // SAFETY: By the type invariant the ops is initialised.
        to_result(unsafe { bindings::unregister_ftrace_function(self.ops.get()) })
    }

    /// Returns whether ftrace calls the callback.
    pub fn is_registered(&self) -> bool {
        // SAFETY: By the type invariant the ops is initialised. Only `register()` and
        // `unregister()` change the bit.
        let flags = unsafe { core::ptr::read_volatile(&raw const (*self.ops.get()).flags) };
        flags & (bindings::FTRACE_OPS_FL_ENABLED as c_ulong) != 0
    }
}

#[pinned_drop]
impl PinnedDrop for Ops {
    fn drop(self: Pin<&mut Self>) {
        if self.is_registered() && crate::warn_on!(self.unregister().is_err()) {
            // ftrace is dead: its hash is better leaked than reused.
            return;
        }
        // SAFETY: The ops is initialised and no longer registered.
        unsafe { bindings::ftrace_free_filter(self.ops.get()) };
    }
}
