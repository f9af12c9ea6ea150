// SPDX-License-Identifier: GPL-2.0-or-later

//! Shadow variables: data that livepatches attach to objects of the kernel.
//!
//! A variable is found by the address of its object and an id, in an
//! [`RcuMap`](kernel::rcu_map::RcuMap), by readers under RCU. Whoever adds or removes holds the
//! lock of the [`store`], with interrupts off, and constructors and destructors that livepatches
//! pass are called under it. All that takes long lets go of the lock after every
//! [`BATCH`](store::BATCH) variables.
//!
//! Each id has a [`record`] with the lists of its variables, and is in one of three phases that are
//! drawn there. A [`variable`] belongs either to whoever made it, with a function of 7.3, and is
//! freed by hand; or to the livepatches that declare its id, and the core frees it when the last of
//! them leaves. Such a [`managed`] variable was made with its type, or by the code of a livepatch
//! with an `is_shadow` state, which may use the functions of 7.3 ([`Caller`] tells). Which it is
//! stays as it was made. Owners [join] and [part]; an id that has none is [closed](close), and
//! variables of its type cannot be made.
//!
//! Variables outlive the livepatch that made them: while there are any, the core stays.
//!
//! Replaces `shadow.c`. Records are in a map like that of the variables because ids are arbitrary
//! words and are added in any context: an `XArray` would need up to eleven nodes for one, an
//! allocation under the lock, and its own lock with interrupts off, which the abstraction has not.
//! Variables are on lists of their map because those of `list.rs` hold an `Arc`, which frees
//! without a grace period.

mod managed;
mod name;
mod record;
mod store;
mod variable;

#[cfg(CONFIG_KUNIT = "y")]
pub(crate) use self::store::table_size;
pub(crate) use self::{
    managed::{
        close,
        collect,
        collect_range,
        for_each_unowned,
        join,
        leak,
        live,
        part, //
    },
    record::{
        Caller,
        User, //
    },
    store::{
        exit,
        init, //
    },
    variable::{
        free,
        free_all,
        get,
        get_or_alloc,
        Dtor,
        Existing,
        Request,
        Type,
        With, //
    },
};
