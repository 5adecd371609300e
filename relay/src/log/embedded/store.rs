//! The table of frames: writing a group, reading a range, dropping what was truncated. Blocks; no order of its own.

use std::fs::File;
use std::io::{self, ErrorKind};

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};
use redb::{Database, Durability, Error, ReadableDatabase, ReadableTable, TableDefinition};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::line::Waiting;
use super::open::{OpenError, Opened, Reopen};
use crate::log::{LogError, LogId, Position, ReadError, RecordId, StoredFrame};

/// Position to frame, as `encode` lays it out.
pub(super) const FRAMES: TableDefinition<u64, &[u8]> = TableDefinition::new("frames");

/// Checksum, log id, session, counter.
const HEADER_BYTES: usize = 8 + 16 + 8 + 8;
/// A batch ends with the frame that reaches one of these.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_FRAMES: usize = 1_024;

/// The frames at both ends of the log; both are `None` or neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) first: Option<Position>,
    pub(super) tail: Option<Position>,
}

/// Why a write did not happen, or may not have.
#[derive(Debug)]
pub(super) enum StoreError {
    /// There is no room. The database must be reopened before it is used again.
    Full,
    /// Anything else.
    Failed(String),
}

impl<E: Into<Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        match error.into() {
            Error::Io(error) if is_full(&error) => Self::Full,
            error => Self::Failed(error.to_string()),
        }
    }
}

impl From<StoreError> for LogError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::StoreFull,
            StoreError::Failed(why) => Self::Failed(why),
        }
    }
}

/// Whether the operating system has said that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// The open file. `None` after closing.
pub(super) struct Store {
    log_id: LogId,
    quick_repair: bool,
    reopen: Reopen,
    open: RwLock<Option<(Database, File)>>,
}

impl Store {
    pub(super) fn new(opened: Opened, quick_repair: bool) -> Result<(Self, Ends), OpenError> {
        let Opened { path, log_id, database, lock, reopen } = opened;
        let ends = ends_of(&database).map_err(|error| OpenError::from_redb(&path, error))?;
        let store = Self { log_id, quick_repair, reopen, open: RwLock::new(Some((database, lock))) };
        Ok((store, ends))
    }

    pub(super) fn log_id(&self) -> LogId {
        self.log_id
    }

    /// Room on the disk for whoever is not its administrator; `None` if the kernel does not tell.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        let open = self.open.read();
        let (_, file) = open.as_ref()?;
        let disk = rustix::fs::fstatvfs(file).ok()?;
        disk.f_bavail.checked_mul(disk.f_frsize)
    }

    /// The switches that make writing fail.
    #[cfg(test)]
    pub(super) fn faults(&self) -> &super::file::Faults {
        &self.reopen.faults
    }

    /// Stores a group from `first` on, durably, all or nothing.
    pub(super) fn write(&self, first: Position, group: &[Waiting]) -> Result<(), StoreError> {
        self.change(|frames| {
            for (position, waiting) in (first.0..).zip(group) {
                let mut slot = frames.insert_reserve(position, HEADER_BYTES + waiting.frame.len())?;
                encode(slot.as_mut(), self.log_id, position, waiting);
            }
            Ok(())
        })
    }

    /// Drops the frames below `upto`, durably. The caller keeps the range short: commits wait meanwhile.
    pub(super) fn drop_below(&self, upto: Position) -> Result<(), StoreError> {
        self.change(|frames| Ok(frames.retain_in(..upto.0, |_, _| false)?))
    }

    fn change(
        &self,
        change: impl FnOnce(&mut redb::Table<'_, u64, &'static [u8]>) -> Result<(), Error>,
    ) -> Result<(), StoreError> {
        let open = self.open.read();
        let (database, _) = open.as_ref().ok_or(Error::DatabaseClosed)?;
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_quick_repair(self.quick_repair);
        change(&mut transaction.open_table(FRAMES)?)?;
        Ok(transaction.commit()?)
    }

    /// The frames from `from` to `upto`, as many as make a batch, without a gap and each found to be whole.
    pub(super) fn read(&self, from: Position, upto: Position) -> Result<Vec<StoredFrame>, ReadError> {
        let open = self.reading()?;
        let mut frames: Vec<StoredFrame> = Vec::new();
        let mut bytes = 0;
        let failed = |error: Error| unreadable(from, error);
        let table = frames_of(open.as_ref()).map_err(failed)?;
        for entry in table.range(from.0..=upto.0).map_err(|error| failed(error.into()))? {
            let (position, value) = entry.map_err(|error| failed(error.into()))?;
            let wanted = Position(from.0 + frames.len() as u64);
            if position.value() != wanted.0 {
                return Err(damaged(wanted, "the frame is missing"));
            }
            let frame = decode(value.value(), self.log_id, wanted)?;
            bytes += frame.frame.len();
            frames.push(frame);
            if bytes >= BATCH_BYTES || frames.len() >= BATCH_FRAMES {
                break;
            }
        }
        if frames.is_empty() {
            return Err(damaged(from, "the frame is missing"));
        }
        Ok(frames)
    }

    /// The frame at `position`, if it is here.
    pub(super) fn frame_at(&self, position: Position) -> Result<Option<StoredFrame>, ReadError> {
        let open = self.reading()?;
        let failed = |error: Error| unreadable(position, error);
        let value = frames_of(open.as_ref())
            .map_err(failed)?
            .get(position.0)
            .map_err(|error| failed(error.into()))?;
        value.map(|value| decode(value.value(), self.log_id, position)).transpose()
    }

    /// Opens the file once more and says what is in it: redb refuses everything after a failed write.
    pub(super) fn reopen(&self) -> Result<Ends, StoreError> {
        let mut open = self.open.write();
        let (database, lock) = open.take().ok_or(Error::DatabaseClosed)?;
        drop(database);
        let database = self.reopen.open()?;
        let ends = ends_of(&database)?;
        *open = Some((database, lock));
        Ok(ends)
    }

    /// Closes the file and lets others have the directory.
    pub(super) fn close(&self) {
        if let Some((database, lock)) = self.open.write().take() {
            drop(database);
            drop(lock);
        }
    }

    fn reading(&self) -> Result<RwLockReadGuard<'_, Option<(Database, File)>>, ReadError> {
        let open = self.open.read();
        if open.is_none() { Err(ReadError::Closed) } else { Ok(open) }
    }
}

