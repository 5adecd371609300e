//! The fold: a function of the log's records and of nothing else.
//!
//! Every relay that has applied the same records holds the same state, to the bit of its hash. So nothing in here reads
//! a clock, draws a random number or lets the order of a hash table show: durations are log time, which is made of
//! records, and every record takes the next revision whether it takes effect or not.
//!
//! Applying is O(1) for each delta and knows nothing of the nodes that will pull; pulling is O(what was missed).

mod ahead;
mod backlog;
mod collapsed;
mod collection;
mod inbox;
mod index;
mod keys;
mod members;
mod namespace;
mod once;
mod places;
mod policy;
mod presences;
mod push;
mod reseed;
mod rows;
mod segments;
mod shown;
mod snapshot;
#[cfg(test)]
mod tests;
mod token;

use std::collections::{BTreeMap, VecDeque};

use dormouse_proto::{
    ids::{Incarnation, Namespace, NodeId, Revision},
    record::{Digest, Frame, Gone, Join, Policy, Push, Received, Record, Send, Write},
    traps::{Trap, Traps},
};

pub use backlog::{Chunk, Lost, Pull, PullError};
pub use collapsed::Collapsed;
pub use inbox::{Mail, MailCounts};
pub use members::{JoinVerdict, LastPush, Member, Refused, RosterEntry, Soft, Tags, Tombstone};
pub use namespace::View;
pub use policy::Limits;
pub use push::{PushVerdict, WriteVerdict};
pub use reseed::Seeded;
pub use shown::{ReadBounds, Touched};
pub use snapshot::{Restore, RestoreError, StateHash};
pub use token::{Token, TokenError};

use members::Now;
use namespace::NamespaceState;
use once::OnceKey;
use segments::Segments;

/// Why the fold refuses a push. The same on every relay, because only records decide it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// An `as_of` is not below the push's own revision.
    ContextInvalid,
    /// The history that a delta's context needs was collected, or belonged to a tail that the log lost.
    Stale,
    /// A counter would leave the range of 64 bits.
    OutOfRange,
    /// The namespace may not have more rows, bytes or collections.
    Quota,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// An Open, a Digest or a Policy: it takes effect, and nobody waits for it.
    Noted,
    /// A push.
    Push(PushVerdict),
    /// A write of a caller that is no node.
    Write(WriteVerdict),
    /// A join.
    Join(JoinVerdict),
    /// An end; `false`: void, because something newer is known of the member.
    Gone(bool),
    /// A message to one node.
    Send(SendVerdict),
    /// A state that was to take the place of this one.
    Reseed(Seeded),
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendVerdict {
    /// It waits for its node, now or, if it is a duplicate, since then.
    Accepted {
        /// The revision that it was accepted at.
        revision: Revision,
        /// It was accepted before; nothing has changed now.
        duplicate: bool,
    },
    /// No such member is known. Nothing is remembered, so a retry may be accepted.
    Unknown,
    /// The node was a member. Nothing is remembered.
    Gone,
    /// As many messages wait for the node as may. Nothing is remembered.
    Full,
}

impl Verdict {
    /// Where deltas took effect, now or before.
    pub fn bound_at(&self) -> Option<Revision> {
        match self {
            Self::Push(PushVerdict::Bound { revision, .. })
            | Self::Write(WriteVerdict::Bound { revision, .. }) => Some(*revision),
            _ => None,
        }
    }
}

/// The state of one log: all its namespaces.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    segments: Segments,
    log_time_ms: u64,
    stamp_ms: u64,
    limits: Limits,
    /// The revision of the newest record that may have changed what nodes see.
    effective: Revision,
    names: BTreeMap<Namespace, usize>,
    namespaces: Vec<NamespaceState>,
    /// Collections with index work left; not part of the state.
    untidy: VecDeque<(usize, usize)>,
    /// What the next Reseed that takes effect puts in the place of all this; not part of the state.
    seed: Option<Box<Self>>,
    traps: Traps,
}

impl Fold {
    /// The state before the first record.
    pub fn new() -> Self {
        Self::default()
    }

    /// A fold that leaves out a rule.
    pub fn with_traps(traps: Traps) -> Self {
        Self { traps, ..Self::default() }
    }

    /// The revision of the last record applied.
    pub fn revision(&self) -> Revision {
        self.segments.head()
    }

    /// Whether this history gave that revision out.
    pub fn is_valid(&self, revision: Revision) -> bool {
        self.segments.contains(revision)
    }

    /// How many records this history has after that revision.
    pub fn records_after(&self, revision: Revision) -> u64 {
        self.segments.count_after(revision)
    }

    /// The log's virtual time.
    pub fn log_time_ms(&self) -> u64 {
        self.log_time_ms
    }

