//! The file below redb, with an upper bound for its size. In tests it can also be told to fail.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

/// Switches for tests; they outlive the reopening of the file.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Every write answers with an I/O error.
    pub(super) writes_fail: AtomicBool,
    /// The next write answers that the disk is full.
    pub(super) disk_full: AtomicBool,
}

/// redb's own file access, plus the bound.
#[derive(Debug)]
pub(super) struct BoundedFile {
    file: FileBackend,
    max_bytes: Option<u64>,
    faults: Arc<Faults>,
}

impl BoundedFile {
    pub(super) fn new(
        file: File,
        max_bytes: Option<u64>,
        faults: Arc<Faults>,
    ) -> Result<Self, DatabaseError> {
        Ok(Self { file: FileBackend::new(file)?, max_bytes, faults })
    }

    fn injected_fault(&self) -> io::Result<()> {
        if self.faults.writes_fail.load(Ordering::Relaxed) {
            return Err(io::Error::other("injected I/O error"));
        }
        if self.faults.disk_full.swap(false, Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl StorageBackend for BoundedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.max_bytes.is_some_and(|max| len > max) && len > self.file.len()? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.injected_fault()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