fn frames_of(open: Option<&(Database, File)>) -> Result<redb::ReadOnlyTable<u64, &'static [u8]>, Error> {
    let (database, _) = open.ok_or(Error::DatabaseClosed)?;
    Ok(database.begin_read()?.open_table(FRAMES)?)
}

fn ends_of(database: &Database) -> Result<Ends, Error> {
    let frames = database.begin_read()?.open_table(FRAMES)?;
    let first = frames.first()?.map(|(position, _)| Position(position.value()));
    let tail = frames.last()?.map(|(position, _)| Position(position.value()));
    Ok(Ends { first, tail })
}

fn unreadable(position: Position, error: Error) -> ReadError {
    match error {
        Error::DatabaseClosed => ReadError::Closed,
        Error::Corrupted(detail) => ReadError::Damaged { position, detail },
        other => ReadError::Failed(other.to_string()),
    }
}

fn damaged(position: Position, detail: &str) -> ReadError {
    ReadError::Damaged { position, detail: detail.to_owned() }
}

/// The checksum covers the position too, so that a frame cannot turn up in another's place.
fn encode(slot: &mut [u8], log_id: LogId, position: u64, waiting: &Waiting) {
    slot[8..24].copy_from_slice(&log_id.0.to_le_bytes());
    slot[24..32].copy_from_slice(&waiting.record_id.session.to_le_bytes());
    slot[32..40].copy_from_slice(&waiting.record_id.counter.to_le_bytes());
    slot[HEADER_BYTES..].copy_from_slice(&waiting.frame);
    let checksum = xxh3_64_with_seed(&slot[8..], position);
    slot[..8].copy_from_slice(&checksum.to_le_bytes());
}

fn decode(stored: &[u8], log_id: LogId, position: Position) -> Result<StoredFrame, ReadError> {
    let too_short = || damaged(position, "the frame is cut short");
    let (checksum, rest) = stored.split_first_chunk().ok_or_else(too_short)?;
    if u64::from_le_bytes(*checksum) != xxh3_64_with_seed(rest, position.0) {
        return Err(damaged(position, "the checksum does not match"));
    }
    let (found, rest) = rest.split_first_chunk().ok_or_else(too_short)?;
    if LogId(u128::from_le_bytes(*found)) != log_id {
        return Err(damaged(position, "the frame belongs to another log"));
    }
    let (session, rest) = rest.split_first_chunk().ok_or_else(too_short)?;
    let (counter, frame) = rest.split_first_chunk().ok_or_else(too_short)?;
    let record_id = RecordId { session: u64::from_le_bytes(*session), counter: u64::from_le_bytes(*counter) };
    Ok(StoredFrame { position, record_id, frame: Bytes::copy_from_slice(frame) })
}
