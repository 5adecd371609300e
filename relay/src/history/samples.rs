//! Figures of the last five minutes, one row of numbers for each second.

use std::collections::VecDeque;

use crate::metrics::{FIGURES, GroupGauge};

/// Samples that are kept: five minutes, one each second.
pub const LENGTH: usize = 300;
/// Groups that are followed one by one.
pub const GROUPS: usize = 12;

/// One second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it was taken, in milliseconds since the relay started.
    pub at_ms: u64,
    /// As [`FIGURES`] names them.
    pub figures: [u64; FIGURES.len()],
    /// Members of the groups, in the order of [`Recent::groups`].
    pub groups: [u64; GROUPS],
}

/// What is followed in one place of [`Sample::groups`].
#[derive(Clone, Debug, PartialEq, Eq)]
struct Followed {
    namespace: String,
    group: String,
    /// The number of the newest sample in which it had members.
    seen: u64,
}

/// The newest samples, at most [`LENGTH`], and at most [`GROUPS`] groups in each.
#[derive(Debug, Default)]
pub struct Samples {
    ring: VecDeque<Sample>,
    /// How many were taken before the oldest one here.
    dropped: u64,
    followed: [Option<Followed>; GROUPS],
}

/// Some samples, for somebody who has those before them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    /// The number of the first one.
    pub first: u64,
    /// Oldest first.
    pub samples: Vec<Sample>,
    /// Namespace and name of the groups that are followed; empty: nobody's place.
    pub groups: Vec<(String, String)>,
}

impl Samples {
    /// A second is over. Groups that are not followed yet get a place if there is one that nobody had members in for as
    /// long as samples are kept; those that stand first go first.
    pub fn take(&mut self, now_ms: u64, figures: [u64; FIGURES.len()], groups: &[GroupGauge]) {
        let number = self.dropped + self.ring.len() as u64;
        let mut counts = [0; GROUPS];
        for it in groups {
            if let Some(place) = self.place(it, number) {
                counts[place] = it.members();
            }
        }
        if self.ring.len() == LENGTH {
            self.ring.pop_front();
            self.dropped += 1;
        }
        self.ring.push_back(Sample { at_ms: now_ms, figures, groups: counts });
    }

    fn place(&mut self, it: &GroupGauge, number: u64) -> Option<usize> {
        let is_it = |place: &Option<Followed>| {
            place.as_ref().is_some_and(|known| known.group == it.group && known.namespace == it.namespace)
        };
        let is_free = |place: &Option<Followed>| {
            place.as_ref().is_none_or(|known| known.seen + LENGTH as u64 <= number)
        };
        let place =
            self.followed.iter().position(is_it).or_else(|| self.followed.iter().position(is_free))?;
        self.followed[place] =
            Some(Followed { namespace: it.namespace.clone(), group: it.group.clone(), seen: number });
        Some(place)
    }

    /// Those from number `from` on; all that there are if it is too far back, or ahead: another relay numbered it.
    pub fn from(&self, from: u64) -> Recent {
        let skip = from.checked_sub(self.dropped).and_then(|it| usize::try_from(it).ok());
        let skip = skip.filter(|it| *it <= self.ring.len()).unwrap_or(0);
        let name = |place: &Option<Followed>| {
            place.as_ref().map_or_else(Default::default, |it| (it.namespace.clone(), it.group.clone()))
        };
        Recent {
            first: self.dropped + skip as u64,
            samples: self.ring.iter().skip(skip).cloned().collect(),
            groups: self.followed.iter().map(name).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, awake: u64) -> GroupGauge {
        let (namespace, group) = ("shop".to_owned(), name.to_owned());
        GroupGauge { namespace, group, awake, asleep: 1, ..GroupGauge::default() }
    }

    fn numbered(samples: &Samples, from: u64) -> (u64, Vec<u64>) {
        let recent = samples.from(from);
        (recent.first, recent.samples.iter().map(|it| it.figures[0]).collect())
    }

    fn take(samples: &mut Samples, number: u64, groups: &[GroupGauge]) {
        samples.take(number * 1_000, [number; FIGURES.len()], groups);
    }

    #[test]
    fn whoever_has_some_is_given_the_rest() {
        let mut samples = Samples::default();
        assert_eq!(numbered(&samples, 0), (0, Vec::new()));
        (0..3).for_each(|number| take(&mut samples, number, &[]));
        assert_eq!(numbered(&samples, 0), (0, vec![0, 1, 2]));
        assert_eq!(numbered(&samples, 2), (2, vec![2]));
        assert_eq!(numbered(&samples, 3), (3, Vec::new()));
        assert_eq!(numbered(&samples, 9), (0, vec![0, 1, 2]), "the numbers of a relay that ran before");
    }

    #[test]
    fn there_are_never_more_than_five_minutes() {
        let mut samples = Samples::default();
        let taken = 2 * LENGTH as u64 + 7;
        (0..taken).for_each(|number| take(&mut samples, number, &[]));
        let (first, figures) = numbered(&samples, 0);
        assert_eq!((first, figures.len()), (taken - LENGTH as u64, LENGTH));
        assert_eq!((figures.first(), figures.last()), (Some(&first), Some(&(taken - 1))));
        assert_eq!(numbered(&samples, taken - 1), (taken - 1, vec![taken - 1]));
    }

    #[test]
    fn a_group_keeps_its_place_until_nothing_that_is_shown_tells_of_it() {
        let mut samples = Samples::default();
        let many: Vec<GroupGauge> = (0..GROUPS + 5).map(|nth| group(&format!("g{nth}"), 4)).collect();
        take(&mut samples, 0, &many);
        let names = |samples: &Samples| samples.from(0).groups;
        assert_eq!(names(&samples)[0], ("shop".to_owned(), "g0".to_owned()));
        assert_eq!(samples.from(0).samples[0].groups, [5; GROUPS]);
        // The first one has no members any more, and one that came later waits until it is forgotten.
        let (without, late) = (&many[1..GROUPS], group("late", 9));
        for number in 1..LENGTH as u64 {
            take(&mut samples, number, &[without, std::slice::from_ref(&late)].concat());
        }
        assert_eq!(names(&samples)[0].1, "g0");
        assert_eq!(samples.from(0).samples[LENGTH - 1].groups[0], 0);
        take(&mut samples, LENGTH as u64, &[without, std::slice::from_ref(&late)].concat());
        assert_eq!(names(&samples)[0].1, "late");
        assert_eq!(samples.from(LENGTH as u64).samples[0].groups[0], 10);
        assert_eq!(
            samples.from(0).samples[0].groups[0],
            0,
            "nobody else's members are shown as those of the new one"
        );
    }
}
