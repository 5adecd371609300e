//! Rows as the wire tells them, taken apart.

use std::collections::BTreeMap;

use dormouse_proto::{
    ids::{Incarnation, NodeId},
    lattice::{Type, Value},
    wire::v1::{self, key_state::State},
};

use crate::rows::{Event, RowNo, Shown, find, name};

/// A row, or a part of one, as the wire tells it.
#[derive(Clone, Debug)]
pub struct Told {
    /// Which.
    pub row: RowNo,
    /// What is said of it.
    pub part: Part,
}

/// What is said of a row.
#[derive(Clone, Debug)]
pub enum Part {
    /// All that there is to see of it; of a register also the winning stamp.
    Whole(Shown, u64),
    /// One event, and who appended it.
    Event(Event, Option<NodeId>),
    /// Events up to here are gone.
    Trimmed(u64),
    /// What one node holds up.
    Holder(NodeId, Incarnation, Option<Value>),
}

struct Taking<'a> {
    key: &'a v1::KeyState,
    told: Vec<Told>,
}

impl Taking<'_> {
    fn add(&mut self, kind: Type, element: Option<&str>, part: Part) -> Result<(), String> {
        let row = find(&self.key.collection, &self.key.key, kind, element)
            .ok_or_else(|| format!("a row that nobody wrote: {:?}", self.key))?;
        self.told.push(Told { row, part });
        Ok(())
    }

    fn whole(&mut self, kind: Type, shown: Shown) -> Result<(), String> {
        self.add(kind, None, Part::Whole(shown, 0))
    }

    fn elements(&mut self, kind: Type, set: &v1::SetState) -> Result<(), String> {
        let part = |present| Part::Whole(Shown::Present(present), 0);
        set.present.iter().try_for_each(|it| self.add(kind, Some(it), part(true)))?;
        set.removed.iter().try_for_each(|it| self.add(kind, Some(it), part(false)))
    }

    fn events(&mut self, state: &v1::EventsState) -> Result<(), String> {
        for event in &state.events {
            let payload = value(event.payload.as_ref()).ok_or("an event without content")?;
            let event_of = Event { at: (event.revision, event.index), payload };
            self.add(Type::Events, None, Part::Event(event_of, event.node_id.parse().ok()))?;
        }
        match state.trimmed_upto {
            0 => Ok(()),
            upto => self.add(Type::Events, None, Part::Trimmed(upto)),
        }
    }

    fn siblings(&mut self, state: &v1::SiblingsState) -> Result<(), String> {
        let one = |it: &v1::siblings_state::Sibling| Some((it.revision, value(it.value.as_ref())?));
        let all: Option<Vec<_>> = state.siblings.iter().map(one).collect();
        self.whole(Type::Siblings, Shown::Siblings(all.ok_or("a sibling without content")?))
    }

    fn holders(&mut self, state: &v1::PresenceState) -> Result<(), String> {
        for it in &state.holders {
            let node = it.node_id.parse().map_err(|_| "a holder without a name")?;
            let part = Part::Holder(node, Incarnation(it.incarnation), value(it.value.as_ref()));
            self.add(Type::Presence, None, part)?;
        }
        Ok(())
    }

    fn take(&mut self) -> Result<(), String> {
        let present = |flag: &v1::FlagState| Shown::Present(flag.on);
        match self.key.state.as_ref().ok_or("a key without a state")? {
            State::Counter(it) => self.whole(Type::Counter, Shown::Counter(it.value)),
            State::Register(it) => {
                let shown = Shown::Register(value(it.value.as_ref()));
                self.add(Type::Register, None, Part::Whole(shown, it.stamp_ms))
            }
            State::Set(set) => self.elements(Type::Set, set),
            State::GrowOnlySet(set) => self.elements(Type::GrowOnlySet, set),
            State::RemoveWinsSet(set) => self.elements(Type::RemoveWinsSet, set),
            State::Flag(flag) => self.whole(Type::Flag, present(flag)),
            State::DisableWinsFlag(flag) => self.whole(Type::DisableWinsFlag, present(flag)),
            State::Max(it) => self.whole(Type::Max, Shown::Number(it.value)),
            State::Min(it) => self.whole(Type::Min, Shown::Number(it.value)),
            State::Siblings(it) => self.siblings(it),
            State::Events(it) => self.events(it),
            State::Presence(it) => self.holders(it),
        }
    }
}

fn value(value: Option<&v1::Value>) -> Option<Value> {
    value.cloned().and_then(|value| Value::try_from(value).ok())
}

/// Takes wire rows apart; rows that the world does not have are errors of their own.
///
/// # Errors
/// A row that nobody ever wrote.
pub fn told(keys: &[v1::KeyState]) -> Result<Vec<Told>, String> {
    let mut told = Vec::new();
    for key in keys {
        let mut taking = Taking { key, told };
        taking.take()?;
        told = taking.told;
    }
    Ok(told)
}

/// What a reader sees who is told all of a row; `None`: he is told nothing of it.
pub fn whole(told: &[Told], row: RowNo) -> Option<(Shown, u64)> {
    let (mut events, mut holders, mut any) = (Vec::new(), BTreeMap::new(), false);
    let kind = crate::rows::all()[row].kind;
    for it in told.iter().filter(|it| it.row == row) {
        any = true;
        match &it.part {
            Part::Whole(shown, stamp) => return Some((shown.clone(), *stamp)),
            Part::Event(event, _) => events.push(event.clone()),
            Part::Trimmed(_) => {}
            Part::Holder(node, _, value) => holders.extend(value.clone().map(|value| (*node, value))),
        }
    }
    let shown = if kind == Type::Events { Shown::Events(events) } else { Shown::Holders(holders) };
    any.then_some((shown, 0))
}

/// For traces.
pub fn tell(it: &Told) -> String {
    match &it.part {
        Part::Whole(shown, _) => format!("{} = {shown:?}", name(it.row)),
        part => format!("{}: {part:?}", name(it.row)),
    }
}
