// SPDX-License-Identifier: GPL-2.0

//! Files that are read record by record.
//!
//! C header: [`include/linux/seq_file.h`](srctree/include/linux/seq_file.h)

use super::file_ops::FileOps;
use crate::{
    bindings,
    error::to_result,
    ffi::{
        c_char,
        c_int,
        c_void, //
    },
    module::this_module,
    prelude::*,
    seq_file::SeqFile,
    uaccess::{
        UserPtr,
        UserSlice, //
    },
    ModuleMetadata, //
};
use core::marker::PhantomData;

/// What can be shown as a sequence of records, however long.
///
/// Nothing is kept of it but the record at hand, and nothing is held between two of them: the file
/// shows each record as it is when it is read.
///
/// All methods run in process context and may sleep.
pub trait Records {
    /// What a reader has: the record at hand.
    type Cursor: Send;

    /// Prepares for a reader, who has opened the file.
    ///
    /// # Errors
    ///
    /// Are the reader's.
    fn open(&self) -> Result<KBox<Self::Cursor>>;

    /// Goes to the first record whose position is `pos` or more, and returns its position, which
    /// must be neither negative nor [`i64::MAX`]. The first one asked for is 0; a record may be
    /// asked for again. [`None`] means that there are no more.
    ///
    /// # Errors
    ///
    /// Are the reader's.
    fn seek(&self, cursor: &mut Self::Cursor, pos: i64) -> Result<Option<i64>>;

    /// Shows the record that [`Self::seek`] has gone to.
    fn show(&self, cursor: &Self::Cursor, out: &SeqFile);
}

/// [`Records`] about what was written to the file.
pub trait WritableRecords: Records {
    /// Takes `data`, the next part of what is written.
    ///
    /// # Errors
    ///
    /// Are the writer's.
    fn write(&self, cursor: &mut Self::Cursor, data: &[u8]) -> Result;

    /// The file is closed by who has opened it.
    fn close(cursor: KBox<Self::Cursor>);
}

/// How many bytes are taken at a time, at most.
const MAX_WRITE: usize = 1 << 16;

/// Someone who has opened the file.
struct Reader<T: Records> {
    data: *const T,
    cursor: KBox<T::Cursor>,
}

/// The C tables of `T`.
struct Tables<T>(PhantomData<T>);

impl<T: Records> Tables<T> {
    const OPS: bindings::seq_operations = bindings::seq_operations {
        start: Some(Self::start),
        stop: Some(Self::stop),
        next: Some(Self::next),
        show: Some(Self::show),
    };

    /// # Safety
    ///
    /// `inode` must be that of a file with a `T`, and `file` about to be opened.
    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: By the caller's promise.
        let data = unsafe { (*inode).i_private }.cast::<T>().cast_const();
        // SAFETY: DebugFS calls this only while the file, and so the data, is there.
        let reader = unsafe { &*data }
            .open()
            .and_then(|cursor| Ok(KBox::new(Reader::<T> { data, cursor }, GFP_KERNEL)?));
        let reader = match reader {
            Ok(reader) => reader,
            Err(err) => return err.to_errno(),
        };
        // SAFETY: The file has no private data yet; the table is constant.
        if let Err(err) = to_result(unsafe { bindings::seq_open(file, &Self::OPS) }) {
            return err.to_errno();
        }
        // SAFETY: `seq_open()` has made the private data a `seq_file`, which nobody else knows yet.
        unsafe {
            (*(*file).private_data.cast::<bindings::seq_file>()).private =
                KBox::into_raw(reader).cast();
        }
        0
    }

    /// # Safety
    ///
    /// `file` must have been opened by [`Self::open`], and be used no more.
    unsafe extern "C" fn release(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: By the caller's promise.
        let reader = unsafe { (*(*file).private_data.cast::<bindings::seq_file>()).private };
        // SAFETY: `open()` has made it of a box. What it says of the data, which may be gone, is
        // not followed.
        drop(unsafe { KBox::from_raw(reader.cast::<Reader<T>>()) });
        // SAFETY: Opened by `seq_open()`.
        unsafe { bindings::seq_release(inode, file) }
    }

    /// # Safety
    ///
    /// `seq` must be of a file opened by [`Self::open`], be used by nobody else meanwhile, and have
    /// its data.
    unsafe fn go(seq: *mut bindings::seq_file, pos: &mut i64) -> *mut c_void {
        // SAFETY: By the caller's promise.
        let reader = unsafe { &mut *(*seq).private.cast::<Reader<T>>() };
        // SAFETY: As above.
        match unsafe { &*reader.data }.seek(&mut reader.cursor, *pos) {
            Ok(Some(at)) => {
                *pos = at;
                core::ptr::from_mut(reader).cast()
            }
            Ok(None) => core::ptr::null_mut(),
            Err(err) => err.to_ptr(),
        }
    }

    /// # Safety
    ///
    /// As for [`Self::go`]; `pos` must be valid.
    unsafe extern "C" fn start(
        seq: *mut bindings::seq_file,
        pos: *mut bindings::loff_t,
    ) -> *mut c_void {
        // SAFETY: By the caller's promise.
        unsafe { Self::go(seq, &mut *pos) }
    }

    /// # Safety
    ///
    /// As for [`Self::start`].
    unsafe extern "C" fn next(
        seq: *mut bindings::seq_file,
        _: *mut c_void,
        pos: *mut bindings::loff_t,
    ) -> *mut c_void {
        // SAFETY: By the caller's promise.
        let pos = unsafe { &mut *pos };
        *pos = pos.saturating_add(1);
        // SAFETY: By the caller's promise.
        unsafe { Self::go(seq, pos) }
    }

    extern "C" fn stop(_: *mut bindings::seq_file, _: *mut c_void) {}

    /// # Safety
    ///
    /// As for [`Self::go`], which must have gone to a record.
    unsafe extern "C" fn show(seq: *mut bindings::seq_file, _: *mut c_void) -> c_int {
        // SAFETY: By the caller's promise.
        let reader = unsafe { &*(*seq).private.cast::<Reader<T>>() };
        // SAFETY: As above.
        unsafe { (*reader.data).show(&reader.cursor, SeqFile::from_raw(seq)) };
        0
    }
}

