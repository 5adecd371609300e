//! Which row changed at which revision, in the order of the revisions.
//!
//! Append-only segments of `(revision, row)`. An entry is live if and only if the row's `chg` still equals its
//! revision, so a row that changes again leaves a dead entry behind and applying stays O(1). A segment that is less
//! than half live is rewritten on its own, in a step of bounded length, outside of the apply path: rewriting a whole
//! index at once would stall everybody, and an ordered map in its place is ten times slower.

use std::collections::VecDeque;

use dormouse_proto::ids::Revision;

use super::rows::RowId;

/// Entries of one segment: 48 KiB, one step of tidying.
const SEGMENT: usize = 4096;

#[derive(Clone, Debug, Default)]
struct Segment {
    live: usize,
    revisions: Vec<Revision>,
    rows: Vec<RowId>,
}

impl Segment {
    fn first(&self) -> Revision {
        self.revisions.first().copied().unwrap_or_default()
    }

    fn is_full(&self) -> bool {
        self.revisions.len() >= SEGMENT
    }

    fn is_untidy(&self) -> bool {
        self.live * 2 < self.revisions.len()
    }

    fn with_room(entries: usize) -> Self {
        Self { live: 0, revisions: Vec::with_capacity(entries), rows: Vec::with_capacity(entries) }
    }

    fn push(&mut self, at: Revision, row: RowId) {
        if self.revisions.len() == self.revisions.capacity() {
            // A large push makes a segment longer than it was meant to be. Doubling would leave half of it empty.
            let more = (self.revisions.len() / 4).max(16);
            self.revisions.reserve_exact(more);
            self.rows.reserve_exact(more);
        }
        self.revisions.push(at);
        self.rows.push(row);
        self.live += 1;
    }

    /// Puts the entries of the next segment behind those of this one, without room to grow.
    fn append(&mut self, mut next: Self) {
        self.live += next.live;
        self.revisions.reserve_exact(next.revisions.len());
        self.revisions.append(&mut next.revisions);
        self.rows.reserve_exact(next.rows.len());
        self.rows.append(&mut next.rows);
    }

    /// Gives back the room for entries that will not come.
    fn shrink(&mut self) {
        self.revisions.shrink_to_fit();
        self.rows.shrink_to_fit();
    }
}

/// Rows by the revision at which they last changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    segments: Vec<Segment>,
    /// First revision of each segment, side by side: a search through the segments themselves would miss the cache at
    /// every step.
    firsts: Vec<Revision>,
    /// First revisions of full segments that are less than half live.
    untidy: VecDeque<Revision>,
}

impl Index {
    /// Notes that `row` changed at `at`, which is not below any revision noted before.
    pub(super) fn append(&mut self, at: Revision, row: RowId) {
        // A revision stays within one segment, so that a search by revision finds all of it.
        let full =
            self.segments.last().is_none_or(|last| last.is_full() && last.revisions.last() != Some(&at));
        if full {
            if let Some(last) = self.segments.last_mut() {
                last.shrink();
                if last.is_untidy() {
                    self.untidy.push_back(last.first());
                }
            }
            let room = if self.segments.is_empty() { 0 } else { SEGMENT };
            self.segments.push(Segment::with_room(room));
        }
        if let Some(last) = self.segments.last_mut() {
            if last.revisions.is_empty() {
                self.firsts.push(at);
            }
            last.push(at, row);
        }
    }

    /// Takes back the entry of a row that changed at `at`, if that is the newest revision: the row's place may be used
    /// again at this very revision, and its entry would then speak for the wrong row. Whether it was taken back.
    pub(super) fn withdraw(&mut self, at: Revision, row: RowId) -> bool {
        let Some(last) = self.segments.last_mut() else { return false };
        if last.revisions.last() != Some(&at) {
            return false;
        }
        let newest = last.revisions.partition_point(|revision| *revision < at);
        let Some(place) = last.rows[newest..].iter().position(|it| *it == row) else { return false };
        last.revisions.remove(newest + place);
        last.rows.remove(newest + place);
        last.live -= 1;
        if last.revisions.is_empty() {
            self.firsts.pop();
        }
        true
    }

    fn position_of(&self, at: Revision) -> Option<usize> {
        self.firsts.partition_point(|first| *first <= at).checked_sub(1)
    }

    /// Notes that the entry at `at` of some row is dead.
    pub(super) fn retire(&mut self, at: Revision) {
        let Some(position) = self.position_of(at) else {
            return;
        };
        let growing = position + 1 == self.segments.len();
        let segment = &mut self.segments[position];
        let was_tidy = !segment.is_untidy();
        segment.live = segment.live.saturating_sub(1);
        if was_tidy && segment.is_untidy() && !growing {
            self.untidy.push_back(segment.first());
        }
    }

