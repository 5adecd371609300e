//! Whether whoever writes to the log has read the same one.
//!
//! A broker can lose a tail without closing a connection, and a relay that follows another history would acknowledge what
//! nobody else sees. Every frame says where its writer was, so a fork shows with the first one (rule A3).

use std::collections::VecDeque;

use dormouse_proto::{ids::Revision, record::FrameHeader};

use crate::log::Position;

/// Positions that are remembered: what a relay that is further behind says is not checked.
const KEPT: usize = 65_536;

/// The revisions at the newest positions.
#[derive(Debug, Default)]
pub(super) struct Trail {
    first: u64,
    revisions: VecDeque<Revision>,
}

impl Trail {
    /// What the writer of a frame had applied must be what stands here.
    ///
    /// # Errors
    /// A sentence, if it comes from another history.
    pub(super) fn check(&self, header: &FrameHeader, at: Position) -> Result<(), String> {
        let FrameHeader { session, applied_position, applied_revision, .. } = *header;
        let known = applied_position.checked_sub(self.first).and_then(|nth| usize::try_from(nth).ok());
        let differs = known.and_then(|nth| self.revisions.get(nth)).is_some_and(|it| *it != applied_revision);
        if differs || applied_position >= at.0 {
            return Err(format!(
                "the log has forked: relay {session:016x} wrote position {at} from revision {applied_revision} at \
                 position {applied_position}, which is not what this relay read there"
            ));
        }
        Ok(())
    }

    /// A frame was applied. Brokers may skip positions; nobody can have applied one of those.
    pub(super) fn note(&mut self, at: Position, revision: Revision) {
        let next = self.first + self.revisions.len() as u64;
        if self.revisions.is_empty() || at.0 >= next + KEPT as u64 {
            self.revisions.clear();
            self.first = at.0;
        }
        while self.first + (self.revisions.len() as u64) <= at.0 {
            self.revisions.push_back(revision);
        }
        while self.revisions.len() > KEPT {
            self.revisions.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail() -> Trail {
        let mut trail = Trail::default();
        (10..=20).for_each(|at| trail.note(Position(at), Revision(at * 100)));
        trail
    }

    fn header(applied_position: u64, revision: u64) -> FrameHeader {
        FrameHeader { applied_position, applied_revision: Revision(revision), ..FrameHeader::default() }
    }

    #[test]
    fn a_writer_of_the_same_history_is_believed() {
        for at in 10..=20 {
            assert_eq!(trail().check(&header(at, at * 100), Position(21)), Ok(()));
        }
        assert_eq!(trail().check(&header(3, 7), Position(21)), Ok(()), "too far back to be known");
        assert_eq!(trail().check(&header(0, 0), Position(21)), Ok(()), "it had applied nothing");
    }

    #[test]
    fn a_writer_of_another_history_is_found_out() {
        let fork = trail().check(&header(12, 1_201), Position(21)).unwrap_err();
        assert!(fork.contains("forked") && fork.contains("1201 at position 12"), "{fork}");
        assert!(
            trail().check(&header(21, 2_100), Position(21)).is_err(),
            "nobody has applied what comes later"
        );
    }

    #[test]
    fn positions_that_the_broker_skips_move_nothing() {
        let mut trail = trail();
        trail.note(Position(23), Revision(2_300));
        trail.note(Position(24), Revision(2_400));
        assert!(trail.check(&header(24, 2_400), Position(25)).is_ok());
        assert!(trail.check(&header(23, 2_301), Position(25)).is_err());
        trail.note(Position(10_000_000), Revision(7));
        assert!(trail.check(&header(10_000_000, 7), Position(10_000_001)).is_ok());
        assert_eq!(trail.revisions.len(), 1);
    }

    #[test]
    fn only_so_much_is_kept() {
        let mut trail = Trail::default();
        let last = KEPT as u64 + 50;
        (1..=last).for_each(|at| trail.note(Position(at), Revision(at)));
        assert_eq!((trail.revisions.len(), trail.first), (KEPT, 51));
        assert!(trail.check(&header(51, 52), Position(last + 1)).is_err());
        assert!(trail.check(&header(50, 52), Position(last + 1)).is_ok());
    }
}
