//! When many members fall silent at once, the network is to blame and not all of them.
//!
//! Only members that were AWAKE vote: a sleeper's silence says nothing. The guard looks at what lapses within two
//! seconds and lets go by itself, and after that it rests for as long as it held, so that steady churn cannot keep it.

use super::{Millis, Timestamp};

/// The window in which lapses are summed.
const WINDOW: Millis = Millis(2_000);
/// Fewer lapses than this are never a mass.
const FEWEST: u64 = 20;
/// The share of the awake that is a mass, in percent.
const PERCENT: u64 = 30;
/// So many standard deviations above the usual are a mass.
const SIGMAS: f64 = 5.0;
/// How much a new window counts in what is usual: about the last minute.
const NEWEST: f64 = 1.0 / 30.0;
/// A hold lasts so many awake leases.
const HOLD_LEASES: u64 = 2;

/// Holds the ends of members that fell silent with many others.
#[derive(Debug, Default)]
pub(super) struct MassLoss {
    /// Lapses of the window that began then.
    window: (Timestamp, u64),
    /// The window before.
    previous: u64,
    /// Of lapses in a window.
    mean: f64,
    variance: f64,
    /// Ends are held until then.
    pub(super) held_until: Timestamp,
    rests_until: Timestamp,
}

impl MassLoss {
    /// `lapsed` members that were AWAKE fell silent since the last look, and `awake` still are. Answers whether the
    /// guard begins to hold.
    pub(super) fn look(&mut self, now: Timestamp, lapsed: u64, awake: u64, awake_lease: Millis) -> bool {
        if now.since(self.window.0) >= WINDOW {
            self.turn_window(now);
        }
        self.window.1 += lapsed;
        // The window before counts for the part of it that is not two seconds old yet.
        let part = 1.0 - now.since(self.window.0).0 as f64 / WINDOW.0 as f64;
        let recent = self.window.1 as f64 + self.previous as f64 * part;
        let were_awake = awake + self.window.1;
        let share = (were_awake * PERCENT) as f64 / 100.0;
        let unusual = self.mean + SIGMAS * self.variance.sqrt();
        let is_mass = recent > share.max(unusual).max(FEWEST as f64);
        if !is_mass || lapsed == 0 || now < self.rests_until {
            return false;
        }
        let hold = Millis(awake_lease.0 * HOLD_LEASES);
        self.held_until = now + hold;
        self.rests_until = self.held_until + hold;
        true
    }

    fn turn_window(&mut self, now: Timestamp) {
        let passed = now.since(self.window.0).0 / WINDOW.0;
        // Windows in which nothing was looked at had nothing in them; more of them than the mean remembers add nothing.
        for nth in 0..passed.min(300) {
            let lapsed = if nth == 0 { self.window.1 as f64 } else { 0.0 };
            let off = lapsed - self.mean;
            self.mean += NEWEST * off;
            self.variance = (1.0 - NEWEST) * (self.variance + NEWEST * off * off);
        }
        self.previous = if passed == 1 { self.window.1 } else { 0 };
        self.window = (Timestamp(now.0 - now.0 % WINDOW.0), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Millis = Millis(3_000);

    #[test]
    fn half_of_all_at_once_is_held_and_let_go_within_two_leases() {
        let mut guard = MassLoss::default();
        assert!(!guard.look(Timestamp(10_000), 10, 990, LEASE));
        assert!(guard.look(Timestamp(10_100), 490, 500, LEASE));
        assert_eq!(guard.held_until, Timestamp(16_100));
        assert!(!guard.look(Timestamp(10_200), 100, 400, LEASE), "one event");
        assert_eq!(guard.held_until, Timestamp(16_100), "no later look has made it longer");
    }

    #[test]
    fn a_loss_that_is_spread_over_two_seconds_is_one_loss() {
        let mut guard = MassLoss::default();
        let begins =
            (0..20).map(|nth| guard.look(Timestamp(11_000 + nth * 100), 25, 1_000 - 25 * (nth + 1), LEASE));
        assert_eq!(begins.filter(|begins| *begins).count(), 1);
    }

    #[test]
    fn few_are_no_mass_however_large_their_share() {
        let mut guard = MassLoss::default();
        assert!(!guard.look(Timestamp(5_000), 20, 0, LEASE));
    }

    #[test]
    fn steady_churn_is_never_held() {
        // A third of ten thousand each minute: eleven in each tenth of a second, and as many new ones.
        let mut guard = MassLoss::default();
        let mut random = fastrand::Rng::with_seed(5);
        for tick in 0..36_000_u64 {
            let lapsed = u64::from((0..10).map(|_| random.u32(0..2)).sum::<u32>());
            assert!(!guard.look(Timestamp(tick * 100), lapsed, 10_000, LEASE), "at {tick}");
        }
    }

    #[test]
    fn it_does_not_latch() {
        // A network that stays away: after the hold the guard rests for as long, whatever lapses.
        let mut guard = MassLoss::default();
        let mut held = 0;
        for tick in 0..1_200_u64 {
            let now = Timestamp(tick * 100);
            guard.look(now, 100, 100, LEASE);
            held += u64::from(now < guard.held_until);
        }
        assert!(held <= 620, "held for {held} of 1200 ticks");
    }
}
