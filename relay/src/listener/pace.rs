//! So many in a second, in the order in which they came, and nobody beyond the time that he would wait. Pure.

use super::conduct::Millis;

/// Gives out turns. A quarter of a second's worth may go at once, so that a few are never held up.
#[derive(Debug)]
pub(super) struct Pace {
    /// Millionths of a millisecond between two turns.
    step: u64,
    /// What may go at once, in the same unit.
    burst: u64,
    /// When the next turn would be if nothing could go at once.
    next: u64,
}

/// A millisecond.
const ONE: u64 = 1_000_000;

impl Pace {
    pub(super) fn per_second(turns: u64) -> Self {
        let step = (1_000 * ONE / turns.max(1)).max(1);
        Self { step, burst: (250 * ONE).max(step), next: 0 }
    }

    /// How long to wait for one's turn; `None`: longer than `most`.
    pub(super) fn turn(&mut self, now: Millis, most: Millis) -> Option<Millis> {
        let now = now.saturating_mul(ONE);
        let next = self.next.max(now);
        let wait = next.saturating_sub(now).saturating_sub(self.burst - self.step).div_ceil(ONE);
        if wait > most {
            return None;
        }
        self.next = next + self.step;
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_goes_at_once_and_the_rest_at_its_pace() {
        let mut pace = Pace::per_second(1_000);
        let waits: Vec<_> = (0..1_000).filter_map(|_| pace.turn(0, 5_000)).collect();
        assert_eq!(waits.iter().filter(|wait| **wait == 0).count(), 250);
        assert_eq!((waits.len(), waits.last()), (1_000, Some(&750)));
    }

    #[test]
    fn whoever_would_wait_too_long_is_told_at_once_and_takes_no_turn() {
        let mut pace = Pace::per_second(10);
        let turns = (0..1_000).filter(|_| pace.turn(0, 500).is_some()).count();
        assert_eq!(turns, 7);
        assert_eq!(pace.turn(500, 500), Some(50), "seven turns are 700 ms, of which 150 may go at once");
    }

    #[test]
    fn one_in_a_second_is_one_in_a_second() {
        let mut pace = Pace::per_second(1);
        assert_eq!((pace.turn(0, 5_000), pace.turn(0, 5_000)), (Some(0), Some(1_000)));
        assert_eq!(pace.turn(60_000, 5_000), Some(0));
    }
}
