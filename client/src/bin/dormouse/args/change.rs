//! What may be written, type by type.

use clap::Subcommand;
use dormouse_proto::ids::Element;

use super::{json, switch};

/// The most that one write may add to a counter.
const AMOUNT_MAX: i64 = 1 << 48;

/// What is written.
#[derive(Debug, Subcommand)]
pub(crate) enum Change {
    /// A number that many may change at once
    Counter {
        #[command(subcommand)]
        change: CounterChange,
    },
    /// A set of texts
    Set {
        #[command(subcommand)]
        change: SetChange,
    },
    /// One value
    Register {
        #[command(subcommand)]
        change: RegisterChange,
    },
    /// A switch; on wins over a concurrent off
    Flag {
        #[arg(action = clap::ArgAction::Set, value_parser = switch, value_name = "on|off")]
        on: bool,
    },
    /// A switch; off wins over a concurrent on
    DisableWinsFlag {
        #[arg(action = clap::ArgAction::Set, value_parser = switch, value_name = "on|off")]
        on: bool,
    },
    /// Offers a number; the largest stays
    Max {
        #[arg(allow_negative_numbers = true)]
        n: i64,
    },
    /// Offers a number; the smallest stays
    Min {
        #[arg(allow_negative_numbers = true)]
        n: i64,
    },
    /// A log of events
    Events {
        #[command(subcommand)]
        change: EventsChange,
    },
    /// Values that were written concurrently, side by side
    Siblings {
        #[command(subcommand)]
        change: RegisterChange,
    },
    /// A set of texts from which nothing is removed
    GrowOnlySet {
        #[command(subcommand)]
        change: GrowOnlySetChange,
    },
    /// A set of texts; a remove wins over a concurrent add
    RemoveWinsSet {
        #[command(subcommand)]
        change: SetChange,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventsChange {
    /// Appends entries, at most 500: JSON, so a text has quotes of its own
    Append {
        #[arg(required = true, value_name = "JSON", value_parser = json, allow_negative_numbers = true, num_args = 1..=500)]
        entries: Vec<String>,
    },
    /// Drops the entries up to that revision
    Trim { revision: u64 },
}

#[derive(Debug, Subcommand)]
pub(crate) enum GrowOnlySetChange {
    /// Adds elements
    Add {
        #[arg(required = true, value_name = "ELEMENT")]
        elements: Vec<Element>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CounterChange {
    /// Adds N, at most 2^48
    Add {
        #[arg(value_parser = clap::value_parser!(i64).range(0..=AMOUNT_MAX))]
        n: i64,
    },
    /// Subtracts N, at most 2^48
    Subtract {
        #[arg(value_parser = clap::value_parser!(i64).range(0..=AMOUNT_MAX))]
        n: i64,
    },
    /// Takes away what is there when the relay accepts it, and leaves N
    Reset {
        #[arg(default_value_t = 0, allow_negative_numbers = true,
              value_parser = clap::value_parser!(i64).range(-AMOUNT_MAX..=AMOUNT_MAX))]
        n: i64,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SetChange {
    /// Adds elements
    Add {
        #[arg(required = true, value_name = "ELEMENT")]
        elements: Vec<Element>,
    },
    /// Removes elements
    Remove {
        #[arg(required = true, value_name = "ELEMENT")]
        elements: Vec<Element>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RegisterChange {
    /// Writes a value: JSON, so a text has quotes of its own
    Set {
        #[arg(value_name = "JSON", value_parser = json, allow_negative_numbers = true)]
        value: String,
    },
    /// Deletes the value
    Delete,
}
