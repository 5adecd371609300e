//! Rules that can be left out, one at a time, to show that the model check would notice.
//!
//! Without the feature `traps` a [`Traps`] has no size, nothing can be left out, and the compiler drops the questions.

/// A rule to leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// A token is not checked against the highest revision that its node was ever shown.
    NoHead,
    /// Dropped dead rows leave no mark, and nothing is stale.
    GcBlind,
    /// The context of a row with an own push under way is taken at the call.
    CallContext,
    /// Every dead row is skipped in a bootstrap.
    BootSkip,
    /// A push counts as settled when the cursor has passed it.
    CursorSettle,
    /// A counter's redundancy is judged by its value.
    RedundantByValue,
    /// Chunks do not say which push is settled.
    NoSettled,
    /// A re-admitted node begins with an empty memory and pushes its outbox again.
    Resend,
    /// A refused push does not use up its number.
    VoidFree,
    /// The id of a push is not compared.
    NoClone,
    /// An Open record does not jump the revision.
    NoOpen,
    /// Frames are deduplicated by the last counter of their session.
    FrameCounter,
    /// A snapshot is used without comparing the last frame that it covers.
    SnapshotBlind,
    /// Every Reseed takes effect, whatever lies between the cut and it.
    LateReseed,
    /// Rows of a lost tail keep their revisions through a Reseed.
    NoRestamp,
    /// A relay that the others may not hear promises as if they did.
    Boastful,
    /// The others are not asked before an end is proposed.
    Unasked,
    /// A node of which another relay asks is promised as any other.
    Doubtless,
    /// A relay counts as gone as soon as it missed two digests, and its leases are taken over at once.
    HastyTakeover,
    /// How far a relay has told is taken from the header of its frame.
    HeaderTells,
    /// Contacts count as told as soon as the digest that tells of them was sent.
    ToldWhenSent,
    /// A relay that starts knows of no questions that were asked before.
    Forgetful,
}

/// The rules that are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traps(#[cfg(feature = "traps")] Option<Trap>);

impl Traps {
    /// Leaves out one rule.
    #[cfg(feature = "traps")]
    #[must_use]
    pub const fn only(trap: Trap) -> Self {
        Self(Some(trap))
    }

    /// Whether that rule is left out.
    #[must_use]
    pub fn has(self, trap: Trap) -> bool {
        #[cfg(feature = "traps")]
        {
            self.0 == Some(trap)
        }
        #[cfg(not(feature = "traps"))]
        {
            let _ = trap;
            false
        }
    }
}
