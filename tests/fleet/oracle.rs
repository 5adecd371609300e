//! What the lease table may answer, told a second time and without a wheel, a lock or a state machine.
//!
//! For each node the oracle keeps which incarnation lives, the newest contact that the table was told of, and what that
//! contact was promised. Two laws follow. A contact or evidence of another incarnation, or one that is not newer, is
//! never accepted. And no end is proposed without a whole lease of silence: counted from the newest contact, for
//! evidence of another relay from when it was read, and only while nothing holds expiry.

use dormouse_proto::ids::CallId;
use dormouse_relay::liveness::{Contact, Due, Evidence, Heard, Millis};

/// A proposed end without a verdict may be proposed again after so long.
const VERDICT_MS: u64 = 30_000;

/// A node whose incarnation lives.
#[derive(Clone, Copy, Debug)]
struct Living {
    incarnation: u64,
    /// The newest contact that the table was told of.
    newest: u64,
    /// The newest one that the log told of.
    confirmed: u64,
    /// Of the newest contact, if it was a call that was heard here.
    call: Option<CallId>,
    heard_ms: u64,
    promised: Millis,
    suspected: bool,
    proposed_ms: Option<u64>,
    /// What the newest proposal named.
    proposed_beat: u64,
}

impl Living {
    fn told(now_ms: u64, evidence: &Evidence) -> Self {
        Self {
            incarnation: evidence.incarnation.0,
            newest: evidence.beat.0,
            confirmed: evidence.beat.0,
            call: None,
            heard_ms: now_ms,
            promised: evidence.ttl,
            suspected: false,
            proposed_ms: None,
            proposed_beat: 0,
        }
    }

    fn promise(&mut self, ttl: Millis) {
        (self.promised, self.suspected, self.proposed_ms) = (ttl, false, None);
    }

    fn apply(&mut self, now_ms: u64, evidence: &Evidence) -> bool {
        let beat = evidence.beat.0;
        if evidence.incarnation.0 != self.incarnation || beat < self.confirmed {
            return false;
        }
        let repeated = beat == self.confirmed;
        self.confirmed = beat;
        if repeated || beat < self.newest {
            return true;
        }
        if beat > self.newest {
            (self.newest, self.call, self.heard_ms) = (beat, None, now_ms);
        }
        // Read so late that the lease is over already: it promises nothing.
        if self.heard_ms + evidence.ttl.0 > now_ms {
            self.promise(evidence.ttl);
        }
        true
    }

    fn whole_lease_passed(&self, now_ms: u64) -> bool {
        now_ms >= self.heard_ms + self.promised.0
    }
}

/// What the table was told, and what it may say next. Nodes are numbered from 0.
#[derive(Clone, Debug)]
pub struct Oracle {
    awake: Millis,
    nodes: Vec<Option<Living>>,
}

/// What is wrong, in words.
pub type Complaint = Result<(), String>;

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Complaint {
    if holds { Ok(()) } else { Err(what()) }
}

impl Oracle {
    /// Nobody lives. `awake` is the most that may be promised at once.
    pub fn new(nodes: usize, awake: Millis) -> Self {
        Self { awake, nodes: vec![None; nodes] }
    }

    /// The incarnation that lives, if one does.
    pub fn living(&self, node: usize) -> Option<u64> {
        self.nodes[node].map(|living| living.incarnation)
    }

    /// A Join was told to the table. One of an older incarnation changes nothing.
    pub fn admitted(&mut self, now_ms: u64, node: usize, evidence: &Evidence) {
        match &mut self.nodes[node] {
            Some(living) if evidence.incarnation.0 <= living.incarnation => {
                living.apply(now_ms, evidence);
            }
            vacant => *vacant = Some(Living::told(now_ms, evidence)),
        }
    }

    /// A new table was told of a member, with what is left of its lease. None has less than one awake lease.
    pub fn restored(&mut self, now_ms: u64, node: usize, evidence: &Evidence) {
        let living = Living::told(now_ms, evidence);
        self.nodes[node] = Some(Living { promised: evidence.ttl.max(self.awake), ..living });
    }

