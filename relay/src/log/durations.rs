//! How long something took, time after time, in buckets that double.

use std::time::Duration;

/// The longest that the first bucket takes.
const SHORTEST: Duration = Duration::from_micros(100);
/// Buckets with a bound, the last one of 3.3 s. One more takes what is longer.
const BOUNDED: usize = 16;

/// Counted durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    counts: [u64; BOUNDED + 1],
    total: Duration,
}

impl Durations {
    /// It took so long once more.
    pub fn note(&mut self, took: Duration) {
        self.counts[bounds().position(|bound| took <= bound).unwrap_or(BOUNDED)] += 1;
        self.total += took;
    }

    /// All of them together.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// How many were not longer than each bound and longer than the one before; `None`: longer than all.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        bounds().map(Some).chain([None]).zip(self.counts)
    }
}

fn bounds() -> impl Iterator<Item = Duration> {
    (0..BOUNDED).map(|nth| SHORTEST * (1 << nth))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_where_it_belongs_and_none_is_lost() {
        let mut durations = Durations::default();
        let took = [0, 100, 101, 200, 3_276_800, 3_276_801, 60_000_000].map(Duration::from_micros);
        for it in took {
            durations.note(it);
        }
        let counted: Vec<u64> = durations.buckets().map(|(_, count)| count).collect();
        assert_eq!((counted.len(), counted.iter().sum::<u64>()), (BOUNDED + 1, 7));
        assert_eq!((counted[0], counted[1], counted[BOUNDED - 1], counted[BOUNDED]), (2, 2, 1, 2));
        let bounds: Vec<Option<Duration>> = durations.buckets().map(|(bound, _)| bound).collect();
        assert_eq!((bounds[0], bounds[1]), (Some(SHORTEST), Some(SHORTEST * 2)));
        assert_eq!((bounds[BOUNDED - 1], bounds[BOUNDED]), (Some(Duration::from_micros(3_276_800)), None));
        assert_eq!(durations.total(), took.into_iter().sum::<Duration>());
    }
}
