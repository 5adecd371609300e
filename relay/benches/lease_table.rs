//! What a lease costs: `cargo bench -p dormouse-relay --bench lease_table`. Prints `name value unit` lines.
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use dormouse_proto::ids::{Beat, CallId, Incarnation, NodeId, Revision};
use dormouse_relay::liveness::{
    Activity, Contact, Evidence, LeaseKey, LeasePolicy, LeaseSettings, LeaseTable, Millis, Session, Timestamp,
};

const AWAKE: Activity = Activity::Awake { remaining: None, then_asleep: false };
const HERE: Session = Session(1);

fn key(node: u64) -> LeaseKey {
    LeaseKey { namespace: 0, node: NodeId(node) }
}

fn filled(leases: u64) -> Result<LeaseTable, Box<dyn std::error::Error>> {
    let table = LeaseTable::new(LeasePolicy::new(LeaseSettings::default(), [])?);
    let group = "bench".parse()?;
    let evidence =
        Evidence { incarnation: Incarnation(1), beat: Beat(1), activity: AWAKE, ttl: Millis(3_000) };
    for node in 0..leases {
        table.admitted(Timestamp(0), key(node), &group, &evidence, HERE);
    }
    Ok(table)
}

fn renew(table: &LeaseTable, leases: u64, seed: u64, first_beat: u64, count: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    for number in 0..count {
        let contact = Contact {
            incarnation: Incarnation(1),
            beat: Beat(first_beat + number),
            call_id: CallId(number),
            activity: AWAKE,
            head: Revision::ZERO,
        };
        black_box(table.heard(Timestamp(number / 1_000), key(random.u64(0..leases)), &contact));
    }
}

/// Nanoseconds per renewal of a random lease, as seen by one thread.
fn renewals(table: &LeaseTable, leases: u64, threads: u64) -> f64 {
    const COUNT: u64 = 2_000_000;
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || renew(table, leases, thread, threads * COUNT, COUNT));
        }
    });
    start.elapsed().as_nanos() as f64 / COUNT as f64
}

fn expiry_of_all(table: &LeaseTable, at: u64) -> (Duration, usize) {
    let mut out = Vec::new();
    let start = Instant::now();
    table.due(Timestamp(at), None, |_| true, &mut out);
    (start.elapsed(), out.len())
}

/// Resident memory of this process; nothing where there is no `/proc`.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1_024
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Memory first, before anything was freed that could be used again.
    let before = resident_bytes();
    let million = filled(1_000_000)?;
    println!("lease_bytes_1m {:.0} bytes", (resident_bytes() - before) as f64 / 1e6);
    println!("lease_renew_ns_1m_1thread {:.0} ns", renewals(&million, 1_000_000, 1));
    println!("lease_renew_ns_1m_2threads {:.0} ns", renewals(&million, 1_000_000, 2));
    drop(million);

    let table = filled(100_000)?;
    println!("lease_renew_ns_100k_1thread {:.0} ns", renewals(&table, 100_000, 1));
    println!("lease_renew_ns_100k_2threads {:.0} ns", renewals(&table, 100_000, 2));

    let table = filled(100_000)?;
    let (suspect, count) = expiry_of_all(&table, 3_000);
    assert_eq!(count, 100_000, "every lease ran out");
    println!("mass_expiry_100k_ms {:.1} ms", suspect.as_secs_f64() * 1e3);
    let (gone, count) = expiry_of_all(&table, 8_000);
    assert_eq!(count, 100_000, "every end is proposed");
    println!("mass_gone_100k_ms {:.1} ms", gone.as_secs_f64() * 1e3);
    Ok(())
}
