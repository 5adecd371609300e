//! Flags of either kind.

use super::Place;
use crate::replica::{Replica, WriteError};

/// A flag. An on wins over a concurrent off. On the wire its row has 2 bytes beside the key.
///
/// ```no_run
/// # async fn doc(awake: dormouse::Awake) -> Result<(), dormouse::WriteError> {
/// let checkout = awake.flag("flags/checkout");
/// if checkout.is_on() {
///     checkout.off()?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Flag(Place);

impl Flag {
    pub(crate) const fn at(place: Place) -> Self {
        Self(place)
    }

    /// Whether it is on; `None`: the key is not followed, or nothing was ever heard of it.
    pub fn known(&self) -> Option<bool> {
        self.0.read(Replica::flag)
    }

    /// Whether it is known to be on.
    pub fn is_on(&self) -> bool {
        self.known() == Some(true)
    }

    /// Switches it on.
    ///
    /// # Errors
    /// Only if the outbox is full or the path malformed.
    pub fn on(&self) -> Result<(), WriteError> {
        self.set(true)
    }

    /// Switches it off as it is seen now; an on that others say meanwhile survives.
    ///
    /// # Errors
    /// As [`on`](Self::on).
    pub fn off(&self) -> Result<(), WriteError> {
        self.set(false)
    }

    /// Switches it on or off.
    ///
    /// # Errors
    /// As [`on`](Self::on).
    pub fn set(&self, on: bool) -> Result<(), WriteError> {
        self.0.write(|replica, path| replica.flag_set(path, on))
    }
}

/// A flag in which an off wins over a concurrent on: for what must stay off once somebody switched it off. An on counts for
/// what its author has seen; one that is too old to tell is dropped, and [`reports`](crate::Awake::reports) says so. On the
/// wire its row has 2 bytes beside the key.
///
/// ```no_run
/// # async fn doc(awake: dormouse::Awake) -> Result<(), dormouse::WriteError> {
/// let sending = awake.disable_wins_flag("mail/sending");
/// sending.off()?; // whoever switches it on without knowing of this loses
/// assert!(!sending.is_on());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct DisableWinsFlag(Place);

impl DisableWinsFlag {
    pub(crate) const fn at(place: Place) -> Self {
        Self(place)
    }

    /// Whether it is on; `None`: the key is not followed, or nothing was ever heard of it.
    pub fn known(&self) -> Option<bool> {
        self.0.read(Replica::disable_wins_flag)
    }

    /// Whether it is known to be on.
    pub fn is_on(&self) -> bool {
        self.known() == Some(true)
    }

    /// Switches it on as it is seen now; an off that others say meanwhile wins.
    ///
    /// # Errors
    /// Only if the outbox is full or the path malformed.
    pub fn on(&self) -> Result<(), WriteError> {
        self.set(true)
    }

    /// Switches it off; an on whose author does not know of this loses.
    ///
    /// # Errors
    /// As [`on`](Self::on).
    pub fn off(&self) -> Result<(), WriteError> {
        self.set(false)
    }

    /// Switches it on or off.
    ///
    /// # Errors
    /// As [`on`](Self::on).
    pub fn set(&self, on: bool) -> Result<(), WriteError> {
        self.0.write(|replica, path| replica.disable_wins_flag_set(path, on))
    }
}
