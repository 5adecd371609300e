//! What others notice while somebody means harm, what a storm of cold starts takes, and what an idle connection costs.
//!
//! `TMPDIR=/where/the/disk/is cargo bench -p dormouse-tests --bench abuse` prints lines `name value unit`; arguments select
//! parts by the beginnings of their names: `attack`, `storm`, `idle`. About eight minutes. The relay is a process of its own
//! with its usual settings; attackers, callers and load share this one, on two threads. All of them share the processors, so
//! each attacker keeps to a pace (`attacks.rs`, with the reason for each) at which this process has time left for the
//! callers that it measures: what they notice is then the relay's doing. `attack_load_share` says how much of the machine was
//! busy during the worst.

mod attacks;
#[path = "../../access/certificates.rs"]
#[allow(dead_code, reason = "one certificate is enough here")]
mod certificates;
mod guarded;
mod idle;
#[path = "../part.rs"]
mod part;
#[path = "../../abuse/regular.rs"]
mod regular;
#[path = "../../processes/relay.rs"]
#[allow(dead_code, reason = "this relay is never restarted")]
mod relay;
mod storm;
#[path = "../../processes/usage.rs"]
mod usage;
#[path = "../../abuse/wire.rs"]
#[allow(dead_code, reason = "the tests break more rules")]
mod wire;

use std::time::Duration;

use part::part;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        part("attack", attacks::all()).await;
        part("storm", storm::storms()).await;
        part("idle", idle::connections()).await;
    });
}

fn report(name: &str, value: f64, unit: &str) {
    println!("{name} {value:.3} {unit}");
}

/// What so many of a hundred stay below.
fn percentile(mut took: Vec<Duration>, of_100: usize) -> f64 {
    took.sort_unstable();
    took[(took.len() * of_100 / 100).min(took.len() - 1)].as_secs_f64() * 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
