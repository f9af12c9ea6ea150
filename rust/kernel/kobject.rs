// SPDX-License-Identifier: GPL-2.0

//! Kernel objects with attributes in sysfs.
//!
//! What is shown of a device belongs to its `struct device`, and what is for debugging into
//! [`debugfs`](crate::debugfs). This is for interfaces that belong to no device, as those below
//! `/sys/kernel`.
//!
//! A type that implements [`Kobject`] says which files it shows; a [`Root`] is one such object, a
//! directory in sysfs, and a [`Dir`] one below it.
//!
//! Others may hold references to an object, and `CONFIG_DEBUG_KOBJECT_RELEASE` delays its release
//! by seconds on purpose. So the directory goes when the owner drops the object, and the memory
//! later. To drop a [`Root`] waits for both, for itself and for all objects below it: then the
//! module can go.
//!
//! C headers: [`include/linux/kobject.h`](srctree/include/linux/kobject.h),
//! [`include/linux/sysfs.h`](srctree/include/linux/sysfs.h)
//!
//! # Examples
//!
//! ```
//! use kernel::{
//!     fmt::Write as _,
//!     kobject::{Attribute, Dir, Kobject, Root, KERNEL},
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
//! let root = Root::new(&KERNEL, c"rust_doctest_kobject", Answer(42))?;
//! assert_eq!(root.0, 42);
//! let dir = Dir::new(&root, c"question", Answer(6 * 9))?;
//! drop(dir);
//! assert!(Dir::new(&root, c"question", Answer(0)).is_ok());
//! drop(root);
//! assert!(Root::new(&KERNEL, c"rust_doctest_kobject", Answer(43)).is_ok());
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
    mem::ManuallyDrop,
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
/// the removal of its directory waits for the call to end.
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
        release: Some(release),
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
}

/// What is the same for objects of any type, so that the last steps of an object's end can be code
/// of the kernel itself: who waits for it may be the exit function of the module with the others.
#[repr(C)]
struct Header {
    kobj: Opaque<bindings::kobject>,
    /// The parent, with a reference to it, or NULL. `kobject_del()` gives back that of `kobj`, but
    /// who waits for the parent waits for this object, too.
    parent: *mut bindings::kobject,
    /// Drops and frees the whole object.
    free: unsafe fn(*mut Header),
    /// Whom to tell about the release, or NULL.
    waiter: Atomic<*mut Completion>,
}

#[repr(C)]
struct Inner<T> {
    header: Header,
    data: T,
}

impl<T> Inner<T> {
    /// # Safety
    ///
    /// `kobj` must be the field of an `Inner<T>`.
    unsafe fn from_kobj(kobj: *mut bindings::kobject) -> *mut Self {
        // `header` is the first field, `kobj` its first one, and `Opaque` is transparent.
        kobj.cast()
    }

    /// # Safety
    ///
    /// `header` must be the field of an `Inner<T>` made from a box, which nobody uses any more.
    unsafe fn free(header: *mut Header) {
        // SAFETY: `header` is the first field, the rest is what the caller promises.
        drop(unsafe { KBox::from_raw(header.cast::<Self>()) });
    }
}

/// The end of an object. Not generic, and so in vmlinux: the module may be gone once its waiter has
/// been told, or its parent's.
///
/// # Safety
///
/// Called by the C core for an object of this file that has lost its last reference.
#[inline(never)]
unsafe extern "C" fn release(kobj: *mut bindings::kobject) {
    // `kobj` is the first field, and `Opaque` is transparent.
    let header = kobj.cast::<Header>();
    // SAFETY: The object is one of ours, and still all there.
    let (parent, free, waiter) = unsafe {
        // Pairs with the release in `Root::drop()`.
        let waiter = (*header).waiter.load(Acquire);
        ((*header).parent, (*header).free, waiter)
    };
    // SAFETY: The function is that of the object's type, and the object has no user any more.
    unsafe { free(header) };
    // SAFETY: `Object::add()` took the reference; NULL does nothing.
    unsafe { bindings::kobject_put(parent) };
    if !waiter.is_null() {
        // SAFETY: Who waits keeps the completion alive until it is completed.
        unsafe { (*waiter).complete_all() };
    }
}

