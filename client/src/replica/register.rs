//! Registers: one row, replaced as a whole.

use dormouse_proto::{
    ids::Revision,
    lattice::{Change, RegisterDelta, Value},
};

use super::{
    Path, Replica, WriteError,
    held::HeldRows,
    intent::{Context, Intent, Room},
};

/// A register as it is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RegisterRow {
    pub(super) value: Option<Value>,
    pub(super) stamp_ms: u64,
}

/// What was said of one register. `None`: no longer anything.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RegisterIntent(Option<Written>);

#[derive(Clone, Debug, PartialEq)]
struct Written {
    value: Option<Value>,
    stamp_ms: u64,
    context: Context,
}

const BYTES: usize = 48;

impl RegisterIntent {
    /// What it puts there; `None`: it deletes, or has nothing to say.
    fn value(&self) -> Option<&Value> {
        self.0.as_ref()?.value.as_ref()
    }
}

impl Intent for RegisterIntent {
    fn rows(&self) -> usize {
        1
    }

    fn bytes(&self) -> usize {
        BYTES + self.value().map_or(0, Value::len)
    }

    fn growth(&self, later: &Self) -> usize {
        later.bytes().saturating_sub(self.bytes())
    }

    fn then(&mut self, later: Self) {
        *self = later;
    }

    fn split(&mut self, room: &mut Room) -> Option<Self> {
        room.take(1, self.bytes()).then(|| Self(self.0.take()))
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn resolve(&mut self, path: &Path, held: &HeldRows) {
        if let Some(written) = &mut self.0
            && written.context == Context::Open
        {
            written.context = Context::At(seen(path, held));
        }
    }

    fn change(&self) -> Option<Change> {
        let written = self.0.as_ref()?;
        Some(Change::Register(RegisterDelta {
            value: written.value.clone(),
            stamp_ms: written.stamp_ms,
            as_of: written.context.as_of(),
        }))
    }

    fn without_history(&mut self) -> Option<Change> {
        if let Some(written) = &mut self.0 {
            written.context.lose_history();
        }
        None
    }

    fn without_context(&mut self) -> Option<Change> {
        let nothing_seen = Context::At(Some(Revision::ZERO));
        match &mut self.0 {
            Some(written) if written.context != nothing_seen => {
                written.context = nothing_seen;
                None
            }
            // It claims to have seen nothing already: a newer write of which only the mark is left wins over it.
            _ => self.whole(),
        }
    }

    fn without_growth(&mut self) -> Option<Change> {
        self.value()?;
        self.whole()
    }

    fn without_repeats(&mut self) -> Option<Change> {
        None
    }
}

fn seen(path: &Path, held: &HeldRows) -> Option<Revision> {
    held.context(path, held.register(path).map(|row| row.as_of))
}

impl Replica {
    /// The register's content as it is known, with own writes. The outer `None`: not followed, or never heard of; the
    /// inner: nothing is there.
    pub fn register(&self, path: &Path) -> Option<Option<&Value>> {
        let held = self.held.register(path);
        let sealed = self
            .sealed_intent::<RegisterIntent>(path)
            .filter(|_| self.shows_sealed(path, held.map(|row| row.as_of)));
        let own = self.waiting_intent(path).or(sealed);
        let seen = held.map(|row| row.state.value.as_ref());
        let known = seen.is_some() || self.held.knows(path);
        match own {
            Some(own) if known || self.held.follows(path) => Some(own.value()),
            _ => seen.or(known.then_some(None)),
        }
    }

    /// Writes the register; `None` deletes it. `stamp_ms` is the author's wall clock; 0 stands for the log's time.
    ///
    /// # Errors
    /// When the value is larger than 256 KiB or the outbox is full.
    pub fn register_set(
        &mut self,
        path: &Path,
        value: Option<Value>,
        stamp_ms: u64,
    ) -> Result<(), WriteError> {
        super::error::check_value(value.as_ref())?;
        self.say(path, self.register_intent(path, value, stamp_ms))
    }

    pub(super) fn register_intent(&self, path: &Path, value: Option<Value>, stamp_ms: u64) -> RegisterIntent {
        let context = if self.own_is_under_way::<RegisterIntent>(path, |_| true) {
            Context::Open
        } else {
            Context::At(seen(path, &self.held))
        };
        RegisterIntent(Some(Written { value, stamp_ms, context }))
    }
}
