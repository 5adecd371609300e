//! The labels of the counters and the values that they may have.

use std::{fmt, marker::PhantomData};

use dormouse_proto::record::Cause;
use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// The contract's reasons of a refusal.
pub(super) const REASONS: &[&str] = &[
    "FIELD_INVALID",
    "TOO_LARGE",
    "PAGE_TOKEN_INVALID",
    "CONTEXT_INVALID",
    "TOKEN_MISSING",
    "TOKEN_UNKNOWN",
    "NAMESPACE_DENIED",
    "ROLE_DENIED",
    "NODE_UNKNOWN",
    "NODE_GONE",
    "OUTCOME_UNKNOWN",
    "STALE",
    "QUOTA",
    "BUSY",
    "SLOW_READER",
    "SLOW_SENDER",
    "STARTING",
    "BEHIND",
    "LOG_UNREACHABLE",
    "STORE_FULL",
];

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushResult {
    /// It took effect now.
    Bound,
    /// It had taken effect before.
    Duplicate,
    /// It took no effect and never will.
    Refused,
    /// Another process holds its node's identity.
    Fork,
    /// A newer push of its node was accepted before.
    Old,
}

/// How a node was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// For the first time.
    Joined,
    /// Again, after it had been declared GONE.
    Readmitted,
    /// Under a new id, because another process holds the old one.
    Forked,
    /// Under a new id, because nothing is known of the old one.
    Forgotten,
}

/// What became of the posting of an event to its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookOutcome {
    /// The owner took it.
    Delivered,
    /// A try failed, and another one follows.
    TriedAgain,
    /// The last try failed: the owner does not hear of it in this way.
    Failed,
    /// Too many waited already: the owner does not hear of it in this way.
    Dropped,
}

/// What became of a file that has changed while the relay runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRead {
    /// It is in force.
    Taken,
    /// It cannot be used: what was read before stays in force.
    Refused,
}

/// What became of a log that came back without its newest frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reseeding {
    /// This relay still held what the log had lost, and gave it back.
    Healed,
    /// Another relay did.
    HealedByAnother,
    /// Something had taken effect since, or this relay does not hold enough: what the log has lost is lost.
    LogWon,
}

/// What became of a TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// The connection stands.
    Done,
    /// The two sides found nothing in common, or one did not like the other's certificate.
    Failed,
    /// The caller speaks something else than TLS.
    Plaintext,
    /// The caller took too long.
    TimedOut,
}

/// Why this relay's word is weaker than usual. The contract has the same words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Its log has no room.
    StoreFull,
    /// Its log does not answer.
    LogUnreachable,
    /// Nobody is declared GONE.
    ExpiryHeld,
    /// Very many members fell silent at once and are kept.
    MassLoss,
    /// It is late, and grants longer awake leases meanwhile.
    LeasesStretched,
}

impl Condition {
    /// As the contract writes it.
    pub fn name(self) -> &'static str {
        self.text()
    }
}

/// Why a connection was turned away, or closed by this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// All places were taken, and nobody was idle.
    Full,
    /// Likewise all places of its address.
    AddressFull,
    /// More handshakes waited for their turn than could have it in time.
    Hurried,
    /// A newer one has its place.
    MadeRoom,
    /// It never said what it wants.
    Silent,
    /// Nobody called for long.
    Idle,
    /// A header or an answer took too long.
    Slow,
    /// What it said is no HTTP, or breaks its rules.
    Malformed,
    /// A header was larger than what is read at all.
    HeaderTooLarge,
    /// Bytes or calls without sense, and too many of them.
    Flood,
    /// Its calls were sent away again and again for their tokens.
    SentAway,
}

/// A label with known values.
pub(super) trait Label: Copy + Send + Sync + fmt::Debug + 'static {
    const NAME: &'static str;
    const ALL: &'static [Self];
    fn text(self) -> &'static str;
    /// Its place in `ALL`.
    fn place(self) -> usize;
}

macro_rules! label {
    ($type:ident, $name:literal: $($variant:ident => $text:literal),+) => {
        impl Label for $type {
            const NAME: &'static str = $name;
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            fn place(self) -> usize {
                self as usize
            }
        }
    };
}

label!(PushResult, "result": Bound => "bound", Duplicate => "duplicate", Refused => "refused", Fork => "fork", Old => "old");
label!(Admission, "admission": Joined => "joined", Readmitted => "readmitted", Forked => "forked", Forgotten => "forgotten");
label!(Cause, "cause": Left => "left", Expired => "expired", Evicted => "evicted");
label!(WebhookOutcome, "outcome": Delivered => "delivered", TriedAgain => "tried_again", Failed => "failed", Dropped => "dropped");
label!(Reseeding, "outcome": Healed => "healed", HealedByAnother => "healed_by_another", LogWon => "log_won");
label!(FileRead, "outcome": Taken => "taken", Refused => "refused");
label!(Handshake, "outcome": Done => "done", Failed => "failed", Plaintext => "plaintext", TimedOut => "timed_out");
label!(Condition, "condition": StoreFull => "STORE_FULL", LogUnreachable => "LOG_UNREACHABLE", ExpiryHeld => "EXPIRY_HELD", MassLoss => "MASS_LOSS", LeasesStretched => "LEASES_STRETCHED");

label!(Visit, "reason": Full => "full", AddressFull => "address_full", Hurried => "hurried", MadeRoom => "made_room", Silent => "silent",
    Idle => "idle", Slow => "slow", Malformed => "malformed", HeaderTooLarge => "header_too_large", Flood => "flood", SentAway => "sent_away");

pub(super) type Labels = [(&'static str, &'static str); 1];

/// One counter for each value of a label, found without a lock.
#[derive(Debug)]
pub(super) struct CounterPer<L> {
    counters: Vec<Counter>,
    label: PhantomData<L>,
}

impl<L: Label> CounterPer<L> {
    pub(super) fn registered(registry: &mut Registry, name: &str, help: &str) -> Self {
        let family = Family::<Labels, Counter>::default();
        let counters =
            L::ALL.iter().map(|value| family.get_or_create_owned(&[(L::NAME, value.text())])).collect();
        registry.register(name, help, family);
        Self { counters, label: PhantomData }
    }

    pub(super) fn of(&self, value: L) -> &Counter {
        &self.counters[value.place()]
    }

    /// As many as the label has values, in their order; 0 beyond.
    pub(super) fn counts<const N: usize>(&self) -> [u64; N] {
        std::array::from_fn(|place| self.counters.get(place).map_or(0, Counter::get))
    }

    /// Each value that was counted, with how often.
    pub(super) fn counted(&self) -> Vec<(&'static str, u64)> {
        let counted = L::ALL.iter().map(|value| (value.text(), self.of(*value).get()));
        counted.filter(|(_, count)| *count > 0).collect()
    }

    pub(super) fn sum(&self) -> u64 {
        self.counters.iter().map(Counter::get).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts_where_it_is_named<L: Label + PartialEq>() {
        for (place, value) in L::ALL.iter().enumerate() {
            assert_eq!(value.place(), place, "{value:?}");
        }
    }

    #[test]
    fn a_value_is_counted_under_its_own_name() {
        counts_where_it_is_named::<PushResult>();
        counts_where_it_is_named::<Admission>();
        counts_where_it_is_named::<Cause>();
        counts_where_it_is_named::<WebhookOutcome>();
        counts_where_it_is_named::<FileRead>();
        counts_where_it_is_named::<Handshake>();
        counts_where_it_is_named::<Condition>();
        counts_where_it_is_named::<Visit>();
    }
}
