//! When a revision was new: the relay's records have no clock that a reader could trust, so it notes once a second which
//! revision was the newest.

use std::collections::VecDeque;

use dormouse_proto::ids::Revision;

/// Notes that are kept: enough to tell the ages of a month to one part in fifty.
const NOTES: usize = 1_024;

/// Which revision was the newest, and when.
#[derive(Debug, Default)]
pub struct Ages {
    /// Both rise.
    notes: VecDeque<(Revision, u64)>,
}

impl Ages {
    /// The newest revision at this moment. When there is no room left, the note goes whose neighbours are closest to each
    /// other for how old they are: the further back, the coarser. The first note of all stays.
    pub fn note(&mut self, now_ms: u64, newest: Revision) {
        if self.notes.back().is_some_and(|(known, _)| *known >= newest) {
            return;
        }
        if self.notes.len() == NOTES {
            let at = |place: usize| self.notes[place].1;
            let coarseness = |place: usize| {
                (at(place + 1) - at(place - 1)) as f64 / now_ms.saturating_sub(at(place)).max(1) as f64
            };
            let least = (1..NOTES - 1).min_by(|a, b| coarseness(*a).total_cmp(&coarseness(*b)));
            self.notes.remove(least.unwrap_or_default());
        }
        self.notes.push_back((newest, now_ms));
    }

    /// Milliseconds since something newer than `revision` was first noted; 0 if nothing was. What was new before the first
    /// note is at least as old as that.
    pub fn age(&self, now_ms: u64, revision: Revision) -> u64 {
        let newer = self.notes.partition_point(|(known, _)| *known <= revision);
        self.notes.get(newer).map_or(0, |(_, at)| now_ms.saturating_sub(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_as_far_behind_as_the_first_thing_that_it_has_not_seen() {
        let mut ages = Ages::default();
        assert_eq!(ages.age(5, Revision(0)), 0);
        for (now, newest) in [(1_000, 10), (2_000, 10), (3_000, 20), (4_000, 21)] {
            ages.note(now, Revision(newest));
        }
        for (seen, age) in [(0, 9_000), (9, 9_000), (10, 7_000), (19, 7_000), (20, 6_000), (21, 0), (99, 0)] {
            assert_eq!(ages.age(10_000, Revision(seen)), age, "{seen}");
        }
    }

    #[test]
    fn the_notes_stay_as_many_and_only_get_coarser() {
        let mut ages = Ages::default();
        let seconds = 30_000;
        for second in 1..=seconds {
            ages.note(second * 1_000, Revision(second));
        }
        assert!(ages.notes.len() <= NOTES);
        assert!(ages.notes.iter().zip(ages.notes.iter().skip(1)).all(|(a, b)| a < b));
        let now = seconds * 1_000;
        assert_eq!(ages.age(now, Revision(seconds - 1)), 0);
        for behind in [20, 60, 900, 2_000, 10_000, 29_000] {
            let (age, is) = (ages.age(now, Revision(seconds - behind)), (behind - 1) * 1_000);
            assert!(age <= is && age * 50 >= is * 49, "{behind} s: {age} ms");
        }
        assert_eq!(ages.age(now, Revision(0)), now - 1_000, "the first of all stays");
    }
}