    /// The newest wall clock that any frame carried.
    pub fn stamp_ms(&self) -> u64 {
        self.stamp_ms
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The namespaces that ever were written to, with what is in them.
    pub fn namespaces(&self) -> impl Iterator<Item = (&Namespace, View<'_>)> {
        self.names.iter().map(|(name, number)| (name, self.view_of(*number)))
    }

    /// A namespace, to be read.
    pub fn namespace(&self, name: &Namespace) -> Option<View<'_>> {
        self.names.get(name).map(|number| self.view_of(*number))
    }

    fn view_of(&self, number: usize) -> View<'_> {
        View::new(number, &self.namespaces[number])
    }

    /// Whether something in the state waits for log time to pass.
    pub fn awaits_log_time(&self) -> bool {
        self.namespaces.iter().any(NamespaceState::awaits_log_time)
    }

    /// Applies a frame, record by record.
    pub fn apply_frame(&mut self, frame: &Frame, mut each: impl FnMut(&Self, usize, &Record, Verdict)) {
        self.stamp_ms = self.stamp_ms.max(frame.header.stamp_ms);
        let mut looked_at = 0;
        for (nth, record) in frame.records.iter().enumerate() {
            if nth == looked_at {
                looked_at += self.look_ahead(&frame.records[nth..]);
            }
            let verdict = self.apply(record, frame.header.session);
            each(self, nth, record, verdict);
        }
    }

    /// Applies one record that the session wrote.
    fn apply(&mut self, record: &Record, session: u64) -> Verdict {
        let at = match record {
            Record::Open { base } if !self.traps.has(Trap::NoOpen) => self.segments.jump(*base),
            Record::Reseed(reseed) => return Verdict::Reseed(self.reseed(reseed)),
            _ => self.segments.advance(),
        };
        if record.takes_effect() {
            self.effective = at;
        }
        match record {
            Record::Open { .. } | Record::Reseed(_) => Verdict::Noted,
            Record::Push(push) => Verdict::Push(self.push(push, at, session)),
            Record::Write(write) => Verdict::Write(self.write(write, at)),
            Record::Join(join) => Verdict::Join(self.join(join, at, session)),
            Record::Gone(gone) => Verdict::Gone(self.gone(gone, at)),
            Record::Digest(digest) => {
                self.digest(digest, at, session);
                Verdict::Noted
            }
            Record::Policy(policy) => {
                self.policy(policy);
                Verdict::Noted
            }
            Record::Send(send) => Verdict::Send(self.send(send, at)),
            Record::Received(received) => {
                self.received(received);
                Verdict::Noted
            }
        }
    }

    /// One bounded step of index tidying; returns whether there is more to do.
    pub fn tidy(&mut self) -> bool {
        let Some((namespace, collection)) = self.untidy.pop_front() else {
            return false;
        };
        if self.namespaces[namespace].tidy(collection) {
            self.untidy.push_back((namespace, collection));
        }
        !self.untidy.is_empty()
    }

    fn now(&self) -> Now {
        Now { log_time_ms: self.log_time_ms, stamp_ms: self.stamp_ms }
    }

    /// The number of a namespace, made if it is new and one more may be.
    fn namespace_number(&mut self, name: &Namespace) -> Option<usize> {
        if let Some(number) = self.names.get(name) {
            return Some(*number);
        }
        if self.namespaces.len() as u64 >= self.limits.namespaces_max {
            return None;
        }
        let number = self.namespaces.len();
        self.namespaces.push(NamespaceState::new(self.limits));
        self.names.insert(name.clone(), number);
        Some(number)
    }

    fn policy(&mut self, policy: &Policy) {
        let Some(name) = &policy.namespace else {
            self.limits.apply(policy);
            self.namespaces.iter_mut().for_each(|it| it.limit(&self.limits));
            return;
        };
        if let Some(number) = self.namespace_number(name) {
            let namespace = &mut self.namespaces[number];
            policy::amend(&mut namespace.own, policy);
            namespace.limit(&self.limits);
        }
    }

    fn send(&mut self, send: &Send, at: Revision) -> SendVerdict {
        let log_time_ms = self.log_time_ms;
        let Some(number) = self.names.get(&send.namespace) else { return SendVerdict::Unknown };
        let namespace = &mut self.namespaces[*number];
        let key = OnceKey::of_mail(send.node, send.message_id.as_str());
        if let Some(Ok(revision)) = namespace.once.get(key) {
            return SendVerdict::Accepted { revision, duplicate: true };
        }
        if namespace.members.get(send.node).is_none() {
            let was_there = namespace.members.tombstone(send.node).is_some();
            return if was_there { SendVerdict::Gone } else { SendVerdict::Unknown };
        }
        let limits = namespace.limits;
        if !namespace.inboxes.has_room(send.node, &send.payload, &limits) {
            return SendVerdict::Full;
        }
        namespace.once.insert(key, Ok(at), log_time_ms, &limits);
        namespace.inboxes.put(send, at, log_time_ms);
        SendVerdict::Accepted { revision: at, duplicate: false }
    }

    fn received(&mut self, received: &Received) {
        if let Some(number) = self.names.get(&received.namespace) {
            self.namespaces[*number].inboxes.receive(received.node, received.upto);
        }
    }

    fn push(&mut self, push: &Push, at: Revision, session: u64) -> PushVerdict {
        let Some(number) = self.names.get(&push.namespace).copied() else {
            return PushVerdict::Unknown;
        };
        let (now, limits) = (self.now(), self.namespaces[number].limits);
        let author = Some((push.node, push.incarnation));
        let context = context(&self.segments, &limits, at, now, author, self.traps);
        let verdict = push::push(&mut self.namespaces[number], push, &context, session);
        self.note_untidy(number);
        verdict
    }

    fn write(&mut self, write: &Write, at: Revision) -> WriteVerdict {
        let Some(number) = self.namespace_number(&write.namespace) else {
            return WriteVerdict::Refused(Refused { reason: Reason::Quota, deltas: Vec::new() });
        };
        let (now, limits) = (self.now(), self.namespaces[number].limits);
        let context = context(&self.segments, &limits, at, now, None, self.traps);
        let verdict = push::write(&mut self.namespaces[number], write, &context);
        self.note_untidy(number);
        verdict
    }

    fn note_untidy(&mut self, number: usize) {
        while let Some(collection) = self.namespaces[number].take_untidy() {
            self.untidy.push_back((number, collection));
        }
    }

    fn join(&mut self, join: &Join, at: Revision, session: u64) -> JoinVerdict {
        let (now, traps) = (self.now(), self.traps);
        // A namespace is kept for ever, so a join that cannot take effect does not make one.
        if join.previous.is_some() && !self.names.contains_key(&join.namespace) {
            return JoinVerdict::Forgotten;
        }
        let Some(number) = self.namespace_number(&join.namespace) else {
            return JoinVerdict::Full;
        };
        let limits = self.namespaces[number].limits;
        let members = &mut self.namespaces[number].members;
        let verdict = members.join(join, at, now, session, &limits);
        if traps.has(Trap::Resend)
            && verdict == (JoinVerdict::Admitted { again: false })
            && let Some(member) = members.get_mut(join.node)
        {
            member.last = LastPush::default();
        }
        self.note_untidy(number);
        verdict
    }

    fn gone(&mut self, gone: &Gone, at: Revision) -> bool {
        let now = self.now();
        let Some(number) = self.names.get(&gone.namespace).copied() else {
            return false;
        };
        let namespace = &mut self.namespaces[number];
        let limits = namespace.limits;
        let ended = namespace.members.gone(gone, at, now);
        if ended {
            namespace.withdraw(gone.node, at);
            namespace.forget_ended(now.log_time_ms, &limits);
        }
        let at_least = usize::try_from(limits.dead_rows_min).unwrap_or(usize::MAX);
        namespace.collapsed.dead_rows += namespace.members.collect(at_least);
        self.note_untidy(number);
        ended
    }

    fn digest(&mut self, digest: &Digest, at: Revision, session: u64) {
        // Log time can only be late: one relay whose clock runs away moves it by at most this much.
        const STEP_MS: u64 = 5_000;
        /// No record changes more rows than this.
        const SWEEP: usize = 1_024;
        let proposed = digest.log_time_ms.min(self.log_time_ms.saturating_add(STEP_MS));
        self.log_time_ms = self.log_time_ms.max(proposed);
        for heard in &digest.evidence {
            if let Some(number) = self.names.get(&heard.namespace) {
                let members = &mut self.namespaces[*number].members;
                members.heard(heard.node, heard.incarnation, heard.contact, session, self.log_time_ms);
            }
        }
        for number in 0..self.namespaces.len() {
            self.namespaces[number].pass_time(self.log_time_ms, at, SWEEP);
            self.note_untidy(number);
        }
    }
}

fn context<'a>(
    segments: &'a Segments,
    limits: &'a Limits,
    at: Revision,
    now: Now,
    author: Option<(NodeId, Incarnation)>,
    traps: Traps,
) -> push::Context<'a> {
    let Now { log_time_ms, stamp_ms } = now;
    push::Context { at, segments, limits, log_time_ms, stamp_ms, author, traps }
}
