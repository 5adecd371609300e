//! What is to be done when the log came back without frames that this relay has applied (rules G2 and G3).
//!
//! Pure: what the log holds now and what the other relays have said goes in, and a decision comes out.

use std::collections::BTreeMap;

use dormouse_proto::{
    ids::Revision,
    record::{Frame, Record},
};

use super::trail::Step;
use crate::log::{Position, RecordId};

/// The last place at which the log and this relay's memory agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Where; zero when they have nothing in common.
    pub(super) position: Position,
    /// The frame there.
    pub(super) record_id: RecordId,
    /// The revision there.
    pub(super) safe: Revision,
}

impl Cut {
    /// An empty log, or one that was made anew.
    pub(super) const NOTHING: Self =
        Self { position: Position(0), record_id: RecordId { session: 0, counter: 0 }, safe: Revision::ZERO };
}

impl From<Step> for Cut {
    fn from(Step { position, record_id, revision }: Step) -> Self {
        Self { position, record_id, safe: revision }
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Another relay that may hold the tail has not been heard since, or goes first.
    Wait,
    /// Nothing took effect behind the cut: the tail can be given back.
    Heal,
    /// The relay of that session has given it back.
    Follow(u64),
    /// That relay has written this kind of record behind the cut, which would be undone.
    LogWins { by: u64, kind: &'static str },
}

/// What was read behind the cut.
#[derive(Clone, Debug, Default)]
pub(super) struct Behind {
    /// The first thing that took effect.
    first: Option<First>,
    /// The revision that each relay had applied when it wrote its first frame behind the cut.
    heard: BTreeMap<u64, Revision>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Reseed(u64),
    Another(u64, &'static str),
}

impl Behind {
    /// The next frame.
    pub(super) fn note(&mut self, frame: &Frame) {
        self.heard.entry(frame.header.session).or_insert(frame.header.applied_revision);
        for record in &frame.records {
            let effect = match record {
                Record::Reseed(_) => Some(First::Reseed(frame.header.session)),
                it => it.takes_effect().then(|| First::Another(frame.header.session, kind(it))),
            };
            self.first = self.first.or(effect);
        }
    }

    /// Whether everybody in `others` was heard behind the cut.
    fn have_all(&self, others: impl IntoIterator<Item = u64>) -> bool {
        others.into_iter().all(|session| self.heard.contains_key(&session))
    }

    /// Whether this relay goes first: it holds the most, and is the lowest of those that hold as much.
    fn is_first(&self, me: u64, holds: Revision) -> bool {
        self.heard.iter().all(|(session, revision)| {
            *session == me || *revision < holds || (*revision == holds && *session > me)
        })
    }

    /// What to do. `me` holds everything up to the revision `holds`; `others` were alive when the log was lost.
    pub(super) fn decide(
        &self,
        me: u64,
        holds: Revision,
        others: impl IntoIterator<Item = u64>,
        waited: Waited,
    ) -> Decision {
        match self.first {
            Some(First::Reseed(session)) => Decision::Follow(session),
            Some(First::Another(by, kind)) => Decision::LogWins { by, kind },
            // Nothing else goes out before the Open was read back (N4).
            None if !self.have_all([me]) => Decision::Wait,
            None if waited < Waited::ForAll && !self.have_all(others) => Decision::Wait,
            None if waited < Waited::ForTheFirst && !self.is_first(me, holds) => Decision::Wait,
            None => Decision::Heal,
        }
    }
}

fn kind(record: &Record) -> &'static str {
    match record {
        Record::Open { .. } => "Open",
        Record::Push(_) => "Push",
        Record::Write(_) => "Write",
        Record::Join(_) => "Join",
        Record::Gone(_) => "Gone",
        Record::Digest(_) => "Digest",
        Record::Policy(_) => "Policy",
        Record::Send(_) => "Send",
        Record::Received(_) => "Received",
        Record::Reseed(_) => "Reseed",
    }
}

/// How long was waited for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Waited {
    /// Not yet long enough for anybody.
    Shortly,
    /// Long enough for every relay to say that it is there.
    ForAll,
    /// Long enough for the one that goes first to have done it.
    ForTheFirst,
}

#[cfg(test)]
mod tests {
    use dormouse_proto::record::{Digest, FrameHeader, Policy, Reseed, SnapshotName};