/// A place for a [`Root`], in the directories of the kernel itself.
///
/// # Safety
///
/// What [`Place::as_raw`] returns must be valid for ever.
pub unsafe trait Place {
    /// Returns the C object.
    fn as_raw(&self) -> *mut bindings::kobject;
}

/// `/sys/kernel`.
pub struct KernelDir(());

/// `/sys/kernel`.
pub static KERNEL: KernelDir = KernelDir(());

// SAFETY: Never freed.
unsafe impl Place for KernelDir {
    #[inline]
    fn as_raw(&self) -> *mut bindings::kobject {
        // SAFETY: Set early at boot, then constant.
        unsafe { bindings::kernel_kobj }
    }
}

/// Something that a [`Dir`] can be created in.
///
/// # Safety
///
/// What [`Parent::as_raw`] returns must be valid for as long as `self`, and be a [`Root`] of the
/// same module or be released before one.
pub unsafe trait Parent {
    /// Returns the C object.
    fn as_raw(&self) -> *mut bindings::kobject;
}

/// An object that is not, or not yet, in sysfs.
///
/// # Invariants
///
/// The pointer is to an object made by [`Object::new`], of which `self` owns one reference.
struct Object<T: Kobject>(NonNull<Inner<T>>);

// SAFETY: Kernel objects are counted atomically, and `T` is `Send` and `Sync`.
unsafe impl<T: Kobject> Send for Object<T> {}
// SAFETY: All that can be done with a shared reference is to read `T`, which is `Sync`, and to take
// counted references.
unsafe impl<T: Kobject> Sync for Object<T> {}

impl<T: Kobject> Object<T> {
    fn new(data: T) -> Result<Self> {
        let inner = KBox::new(
            Inner {
                header: Header {
                    kobj: Opaque::new(bindings::kobject::default()),
                    parent: core::ptr::null_mut(),
                    free: Inner::<T>::free,
                    waiter: Atomic::new(core::ptr::null_mut()),
                },
                data,
            },
            GFP_KERNEL,
        )?;
        // INVARIANT: `kobject_init()` sets the count to one.
        let this = Self(NonNull::from(KBox::leak(inner)));
        // SAFETY: The object is zeroed and valid, its type is a constant.
        unsafe { bindings::kobject_init(this.as_raw(), &Tables::<T>::TYPE) };
        Ok(this)
    }

    /// Creates the directory of a new object in that of `parent`.
    ///
    /// # Safety
    ///
    /// `parent` must be valid. Must be called no more than once.
    unsafe fn add(&self, parent: *mut bindings::kobject, name: &CStr) -> Result {
        // SAFETY: The parent is valid, and nobody else knows of the object yet.
        unsafe {
            bindings::kobject_get(parent);
            (*self.0.as_ptr()).header.parent = parent;
        }
        // SAFETY: The object is initialised, the parent valid, and the name NUL-terminated.
        to_result(unsafe {
            bindings::kobject_add(
                self.as_raw(),
                parent,
                c"%s".as_char_ptr(),
                name.as_char_ptr(),
            )
        })
    }

    /// Removes the directory, and waits for who is in a function of one of its files.
    ///
    /// # Safety
    ///
    /// [`Object::add`] must have succeeded.
    unsafe fn remove(&self) {
        // SAFETY: By the caller's promise the object is in sysfs, or was until an object above it
        // was removed.
        unsafe { bindings::kobject_del(self.as_raw()) };
    }

    /// Waits until the object, and all that are below it, are released.
    fn wait(self) {
        pin_init::stack_pin_init!(let done = Completion::new());
        let waiter = core::ptr::from_ref::<Completion>(&done).cast_mut();
        // SAFETY: By the type invariant the object is valid.
        let header = unsafe { &self.0.as_ref().header };
        // Pairs with the acquire in `release()`.
        header.waiter.store(waiter, Release);
        drop(self);
        done.wait_for_completion();
    }

    #[inline]
    fn as_raw(&self) -> *mut bindings::kobject {
        // SAFETY: By the type invariant the object is valid.
        unsafe { self.0.as_ref() }.header.kobj.get()
    }

    #[inline]
    fn data(&self) -> &T {
        // SAFETY: By the type invariant the object is valid, and its data never changes hands.
        unsafe { &self.0.as_ref().data }
    }
}

impl<T: Kobject> Drop for Object<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant there is a reference to give back.
        unsafe { bindings::kobject_put(self.as_raw()) };
    }
}

