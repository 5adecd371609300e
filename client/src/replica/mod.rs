//! What a node holds between two round trips: rows, its own writes, and how far it has come. Pure: no I/O, no clock,
//! no randomness; ids and stamps are arguments.
//!
//! A row is shown as it was last received, with every own write on top that the row may not contain yet: those that
//! wait, and those of the one sealed push unless the row's context shows that it was read after the push was bound.
//!
//! Invariants: one push is under way at a time, and its number, id and deltas never change; a delta's context is the
//! revision at which its author saw the row, taken at the call, or when it is sealed if an own delta of that row was
//! under way; nothing is dropped without a [`Report`].
//!
//! The order within one answer is: lease, acknowledgement or refusal, `settled`, chunk.

mod asked;
mod counter;
mod disable_wins_flag;
mod elements;
mod error;
mod events;
mod flag;
mod follow;
mod grow_only_set;
mod held;
mod inbox;
mod intent;
mod interest;
mod map;
mod max;
mod members;
pub mod message;
mod min;
mod outbox;
mod path;
mod presence;
mod pull;
mod push;
mod register;
mod remove_wins_set;
mod sealed;
mod set;
mod siblings;
#[cfg(test)]
mod tests;

use dormouse_proto::{
    ids::{Incarnation, NodeId, PushId, PushNo, Revision},
    lattice::Delta,
    traps::{Trap, Traps},
};

pub use error::WriteError;
pub use events::{EventView, Missed};
pub use follow::Follow;
pub use map::Cleared;
pub use path::Path;
pub use pull::Progress;
pub use sealed::SealedPush;
pub use siblings::Sibling;

use held::HeldRows;
use inbox::Inbox;
use intent::{AnyIntent, Intent};
use interest::Interest;
use members::HeldMembers;
use message::Report;
use outbox::Sayings;
use presence::Standing;

/// The replica of one node.
#[derive(Clone, Debug)]
pub struct Replica {
    traps: Traps,
    outbox_bytes: usize,
    node: Option<(NodeId, Incarnation)>,
    held: HeldRows,
    interest: Interest,
    members: HeldMembers,
    inbox: Inbox,
    /// What this node holds up, said or to be said again.
    standing: Standing,
    /// Some of it was said again and is not under way yet.
    says_again: bool,
    /// Said, not sealed yet.
    outbox: Sayings,
    sealed: Option<SealedPush>,
    /// Of the newest push that was sealed.
    push_no: PushNo,
    /// Of the newest chunk; empty before the first.
    token: Vec<u8>,
    /// The highest revision that was ever shown here.
    head: Revision,
    /// Revisions of pushes whose rows arrived with their acknowledgement since the last chunk.
    acked: Vec<Revision>,
    reports: Vec<Report>,
}

/// What is to be sent.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    /// The push under way.
    pub push: Option<OutgoingPush<'a>>,
    /// The pull that goes with it.
    pub pull: OutgoingPull<'a>,
    /// The highest revision that was ever shown here.
    pub head: Revision,
}

/// The push of a request.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingPush<'a> {
    /// Its number.
    pub push_no: PushNo,
    /// Its id.
    pub push_id: PushId,
    /// Its deltas.
    pub deltas: &'a [Delta],
    /// It was sent before.
    pub retried: bool,
}

/// The pull of a request.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingPull<'a> {
    /// Of the newest chunk; empty: from the beginning.
    pub token: &'a [u8],
    /// Collections by name, `*` and `@members` among them.
    pub collections: &'a [String],
    /// Revisions of pushes whose rows have arrived.
    pub acked: &'a [Revision],
    /// The lowest revision at which a row of a collection is held that the token does not know.
    pub held_since: Option<Revision>,
}

/// What the relay has not confirmed yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Rows that are touched.
    pub deltas: usize,
    /// An upper bound of their encoding.
    pub bytes: usize,
}

impl Replica {
    /// A replica that holds nothing. `outbox_bytes` bounds what may wait, the sealed push included.
    pub fn new(follow: Follow, outbox_bytes: usize) -> Self {
        Self {
            traps: Traps::default(),
            outbox_bytes,
            node: None,
            interest: Interest::new(&follow),
            held: HeldRows::new(follow),
            members: HeldMembers::default(),
            inbox: Inbox::default(),
            standing: Standing::new(),
            says_again: false,
            outbox: Sayings::default(),
            sealed: None,
            push_no: PushNo(0),
            token: Vec::new(),
            head: Revision::ZERO,
            acked: Vec::new(),
            reports: Vec::new(),
        }
    }

