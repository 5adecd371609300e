//! Whether whoever writes to the log has read the same one.
//!
//! A broker can lose a tail without closing a connection, and a relay that follows another history would acknowledge what
//! nobody else sees. Every frame says where its writer was, so a fork shows with the first one (rule A3).

use std::collections::VecDeque;

use dormouse_proto::{ids::Revision, record::FrameHeader};

use crate::log::{Position, RecordId, SnapshotId};

/// Frames that are remembered: what a relay that is further behind says is not checked, and a log that has lost more than
/// these is not healed.
const KEPT: usize = 65_536;

/// A frame that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Where it is.
    pub(super) position: Position,
    /// Its name.
    pub(super) record_id: RecordId,
    /// The revision behind it.
    pub(super) revision: Revision,
}

/// The newest frames, oldest first. Brokers may skip positions; nobody can have applied one of those.
#[derive(Clone, Debug, Default)]
pub(super) struct Trail(VecDeque<Step>);

impl Trail {
    /// What the writer of a frame had applied must be what stands here.
    ///
    /// # Errors
    /// A sentence, if it comes from another history.
    pub(super) fn check(&self, header: &FrameHeader, at: Position) -> Result<(), String> {
        let FrameHeader { session, applied_position, applied_revision, .. } = *header;
        let nth = self.0.binary_search_by_key(&applied_position, |step| step.position.0);
        let differs = nth.is_ok_and(|nth| self.0[nth].revision != applied_revision);
        if differs || applied_position >= at.0 {
            return Err(format!(
                "the log has forked: relay {session:016x} wrote position {at} from revision {applied_revision} at \
                 position {applied_position}, which is not what this relay read there"
            ));
        }
        Ok(())
    }

    /// A frame was applied, behind all the others.
    pub(super) fn note(&mut self, frame: SnapshotId, revision: Revision) {
        self.0.push_back(Step { position: frame.position, record_id: frame.record_id, revision });
        if self.0.len() > KEPT {
            self.0.pop_front();
        }
    }

    /// The frames at these places, oldest first.
    pub(super) fn within(&self, first: Position, last: Position) -> impl Iterator<Item = Step> + '_ {
        let at = |position: Position| self.0.partition_point(|step| step.position < position);
        self.0.range(at(first)..at(last.next()).max(at(first))).copied()
    }

    /// The oldest frame that is remembered.
    pub(super) fn first(&self) -> Option<Step> {
        self.0.front().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(at: u64) -> SnapshotId {
        let record_id = RecordId { session: 1, counter: at };
        SnapshotId { position: Position(at), record_id, crc: 0 }
    }

    fn trail() -> Trail {
        let mut trail = Trail::default();
        (10..=20).for_each(|at| trail.note(frame(at), Revision(at * 100)));
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
        trail.note(frame(23), Revision(2_300));
        trail.note(frame(24), Revision(2_400));
        assert!(trail.check(&header(24, 2_400), Position(25)).is_ok());
        assert!(trail.check(&header(23, 2_301), Position(25)).is_err());
        let within = |first, last| -> Vec<u64> {
            trail.within(Position(first), Position(last)).map(|step| step.position.0).collect()
        };
        assert_eq!(within(19, 23), [19, 20, 23]);
        assert_eq!(within(21, 22), [0_u64; 0]);
        assert_eq!(within(23, 9), [0_u64; 0]);
        assert_eq!(within(24, 99), [24]);
    }

    #[test]
    fn only_so_much_is_kept() {
        let mut trail = Trail::default();
        let last = KEPT as u64 + 50;
        (1..=last).for_each(|at| trail.note(frame(at), Revision(at)));
        assert_eq!((trail.0.len(), trail.first().map(|step| step.position.0)), (KEPT, Some(51)));
        assert!(trail.check(&header(51, 52), Position(last + 1)).is_err());
        assert!(trail.check(&header(50, 52), Position(last + 1)).is_ok());
    }
}