    /// The table answered a contact.
    pub fn heard(&mut self, now_ms: u64, node: usize, contact: &Contact, answer: Heard) -> Complaint {
        let wrong = || format!("node {node} at {now_ms} ms: {contact:?} was answered {answer:?}");
        let Some(living) = &mut self.nodes[node] else {
            return ensure(answer == Heard::Unknown, wrong);
        };
        if contact.incarnation.0 != living.incarnation {
            let told =
                matches!(answer, Heard::OtherIncarnation { current } if current.0 == living.incarnation);
            return ensure(told, wrong);
        }
        if living.proposed_ms.is_some() {
            return ensure(answer == Heard::Ending, wrong);
        }
        if contact.beat.0 < living.newest {
            return ensure(matches!(answer, Heard::NotNewer { .. }), wrong);
        }
        if contact.beat.0 == living.newest {
            // The log tells no call ids, so the first call that shows one counts.
            let same = *living.call.get_or_insert(contact.call_id) == contact.call_id;
            let told = if same { matches!(answer, Heard::NotNewer { .. }) } else { answer == Heard::Forked };
            return ensure(told, wrong);
        }
        let Heard::Granted { ttl, ttl_applied, .. } = answer else {
            return Err(wrong());
        };
        ensure(ttl <= self.awake && ttl <= ttl_applied && ttl > Millis(0), wrong)?;
        (living.newest, living.call, living.heard_ms) = (contact.beat.0, Some(contact.call_id), now_ms);
        living.promise(ttl);
        Ok(())
    }

    /// The table read evidence, and said whether it counts.
    pub fn applied(&mut self, now_ms: u64, node: usize, evidence: &Evidence, counted: bool) -> Complaint {
        let expected = self.nodes[node].as_mut().is_some_and(|living| living.apply(now_ms, evidence));
        ensure(expected == counted, || format!("node {node} at {now_ms} ms: {evidence:?} counted: {counted}"))
    }

    /// The table drew its conclusions; `held`: nothing may be proposed.
    pub fn concluded(&mut self, now_ms: u64, held: bool, due: &[Due]) -> Complaint {
        for due in due {
            let (key, incarnation, beat, gone) = match *due {
                Due::Suspect { key, incarnation, beat } => (key, incarnation, beat, false),
                Due::Gone { key, incarnation, beat } => (key, incarnation, beat, true),
            };
            let index = usize::try_from(key.node.0).unwrap_or(usize::MAX);
            let Some(living) = self.nodes.get_mut(index).and_then(Option::as_mut) else {
                return Err(format!("{due:?} at {now_ms} ms, and nobody lives"));
            };
            let wrong = |why: &str| format!("{due:?} at {now_ms} ms {why}: {living:?}");
            ensure(living.incarnation == incarnation.0, || wrong("of another incarnation"))?;
            ensure(living.confirmed == beat.0, || wrong("does not name the newest evidence"))?;
            ensure(living.whole_lease_passed(now_ms), || wrong("before the lease was over"))?;
            ensure(!(gone && held), || wrong("although expiry is held"))?;
            ensure(gone || !living.suspected, || wrong("said twice"))?;
            let waits = living.proposed_ms.is_some_and(|proposed| now_ms < proposed + VERDICT_MS);
            ensure(!(gone && waits), || wrong("proposed again before its verdict"))?;
            living.suspected = true;
            if gone {
                (living.proposed_ms, living.proposed_beat) = (Some(now_ms), beat.0);
            }
        }
        Ok(())
    }

    /// The table was told that an incarnation has ended, and said whether it knew it.
    pub fn ended(&mut self, node: usize, incarnation: u64, known: bool) -> Complaint {
        let expected = self.living(node) == Some(incarnation);
        if expected {
            self.nodes[node] = None;
        }
        ensure(expected == known, || format!("node {node}: the end of incarnation {incarnation}: {known}"))
    }

    /// A proposed end was void. One that names a newer beat is under way nevertheless.
    pub fn rejected(&mut self, node: usize, incarnation: u64, beat: u64) {
        let meant = |living: &&mut Living| living.incarnation == incarnation && living.proposed_beat == beat;
        if let Some(living) = self.nodes[node].as_mut().filter(meant) {
            living.proposed_ms = None;
        }
    }

