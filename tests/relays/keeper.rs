//! What a relay's keeper does: looks at silence, tells, asks and proposes.

use dormouse_proto::{
    ids::Namespace,
    record::{Cause, Digest, Gone, Mark, Record},
};
use dormouse_relay::{
    liveness::{Due, Ends, Silent, Telling},
    state::Verdict,
};

use crate::relay::{Relay, Waits, as_record};

impl Relay {
    /// The keeper's look, ten times a second.
    pub(crate) fn look(&mut self, now: u64) {
        self.listen_after_a_hold(now);
        let at = self.now(now);
        if self.is_stalled || self.seen_connection != self.connection {
            self.seen_connection = self.connection;
            self.clock.log_lost(at);
        }
        let hold = self.company.hold(at, self.clock.expiry_held(at));
        let mut due = Vec::new();
        self.company.look(at, hold, &mut due);
        let silent: Vec<Silent> = due
            .into_iter()
            .filter_map(|due| match due {
                Due::Gone { key, incarnation, beat } => Some((key, incarnation, beat)),
                Due::Suspect { .. } => None,
            })
            .collect();
        if !silent.is_empty() {
            match self.company.end(at, silent) {
                Ends::Propose(silent) => self.propose(silent),
                Ends::Ask(silent) => self.ask(now, &silent),
            }
        }
        if hold.is_none() {
            let silent = self.company.conclude(at);
            self.propose(silent);
        }
        self.looks += 1;
        if self.looks.is_multiple_of(10) {
            if self.company.has_to_speak(at) {
                self.tell_all(now);
            }
            self.company.forget(at);
        }
    }

    fn listen_after_a_hold(&mut self, now: u64) {
        let hold = self.clock.hold();
        if !self.is_held(now) || self.is_stalled || self.listened == Some(hold) {
            return;
        }
        self.listened = Some(hold);
        self.inbox.push_back((Record::Digest(Digest::default()), Waits::Hold(hold)));
    }

    /// Another relay has asked or told.
    pub(crate) fn answer_the_others(&mut self, now: u64) {
        self.is_stirred = false;
        if self.company.take_asked() {
            self.tell_all(now);
        }
        let at = self.now(now);
        if self.company.hold(at, self.clock.expiry_held(at)).is_none() {
            let silent = self.company.conclude(at);
            self.propose(silent);
        }
    }

    fn tell_all(&mut self, now: u64) {
        if self.is_stalled {
            return;
        }
        let Telling { mut contacts, upto } = self.company.telling();
        contacts.sort_unstable_by_key(|(key, _)| *key);
        let evidence = contacts.iter().map(|(key, evidence)| as_record(*key, evidence)).collect();
        let log_time_ms = self.log_time_ms(now);
        let digest = Digest { log_time_ms, evidence, suspects: Vec::new(), told_upto: upto };
        let at = self.now(now);
        self.company.spoke(at);
        self.inbox.push_back((Record::Digest(digest), Waits::Digest(at, contacts)));
    }

    fn ask(&mut self, now: u64, silent: &[Silent]) {
        let mark = |(key, incarnation, beat): &Silent| Mark {
            namespace: Namespace::default(),
            node: key.node,
            incarnation: *incarnation,
            beat: *beat,
        };
        let suspects = silent.iter().map(mark).collect();
        let log_time_ms = self.log_time_ms(now);
        let digest = Digest { log_time_ms, suspects, ..Digest::default() };
        self.inbox.push_back((Record::Digest(digest), Waits::Nobody));
    }

    fn propose(&mut self, silent: Vec<Silent>) {
        for (key, incarnation, beat) in silent {
            let (namespace, reason) = (Namespace::default(), String::new());
            let gone = Gone { namespace, node: key.node, incarnation, cause: Cause::Expired, beat, reason };
            self.inbox.push_back((Record::Gone(gone), Waits::Gone((key, incarnation, beat))));
        }
    }

    /// What the keeper makes of the answers that it waits for. A call's answer is left to whoever asks.
    pub(crate) fn answered(&mut self, now: u64, waits: Waits, verdict: Option<&Verdict>) -> Option<usize> {
        let at = self.now(now);
        match (waits, verdict.is_some()) {
            (Waits::Nobody, _) | (Waits::Gone(_), true) => {}
            (Waits::Digest(sent, contacts), true) => self.company.came_back(sent, &contacts),
            (Waits::Digest(sent, _), false) => self.company.did_not_come_back(at, sent),
            (Waits::Hold(hold), true) => {
                self.clock.log_read_to_head(hold);
                self.clock.drained(hold);
            }
            (Waits::Hold(_), false) => self.listened = None,
            (Waits::Gone((key, incarnation, beat)), false) => {
                self.company.leases().gone_rejected(at, key, incarnation, beat);
            }
            (Waits::Call(call), _) => return Some(call),
        }
        None
    }
}
