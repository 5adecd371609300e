//! What the log is told: contacts, the time, and up to where this relay has heard.

use std::sync::{Arc, atomic::Ordering};

use dormouse_proto::record::{self, Digest, Record};
use tokio::sync::oneshot;
use tracing::info;

use super::Keeper;
use crate::{
    liveness::{LeaseKey, Millis, Timestamp},
    sequencer::{Outcome, Sequencer, Unwritten},
};

/// Evidence in one digest, so that a frame stays small.
const EVIDENCE: usize = 1_000;

impl Keeper {
    /// A contact is told with the next digest, unless a newer one of that node is.
    pub(super) fn note_untold(&self, key: LeaseKey, evidence: record::Evidence) {
        let newness = |it: &record::Evidence| (it.incarnation, it.contact.beat);
        let mut untold = self.untold.lock();
        if untold.get(&key).is_none_or(|noted| newness(noted) < newness(&evidence)) {
            untold.insert(key, evidence);
        }
    }

    /// The record that was to tell of a contact may not have been written. It is told with the next digest; answers what
    /// may be promised meanwhile.
    pub fn tell_later(&self, key: LeaseKey, evidence: record::Evidence) -> Millis {
        self.note_untold(key, evidence);
        match self.leases.view(key, self.clock.now()) {
            Some(view) if !self.must_be_told(key) => view.left,
            _ => Millis(0),
        }
    }

    /// Tells the log what is new: of contacts, of the time if something in the state waits for it, and, where there are
    /// others, that this relay is there.
    pub(super) fn tell(self: &Arc<Self>, sequencer: &Sequencer, time: bool) {
        let time_matters = time && sequencer.read().fold.awaits_log_time();
        let in_company = self.peers.lock().is_in_company(self.clock.now());
        if time_matters || in_company || !self.untold.lock().is_empty() {
            self.tell_all(sequencer);
        }
    }

    /// Tells every contact that no record has told of yet, in as many digests as it takes.
    pub(super) fn tell_all(self: &Arc<Self>, sequencer: &Sequencer) {
        if sequencer.is_stalled() {
            return; // what is not told yet is told together when the log answers again
        }
        // In this order: a contact that is noted after the drain is of a relay that has seen what it has applied by now.
        let told_upto = if self.is_shared { self.applied.load(Ordering::Acquire) } else { 0 };
        let mut untold: Vec<(LeaseKey, record::Evidence)> = self.untold.lock().drain().collect();
        untold.sort_unstable_by(|(_, a), (_, b)| (&a.namespace, a.node).cmp(&(&b.namespace, b.node)));
        let now = self.clock.now();
        loop {
            let rest = untold.split_off(untold.len().min(EVIDENCE));
            let is_last = rest.is_empty();
            let evidence: Vec<_> = untold.iter().map(|(_, evidence)| evidence.clone()).collect();
            let bytes = 64 * (evidence.len() + 1);
            let digest = Digest {
                log_time_ms: self.log_time_ms(),
                evidence,
                suspects: Vec::new(),
                told_upto: if is_last { told_upto } else { 0 },
            };
            match sequencer.submit(Record::Digest(digest), bytes, None) {
                Ok(answer) => self.watch_for(answer, untold, now),
                Err(_) => {
                    info!("a digest found no room; what it would have told is told later");
                    untold
                        .into_iter()
                        .chain(rest)
                        .for_each(|(key, evidence)| self.note_untold(key, evidence));
                    return;
                }
            }
            if is_last {
                return;
            }
            untold = rest;
        }
    }

    /// Where others rely on it, a digest is watched for: when it comes back they hear this relay; when it was refused, its
    /// contacts are told later and nothing is promised meanwhile.
    fn watch_for(
        self: &Arc<Self>,
        answer: oneshot::Receiver<Result<Outcome, Unwritten>>,
        told: Vec<(LeaseKey, record::Evidence)>,
        sent: Timestamp,
    ) {
        if !self.is_shared {
            return;
        }
        self.peers.lock().spoke(sent);
        let keeper = Arc::clone(self);
        tokio::spawn(async move {
            let came_back = matches!(answer.await, Ok(Ok(_)));
            let mut peers = keeper.peers.lock();
            peers.heard_myself(sent);
            if !came_back {
                peers.listen_anew(keeper.clock.now());
                drop(peers);
                for (key, evidence) in told {
                    keeper.note_untold(key, evidence);
                }
            }
        });
    }

    /// Log time as this relay proposes it: where it last moved to, and the virtual time since.
    pub(super) fn log_time_ms(&self) -> u64 {
        let (log_time_ms, at) = *self.log_time.lock();
        log_time_ms + self.clock.now().since(at).0
    }

    /// A digest record with one contact, and the current log time.
    pub fn digest_of(&self, evidence: record::Evidence) -> Digest {
        Digest { log_time_ms: self.log_time_ms(), evidence: vec![evidence], ..Digest::default() }
    }
}
