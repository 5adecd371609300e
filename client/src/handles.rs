//! Typed handles. Reads show what was received and every own write on top of it; writes go into the outbox and fail
//! only if it is full or the path is malformed.

use std::{
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use dormouse_proto::{
    ids::{Element, InvalidName, OnceId},
    lattice::Value,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    node::Shared,
    replica::{Path, Replica, WriteError},
};

/// What a handle belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Invocation<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    /// Something was written through one of its handles.
    pub(crate) wrote: &'a Arc<AtomicBool>,
}

/// A key of the node's replica.
#[derive(Clone, Debug)]
struct Place {
    shared: Arc<Shared>,
    path: Result<Path, WriteError>,
    wrote: Arc<AtomicBool>,
}

impl Place {
    fn new(invocation: Invocation<'_>, path: &str) -> Self {
        Self {
            shared: Arc::clone(invocation.shared),
            path: path.parse(),
            wrote: Arc::clone(invocation.wrote),
        }
    }

    fn read<T>(&self, read: impl FnOnce(&Replica, &Path) -> Option<T>) -> Option<T> {
        let path = self.path.as_ref().ok()?;
        self.shared.with(|replica| read(replica, path))
    }

    fn write(
        &self,
        write: impl FnOnce(&mut Replica, &Path) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let path = self.path.as_ref().map_err(Clone::clone)?;
        self.shared.write(|replica| write(replica, path))?;
        self.wrote.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn malformed(&self, wrong: &InvalidName) -> WriteError {
        WriteError::Malformed {
            path: self.path.as_ref().map_or_else(|_| String::new(), Path::to_string),
            rule: wrong.to_string(),
        }
    }
}

/// A counter that can be reset. Values and totals stay within 64 bits, one write within 2^48.
#[derive(Clone, Debug)]
pub struct Counter(Place);

impl Counter {
    pub(crate) fn new(invocation: Invocation<'_>, path: &str) -> Self {
        Self(Place::new(invocation, path))
    }

    /// The value, own writes included. Zero also stands for "nothing is known": see [`known`](Self::known).
    pub fn value(&self) -> i64 {
        self.known().unwrap_or(0)
    }

    /// The value, own writes included; `None`: the key is not followed, or nothing was ever heard of it.
    pub fn known(&self) -> Option<i64> {
        self.0.read(Replica::counter)
    }

    /// Whether the value is known to have reached `at_least`. It may overshoot by what others have not pushed yet.
    pub fn reached(&self, at_least: i64) -> bool {
        self.known().is_some_and(|value| value >= at_least)
    }

    /// Adds `n`, at most 2^48.
    ///
    /// # Errors
    /// Only if the outbox is full, the path malformed or `n` too large.
    pub fn add(&self, n: u64) -> Result<(), WriteError> {
        let n = signed(n)?;
        self.0.write(|replica, path| replica.counter_add(path, n))
    }

    /// Subtracts `n`, at most 2^48.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn subtract(&self, n: u64) -> Result<(), WriteError> {
        let n = signed(n)?;
        self.0.write(|replica, path| replica.counter_add(path, -n))
    }

    /// Adds `n` once per `id` (1-64 bytes), whoever repeats it: for invocations that the platform may retry. Ids are
    /// remembered for one hour, and the newest 1,048,576 of them.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_once(&self, id: &str, n: u64) -> Result<(), WriteError> {
        let n = signed(n)?;
        let id: OnceId = id.parse().map_err(|wrong| self.0.malformed(&wrong))?;
        self.0
            .write(|replica, path| replica.counter_add_once(path, id, n))
    }

    /// Takes away the value that is seen now; what others add meanwhile survives.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn reset(&self) -> Result<(), WriteError> {
        self.0.write(Replica::counter_reset)
    }
}

fn signed(n: u64) -> Result<i64, WriteError> {
    i64::try_from(n).map_err(|_| WriteError::AmountTooLarge(n.into()))
}

