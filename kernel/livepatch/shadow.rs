// SPDX-License-Identifier: GPL-2.0-or-later

//! Shadow variables: data that livepatches attach to objects of the kernel.
//!
//! A variable is found by the address of its object and an id. Readers look it up under RCU, in an
//! [`RcuMap`](kernel::rcu_map::RcuMap). Whoever adds or removes one holds the lock of the
//! [`store`], with interrupts off; constructors and destructors that livepatches pass are called
//! under it. What takes long lets go of the lock after every [`BATCH`](store::BATCH) variables.
//!
//! A [`variable`] belongs either to whoever made it, or to livepatches. The first kind is made with
//! a function of 7.3 and freed by hand. The second kind is [`managed`]: it belongs to the
//! livepatches that declare its id, and the core frees it when the last of them leaves. It is made
//! with its type, or with a function of 7.3 by the code of a livepatch that has an `is_shadow`
//! state ([`Caller`] tells). A variable stays of the kind that it was made as.
//!
//! Each id has a [`record`] with the lists of its variables. Owners [join] and [part]; when the
//! last one has left, the id is [closed](close), and variables of its type cannot be made:
//!
//! ```text
//!                     an owner comes
//!          +--------------------------------------+
//!          |                                      v
//!        Idle --a variable is made--> Unowned --an owner comes--> Owned
//!          ^                          |     ^                     |   |
//!          +----the last one is freed-+     +--the last owner-----+   |
//!          |                                   leaves variables       |
//!          +--the last owner leaves none------------------------------+
//! ```
//!
//! Of the files each uses those before it: `name`, `record`, `store`, `variable`, `managed`.
//!
//! Variables outlive the livepatch that made them: while there are any, the core stays.
//!
//! What is here uses what is below it only:
//!
//!     5  managed
//!     4  variable
//!     3  store
//!     2  record
//!     1  name
//!
//! Replaces `shadow.c`. Records are in a map like that of the variables because ids are arbitrary
//! words and are added in any context. An `XArray` would need up to eleven nodes for an id, which
//! it allocates under its own lock, and its abstraction cannot take that with interrupts off.
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
