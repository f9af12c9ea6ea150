// SPDX-License-Identifier: GPL-2.0-or-later

//! KUnit tests of [`shadow`]: shadow variables in numbers that resize the table, and what becomes
//! of them and of their ids.
//!
//! [`shadow`]: crate::shadow

use kernel::prelude::*;

#[kunit_tests(rust_livepatch_shadow)]
mod suite {
    use crate::shadow::{
        close,
        collect,
        collect_range,
        for_each_unowned,
        free,
        free_all,
        get,
        get_or_alloc,
        join,
        live,
        part,
        table_size,
        Caller,
        Existing,
        Request,
        User,
        With, //
    };
    use core::ptr::{
        null_mut,
        NonNull, //
    };
    use kernel::{
        bindings,
        ffi::{
            c_int,
            c_void, //
        },
        prelude::*,
        rcu_map::MIN_BITS,
        sync::atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        time::{
            delay::fsleep,
            Delta, //
        },
    };

    /// Ids that nobody else uses.
    const IDS: usize = 0x5ad0_7e57_0000;

    /// How many variables were destroyed since this was last asked.
    static DESTROYED: Atomic<usize> = Atomic::new(0);
    /// How many of them were not what the constructor had made.
    static WRONG: Atomic<usize> = Atomic::new(0);

    fn destroyed() -> usize {
        assert_eq!(WRONG.load(Relaxed), 0);
        let count = DESTROYED.load(Relaxed);
        DESTROYED.store(0, Relaxed);
        count
    }

    /// Makes the data the address of the object.
    ///
    /// # Safety
    ///
    /// The data must have the size of a pointer.
    unsafe extern "C" fn construct(obj: *mut c_void, data: *mut c_void, _: *mut c_void) -> c_int {
        if obj.is_null() {
            return EBUSY.to_errno();
        }
        // SAFETY: By the caller's promise.
        unsafe { data.cast::<*mut c_void>().write(obj) };
        0
    }

    /// Counts.
    ///
    /// # Safety
    ///
    /// As for `construct()`.
    unsafe extern "C" fn destroy(obj: *mut c_void, data: *mut c_void) {
        // SAFETY: By the caller's promise.
        if unsafe { data.cast::<*mut c_void>().read() } != obj {
            WRONG.store(1, Relaxed);
        }
        DESTROYED.store(DESTROYED.load(Relaxed) + 1, Relaxed);
    }

    /// The address of an object: only a number here.
    fn object(number: usize) -> *mut c_void {
        (0x10_0000 + number * 64) as *mut c_void
    }

    fn add_as(obj: *mut c_void, id: usize, existing: Existing, with: With) -> *mut c_void {
        let request = Request::new(
            with,
            size_of::<usize>(),
            bindings::GFP_KERNEL,
            Some(construct),
            null_mut(),
            existing,
        );
        // SAFETY: The constructor works in any context.
        unsafe { get_or_alloc(obj, id, &request) }
    }

    /// By its id, from code that is nobody's.
    const BY_ID: With = With::Id(Caller(0));

    fn add(number: usize, id: usize) -> *mut c_void {
        add_as(object(number), id, Existing::Return, BY_ID)
    }

    fn add_typed(number: usize, id: usize) -> *mut c_void {
        add_as(object(number), id, Existing::Return, With::Type)
    }

    /// Makes an owner of the id, whose code uses types.
    fn open(id: usize) -> Result {
        // SAFETY: There is no module to be held.
        unsafe { join(id, None) }
    }

    fn remove(number: usize, id: usize) {
        // SAFETY: The destructor works in any context.
        unsafe { free(object(number), id, Some(destroy)) };
    }

    fn remove_as(id: usize, with: With) -> usize {
        // SAFETY: As above.
        unsafe { free_all(id, Some(destroy), with) };
        destroyed()
    }

    fn remove_all(id: usize) -> usize {
        let count = remove_as(id, BY_ID);
        assert_eq!(live(id), 0);
        count
    }

    /// Ends the ownership of the id.
    fn collect_all(id: usize) -> usize {
        close(id);
        // SAFETY: As above.
        unsafe { collect(id, Some(destroy)) };
        destroyed()
    }

    /// Whether the variable is there, with its data.
    fn there(number: usize, id: usize) -> bool {
        let data = get(object(number), id);
        // SAFETY: The test frees it later.
        !data.is_null() && unsafe { data.cast::<*mut c_void>().read() } == object(number)
    }

    /// Waits until the number of buckets is right.
    fn settled(right: impl Fn(u32, usize) -> bool) -> bool {
        for _ in 0..1000 {
            let (bits, count) = table_size();
            if right(bits, count) {
                return true;
            }
            fsleep(Delta::from_millis(10));
        }
        false
    }

