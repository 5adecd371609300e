//! Presence: what nodes hold up for as long as they are members. A row is one node's.
//!
//! The record that ends a membership takes its presences away, also when the end was a mistake. So what this node holds
//! up is remembered here, and said again whenever it may have been taken away.

use std::collections::BTreeMap;

use dormouse_proto::{
    ids::NodeId,
    lattice::{Change, PRESENCES_PER_NODE, PresenceDelta, Value},
};

use super::{
    Path, Replica, WriteError,
    held::HeldRows,
    intent::{Entry as _, Intent, Room},
};

/// What was said of the node's own presence. `None`: no longer anything.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PresenceIntent(Option<PresenceDelta>);

/// What this node holds up.
pub(super) type Standing = BTreeMap<Path, Value>;

const BYTES: usize = 32;

impl PresenceIntent {
    const fn new(value: Option<Value>) -> Self {
        Self(Some(PresenceDelta { value }))
    }

    fn value(&self) -> Option<&Value> {
        self.0.as_ref()?.value.as_ref()
    }
}

impl Intent for PresenceIntent {
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

    fn resolve(&mut self, _: &Path, _: &HeldRows) {}

    fn change(&self) -> Option<Change> {
        self.0.clone().map(Change::Presence)
    }

    fn without_history(&mut self) -> Option<Change> {
        None
    }

    fn without_context(&mut self) -> Option<Change> {
        None
    }

    fn without_growth(&mut self) -> Option<Change> {
        self.value()?;
        self.whole()
    }

    fn without_repeats(&mut self) -> Option<Change> {
        None
    }
}

impl Replica {
    /// Who holds something up, in the order of their ids, with this node's own; `None`: not followed, or never heard of.
    /// Before the first lease this node has no id, and its own presence is not among them.
    pub fn presence(&self, path: &Path) -> Option<Vec<(NodeId, &Value)>> {
        let held = self.held.presence(path);
        let me = self.node.map(|(me, _)| me);
        let as_of = held.zip(me).and_then(|(holders, me)| holders.get(&me)).map(|row| row.as_of);
        let sealed = || self.sealed_intent(path).filter(|_| self.shows_sealed(path, as_of));
        let own: Option<&PresenceIntent> = self.waiting_intent(path).or_else(sealed);
        let known = held.is_some() || self.held.knows(path);
        if !(known || (own.is_some() && self.held.follows(path))) {
            return None;
        }
        let rows = held.into_iter().flatten();
        let rows = rows.filter_map(|(node, row)| Some((*node, row.state.value.as_ref()?)));
        let mut holders: BTreeMap<NodeId, &Value> = rows.collect();
        if let (Some(me), Some(own)) = (me, own) {
            holders.remove(&me);
            holders.extend(own.value().map(|value| (me, value)));
        }
        Some(holders.into_iter().collect())
    }

    /// Holds a value up until it is withdrawn with `None`, or the membership ends.
    ///
    /// # Errors
    /// When the value is larger than 256 KiB, 64 are held up already, or the outbox is full.
    pub fn presence_set(&mut self, path: &Path, value: Option<Value>) -> Result<(), WriteError> {
        super::error::check_value(value.as_ref())?;
        let is_new = value.is_some() && !self.standing.contains_key(path);
        if is_new && self.standing.len() >= PRESENCES_PER_NODE {
            return Err(WriteError::TooManyPresences);
        }
        self.say(path, PresenceIntent::new(value.clone()))?;
        match value {
            Some(value) => drop(self.standing.insert(path.clone(), value)),
            None => drop(self.standing.remove(path)),
        }
        Ok(())
    }

    /// Says again everything that this node holds up. Not bounded by the outbox: it was taken once.
    pub(super) fn hold_up_again(&mut self) {
        for (path, value) in &self.standing {
            self.outbox.say(path, PresenceIntent::new(Some(value.clone())).any());
            self.says_again = true;
        }
    }

    /// Says again what this node holds up where a row that is held says that it does not, unless something is said of it
    /// already.
    pub(super) fn hold_up_what_was_taken(&mut self) {
        let Some((me, _)) = self.node else { return };
        let taken = |path: &&Path| {
            let row = self.held.presence(path).and_then(|holders| holders.get(&me));
            let said = self.waiting_intent::<PresenceIntent>(path).is_some()
                || self.sealed.as_ref().is_some_and(|push| push.said.get::<PresenceIntent>(path).is_some());
            !said && row.is_some_and(|row| row.state.value.is_none())
        };
        let taken: Vec<Path> = self.standing.keys().filter(taken).cloned().collect();
        for path in taken {
            let value = self.standing.get(&path).cloned();
            self.outbox.say(&path, PresenceIntent::new(value).any());
            self.says_again = true;
        }
    }

    /// What the relay has refused is not held up any more, unless something newer waits.
    pub(super) fn let_go_of_refused(&mut self, path: &Path, change: &Change) {
        let waits = self.waiting_intent::<PresenceIntent>(path).is_some();
        if matches!(change, Change::Presence(PresenceDelta { value: Some(_) })) && !waits {
            self.standing.remove(path);
        }
    }
}
