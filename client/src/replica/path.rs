//! Where a value lives: `collection/key`.

use std::{fmt, str::FromStr};

use dormouse_proto::ids::{Collection, InvalidName, Key};

use super::WriteError;

/// A collection and a key of it. As text `collection/key`: the first `/` separates, further ones belong to the key.
///
/// ```
/// let path: dormouse::Path = "carts/eu/42".parse()?;
/// assert_eq!((path.collection.as_str(), path.key.as_str()), ("carts", "eu/42"));
/// # Ok::<(), dormouse::WriteError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// The unit of interest: 1-64 bytes of `[a-z0-9._-]`.
    pub collection: Collection,
    /// 1-512 bytes of UTF-8 without control characters.
    pub key: Key,
}

impl FromStr for Path {
    type Err = WriteError;

    fn from_str(text: &str) -> Result<Self, WriteError> {
        let malformed = |rule: String| WriteError::Malformed {
            path: text.to_owned(),
            rule,
        };
        let (collection, key) = text
            .split_once('/')
            .ok_or_else(|| malformed("a path is collection/key".to_owned()))?;
        let named = |wrong: InvalidName| malformed(wrong.to_string());
        Ok(Self {
            collection: collection.parse().map_err(named)?,
            key: key.parse().map_err(named)?,
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.collection, self.key)
    }
}
