//! Snapshots: one file each, written under a temporary name and renamed when it is whole and durable.
//!
//! A file is a header that names the snapshot and the log, then chunks, then a closing entry that counts them.
//! Each part carries a checksum that depends on the header and on its place, so a chunk that is given out is the
//! chunk that was put, and a body that ends early is noticed.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::open::sync_dir;
use super::store::is_full;
use crate::log::{LogError, LogId, Position, ReadError, RecordId, SnapshotBody, SnapshotId, SnapshotInfo};

const MAGIC: &[u8; 16] = b"dormouse-snap-01";
/// What every format of it begins with; the format follows.
const NAME: &[u8] = b"dormouse-snap-";
const HEADER_BYTES: usize = 16 + 16 + 8 + 8 + 8 + 8 + 8;
/// Larger chunks are split, so that a reader needs no more memory than this.
const CHUNK_BYTES: usize = 1 << 20;
const BUFFER_BYTES: usize = 1 << 18;
const UNFINISHED_NAME: &str = "snapshot.unfinished";
const EXTENSION: &str = ".dormouse";

/// The snapshots in a data directory.
pub(super) struct Snapshots {
    dir: PathBuf,
    log_id: LogId,
    /// One snapshot is written at a time, because they share the temporary name.
    writing: Mutex<()>,
    closing: AtomicBool,
}

impl Snapshots {
    /// Removes what a crash has left unfinished.
    pub(super) fn open(dir: &Path, log_id: LogId) -> io::Result<Self> {
        match fs::remove_file(dir.join(UNFINISHED_NAME)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(Self {
                dir: dir.to_owned(),
                log_id,
                writing: Mutex::new(()),
                closing: AtomicBool::new(false),
            }),
        }
    }

    /// Gives up the snapshot that is being written and returns when nobody writes here any more.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        drop(self.writing.lock());
    }

    /// Stores a snapshot and drops the ones that it makes superfluous, as `held` decides.
    pub(super) fn put(
        &self,
        id: SnapshotId,
        body: SnapshotBody,
        held: impl Fn(SnapshotId) -> Result<bool, ReadError>,
    ) -> Result<(), LogError> {
        let _writing = self.writing.lock();
        self.refuse_if_closing()?;
        let unfinished = self.dir.join(UNFINISHED_NAME);
        let written = self.write(&unfinished, id, body).and_then(|()| {
            fs::rename(&unfinished, self.dir.join(file_name(id))).map_err(failed)?;
            sync_dir(&self.dir).map_err(failed)
        });
        if written.is_err() {
            // It is swept at the next opening if it cannot be removed now.
            let _ = fs::remove_file(&unfinished);
            return written;
        }
        self.keep_two(id, held)
    }

    fn refuse_if_closing(&self) -> Result<(), LogError> {
        if self.closing.load(Ordering::Acquire) { Err(LogError::Closed) } else { Ok(()) }
    }

    /// Of the others the newest whose frame the log still holds stays: one of a lost tail is no fallback.
    fn keep_two(
        &self,
        new: SnapshotId,
        held: impl Fn(SnapshotId) -> Result<bool, ReadError>,
    ) -> Result<(), LogError> {
        let mut kept = 1;
        for other in self.list()? {
            if other.id == new {
                continue;
            }
            if kept < 2 && held(other.id)? {
                kept += 1;
            } else {
                fs::remove_file(self.dir.join(file_name(other.id))).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn write(&self, path: &Path, id: SnapshotId, body: SnapshotBody) -> Result<(), LogError> {
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, File::create(path).map_err(failed)?);
        let (header, seed) = header(self.log_id, id);
        file.write_all(&header).map_err(failed)?;
        let (mut chunks, mut bytes) = (0_u64, 0_u64);
        for chunk in body {
            self.refuse_if_closing()?;
            let mut rest = chunk.map_err(|error| LogError::SnapshotAbandoned(error.to_string()))?;
            while !rest.is_empty() {
                let chunk = rest.split_to(rest.len().min(CHUNK_BYTES));
                write_entry(&mut file, seed.wrapping_add(chunks), &chunk).map_err(failed)?;
                chunks += 1;
                bytes += chunk.len() as u64;
            }
        }
        let end = closing_entry(chunks, bytes);
        file.write_all(&0_u32.to_le_bytes()).map_err(failed)?;
        file.write_all(&end).map_err(failed)?;
        file.write_all(&xxh3_64_with_seed(&end, seed).to_le_bytes()).map_err(failed)?;
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)
    }

    /// What is stored, newest first. The names of the files say it, so nothing is read.
    pub(super) fn list(&self) -> Result<Vec<SnapshotInfo>, LogError> {
        let mut snapshots = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if let Some(id) = entry.file_name().to_str().and_then(parse_name) {
                let stored_bytes = entry.metadata().map_err(failed)?.len();
                snapshots.push(SnapshotInfo { id, stored_bytes });
            }
        }
        // The record id and the checksum only make the order definite.
        snapshots.sort_by_key(|it| std::cmp::Reverse((it.id.position, it.id.record_id, it.id.crc)));
        Ok(snapshots)
    }

    pub(super) fn load(&self, id: SnapshotId) -> Result<SnapshotFile, LogError> {
        let file = match File::open(self.dir.join(file_name(id))) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(LogError::SnapshotNotFound(id)),
            other => other.map_err(failed)?,
        };
        let (expected, seed) = header(self.log_id, id);
        let file = BufReader::with_capacity(BUFFER_BYTES, file);
        let mut opened = SnapshotFile { file, id, seed, chunks: 0, bytes: 0, complete: false };
        let header = opened.read::<HEADER_BYTES>()?;
        if header == expected {
            Ok(opened)
        } else if header.starts_with(NAME) && !header.starts_with(MAGIC) {
            let format = String::from_utf8_lossy(&header[NAME.len()..MAGIC.len()]);
            Err(opened.damaged(&format!(
                "it has format {format}, and this release reads format 01: a newer relay wrote it"
            )))
        } else {
            Err(opened.damaged("its header is that of another snapshot or log"))
        }
    }
}

