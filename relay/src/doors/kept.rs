//! Something that is made of files, and made anew when they change.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};
use tracing::{info, warn};
use xxhash_rust::xxh3::xxh3_128;

use super::DoorsError;
use crate::metrics::FileRead;

/// The longest file. Ten thousand tokens take one megabyte.
const BYTES: u64 = 4 << 20;

/// Where a file is, and which setting says so.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) setting: &'static str,
    pub(super) path: PathBuf,
}

/// The files as they are now, in the order of their names.
pub(super) type Contents = Vec<Vec<u8>>;

type Make<T> = dyn Fn(&[Named], Contents) -> Result<T, DoorsError> + Send + Sync;

/// A value and the files that it was made of.
pub(super) struct Kept<T> {
    files: Vec<Named>,
    make: Box<Make<T>>,
    value: RwLock<Arc<T>>,
    /// Of the content that was looked at last, whether or not it could be used.
    seen: Mutex<u128>,
}

impl<T> Kept<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// When they cannot be used.
    pub(super) fn open(
        files: Vec<Named>,
        make: impl Fn(&[Named], Contents) -> Result<T, DoorsError> + Send + Sync + 'static,
    ) -> Result<Self, DoorsError> {
        let contents = read(&files);
        let seen = Mutex::new(fingerprint(&contents));
        let value = make(&files, all(&files, contents)?)?;
        Ok(Self { files, make: Box::new(make), value: RwLock::new(Arc::new(value)), seen })
    }

    /// What was read last and could be used.
    pub(super) fn get(&self) -> Arc<T> {
        Arc::clone(&self.value.read())
    }

    /// Looks at the files; `None`: they are as before.
    pub(super) fn refresh(&self) -> Option<FileRead> {
        let mut seen = self.seen.lock();
        let contents = read(&self.files);
        let now = fingerprint(&contents);
        if std::mem::replace(&mut *seen, now) == now {
            return None;
        }
        let settings = self.files.iter().map(|file| file.setting).collect::<Vec<_>>().join(", ");
        match all(&self.files, contents).and_then(|contents| (self.make)(&self.files, contents)) {
            Ok(value) => {
                *self.value.write() = Arc::new(value);
                info!(%settings, "changed files were read and are in force");
                Some(FileRead::Taken)
            }
            Err(error) => {
                warn!(%error, "changed files cannot be used: what was read before stays in force");
                Some(FileRead::Refused)
            }
        }
    }
}

fn read(files: &[Named]) -> Vec<io::Result<Vec<u8>>> {
    files.iter().map(|file| read_one(&file.path)).collect()
}

fn read_one(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {BYTES} bytes, the most that is read"),
        ));
    }
    Ok(content)
}

fn all(files: &[Named], contents: Vec<io::Result<Vec<u8>>>) -> Result<Contents, DoorsError> {
    let unreadable = |(file, content): (&Named, io::Result<Vec<u8>>)| {
        content.map_err(|source| DoorsError::Unreadable {
            setting: file.setting,
            path: file.path.clone(),
            source,
        })
    };
    files.iter().zip(contents).map(unreadable).collect()
}

/// The same failure twice is one, so that a file that is away is told of once.
fn fingerprint(contents: &[io::Result<Vec<u8>>]) -> u128 {
    let each = contents.iter().map(|content| match content {
        Ok(bytes) => xxh3_128(bytes),
        Err(error) => xxh3_128(error.to_string().as_bytes()),
    });
    xxh3_128(&each.flat_map(u128::to_le_bytes).collect::<Vec<_>>())
}
