// SPDX-License-Identifier: GPL-2.0-or-later

//! KUnit tests of what needs nothing of the kernel: [`symbol`], [`ranges`], [`sets`], [`sort`] and
//! [`dispatch`] with [`placement`].
//!
//! They show that it works as the kernel compiles it. More cases run on the host.
//!
//! [`symbol`]: crate::rules::symbol
//! [`ranges`]: crate::rules::ranges
//! [`sets`]: crate::rules::sets
//! [`sort`]: crate::sort
//! [`dispatch`]: crate::rules::dispatch
//! [`placement`]: crate::rules::placement

use kernel::prelude::*;

#[kunit_tests(rust_livepatch)]
mod suite {
    use crate::{
        rules::dispatch::{
            row_of,
            slot_at,
            Slot,
            GRAIN, //
        },
        rules::placement::{
            base_of,
            count_rows,
            fill_rows,
            lay_out,
            most_slots, //
        },
        rules::ranges::{
            find,
            normalise,
            Range, //
        },
        rules::sets::{
            self,
            find_conflict,
            Asked,
            Common,
            Conflict,
            FuncId,
            LivepatchParts,
            Rules, //
        },
        rules::symbol::{
            parse_section,
            parse_symbol,
            Symbol,
            MAX_OBJECT_LEN,
            MAX_SYMBOL_LEN, //
        },
        sort::sort_by_key, //
    };
    use kernel::prelude::*;

