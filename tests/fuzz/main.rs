//! Fuzz targets: everything that reads bytes from elsewhere, and the fold itself.
//!
//! As plain tests each target tries what it can in a few seconds, from a fresh seed, and prints the seed of what failed:
//! `BOLERO_RANDOM_SEED=... cargo test -p dormouse-tests --test fuzz NAME` tries it again.
//! `BOLERO_RANDOM_TEST_TIME_MS=600000` tries for longer. CONTRIBUTING.md has the command for a coverage-guided engine.

mod choices;
mod decoders;
mod deltas;
mod fold;
mod history;

use std::time::Duration;

use bolero::{ValueGenerator, produce};

/// How long one target tries when nothing else is asked for.
const BRIEFLY: Duration = Duration::from_secs(3);

/// Enough choices for a history of some hundred records.
fn long_input() -> impl ValueGenerator<Output = Vec<u8>> {
    produce::<Vec<u8>>().with().len(0..4_096_usize)
}
