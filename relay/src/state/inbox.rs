//! Messages to one node each, in the order in which the log accepted them.
//!
//! A message waits until its node has received it, which a record says, until its time is over, or until the tombstone
//! of its node is dropped. What was never received is counted.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use dormouse_proto::{
    ids::{NodeId, OnceId, Revision},
    lattice::Value,
    record::Send,
    rows::encode_value,
};
use foldhash::fast::RandomState;

use super::policy::Limits;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The revision that it was accepted at.
    pub revision: Revision,
    /// Its sender's name for it.
    pub message_id: String,
    /// Who sent it, in its own words.
    pub sender: String,
    /// What it says: an encoded `Value`.
    pub payload: Box<[u8]>,
    /// Log time at which nobody waits for it any more.
    pub expires_at_ms: u64,
}

impl Mail {
    /// What it takes in memory and on the wire, about.
    pub fn bytes(&self) -> usize {
        const BESIDE: usize = 128;
        BESIDE + self.message_id.len() + self.sender.len() + self.payload.len()
    }
}

#[derive(Clone, Debug, Default)]
struct Inbox {
    mails: VecDeque<Mail>,
    bytes: u64,
}

/// What became of messages, since this process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailCounts {
    /// Accepted.
    pub sent: u64,
    /// Received by their nodes.
    pub received: u64,
    /// Not received in their time.
    pub expired: u64,
    /// Not received before their node was forgotten.
    pub undelivered: u64,
}

/// The inboxes of one namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Inboxes {
    of: HashMap<NodeId, Inbox, RandomState>,
    /// By the time at which they expire.
    due: BTreeSet<(u64, Revision, NodeId)>,
    bytes: u64,
    pub(super) counts: MailCounts,
}

impl Inboxes {
    /// Whether one more message of that size finds room.
    pub(super) fn has_room(&self, node: NodeId, payload: &Value, limits: &Limits) -> bool {
        let Some(inbox) = self.of.get(&node) else { return true };
        (inbox.mails.len() as u64) < limits.inbox_max
            && inbox.bytes + payload.len() as u64 <= limits.inbox_bytes_max
    }

    pub(super) fn put(&mut self, send: &Send, at: Revision, log_time_ms: u64) {
        self.counts.sent += 1;
        self.restore(
            send.node,
            Mail {
                revision: at,
                message_id: OnceId::as_str(&send.message_id).to_owned(),
                sender: send.sender.clone(),
                payload: encode_value(&send.payload),
                expires_at_ms: log_time_ms.saturating_add(send.ttl_ms),
            },
        );
    }

    /// Puts a message behind the others.
    pub(super) fn restore(&mut self, node: NodeId, mail: Mail) {
        self.due.insert((mail.expires_at_ms, mail.revision, node));
        let inbox = self.of.entry(node).or_default();
        inbox.bytes += mail.bytes() as u64;
        self.bytes += mail.bytes() as u64;
        // Not twice as much: what is reserved is memory that nobody is told of.
        if inbox.mails.len() == inbox.mails.capacity() {
            inbox.mails.reserve_exact((inbox.mails.len() / 4).max(4));
        }
        inbox.mails.push_back(mail);
    }

    /// The messages to a node after a revision.
    pub(super) fn after(&self, node: NodeId, after: Revision) -> impl Iterator<Item = &Mail> {
        let mails = self.of.get(&node).map(|inbox| &inbox.mails);
        let skipped = mails.map_or(0, |it| it.partition_point(|mail| mail.revision <= after));
        mails.into_iter().flat_map(move |it| it.range(skipped..))
    }

    /// How many messages wait for a node.
    pub(super) fn waiting(&self, node: NodeId) -> usize {
        self.of.get(&node).map_or(0, |inbox| inbox.mails.len())
    }

    /// How many messages wait, and what they take.
    pub(super) fn all_waiting(&self) -> (u64, u64) {
        (self.due.len() as u64, self.bytes)
    }

    /// The node has received everything up to a revision. Returns how much that was.
    pub(super) fn receive(&mut self, node: NodeId, upto: Revision) -> u64 {
        let received = self.drop_while(node, |mail| mail.revision <= upto);
        self.counts.received += received;
        received
    }

    /// The node is forgotten.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.counts.undelivered += self.drop_while(node, |_| true);
    }

    fn drop_while(&mut self, node: NodeId, over: impl Fn(&Mail) -> bool) -> u64 {
        let Some(inbox) = self.of.get_mut(&node) else { return 0 };
        let mut dropped = 0;
        while inbox.mails.front().is_some_and(&over)
            && let Some(mail) = inbox.mails.pop_front()
        {
            inbox.bytes -= mail.bytes() as u64;
            self.bytes -= mail.bytes() as u64;
            self.due.remove(&(mail.expires_at_ms, mail.revision, node));
            dropped += 1;
        }
        if inbox.mails.is_empty() {
            self.of.remove(&node);
        }
        dropped
    }

    /// Drops messages whose time is over, the oldest first and at most so many.
    pub(super) fn expire(&mut self, log_time_ms: u64, at_most: usize) {
        for _ in 0..at_most {
            let Some((expires_at_ms, revision, node)) = self.due.first().copied() else { return };
            if expires_at_ms > log_time_ms {
                return;
            }
            self.due.pop_first();
            self.counts.expired += 1;
            let Some(inbox) = self.of.get_mut(&node) else { continue };
            if let Ok(place) = inbox.mails.binary_search_by_key(&revision, |mail| mail.revision)
                && let Some(mail) = inbox.mails.remove(place)
            {
                inbox.bytes -= mail.bytes() as u64;
                self.bytes -= mail.bytes() as u64;
            }
            if inbox.mails.is_empty() {
                self.of.remove(&node);
            }
        }
    }

    /// All messages, by node.
    pub(super) fn in_order(&self) -> BTreeMap<NodeId, Vec<&Mail>> {
        self.of.iter().map(|(node, inbox)| (*node, inbox.mails.iter().collect())).collect()
    }
}
