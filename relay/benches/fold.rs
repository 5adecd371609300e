//! The fold on its own: what one delta costs at a million and ten million rows, what a pull costs at either size, what a
//! backlog weighs, and what a million nodes that came and went leave behind.
//!
//! `cargo bench -p dormouse-relay --bench fold` prints lines `name value unit`. One thread, in memory; about a minute
//! and 4 GiB. `DORMOUSE_BENCH_SMALL=1` leaves out the ten million rows.
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

use std::{
    collections::VecDeque,
    hint::black_box,
    time::{Duration, Instant},
};

use dormouse_proto::{
    ids::{Beat, BootId, Incarnation, Namespace, NodeId, OnceId, PushId, PushNo, Revision},
    lattice::{Change, CounterDelta, Delta, SetDelta},
    record::{Cause, Contact, Digest, Frame, FrameHeader, Gone, Join, Push, Record, Write},
};
use dormouse_relay::state::{Chunk, Fold, Pull, Token};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LOG: u64 = 1;

fn main() {
    let small = std::env::var_os("DORMOUSE_BENCH_SMALL").is_some();
    let apply_only = std::env::args().any(|argument| argument == "apply");
    report("apply_ns_10k", nanos_per_delta(&mut sets_of(10_000), 10_000), "ns");
    report("apply_counter_ns_10k", counter_nanos(10_000), "ns");
    let mut fold = sets_of(1_000_000);
    report("apply_ns_1m", nanos_per_delta(&mut fold, 1_000_000), "ns");
    report("apply_counter_ns_1m", counter_nanos(1_000_000), "ns");
    if apply_only && small {
        return;
    }
    first_pull(&fold);
    drop(fold);
    let few = pull_nanos(&mut sets_of(10_000), 10_000);
    if !small {
        let mut fold = sets_of(10_000_000);
        report("apply_ns_10m", nanos_per_delta(&mut fold, 10_000_000), "ns");
        let many = pull_nanos(&mut fold, 10_000_000);
        report("pull_1000_of_10k_us", few / 1e3, "us");
        report("pull_1000_of_10m_us", many / 1e3, "us");
        report("pull_scale_ratio", many / few, "ratio");
        drop(fold);
        report("apply_counter_ns_10m", counter_nanos(10_000_000), "ns");
    }
    backlog_of_updates();
    nodes_that_came_and_went();
}

fn report(name: &str, value: f64, unit: &str) {
    println!("{name} {value:.3} {unit}");
}

/// Appends frames to a fold, as a relay would.
struct Feed {
    writes: u64,
}

impl Feed {
    fn write(&mut self, deltas: Vec<Delta>) -> Record {
        self.writes += 1;
        let request_id: OnceId = format!("w{}", self.writes).parse().expect("a valid id");
        Record::Write(Write { namespace: Namespace::default(), request_id, deltas })
    }
}

fn frame(records: Vec<Record>) -> Frame {
    Frame { header: FrameHeader { session: 1, stamp_ms: 1, ..FrameHeader::default() }, records }
}

fn apply(fold: &mut Fold, records: Vec<Record>) {
    apply_frame(fold, &frame(records));
}

fn apply_frame(fold: &mut Fold, frame: &Frame) {
    fold.apply_frame(frame, |_, _, _, verdict| {
        black_box(verdict);
    });
}

