// SPDX-License-Identifier: GPL-2.0-or-later

//! Prints a random walk over livepatches in replace sets, for `scripts/guest/sets-walk` to follow.
//!
//! `sets-walk SEED STEPS`. The rules are the core's own file. Each step says what must result:
//!
//! ```text
//! step 17 load 3 set=2 evicts=1,0 vmlinux=cmdline_proc_show
//! ok | refused PART OF THE MESSAGE
//! gone 5 6                  the livepatches that were enabled and are not any more
//! lp 3 2 1 1,0              those that are, oldest first: number, set, replace, superseded sets
//! runs cmdline 3            for each file, who prints it
//! end
//! ```
//!
//! The other steps are `disable NUMBER`, `target load` and `target unload`.

// The core uses all of it, the walk does not.
#![allow(dead_code)]

#[path = "../../../../kernel/livepatch/rules"]
mod rules {
    pub(crate) mod sets;
}
#[path = "../sort.rs"]
mod sort;
#[path = "../system.rs"]
mod system;

use system::{
    Patch,
    Refusal,
    System, //
};

const PATCHES: usize = 12;
const SETS: usize = 4;
const TARGET: &str = "test_klp_rust_set_target";

/// The functions: the object, the name, and the file in /proc that shows it.
#[rustfmt::skip]
const FUNCS: [(Option<&str>, &str, &str); 9] = [
    (None, "version_proc_show", "version"),
    (None, "execdomains_proc_show", "execdomains"),
    (None, "cmdline_proc_show", "cmdline"),
    (None, "loadavg_proc_show", "loadavg"),
    (None, "show_softirqs", "softirqs"),
    (Some(TARGET), "test_klp_rust_set_first", "test_klp_rust_set_first"),
    (Some(TARGET), "test_klp_rust_set_second", "test_klp_rust_set_second"),
    (Some(TARGET), "test_klp_rust_set_third", "test_klp_rust_set_third"),
    (Some(TARGET), "test_klp_rust_set_fourth", "test_klp_rust_set_fourth"),
];

/// Numbers without a pattern (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

fn module(number: usize) -> String {
    format!("test_klp_rust_set_{number}")
}

fn number(name: &str) -> &str {
    name.rsplit('_').next().unwrap_or(name)
}

/// Makes up a livepatch, with the module parameters that describe it.
fn livepatch(random: &mut Random, number: usize, system: &System) -> (Patch, String) {
    let mut patch = Patch {
        name: module(number),
        ..Patch::default()
    };
    let mut params = Vec::new();
    let set = number % SETS;
    if set == 0 && random.percent(50) {
        patch.replace = random.percent(40);
        params.push(format!("replace={}", u8::from(patch.replace)));
    } else {
        patch.own = set as u32;
        patch.scoped = set == 0 || random.percent(30);
        params.push(format!("set={set} scoped={}", u8::from(patch.scoped)));
        if random.percent(40) {
            let count = 1 + random.below(3);
            let sets: Vec<u32> = (0..count).map(|_| random.below(SETS) as u32).collect();
            // The livepatch's own sets come first.
            let (own, admins) = sets.split_at(random.below(count + 1));
            for (param, sets) in [("evicts", own), ("supersedes", admins)] {
                if !sets.is_empty() {
                    params.push(format!("{param}={}", join(sets)));
                }
            }
            patch.supersedes = Some(sets);
        }
    }

    // Mostly some of its set's own functions, so that the sets get along.
    let mut chosen = Vec::new();
    for _ in 0..1 + random.below(3) {
        let func = if random.percent(80) {
            set * 2 + random.below(3)
        } else {
            random.below(FUNCS.len())
        };
        if !chosen.contains(&func) {
            chosen.push(func);
        }
    }
    for (param, object) in [("vmlinux", None), ("target", Some(TARGET))] {
        let mut names = Vec::new();
        for &(_, name, _) in chosen
            .iter()
            .filter_map(|&index| FUNCS.get(index))
            .filter(|func| func.0 == object)
        {
            let position = random.below(2);
            names.push(match position {
                0 => name.to_string(),
                _ => format!("{name}:{position}"),
            });
            let object = object.map(str::to_string);
            patch.funcs.push((object, name.to_string(), position));
        }
        if !names.is_empty() {
            params.push(format!("{param}={}", join(&names)));
        }
    }
    if random.percent(10) {
        patch.ids.push(1 + random.below(6));
    }
    // Mostly also the states of the livepatches that it replaces, or it could replace few.
    for old in &system.enabled {
        let rules = patch.rules(system.strict);
        if rules.replaces(&old.rules(system.strict)) && random.percent(80) {
            patch.ids.extend(&old.ids);
        }
    }
    patch.ids.sort();
    patch.ids.dedup();
    patch.ids.truncate(4);
    if !patch.ids.is_empty() {
        params.push(format!("ids={}", join(&patch.ids)));
    }
    (patch, params.join(" "))
}

fn show(system: &System, target: bool) {
    for patch in &system.enabled {
        println!(
            "lp {} {} {} {}",
            number(&patch.name),
            patch.own,
            u8::from(patch.is_replacing(system.strict)),
            join(patch.supersedes.as_deref().unwrap_or_default())
        );
    }
    for (object, name, file) in FUNCS {
        if object.is_some() && !target {
            continue;
        }
        let runs = system.runs(object, name);
        println!(
            "runs {file} {}",
            runs.map_or("-", |patch| number(&patch.name))
        );
    }
    println!("end");
}

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u64>());
    let (Some(Ok(seed)), Some(Ok(steps))) = (args.next(), args.next()) else {
        eprintln!("usage: sets-walk SEED STEPS");
        std::process::exit(2);
    };
    let mut random = Random(seed);
    let mut system = System::default();
    let mut target = false;
    for step in 1..=steps {
        print!("step {step} ");
        let choice = random.below(100);
        if choice < 8 {
            target = !target;
            println!("target {}", if target { "load" } else { "unload" });
            println!("ok");
        } else if choice < 25 && !system.enabled.is_empty() {
            let index = random.below(system.enabled.len());
            let name = system.enabled[index].name.clone();
            println!("disable {}", number(&name));
            system.disable(&name);
            println!("ok\ngone {}", number(&name));
        } else {
            let free: Vec<usize> = (1..=PATCHES)
                .filter(|&number| {
                    system
                        .enabled
                        .iter()
                        .all(|patch| patch.name != module(number))
                })
                .collect();
            let chosen = free[random.below(free.len())];
            let (patch, params) = livepatch(&mut random, chosen, &system);
            println!("load {chosen} {params}");
            match system.load(patch) {
                Ok(gone) => {
                    let gone: Vec<_> = gone.iter().map(|name| number(name)).collect();
                    println!("ok\ngone {}", gone.join(" "));
                }
                Err(Refusal::Func(func, other)) => {
                    println!("refused changes {func}, as does '{other}',");
                }
                Err(Refusal::Id(id, other)) => {
                    println!("refused has state or shadow id {id}, as has '{other}',");
                }
                Err(Refusal::State) => {
                    println!("refused is not compatible with the already installed livepatches.");
                }
            }
        }
        show(&system, target);
    }
    // Leave nothing behind.
    let names: Vec<_> = system
        .enabled
        .iter()
        .map(|patch| patch.name.clone())
        .collect();
    for (step, name) in (steps + 1..).zip(names) {
        println!(
            "step {step} disable {}\nok\ngone {}",
            number(&name),
            number(&name)
        );
        system.disable(&name);
        show(&system, target);
    }
}
