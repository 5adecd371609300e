//! Siblings.

use std::marker::PhantomData;

use dormouse_proto::lattice::Value;
use serde::{Serialize, de::DeserializeOwned};

use super::{Place, json};
use crate::replica::{Replica, WriteError};

/// A register that keeps what was written concurrently: values of type `T`, kept as JSON, each at most 256 KiB, at most 64
/// side by side, of more the oldest goes. A write takes the place of those that its author had seen. On the wire its row is
/// the whole list: the JSON's bytes and about 12 more for each value, beside the key.
///
/// ```no_run
/// # async fn doc(awake: dormouse::Awake) -> Result<(), dormouse::WriteError> {
/// let address = awake.siblings::<String>("customers/7/address");
/// let written = address.values()?;
/// if written.len() > 1 {
///     // Two have written without seeing each other: decide, and one is left.
///     address.set(written.iter().max().expect("two at least"))?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Siblings<T> {
    place: Place,
    content: PhantomData<fn() -> T>,
}

impl<T> Siblings<T> {
    pub(crate) const fn at(place: Place) -> Self {
        Self { place, content: PhantomData }
    }

    /// The contents as they are, oldest first.
    pub fn raw(&self) -> Vec<Value> {
        let owned = |values: Vec<&Value>| values.into_iter().cloned().collect();
        self.place.read(|replica, path| replica.siblings(path).map(owned)).unwrap_or_default()
    }

    /// Whether nothing is known: the key is not followed, or nothing was ever heard of it.
    pub fn is_unknown(&self) -> bool {
        self.place.read(|replica, path| replica.siblings(path).map(|_| ())).is_none()
    }

    /// Writes text or bytes as they are, in the place of all that is seen now.
    ///
    /// # Errors
    /// Only if the outbox is full, the path malformed or the value larger than 256 KiB.
    pub fn set_raw(&self, value: Value) -> Result<(), WriteError> {
        self.place.write(|replica, path| replica.siblings_set(path, Some(value)))
    }

    /// Takes away all that is seen now; what others write meanwhile stays.
    ///
    /// # Errors
    /// Only if the outbox is full or the path malformed.
    pub fn delete(&self) -> Result<(), WriteError> {
        self.place.write(|replica, path| replica.siblings_set(path, None))
    }
}

impl<T: DeserializeOwned> Siblings<T> {
    /// The values, oldest first, own writes included; none: nothing is there or nothing is known.
    ///
    /// # Errors
    /// [`WriteError::NotJson`] if one of them is no JSON of a `T`.
    pub fn values(&self) -> Result<Vec<T>, WriteError> {
        let parsed = |values: Vec<&Value>| values.into_iter().map(json::read).collect();
        self.place
            .read(|replica, path| Replica::siblings(replica, path).map(parsed))
            .unwrap_or_else(|| Ok(Vec::new()))
    }
}

impl<T: Serialize> Siblings<T> {
    /// Writes a value in the place of all that is seen now; what others write meanwhile stays beside it.
    ///
    /// # Errors
    /// Only if the outbox is full, the path malformed, or the value no JSON or larger than 256 KiB.
    pub fn set(&self, value: &T) -> Result<(), WriteError> {
        self.set_raw(json::write(value)?)
    }
}