    /// After a silence longer than every lease, with nothing that holds expiry: an end was proposed of whoever lives.
    pub fn all_proposed(&self) -> Complaint {
        let forgotten = self.nodes.iter().flatten().find(|living| living.proposed_ms.is_none());
        ensure(forgotten.is_none(), || format!("never proposed: {forgotten:?}"))
    }
}

#[cfg(test)]
mod tests {
    use dormouse_proto::ids::{Beat, Incarnation, NodeId, Revision};
    use dormouse_relay::liveness::{Activity, LeaseKey, LeaseState};

    use super::*;

    const AWAKE: Activity = Activity::Awake { remaining: None, then_asleep: false };

    fn evidence(incarnation: u64, beat: u64) -> Evidence {
        Evidence {
            incarnation: Incarnation(incarnation),
            beat: Beat(beat),
            activity: AWAKE,
            ttl: Millis(1_000),
        }
    }

    fn contact(incarnation: u64, beat: u64) -> Contact {
        let (incarnation, beat) = (Incarnation(incarnation), Beat(beat));
        Contact { incarnation, beat, call_id: CallId(beat.0 + 100), activity: AWAKE, head: Revision::ZERO }
    }

    fn granted(ttl: u64) -> Heard {
        Heard::Granted { ttl: Millis(ttl), ttl_applied: Millis(5_000), was: LeaseState::Awake }
    }

    fn gone(beat: u64) -> Due {
        let key = LeaseKey { namespace: 0, node: NodeId(0) };
        Due::Gone { key, incarnation: Incarnation(2), beat: Beat(beat) }
    }

    /// One node that lives as incarnation 2 since 0, with beat 5 and a lease of a second.
    fn oracle() -> Oracle {
        let mut oracle = Oracle::new(1, Millis(1_000));
        oracle.admitted(0, 0, &evidence(2, 5));
        oracle
    }

    #[test]
    fn whoever_accepts_what_is_stale_is_found() {
        for stale in [contact(1, 9), contact(2, 5), contact(2, 4), contact(3, 9)] {
            assert!(oracle().heard(10, 0, &stale, granted(1_000)).is_err(), "{stale:?}");
        }
        assert_eq!(oracle().heard(10, 0, &contact(2, 6), granted(1_000)), Ok(()));
        assert!(oracle().heard(10, 0, &contact(2, 6), granted(1_001)).is_err(), "a long lease at once");
        assert!(oracle().heard(10, 0, &contact(2, 6), Heard::NotNewer { left: Millis(1) }).is_err());
        for (stale, newer) in [(evidence(1, 9), false), (evidence(2, 4), false), (evidence(2, 6), true)] {
            assert!(oracle().applied(10, 0, &stale, !newer).is_err());
            assert_eq!(oracle().applied(10, 0, &stale, newer), Ok(()));
        }
        assert!(oracle().ended(0, 1, true).is_err());
    }

    #[test]
    fn whoever_proposes_an_end_too_early_is_found() {
        assert_eq!(oracle().concluded(1_000, false, &[gone(5)]), Ok(()));
        assert!(oracle().concluded(999, false, &[gone(5)]).is_err(), "not a whole lease");
        assert!(oracle().concluded(1_000, true, &[gone(5)]).is_err(), "expiry is held");
        assert!(oracle().concluded(1_000, false, &[gone(4)]).is_err(), "names an old contact");
        assert!(oracle().concluded(1_000, false, &[gone(5), gone(5)]).is_err(), "twice");
        let mut later = oracle();
        assert!(later.applied(400, 0, &evidence(2, 6), true).is_ok());
        assert!(
            later.clone().concluded(1_399, false, &[gone(6)]).is_err(),
            "evidence counts from when it was read"
        );
        assert_eq!(later.concluded(1_400, false, &[gone(6)]), Ok(()));
        assert!(oracle().all_proposed().is_err(), "nobody thought of its end");
    }
}
