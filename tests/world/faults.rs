//! What may go wrong in a history.

use dormouse_proto::traps::Trap;

/// What may go wrong, beside lost requests, lost answers, lagging relays and small chunks, which always may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each fault may come with every other")]
pub struct Faults {
    /// Late copies of push records.
    pub late: bool,
    /// Nodes are declared gone; they come back, and some are forgotten meanwhile.
    pub gone: bool,
    /// Frames land behind newer ones of the same relay, and twice.
    pub reorder: bool,
    /// A process image is copied while no push is sealed.
    pub clone: bool,
    /// A relay restarts from a snapshot and the log.
    pub crash: bool,
    /// The log loses its tail.
    pub regress: bool,
    /// Hardly any dead row is kept, so that what was collected matters.
    pub hungry: bool,
}

impl Faults {
    /// The mix for a seed: every set of faults comes up.
    pub fn mixed(seed: u64) -> Self {
        // A multiplication spreads neighbouring seeds over all sets.
        let bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57;
        let bit = |nth: u64| bits >> nth & 1 == 1;
        Self {
            late: bit(0),
            gone: bit(1),
            reorder: bit(2),
            clone: bit(3),
            crash: bit(4),
            regress: bit(5),
            hungry: bit(6),
        }
    }

    /// What a rule's absence needs in order to do harm.
    pub fn for_trap(trap: Trap) -> Self {
        let none = Self::default();
        match trap {
            Trap::CallContext
            | Trap::BootSkip
            | Trap::CursorSettle
            | Trap::NoSettled
            | Trap::RedundantByValue => none,
            Trap::GcBlind => Self { hungry: true, ..none },
            Trap::Resend => Self { gone: true, ..none },
            Trap::VoidFree => Self { late: true, hungry: true, ..none },
            Trap::NoClone => Self { clone: true, ..none },
            Trap::NoHead | Trap::NoOpen => Self { regress: true, ..none },
            Trap::FrameCounter => Self { reorder: true, ..none },
            Trap::SnapshotBlind => Self { regress: true, crash: true, ..none },
        }
    }
}
