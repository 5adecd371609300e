//! What may happen in a history, and what may go wrong.

use dormouse_proto::{lattice::Type, traps::Trap};

/// Which types a history is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Types(u16);

impl Default for Types {
    /// Those that every rule's absence shows in.
    fn default() -> Self {
        [Type::Set, Type::Counter, Type::Register].into_iter().collect()
    }
}

impl FromIterator<Type> for Types {
    fn from_iter<I: IntoIterator<Item = Type>>(types: I) -> Self {
        Self(types.into_iter().fold(0, |bits, kind| bits | 1 << kind.number()))
    }
}

impl Types {
    /// Whether it is about that one.
    pub const fn has(self, kind: Type) -> bool {
        self.0 >> kind.number() & 1 == 1
    }

    /// Some types, at least one.
    fn some(bits: u64) -> Self {
        let first = Type::ALL[usize::try_from(bits >> 12).unwrap_or(0) % Type::ALL.len()];
        let others = (0..Type::ALL.len()).filter(|nth| bits >> nth & 1 == 1).map(|nth| Type::ALL[nth]);
        others.chain([first]).collect()
    }
}

/// What may happen, beside lost requests, lost answers, lagging relays and small chunks, which always may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each of them may come with every other")]
pub struct Faults {
    /// Which types the program writes.
    pub types: Types,
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
    /// Nodes follow and give up collections later; keys are read on their own.
    pub interest: bool,
    /// Messages to single nodes.
    pub mail: bool,
    /// Limits that are soon met.
    pub quota: bool,
    /// Idempotency ids are soon forgotten, and the log's time passes.
    pub window: bool,
    /// Callers that are no nodes write.
    pub writes: bool,
    /// A second namespace on the same log.
    pub second: bool,
    /// Whole maps are cleared.
    pub clears: bool,
    /// A long history. Most are short: what goes wrong mostly does so within some dozens of steps.
    pub long: bool,
}

/// Spreads neighbouring seeds over everything.
const fn spread(seed: u64) -> u64 {
    let mixed = (seed ^ seed >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

impl Faults {
    /// The mix for a seed: every set of faults and of types comes up.
    pub fn mixed(seed: u64) -> Self {
        let bits = spread(seed);
        let bit = |nth: u64| bits >> nth & 1 == 1;
        Self {
            types: Types::some(bits >> 48 & bits >> 40 | bits >> 60 << 12),
            late: bit(0),
            gone: bit(1),
            reorder: bit(2),
            clone: bit(3),
            crash: bit(4),
            regress: bit(5),
            hungry: bit(6),
            interest: bit(7),
            mail: bit(8),
            quota: bit(9) && bit(10),
            window: bit(11),
            writes: bit(12),
            second: bit(13) && bit(14),
            clears: bit(15),
            long: bit(16) && bit(17) && bit(18),
        }
    }

    /// What a rule's absence needs in order to do harm.
    pub fn for_trap(trap: Trap) -> Self {
        let none = Self { long: true, ..Self::default() };
        match trap {
            // Those between relays are of another world: tests/relays.
            Trap::Boastful
            | Trap::Unasked
            | Trap::Doubtless
            | Trap::HastyTakeover
            | Trap::HeaderTells
            | Trap::ToldWhenSent
            | Trap::Forgetful
            | Trap::CallContext
            | Trap::BootSkip
            | Trap::CursorSettle
            | Trap::NoSettled
            | Trap::RedundantByValue => none,
            Trap::GcBlind => Self { hungry: true, ..none },
            Trap::Resend => Self { gone: true, ..none },
            Trap::VoidFree => Self { late: true, hungry: true, ..none },
            Trap::NoClone => Self { clone: true, ..none },
            Trap::NoHead | Trap::NoOpen | Trap::LateReseed | Trap::NoRestamp => {
                Self { regress: true, ..none }
            }
            Trap::FrameCounter => Self { reorder: true, ..none },
            Trap::SnapshotBlind => Self { regress: true, crash: true, ..none },
        }
    }
}
