//! The quota of a namespace is told in bytes of memory, and the fold cannot ask the allocator: relays that refuse by
//! what they measure would refuse differently. So it estimates from what the records say, and here the estimate is held
//! against the bytes that are really asked for.
//!
//! Sizes grow by 1.3 and not by 2: a table that doubles would look right at the sizes at which it happens to be full.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cap::Cap;
use dormouse_proto::{
    ids::{Beat, BootId, Incarnation, Namespace, NodeId, PushId, PushNo, Revision},
    lattice::{
        Append, Change, CounterDelta, Delta, EventsDelta, PresenceDelta, RegisterDelta, Remove,
        RemoveWinsSetDelta, SetDelta, SiblingsDelta, Value,
    },
    record::{Contact, Frame, FrameHeader, Join, Push, Record, Send},
};
use dormouse_relay::state::Fold;

#[global_allocator]
static ALLOCATOR: Cap<std::alloc::System> = Cap::new(std::alloc::System, usize::MAX);

/// What is allocated is counted for the whole process, so the tests take turns.
static TURN: Mutex<()> = Mutex::new(());

/// A fold that one member pushes to, and what was allocated before there was one.
struct Measured {
    before: usize,
    fold: Fold,
    push_no: u64,
    waiting: Vec<Delta>,
    /// Last, because fields are dropped in order: the next test may not begin while this fold is there.
    _turn: MutexGuard<'static, ()>,
}

impl Measured {
    fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let before = ALLOCATOR.allocated();
        let mut it =
            Self { before, fold: Fold::new(), push_no: 0, waiting: Vec::with_capacity(100), _turn: turn };
        it.join(NodeId(1));
        it
    }

    fn join(&mut self, node: NodeId) {
        self.apply(Record::Join(Join {
            namespace: Namespace::default(),
            node,
            incarnation: Incarnation(1),
            previous: None,
            boot_id: BootId(u128::from(node.0).to_le_bytes()),
            group: "test".parse().expect("valid"),
            tags: std::collections::BTreeMap::new(),
            contact: None,
        }));
    }

    fn apply(&mut self, record: Record) {
        let frame = Frame { header: FrameHeader::default(), records: vec![record] };
        self.fold.apply_frame(&frame, |_, _, _, _| {});
        while self.fold.tidy() {}
    }

    /// A hundred deltas make a push.
    fn say(&mut self, delta: Delta) {
        self.waiting.push(delta);
        if self.waiting.len() == 100 {
            self.push();
        }
    }

    fn push(&mut self) {
        self.push_as(NodeId(1));
    }

    fn push_as(&mut self, node: NodeId) {
        self.push_no += 1;
        let deltas = std::mem::replace(&mut self.waiting, Vec::with_capacity(100));
        self.apply(Record::Push(Push {
            namespace: Namespace::default(),
            node,
            incarnation: Incarnation(1),
            push_no: PushNo(self.push_no),
            push_id: PushId(self.push_no),
            deltas,
            contact: Some(Contact { beat: Beat(1), asleep: false, lease_ms: 3_000, awake_ms: 0 }),
        }));
    }

    /// Estimate and truth differ by a tenth of the truth at the most.
    fn assert_honest(&mut self, what: &str) {
        self.push();
        let view = self.fold.namespace(&Namespace::default()).expect("written to");
        let (bytes, rows) = (view.bytes(), view.rows());
        self.assert_near(what, bytes, rows);
    }

    /// The same of everything that the namespace holds, rows or not.
    fn assert_honest_in_all(&mut self, what: &str, things: u64) {
        let bytes = self.fold.namespace(&Namespace::default()).expect("written to").memory_bytes();
        self.assert_near(what, bytes, things);
    }

    fn assert_near(&mut self, what: &str, bytes: u64, things: u64) {
        self.waiting = Vec::new();
        let real = ALLOCATOR.allocated() - self.before;
        let estimate = usize::try_from(bytes).expect("fits");
        let (estimate_each, real_each) = (estimate as f64 / things as f64, real as f64 / things as f64);
        println!(
            "{what}: {things} of them, estimated {estimate_each:.1} bytes each, {real_each:.1} allocated"
        );
        assert!(
            estimate.abs_diff(real) * 10 <= real,
            "{what}: {things} of {real_each:.1} bytes each are estimated at {estimate_each:.1}"
        );
    }
}

