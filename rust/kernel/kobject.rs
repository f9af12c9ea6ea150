// SPDX-License-Identifier: GPL-2.0

//! Kernel objects with attributes in sysfs.
//!
//! A type that implements [`Kobject`] says which files it shows; a [`Dir`] is one such object, a
//! directory in sysfs.
//!
//! C headers: [`include/linux/kobject.h`](srctree/include/linux/kobject.h),
//! [`include/linux/sysfs.h`](srctree/include/linux/sysfs.h)
//!
//! # Examples
//!
//! ```
//! use kernel::{
//!     fmt::Write as _,
//!     kobject::{Attribute, Dir, Kobject, KERNEL},
//!     prelude::*,
//! };
//!
//! struct Answer(u32);
//!
//! impl Kobject for Answer {
//!     const ATTRIBUTES: &'static [&'static Attribute<Self>] = &[&Attribute::read_only(
//!         c"answer",
//!         |this, out| Ok(writeln!(out, "{}", this.0)?),
//!     )];
//! }
//!
//! let dir = Dir::new(&KERNEL, c"rust_doctest_kobject", Answer(42))?;
//! assert_eq!(dir.0, 42);
//! dir.remove_and_wait();
//! # Ok::<(), Error>(())
//! ```

use crate::{
    bindings,
    container_of,
    error::to_result,
    ffi::c_char,
    page::PAGE_SIZE,
    prelude::*,
    str::{
        CStrExt as _,
        Formatter, //
    },
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Release, //
            },
            Atomic, //
        },
        Completion, //
    },
    types::Opaque, //
};
use core::{
    marker::PhantomData,
    ops::Deref,
    ptr::NonNull, //
};

/// Writes the contents of an attribute's file.
pub type Show<T> = fn(&T, &mut Formatter<'_>) -> Result;
/// Takes what was written to an attribute's file.
pub type Store<T> = fn(&T, &[u8]) -> Result;

/// A file in the directory of a [`Kobject`].
///
/// `show` and `store` run in process context and may sleep. The object is valid during the call;
/// its removal waits for the call to end.
#[repr(C)]
pub struct Attribute<T> {
    attr: bindings::attribute,
    show: Option<Show<T>>,
    store: Option<Store<T>>,
}

// SAFETY: An attribute is constant.
unsafe impl<T> Sync for Attribute<T> {}

impl<T> Attribute<T> {
    const fn new(
        name: &'static CStr,
        mode: u16,
        show: Option<Show<T>>,
        store: Option<Store<T>>,
    ) -> Self {
        // SAFETY: All-zero is valid for the fields that lockdep adds.
        let mut attr: bindings::attribute = unsafe { core::mem::zeroed() };
        attr.name = crate::str::as_char_ptr_in_const_context(name);
        attr.mode = mode;
        Self { attr, show, store }
    }

    /// Returns the name of the file.
    pub fn name(&self) -> &CStr {
        // SAFETY: `new()` has it from a `CStr`.
        unsafe { CStr::from_char_ptr(self.attr.name) }
    }

    /// A file of mode 0444.
    pub const fn read_only(name: &'static CStr, show: Show<T>) -> Self {
        Self::new(name, 0o444, Some(show), None)
    }

    /// A file of mode 0200.
    pub const fn write_only(name: &'static CStr, store: Store<T>) -> Self {
        Self::new(name, 0o200, None, Some(store))
    }

    /// A file of mode 0644.
    pub const fn read_write(name: &'static CStr, show: Show<T>, store: Store<T>) -> Self {
        Self::new(name, 0o644, Some(show), Some(store))
    }
}

/// The data of a kernel object.
pub trait Kobject: Sized + Send + Sync + 'static {
    /// The files in the object's directory, at most [`MAX_ATTRIBUTES`].
    const ATTRIBUTES: &'static [&'static Attribute<Self>];
}

/// How many attributes a [`Kobject`] may have.
pub const MAX_ATTRIBUTES: usize = 15;

/// sysfs takes a full page for an overflow.
const MAX_SHOWN: usize = PAGE_SIZE - 1;

/// The C tables of `T`.
struct Tables<T>(PhantomData<T>);

impl<T: Kobject> Tables<T> {
    const POINTERS: [*const bindings::attribute; MAX_ATTRIBUTES + 1] = {
        let mut pointers = [core::ptr::null(); MAX_ATTRIBUTES + 1];
        let mut i = 0;
        // The last pointer stays NULL: more attributes do not compile.
        assert!(T::ATTRIBUTES.len() <= MAX_ATTRIBUTES);
        while i < T::ATTRIBUTES.len() {
            pointers[i] = &raw const T::ATTRIBUTES[i].attr;
            i += 1;
        }
        pointers
    };

