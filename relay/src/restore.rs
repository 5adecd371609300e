//! `dormouse-relay restore FILE`: checks a backup, then makes it the beginning of an empty log.
//!
//! The file is read twice, so that nothing is written before all of it was found to be what it says, and so that no more of
//! it is in memory than the state that it amounts to.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use dormouse_proto::{
    backup::{BackupHeader, BadBackup, Reader},
    ids::Revision,
};
use tokio::task::spawn_blocking;

use crate::{
    log::{Log, Position, RecordId, SnapshotId},
    progress::{Progress, Unit},
    sequencer::{self, NotRestored, Restored},
    state::{Restore, RestoreError, StateHash},
};

/// Bytes that are read at once.
const AT_ONCE: usize = 1 << 18;

/// A backup was not restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no whole backup. Nothing was written.
    #[error("{}: {why}; nothing was written", .path.display())]
    Bad {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: BadBackup,
    },
    /// It is whole, but no state can be made of it. Nothing was written.
    #[error("{}: {why}; nothing was written", .path.display())]
    NoState {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: RestoreError,
    },
    /// The log did not take it.
    #[error(transparent)]
    Log(#[from] NotRestored),
}

/// A file that was found to be a whole backup, of which a state can be made.
#[derive(Clone, Debug)]
pub struct Checked {
    path: PathBuf,
    header: BackupHeader,
    hash: StateHash,
}

impl Checked {
    /// What it says of itself.
    pub fn header(&self) -> &BackupHeader {
        &self.header
    }
}

/// Reads that file to its end.
///
/// # Errors
/// [`Error`], if it is no whole backup or no state can be made of it.
pub async fn check(path: &Path) -> Result<Checked, Error> {
    let (file, path) = (open(path)?, path.to_owned());
    let failed = |source| Error::Io { path: path.clone(), source };
    let owned = path.clone();
    let checked = spawn_blocking(move || read_all(file, &owned)).await;
    let (header, hash) = checked.map_err(|error| failed(io::Error::other(error)))??;
    Ok(Checked { path, header, hash })
}

/// Makes that backup the beginning of that log, which must be empty.
///
/// # Errors
/// [`Error`], with nothing written unless it says so.
pub async fn restore(checked: &Checked, log: &dyn Log) -> Result<Restored, Error> {
    let Checked { path, header, hash } = checked;
    let pieces = Pieces {
        file: open(path)?,
        reader: Reader::default(),
        ready: VecDeque::new(),
        progress: Progress::new("storing the backup", Unit::Bytes, Some(header.bytes)),
        given: 0,
    };
    let head = Revision(header.revision);
    Ok(sequencer::restore(log, named(header), *hash, head, Box::new(pieces)).await?)
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// Reads the file to its end, and builds the state to see that it can be built.
fn read_all(mut file: File, path: &Path) -> Result<(BackupHeader, StateHash), Error> {
    let path = || path.to_owned();
    let mut progress =
        Progress::new("checking the backup", Unit::Bytes, file.metadata().ok().map(|it| it.len()));
    let (mut reader, mut restore) = (Reader::default(), Restore::new());
    let (mut buffer, mut wrong, mut done) = (vec![0; AT_ONCE], None, 0);
    loop {
        let read = file.read(&mut buffer).map_err(|source| Error::Io { path: path(), source })?;
        if read == 0 {
            break;
        }
        let taken = reader.take(&buffer[..read], |piece| {
            if wrong.is_none() {
                wrong = restore.take(piece).err();
            }
        });
        taken.map_err(|why| Error::Bad { path: path(), why })?;
        if let Some(why) = wrong {
            return Err(Error::NoState { path: path(), why });
        }
        done += read as u64;
        progress.reach(done);
    }
    let header = reader.finish().map_err(|why| Error::Bad { path: path(), why })?;
    let fold = restore.finish().map_err(|why| Error::NoState { path: path(), why })?;
    let (hash, revision) = (fold.hash(), fold.revision());
    if header.hash.as_ref() != hash.0.to_be_bytes() || header.revision != revision.0 {
        return Err(Error::NoState { path: path(), why: RestoreError::Hash });
    }
    Ok((header, hash))
}

/// The last frame that the state covers, in the log that it is of.
fn named(header: &BackupHeader) -> SnapshotId {
    let last = header.last.unwrap_or_default();
    SnapshotId {
        position: Position(last.position),
        record_id: RecordId { session: last.session, counter: last.counter },
        crc: last.crc,
    }
}

/// The pieces of a backup, while it is being read.
struct Pieces {
    file: File,
    reader: Reader,
    ready: VecDeque<Bytes>,
    progress: Progress,
    given: u64,
}

impl Pieces {
    /// Reads on. Answers whether there was more.
    fn read_on(&mut self) -> io::Result<bool> {
        let mut buffer = vec![0; AT_ONCE];
        let read = self.file.read(&mut buffer)?;
        let ready = &mut self.ready;
        let taken = self.reader.take(&buffer[..read], |piece| ready.push_back(Bytes::copy_from_slice(piece)));
        taken.map_err(io::Error::other)?;
        if read == 0 {
            std::mem::take(&mut self.reader).finish().map_err(io::Error::other)?;
        }
        Ok(read > 0)
    }
}

impl Iterator for Pieces {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                self.given += piece.len() as u64;
                self.progress.reach(self.given);
                return Some(Ok(piece));
            }
            match self.read_on() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