    /// Leaves one rule out, to show that a check would notice.
    #[must_use]
    pub fn with_traps(self, traps: Traps) -> Self {
        Self { traps, ..self }
    }

    /// What the relay calls this node; `None` before the first lease.
    pub const fn node(&self) -> Option<(NodeId, Incarnation)> {
        self.node
    }

    /// The highest revision that was ever shown here.
    pub const fn head(&self) -> Revision {
        self.head
    }

    /// The newest revision at which a followed collection was known as a whole; zero: never.
    pub fn barrier(&self, collection: &str) -> Revision {
        self.held.barrier(collection)
    }

    /// What one transmission carries. To be called for each, retries too: it counts them.
    pub fn outgoing(&mut self) -> Outgoing<'_> {
        if let Some(push) = &mut self.sealed {
            push.sent = push.sent.saturating_add(1);
        }
        self.interest.ask(self.held.follow(), !self.acked.is_empty());
        let push = self.sealed.as_ref().map(|push| OutgoingPush {
            push_no: push.push_no(),
            push_id: push.push_id(),
            deltas: push.deltas(),
            retried: push.sent > 1,
        });
        Outgoing {
            push,
            pull: OutgoingPull {
                token: &self.token,
                collections: self.held.follow().names(),
                acked: &self.acked,
                held_since: self.interest.held_since(),
            },
            head: self.head,
        }
    }

    /// What waits, and what is under way.
    pub fn pending(&self) -> Pending {
        let sealed = self.sealed.as_ref();
        Pending {
            deltas: self.outbox.rows() + sealed.map_or(0, |push| push.said.rows()),
            bytes: self.outbox.bytes() + self.sealed_bytes(),
        }
    }

    /// Rows that wait and are not under way yet.
    pub fn waiting(&self) -> usize {
        self.outbox.rows()
    }

    /// Whether something is to be pushed that no program has just said: what this node holds up was taken away by mistake.
    pub const fn says_again(&self) -> bool {
        self.says_again
    }

    /// What became of writes, or parts of them, that did not end as the program was told; each is told once.
    pub fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    fn sealed_bytes(&self) -> usize {
        self.sealed.as_ref().map_or(0, |push| push.said.bytes())
    }

    /// Takes a write into the outbox.
    fn say<I: Intent>(&mut self, path: &Path, intent: I) -> Result<(), WriteError> {
        self.say_all(vec![(path.clone(), intent.any())])
    }

    /// Takes writes of different keys or types into the outbox, all or none.
    fn say_all(&mut self, intents: Vec<(Path, AnyIntent)>) -> Result<(), WriteError> {
        let needed = intents.iter().map(|(path, intent)| self.outbox.growth(path, intent)).sum();
        let pending = self.outbox.bytes() + self.sealed_bytes();
        if needed > 0 && pending + needed > self.outbox_bytes {
            let limit = self.outbox_bytes;
            return Err(WriteError::OutboxFull { pending, needed, limit });
        }
        for (path, intent) in intents {
            self.outbox.say(&path, intent);
        }
        Ok(())
    }

    /// What the sealed push says of a key, unless it is known to have been refused.
    fn sealed_intent<I: Intent>(&self, path: &Path) -> Option<&I> {
        self.sealed.as_ref().filter(|push| !push.void)?.said.get(path)
    }

    /// What waits of a key.
    fn waiting_intent<I: Intent>(&self, path: &Path) -> Option<&I> {
        self.outbox.get(path)
    }

    /// Whether a row that is held as of `as_of` may lack the sealed push.
    fn shows_sealed(&self, path: &Path, as_of: Option<Revision>) -> bool {
        let bound = self.sealed.as_ref().and_then(|push| push.bound);
        bound.is_none_or(|bound| self.held.context(path, as_of).is_none_or(|context| context < bound))
    }

    /// Whether a row has a delta in the sealed push, so that its context must be left open.
    fn own_is_under_way<I: Intent>(&self, path: &Path, touches: impl Fn(&I) -> bool) -> bool {
        let sealed = self.sealed.as_ref().and_then(|push| push.said.get(path));
        sealed.is_some_and(touches) && !self.traps.has(Trap::CallContext)
    }
}