    /// Whether there is work for [`Index::tidy`].
    pub(super) fn is_untidy(&self) -> bool {
        !self.untidy.is_empty()
    }

    /// Rewrites one segment. Returns whether there is more to do.
    pub(super) fn tidy(&mut self, is_live: impl Fn(Revision, RowId) -> bool) -> bool {
        let Some(first) = self.untidy.pop_front() else {
            return false;
        };
        let Some(position) = self.position_of(first).filter(|at| self.segments[*at].first() == first) else {
            return !self.untidy.is_empty();
        };
        let old = std::mem::take(&mut self.segments[position]);
        let mut kept = Segment::with_room(old.live);
        for (at, row) in old.revisions.into_iter().zip(old.rows).filter(|(at, row)| is_live(*at, *row)) {
            kept.push(at, row);
        }
        self.put_back(position, kept);
        !self.untidy.is_empty()
    }

    /// Puts a rewritten segment in place, joined with the one before it if both fit into one.
    fn put_back(&mut self, position: usize, kept: Segment) {
        if kept.live == 0 {
            self.segments.remove(position);
            self.firsts.remove(position);
            return;
        }
        let before =
            position.checked_sub(1).filter(|b| self.segments[*b].revisions.len() + kept.live <= SEGMENT);
        match before {
            Some(before) => {
                self.segments.remove(position);
                self.firsts.remove(position);
                let into = &mut self.segments[before];
                into.append(kept);
                if into.is_untidy() {
                    self.untidy.push_back(into.first());
                }
            }
            None => {
                self.firsts[position] = kept.first();
                self.segments[position] = kept;
            }
        }
    }

    /// All entries after `cursor`, dead ones too, in the order of their revisions.
    pub(super) fn after(&self, cursor: Revision) -> impl Iterator<Item = (Revision, RowId)> + '_ {
        let from = self.position_of(cursor).unwrap_or(0);
        let skip = self.segments.get(from).map_or(0, |it| it.revisions.partition_point(|at| *at <= cursor));
        self.segments[from..].iter().enumerate().flat_map(move |(nth, segment)| {
            let skip = if nth == 0 { skip } else { 0 };
            segment.revisions[skip..].iter().copied().zip(segment.rows[skip..].iter().copied())
        })
    }

    /// An upper bound of the live entries after `cursor`, in time of the number of segments.
    pub(super) fn live_after(&self, cursor: Revision) -> usize {
        let from = self.position_of(cursor).unwrap_or(0);
        self.segments[from..].iter().map(|segment| segment.live).sum()
    }

    /// Entries, dead ones too: what the index costs in memory.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.revisions.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_row_has_exactly_one_live_entry_and_dead_ones_are_bounded(
            rows in 1..3000_u32, seed in any::<u64>(), tidied in any::<bool>(),
        ) {
            let (mut index, mut chg) = (Index::default(), BTreeMap::<RowId, Revision>::new());
            let mut random = fastrand::Rng::with_seed(seed);
            for at in 1..40_000 {
                let (at, row) = (Revision(at), RowId(random.u32(0..rows)));
                if let Some(old) = chg.insert(row, at) {
                    index.retire(old);
                }
                index.append(at, row);
                if tidied || at.0 % 7000 == 0 {
                    while index.tidy(|at, row| chg.get(&row) == Some(&at)) {}
                }
            }
            let cursor = Revision(random.u64(0..40_000));
            let found: Vec<_> = index.after(cursor).filter(|(at, row)| chg[row] == *at).collect();
            let mut expected: Vec<_> = chg.iter().filter(|(_, at)| **at > cursor).map(|(row, at)| (*at, *row)).collect();
            expected.sort_unstable();
            prop_assert_eq!(&found, &expected);
            prop_assert!(index.live_after(cursor) >= expected.len());
            if tidied {
                prop_assert!(index.len() <= 2 * chg.len() + 2 * SEGMENT, "{} entries for {} rows", index.len(), chg.len());
            }
        }
    }

    #[test]
    fn a_revision_is_never_split_over_two_segments() {
        let mut index = Index::default();
        for row in 0..(u32::try_from(SEGMENT).expect("small") + 100) {
            index.append(Revision(5), RowId(row));
        }
        assert_eq!(index.after(Revision(4)).count(), SEGMENT + 100);
        assert_eq!(index.after(Revision(5)).count(), 0);
    }
}
