//! The same random histories on this project's replicas and fold, and on the types of another library (`crdts`): both
//! must end with the same state.
//!
//! A few replicas change things and exchange what they have through one hub: ours is a fold behind a log, theirs is a
//! replica that nobody writes to. They exchange at the same points: a full round trip of ours, push and pull, is a merge
//! into the hub and one out of it; a pull alone is a merge out of it.
//!
//! What the two define differently, and how the comparison deals with it:
//! - Dots are log positions here and pairs of actor and counter there. Both only say what a remove has seen.
//! - Of two writes of a register with the same stamp, ours takes the one that the log accepted later; theirs is undefined
//!   (`validate_update` refuses it). So every write has a stamp of its own.
//! - A write here that saw the winner wins whatever its stamp, and a stamp far ahead of the log's clock is cut. Theirs
//!   knows stamps alone. So stamps rise with the steps of the history.
//! - An own change that waits is shown here on top of what arrives; there it is one change among the others, so that
//!   another's add may show again. So only what both end with is compared.
//! - Several changes of one row between two pushes are one change here. Nobody else ever saw the others, so that makes no
//!   difference to the end.
//! - Theirs has no counter with resets, no set in which a remove wins, no log, no presence: the model check has its own
//!   reference for those.

use std::collections::{BTreeMap, BTreeSet};

use crdts::{CmRDT as _, CvRDT as _, GSet, LWWReg, MVReg, Orswot, PNCounter};
use dormouse::{
    Path,
    replica::{Follow, Replica},
    simulation,
};
use dormouse_proto::{
    ids::{Incarnation, Namespace, NodeId, PushId, Revision},
    lattice::Value,
    record::{Frame, FrameHeader, Join, Push, Record},
    rows::RowWriter,
    wire::v1::{self, sync_response as response},
};
use dormouse_relay::state::{Fold, JoinVerdict, Pull, PushVerdict, Token, Touched, Verdict};
use dormouse_tests::{LOG, answer::wire_chunk};
use fastrand::Rng;
use prost::Message as _;

const REPLICAS: u8 = 4;
const HISTORIES: u64 = if cfg!(debug_assertions) { 100 } else { 2_000 };
const ELEMENTS: [&str; 4] = ["w", "x", "y", "z"];

/// Their replica: one of each type.
#[derive(Clone, Debug, Default)]
struct Theirs {
    set: Orswot<String, u8>,
    /// A flag in which an on wins is a set of one element.
    flag: Orswot<u8, u8>,
    counter: PNCounter<u8>,
    register: LWWReg<Option<String>, u64>,
    siblings: MVReg<String, u8>,
    grown: GSet<String>,
}

impl Theirs {
    fn merge(&mut self, other: &Self) {
        self.set.merge(other.set.clone());
        self.flag.merge(other.flag.clone());
        self.counter.merge(other.counter.clone());
        self.register.merge(other.register.clone());
        self.siblings.merge(other.siblings.clone());
        self.grown.merge(other.grown.clone());
    }

    fn shown(&self) -> Shown {
        Shown {
            set: self.set.read().val.into_iter().collect(),
            flag: self.flag.contains(&0).val,
            counter: self.counter.read().to_string(),
            register: self.register.val.clone(),
            siblings: self.siblings.read().val.into_iter().collect(),
            grown: self.grown.read().into_iter().collect(),
        }
    }
}

/// What a reader sees of either.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shown {
    set: BTreeSet<String>,
    flag: bool,
    counter: String,
    register: Option<String>,
    siblings: BTreeSet<String>,
    grown: BTreeSet<String>,
}

fn path(key: &str) -> Path {
    format!("c/{key}").parse().expect("a path")
}

fn words(words: Option<Vec<&str>>) -> BTreeSet<String> {
    words.into_iter().flatten().map(str::to_owned).collect()
}

fn word(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Data(_) => panic!("nobody writes bytes"),
    }
}

fn shown(replica: &Replica) -> Shown {
    Shown {
        set: words(replica.set(&path("s"))),
        flag: replica.flag(&path("f")).unwrap_or_default(),
        counter: replica.counter(&path("n")).unwrap_or_default().to_string(),
        register: replica.register(&path("r")).flatten().map(word),
        siblings: replica.siblings(&path("v")).into_iter().flatten().map(word).collect(),
        grown: words(replica.grow_only_set(&path("g"))),
    }
}

