//! Messages to single nodes as the reference keeps them: every one that was accepted, and when it ceased to wait.

use std::collections::BTreeMap;

use dormouse_proto::{
    ids::{NodeId, Revision},
    lattice::Value,
    record::Send,
};
use dormouse_relay::state::{Fold, MailCounts, SendVerdict};

use super::{books::Books, limits::Limits, reseed::are_renumbered};
use crate::{
    namespace,
    said::Registry,
    violation::{Violation, ensure, violation},
};

/// One message.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The revision that it was accepted at.
    pub at: u64,
    /// Its sender's name for it.
    pub id: String,
    /// What it says.
    pub payload: Value,
    /// Log time at which nobody waits for it any more.
    expires_at_ms: u64,
    /// When it ceased to wait; `u64::MAX`: it waits.
    until: u64,
}

/// The messages of one namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Letters {
    of: BTreeMap<NodeId, Vec<Letter>>,
    counts: MailCounts,
    /// How many more wait than were counted, because another process had counted them.
    carried: i64,
}

impl Letters {
    /// The messages that waited for a node at a revision.
    pub(super) fn waiting(&self, node: NodeId, at: u64) -> impl Iterator<Item = &Letter> {
        self.of.get(&node).into_iter().flatten().filter(move |it| it.at <= at && at < it.until)
    }

    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.of.keys().copied().collect()
    }

    /// Takes over the numbers of the messages that wait for a node; whether they may have those.
    pub(super) fn renumber(&mut self, node: NodeId, now: &[(u64, String)], safe: u64) -> bool {
        let letters = self.of.get_mut(&node).into_iter().flatten();
        let waiting: Vec<&mut Letter> = letters.filter(|it| it.until == u64::MAX).collect();
        let (old, new): (Vec<u64>, Vec<u64>) =
            (waiting.iter().map(|it| it.at).collect(), now.iter().map(|it| it.0).collect());
        let mut alike = are_renumbered(&old, &new, safe);
        for (letter, (at, id)) in waiting.into_iter().zip(now) {
            alike &= letter.id == *id;
            letter.at = *at;
        }
        alike
    }

    /// What ceased to wait behind `safe` did so when that was given back to the log.
    pub(super) fn end_later(&mut self, safe: u64, now: u64) {
        let ended = self.of.values_mut().flatten().filter(|it| it.until > safe && it.until < u64::MAX);
        ended.for_each(|letter| {
            letter.until = now;
            letter.at = if letter.at > safe { now } else { letter.at };
        });
    }

    /// What was counted before another state took the place of this one.
    pub(super) fn go_on_counting(&mut self, before: &Self) {
        self.counts = before.counts;
        let waiting: u64 = self.of.values().flatten().filter(|it| it.until == u64::MAX).count() as u64;
        let MailCounts { sent, received, expired, undelivered } = self.counts;
        self.carried =
            waiting.cast_signed() + (received + expired + undelivered).cast_signed() - sent.cast_signed();
    }

    fn end(&mut self, at: u64, over: impl Fn(NodeId, &Letter) -> bool) -> Vec<(NodeId, String)> {
        let mut ended = Vec::new();
        for (node, letters) in &mut self.of {
            for letter in letters.iter_mut().filter(|it| it.until == u64::MAX && over(*node, it)) {
                letter.until = at;
                ended.push((*node, letter.id.clone()));
            }
        }
        ended
    }

    /// A record says that a node has its messages up to a revision; some process of that name must really have them.
    pub(super) fn receive(
        &mut self,
        node: NodeId,
        upto: u64,
        at: u64,
        registry: &Registry,
    ) -> Result<(), Violation> {
        let ended = self.end(at, |of, letter| of == node && letter.at <= upto);
        self.counts.received += ended.len() as u64;
        let lost = ended.iter().find(|letter| !registry.delivered.contains(*letter));
        ensure(lost.is_none(), || format!("mail: {lost:?} counts as received, and nobody has it"))
    }

    fn forget(&mut self, fold: &Fold, space: usize) {
        if self.of.is_empty() {
            return;
        }
        let view = fold.namespace(namespace(space));
        let forgotten =
            |node: NodeId| view.is_none_or(|it| it.member(node).is_none() && it.tombstone(node).is_none());
        self.counts.undelivered += self.end(fold.revision().0, |node, _| forgotten(node)).len() as u64;
    }

    pub(super) fn check(&self, fold: Option<(MailCounts, u64)>) -> Result<(), Violation> {
        let Some((counted, waiting)) = fold else { return Ok(()) };
        let MailCounts { sent, received, expired, undelivered } = counted;
        let all = sent.cast_signed() + self.carried;
        let ended = received + waiting + expired + undelivered;
        ensure(counted == self.counts && all == ended.cast_signed(), || {
            format!("mail: {counted:?} and {waiting} wait, must be {:?}", self.counts)
        })
    }
}

impl Books {
    /// A message is sent.
    pub(super) fn send(
        &mut self,
        fold: &Fold,
        send: &Send,
        verdict: SendVerdict,
        log_time_ms: u64,
    ) -> Result<(), Violation> {
        let (node, at) = (send.node, fold.revision());
        let name = format!("mail {node} {}", send.message_id);
        let view = fold.namespace(namespace(self.space));
        let waiting = self.letters.waiting(node, u64::MAX - 1).count() as u64;
        let want = match self.ids.get(&name) {
            Some(known) => {
                let revision = Revision(known.ok_or_else(|| violation("mail: an id without a revision"))?);
                SendVerdict::Accepted { revision, duplicate: true }
            }
            None if view.is_none_or(|it| it.member(node).is_none()) => {
                let was_there = view.is_some_and(|it| it.tombstone(node).is_some());
                if was_there { SendVerdict::Gone } else { SendVerdict::Unknown }
            }
            None if waiting >= self.limits.most(|it| it.inbox_max) => SendVerdict::Full,
            None => SendVerdict::Accepted { revision: at, duplicate: false },
        };
        ensure(want == verdict, || format!("mail: {verdict:?}, must be {want:?}"))?;
        if want == (SendVerdict::Accepted { revision: at, duplicate: false }) {
            self.ids.take(name, Some(at.0), log_time_ms, &self.limits);
            self.letters.counts.sent += 1;
            self.letters.of.entry(node).or_default().push(Letter {
                at: at.0,
                id: send.message_id.as_str().to_owned(),
                payload: send.payload.clone(),
                expires_at_ms: log_time_ms + send.ttl_ms,
                until: u64::MAX,
            });
        }
        Ok(())
    }

    /// Tombstones may have been dropped, and time may have passed.
    pub(super) fn end_letters(&mut self, fold: &Fold, log_time_ms: u64) {
        self.letters.forget(fold, self.space);
        let expired = self.letters.end(fold.revision().0, |_, letter| letter.expires_at_ms <= log_time_ms);
        self.letters.counts.expired += expired.len() as u64;
    }

    /// Only tombstones may have been dropped.
    pub(super) fn forget_letters(&mut self, fold: &Fold) {
        self.letters.forget(fold, self.space);
    }

    /// Ids and events that are too old go.
    pub(super) fn forget_ids(&mut self, log_time_ms: u64) {
        let limits: &Limits = &self.limits;
        self.ids.forget(log_time_ms, limits);
    }
}
