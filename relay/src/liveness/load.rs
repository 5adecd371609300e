//! A relay that answers late must not declare its callers late.
//!
//! What is measured is the relay's own lateness: how much later than wanted it looks at its leases. When that is a
//! good part of an awake lease, awake leases grow, and shrink again when it has passed.

use super::Millis;

/// Looks that are judged together, about five seconds.
const LOOKS: usize = 50;
/// Percent of the usual lease.
const USUAL: u32 = 100;
/// Leases grow to this at the most.
const MOST: u32 = 400;

/// How much longer awake leases are than usual.
#[derive(Debug)]
pub(super) struct Stretch {
    late: Vec<Millis>,
    percent: u32,
}

impl Default for Stretch {
    fn default() -> Self {
        Self { late: Vec::with_capacity(LOOKS), percent: USUAL }
    }
}

impl Stretch {
    /// A look came this much later than wanted. Answers the percentage from here on.
    pub(super) fn look(&mut self, late: Millis, awake_lease: Millis) -> u32 {
        self.late.push(late);
        if self.late.len() == LOOKS {
            self.late.sort_unstable();
            let usual_worst = self.late[LOOKS * 95 / 100];
            if usual_worst.0 > awake_lease.0 / 10 {
                self.percent = (self.percent * 5 / 4).min(MOST);
            } else if usual_worst.0 < awake_lease.0 / 20 {
                self.percent = (self.percent * 4 / 5).max(USUAL);
            }
            self.late.clear();
        }
        self.percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Millis = Millis(3_000);

    fn looks(stretch: &mut Stretch, late: u64, count: usize) -> u32 {
        (0..count).map(|_| stretch.look(Millis(late), LEASE)).last().unwrap_or_default()
    }

    #[test]
    fn leases_grow_while_the_relay_is_late_and_shrink_when_it_is_not() {
        let mut stretch = Stretch::default();
        assert_eq!(looks(&mut stretch, 5, 200), 100);
        assert_eq!(looks(&mut stretch, 400, 50), 125);
        assert_eq!(looks(&mut stretch, 400, 2_000), 400);
        assert_eq!(looks(&mut stretch, 200, 500), 400, "neither late nor in time");
        assert_eq!(looks(&mut stretch, 5, 1_000), 100);
    }

    #[test]
    fn some_late_looks_are_no_load() {
        let mut stretch = Stretch::default();
        for _ in 0..20 {
            assert_eq!(looks(&mut stretch, 2_000, 2), 100);
            assert_eq!(looks(&mut stretch, 5, 48), 100);
        }
    }
}