/// Our hub: a fold and the clock of its log.
struct Hub {
    fold: Fold,
    now: u64,
}

impl Hub {
    fn say(&mut self, record: Record) -> Verdict {
        let header = FrameHeader { session: 1, stamp_ms: self.now, ..FrameHeader::default() };
        let mut verdicts = Vec::new();
        let frame = Frame { header, records: vec![record] };
        self.fold.apply_frame(&frame, |_, _, _, verdict| verdicts.push(verdict));
        verdicts.remove(0)
    }

    fn join(&mut self, node: NodeId) {
        let join = Join {
            namespace: Namespace::default(),
            node,
            incarnation: Incarnation(1),
            previous: None,
            boot_id: dormouse_proto::ids::BootId([1; 16]),
            group: "g".parse().expect("a group"),
            tags: BTreeMap::new(),
            contact: None,
        };
        assert_eq!(self.say(Record::Join(join)), Verdict::Join(JoinVerdict::Admitted { again: false }));
    }

    /// Binds a push and acknowledges it.
    fn push(&mut self, node: NodeId, replica: &Replica) -> Option<v1::PushAck> {
        let push = replica.sealed()?;
        let record = Push {
            namespace: Namespace::default(),
            node,
            incarnation: Incarnation(1),
            push_no: push.push_no(),
            push_id: push.push_id(),
            deltas: push.deltas().to_vec(),
            contact: None,
        };
        let deltas = record.deltas.clone();
        let Verdict::Push(PushVerdict::Bound { revision, .. }) = self.say(Record::Push(record)) else {
            panic!("a good push was refused");
        };
        let view = self.fold.namespace(&Namespace::default()).expect("it has a member");
        let mut rows = Vec::new();
        let mut writer = RowWriter::new(&mut rows, RowWriter::PUSH_ACK);
        let touched = Touched { deltas: &deltas, bound_at: revision, author: Some(node) };
        view.write_touched(&touched, usize::MAX, &mut writer);
        writer.finish();
        let keys = v1::PushAck::decode(rows.as_slice()).expect("it decodes").keys;
        let as_of = self.fold.revision().0;
        Some(v1::PushAck {
            push_no: push.push_no().0,
            revision: revision.0,
            as_of,
            keys,
            ..v1::PushAck::default()
        })
    }

    fn pull(&self, pull: &v1::Pull, head: u64) -> v1::Chunk {
        let mut acked: Vec<Revision> = pull.acked.iter().copied().map(Revision).collect();
        acked.sort_unstable();
        let request = Pull {
            token: (!pull.token.is_empty()).then(|| Token::decode(&pull.token)),
            all: true,
            acked: &acked,
            held_since: (pull.held_since > 0).then_some(Revision(pull.held_since)),
            head: Revision(head),
            max_bytes: 1 << 20,
            ..Pull::default()
        };
        wire_chunk(self.fold.pull(LOG, &Namespace::default(), &request).expect("one relay is never behind"))
    }
}

/// One replica of each library.
struct Pair {
    node: NodeId,
    actor: u8,
    ours: Replica,
    theirs: Theirs,
}

