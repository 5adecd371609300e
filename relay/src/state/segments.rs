//! Which revisions were ever given out in this history of the log.
//!
//! An Open record jumps the revision, so that the numbers of a tail that the log may have lost are never given again.
//! What lies in a gap was handed out by a history that is gone, and whoever shows such a number must start over.

use dormouse_proto::ids::Revision;

/// Older segments are forgotten beyond this many; a token from one of them restarts.
const KEPT: usize = 4096;

/// The runs of consecutive revisions, oldest first; the last one is still growing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segments {
    runs: Vec<(Revision, Revision)>,
}

impl Default for Segments {
    fn default() -> Self {
        Self { runs: vec![(Revision::ZERO, Revision::ZERO)] }
    }
}

impl Segments {
    pub(super) fn from_runs(runs: Vec<(Revision, Revision)>) -> Option<Self> {
        let ordered =
            runs.iter().all(|run| run.0 <= run.1) && runs.windows(2).all(|pair| pair[0].1 < pair[1].0);
        (ordered && !runs.is_empty() && runs.len() <= KEPT).then_some(Self { runs })
    }

    pub(super) fn runs(&self) -> &[(Revision, Revision)] {
        &self.runs
    }

    /// The newest revision.
    pub(super) fn head(&self) -> Revision {
        self.runs.last().map_or(Revision::ZERO, |run| run.1)
    }

    /// Gives the next revision.
    pub(super) fn advance(&mut self) -> Revision {
        match self.runs.last_mut() {
            Some(run) => {
                run.1 = run.1.next();
                run.1
            }
            None => Revision::ZERO,
        }
    }

    /// Begins a new run at `base`, or above the head if that is higher. Takes the place of [`Segments::advance`].
    pub(super) fn jump(&mut self, base: Revision) -> Revision {
        let start = base.max(Revision(self.head().0.saturating_add(2)));
        self.runs.push((start, start));
        if self.runs.len() > KEPT {
            self.runs.remove(0);
        }
        start
    }

    /// Takes back every number after that one; the next one is given by a [`Segments::jump`].
    pub(super) fn clip(&mut self, upto: Revision) {
        self.runs.retain(|run| run.0 <= upto);
        match self.runs.last_mut() {
            Some(last) => last.1 = last.1.min(upto),
            // The number zero is valid for ever, whatever was forgotten.
            None => self.runs.push((Revision::ZERO, Revision::ZERO)),
        }
    }

    /// How many numbers were given out after that one.
    pub(super) fn count_after(&self, revision: Revision) -> u64 {
        let newer = self.runs.iter().rev().take_while(|run| run.1 > revision);
        newer.map(|run| run.1.0 - run.0.0.max(revision.0 + 1) + 1).sum()
    }

    /// Whether this history gave that number out.
    pub(super) fn contains(&self, revision: Revision) -> bool {
        if revision == Revision::ZERO {
            return true;
        }
        let after = self.runs.partition_point(|run| run.0 <= revision);
        after > 0 && revision <= self.runs[after - 1].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_a_gap_is_not_valid() {
        let mut segments = Segments::default();
        assert_eq!(segments.advance(), Revision(1));
        assert_eq!(segments.jump(Revision(100)), Revision(100));
        assert_eq!(segments.advance(), Revision(101));
        let valid: Vec<u64> = (0..200).filter(|n| segments.contains(Revision(*n))).collect();
        assert_eq!(valid, [0, 1, 100, 101]);
    }

    #[test]
    fn a_jump_never_goes_back() {
        let mut segments = Segments::default();
        segments.advance();
        assert_eq!(segments.jump(Revision(1)), Revision(3), "at least one number is left out");
    }

    #[test]
    fn numbers_that_were_taken_back_are_not_valid() {
        let mut segments = Segments::default();
        segments.jump(Revision(10));
        segments.advance();
        segments.jump(Revision(20));
        segments.clip(Revision(10));
        let valid: Vec<u64> = (0..30).filter(|n| segments.contains(Revision(*n))).collect();
        assert_eq!((valid, segments.head()), (vec![0, 10], Revision(10)));
        segments.clip(Revision::ZERO);
        assert_eq!(segments, Segments::default());
    }

    #[test]
    fn the_number_of_segments_is_bounded() {
        let mut segments = Segments::default();
        for _ in 0..2 * KEPT {
            segments.jump(Revision::ZERO);
        }
        assert_eq!(segments.runs().len(), KEPT);
        assert!(segments.contains(segments.head()) && !segments.contains(Revision(2)));
    }
}
