//! What the log is told: contacts, the time, and up to where this relay has heard.

use std::sync::Arc;

use dormouse_proto::record::{self, Digest, Record};
use tokio::sync::oneshot;
use tracing::info;

use super::{Keeper, contact_of, evidence_of};
use crate::{
    liveness::{Evidence, LeaseKey, Millis, Telling, Timestamp},
    sequencer::{Outcome, Sequencer, Unwritten},
};

/// Evidence in one digest, so that a frame stays small.
const EVIDENCE: usize = 1_000;

impl Keeper {
    /// The record that was to tell of a contact may not have been written. It is told with the next digest; answers what
    /// may be promised meanwhile.
    pub fn tell_later(&self, key: LeaseKey, evidence: record::Evidence) -> Millis {
        let evidence = evidence_of(evidence.incarnation, evidence.contact);
        self.company.tell_later(self.clock.now(), || self.expiry_held(), key, evidence)
    }

    /// Tells the log what is new: of contacts, of the time if something in the state waits for it, and, where there are
    /// others, that this relay is there.
    pub(super) fn tell(self: &Arc<Self>, sequencer: &Sequencer, time: bool) {
        let time_matters = time && sequencer.read().fold.awaits_log_time();
        if time_matters || self.company.has_to_speak(self.clock.now()) {
            self.tell_all(sequencer);
        }
    }

    /// Tells every contact that no record has told of yet, in as many digests as it takes.
    pub(super) fn tell_all(self: &Arc<Self>, sequencer: &Sequencer) {
        if sequencer.is_stalled() {
            return; // what is not told yet is told together when the log answers again
        }
        let Telling { mut contacts, upto } = self.company.take_untold();
        contacts.sort_unstable_by_key(|(key, _)| *key);
        let now = self.clock.now();
        loop {
            let rest = contacts.split_off(contacts.len().min(EVIDENCE));
            let is_last = rest.is_empty();
            let evidence: Vec<_> = contacts.iter().filter_map(|it| self.as_record(it)).collect();
            let bytes = 64 * (evidence.len() + 1);
            let digest = Digest {
                log_time_ms: self.log_time_ms(),
                evidence,
                suspects: Vec::new(),
                told_upto: if is_last { upto } else { 0 },
            };
            match sequencer.submit(Record::Digest(digest), bytes, None) {
                Ok(answer) => self.watch_for(answer, contacts, now),
                Err(_) => {
                    info!("a digest found no room; what it would have told is told later");
                    let untold = contacts.into_iter().chain(rest);
                    untold.for_each(|(key, evidence)| self.company.note(key, evidence));
                    return;
                }
            }
            if is_last {
                return;
            }
            contacts = rest;
        }
    }

    fn as_record(&self, (key, evidence): &(LeaseKey, Evidence)) -> Option<record::Evidence> {
        let Evidence { incarnation, beat, activity, ttl } = *evidence;
        let namespace = self.names.get(&key.namespace)?.clone();
        Some(record::Evidence {
            namespace,
            node: key.node,
            incarnation,
            contact: contact_of(beat, activity, ttl),
        })
    }

    /// Where others rely on it, a digest is watched for: when it comes back they hear this relay; when it was refused, its
    /// contacts are told later and nothing is promised meanwhile.
    fn watch_for(
        self: &Arc<Self>,
        answer: oneshot::Receiver<Result<Outcome, Unwritten>>,
        told: Vec<(LeaseKey, Evidence)>,
        sent: Timestamp,
    ) {
        if !self.company.is_shared() {
            return;
        }
        self.company.spoke(sent);
        let keeper = Arc::clone(self);
        tokio::spawn(async move {
            match answer.await {
                Ok(Ok(_)) => keeper.company.came_back(sent),
                _ => keeper.company.did_not_come_back(keeper.clock.now(), sent, told),
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
