//! A simulated world: the project's own fold on three relays, the project's own replica in each node, one log, no
//! clock. Everything that happens follows from a seed.
//!
//! What is simulated is only what a network, a disk and a scheduler do: requests and answers are lost, frames are
//! retried behind newer ones and stored twice, relays lag, crash and start from snapshots, the log loses its tail,
//! nodes are declared gone by mistake, forgotten, and cloned. What relays and nodes make of it is the project's code;
//! only the asynchronous shell around a call, `relay/src/grpc/sync.rs`, is told again here without its waiting.
//!
//! [`truth`] is the reference: it keeps every dot. [`said`] remembers what each author was really shown. [`check`]
//! compares. A broken invariant is a [`violation::Violation`] whose text names it.

#![allow(
    clippy::missing_panics_doc,
    reason = "a world that cannot be built is a defect of the check, and panics"
)]

use std::sync::OnceLock;

use dormouse_proto::ids::Namespace;

pub mod answer;
pub mod check;
mod end;
pub mod faults;
#[path = "../fleet/mod.rs"]
pub mod fleet;
pub mod healing;
pub mod history;
pub mod log;
pub mod machine;
pub mod node;
mod post;
mod program;
mod pull;
pub mod relay;
pub mod rows;
pub mod said;
pub mod sync;
pub mod told;
pub mod trace;
pub mod truth;
pub mod violation;
pub mod world;

/// How many namespaces there are. In most histories nothing happens in the second one.
pub const SPACES: usize = 2;

/// The namespaces, by number.
pub fn namespace(space: usize) -> &'static Namespace {
    static NAMES: OnceLock<[Namespace; SPACES]> = OnceLock::new();
    &NAMES.get_or_init(|| [Namespace::default(), "other".parse().expect("a name")])[space]
}

/// The fingerprint of the simulated log.
pub const LOG: u64 = 7;