/// A snapshot that is being read.
pub(super) struct SnapshotFile {
    file: BufReader<File>,
    id: SnapshotId,
    seed: u64,
    chunks: u64,
    bytes: u64,
    complete: bool,
}

impl SnapshotFile {
    /// The next chunk, checked, or `None` when the body was complete.
    pub(super) fn next_chunk(&mut self) -> Result<Option<Bytes>, LogError> {
        if self.complete {
            return Ok(None);
        }
        let size = u32::from_le_bytes(self.read()?) as usize;
        if size == 0 {
            return self.check_end();
        }
        if size > CHUNK_BYTES {
            return Err(self.damaged("a chunk is larger than chunks are"));
        }
        let checksum = u64::from_le_bytes(self.read()?);
        let mut chunk = vec![0; size];
        self.file.read_exact(&mut chunk).map_err(|error| self.unreadable(error))?;
        if xxh3_64_with_seed(&chunk, self.seed.wrapping_add(self.chunks)) != checksum {
            return Err(self.damaged("the checksum of a chunk does not match"));
        }
        self.chunks += 1;
        self.bytes += size as u64;
        Ok(Some(chunk.into()))
    }

    fn check_end(&mut self) -> Result<Option<Bytes>, LogError> {
        let end: [u8; 16] = self.read()?;
        let checksum = u64::from_le_bytes(self.read()?);
        if end != closing_entry(self.chunks, self.bytes) || xxh3_64_with_seed(&end, self.seed) != checksum {
            return Err(self.damaged("chunks are missing"));
        }
        self.complete = true;
        Ok(None)
    }

    fn read<const N: usize>(&mut self) -> Result<[u8; N], LogError> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes).map_err(|error| self.unreadable(error))?;
        Ok(bytes)
    }

    fn unreadable(&self, error: io::Error) -> LogError {
        if error.kind() == ErrorKind::UnexpectedEof { self.damaged("it is cut short") } else { failed(error) }
    }

    fn damaged(&self, detail: &str) -> LogError {
        LogError::SnapshotDamaged { id: self.id, detail: detail.to_owned() }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is the argument of map_err everywhere")]
fn failed(error: io::Error) -> LogError {
    if is_full(&error) { LogError::StoreFull } else { LogError::Failed(error.to_string()) }
}

/// The header and its checksum, which seeds all other checksums of the file.
fn header(log_id: LogId, id: SnapshotId) -> ([u8; HEADER_BYTES], u64) {
    let mut header = [0; HEADER_BYTES];
    header[..16].copy_from_slice(MAGIC);
    header[16..32].copy_from_slice(&log_id.0.to_le_bytes());
    let words = [id.position.0, id.record_id.session, id.record_id.counter, id.crc];
    for (place, word) in header[32..64].chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    let checksum = xxh3_64(&header[..64]);
    header[64..].copy_from_slice(&checksum.to_le_bytes());
    (header, checksum)
}

fn write_entry(file: &mut impl Write, seed: u64, chunk: &[u8]) -> io::Result<()> {
    let size = u32::try_from(chunk.len()).map_err(io::Error::other)?;
    file.write_all(&size.to_le_bytes())?;
    file.write_all(&xxh3_64_with_seed(chunk, seed).to_le_bytes())?;
    file.write_all(chunk)
}

fn closing_entry(chunks: u64, bytes: u64) -> [u8; 16] {
    ((u128::from(bytes) << 64) | u128::from(chunks)).to_le_bytes()
}

fn file_name(id: SnapshotId) -> String {
    let SnapshotId { position, record_id: RecordId { session, counter }, crc } = id;
    format!("snapshot-{:020}-{session:016x}-{counter:016x}-{crc:016x}{EXTENSION}", position.0)
}

fn parse_name(name: &str) -> Option<SnapshotId> {
    let mut parts = name.strip_prefix("snapshot-")?.strip_suffix(EXTENSION)?.split('-');
    let position = Position(parts.next()?.parse().ok()?);
    let mut hex = || u64::from_str_radix(parts.next()?, 16).ok();
    let record_id = RecordId { session: hex()?, counter: hex()? };
    let id = SnapshotId { position, record_id, crc: hex()? };
    // A name that is not exactly ours is none of ours.
    (file_name(id) == name).then_some(id)
}
