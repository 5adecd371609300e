//! How memberships end for silence: the other relays are asked first, then a Gone is proposed, then the log decides.
//!
//! Where no other relay can be, nobody is asked. Otherwise a mark is appended; every relay doubts the node from there on
//! and tells what it had heard; and when all of them have, the end is proposed (rule L5).

use std::sync::Arc;

use dormouse_proto::{
    ids::{Beat, Incarnation},
    record::{Cause, Digest, Gone, Mark, Record},
};
use tokio::sync::oneshot;
use tracing::debug;

use super::Keeper;
use crate::{
    liveness::{Ends, LeaseKey, Session, Silent},
    log::Position,
    sequencer::{Outcome, Sequencer, Unwritten},
    state::Fold,
};

/// Marks in one digest, so that a frame stays small.
const MARKS: usize = 1_000;
/// Ends that are proposed at a time, at the most: as many as a frame holds. Twice as many are on their way.
const PROPOSED: usize = 1_000;
/// They take this part of the queue before the log at the most, so a mass of ends refuses nobody a join or a push.
const PART: usize = 8;

/// An end that was proposed to the log.
struct Proposed {
    key: LeaseKey,
    incarnation: Incarnation,
    beat: Beat,
    answer: oneshot::Receiver<Result<Outcome, Unwritten>>,
}

impl Keeper {
    /// Proposes the ends of nodes, or asks the others first.
    pub(super) fn end(self: &Arc<Self>, sequencer: &Sequencer, silent: Vec<Silent>) {
        if silent.is_empty() {
            return;
        }
        match self.company.end(self.clock.now(), silent) {
            Ends::Propose(silent) => self.propose(sequencer, silent),
            Ends::Ask(silent) => self.ask(sequencer, &silent),
        }
    }

    fn ask(&self, sequencer: &Sequencer, silent: &[Silent]) {
        let mark = |(key, incarnation, beat): &Silent| {
            let namespace = self.names.get(&key.namespace)?.clone();
            Some(Mark { namespace, node: key.node, incarnation: *incarnation, beat: *beat })
        };
        for silent in silent.chunks(MARKS) {
            let suspects: Vec<Mark> = silent.iter().filter_map(mark).collect();
            let bytes = 64 * (suspects.len() + 1);
            let digest = Digest { log_time_ms: self.log_time_ms(), suspects, ..Digest::default() };
            if sequencer.submit(Record::Digest(digest), bytes, None).is_err() {
                debug!("a question found no room; it is asked anew");
            }
        }
    }

    /// Proposes the ends of those of whom all others have told, and gives up questions that nobody answers.
    pub(super) fn conclude(self: &Arc<Self>, sequencer: &Sequencer) {
        let silent = self.company.conclude(self.clock.now());
        self.propose(sequencer, silent);
    }

    /// Puts ends in line. Where nobody else is asked, a node may be heard until its turn has come.
    fn propose(self: &Arc<Self>, sequencer: &Sequencer, silent: Vec<Silent>) {
        if !self.company.is_shared() {
            let now = self.clock.now();
            for (key, _, beat) in &silent {
                self.company.leases().ask(now, *key, *beat);
            }
        }
        if self.line.lock().join(silent) {
            tokio::spawn(Arc::clone(self).propose_in_turn(sequencer.clone()));
        }
    }

    /// Works the line off. A node whose end the log did not take may be heard again. (One that it took is told of by the
    /// witness.)
    async fn propose_in_turn(self: Arc<Self>, sequencer: Sequencer) {
        let mut on_their_way = Vec::new();
        let at_most = (sequencer.capacity() / PART).clamp(1, PROPOSED);
        while let Some(silent) = self.next_in_line(at_most) {
            let propose = |(key, incarnation, beat)| self.propose_end(&sequencer, key, incarnation, beat);
            let proposed: Vec<Proposed> = silent.into_iter().filter_map(propose).collect();
            // While the log writes one frame the next one waits, so that it is never idle.
            self.verdicts(std::mem::replace(&mut on_their_way, proposed)).await;
        }
        self.verdicts(on_their_way).await;
    }

    /// Those whose ends are to be proposed now; `None`: nobody waits any more. What has happened since they came into line
    /// counts: one that was heard lives, and while expiry is held nobody ends.
    fn next_in_line(&self, at_most: usize) -> Option<Vec<Silent>> {
        let mut silent = self.line.lock().next(at_most);
        if silent.is_empty() {
            return None;
        }
        let (now, leases) = (self.clock.now(), self.company.leases());
        if self.hold(now).is_some() {
            for (key, incarnation, beat) in silent.drain(..) {
                leases.gone_rejected(now, key, incarnation, beat);
            }
        } else if !self.company.is_shared() {
            silent.retain(|(key, incarnation, beat)| leases.end_asked(now, *key, *incarnation, *beat));
        }
        Some(silent)
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
            self.company.leases().gone_rejected(self.clock.now(), key, incarnation, beat);
        }
        answer.ok().map(|answer| Proposed { key, incarnation, beat, answer })
    }

    async fn verdicts(&self, proposed: Vec<Proposed>) {
        for Proposed { key, incarnation, beat, answer } in proposed {
            if !matches!(answer.await, Ok(Ok(_))) {
                self.company.leases().gone_rejected(self.clock.now(), key, incarnation, beat);
            }
        }
    }

    /// What a digest says between relays: questions, and how far its writer has told.
    pub(super) fn witness_others(&self, fold: &Fold, by: Session, digest: &Digest) {
        if !self.company.is_shared() {
            return;
        }
        for mark in &digest.suspects {
            let Some(view) = fold.namespace(&mark.namespace) else { continue };
            let key = LeaseKey { namespace: view.number(), node: mark.node };
            self.company.asked(self.clock.now(), by, (key, mark.incarnation, mark.beat));
        }
        if self.company.told(by, digest.told_upto) {
            self.stirred.notify_one();
        }
    }

    /// The end of a frame: where its marks stand, and up to where this relay has heard.
    pub(super) fn placed(&self, session: u64, position: Position) {
        if self.company.is_shared() && self.company.placed(self.clock.now(), Session(session), position.0) {
            self.stirred.notify_one();
        }
    }

    /// Another relay has asked or told.
    pub(super) fn answer_the_others(self: &Arc<Self>, sequencer: &Sequencer) {
        if self.company.take_asked() {
            self.tell_all(sequencer);
        }
        if self.hold(self.clock.now()).is_none() {
            self.conclude(sequencer);
        }
    }
}