/// A set of texts, each at most 1 KiB. An add wins over a concurrent remove.
#[derive(Clone, Debug)]
pub struct Set(Place);

impl Set {
    pub(crate) fn new(invocation: Invocation<'_>, path: &str) -> Self {
        Self(Place::new(invocation, path))
    }

    /// Whether the element is in the set; `None`: the key is not followed, or nothing was ever heard of it.
    pub fn known_to_contain(&self, element: &str) -> Option<bool> {
        self.0.read(|replica, path| replica.set_contains(path, element))
    }

    /// Whether the element is known to be in the set.
    pub fn contains(&self, element: &str) -> bool {
        self.known_to_contain(element) == Some(true)
    }

    /// The elements that are known, sorted.
    pub fn elements(&self) -> Vec<String> {
        let owned = |elements: Vec<&str>| elements.into_iter().map(str::to_owned).collect();
        self.0
            .read(|replica, path| replica.set(path).map(owned))
            .unwrap_or_default()
    }

    /// Adds an element.
    ///
    /// # Errors
    /// Only if the outbox is full, the path malformed or the element larger than 1 KiB.
    pub fn add(&self, element: &str) -> Result<(), WriteError> {
        let element = self.element(element)?;
        self.0.write(|replica, path| replica.set_add(path, element))
    }

    /// Removes an element as it is seen now; an add that others make meanwhile survives.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn remove(&self, element: &str) -> Result<(), WriteError> {
        let element = self.element(element)?;
        self.0.write(|replica, path| replica.set_remove(path, element))
    }

    fn element(&self, element: &str) -> Result<Element, WriteError> {
        element.parse().map_err(|wrong| self.0.malformed(&wrong))
    }
}

/// A register: one value of type `T`, kept as JSON so that everybody can read it; at most 256 KiB. The last write
/// wins, and a write that saw the winner wins whatever the clocks.
#[derive(Clone, Debug)]
pub struct Register<T> {
    place: Place,
    content: PhantomData<fn() -> T>,
}

impl<T> Register<T> {
    pub(crate) fn new(invocation: Invocation<'_>, path: &str) -> Self {
        Self {
            place: Place::new(invocation, path),
            content: PhantomData,
        }
    }

    /// The content as it is; `None`: nothing is there, or nothing is known.
    pub fn raw(&self) -> Option<Value> {
        self.place
            .read(|replica, path| replica.register(path).map(Option::<&Value>::cloned))
            .flatten()
    }

    /// Whether nothing is known: the key is not followed, or nothing was ever heard of it.
    pub fn is_unknown(&self) -> bool {
        self.place
            .read(|replica, path| replica.register(path).map(|_| ()))
            .is_none()
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
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let stamp_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.place
            .write(|replica, path| replica.register_set(path, value, stamp_ms))
    }
}

impl<T: DeserializeOwned> Register<T> {
    /// The content; `None`: nothing is there or nothing is known.
    ///
    /// # Errors
    /// [`WriteError::NotJson`] if what is there is no JSON of a `T`.
    pub fn get(&self) -> Result<Option<T>, WriteError> {
        let parsed = self.raw().map(|value| match value {
            Value::Text(text) => serde_json::from_str(&text),
            Value::Data(data) => serde_json::from_slice(&data),
        });
        parsed
            .transpose()
            .map_err(|wrong| WriteError::NotJson(wrong.to_string()))
    }
}

impl<T: Serialize> Register<T> {
    /// Writes the value.
    ///
    /// # Errors
    /// Only if the outbox is full, the path malformed, or the value no JSON or larger than 256 KiB.
    pub fn set(&self, value: &T) -> Result<(), WriteError> {
        let json = serde_json::to_string(value).map_err(|wrong| WriteError::NotJson(wrong.to_string()))?;
        self.put(Some(Value::Text(json)))
    }
}
