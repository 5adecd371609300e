//! What is promised of the state's size and of the way back to it, measured: the memory of a row beyond its payload, the
//! time to load a snapshot and to replay the log behind it, inserting into large sets, the bytes of a row on the wire,
//! and what is left of the dead after elements came and went for a long time.
//!
//! `cargo bench -p dormouse-relay --bench bounds` prints lines `name value unit`. One thread, in memory; about three
//! minutes and 3 GiB. `DORMOUSE_BENCH_SMALL=1` takes a million rows where it says 10m; `DORMOUSE_BENCH_LONG=1` churns
//! a hundred million times and not ten. A word after `--` runs what has it in its name: `-- churn`.
//!
//! Memory is the resident set of the process with mimalloc, the allocator of the relay, as Linux tells it in
//! `/proc/self/statm`: with its rounding and its own tables, and without a counter in the way of what is timed. Loading
//! and replay are timed by what the thread really ran, so that others on the machine count less. While elements come and
//! go a few MB are all there is, the bench's own reader with them; what the state alone asks for is in `tests/memory.rs`.
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

use std::{collections::HashSet, hint::black_box, time::Instant};

use dormouse_proto::{
    ids::{BootId, Incarnation, Namespace, NodeId, PushId, PushNo},
    lattice::{Change, CounterDelta, Delta, Remove, SetDelta},
    record::{Frame, FrameBuilder, FrameHeader, Join, Push, Record},
    wire::v1::{self, key_state::State},
};
use dormouse_relay::state::{Fold, Pull, Token};
use prost::Message as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LOG: u64 = 1;
const COLLECTION: &str = "bench";

/// First those that look at the memory of the whole process.
const BENCHES: [(&str, fn()); 6] = [
    ("churn", churn),
    ("rows snapshot_load", rows_and_their_snapshot),
    ("wire_set", wire_of_sets),
    ("wire_counter", wire_of_counters),
    ("insert_scale", insert_scale),
    ("replay", replay),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let asked = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    BENCHES.iter().filter(|(name, _)| asked(name)).for_each(|(_, bench)| bench());
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some()
}

fn report(name: &str, value: f64, unit: &str) {
    println!("{name} {value:.3} {unit}");
}

/// Bytes of memory that the process holds; zero where there is no such file.
fn resident() -> f64 {
    const PAGE: f64 = 4096.0;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(0.0) * PAGE
}

/// Seconds that this thread was running, to some milliseconds, of which Linux keeps count; or else just the time.
fn running(since: Instant) -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ran = stat.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok());
    ran.map_or_else(|| since.elapsed().as_secs_f64(), |nanos| nanos / 1e9)
}

/// Seconds of running that this takes.
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let since = Instant::now();
    let before = running(since);
    let done = work();
    (done, running(since) - before)
}

/// A fold that one member pushes to.
struct Member {
    fold: Fold,
    push_no: u64,
}

impl Member {
    fn new() -> Self {
        let mut it = Self { fold: Fold::new(), push_no: 0 };
        it.apply(vec![join(1)]);
        it
    }

    fn record(&mut self, deltas: Vec<Delta>) -> Record {
        self.push_no += 1;
        Record::Push(Push {
            namespace: Namespace::default(),
            node: NodeId(1),
            incarnation: Incarnation(1),
            push_no: PushNo(self.push_no),
            push_id: PushId(self.push_no),
            deltas,
            contact: None,
        })
    }

    fn apply(&mut self, records: Vec<Record>) {
        apply(&mut self.fold, &Frame { header: FrameHeader::default(), records });
    }

    fn push(&mut self, deltas: Vec<Delta>) {
        let record = self.record(deltas);
        self.apply(vec![record]);
    }
}

