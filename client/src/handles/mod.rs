//! Typed handles. Reads show what was received and every own write on top of it; writes go into the outbox and fail
//! only if it is full or the path is malformed.

mod counter;
mod events;
mod flag;
mod json;
mod map;
mod number;
mod presence;
mod register;
mod sets;
mod siblings;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use dormouse_proto::ids::{Element, InvalidName, OnceId};

pub use counter::Counter;
pub use events::{Event, Events};
pub use flag::{DisableWinsFlag, Flag};
pub use map::Map;
pub use number::{Max, Min};
pub use presence::{Holder, Presence};
pub use register::Register;
pub use sets::{GrowOnlySet, RemoveWinsSet, Set};
pub use siblings::Siblings;

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
pub(crate) struct Place {
    shared: Arc<Shared>,
    path: Result<Path, WriteError>,
    wrote: Arc<AtomicBool>,
}

impl Place {
    pub(crate) fn new(invocation: Invocation<'_>, path: &str) -> Self {
        Self {
            shared: Arc::clone(invocation.shared),
            path: path.parse(),
            wrote: Arc::clone(invocation.wrote),
        }
    }

    /// A key below this one.
    fn below(&self, leaf: &str) -> Self {
        let malformed = |rule: &str| WriteError::Malformed { path: leaf.to_owned(), rule: rule.to_owned() };
        let path = match &self.path {
            Err(wrong) => Err(wrong.clone()),
            Ok(_) if leaf.is_empty() => Err(malformed("a leaf has a name")),
            Ok(path) => format!("{path}/{leaf}").parse(),
        };
        Self { shared: Arc::clone(&self.shared), path, wrote: Arc::clone(&self.wrote) }
    }

    fn read<T>(&self, read: impl FnOnce(&Replica, &Path) -> Option<T>) -> Option<T> {
        let path = self.path.as_ref().ok()?;
        self.shared.with(|replica| read(replica, path))
    }

    fn write<T>(
        &self,
        write: impl FnOnce(&mut Replica, &Path) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let path = self.path.as_ref().map_err(Clone::clone)?;
        let written = self.shared.write(|replica| write(replica, path))?;
        self.wrote.store(true, Ordering::Relaxed);
        Ok(written)
    }

    /// Takes something out of the replica that is told once.
    fn take<T>(&self, take: impl FnOnce(&mut Replica, &Path) -> Option<T>) -> Option<T> {
        let path = self.path.as_ref().ok()?;
        take(&mut self.shared.state.lock().replica, path)
    }

    fn malformed(&self, wrong: &InvalidName) -> WriteError {
        WriteError::Malformed {
            path: self.path.as_ref().map_or_else(|_| String::new(), Path::to_string),
            rule: wrong.to_string(),
        }
    }

    fn element(&self, element: &str) -> Result<Element, WriteError> {
        element.parse().map_err(|wrong| self.malformed(&wrong))
    }

    fn once_id(&self, id: &str) -> Result<OnceId, WriteError> {
        id.parse().map_err(|wrong| self.malformed(&wrong))
    }
}