    #[test]
    fn grow_and_shrink() {
        const ID: usize = IDS;
        const COUNT: usize = 20_000;
        let fits = |bits: u32, count: usize| count <= 1 << bits && count >= (1 << bits) / 8;

        for number in 0..COUNT {
            assert!(!add(number, ID).is_null());
            // While the table grows.
            assert!(there(number / 2, ID) && !there(number + 1, ID));
            if number % 8 == 0 {
                assert!(!add(number, ID + 1).is_null());
            }
        }
        assert_eq!((live(ID), live(ID + 1)), (COUNT, COUNT / 8));
        assert!(settled(|bits, count| bits > 12 && fits(bits, count)));
        for number in 0..COUNT {
            assert!(there(number, ID));
            assert_eq!(there(number, ID + 1), number % 8 == 0);
            assert!(get(object(number).wrapping_byte_add(32), ID).is_null());
        }

        for number in (0..COUNT).step_by(2) {
            remove(number, ID);
            remove(number, ID);
            assert!(!there(number, ID) && there(number | 1, ID));
        }
        assert_eq!(destroyed(), COUNT / 2);
        assert_eq!(live(ID), COUNT / 2);
        assert_eq!(remove_all(ID), COUNT / 2);
        // While the table shrinks.
        for number in 0..COUNT {
            assert!(!there(number, ID));
            assert_eq!(there(number, ID + 1), number % 8 == 0);
        }
        assert_eq!(remove_all(ID + 1), COUNT / 8);
        assert!(settled(|bits, _| bits <= MIN_BITS + 2));
    }

    #[test]
    fn one_per_object_and_id() {
        const ID: usize = IDS + 0x10;
        let data = add(1, ID);
        assert!(!data.is_null() && data == add(1, ID));
        assert!(data != add(1, ID + 1) && data != add(2, ID));
        assert_eq!((live(ID), live(ID + 1)), (2, 1));
        // The constructor refuses.
        assert!(add_as(null_mut(), ID, Existing::Return, BY_ID).is_null());
        assert!(add_as(null_mut(), ID + 2, Existing::Return, BY_ID).is_null());
        assert_eq!((live(ID), live(ID + 2)), (2, 0));
        assert_eq!((remove_all(ID), remove_all(ID + 1)), (2, 1));
        assert_eq!(remove_all(ID + 2), 0);
    }

    #[test]
    fn lifetime() -> Result {
        const ID: usize = IDS + 0x20;
        const COUNT: usize = 1234;

        assert!(add_typed(0, ID).is_null());
        open(ID)?;
        for number in 0..COUNT {
            assert!(!add_typed(number, ID).is_null());
            assert!(!add(number, ID + 1).is_null());
        }
        assert_eq!(live(ID), COUNT);

        close(ID);
        assert!(add_typed(COUNT, ID).is_null() && add_typed(0, ID).is_null());
        assert!(there(0, ID) && there(COUNT - 1, ID));
        // SAFETY: The destructor works in any context.
        unsafe { collect(ID, Some(destroy)) };
        assert_eq!((destroyed(), live(ID), live(ID + 1)), (COUNT, 0, COUNT));
        assert!((0..COUNT).all(|number| !there(number, ID) && there(number, ID + 1)));

        assert!(add_typed(0, ID).is_null());
        open(ID)?;
        assert!(!add_typed(0, ID).is_null() && !add_typed(1, ID).is_null());
        assert_eq!(collect_all(ID), 2);
        assert_eq!(remove_all(ID + 1), COUNT);
        Ok(())
    }

    /// What is made by its id belongs to whoever made it, whatever becomes of the owners of the id.
    #[test]
    fn two_kinds() -> Result {
        const ID: usize = IDS + 0x40;
        const COUNT: usize = 300;
        const LAST: usize = 6 * COUNT;

        // From before the first owner, with one, and after the last.
        (0..COUNT).for_each(|number| assert!(!add(number, ID).is_null()));
        open(ID)?;
        for number in COUNT..2 * COUNT {
            assert!(!add(number, ID).is_null());
            assert!(!add_typed(number + COUNT, ID).is_null());
        }
        // One variable for an object, whichever way it is asked for.
        assert_eq!(add_typed(0, ID), add(0, ID));
        assert_eq!(add(2 * COUNT, ID), add_typed(2 * COUNT, ID));
        assert_eq!(live(ID), 3 * COUNT);
        assert_eq!(collect_all(ID), COUNT);
        assert!((0..2 * COUNT).all(|number| there(number, ID)));
        assert!(!add(LAST, ID).is_null());
        assert_eq!(collect_all(ID), 0);

        // Each way to free them all reaches its own.
        open(ID)?;
        for number in 3 * COUNT..4 * COUNT {
            assert!(!add_typed(number, ID).is_null());
        }
        assert_eq!(remove_as(ID, BY_ID), 2 * COUNT + 1);
        assert_eq!(live(ID), COUNT);
        assert!(!add(0, ID).is_null());
        assert_eq!(remove_as(ID, With::Type), COUNT);
        assert!(there(0, ID));
        assert!(!add_typed(1, ID).is_null());
        // One of its object, or of its kind, is freed either way.
        remove(1, ID);
        remove(0, ID);
        assert_eq!((destroyed(), live(ID)), (2, 0));

        // First, last and in between of both lists.
        for number in 0..10 {
            assert!(!add(2 * number, ID).is_null() && !add_typed(2 * number + 1, ID).is_null());
        }
        for number in [0, 1, 19, 18, 8, 9, 16, 17, 2, 3] {
            remove(number, ID);
        }
        assert_eq!(destroyed(), 10);
        assert_eq!((remove_as(ID, With::Type), live(ID)), (5, 5));
        assert_eq!((collect_all(ID), remove_all(ID)), (0, 5));
        Ok(())
    }

