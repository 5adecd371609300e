//! Counters.

use super::Place;
use crate::replica::{Replica, WriteError};

/// A counter that can be reset. Values and totals stay within 64 bits, one write within 2^48. On the wire its row has
/// about 4 to 8 bytes beside the key.
///
/// ```no_run
/// # async fn doc(awake: dormouse::Awake) -> Result<(), dormouse::WriteError> {
/// let shown = awake.counter("ads/shown");
/// if !shown.reached(1_000) {
///     shown.add(1)?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Counter(Place);

impl Counter {
    pub(crate) const fn at(place: Place) -> Self {
        Self(place)
    }

    /// The value, own writes included. Zero also stands for "nothing is known": see [`known`](Self::known).
    pub fn value(&self) -> i64 {
        self.known().unwrap_or(0)
    }

    /// The value, own writes included; `None`: the key is not followed, or nothing was ever heard of it.
    pub fn known(&self) -> Option<i64> {
        self.0.read(Replica::counter)
    }

    /// Whether the value is known to have reached `at_least`. It may overshoot by what others have not pushed yet.
    pub fn reached(&self, at_least: i64) -> bool {
        self.known().is_some_and(|value| value >= at_least)
    }

    /// Adds `n`, at most 2^48.
    ///
    /// # Errors
    /// Only if the outbox is full, the path malformed or `n` too large.
    pub fn add(&self, n: u64) -> Result<(), WriteError> {
        let n = signed(n)?;
        self.0.write(|replica, path| replica.counter_add(path, n))
    }

    /// Subtracts `n`, at most 2^48.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn subtract(&self, n: u64) -> Result<(), WriteError> {
        let n = signed(n)?;
        self.0.write(|replica, path| replica.counter_add(path, -n))
    }

    /// Adds `n` once per `id` (1-64 bytes), whoever repeats it: for invocations that the platform may retry. Ids are
    /// remembered for one hour, and the newest 1,048,576 of them.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_once(&self, id: &str, n: u64) -> Result<(), WriteError> {
        let n = signed(n)?;
        let id = self.0.once_id(id)?;
        self.0.write(|replica, path| replica.counter_add_once(path, id, n))
    }

    /// Takes away the value that is seen now; what others add meanwhile survives.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn reset(&self) -> Result<(), WriteError> {
        self.0.write(Replica::counter_reset)
    }
}

fn signed(n: u64) -> Result<i64, WriteError> {
    i64::try_from(n).map_err(|_| WriteError::AmountTooLarge(n.into()))
}
