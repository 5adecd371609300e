//! What membership costs and how fast it is, at a relay that is its own binary in its own process, with all load from
//! this one: nodes by hand on a few HTTP/2 connections.
//!
//! `TMPDIR=/where/the/disk/is cargo bench -p dormouse-tests --bench lives` prints lines `name value unit`; arguments select
//! parts by the beginnings of their names:
//!
//! - `lease`: bytes of a lease at a million of them, as the allocator counts them, in this process
//! - `renewals`: sustained renewals, and their latency
//! - `pause`: a relay of 10,000 leases that is stopped for 5, 30 and 120 s. Two times each of the short ones and the long
//!   one once, about 5 minutes; `DORMOUSE_BENCH_LONG=1`: 20 times each, about an hour
//! - `mass`: 100,000 leases that run out in the same moment, and 100 watchers (or `DORMOUSE_BENCH_WATCHERS`); about 4
//!   minutes and 1 GiB
//! - `churn`: 1,000 joins and 1,000 unclean ends per second for 2 minutes, after 5 of warm-up in which memory levels out;
//!   `DORMOUSE_BENCH_LONG=1`: for 10 minutes after that
//! - `idle`: 10,000 sleepers and nothing to do, for a minute
//!
//! All processors are shared by the relay and the load, so other programs show at once; `load_average` says how many there
//! were before each part.
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

mod churn;
mod load;
mod mass;
#[path = "../part.rs"]
mod part;
mod pause;
mod quiet;
#[path = "../../processes/relay.rs"]
mod relay;
#[path = "../../processes/usage.rs"]
mod usage;

use std::time::Duration;

use cap::Cap;
use part::part;

/// Counts what is allocated, for the bytes of a lease.
#[global_allocator]
static ALLOCATOR: Cap<mimalloc::MiMalloc> = Cap::new(mimalloc::MiMalloc, usize::MAX);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        part("lease", async { quiet::bytes_of_a_lease() }).await;
        part("renewals", quiet::renewals()).await;
        part("pause", pause::pauses()).await;
        part("mass", mass::expiry()).await;
        part("churn", churn::churn()).await;
        part("idle", quiet::idle()).await;
    });
}

fn is_long() -> bool {
    std::env::var("DORMOUSE_BENCH_LONG").as_deref() == Ok("1")
}

fn report(name: &str, value: f64, unit: &str) {
    println!("{name} {value:.3} {unit}");
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The value below which 99 of 100 are; zero of nothing.
fn p99(mut values: Vec<Duration>) -> Duration {
    values.sort_unstable();
    values.get(values.len() * 99 / 100).copied().unwrap_or_default()
}