    /// Numbers without a pattern (xorshift).
    struct Random(usize);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0.checked_rem(limit).unwrap_or(0)
        }
    }

    fn symbol<'a>(object: &'a [u8], name: &'a [u8], position: usize) -> Option<Symbol<'a>> {
        Some(Symbol {
            object,
            name,
            position,
        })
    }

    fn concat(parts: &[&[u8]]) -> Result<KVec<u8>> {
        let mut name = KVec::new();
        for part in parts {
            name.extend_from_slice(part, GFP_KERNEL)?;
        }
        Ok(name)
    }

    fn range(start: usize, end: usize, tag: usize) -> Range {
        Range { start, end, tag }
    }

    #[test]
    fn symbol_parts() {
        assert_eq!(
            parse_symbol(b".klp.sym.vmlinux.printk,0"),
            symbol(b"vmlinux", b"printk", 0)
        );
        assert_eq!(
            parse_symbol(b".klp.sym.ext4.f.isra.0,12"),
            symbol(b"ext4", b"f.isra.0", 12)
        );
        assert_eq!(
            parse_symbol(b".klp.sym.a,b.\xff,1"),
            symbol(b"a,b", b"\xff", 1)
        );
    }

    #[test]
    fn symbol_refused() {
        let names: [&[u8]; 10] = [
            b"",
            b".klp.sym.",
            b".klp.sym.a",
            b".klp.sym.a.b",
            b".klp.sym.a.b,",
            b".klp.sym.a.,0",
            b".klp.sym..b,0",
            b".klp.sym.a,0",
            b".klp.rela.a.b,0",
            b"klp.sym.a.b,0",
        ];
        for name in names {
            assert_eq!(parse_symbol(name), None);
        }
    }

    #[test]
    fn symbol_position() -> Result {
        assert_eq!(
            parse_symbol(b".klp.sym.a.b,0018446744073709551615"),
            symbol(b"a", b"b", usize::MAX)
        );
        let wrong: [&[u8]; 8] = [
            b"18446744073709551616",
            b"99999999999999999999",
            b"1x",
            b"1,2",
            b" 1",
            b"+1",
            b"-1",
            b"0x1",
        ];
        for position in wrong {
            let name = concat(&[b".klp.sym.a.b,", position])?;
            assert_eq!(parse_symbol(&name), None);
        }
        Ok(())
    }

    #[test]
    fn symbol_limits() -> Result {
        let (object, name) = ([b'o'; MAX_OBJECT_LEN + 1], [b's'; MAX_SYMBOL_LEN + 1]);
        let (longest_object, longest_name) = (&object[1..], &name[1..]);
        let text = concat(&[b".klp.sym.", longest_object, b".", longest_name, b",1"])?;
        assert_eq!(parse_symbol(&text), symbol(longest_object, longest_name, 1));
        let text = concat(&[b".klp.sym.", &object, b".", longest_name, b",1"])?;
        assert_eq!(parse_symbol(&text), None);
        let text = concat(&[b".klp.sym.", longest_object, b".", &name, b",1"])?;
        assert_eq!(parse_symbol(&text), None);
        let text = concat(&[b".klp.rela.", longest_object, b".text"])?;
        assert_eq!(parse_section(&text), Some(longest_object));
        let text = concat(&[b".klp.rela.", &object, b".text"])?;
        assert_eq!(parse_section(&text), None);
        Ok(())
    }

    #[test]
    fn section_object() {
        assert_eq!(
            parse_section(b".klp.rela.ext4..text.unlikely"),
            Some(&b"ext4"[..])
        );
        let names: [&[u8]; 6] = [
            b"",
            b".klp.rela.",
            b".klp.rela.a",
            b".klp.rela..text",
            b".klp.sym.a.b",
            b".rela.text",
        ];
        for name in names {
            assert_eq!(parse_section(name), None);
        }
    }

    #[test]
    fn ranges_merged() {
        let mut ranges = [
            range(50, 60, 0),
            range(15, 30, 1),
            range(10, 20, 2),
            range(40, 40, 3),
            range(60, 70, 4),
            range(12, 13, 5),
            range(90, 80, 6),
        ];
        let kept = normalise(&mut ranges);
        let expected = [range(10, 30, 2), range(50, 60, 0), range(60, 70, 4)];
        assert_eq!(ranges.get(..kept), Some(&expected[..]));
        assert_eq!(normalise::<usize>(&mut []), 0);
    }

    #[test]
    fn ranges_borders() {
        const MAX: usize = usize::MAX;
        let mut ranges = [range(MAX - 1, MAX, 0), range(10, 20, 1), range(0, 1, 2)];
        assert_eq!(normalise(&mut ranges), 3);
        let tag = |addr| find(&ranges, addr).map(|range| range.tag);
        assert_eq!((tag(0), tag(1)), (Some(2), None));
        assert_eq!((tag(9), tag(10)), (None, Some(1)));
        assert_eq!((tag(19), tag(20)), (Some(1), None));
        assert_eq!((tag(MAX - 2), tag(MAX - 1)), (None, Some(0)));
        assert_eq!(tag(MAX), None);
        assert_eq!(find::<usize>(&[], 0), None);
    }

    #[test]
    fn ranges_random() {
        let mut random = Random(1);
        for _ in 0..200 {
            let mut ranges = [range(0, 0, 0); 12];
            for (tag, slot) in ranges.iter_mut().enumerate() {
                *slot = range(random.below(64), random.below(64), tag);
            }
            let original = ranges;
            let kept = normalise(&mut ranges);
            let merged = ranges.get(..kept).unwrap_or(&[]);
            for addr in 0..64 {
                let inside = |range: &Range| range.start <= addr && addr < range.end;
                let found = find(merged, addr);
                assert_eq!(found.is_some(), original.iter().any(inside));
                assert!(found.is_none_or(inside));
            }
            let ordered = |pair: &[Range]| matches!(pair, [a, b] if a.end <= b.start);
            assert!(merged.windows(2).all(ordered));
        }
    }

    #[test]
    fn sort_all_small() {
        // All sequences of up to five numbers below five, so all orders of them.
        for len in 0..=5 {
            for mut number in 0..5usize.pow(len) {
                let mut items = [0; 5];
                for item in items.iter_mut().take(len as usize) {
                    *item = number % 5;
                    number /= 5;
                }
                let count = |items: &[usize], value| items.iter().filter(|&&i| i == value).count();
                let mut sorted = items;
                sort_by_key(&mut sorted, |&item| item);
                assert!(sorted.is_sorted());
                assert!((0..5).all(|value| count(&items, value) == count(&sorted, value)));
            }
        }
    }

    #[test]
    fn sort_random() -> Result {
        let mut random = Random(2);
        for len in [0, 1, 2, 3, 16, 100, 1000] {
            let mut items = KVec::with_capacity(len, GFP_KERNEL)?;
            let mut sum = 0usize;
            for _ in 0..len {
                let item = random.below(len);
                sum += item;
                items.push(item, GFP_KERNEL)?;
            }
            sort_by_key(&mut items, |&item| item);
            assert!(items.is_sorted());
            assert_eq!(items.iter().sum::<usize>(), sum);
            sort_by_key(&mut items, |&item| core::cmp::Reverse(item));
            assert!(items.is_sorted_by(|a, b| a >= b));
        }
        Ok(())
    }

    /// Checks, for sorted locations, that the handler's way leads each to its own slot. Returns how
    /// many are strays, and how many slots there are.
    fn check_slots(ips: &[usize]) -> Result<(usize, usize)> {
        const SLOTS: usize = 0xffff_c900_0000_0000;
        let mut indexes = KVVec::from_elem(0, ips.len(), GFP_KERNEL)?;
        let mut order = KVVec::from_elem((0, 0), ips.len(), GFP_KERNEL)?;
        let mut taken = KVVec::from_elem(false, most_slots(ips.len()).ok_or(EINVAL)?, GFP_KERNEL)?;
        let layout = lay_out(ips, &mut indexes, &mut order, &mut taken);
        let mut rows = KVVec::from_elem(0, count_rows(ips), GFP_KERNEL)?;
        fill_rows(ips, &indexes, &layout, SLOTS, &mut rows);
        let mut seen = KVVec::from_elem(false, layout.slots, GFP_KERNEL)?;
        let base = base_of(*ips.first().ok_or(EINVAL)?);
        let mut strays = 0;
        for (&ip, &index) in ips.iter().zip(&indexes) {
            let seen = seen.get_mut(index).ok_or(EINVAL)?;
            assert!(!core::mem::replace(seen, true));
            let row = *rows.get(row_of(ip - base)).ok_or(EINVAL)?;
            let found = slot_at(row, ip - base);
            if layout.is_stray(index) {
                // Another one's, or nobody's.
                assert!((SLOTS..SLOTS + layout.slots * size_of::<Slot>()).contains(&found));
                strays += 1;
            } else {
                assert_eq!(found, SLOTS + index * size_of::<Slot>());
            }
        }
        Ok((strays, layout.used))
    }

    #[test]
    fn dispatch_finds_all() -> Result {
        const TEXT: usize = 0xffff_ffff_8100_0000;
        let mut random = Random(3);
        for count in [1, 2, 3, 10, 100, 500] {
            // Behind each other, a little apart, and all over the kernel.
            for spread in [1, 16, 10_000] {
                let mut ips = KVec::with_capacity(count, GFP_KERNEL)?;
                let mut ip = TEXT;
                for _ in 0..count {
                    ips.push(ip, GFP_KERNEL)?;
                    ip += GRAIN * (1 + random.below(spread));
                }
                let (strays, used) = check_slots(&ips)?;
                assert_eq!(strays, 0);
                assert!(used <= most_slots(count).ok_or(EINVAL)?);
            }
        }
        // Two in one grain; a location behind what precedes it in the function.
        assert_eq!(check_slots(&[TEXT, TEXT + 1, TEXT + GRAIN])?.0, 1);
        assert_eq!(
            check_slots(&[TEXT + 4, TEXT + GRAIN, TEXT + 2 * GRAIN + 4])?.0,
            0
        );
        Ok(())
    }

    #[test]
    fn sets_who_replaces_whom() {
        let legacy = Rules::new(&Asked::default());
        let replacing = Rules::Legacy { replace: true };
        let set = |own| Rules::Sets {
            own,
            supersedes: &[],
        };
        let cumulative = Rules::new(&Asked {
            own: 1,
            replace: true,
            supersedes: Some(&[2, 7]),
            ..Asked::default()
        });
        assert_eq!(legacy, Rules::Legacy { replace: false });
        // By row: what is loaded; by column: whether it replaces each of these.
        let enabled = [legacy, replacing, set(0), set(1), set(2), cumulative];
        let table = [
            (legacy, [false, false, false, false, false, false]),
            (replacing, [true, true, true, false, false, false]),
            (set(0), [true, true, true, false, false, false]),
            (set(1), [false, false, false, true, false, true]),
            (set(2), [false, false, false, false, true, false]),
            (cumulative, [false, false, false, true, true, true]),
        ];
        for (new, row) in &table {
            for (old, &replaces) in enabled.iter().zip(row) {
                assert_eq!(new.replaces(old), replaces);
            }
        }
        assert!(!legacy.must_not_share(&replacing));
        assert!(legacy.must_not_share(&set(0)));
        assert!(set(3).must_not_share(&cumulative));
        let strict = Rules::new(&Asked {
            strict: true,
            ..Asked::default()
        });
        assert_eq!(strict, set(0));
    }

    #[test]
    fn sets_what_is_shared() -> Result {
        let func = |name, position| FuncId {
            object: None,
            name,
            position,
        };
        let (mut mine, mut yours) = (KVec::new(), KVec::new());
        for position in 1..1000 {
            mine.push(func(&b"mine"[..], position), GFP_KERNEL)?;
            yours.push(func(&b"yours"[..], position), GFP_KERNEL)?;
        }
        mine.push(func(&b"ours"[..], 2), GFP_KERNEL)?;
        sets::sort(&mut mine);
        sets::sort(&mut yours);
        let rules = |own| Rules::Sets {
            own,
            supersedes: &[],
        };
        let new = LivepatchParts {
            name: b"new",
            rules: rules(1),
            funcs: &mine,
            ids: &[4, 8],
        };
        let apart = LivepatchParts {
            name: b"apart",
            rules: rules(2),
            funcs: &yours,
            ids: &[5, 7],
        };
        let ours = [func(&b"ours"[..], 2)];
        let other_func = LivepatchParts {
            name: b"func",
            rules: rules(3),
            funcs: &ours,
            ids: &[4],
        };
        let other_id = LivepatchParts {
            name: b"id",
            rules: rules(4),
            funcs: &[],
            ids: &[1, 8],
        };
        assert!(find_conflict(&new, &[apart]).is_none());
        assert_eq!(
            find_conflict(&new, &[other_id, apart, other_func]),
            Some(Conflict {
                shared: Common::Func(ours[0]),
                other: b"func",
            })
        );
        assert_eq!(
            find_conflict(&new, &[apart, other_id]),
            Some(Conflict {
                shared: Common::Id(8),
                other: b"id",
            })
        );
        Ok(())
    }
}