/// A module's own [`Kobject`] in a directory of the kernel.
///
/// When it is dropped, its directory is removed with all that is in it, and it waits until the
/// object and all below it are released: no code of the module is called for them any more. A
/// [`Dir`] or a [`Reference`] that is dropped later, by the same thread, means to wait for ever. So
/// does a lock that is held and that an attribute of one of them takes.
///
/// A module has to drop it before it goes away.
///
/// # Invariants
///
/// The object is in sysfs.
pub struct Root<T: Kobject>(ManuallyDrop<Object<T>>);

impl<T: Kobject> Root<T> {
    /// Creates the directory `name` in `place`.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`], [`EEXIST`] when the name is taken, [`EINVAL`] when it is empty.
    ///
    /// May sleep.
    pub fn new(place: &dyn Place, name: &CStr, data: T) -> Result<Self> {
        let object = Object::new(data)?;
        // SAFETY: The place is valid, and the object new.
        if let Err(err) = unsafe { object.add(place.as_raw(), name) } {
            object.wait();
            return Err(err);
        }
        // INVARIANT: Just added.
        Ok(Self(ManuallyDrop::new(object)))
    }

    /// Returns a counted reference to the object, to create others in it.
    pub fn reference(&self) -> Reference {
        // SAFETY: By the type invariant of `Object` it is valid.
        unsafe { bindings::kobject_get(self.0.as_raw()) };
        // INVARIANT: The reference was just taken, and the root waits until it is given back.
        Reference(self.0.as_raw())
    }
}

// SAFETY: Valid by the type invariant of `Object`, and itself a root.
unsafe impl<T: Kobject> Parent for Root<T> {
    #[inline]
    fn as_raw(&self) -> *mut bindings::kobject {
        self.0.as_raw()
    }
}

impl<T: Kobject> Deref for Root<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.data()
    }
}

impl<T: Kobject> Drop for Root<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the object was added.
        unsafe { self.0.remove() };
        // SAFETY: `self.0` is not used again.
        unsafe { ManuallyDrop::take(&mut self.0) }.wait();
    }
}

/// A [`Kobject`] below a [`Root`].
///
/// When it is dropped, its directory is removed with all that is in it, and it waits for those who
/// are in a function of its files: no lock may be held that one of them takes. The object itself
/// lives on until the last reference to it is gone: those below it hold one.
///
/// # Invariants
///
/// The object is in sysfs, or was until one above it was removed.
pub struct Dir<T: Kobject>(Object<T>);

impl<T: Kobject> Dir<T> {
    /// Creates the directory `name` in `parent`.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`], [`EEXIST`] when the name is taken, [`EINVAL`] when it is empty, [`ENOENT`] when
    /// the parent has been removed.
    ///
    /// May sleep.
    pub fn new(parent: &dyn Parent, name: &CStr, data: T) -> Result<Self> {
        let object = Object::new(data)?;
        // SAFETY: By the promise of the trait the parent is valid, and the object is new.
        unsafe { object.add(parent.as_raw(), name) }?;
        // INVARIANT: Just added.
        Ok(Self(object))
    }
}

impl<T: Kobject> Dir<T> {
    /// Wakes those who wait for a change of the file `name` with `poll()`. They get `POLLPRI` and
    /// `POLLERR` until they read the file.
    ///
    /// Mirrors `sysfs_notify()`. May sleep.
    #[inline]
    pub fn notify(&self, name: &CStr) {
        // SAFETY: By the type invariants the object is valid and is, or was, in sysfs.
        unsafe {
            bindings::sysfs_notify(self.0.as_raw(), core::ptr::null(), name.as_char_ptr());
        }
    }
}

// SAFETY: Valid by the type invariant of `Object`. It holds a reference to its parent until it is
// released, and by the promise of the trait that is a root, or is released before one.
unsafe impl<T: Kobject> Parent for Dir<T> {
    #[inline]
    fn as_raw(&self) -> *mut bindings::kobject {
        self.0.as_raw()
    }
}

impl<T: Kobject> Deref for Dir<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.data()
    }
}

impl<T: Kobject> Drop for Dir<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the object was added.
        unsafe { self.0.remove() };
    }
}

/// A counted reference to the object of a [`Root`].
///
/// # Invariants
///
/// The pointer is to an object of which `self` owns one reference, and whose [`Root`] has not been
/// dropped or waits for it.
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
