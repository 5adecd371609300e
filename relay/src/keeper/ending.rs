//! How memberships end for silence: the other relays are asked first, then a Gone is proposed, then the log decides.
//!
//! Alone on its log, a relay asks nobody. Otherwise it appends a mark; each of the others doubts the node from there on and
//! tells what it had heard; and when all of them have, the end is proposed (rule L5).

use std::{collections::HashMap, sync::Arc, sync::atomic::Ordering};

use dormouse_proto::{
    ids::{Beat, Incarnation},
    record::{Cause, Digest, Gone, Mark, Record},
};
use tokio::sync::oneshot;
use tracing::debug;

use super::Keeper;
use crate::{
    liveness::{LeaseKey, Millis, Session, Timestamp},
    log::Position,
    sequencer::{Outcome, Sequencer, Unwritten},
    state::Fold,
};

/// Marks in one digest, so that a frame stays small.
const MARKS: usize = 1_000;
/// A question that was not answered by all is asked anew. Shorter than the time in which a relay that has just come
/// promises nothing by itself, because it has not seen older marks.
const QUESTION: Millis = Millis(5_000);

/// A silent node that was found due: whose, in which incarnation, and the newest beat that the log has told.
pub(super) type Silent = (LeaseKey, Incarnation, Beat);

/// A question to the other relays.
#[derive(Debug)]
struct Question {
    incarnation: Incarnation,
    beat: Beat,
    since: Timestamp,
    /// Where the mark stands in the log.
    position: Option<u64>,
}

/// All questions that are open.
#[derive(Debug, Default)]
pub(super) struct Asking {
    open: HashMap<LeaseKey, Question>,
    /// Marks of the frame that is being applied: its position comes with its end.
    placing: Vec<LeaseKey>,
}

/// An end that was proposed to the log.
struct Proposed {
    key: LeaseKey,
    incarnation: Incarnation,
    answer: oneshot::Receiver<Result<Outcome, Unwritten>>,
}

impl Keeper {
    /// Proposes the ends of nodes, or asks the others first.
    pub(super) fn end(self: &Arc<Self>, sequencer: &Sequencer, silent: Vec<Silent>) {
        if silent.is_empty() {
            return;
        }
        if self.peers.lock().is_alone(self.clock.now()) {
            self.propose(sequencer, silent);
        } else {
            self.ask(sequencer, silent);
        }
    }

    fn ask(&self, sequencer: &Sequencer, silent: Vec<Silent>) {
        let now = self.clock.now();
        let mut marks = Vec::new();
        for (key, incarnation, beat) in silent {
            let Some(namespace) = self.names.get(&key.namespace).map(|name| name.clone()) else { continue };
            self.leases.ask(now, key, beat);
            let question = Question { incarnation, beat, since: now, position: None };
            self.asking.lock().open.insert(key, question);
            marks.push(Mark { namespace, node: key.node, incarnation, beat });
        }
        for marks in marks.chunks(MARKS) {
            let digest =
                Digest { log_time_ms: self.log_time_ms(), suspects: marks.to_vec(), ..Digest::default() };
            if sequencer.submit(Record::Digest(digest), 64 * (marks.len() + 1), None).is_err() {
                debug!("a question found no room; it is asked anew");
            }
        }
    }

    /// Proposes the ends of those of whom all others have told, and gives up questions that nobody answers.
    pub(super) fn conclude(self: &Arc<Self>, sequencer: &Sequencer) {
        let now = self.clock.now();
        let (mut answered, mut unanswered) = (Vec::new(), Vec::new());
        {
            let (mut asking, peers) = (self.asking.lock(), self.peers.lock());
            asking.open.retain(|key, question| {
                let done = question.position.is_some_and(|position| peers.have_told(now, position));
                let late = question.since + QUESTION < now;
                let list = if late { &mut unanswered } else { &mut answered };
                if done || late {
                    list.push((*key, question.incarnation, question.beat));
                }
                !(done || late)
            });
        }
        for (key, incarnation, _) in unanswered {
            self.leases.gone_rejected(now, key, incarnation);
        }
        answered.retain(|(key, incarnation, beat)| self.leases.end_asked(now, *key, *incarnation, *beat));
        self.propose(sequencer, answered);
    }