    /// What the code of a livepatch with an `is_shadow` state makes by the id is managed, too.
    #[test]
    fn code_of_an_owner() -> Result {
        const ID: usize = IDS + 0x50;
        // The core, which is held while it tests itself, stands for a livepatch.
        let Some(module) = NonNull::new(crate::this_module()) else {
            return Ok(());
        };
        let user = Some(User(module));
        let here = With::Id(Caller(code_of_an_owner as usize));
        let add_here = |number| add_as(object(number), ID, Existing::Return, here);

        assert!(!add_here(0).is_null());
        // SAFETY: The module stays.
        unsafe { join(ID, user) }?;
        assert!(!add_here(1).is_null() && !add(2, ID).is_null());
        assert_eq!(add_here(2), get(object(2), ID));
        open(ID)?;
        part(ID, None);
        assert!(!add_here(3).is_null());
        part(ID, user);
        assert!(!add_here(4).is_null());
        assert_eq!((collect_all(ID), live(ID)), (2, 3));

        // SAFETY: As above.
        unsafe { join(ID, user) }?;
        assert!(!add_here(5).is_null());
        assert_eq!((remove_as(ID, here), live(ID)), (4, 0));
        part(ID, user);
        assert_eq!(collect_all(ID), 0);
        Ok(())
    }

    #[test]
    fn object_range() -> Result {
        const ID: usize = IDS + 0x30;
        const COUNT: usize = 1000;
        open(ID)?;
        for number in 0..COUNT {
            assert!(!add_typed(number, ID).is_null() && !add(number, ID + 1).is_null());
        }
        assert!(!add(COUNT + 1, ID).is_null());
        let collect_numbers = |from: usize, to: usize| {
            let range = object(from).addr()..object(to).addr();
            // SAFETY: The destructor works in any context.
            unsafe { collect_range(ID, range, Some(destroy)) };
            destroyed()
        };
        assert_eq!(collect_numbers(COUNT, 2 * COUNT), 0);
        assert_eq!(collect_numbers(5, 5), 0);
        assert_eq!(collect_numbers(300, 700), 400);
        assert_eq!(collect_numbers(300, 700), 0);
        assert_eq!(live(ID), COUNT - 399);
        for number in 0..COUNT {
            assert_eq!(there(number, ID), !(300..700).contains(&number));
            assert!(there(number, ID + 1));
        }
        assert!(!add_typed(500, ID).is_null());
        assert_eq!(collect_numbers(0, COUNT), COUNT - 399);
        assert_eq!((collect_all(ID), remove_all(ID)), (0, 1));
        assert_eq!(remove_all(ID + 1), COUNT);
        Ok(())
    }

    #[test]
    fn closed_ids_are_forgotten() -> Result {
        const ID: usize = IDS + 0x1000;
        const COUNT: usize = 200;
        let (_, before) = table_size();
        for id in ID..ID + COUNT {
            open(id)?;
            close(id);
            assert!(add_typed(0, id).is_null());
        }
        let (_, after) = table_size();
        assert!(after <= before + 64);
        for id in [ID, ID + COUNT - 1] {
            assert!(add_typed(0, id).is_null() && !add(0, id).is_null());
            assert_eq!(remove_all(id), 1);
        }
        Ok(())
    }

    /// Those that somebody has to free by hand are found, while others come and go.
    #[test]
    fn without_owners() -> Result {
        const ID: usize = IDS + 0x2000;
        const COUNT: usize = 250;
        for id in ID..ID + COUNT {
            if id % 2 == 0 {
                open(id)?;
                assert!(!add_typed(0, id).is_null());
            } else {
                assert!(!add(0, id).is_null() && !add(1, id).is_null());
            }
        }
        let locked = crate::lock::lock();
        let mut seen = 0;
        let mut next = ID + COUNT;
        let shown = for_each_unowned(&locked, |id, number| {
            if (ID..ID + COUNT).contains(&id) {
                assert_eq!((id % 2, number), (1, 2));
                seen += 1;
                assert_eq!(remove_all(id), 2);
                assert!(!add(0, next).is_null());
                next += 1;
            }
            Ok(())
        });
        assert!(shown.is_ok() && seen == COUNT / 2);
        let stopped = for_each_unowned(&locked, |_, _| Err(kernel::fmt::Error));
        assert!(stopped.is_err());
        drop(locked);
        let left: usize = (ID..next).map(|id| collect_all(id) + remove_all(id)).sum();
        assert_eq!(left, COUNT);
        Ok(())
    }
}