fn element(n: u64) -> String {
    format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn set_delta(key: &str, add: &[u64], remove: &[u64]) -> Delta {
    let names = |list: &[u64]| list.iter().map(|n| element(*n).parse().expect("short")).collect();
    let remove = vec![dormouse_proto::lattice::Remove { elements: names(remove), as_of: None }];
    let change = Change::Set(SetDelta {
        add: names(add),
        remove: if remove[0].elements.is_empty() { Vec::new() } else { remove },
    });
    Delta { collection: "bench".parse().expect("valid"), key: key.parse().expect("valid"), change }
}

fn counter_delta(key: &str, amount: i64) -> Delta {
    let change = Change::Counter(CounterDelta { reset: None, amount, once: Vec::new() });
    Delta { collection: "bench".parse().expect("valid"), key: key.parse().expect("valid"), change }
}

fn join(node: u64) -> Record {
    Record::Join(Join {
        namespace: Namespace::default(),
        node: NodeId(node),
        incarnation: Incarnation(1),
        previous: None,
        boot_id: BootId([1; 16]),
        group: "bench".parse().expect("valid"),
        tags: std::collections::BTreeMap::new(),
        contact: None,
    })
}

fn push(node: u64, no: u64, deltas: Vec<Delta>) -> Record {
    Record::Push(Push {
        namespace: Namespace::default(),
        node: NodeId(node),
        incarnation: Incarnation(1),
        push_no: PushNo(no),
        push_id: PushId(no),
        deltas,
        contact: Some(Contact { beat: Beat(no), asleep: false, lease_ms: 3_000, awake_ms: 0 }),
    })
}

/// A thousand sets with elements of 16 bytes.
fn sets_of(rows: u64) -> Fold {
    let (mut fold, mut feed) = (Fold::new(), Feed { writes: 0 });
    let rows: Vec<u64> = (0..rows).collect();
    for (nth, part) in rows.chunks(1000).enumerate() {
        let record = feed.write(vec![set_delta(&format!("set{}", nth % 1000), part, &[])]);
        apply(&mut fold, vec![record]);
        while fold.tidy() {}
    }
    apply(&mut fold, vec![join(1)]);
    fold
}

fn key_of(n: u64) -> String {
    format!("set{}", n / 1000 % 1000)
}

/// Records of one frame.
const FRAME: u64 = 256;

/// One push with one delta at a time: removes a random element of a set, and later adds it again.
fn nanos_per_delta(fold: &mut Fold, rows: u64) -> f64 {
    /// Fewer than are ever dropped, so that the number of rows stays what it is.
    const ABSENT: usize = 2_000;
    let mut random = fastrand::Rng::with_seed(7);
    let mut absent = VecDeque::new();
    nanos_per_record(fold, |no| {
        let delta = if absent.len() < ABSENT {
            let row = random.u64(0..rows);
            absent.push_back(row);
            set_delta(&key_of(row), &[], &[row])
        } else {
            let row = absent.swap_remove_back(random.usize(0..ABSENT)).expect("not empty");
            set_delta(&key_of(row), &[row], &[])
        };
        push(1, no, vec![delta])
    })
}

/// One addition at a time to a random one of so many counters.
fn counter_nanos(rows: u64) -> f64 {
    let (mut fold, mut feed) = (Fold::new(), Feed { writes: 0 });
    let all: Vec<u64> = (0..rows).collect();
    for part in all.chunks(1000) {
        let record = feed.write(part.iter().map(|n| counter_delta(&format!("counter/{n}"), 1)).collect());
        apply(&mut fold, vec![record]);
    }
    apply(&mut fold, vec![join(1)]);
    let mut random = fastrand::Rng::with_seed(7);
    nanos_per_record(&mut fold, |no| {
        push(1, no, vec![counter_delta(&format!("counter/{}", random.u64(0..rows)), 1)])
    })
}

/// Index tidying included; making and freeing the records not. Each frame is made just before it is applied, as a
/// relay has just decoded it.
fn nanos_per_record(fold: &mut Fold, mut record: impl FnMut(u64) -> Record) -> f64 {
    const FRAMES: u64 = 3_000;
    let mut took = Duration::ZERO;
    for nth in 0..FRAMES {
        let frame = frame((1..=FRAME).map(|n| record(nth * FRAME + n)).collect());
        let started = Instant::now();
        apply_frame(fold, &frame);
        fold.tidy();
        took += started.elapsed();
    }
    took.as_nanos() as f64 / (FRAMES * FRAME) as f64
}

fn pull(fold: &Fold, token: Option<Token>, acked: &[Revision], max_bytes: usize) -> Chunk {
    let pull = Pull { token: token.map(Ok), all: true, acked, max_bytes, ..Pull::default() };
    fold.pull(LOG, &Namespace::default(), &pull).expect("the fold is not behind itself")
}

fn caught_up(fold: &Fold) -> Token {
    let mut token = None;
    loop {
        let chunk = pull(fold, token, &[], 3 << 20);
        token = Some(chunk.token);
        if chunk.caught_up {
            return token.expect("just set");
        }
    }
}

/// The time of one pull of 1,000 missed rows.
fn pull_nanos(fold: &mut Fold, rows: u64) -> f64 {
    let token = caught_up(fold);
    let mut random = fastrand::Rng::with_seed(11);
    let records = (0..1_000_u64)
        .map(|no| {
            let row = random.u64(0..rows);
            push(
                1,
                100_000_000 + no,
                vec![counter_delta(&format!("missed/{no}"), 1), set_delta(&key_of(row), &[row], &[])],
            )
        })
        .collect();
    apply(fold, records);
    let mut best = f64::MAX;
    for _ in 0..2_000 {
        let started = Instant::now();
        black_box(pull(fold, Some(token.clone()), &[], 1 << 20));
        best = best.min(started.elapsed().as_nanos() as f64);
    }
    best
}

/// A new node takes a million rows of 16 bytes.
fn first_pull(fold: &Fold) {
    let (mut token, mut bytes, mut rows) = (None, 0, 0);
    let started = Instant::now();
    loop {
        let chunk = pull(fold, token, &[], 1 << 20);
        bytes += chunk.keys.len();
        rows += chunk.rows;
        token = Some(chunk.token);
        if chunk.caught_up {
            break;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    report("first_pull_1m_bytes", bytes as f64, "bytes");
    report("chunk_build_rows_per_s", rows as f64 / seconds, "rows/s");
}

/// 10,000 rows missed after 1,000,000 updates to them: each row once, however often it changed.
fn backlog_of_updates() {
    let mut fold = Fold::new();
    apply(&mut fold, vec![join(1), join(2)]);
    let counters = |no: u64| {
        (0..100).map(|n| counter_delta(&format!("k{}", (no * 100 + n) % 10_000), 1)).collect::<Vec<_>>()
    };
    for no in 1..=100 {
        apply(&mut fold, vec![push(1, no, counters(no))]);
    }
    let token = caught_up(&fold);
    for no in 101..=10_100 {
        apply(&mut fold, vec![push(1, no, counters(no))]);
        fold.tidy();
    }
    let chunk = pull(&fold, Some(token.clone()), &[], 3 << 20);
    assert!(chunk.caught_up, "one chunk holds it all");
    report("pull_rows_per_changed_row", chunk.rows as f64 / 10_000.0, "ratio");
    report("pull_bytes_10k", chunk.keys.len() as f64, "bytes");

    // What the reader changed itself, and was told so, is not sent again.
    apply(&mut fold, vec![push(2, 1, counters(0))]);
    let own = fold.revision();
    let less = pull(&fold, Some(token), &[own], 3 << 20);
    report("pull_rows_less_own_acked", less.rows as f64, "rows");
}

/// A million nodes join, add 1 to one counter and leave; then their tombstones expire.
fn nodes_that_came_and_went() {
    let mut fold = Fold::new();
    apply(&mut fold, vec![join(0), push(0, 1, vec![counter_delta("hits", 1)])]);
    // The first nodes fill what is bounded: idle rows of the roster and of the dead.
    come_and_go(&mut fold, 1, 20_000);
    let before = snapshot_bytes(&fold);
    come_and_go(&mut fold, 20_001, 1_000_000);
    let after = snapshot_bytes(&fold);
    let row = pull(&fold, None, &[], 1 << 20);
    report("cold_start_counter_row_bytes", row.keys.len() as f64, "bytes");
    report("cold_start_state_ratio", after as f64 / before as f64, "ratio");
}

fn come_and_go(fold: &mut Fold, from: u64, upto: u64) {
    for node in from..=upto {
        let gone = Gone {
            namespace: Namespace::default(),
            node: NodeId(node),
            incarnation: Incarnation(1),
            cause: Cause::Left,
            beat: Beat(1),
            reason: String::new(),
        };
        apply(fold, vec![join(node), push(node, 1, vec![counter_delta("hits", 1)]), Record::Gone(gone)]);
        fold.tidy();
    }
    // An hour and more of log time, in the steps in which it may move.
    for step in 1..=800 {
        let digest = Digest { log_time_ms: fold.log_time_ms() + 5_000, ..Digest::default() };
        apply(fold, vec![Record::Digest(digest)]);
        black_box(step);
    }
}

fn snapshot_bytes(fold: &Fold) -> usize {
    let mut bytes = 0;
    fold.write_snapshot(|piece| bytes += piece.len());
    bytes
}
