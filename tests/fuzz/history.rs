//! Arbitrary histories over a few names, so that records meet.

use dormouse_proto::{
    ids::{Beat, BootId, Incarnation, Namespace, NodeId, OnceId, PushId, PushNo, Revision},
    lattice::{Delta, Value},
    record::{
        Cause, Contact, Digest, Evidence, Frame, FrameHeader, Gone, Join, Mark, Policy, Push, Received,
        Record, Send, Write,
    },
};

use crate::{choices::Choices, deltas::Deltas};

pub(crate) fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(
    choices: &mut Choices<'_>,
    from: &[&str],
) -> T {
    choices.one_of(from).parse().expect("a good name")
}

pub(crate) fn namespace(choices: &mut Choices<'_>) -> Namespace {
    name(choices, &["default", "default", "default", "other"])
}

/// Frames until the choices run out.
pub(crate) fn frames(choices: &mut Choices<'_>) -> Vec<Frame> {
    let (mut author, mut frames) = (Author::default(), Vec::new());
    while choices.are_left() {
        frames.push(author.frame(choices));
    }
    frames
}

/// Remembers just enough of what it wrote that most records mean something.
#[derive(Default)]
pub(crate) struct Author {
    head: u64,
    nodes: [Node; 4],
}

#[derive(Clone, Copy, Default)]
struct Node {
    incarnation: u64,
    push_no: u64,
}

impl Author {
    pub(crate) fn frame(&mut self, choices: &mut Choices<'_>) -> Frame {
        let header = FrameHeader {
            session: choices.below(3) as u64,
            counter: 0,
            applied_position: 0,
            applied_revision: Revision(self.head),
            stamp_ms: self.head.saturating_add(choices.number() * u64::from(choices.sometimes())),
        };
        Frame { header, records: choices.list(6, |it| self.record(it)) }
    }

    fn record(&mut self, choices: &mut Choices<'_>) -> Record {
        self.head = self.head.saturating_add(1);
        match choices.below(36) {
            0 => {
                let base = choices.number().min(1 << 62);
                self.head = base.max(self.head + 1);
                Record::Open { base: Revision(base) }
            }
            1..=11 => Record::Push(self.push(choices)),
            12..=19 => Record::Write(Write {
                namespace: namespace(choices),
                request_id: request_id(choices),
                deltas: self.deltas(choices),
            }),
            20..=24 => Record::Join(self.join(choices)),
            25 => Record::Gone(self.gone(choices)),
            26..=29 => Record::Digest(self.digest(choices)),
            30..=32 => Record::Send(self.send(choices)),
            33 => Record::Received(Received {
                namespace: namespace(choices),
                node: NodeId(choices.below(self.nodes.len()) as u64),
                upto: Revision(self.head.saturating_sub(choices.number())),
            }),
            _ => Record::Policy(policy(choices)),
        }
    }

    fn push(&mut self, choices: &mut Choices<'_>) -> Push {
        let (node, incarnation) = self.member(choices);
        let push_no = &mut self.nodes[node].push_no;
        *push_no += u64::from(!choices.sometimes());
        Push {
            namespace: namespace(choices),
            node: NodeId(node as u64),
            incarnation,
            push_no: PushNo(*push_no),
            push_id: PushId(u64::from(choices.sometimes())),
            deltas: self.deltas(choices),
            contact: choices.perhaps(contact),
        }
    }

    fn send(&self, choices: &mut Choices<'_>) -> Send {
        Send {
            namespace: namespace(choices),
            node: NodeId(choices.below(self.nodes.len()) as u64),
            message_id: request_id(choices),
            sender: choices.one_of(&["", "somebody"]).to_owned(),
            payload: value(choices),
            ttl_ms: choices.number(),
        }
    }

    /// For the newest revision.
    pub(crate) fn deltas(&self, choices: &mut Choices<'_>) -> Vec<Delta> {
        Deltas(self.head).some(choices)
    }

    fn join(&mut self, choices: &mut Choices<'_>) -> Join {
        let (node, before) = self.member(choices);
        let next = before.0.saturating_add(u64::from(!choices.sometimes()));
        self.nodes[node].incarnation = next;
        Join {
            namespace: namespace(choices),
            node: NodeId(node as u64),
            incarnation: Incarnation(next),
            previous: (before > Incarnation(0)).then_some(before),
            boot_id: BootId([u8::from(choices.below(16) == 15); 16]),
            group: name(choices, &["ads", "web"]),
            tags: choices
                .list(1, |it| (it.one_of(&["zone", "stage"]).to_owned(), "a".to_owned()))
                .into_iter()
                .collect(),
            contact: choices.perhaps(contact),
        }
    }

    fn gone(&mut self, choices: &mut Choices<'_>) -> Gone {
        let (node, incarnation) = self.member(choices);
        Gone {
            namespace: namespace(choices),
            node: NodeId(node as u64),
            incarnation,
            cause: choices.one_of(&[Cause::Left, Cause::Expired, Cause::Evicted]),
            beat: Beat(choices.number()),
            reason: String::new(),
        }
    }

    fn digest(&mut self, choices: &mut Choices<'_>) -> Digest {
        let of = |it: &mut Choices<'_>| {
            let (node, incarnation) = self.member(it);
            (namespace(it), NodeId(node as u64), incarnation)
        };
        let evidence = choices.list(2, |it| {
            let (namespace, node, incarnation) = of(it);
            Evidence { namespace, node, incarnation, contact: contact(it) }
        });
        let suspects = choices.list(1, |it| {
            let (namespace, node, incarnation) = of(it);
            Mark { namespace, node, incarnation, beat: Beat(it.number()) }
        });
        let log_time_ms = choices.number().saturating_mul(1_000);
        Digest { log_time_ms, evidence, suspects, told_upto: choices.number() }
    }

    /// A node with the incarnation that it has, or hardly ever another one.
    fn member(&self, choices: &mut Choices<'_>) -> (usize, Incarnation) {
        let node = choices.below(self.nodes.len());
        let edge = choices.below(32) == 31;
        (node, Incarnation(if edge { choices.number() } else { self.nodes[node].incarnation }))
    }
}

pub(crate) fn request_id(choices: &mut Choices<'_>) -> OnceId {
    choices.byte().to_string().parse().expect("a good id")
}

fn contact(choices: &mut Choices<'_>) -> Contact {
    Contact {
        beat: Beat(choices.number()),
        asleep: choices.sometimes(),
        lease_ms: choices.number(),
        awake_ms: choices.number(),
    }
}

/// Limits that are low enough to be met.
fn policy(choices: &mut Choices<'_>) -> Policy {
    let namespace = choices.sometimes().then(|| namespace(choices));
    let mut limit = || choices.perhaps(|it| 1 + it.number() % 256);
    Policy {
        namespace,
        dead_rows_min: limit(),
        tombstones_max: limit(),
        tombstone_ms: limit(),
        once_max: limit(),
        once_ms: limit(),
        stamp_skew_ms: limit(),
        collections_max: limit(),
        rows_max: limit(),
        bytes_max: limit().map(|it| it * 64),
        nodes_max: limit(),
        events_max: limit().map(|it| 1 + it % 8),
        events_bytes_max: limit().map(|it| it * 16),
        events_age_ms: limit().map(|it| it * 100),
        inbox_max: limit(),
        inbox_bytes_max: limit().map(|it| it * 16),
    }
}

pub(crate) fn value(choices: &mut Choices<'_>) -> Value {
    if choices.sometimes() {
        Value::Data(choices.bytes(3))
    } else {
        Value::Text(choices.one_of(&["", "1", "a value that is longer than the others"]).to_owned())
    }
}