    use super::*;

    const ME: u64 = 5;
    const HOLDS: Revision = Revision(900);

    fn frame(session: u64, revision: u64, record: Record) -> Frame {
        let header = FrameHeader { session, applied_revision: Revision(revision), ..FrameHeader::default() };
        Frame { header, records: vec![record] }
    }

    fn open(session: u64, revision: u64) -> Frame {
        frame(session, revision, Record::Open { base: Revision(5_000) })
    }

    fn reseed() -> Record {
        let snapshot = SnapshotName::default();
        let (safe, base) = (Revision(7), Revision(6_000));
        Record::Reseed(Reseed { position: 1, record_id: (1, 1), safe, snapshot, hash: 0, base })
    }

    fn behind(frames: &[Frame]) -> Behind {
        let mut behind = Behind::default();
        for frame in frames {
            behind.note(frame);
        }
        behind
    }

    fn decide(frames: &[Frame], others: &[u64], waited: Waited) -> Decision {
        behind(frames).decide(ME, HOLDS, others.iter().copied(), waited)
    }

    #[test]
    fn alone_it_heals_at_once_when_its_session_is_open() {
        assert_eq!(decide(&[], &[], Waited::ForTheFirst), Decision::Wait);
        assert_eq!(decide(&[open(ME, 900)], &[], Waited::Shortly), Decision::Heal);
        let digest = frame(ME, 900, Record::Digest(Digest::default()));
        assert_eq!(decide(&[open(ME, 900), digest], &[], Waited::Shortly), Decision::Heal);
    }

    #[test]
    fn whoever_was_alive_is_waited_for_and_not_for_ever() {
        let mine = [open(ME, 900)];
        assert_eq!(decide(&mine, &[9], Waited::Shortly), Decision::Wait);
        assert_eq!(decide(&[open(ME, 900), open(9, 800)], &[9], Waited::Shortly), Decision::Heal);
        assert_eq!(decide(&mine, &[9], Waited::ForAll), Decision::Heal);
    }

    #[test]
    fn the_one_that_holds_the_most_goes_first_and_of_equals_the_lowest() {
        for (other, revision, want) in [
            (9, 901, Decision::Wait),
            (9, 900, Decision::Heal),
            (2, 900, Decision::Wait),
            (2, 899, Decision::Heal),
        ] {
            let frames = [open(ME, 900), open(other, revision)];
            assert_eq!(decide(&frames, &[other], Waited::ForAll), want, "{other} at {revision}");
            assert_eq!(decide(&frames, &[other], Waited::ForTheFirst), Decision::Heal, "it may have died");
        }
    }

    #[test]
    fn what_took_effect_since_is_never_undone() {
        let push = frame(9, 7, Record::Policy(Policy::default()));
        let wins = Decision::LogWins { by: 9, kind: "Policy" };
        for waited in [Waited::Shortly, Waited::ForAll, Waited::ForTheFirst] {
            assert_eq!(decide(&[open(ME, 900), push.clone()], &[], waited), wins);
            let late = [push.clone(), frame(9, 7, reseed())];
            assert_eq!(decide(&late, &[], waited), wins, "that Reseed is void");
        }
    }

    #[test]
    fn who_was_first_is_followed_whatever_came_after() {
        let healed =
            [open(9, 900), frame(9, 900, reseed()), frame(9, 7_000, Record::Policy(Policy::default()))];
        assert_eq!(decide(&healed, &[], Waited::Shortly), Decision::Follow(9));
    }
}
