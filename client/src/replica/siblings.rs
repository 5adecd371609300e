//! Siblings: one row, a list of values that were written without seeing each other.

use dormouse_proto::{
    ids::Revision,
    lattice::{Change, Siblings, SiblingsDelta, Value},
};

use super::{
    Path, Replica, WriteError,
    held::HeldRows,
    intent::{Context, Intent, Room},
};

/// What was said of some siblings. `None`: no longer anything.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SiblingsIntent(Option<Written>);

#[derive(Clone, Debug, PartialEq)]
struct Written {
    value: Option<Value>,
    context: Context,
}

/// A value among its siblings, and the revision of its write; `None`: an own write that is not bound yet.
pub type Sibling<'a> = (Option<Revision>, &'a Value);

const BYTES: usize = 48;

impl SiblingsIntent {
    fn value(&self) -> Option<&Value> {
        self.0.as_ref()?.value.as_ref()
    }

    /// What a reader who sees `siblings` sees with this on top: it takes the place of what its author had seen.
    fn over<'a>(&'a self, siblings: &mut Vec<Sibling<'a>>) {
        let Some(written) = &self.0 else { return };
        match written.context {
            Context::At(Some(seen)) => siblings.retain(|(at, _)| at.is_none_or(|at| at > seen)),
            Context::At(None) | Context::Open => siblings.clear(),
        }
        siblings.extend(written.value.as_ref().map(|value| (None, value)));
        let surplus = siblings.len().saturating_sub(Siblings::<Value>::MAX);
        siblings.drain(..surplus);
    }
}

impl Intent for SiblingsIntent {
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
        room.take(1, self.bytes()).then(|| std::mem::take(self))
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
        let Written { value, context } = self.0.as_ref()?;
        Some(Change::Siblings(SiblingsDelta { value: value.clone(), as_of: context.as_of() }))
    }

    fn without_history(&mut self) -> Option<Change> {
        let written = self.0.as_mut()?;
        if written.value.is_none() && written.context.names_history() {
            return self.whole();
        }
        written.context.lose_history();
        None
    }

    fn without_context(&mut self) -> Option<Change> {
        let nothing_seen = Context::At(Some(Revision::ZERO));
        match &mut self.0 {
            Some(written) if written.value.is_some() && written.context != nothing_seen => {
                written.context = nothing_seen;
                None
            }
            _ => self.whole(),
        }
    }

    fn without_growth(&mut self) -> Option<Change> {
        self.value()?;
        self.whole()
    }

    fn without_repeats(&mut self) -> Option<Change> {
        // Said twice it may stand beside itself, until somebody who has seen both writes again. Nothing is lost.
        None
    }
}

fn seen(path: &Path, held: &HeldRows) -> Option<Revision> {
    held.context(path, held.siblings(path).map(|row| row.as_of))
}

impl Replica {
    /// The values that stand side by side as they are known, oldest first, with own writes; `None`: not followed, or
    /// never heard of.
    pub fn siblings(&self, path: &Path) -> Option<Vec<&Value>> {
        Some(self.siblings_with_revisions(path)?.into_iter().map(|(_, value)| value).collect())
    }

    /// As [`siblings`](Self::siblings), each with the revision of its write.
    pub fn siblings_with_revisions(&self, path: &Path) -> Option<Vec<Sibling<'_>>> {
        let held = self.held.siblings(path);
        let sealed = self
            .sealed_intent::<SiblingsIntent>(path)
            .filter(|_| self.shows_sealed(path, held.map(|row| row.as_of)));
        let waiting = self.waiting_intent::<SiblingsIntent>(path);
        let known = held.is_some() || self.held.knows(path);
        let has_own = sealed.is_some() || waiting.is_some();
        if !(known || (has_own && self.held.follows(path))) {
            return None;
        }
        let rows = held.into_iter().flat_map(|row| &row.state);
        let mut siblings: Vec<Sibling<'_>> = rows.map(|(at, value)| (Some(*at), value)).collect();
        for own in sealed.into_iter().chain(waiting) {
            own.over(&mut siblings);
        }
        Some(siblings)
    }

    /// Puts a value in the place of all that are seen now; `None` only takes those away. What others write meanwhile
    /// stays beside it.
    ///
    /// # Errors
    /// When the value is larger than 256 KiB or the outbox is full.
    pub fn siblings_set(&mut self, path: &Path, value: Option<Value>) -> Result<(), WriteError> {
        super::error::check_value(value.as_ref())?;
        self.say(path, self.siblings_intent(path, value))
    }

    pub(super) fn siblings_intent(&self, path: &Path, value: Option<Value>) -> SiblingsIntent {
        let context = if self.own_is_under_way::<SiblingsIntent>(path, |_| true) {
            Context::Open
        } else {
            Context::At(seen(path, &self.held))
        };
        SiblingsIntent(Some(Written { value, context }))
    }
}
