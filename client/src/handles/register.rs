//! Registers.

use std::{marker::PhantomData, time::UNIX_EPOCH};

use dormouse_proto::lattice::Value;
use serde::{Serialize, de::DeserializeOwned};

use super::{Place, json};
use crate::{connection, replica::WriteError};

/// A register: one value of type `T`, kept as JSON so that everybody can read it; at most 256 KiB. The last write
/// wins, and a write that saw the winner wins whatever the clocks. On the wire its row has the JSON's bytes and about 14
/// more beside the key.
///
/// ```no_run
/// # async fn doc(awake: dormouse::Awake) -> Result<(), dormouse::WriteError> {
/// let limit = awake.register::<u32>("config/limit");
/// if limit.get()?.is_none() {
///     limit.set(&100)?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Register<T> {
    place: Place,
    content: PhantomData<fn() -> T>,
}

impl<T> Register<T> {
    pub(crate) const fn at(place: Place) -> Self {
        Self { place, content: PhantomData }
    }

    /// The content as it is; `None`: nothing is there, or nothing is known.
    pub fn raw(&self) -> Option<Value> {
        self.place.read(|replica, path| replica.register(path).map(Option::<&Value>::cloned)).flatten()
    }

    /// Whether nothing is known: the key is not followed, or nothing was ever heard of it.
    pub fn is_unknown(&self) -> bool {
        self.place.read(|replica, path| replica.register(path).map(|_| ())).is_none()
    }

    /// Writes text or bytes as they are, for readers that expect no JSON.
    ///
    /// # Errors
    /// Only if the outbox is full, the path malformed or the value larger than 256 KiB.
    pub fn set_raw(&self, value: Value) -> Result<(), WriteError> {
        self.put(Some(value))
    }

    /// Deletes the content.
    ///
    /// # Errors
    /// Only if the outbox is full or the path malformed.
    pub fn delete(&self) -> Result<(), WriteError> {
        self.put(None)
    }

    fn put(&self, value: Option<Value>) -> Result<(), WriteError> {
        let now = connection::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
        let stamp_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.place.write(|replica, path| replica.register_set(path, value, stamp_ms))
    }
}

impl<T: DeserializeOwned> Register<T> {
    /// The content; `None`: nothing is there or nothing is known.
    ///
    /// # Errors
    /// [`WriteError::NotJson`] if what is there is no JSON of a `T`.
    pub fn get(&self) -> Result<Option<T>, WriteError> {
        self.raw().as_ref().map(json::read).transpose()
    }
}

impl<T: Serialize> Register<T> {
    /// Writes the value.
    ///
    /// # Errors
    /// Only if the outbox is full, the path malformed, or the value no JSON or larger than 256 KiB.
    pub fn set(&self, value: &T) -> Result<(), WriteError> {
        self.put(Some(json::write(value)?))
    }
}