impl Pair {
    fn change(&mut self, rng: &mut Rng, step: u64) {
        let Self { ours, theirs, actor, .. } = self;
        let (actor, text) = (*actor, step.to_string());
        let element = ELEMENTS[rng.usize(..ELEMENTS.len())];
        let name = || element.parse().expect("an element");
        match rng.u32(..9) {
            0 | 1 => {
                ours.set_add(&path("s"), name()).expect("fits");
                let add = theirs.set.read_ctx().derive_add_ctx(actor);
                theirs.set.apply(theirs.set.add(element.to_owned(), add));
            }
            2 => {
                ours.set_remove(&path("s"), name()).expect("fits");
                let remove = theirs.set.contains(&element.to_owned()).derive_rm_ctx();
                theirs.set.apply(theirs.set.rm(element.to_owned(), remove));
            }
            3 => {
                ours.flag_set(&path("f"), true).expect("fits");
                let add = theirs.flag.read_ctx().derive_add_ctx(actor);
                theirs.flag.apply(theirs.flag.add(0, add));
            }
            4 => {
                ours.flag_set(&path("f"), false).expect("fits");
                let remove = theirs.flag.contains(&0).derive_rm_ctx();
                theirs.flag.apply(theirs.flag.rm(0, remove));
            }
            5 => self.count(rng),
            6 => {
                let text = rng.bool().then_some(text);
                ours.register_set(&path("r"), text.clone().map(Value::Text), step).expect("fits");
                theirs.register.update(text, step);
            }
            7 => self.write_sibling(text),
            _ => {
                ours.grow_only_set_add(&path("g"), name()).expect("fits");
                theirs.grown.insert(element.to_owned());
            }
        }
    }

    fn count(&mut self, rng: &mut Rng) {
        let Self { ours, theirs, actor, .. } = self;
        let (amount, up) = (rng.u64(1..9), rng.bool());
        let signed = i64::try_from(amount).expect("small");
        ours.counter_add(&path("n"), if up { signed } else { -signed }).expect("fits");
        let counter = &mut theirs.counter;
        counter.apply(if up { counter.inc_many(*actor, amount) } else { counter.dec_many(*actor, amount) });
    }

    fn write_sibling(&mut self, text: String) {
        let Self { ours, theirs, actor, .. } = self;
        ours.siblings_set(&path("v"), Some(Value::Text(text.clone()))).expect("fits");
        let write = theirs.siblings.read_ctx().derive_add_ctx(*actor);
        theirs.siblings.apply(theirs.siblings.write(text, write));
    }

    /// Push, if wanted, and pull; and the same merges.
    fn exchange(&mut self, hub: &mut Hub, their_hub: &mut Theirs, push_id: u64, pushes: bool) {
        if pushes {
            self.ours.seal(PushId(push_id));
            their_hub.merge(&self.theirs);
        }
        self.theirs.merge(their_hub);
        let (_, pull, head) = simulation::outgoing(&mut self.ours);
        let acked = if pushes { hub.push(self.node, &self.ours) } else { None };
        let chunk = hub.pull(&pull, head);
        let lease = v1::Lease { node_id: self.node.to_string(), incarnation: 1, ..v1::Lease::default() };
        let answer = v1::SyncResponse {
            lease: Some(lease),
            push_result: acked.map(response::PushResult::Pushed),
            pull_result: Some(response::PullResult::Chunk(chunk)),
            ..v1::SyncResponse::default()
        };
        simulation::absorb(&mut self.ours, answer);
    }
}

fn history(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let (mut hub, mut their_hub) = (Hub { fold: Fold::new(), now: 1 }, Theirs::default());
    let pair = |actor: u8| Pair {
        node: NodeId(u64::from(actor) + 1),
        actor,
        ours: Replica::new(Follow::everything(), 1 << 20),
        theirs: Theirs::default(),
    };
    let mut pairs: Vec<Pair> = (0..REPLICAS).map(pair).collect();
    for pair in &pairs {
        hub.join(pair.node);
    }
    for step in 1..rng.u64(20..160) {
        hub.now = step;
        let nth = rng.usize(..pairs.len());
        match rng.u32(..10) {
            0..6 => pairs[nth].change(&mut rng, step),
            6..9 => pairs[nth].exchange(&mut hub, &mut their_hub, step, true),
            _ => pairs[nth].exchange(&mut hub, &mut their_hub, step, false),
        }
    }
    for round in 0..2 {
        for (nth, pair) in (0..).zip(&mut pairs) {
            pair.exchange(&mut hub, &mut their_hub, 1_000 + 10 * round + nth, true);
        }
    }
    for pair in &pairs {
        let (ours, theirs) = (shown(&pair.ours), pair.theirs.shown());
        assert_eq!(ours, theirs, "seed {seed}, replica {}", pair.actor);
    }
}

#[test]
fn random_histories_end_as_those_of_an_independent_library_do() {
    (0..HISTORIES).for_each(history);
}
