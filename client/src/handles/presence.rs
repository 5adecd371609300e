//! Presence.

use std::marker::PhantomData;

use dormouse_proto::{ids::NodeId, lattice::Value};
use serde::{Serialize, de::DeserializeOwned};

use super::{Place, json};
use crate::replica::WriteError;

/// Who holds up what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder<T = Value> {
    /// Who.
    pub node_id: String,
    /// What it holds up.
    pub value: T,
}

/// What nodes hold up under a key for as long as they are members: a value of type `T` for each node, kept as JSON, at most
/// 256 KiB. It ends by itself when its node is gone, and only then: a sleeping node still holds it up. A node holds up at
/// most 64. If its membership was ended by mistake, what it holds up is said again by itself. Each holder is a row of its
/// own and has the JSON's bytes and about 22 more on the wire.
///
/// ```no_run
/// # async fn doc(awake: dormouse::Awake) -> Result<(), dormouse::WriteError> {
/// let workers = awake.presence::<u16>("workers/port");
/// workers.hold_up(&8080)?;
/// for worker in workers.holders()? {
///     println!("{} listens at {}", worker.node_id, worker.value);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Presence<T> {
    place: Place,
    content: PhantomData<fn() -> T>,
}

impl<T> Presence<T> {
    pub(crate) const fn at(place: Place) -> Self {
        Self { place, content: PhantomData }
    }

    /// Who holds something up, in the order of their ids, contents as they are.
    pub fn raw(&self) -> Vec<Holder> {
        let owned =
            |(node, value): (NodeId, &Value)| Holder { node_id: node.to_string(), value: value.clone() };
        let read = |holders: Vec<(NodeId, &Value)>| holders.into_iter().map(owned).collect();
        self.place.read(|replica, path| replica.presence(path).map(read)).unwrap_or_default()
    }

    /// Whether nothing is known: the key is not followed, or nothing was ever heard of it.
    pub fn is_unknown(&self) -> bool {
        self.place.read(|replica, path| replica.presence(path).map(|_| ())).is_none()
    }

    /// Holds up text or bytes as they are.
    ///
    /// # Errors
    /// Only if the outbox is full, the path malformed, the value larger than 256 KiB or 64 are held up already.
    pub fn hold_up_raw(&self, value: Value) -> Result<(), WriteError> {
        self.place.write(|replica, path| replica.presence_set(path, Some(value)))
    }

    /// Holds nothing up any more.
    ///
    /// # Errors
    /// Only if the outbox is full or the path malformed.
    pub fn withdraw(&self) -> Result<(), WriteError> {
        self.place.write(|replica, path| replica.presence_set(path, None))
    }
}

impl<T: DeserializeOwned> Presence<T> {
    /// Who holds something up, in the order of their ids, this node included once it has an id.
    ///
    /// # Errors
    /// [`WriteError::NotJson`] if one of the values is no JSON of a `T`.
    pub fn holders(&self) -> Result<Vec<Holder<T>>, WriteError> {
        let parsed = |Holder { node_id, value }| Ok(Holder { node_id, value: json::read(&value)? });
        self.raw().into_iter().map(parsed).collect()
    }
}

impl<T: Serialize> Presence<T> {
    /// Holds a value up until it is withdrawn or the membership ends.
    ///
    /// # Errors
    /// Only if the outbox is full, the path malformed, the value no JSON or larger than 256 KiB, or 64 are held up already.
    pub fn hold_up(&self, value: &T) -> Result<(), WriteError> {
        self.hold_up_raw(json::write(value)?)
    }
}
