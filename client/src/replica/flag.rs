//! Flags of either kind: one row. In the flag an on wins, so it is the off that says what its author had seen.

use std::marker::PhantomData;

use dormouse_proto::{
    ids::Revision,
    lattice::{Change, FlagDelta},
};

use super::{
    Path, Replica, WriteError,
    held::HeldRows,
    intent::{AddWins, Context, Entry, Intent, Room, Said, Winner},
};

/// A kind of flag.
pub(super) trait FlagKind: Winner + Clone + Default + PartialEq {
    /// As a delta says it.
    fn change(delta: FlagDelta) -> Change;
}

/// What was said of one flag of either kind. `None`: no longer anything.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SwitchIntent<K>(Option<Said>, PhantomData<K>);

/// What was said of one flag in which an on wins.
pub(super) type FlagIntent = SwitchIntent<AddWins>;

impl FlagKind for AddWins {
    fn change(delta: FlagDelta) -> Change {
        Change::Flag(delta)
    }
}

const BYTES: usize = 24;

impl<K: FlagKind> SwitchIntent<K>
where
    Self: Intent,
{
    fn without(&mut self, dropped: impl FnOnce(Said) -> bool) -> Option<Change> {
        if self.0.is_some_and(dropped) { self.whole() } else { None }
    }
}

impl<K: FlagKind> Intent for SwitchIntent<K>
where
    Self: Entry,
{
    fn rows(&self) -> usize {
        1
    }

    fn bytes(&self) -> usize {
        BYTES
    }

    fn growth(&self, _: &Self) -> usize {
        0
    }

    fn then(&mut self, later: Self) {
        *self = later;
    }

    fn split(&mut self, room: &mut Room) -> Option<Self> {
        room.take(1, BYTES).then(|| std::mem::take(self))
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn resolve(&mut self, path: &Path, held: &HeldRows) {
        if let Some(said) = &mut self.0 {
            said.resolve(|| seen::<Self>(path, held));
        }
    }

    fn change(&self) -> Option<Change> {
        self.0.map(|said| K::change(FlagDelta { on: said.on, as_of: said.as_of() }))
    }

    fn without_history(&mut self) -> Option<Change> {
        let dropped = self.without(Said::falls_with_history);
        if let Some(context) = self.0.as_mut().and_then(|said| said.context.as_mut()) {
            context.lose_history();
        }
        dropped
    }

    fn without_context(&mut self) -> Option<Change> {
        self.without(|said| Some(said.on) == K::LOSES)
    }

    fn without_growth(&mut self) -> Option<Change> {
        self.without(|said| said.on)
    }

    fn without_repeats(&mut self) -> Option<Change> {
        None
    }
}

/// The revision at which the flag is seen.
fn seen<I: Entry>(path: &Path, held: &HeldRows) -> Option<Revision> {
    held.context(path, held.switch(path, I::KIND).map(|row| row.as_of))
}

impl Replica {
    /// A flag as it is known, with own writes; `None`: not followed, or never heard of.
    pub(super) fn switch<K>(&self, path: &Path) -> Option<bool>
    where
        SwitchIntent<K>: Intent,
    {
        let held = self.held.switch(path, SwitchIntent::<K>::KIND);
        let shows_sealed = |_: &&SwitchIntent<K>| self.shows_sealed(path, held.map(|row| row.as_of));
        let sealed = || self.sealed_intent::<SwitchIntent<K>>(path).filter(shows_sealed);
        let own = self.waiting_intent::<SwitchIntent<K>>(path).or_else(sealed).and_then(|own| own.0);
        let known = held.is_some() || self.held.knows(path);
        match own {
            Some(own) if known || self.held.follows(path) => Some(own.on),
            _ => held.map(|row| row.state).or(known.then_some(false)),
        }
    }

    /// Says that a flag is to be on, or off.
    pub(super) fn switch_intent<K: Winner>(&self, path: &Path, on: bool) -> SwitchIntent<K>
    where
        SwitchIntent<K>: Intent,
    {
        let context = (K::LOSES == Some(on)).then(|| {
            if self.own_is_under_way::<SwitchIntent<K>>(path, |_| true) {
                Context::Open
            } else {
                Context::At(seen::<SwitchIntent<K>>(path, &self.held))
            }
        });
        SwitchIntent(Some(Said { on, context }), PhantomData)
    }

    /// Whether the flag is on as it is known, with own writes; `None`: not followed, or never heard of.
    pub fn flag(&self, path: &Path) -> Option<bool> {
        self.switch::<AddWins>(path)
    }

    /// Switches the flag. An off takes away what is seen now; an on that others say meanwhile wins.
    ///
    /// # Errors
    /// When the outbox is full.
    pub fn flag_set(&mut self, path: &Path, on: bool) -> Result<(), WriteError> {
        self.say(path, self.switch_intent::<AddWins>(path, on))
    }
}
