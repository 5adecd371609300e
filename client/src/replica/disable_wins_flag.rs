//! The flag in which an off wins: it is the on that says what its author had seen.

use dormouse_proto::lattice::{Change, FlagDelta};

use super::{
    Path, Replica, WriteError,
    flag::{FlagKind, SwitchIntent},
    intent::RemoveWins,
};

/// What was said of one flag in which an off wins.
pub(super) type DisableWinsFlagIntent = SwitchIntent<RemoveWins>;

impl FlagKind for RemoveWins {
    fn change(delta: FlagDelta) -> Change {
        Change::DisableWinsFlag(delta)
    }
}

impl Replica {
    /// Whether the flag is on as it is known, with own writes; `None`: not followed, or never heard of.
    pub fn disable_wins_flag(&self, path: &Path) -> Option<bool> {
        self.switch::<RemoveWins>(path)
    }

    /// Switches the flag. An on counts for what is seen now; an off that others say meanwhile wins.
    ///
    /// # Errors
    /// When the outbox is full.
    pub fn disable_wins_flag_set(&mut self, path: &Path, on: bool) -> Result<(), WriteError> {
        self.say(path, self.switch_intent::<RemoveWins>(path, on))
    }
}
