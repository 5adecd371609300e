//! What may go wrong in one history, how much of it, and what the leases are.

use dormouse_proto::traps::Trap;
use dormouse_relay::liveness::{LeaseSettings, Millis, UndeclaredFreeze};
use fastrand::Rng;

/// What may go wrong.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each of them may come with every other")]
pub(crate) struct Faults {
    /// Relays stand still.
    pub(crate) pauses: bool,
    /// A relay loses its connection to the log, and makes another one.
    pub(crate) cuts: bool,
    /// A relay's connection hangs, and all of it arrives later.
    pub(crate) hangs: bool,
    /// What it reads does not hang with it.
    pub(crate) one_way: bool,
    /// Relays are killed and start again, or do not.
    pub(crate) restarts: bool,
    /// The log stands still for everybody.
    pub(crate) stalls: bool,
    /// The log refuses frames.
    pub(crate) refusals: bool,
    /// One relay comes late to its own looks, so that its awake leases grow.
    pub(crate) late: bool,
    /// Only some nodes, so that relays have little to say.
    pub(crate) few: bool,
    /// Two relays, and many nodes.
    pub(crate) busy: bool,
    /// Some relay reads late, up to so many milliseconds.
    pub(crate) lag_ms: u64,
    /// What a frame takes to the log, and what an answer or a frame takes back, at most.
    pub(crate) delay_ms: u64,
    /// How long an append waits before it is given up as unknown.
    pub(crate) append_timeout_ms: u64,
    /// Faults are as long as they can be, and a relay that was killed starts at once.
    pub(crate) long: bool,
    /// Mean time between two faults.
    pub(crate) every_ms: u64,
}

impl Faults {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let mut some = |of: u8| rng.u8(0..of) == 0;
        let (pauses, cuts, hangs, restarts) = (some(2), some(2), some(2), some(2));
        let (stalls, refusals, late, few, one_way, long) =
            (some(3), some(5), some(8), some(6), some(2), some(8));
        let busy = some(8);
        Self {
            pauses,
            cuts,
            hangs,
            one_way,
            long,
            restarts,
            stalls,
            refusals,
            late,
            few,
            busy,
            lag_ms: [5, 30, 300, 1_500, 4_000, 8_000][rng.usize(..6)],
            delay_ms: [20, 20, 100, 400][rng.usize(..4)],
            append_timeout_ms: [700, 2_000, 5_000, 60_000][rng.usize(..4)],
            every_ms: [2_500, 6_000, 12_000][rng.usize(..3)],
        }
    }
}

impl Faults {
    /// Nothing goes wrong.
    pub(crate) fn none(self) -> Self {
        Self {
            pauses: false,
            cuts: false,
            hangs: false,
            one_way: false,
            restarts: false,
            stalls: false,
            refusals: false,
            late: false,
            few: false,
            busy: false,
            lag_ms: 20,
            delay_ms: 20,
            ..self
        }
    }

    /// What the absence of a rule needs in order to do harm.
    pub(crate) fn for_trap(self, trap: Trap) -> Self {
        let troubled = Self { few: false, every_ms: 2_500, ..self };
        match trap {
            Trap::HeaderTells => Self { delay_ms: 400, busy: true, ..self.none() },
            Trap::ToldWhenSent => Self { refusals: true, delay_ms: 400, busy: true, ..self.none() },
            Trap::Forgetful => {
                let (delay_ms, append_timeout_ms, every_ms) = (400, 60_000, 2_500);
                let some = Self { delay_ms, append_timeout_ms, every_ms, ..self.none() };
                Self { hangs: true, one_way: true, restarts: true, long: true, busy: true, ..some }
            }
            Trap::HastyTakeover => Self { cuts: true, hangs: true, ..troubled },
            _ => troubled,
        }
    }
}

/// The usual awake lease, at which the silence of a relay is as short as can be; sleeps that end soon.
pub(crate) fn leases(rng: &mut Rng) -> LeaseSettings {
    let asleep = Millis([3_500, 6_000, 12_000][rng.usize(..3)]);
    LeaseSettings {
        awake: Millis(3_000),
        asleep,
        asleep_min: asleep,
        asleep_max: asleep,
        margin: Millis(100),
        suspect_grace: Millis([100, 1_000][rng.usize(..2)]),
        undeclared_freeze: if rng.u8(0..5) == 0 { UndeclaredFreeze::Allow } else { UndeclaredFreeze::Deny },
    }
}