fn apply(fold: &mut Fold, frame: &Frame) {
    fold.apply_frame(frame, |_, _, _, verdict| {
        black_box(verdict);
    });
    fold.tidy();
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

fn element(n: u64) -> String {
    format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn delta(key: String, change: Change) -> Delta {
    Delta { collection: COLLECTION.parse().expect("valid"), key: key.try_into().expect("valid"), change }
}

fn add(set: u64, elements: impl Iterator<Item = u64>) -> Delta {
    let add = elements.map(|n| element(n).try_into().expect("valid")).collect();
    delta(format!("set{set}"), Change::Set(SetDelta { add, remove: Vec::new() }))
}

fn remove(set: u64, n: u64) -> Delta {
    let remove = vec![Remove { elements: vec![element(n).try_into().expect("valid")], as_of: None }];
    delta(format!("set{set}"), Change::Set(SetDelta { add: Vec::new(), remove }))
}

fn count(n: u64, amount: i64) -> Delta {
    delta(format!("counter/{n}"), Change::Counter(CounterDelta { reset: None, amount, once: Vec::new() }))
}

/// So many sets, a thousand elements for each push.
fn sets_of(rows: u64, sets: u64) -> Member {
    let mut member = Member::new();
    for nth in 0..rows / 1000 {
        member.push(vec![add(nth % sets, nth * 1000..(nth + 1) * 1000)]);
    }
    member
}

fn rows_and_their_snapshot() {
    let (rows, size) = if is_set("DORMOUSE_BENCH_SMALL") { (1_000_000, "1m") } else { (10_000_000, "10m") };
    let before = resident();
    let fold = sets_of(rows, 1000).fold;
    report(&format!("row_overhead_bytes_{size}"), (resident() - before) / rows as f64 - 16.0, "bytes");
    let estimate = fold.namespace(&Namespace::default()).expect("written to").bytes();
    report(&format!("row_estimate_bytes_{size}"), estimate as f64 / rows as f64 - 16.0, "bytes");

    let mut snapshot = Vec::new();
    fold.write_snapshot(|piece| snapshot.extend_from_slice(piece));
    report(&format!("snapshot_bytes_per_row_{size}"), snapshot.len() as f64 / rows as f64, "bytes");
    let hash = fold.hash();
    drop(fold);
    let (restored, seconds) = timed(|| Fold::restore(snapshot.chunks(1 << 20)).expect("as it was written"));
    report(&format!("snapshot_load_{size}_s"), seconds, "s");
    assert_eq!(restored.hash(), hash, "what was written");
}

/// All rows of a fold as the wire has them, and how many bytes that takes.
fn pull_all(fold: &Fold, token: &mut Option<Token>, mut each: impl FnMut(v1::Chunk, bool)) -> usize {
    let mut bytes = 0;
    loop {
        let pull = Pull { token: token.take().map(Ok), all: true, max_bytes: 1 << 20, ..Pull::default() };
        let chunk = fold.pull(LOG, &Namespace::default(), &pull).expect("the fold is not behind itself");
        *token = Some(chunk.token);
        bytes += chunk.keys.len();
        each(v1::Chunk::decode(chunk.keys.as_slice()).expect("rows"), chunk.restart.is_some());
        if chunk.caught_up {
            return bytes;
        }
    }
}

/// Names of keys and collections in all chunks, with their tags and lengths.
fn bytes_of_names(fold: &Fold) -> usize {
    let mut names = 0;
    pull_all(fold, &mut None, |chunk, _| {
        names += chunk.keys.iter().map(|key| key.collection.len() + key.key.len() + 4).sum::<usize>();
    });
    names
}

/// A set that is pushed a thousand elements at a time names its key once for all; one element at a time to a random
/// one of a thousand sets has it named for each.
fn wire_of_sets() {
    const ROWS: u64 = 200_000;
    let mut scattered = Member::new();
    for n in 0..ROWS {
        scattered.push(vec![add(n.wrapping_mul(0x9e37_79b9) >> 7 & 1023, n..=n)]);
    }
    for (shape, fold) in [("set", sets_of(ROWS, 1000).fold), ("set_scattered", scattered.fold)] {
        let bytes = pull_all(&fold, &mut None, |_, _| {});
        report(&format!("wire_overhead_{shape}_bytes"), bytes as f64 / ROWS as f64 - 16.0, "bytes");
        report(&format!("wire_names_{shape}_bytes"), bytes_of_names(&fold) as f64 / ROWS as f64, "bytes");
    }
}

fn wire_of_counters() {
    const ROWS: u64 = 200_000;
    let mut member = Member::new();
    for n in 0..ROWS {
        member.push(vec![count(n, 1 + n.cast_signed() % 1000)]);
    }
    let mut payload = 0;
    let bytes = pull_all(&member.fold, &mut None, |chunk, _| {
        for key in chunk.keys {
            let Some(State::Counter(counter)) = key.state else { continue };
            payload += key.key.len() + varint_len(counter.value) + varint_len(counter.total);
        }
    });
    report("wire_overhead_counter_bytes", (bytes - payload) as f64 / ROWS as f64, "bytes");
    report("wire_names_counter_bytes", bytes_of_names(&member.fold) as f64 / ROWS as f64, "bytes");
}

/// Bytes of a signed number in the shortest form that protobuf has.
fn varint_len(number: i64) -> usize {
    let zigzag = (number << 1) ^ (number >> 63);
    prost::encoding::encoded_len_varint(zigzag.cast_unsigned())
}

/// Nanoseconds for each of so many new elements in a set of `size`, a push for each.
fn insert_nanos(member: &mut Member, size: u64, new: u64) -> f64 {
    let records: Vec<Record> =
        (size..size + new).map(|n| vec![add(0, n..=n)]).map(|deltas| member.record(deltas)).collect();
    let frame = Frame { header: FrameHeader::default(), records };
    let started = Instant::now();
    apply(&mut member.fold, &frame);
    started.elapsed().as_nanos() as f64 / new as f64
}

/// The mean of many short runs, so that growing is in it; the best of several means, because others use the machine.
fn insert_scale() {
    const NEW: u64 = 100;
    const RUNS: u64 = 300;
    let best =
        |round: &mut dyn FnMut() -> f64| (0..5).map(|_| round()).fold(f64::MAX, f64::min) / RUNS as f64;
    let few = best(&mut || (0..RUNS).map(|_| insert_nanos(&mut sets_of(1_000, 1), 1_000, NEW)).sum());
    let many = best(&mut || {
        let mut member = sets_of(1_000_000, 1);
        (0..RUNS).map(|nth| insert_nanos(&mut member, 1_000_000 + nth * NEW, NEW)).sum()
    });
    report("insert_ns_1k", few, "ns");
    report("insert_ns_1m", many, "ns");
    report("insert_scale_ratio", many / few, "ratio");
}

/// A push of 64 deltas: half of them add to counters, half add elements to sets or take them away.
fn mixed(random: &mut fastrand::Rng) -> Vec<Delta> {
    let (set, counter) = (random.u64(0..1000), random.u64(0..100_000));
    let sets = (0..32).map(|n| {
        let (set, n) = ((set + n) % 1000, random.u64(0..1_000_000));
        if n.is_multiple_of(4) { remove(set, n) } else { add(set, n..=n) }
    });
    sets.chain((0..32).map(|n| count((counter + n * 977) % 100_000, 1))).collect()
}

/// Frames as the sequencer makes them, in the bytes that stand in the log, on top of a million rows.
fn replay() {
    const PUSHES: u64 = 60_000;
    const FRAME_BYTES: usize = 60 << 10;
    let mut member = sets_of(1_000_000, 1000);
    let mut random = fastrand::Rng::with_seed(7);
    let (mut frames, mut builder) = (Vec::new(), FrameBuilder::default());
    for _ in 0..PUSHES {
        builder.push(member.record(mixed(&mut random)));
        if builder.len() >= FRAME_BYTES {
            frames.push(std::mem::take(&mut builder).finish(FrameHeader::default()));
        }
    }
    frames.push(builder.finish(FrameHeader::default()));
    let bytes: usize = frames.iter().map(Vec::len).sum();
    report("replay_bytes_per_delta", bytes as f64 / (PUSHES * 64) as f64, "bytes");
    let decode = |bytes: &Vec<u8>| Frame::decode(bytes).expect("as it was written");
    let ((), decoding) = timed(|| {
        for bytes in &frames {
            black_box(decode(bytes));
        }
    });
    let ((), seconds) = timed(|| frames.iter().for_each(|bytes| apply(&mut member.fold, &decode(bytes))));
    report("replay_decode_share", decoding / seconds, "ratio");
    report("replay_deltas_per_s", (PUSHES * 64) as f64 / seconds, "deltas/s");
}

/// Elements of one set that come and go: what there is by a plain list, and by a reader that pulls now and then.
struct Churn {
    member: Member,
    random: fastrand::Rng,
    present: Vec<u64>,
    absent: Vec<u64>,
    shown: HashSet<String>,
    token: Option<Token>,
}

impl Churn {
    const LIVE: u64 = 10_000;
    const NAMES: u64 = 40_000;

    fn new() -> Self {
        let mut member = sets_of(Self::LIVE, 1);
        // It joins, and is not heard of again: nothing may wait for it.
        member.apply(vec![join(2)]);
        Self {
            member,
            random: fastrand::Rng::with_seed(13),
            present: (0..Self::LIVE).collect(),
            absent: (Self::LIVE..Self::NAMES).collect(),
            shown: HashSet::new(),
            token: None,
        }
    }

    /// Removes 32 random elements and adds 32 others.
    fn push(&mut self) {
        const HALF: usize = 32;
        for nth in 0..HALF {
            let (goes, comes) =
                (self.random.usize(nth..self.present.len()), self.random.usize(nth..self.absent.len()));
            self.present.swap(nth, goes);
            self.absent.swap(nth, comes);
        }
        self.present[..HALF].swap_with_slice(&mut self.absent[..HALF]);
        let names = |list: &[u64]| list.iter().map(|n| element(*n).try_into().expect("valid")).collect();
        let remove = vec![Remove { elements: names(&self.absent[..HALF]), as_of: None }];
        let change = Change::Set(SetDelta { add: names(&self.present[..HALF]), remove });
        self.member.push(vec![delta("set0".to_owned(), change)]);
    }

    /// The reader pulls what it missed. Returns how many elements it shows that are not there, or the other way round.
    fn wrong(&mut self) -> usize {
        let shown = &mut self.shown;
        pull_all(&self.member.fold, &mut self.token, |chunk, restarts| {
            if restarts {
                shown.clear();
            }
            for key in chunk.keys {
                let Some(State::Set(set)) = key.state else { continue };
                shown.extend(set.present);
                set.removed.iter().for_each(|element| {
                    shown.remove(element);
                });
            }
        });
        let there: HashSet<String> = self.present.iter().copied().map(element).collect();
        there.symmetric_difference(shown).count()
    }
}

fn churn() {
    const WARM: u64 = 1_000_000;
    let operations = if is_set("DORMOUSE_BENCH_LONG") { 100_000_000 } else { 10_000_000 };
    let (mut churn, mut wrong, mut warm) = (Churn::new(), 0, 0.0);
    for nth in 1..=operations / 64 {
        churn.push();
        // Often enough to be told all, and now and then so late that the dead it waits for were dropped.
        if nth % 50 == 0 && nth % 20_000 > 2_000 {
            wrong += churn.wrong();
        }
        if nth == WARM / 64 {
            warm = resident();
        }
    }
    wrong += churn.wrong();
    churn.token = None;
    churn.shown.clear();
    wrong += churn.wrong();
    let growth = resident() / warm;
    let view = churn.member.fold.namespace(&Namespace::default()).expect("written to");
    let cap = churn.member.fold.limits().dead_rows_min.max(Churn::LIVE / 4);
    report("churn_operations", operations as f64, "operations");
    report("churn_dead_rows_over_cap", view.dead_rows() as f64 / cap as f64, "ratio");
    report("churn_memory_growth_ratio", growth, "ratio");
    report("churn_resurrections", wrong as f64, "elements");
}
