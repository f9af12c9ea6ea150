// SPDX-License-Identifier: GPL-2.0-or-later

mod dispatch;
mod ordering;
mod owners;
mod ranges;
mod rcu_map;
mod rcu_map_resize;
mod scan;
mod sets;
mod symbol;
mod symtab;
mod wanted;

use proptest::test_runner::Config;

/// The configuration of proptest: its defaults and the environment, but it writes nothing into the
/// checkout.
fn config() -> Config {
    Config {
        failure_persistence: None,
        ..Config::default()
    }
}
