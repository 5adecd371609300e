//! Logs of events.

use std::{
    marker::PhantomData,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dormouse_proto::{ids::Revision, lattice::Value};
use serde::{Serialize, de::DeserializeOwned};

use super::{Place, json};
use crate::replica::{EventView, Missed, Replica, WriteError, message::EventRow};

/// An entry of a log of events. Named by its revision and index, it never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<T = Value> {
    /// Where it was accepted; `None`: an own entry that is not yet.
    pub revision: Option<Revision>,
    /// Its place among those that were accepted there.
    pub index: u32,
    /// Its content.
    pub payload: T,
    /// Whose push it was; `None`: a caller that is no node, or an own entry that is not accepted yet.
    pub node_id: Option<String>,
    /// The log's wall clock, for display.
    pub accepted_at: Option<SystemTime>,
}

fn time(ms: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(ms)).filter(|_| ms > 0)
}

impl Event {
    fn of_view(it: EventView<'_>) -> Self {
        Self {
            revision: it.at.map(|(revision, _)| revision),
            index: it.at.map_or(0, |(_, index)| index),
            payload: it.payload.clone(),
            node_id: it.node.map(|node| node.to_string()),
            accepted_at: time(it.accepted_at_ms),
        }
    }

    pub(crate) fn of_row(it: EventRow) -> Self {
        Self {
            revision: Some(it.revision),
            index: it.index,
            payload: it.payload,
            node_id: it.node.map(|node| node.to_string()),
            accepted_at: time(it.accepted_at_ms),
        }
    }

    /// The content as JSON of a `T`.
    ///
    /// # Errors
    /// [`WriteError::NotJson`] if it is none.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, WriteError> {
        json::read(&self.payload)
    }

    fn parsed<T: DeserializeOwned>(self) -> Result<Event<T>, WriteError> {
        let payload = self.json()?;
        let Self { revision, index, node_id, accepted_at, .. } = self;
        Ok(Event { revision, index, payload, node_id, accepted_at })
    }
}

/// A log of events of type `T`, kept as JSON, each at most 256 KiB. Entries stand in the order in which the log accepted
/// them, and leave it by a trim or by the namespace's retention. An entry is a row of its own and has the JSON's bytes and
/// about 45 more on the wire.
///
/// A node that follows the collection holds every entry that was not trimmed. For logs that are longer than that, and for
/// work that must be done once, there is [`Relay::consumer`](crate::Relay::consumer).
///
/// ```no_run
/// # async fn doc(awake: dormouse::Awake) -> Result<(), dormouse::WriteError> {
/// let clicks = awake.events::<String>("shop/clicks");
/// clicks.append(&"buy".to_owned())?;
/// clicks.append_once("request-17", &"pay".to_owned())?; // whoever repeats it
/// for click in clicks.entries()? {
///     println!("{:?} {}", click.revision, click.payload);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Events<T> {
    place: Place,
    content: PhantomData<fn() -> T>,
}

impl<T> Events<T> {
    pub(crate) const fn at(place: Place) -> Self {
        Self { place, content: PhantomData }
    }

    /// The entries that are known, contents as they are; own ones that are not accepted yet come last.
    pub fn raw(&self) -> Vec<Event> {
        let owned = |events: Vec<EventView<'_>>| events.into_iter().map(Event::of_view).collect();
        self.place.read(|replica, path| replica.events(path).map(owned)).unwrap_or_default()
    }

    /// Whether nothing is known: the key is not followed, or nothing was ever heard of it.
    pub fn is_unknown(&self) -> bool {
        self.place.read(|replica, path| replica.events(path).map(|_| ())).is_none()
    }

    /// Appends text or bytes as they are; with an id (1-64 bytes) once, whoever repeats it. Ids are remembered for one hour,
    /// and the newest 1,048,576 of them.
    ///
    /// # Errors
    /// Only if the outbox is full, the path or the id malformed or the value larger than 256 KiB.
    pub fn append_raw(&self, id: Option<&str>, payload: Value) -> Result<(), WriteError> {
        let id = id.map(|id| self.place.once_id(id)).transpose()?;
        self.place.write(|replica, path| replica.events_append(path, payload, id))
    }

    /// Drops the entries up to that revision, for everybody.
    ///
    /// # Errors
    /// Only if the outbox is full or the path malformed.
    pub fn trim_upto(&self, revision: Revision) -> Result<(), WriteError> {
        self.place.write(|replica, path| replica.events_trim(path, revision))
    }

    /// Up to which revision the log is known to be trimmed; zero: not at all.
    pub fn trimmed_upto(&self) -> Revision {
        self.place.read(|replica, path| Some(replica.events_trimmed_upto(path))).unwrap_or_default()
    }

    /// Entries that were trimmed before they arrived here, told once.
    pub fn take_missed(&self) -> Option<Missed> {
        self.place.take(Replica::take_events_missed)
    }
}

impl<T: DeserializeOwned> Events<T> {
    /// The entries that are known; own ones that are not accepted yet come last.
    ///
    /// # Errors
    /// [`WriteError::NotJson`] if one of them is no JSON of a `T`.
    pub fn entries(&self) -> Result<Vec<Event<T>>, WriteError> {
        self.raw().into_iter().map(Event::parsed).collect()
    }
}

impl<T: Serialize> Events<T> {
    /// Appends an entry. Like a counter's amount, it is never pushed again if nobody can know whether it was accepted:
    /// [`reports`](crate::Awake::reports) says so.
    ///
    /// # Errors
    /// Only if the outbox is full, the path malformed, or the value no JSON or larger than 256 KiB.
    pub fn append(&self, payload: &T) -> Result<(), WriteError> {
        self.append_raw(None, json::write(payload)?)
    }

    /// Appends an entry once per `id` (1-64 bytes), whoever repeats it: for invocations that the platform may retry.
    ///
    /// # Errors
    /// As [`append`](Self::append), or if the id is malformed.
    pub fn append_once(&self, id: &str, payload: &T) -> Result<(), WriteError> {
        self.append_raw(Some(id), json::write(payload)?)
    }
}
