// SPDX-License-Identifier: GPL-2.0-or-later

//! The live patching core: replaces functions of a running kernel.
//!
//! A livepatch module calls `klp_enable_patch()` with a descriptor of the functions that it
//! changes. From there on:
//!
//! - [`abi`] is where C calls the core, there and from what is always in vmlinux;
//! - [`control`] has the descriptor read, decides whether the livepatch can be enabled, and goes on
//!   with its transition until that has ended;
//! - [`descriptor`] checks the descriptor and copies what the core needs of it;
//! - [`patch`] is what the core makes of it, with its [objects and functions](object), which
//!   [`lookup`] finds, and for which [`reloc`] applies relocations; [`raw`] is what the livepatch
//!   can read of that;
//! - [`registry`] is the list of livepatches, [`replace`] says which of them go or are in the way,
//!   and [`sysfs`] shows them, which knows them by their [ids](patch_id);
//! - [`state`] introduces and removes what livepatches change besides code;
//! - [`stack`] puts the functions of a livepatch on their [func stacks](func_stack), and makes
//!   ftrace call the handler for them, by an [`ops_group`] for many. The handler is a crate of its
//!   own, `ftrace_handler.rs`, which shares [`rules::dispatch`] with this one;
//! - [`transition`] takes the [`tasks`] to the new functions, checking their stacks for the old
//!   ones ([`stack_check`]).
//!
//! [`watch`] tells what becomes of a transition, and [`blockers`] shows which tasks keep it from
//! ending, and why; [`preflight`] shows which would.
//!
//! [`modules`] does the same for modules that are loaded later. [`shadow`] is the store of shadow
//! variables; [`lock`] is what protects all but those. [`resident`] is what is shared with C, and
//! [`rules`] what can be tested without a kernel.
//!
//! # Levels
//!
//! A file may use those of lower levels only, and so may what is in its folder, which has a map
//! like this. `scripts/levels.py`, a part of `make check`, looks at it.
//!
//!     12  abi
//!     11  control modules
//!     10  blockers preflight
//!      9  transition
//!      8  replace state watch
//!      7  blocker registry stack
//!      6  patch tasks
//!      5  object ops_group stack_check
//!      4  descriptor func_stack
//!      3  held raw reloc shadow sysfs
//!      2  lock lookup set_spec
//!      1  patch_id progress resident rules synchronize
//!
//! Replaces the C core's `klp_init()`.

use kernel::{
    bindings,
    prelude::*,
    sort, //
};

mod abi;
mod blocker;
mod blockers;
mod control;
mod descriptor;
mod func_stack;
mod held;
mod lock;
mod lookup;
mod modules;
mod object;
mod ops_group;
mod patch;
mod patch_id;
mod preflight;
mod progress;
mod raw;
mod registry;
mod reloc;
mod replace;
mod resident;
mod rules;
mod set_spec;
mod shadow;
#[cfg(CONFIG_KUNIT = "y")]
mod shadow_tests;
mod stack;
mod stack_check;
mod state;
mod synchronize;
mod sysfs;
mod tasks;
#[cfg(CONFIG_KUNIT = "y")]
mod tests;
mod transition;
mod watch;

module! {
    type: Livepatch,
    name: "livepatch",
    authors: ["The livepatch-rs developers"],
    description: "Kernel live patching core",
    license: "GPL",
    // What kpatch's client asks modprobe for when there is no /sys/kernel/livepatch.
    alias: ["kpatch"],
}

/// The core, for as long as it is loaded.
struct Livepatch;

impl kernel::Module for Livepatch {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        // First: when the core is built in, others may use shadow variables though it fails.
        let started = shadow::init()
            .and_then(|()| control::init())
            .and_then(|()| control::init_work())
            .and_then(|()| {
                // SAFETY: Unregistered before the module goes away.
                unsafe { abi::register() }
            })
            .and_then(|()| {
                control::show().inspect_err(|_| {
                    // SAFETY: Registered just now.
                    unsafe { abi::unregister() };
                })
            });
        if let Err(err) = started {
            control::exit_work();
            shadow::exit();
            control::exit();
            return Err(err);
        }
        Ok(Livepatch)
    }
}

impl Drop for Livepatch {
    fn drop(&mut self) {
        // Livepatch modules depend on this one, so that there is none any more.
        //
        // SAFETY: Registered by `init()`.
        unsafe { abi::unregister() };
        control::exit_work();
        shadow::exit();
        control::exit();
    }
}

/// This module, NULL when built in.
fn this_module() -> *mut bindings::module {
    kernel::module::this_module::<Livepatch>().as_ptr()
}