impl<T: WritableRecords> Tables<T> {
    /// # Safety
    ///
    /// `file` must have been opened by [`Self::open`], and have its data; `buf` be from user space.
    unsafe extern "C" fn write(
        file: *mut bindings::file,
        buf: *const c_char,
        count: usize,
        _: *mut bindings::loff_t,
    ) -> isize {
        let count = count.min(MAX_WRITE);
        let mut data = KVVec::new();
        let read = UserSlice::new(UserPtr::from_ptr(buf.cast_mut().cast()), count)
            .read_all(&mut data, GFP_KERNEL);
        if let Err(err) = read {
            return err.to_errno() as isize;
        }
        // SAFETY: By the caller's promise.
        let seq = unsafe { (*file).private_data.cast::<bindings::seq_file>() };
        // SAFETY: As above. Keeps out who reads, as `seq_read()` does.
        unsafe { bindings::mutex_lock(&raw mut (*seq).lock) };
        // SAFETY: As above; nobody else uses the reader while the lock is held.
        let reader = unsafe { &mut *(*seq).private.cast::<Reader<T>>() };
        // SAFETY: As above.
        let result = unsafe { &*reader.data }.write(&mut reader.cursor, &data);
        // SAFETY: Locked above.
        unsafe { bindings::mutex_unlock(&raw mut (*seq).lock) };
        match result {
            Ok(()) => count as isize,
            Err(err) => err.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// As for [`Self::release`].
    unsafe extern "C" fn close(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: By the caller's promise.
        let reader = unsafe { (*(*file).private_data.cast::<bindings::seq_file>()).private };
        // SAFETY: As in `release()`.
        T::close(unsafe { KBox::into_inner(KBox::from_raw(reader.cast::<Reader<T>>())) }.cursor);
        // SAFETY: Opened by `seq_open()`.
        unsafe { bindings::seq_release(inode, file) }
    }
}

// As the others in `file_ops`.
pub(super) trait WritableRecordsFile<T, M> {
    const FILE_OPS: FileOps<T>;
}

impl<T: WritableRecords + Sync, M: ModuleMetadata> WritableRecordsFile<T, M> for T {
    const FILE_OPS: FileOps<T> = {
        let operations = bindings::file_operations {
            owner: this_module::<M>().as_ptr(),
            read: Some(bindings::seq_read),
            write: Some(Tables::<T>::write),
            llseek: Some(bindings::seq_lseek),
            open: Some(Tables::<T>::open),
            release: Some(Tables::<T>::close),
            ..pin_init::zeroed()
        };
        // SAFETY: As for `RecordsFile`; writing takes the lock under which `seq_file` calls the
        // operations of `Tables`.
        unsafe { FileOps::new(operations, 0o600) }
    };
}

// As the others in `file_ops`.
pub(super) trait RecordsFile<T, M> {
    const FILE_OPS: FileOps<T>;
}

impl<T: Records + Sync, M: ModuleMetadata> RecordsFile<T, M> for T {
    const FILE_OPS: FileOps<T> = {
        let operations = bindings::file_operations {
            owner: this_module::<M>().as_ptr(),
            read: Some(bindings::seq_read),
            llseek: Some(bindings::seq_lseek),
            open: Some(Tables::<T>::open),
            release: Some(Tables::<T>::release),
            ..pin_init::zeroed()
        };
        // SAFETY: Reading and seeking are those of `seq_file`, which calls the operations of
        // `Tables` for one reader at a time; DebugFS lets it only as long as the data is there.
        // Opening wants no more than that the inode has a `T`, and closing does not use it.
        unsafe { FileOps::new(operations, 0o400) }
    };
}