    const GROUP: bindings::attribute_group = {
        // SAFETY: All-zero is a valid group without files.
        let mut group: bindings::attribute_group = unsafe { core::mem::zeroed() };
        group.__bindgen_anon_2.attrs_const = core::ptr::from_ref(&Self::POINTERS).cast();
        group
    };

    const GROUPS: [*const bindings::attribute_group; 2] = [&Self::GROUP, core::ptr::null()];

    const OPS: bindings::sysfs_ops = bindings::sysfs_ops {
        show: Some(Self::show),
        store: Some(Self::store),
    };

    const TYPE: bindings::kobj_type = bindings::kobj_type {
        release: Some(Self::release),
        sysfs_ops: &Self::OPS,
        default_groups: core::ptr::from_ref(&Self::GROUPS)
            .cast::<*const bindings::attribute_group>()
            .cast_mut(),
        child_ns_type: None,
        namespace: None,
        get_ownership: None,
    };

    /// # Safety
    ///
    /// Called by sysfs for an object and an attribute of `T`, with a page at `buf`.
    unsafe extern "C" fn show(
        kobj: *mut bindings::kobject,
        attr: *mut bindings::attribute,
        buf: *mut c_char,
    ) -> isize {
        // SAFETY: sysfs keeps the object alive during the call, and it is one of ours.
        let data = unsafe { &(*Inner::<T>::from_kobj(kobj)).data };
        // SAFETY: All files of the object come from `T::ATTRIBUTES`.
        let attr = unsafe { &*container_of!(attr, Attribute<T>, attr) };
        let Some(show) = attr.show else {
            return EIO.to_errno() as isize;
        };
        // SAFETY: sysfs provides a page.
        let mut out = unsafe { Formatter::from_buffer(buf, MAX_SHOWN) };
        match show(data, &mut out) {
            // CAST: Less than a page.
            Ok(()) => out.bytes_written().min(MAX_SHOWN) as isize,
            Err(err) => err.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// Called by sysfs for an object and an attribute of `T`, with `count` bytes at `buf`.
    unsafe extern "C" fn store(
        kobj: *mut bindings::kobject,
        attr: *mut bindings::attribute,
        buf: *const c_char,
        count: usize,
    ) -> isize {
        // SAFETY: sysfs keeps the object alive during the call, and it is one of ours.
        let data = unsafe { &(*Inner::<T>::from_kobj(kobj)).data };
        // SAFETY: All files of the object come from `T::ATTRIBUTES`.
        let attr = unsafe { &*container_of!(attr, Attribute<T>, attr) };
        let Some(store) = attr.store else {
            return EIO.to_errno() as isize;
        };
        // SAFETY: sysfs provides `count` bytes.
        match store(data, unsafe { core::slice::from_raw_parts(buf, count) }) {
            // CAST: At most a page.
            Ok(()) => count as isize,
            Err(err) => err.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// Called by the C core for an object of `T` that has lost its last reference.
    unsafe extern "C" fn release(kobj: *mut bindings::kobject) {
        // SAFETY: The object is one of ours, was made from a box, and has no user any more.
        let inner = unsafe { KBox::from_raw(Inner::<T>::from_kobj(kobj)) };
        // Pairs with the release in `Dir::remove_and_wait()`.
        let waiter = inner.waiter.load(Acquire);
        drop(inner);
        if !waiter.is_null() {
            // SAFETY: `remove_and_wait()` keeps the completion alive until it is completed.
            unsafe { (*waiter).complete_all() };
        }
    }
}

#[repr(C)]
struct Inner<T> {
    kobj: Opaque<bindings::kobject>,
    /// Whom to tell about the release, or NULL.
    waiter: Atomic<*mut Completion>,
    data: T,
}

impl<T> Inner<T> {
    /// # Safety
    ///
    /// `kobj` must be the field of an `Inner<T>`.
    unsafe fn from_kobj(kobj: *mut bindings::kobject) -> *mut Self {
        // `kobj` is the first field, and `Opaque` is transparent.
        kobj.cast()
    }
}

/// Something that a [`Dir`] can be created in.
///
/// # Safety
///
/// What [`Parent::as_raw`] returns must be valid for as long as `self`.
pub unsafe trait Parent {
    /// Returns the C object.
    fn as_raw(&self) -> *mut bindings::kobject;
}

/// `/sys/kernel`.
pub struct KernelDir(());

/// `/sys/kernel`.
pub static KERNEL: KernelDir = KernelDir(());

// SAFETY: Never freed.
unsafe impl Parent for KernelDir {
    #[inline]
    fn as_raw(&self) -> *mut bindings::kobject {
        // SAFETY: Set early at boot, then constant.
        unsafe { bindings::kernel_kobj }
    }
}

/// An owned [`Kobject`], whose directory is removed when it is dropped.
///
/// The object itself lives on until the last reference to it is gone: its children hold one.
///
/// # Invariants
///
/// The pointer is to an object made by [`Dir::new`], of which `self` owns one reference.
pub struct Dir<T: Kobject>(NonNull<Inner<T>>);

// SAFETY: Kernel objects are counted atomically, and `T` is `Send` and `Sync`.
unsafe impl<T: Kobject> Send for Dir<T> {}
// SAFETY: As above.
unsafe impl<T: Kobject> Sync for Dir<T> {}

impl<T: Kobject> Dir<T> {
    /// Creates the directory `name` in `parent`.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`], [`EEXIST`] when the name is taken, [`EINVAL`] when it is empty.
    ///
    /// May sleep.
    pub fn new(parent: &dyn Parent, name: &CStr, data: T) -> Result<Self> {
        let inner = KBox::new(
            Inner {
                kobj: Opaque::new(bindings::kobject::default()),
                waiter: Atomic::new(core::ptr::null_mut()),
                data,
            },
            GFP_KERNEL,
        )?;
        let inner = NonNull::from(KBox::leak(inner));
        // INVARIANT: `kobject_init()` sets the count to one, and a failed `kobject_add()` keeps it.
        let this = Self(inner);
        // SAFETY: The object is zeroed and valid, its type is a constant.
        unsafe { bindings::kobject_init(this.as_raw(), &Tables::<T>::TYPE) };
        // SAFETY: The object is initialised, the parent valid, and the name NUL-terminated.
        let added = to_result(unsafe {
            bindings::kobject_add(
                this.as_raw(),
                parent.as_raw(),
                c"%s".as_char_ptr(),
                name.as_char_ptr(),
            )
        });
        if let Err(err) = added {
            // Nobody who waits for the parent's release waits for this one.
            this.remove_and_wait();
            return Err(err);
        }
        Ok(this)
    }

    /// Returns a counted reference to the object, to create others in it.
    pub fn reference(&self) -> Reference {
        // SAFETY: By the type invariant the object is valid.
        unsafe { bindings::kobject_get(self.as_raw()) };
        // INVARIANT: The reference was just taken.
        Reference(self.as_raw())
    }

    /// Removes the directory and waits until the object and all its children are released.
    ///
    /// Must not be called under a lock that an attribute of one of them takes.
    pub fn remove_and_wait(self) {
        pin_init::stack_pin_init!(let done = Completion::new());
        let waiter = core::ptr::from_ref::<Completion>(&done).cast_mut();
        // SAFETY: By the type invariant the object is valid. Pairs with the acquire in
        // `Tables::release()`.
        unsafe { self.0.as_ref() }.waiter.store(waiter, Release);
        drop(self);
        done.wait_for_completion();
    }
}

// SAFETY: By the type invariant.
unsafe impl<T: Kobject> Parent for Dir<T> {
    #[inline]
    fn as_raw(&self) -> *mut bindings::kobject {
        // SAFETY: By the type invariant the object is valid.
        unsafe { self.0.as_ref() }.kobj.get()
    }
}

/// A counted reference to a kernel object.
///
/// # Invariants
///
/// The pointer is to an object of which `self` owns one reference.
pub struct Reference(*mut bindings::kobject);

// SAFETY: By the type invariant.
unsafe impl Parent for Reference {
    #[inline]
    fn as_raw(&self) -> *mut bindings::kobject {
        self.0
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // SAFETY: By the type invariant there is a reference to give back.
        unsafe { bindings::kobject_put(self.0) };
    }
}

impl<T: Kobject> Deref for Dir<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: By the type invariant the object is valid, and its data never changes hands.
        unsafe { &self.0.as_ref().data }
    }
}

impl<T: Kobject> Drop for Dir<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant there is a reference to give back.
        unsafe { bindings::kobject_put(self.as_raw()) };
    }
}
