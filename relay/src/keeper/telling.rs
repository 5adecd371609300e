//! What the log is told: contacts, the time, and up to where this relay has heard.

use std::sync::Arc;

use dormouse_proto::record::{self, Digest, Record};
use tokio::sync::oneshot;
use tracing::info;

use super::{Keeper, contact_of, evidence_of};
use crate::{
    liveness::{Evidence, LeaseKey, Millis, Telling},
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

    /// Tells every contact that no digest has told of and come back, in as many digests as it takes.
    pub(super) fn tell_all(self: &Arc<Self>, sequencer: &Sequencer) {
        if sequencer.is_stalled() {
            return; // what is not told yet is told together when the log answers again
        }
        let Telling { mut contacts, upto } = self.company.telling();
        contacts.sort_unstable_by_key(|(key, _)| *key);
        // Of several, one may be refused: how far they tell is said when all have come back.
        let (told_upto, later) = if contacts.len() <= EVIDENCE { (upto, 0) } else { (0, upto) };
        let mut answers = Vec::new();
        for contacts in contacts.chunks(EVIDENCE).chain(contacts.is_empty().then_some(&[][..])) {
            let evidence: Vec<_> = contacts.iter().filter_map(|it| self.as_record(it)).collect();
            let bytes = 64 * (evidence.len() + 1);
            let (log_time_ms, suspects) = (self.log_time_ms(), Vec::new());
            let digest = Digest { log_time_ms, evidence, suspects, told_upto };
            let Ok(answer) = sequencer.submit(Record::Digest(digest), bytes, None) else {
                info!("a digest found no room; what it would have told is told later");
                return;
            };
            answers.push(answer);
        }
        self.watch_for(sequencer, answers, contacts, later);
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

    /// Digests are watched for: when they come back, what they tell of is told, and the others hear this relay.
    fn watch_for(
        self: &Arc<Self>,
        sequencer: &Sequencer,
        answers: Vec<oneshot::Receiver<Result<Outcome, Unwritten>>>,
        told: Vec<(LeaseKey, Evidence)>,
        told_upto: u64,
    ) {
        let sent = self.clock.now();
        self.company.spoke(sent);
        let (keeper, sequencer) = (Arc::clone(self), sequencer.clone());
        tokio::spawn(async move {
            for answer in answers {
                if !matches!(answer.await, Ok(Ok(_))) {
                    return keeper.company.did_not_come_back(keeper.clock.now(), sent);
                }
            }
            keeper.company.came_back(sent, &told);
            if told_upto > 0 {
                let digest = Digest { log_time_ms: keeper.log_time_ms(), told_upto, ..Digest::default() };
                // If it finds no room, the next one says as much.
                let _ = sequencer.submit(Record::Digest(digest), 64, None);
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