/// Sizes that grow by 1.3 up to `most`.
fn sizes(most: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(20_011), |size| Some(size * 13 / 10))
        .take_while(move |size| *size < most)
        .chain([most])
}

/// Grows one state through all sizes and holds the estimate against the truth at each.
fn grow(what: &str, most: u64, delta: impl Fn(u64) -> Delta) {
    let (mut measured, mut said) = (Measured::new(), 0);
    for size in sizes(most) {
        (said..size).for_each(|n| measured.say(delta(n)));
        said = size;
        measured.assert_honest(what);
    }
}

/// Sixteen digits that look like an id.
fn name(n: u64) -> String {
    format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn delta(key: String, change: Change) -> Delta {
    Delta { collection: "ads".parse().expect("valid"), key: key.try_into().expect("valid"), change }
}

fn add(set: u64, element: String) -> Delta {
    let add = vec![element.try_into().expect("valid")];
    delta(format!("set{set}"), Change::Set(SetDelta { add, remove: Vec::new() }))
}

fn remove(set: u64, element: String) -> Delta {
    let remove = vec![Remove { elements: vec![element.try_into().expect("valid")], as_of: None }];
    delta(format!("set{set}"), Change::Set(SetDelta { add: Vec::new(), remove }))
}

fn count(key: String) -> Delta {
    delta(key, Change::Counter(CounterDelta { reset: None, amount: 1, once: Vec::new() }))
}

fn write(key: String, bytes: usize) -> Delta {
    let value = Some(Value::Data(vec![7; bytes]));
    delta(key, Change::Register(RegisterDelta { value, stamp_ms: 1, as_of: None }))
}

#[test]
fn the_estimate_of_short_set_elements_is_what_is_allocated() {
    grow("elements of 16 bytes in 500 sets", 500_000, |n| add(n % 500, name(n)));
}

#[test]
fn the_estimate_of_long_set_elements_is_what_is_allocated() {
    grow("elements of 100 bytes in 500 sets", 200_000, |n| add(n % 500, format!("{:084}{}", 0, name(n))));
}

#[test]
fn the_estimate_of_sets_of_one_element_is_what_is_allocated() {
    grow("sets of one element", 100_000, |n| add(n, name(n)));
}

#[test]
fn the_estimate_of_counters_is_what_is_allocated() {
    grow("counters with keys of 20 bytes", 200_000, |n| count(format!("{:04}{}", 0, name(n))));
}

#[test]
fn the_estimate_of_counters_with_long_keys_is_what_is_allocated() {
    grow("counters with keys of 100 bytes", 100_000, |n| count(format!("{:084}{}", 0, name(n))));
}

#[test]
fn the_estimate_of_registers_is_what_is_allocated() {
    grow("registers of 100 bytes", 200_000, |n| write(name(n), 100));
}

fn guard(set: u64, element: String) -> Delta {
    let remove = vec![element.try_into().expect("valid")];
    delta(format!("set{set}"), Change::RemoveWinsSet(RemoveWinsSetDelta { add: Vec::new(), remove }))
}

fn sibling(key: String, bytes: usize) -> Delta {
    let value = Some(Value::Data(vec![7; bytes]));
    delta(key, Change::Siblings(SiblingsDelta { value, as_of: Some(Revision::ZERO) }))
}

fn append(log: u64, bytes: usize) -> Delta {
    let append = vec![Append { payload: Value::Data(vec![7; bytes]), id: None }];
    delta(format!("log{log}"), Change::Events(EventsDelta { append, trim_upto: Revision::ZERO }))
}

#[test]
fn the_estimate_of_removed_elements_of_remove_wins_sets_is_what_is_allocated() {
    grow("removed elements of 500 remove-wins sets", 20_000, |n| guard(n % 500, name(n)));
}

#[test]
fn the_estimate_of_siblings_is_what_is_allocated() {
    grow("siblings, two of 100 bytes each", 100_000, |n| sibling(name(n / 2), 100));
}

#[test]
fn the_estimate_of_events_is_what_is_allocated() {
    grow("events of 60 bytes in 100 logs", 90_000, |n| append(n % 100, 60));
}

#[test]
fn the_estimate_of_logs_of_one_event_is_what_is_allocated() {
    grow("logs of one event of 60 bytes", 60_000, |n| append(n, 60));
}

#[test]
fn the_estimate_of_what_nodes_hold_up_is_what_is_allocated() {
    let mut measured = Measured::new();
    for node in (2..).take(2_003) {
        measured.join(NodeId(node));
        let value = Some(Value::Data(vec![7; 20]));
        let held =
            |key| delta(format!("room{key}"), Change::Presence(PresenceDelta { value: value.clone() }));
        measured.waiting.extend((0..50).map(|key| held((node * 7 + key * 31) % 1_000)));
        measured.push_as(NodeId(node));
    }
    measured.assert_honest_in_all("what 2,003 nodes hold up, with the nodes", 2_003 * 50);
}

#[test]
fn the_estimate_of_messages_is_what_is_allocated() {
    let mut measured = Measured::new();
    (2..).take(203).for_each(|node| measured.join(NodeId(node)));
    for no in 0..203 * 300 {
        measured.apply(Record::Send(Send {
            namespace: Namespace::default(),
            node: NodeId(2 + no % 203),
            message_id: format!("message-{no}").try_into().expect("valid"),
            sender: "test".to_owned(),
            payload: Value::Data(vec![7; 100]),
            ttl_ms: 60_000,
        }));
    }
    measured.assert_honest_in_all("messages of 100 bytes, each with its id", 203 * 300);
}

#[test]
fn the_estimate_is_what_is_allocated_after_half_was_removed_and_as_much_was_added() {
    for size in sizes(200_000).step_by(2) {
        let mut measured = Measured::new();
        (0..size).for_each(|n| measured.say(add(n % 500, name(n))));
        (0..size).step_by(2).for_each(|n| measured.say(remove(n % 500, name(n))));
        (size..size + size / 2).for_each(|n| measured.say(add(n % 500, name(n))));
        measured.assert_honest("after half was removed and as much was added");
    }
}

/// Random removes and additions spread dead entries over the whole index, and the queue of the dead is at its longest.
#[test]
fn the_estimate_is_what_is_allocated_while_elements_come_and_go() {
    const NAMES: usize = 200_003;
    let mut random = fastrand::Rng::with_seed(3);
    let mut measured = Measured::new();
    let mut present: Vec<bool> = (0..NAMES).map(|n| n % 2 == 0).collect();
    measured.before += present.capacity();
    (0..NAMES as u64).step_by(2).for_each(|n| measured.say(add(n % 500, name(n))));
    for _ in 0..8 {
        for _ in 0..50_000 {
            let n = random.usize(0..NAMES);
            present[n] = !present[n];
            let (set, element) = (n as u64 % 500, name(n as u64));
            measured.say(if present[n] { add(set, element) } else { remove(set, element) });
        }
        measured.assert_honest("while elements come and go");
    }
}

#[test]
fn the_estimate_is_what_is_allocated_while_counters_and_registers_change() {
    let mut random = fastrand::Rng::with_seed(5);
    let mut measured = Measured::new();
    for round in 0..6 {
        for _ in 0..50_000 {
            let n = random.u64(0..60_007);
            measured.say(if n.is_multiple_of(2) {
                count(name(n))
            } else {
                write(name(n), random.usize(0..200))
            });
        }
        if round > 0 {
            measured.assert_honest("while counters and registers change");
        }
    }
}

/// Ten thousand elements of forty thousand names are there at any time, for twenty times as many changes.
#[test]
fn memory_does_not_grow_while_elements_come_and_go() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut measured = Measured::new();
    let (mut present, mut absent): (Vec<u64>, Vec<u64>) = ((0..10_000).collect(), (10_000..40_000).collect());
    for n in &present {
        measured.say(add(0, name(*n)));
    }
    let mut warm = 0;
    for round in 0..4 {
        for _ in 0..25_000 {
            let (goes, comes) = (random.usize(0..present.len()), random.usize(0..absent.len()));
            std::mem::swap(&mut present[goes], &mut absent[comes]);
            measured.say(remove(0, name(absent[comes])));
            measured.say(add(0, name(present[goes])));
        }
        let real = ALLOCATOR.allocated() - measured.before;
        warm = if round == 0 { real } else { warm };
        assert!(real * 20 <= warm * 21, "{real} bytes after {warm} in the first round");
    }
}