    fn propose(self: &Arc<Self>, sequencer: &Sequencer, silent: Vec<Silent>) {
        let proposed: Vec<Proposed> = silent
            .into_iter()
            .filter_map(|(key, incarnation, beat)| self.propose_end(sequencer, key, incarnation, beat))
            .collect();
        self.await_verdicts(proposed);
    }

    fn propose_end(
        &self,
        sequencer: &Sequencer,
        key: LeaseKey,
        incarnation: Incarnation,
        beat: Beat,
    ) -> Option<Proposed> {
        let namespace = self.names.get(&key.namespace).map(|name| name.clone())?;
        debug!(%namespace, node = %key.node, %incarnation, "lease ran out");
        let reason = String::from("lease ran out");
        let gone = Gone { namespace, node: key.node, incarnation, cause: Cause::Expired, beat, reason };
        let answer = sequencer.submit(Record::Gone(gone), 64, None);
        if answer.is_err() {
            self.leases.gone_rejected(self.clock.now(), key, incarnation);
        }
        answer.ok().map(|answer| Proposed { key, incarnation, answer })
    }

    /// A node whose end the log did not take may be heard again. (One that it took is told of by the witness.)
    fn await_verdicts(self: &Arc<Self>, proposed: Vec<Proposed>) {
        if proposed.is_empty() {
            return;
        }
        let keeper = Arc::clone(self);
        tokio::spawn(async move {
            for Proposed { key, incarnation, answer } in proposed {
                if !matches!(answer.await, Ok(Ok(_))) {
                    keeper.leases.gone_rejected(keeper.clock.now(), key, incarnation);
                }
            }
        });
    }

    /// What a digest says between relays: questions, and how far its writer has told.
    pub(super) fn witness_others(&self, fold: &Fold, by: Session, digest: &Digest) {
        if !self.is_shared {
            return;
        }
        let own = self.peers.lock().is_me(by);
        for mark in &digest.suspects {
            let Some(view) = fold.namespace(&mark.namespace) else { continue };
            let key = LeaseKey { namespace: view.number(), node: mark.node };
            if own {
                self.asking.lock().placing.push(key);
            } else {
                self.leases.doubt(self.clock.now(), key, mark.incarnation, mark.beat);
                self.is_asked.store(true, Ordering::Release);
            }
        }
        if !own && digest.told_upto > 0 {
            self.peers.lock().told(by, digest.told_upto);
            if !self.asking.lock().open.is_empty() {
                self.stirred.notify_one();
            }
        }
    }

    /// The end of a frame: where its marks stand, and up to where this relay has heard.
    pub(super) fn placed(&self, session: u64, position: Position) {
        if !self.is_shared {
            return;
        }
        let mut asking = self.asking.lock();
        for key in std::mem::take(&mut asking.placing) {
            if let Some(question) = asking.open.get_mut(&key) {
                question.position = Some(position.0);
            }
        }
        drop(asking);
        // After the doubts of this frame: what is told from here on was heard before them, or was not promised.
        self.applied.store(position.0, Ordering::Release);
        self.peers.lock().heard(self.clock.now(), Session(session));
        if self.is_asked.load(Ordering::Acquire) {
            self.stirred.notify_one();
        }
    }

    /// Another relay has asked or told.
    pub(super) fn answer_the_others(self: &Arc<Self>, sequencer: &Sequencer) {
        if self.is_asked.swap(false, Ordering::AcqRel) {
            self.tell_all(sequencer);
        }
        if self.hold(self.clock.now()).is_none() {
            self.conclude(sequencer);
        }
    }
}
