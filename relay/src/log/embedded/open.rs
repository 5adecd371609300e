//! Opening and creating the data directory. Nothing here ever overwrites a file that it did not make itself.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, DatabaseError, Error, ReadableDatabase, StorageError, TableDefinition, TableError};
use thiserror::Error as ThisError;

use super::Options;
use super::file::{BoundedFile, Faults};
use super::store::FRAMES;
use crate::log::LogId;

/// What the file says about itself. The name of the table is the magic: no other program's database has it.
const META: TableDefinition<&str, u128> = TableDefinition::new("dormouse-log");
const FORMAT: &str = "format";
const LOG_ID: &str = "log_id";
const FORMAT_VERSION: u128 = 1;

const FILE_NAME: &str = "dormouse.redb";
const UNFINISHED_NAME: &str = "dormouse.redb.unfinished";
const LOCK_NAME: &str = "dormouse.lock";

/// Why the log in a data directory was not opened. The files are as they were.
#[derive(Debug, ThisError)]
pub enum OpenError {
    /// Another relay runs on the directory.
    #[error("{}: another relay is using this data directory", .path.display())]
    InUse {
        /// The file that the other relay holds.
        path: PathBuf,
    },
    /// The file is not one of ours.
    #[error("{}: not a Dormouse log ({detail}); it was left untouched, move it away or name another directory",
        .path.display())]
    NotALog {
        /// The file.
        path: PathBuf,
        /// How one can tell.
        detail: String,
    },
    /// A newer release wrote it.
    #[error("{}: written in format {found}, this release reads format {supported}", .path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format of the file.
        found: u128,
        /// The newest format that is understood.
        supported: u128,
    },
    /// It is ours, but not whole.
    #[error("{}: the log is damaged ({detail}); it was left as it is, restore it from a copy", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The operating system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn from_redb(path: &Path, error: Error) -> Self {
        let path = path.to_owned();
        match error {
            Error::DatabaseAlreadyOpen => Self::InUse { path },
            Error::Io(source) if source.kind() == ErrorKind::InvalidData => {
                Self::NotALog { path, detail: source.to_string() }
            }
            Error::Io(source) if source.kind() == ErrorKind::UnexpectedEof => {
                Self::Damaged { path, detail: "the file is cut short".to_owned() }
            }
            Error::Io(source) => Self::Io { path, source },
            Error::UpgradeRequired(version) => {
                Self::NotALog { path, detail: format!("redb file format {version}") }
            }
            other => Self::Damaged { path, detail: other.to_string() },
        }
    }
}

/// An open database and what keeps others away from it.
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) log_id: LogId,
    pub(super) database: Database,
    pub(super) lock: File,
    pub(super) reopen: Reopen,
}

/// How to open the file once more: a full disk leaves redb unusable until then.
#[derive(Clone, Debug)]
pub(super) struct Reopen {
    path: PathBuf,
    cache_bytes: usize,
    max_file_bytes: Option<u64>,
    pub(super) faults: Arc<Faults>,
}

impl Reopen {
    pub(super) fn open(&self) -> Result<Database, DatabaseError> {
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        // redb would make a new database of an empty file; a log that is empty all at once must be refused.
        if file.metadata()?.len() == 0 {
            return Err(StorageError::Corrupted("the file is empty, its content was lost".to_owned()).into());
        }
        let file = BoundedFile::new(file, self.max_file_bytes, Arc::clone(&self.faults))?;
        Database::builder().set_cache_size(self.cache_bytes).create_with_backend(file)
    }
}

pub(super) fn open(dir: &Path, options: &Options) -> Result<Opened, OpenError> {
    let failed = |source| OpenError::Io { path: dir.to_owned(), source };
    create_durably(dir).map_err(failed)?;
    let lock = lock(&dir.join(LOCK_NAME))?;
    let path = dir.join(FILE_NAME);
    if path.try_exists().map_err(failed)? {
        // Opening for writing marks the file as open. First look without touching it whether it is ours; only
        // a file that was not closed cleanly cannot be looked at before it is repaired.
        let is_empty = path.metadata().map_err(failed)?.len() == 0;
        match Database::builder().open_read_only(&path) {
            Ok(database) => _ = read_meta(&path, &database)?,
            Err(DatabaseError::RepairAborted) => {}
            // The empty file is refused below, with a better message.
            Err(_) if is_empty => {}
            Err(error) => return Err(OpenError::from_redb(&path, error.into())),
        }
    } else {
        create(dir, &path, options)?;
    }
    let reopen = Reopen {
        path: path.clone(),
        cache_bytes: options.cache_bytes,
        max_file_bytes: options.max_file_bytes,
        faults: Arc::default(),
    };
    let database = reopen.open().map_err(|error| OpenError::from_redb(&path, error.into()))?;
    let log_id = read_meta(&path, &database)?;
    Ok(Opened { path, log_id, database, lock, reopen })
}

/// Creates the missing directories and makes their names durable: a file survives a power loss only if every
/// directory above it does.
fn create_durably(dir: &Path) -> io::Result<()> {
    let missing: Vec<_> =
        dir.ancestors().take_while(|it| !it.as_os_str().is_empty() && !it.exists()).collect();
    fs::create_dir_all(dir)?;
    for made in missing {
        let parent = made.parent().filter(|it| !it.as_os_str().is_empty());
        sync_dir(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Io { path: path.to_owned(), source };
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Makes an empty log under another name and renames it when it is durable, so that a crash in between leaves
/// nothing that looks like a log.
fn create(dir: &Path, path: &Path, options: &Options) -> Result<(), OpenError> {
    let unfinished = dir.join(UNFINISHED_NAME);
    let failed = |source| OpenError::Io { path: unfinished.clone(), source };
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut log_id = [0; 16];
    getrandom::fill(&mut log_id).map_err(|error| failed(io::Error::other(error.to_string())))?;
    write_empty(&unfinished, u128::from_le_bytes(log_id), options)
        .map_err(|error| OpenError::from_redb(&unfinished, error))?;
    fs::rename(&unfinished, path).and_then(|()| sync_dir(dir)).map_err(failed)
}

fn write_empty(path: &Path, log_id: u128, options: &Options) -> Result<(), Error> {
    let database = Database::builder().set_cache_size(options.cache_bytes).create(path)?;
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert(FORMAT, FORMAT_VERSION)?;
        meta.insert(LOG_ID, log_id)?;
        transaction.open_table(FRAMES)?;
    }
    transaction.commit()?;
    drop(database);
    File::open(path)?.sync_all()?;
    Ok(())
}

fn read_meta(path: &Path, database: &impl ReadableDatabase) -> Result<LogId, OpenError> {
    let failed = |error| OpenError::from_redb(path, error);
    let foreign = |detail: &str| OpenError::NotALog { path: path.to_owned(), detail: detail.to_owned() };
    let transaction = database.begin_read().map_err(|error| failed(error.into()))?;
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::Storage(error)) => return Err(failed(error.into())),
        Err(_) => return Err(foreign("a redb database without the table dormouse-log")),
    };
    let value =
        |key| meta.get(key).map(|it| it.map(|value| value.value())).map_err(|error| failed(error.into()));
    match value(FORMAT)? {
        Some(FORMAT_VERSION) => {}
        Some(found) => {
            return Err(OpenError::NewerFormat { path: path.to_owned(), found, supported: FORMAT_VERSION });
        }
        None => return Err(foreign("it names no format")),
    }
    value(LOG_ID)?.map(LogId).ok_or_else(|| foreign("it names no log id"))
}
