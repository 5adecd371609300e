//! What stands in the log: a frame is a batch of records, and every record takes the next revision.
//!
//! The domain form of package `dormouse.log.v1`, with the only way in and out of it.

use std::collections::BTreeMap;

use prost::Message as _;

use crate::{
    ids::{
        Beat, BootId, Group, Incarnation, InvalidName, Namespace, NodeId, OnceId, PushId, PushNo, Revision,
    },
    lattice::{Change, CounterDelta, Delta, Once, RegisterDelta, Remove, Reset, SetDelta, Value},
    wire::log_v1 as stored,
};

/// The format that this build writes, and the newest that it reads.
pub const FRAME_FORMAT: u32 = 1;

/// The highest base of an Open record. A session jumps by less than 2^37, so it takes millions of
/// starts to come near it; damage comes there at once.
const BASE_MAX: u64 = 1 << 62;

/// A batch of records that was appended at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Who wrote it, and what it knew.
    pub header: FrameHeader,
    /// In the order in which they take their revisions.
    pub records: Vec<Record>,
}

/// Who wrote a frame, and what it knew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameHeader {
    /// Random, of the relay session that wrote the frame.
    pub session: u64,
    /// With the session, the record id of the frame.
    pub counter: u64,
    /// The last position in the log that the writer had applied.
    pub applied_position: u64,
    /// The revision there.
    pub applied_revision: Revision,
    /// The writer's wall clock, used for nothing but clamping register stamps.
    pub stamp_ms: u64,
}

/// One thing in the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A relay session begins: at start and after every loss of the log connection.
    Open {
        /// The revision jumps to this or above, so that numbers of a lost tail are never given again.
        base: Revision,
    },
    /// A node's deltas.
    Push(Push),
    /// Deltas of a caller that is no node.
    Write(Write),
    /// A node is admitted, or admitted again.
    Join(Join),
    /// A membership ends.
    Gone(Gone),
    /// What one relay heard within about a second.
    Digest(Digest),
    /// Limits that the fold enforces.
    Policy(Policy),
}

/// A node's deltas.
#[derive(Clone, Debug, PartialEq)]
pub struct Push {
    /// Where the node is a member.
    pub namespace: Namespace,
    /// Who pushes.
    pub node: NodeId,
    /// In which incarnation.
    pub incarnation: Incarnation,
    /// The number of the push.
    pub push_no: PushNo,
    /// Tells a retry from a clone.
    pub push_id: PushId,
    /// At most one per `(collection, key, type)`.
    pub deltas: Vec<Delta>,
    /// What the request said of the node's life.
    pub contact: Option<Contact>,
}

/// Deltas of a caller that is no node.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Where to.
    pub namespace: Namespace,
    /// Takes effect once.
    pub request_id: OnceId,
    /// At most one per `(collection, key, type)`.
    pub deltas: Vec<Delta>,
}

/// A node is admitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    /// Where to.
    pub namespace: Namespace,
    /// Who.
    pub node: NodeId,
    /// The incarnation that it will have.
    pub incarnation: Incarnation,
    /// The one that it says it had; `None` for a node that was never a member.
    pub previous: Option<Incarnation>,
    /// Whose process it is.
    pub boot_id: BootId,
    /// What it runs.
    pub group: Group,
    /// Free labels.
    pub tags: BTreeMap<String, String>,
    /// What the request said of the node's life.
    pub contact: Option<Contact>,
}

/// Why a membership ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The node said so.
    Left,
    /// Its lease ran out.
    Expired,
    /// Somebody with the right to do so ended it.
    Evicted,
}

/// A membership ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Gone {
    /// Where.
    pub namespace: Namespace,
    /// Whose.
    pub node: NodeId,
    /// Void for any other incarnation.
    pub incarnation: Incarnation,
    /// Why.
    pub cause: Cause,
    /// For [`Cause::Expired`]: void when the member was heard of with a higher one.
    pub beat: Beat,
    /// In somebody's words.
    pub reason: String,
}

/// What was heard of a node: soft state, which moves no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The node's own count of its transmissions.
    pub beat: Beat,
    /// Whether it declared sleep.
    pub asleep: bool,
    /// How long it may be silent from here on, in log time.
    pub lease_ms: u64,
    /// With `asleep`: it stays awake for this long and then sleeps, under one lease.
    pub awake_ms: u64,
}

/// What one relay heard within about a second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Digest {
    /// Proposal for the log's virtual time.
    pub log_time_ms: u64,
    /// Who was heard of.
    pub evidence: Vec<Evidence>,
    /// Whose lease ran out at this relay.
    pub suspects: Vec<Mark>,
}

/// Who was heard of, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Where.
    pub namespace: Namespace,
    /// Who.
    pub node: NodeId,
    /// Ignored for any other incarnation.
    pub incarnation: Incarnation,
    /// What was heard.
    pub contact: Contact,
}

/// A lease ran out: a question to the other relays before anybody says GONE.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Where.
    pub namespace: Namespace,
    /// Whose.
    pub node: NodeId,
    /// In which incarnation.
    pub incarnation: Incarnation,
    /// The newest beat that the asking relay knows.
    pub beat: Beat,
}

/// Limits that the fold itself enforces; `None` leaves one as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Dead rows that each collection keeps at least.
    pub dead_rows_min: Option<u64>,
    /// Tombstones of ended members, per namespace.
    pub tombstones_max: Option<u64>,
    /// How long a tombstone lives, in log time.
    pub tombstone_ms: Option<u64>,
    /// Idempotency ids, per namespace.
    pub once_max: Option<u64>,
    /// How long an idempotency id is remembered, in log time.
    pub once_ms: Option<u64>,
    /// How far ahead of the log's own time a register stamp may be.
    pub stamp_skew_ms: Option<u64>,
    /// Collections per namespace.
    pub collections_max: Option<u64>,
    /// Rows per namespace, dead ones included.
    pub rows_max: Option<u64>,
    /// Estimated bytes of rows per namespace.
    pub bytes_max: Option<u64>,
    /// Live members per namespace.
    pub nodes_max: Option<u64>,
}

/// A frame cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It is no protobuf message of this kind.
    Malformed(String),
    /// It was written by a newer build.
    Format(u32),
    /// A record kind or a change that this build does not know.
    UnknownKind,
    /// A name in it breaks its rule.
    Name(InvalidName),
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "the frame is malformed: {why}"),
            Self::Format(format) => {
                write!(
                    f,
                    "the frame has format {format}, this build reads up to {FRAME_FORMAT}: a newer relay wrote it"
                )
            }
            Self::UnknownKind => {
                write!(f, "the frame holds a record of a kind that this build does not know")
            }
            Self::Name(why) => write!(f, "the frame holds a name that breaks its rule: {why}"),
        }
    }
}

impl std::error::Error for Unreadable {}

impl From<InvalidName> for Unreadable {
    fn from(error: InvalidName) -> Self {
        Self::Name(error)
    }
}

/// Builds the stored form of a frame record by record, so that its size is known while it grows.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    bytes: Vec<u8>,
    records: usize,
}

impl FrameBuilder {
    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Records so far.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Adds a record behind the others.
    pub fn push(&mut self, record: Record) {
        prost::encoding::message::encode(2, &stored::Record::from(record), &mut self.bytes);
        self.records += 1;
    }

    /// The stored form of the whole frame.
    pub fn finish(mut self, header: FrameHeader) -> Vec<u8> {
        // The order of fields means nothing in protobuf, and the header is known last.
        let FrameHeader { session, counter, applied_position, applied_revision, stamp_ms } = header;
        let applied_revision = applied_revision.0;
        let header = stored::FrameHeader {
            format: FRAME_FORMAT,
            session,
            counter,
            applied_position,
            applied_revision,
            stamp_ms,
        };
        prost::encoding::message::encode(1, &header, &mut self.bytes);
        self.bytes
    }
}

impl Frame {
    /// The stored form.
    pub fn encode(self) -> Vec<u8> {
        let mut builder = FrameBuilder::default();
        self.records.into_iter().for_each(|record| builder.push(record));
        builder.finish(self.header)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`Unreadable`]; a relay stops there, because skipping a record would fork its state.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let frame = stored::Frame::decode(bytes).map_err(|e| Unreadable::Malformed(e.to_string()))?;
        let header = frame.header.ok_or_else(|| Unreadable::Malformed("no header".into()))?;
        if header.format != FRAME_FORMAT {
            return Err(Unreadable::Format(header.format));
        }
        let stored::FrameHeader { format: _, session, counter, applied_position, applied_revision, stamp_ms } =
            header;
        Ok(Self {
            header: FrameHeader {
                session,
                counter,
                applied_position,
                applied_revision: Revision(applied_revision),
                stamp_ms,
            },
            records: frame.records.into_iter().map(Record::try_from).collect::<Result<_, _>>()?,
        })
    }
}

impl From<Record> for stored::Record {
    fn from(record: Record) -> Self {
        use stored::record::Kind;
        let (namespace, kind) = match record {
            Record::Open { base } => (String::new(), Kind::Open(stored::Open { base: base.0 })),
            Record::Push(push) => push.into_stored(),
            Record::Write(Write { namespace, request_id, deltas }) => {
                let deltas = deltas.into_iter().map(Into::into).collect();
                (namespace.into(), Kind::Write(stored::Write { request_id: request_id.into(), deltas }))
            }
            Record::Join(join) => join.into_stored(),
            Record::Gone(Gone { namespace, node, incarnation, cause, beat, reason }) => {
                let cause = stored::gone::Cause::from(cause) as i32;
                let gone =
                    stored::Gone { node_id: node.0, incarnation: incarnation.0, cause, beat: beat.0, reason };
                (namespace.into(), Kind::Gone(gone))
            }
            Record::Digest(digest) => (String::new(), Kind::Digest(digest.into())),
            Record::Policy(policy) => (String::new(), Kind::Policy(policy.into())),
        };
        Self { namespace, kind: Some(kind) }
    }
}

impl Push {
    fn into_stored(self) -> (String, stored::record::Kind) {
        let Self { namespace, node, incarnation, push_no, push_id, deltas, contact } = self;
        let push = stored::Push {
            node_id: node.0,
            incarnation: incarnation.0,
            push_no: push_no.0,
            push_id: push_id.0,
            deltas: deltas.into_iter().map(Into::into).collect(),
            contact: contact.map(Into::into),
        };
        (namespace.into(), stored::record::Kind::Push(push))
    }
}

impl Join {
    fn into_stored(self) -> (String, stored::record::Kind) {
        let Self { namespace, node, incarnation, previous, boot_id, group, tags, contact } = self;
        let join = stored::Join {
            node_id: node.0,
            incarnation: incarnation.0,
            previous: previous.map(|it| it.0),
            boot_id: boot_id.0.to_vec().into(),
            group: group.into(),
            tags,
            contact: contact.map(Into::into),
        };
        (namespace.into(), stored::record::Kind::Join(join))
    }
}

impl TryFrom<stored::Record> for Record {
    type Error = Unreadable;

    fn try_from(record: stored::Record) -> Result<Self, Unreadable> {
        use stored::record::Kind;
        let stored::Record { namespace, kind } = record;
        Ok(match kind.ok_or(Unreadable::UnknownKind)? {
            Kind::Open(stored::Open { base }) if base > BASE_MAX => {
                return Err(Unreadable::Malformed("a base that leaves no revision after it".into()));
            }
            Kind::Open(stored::Open { base }) => Self::Open { base: Revision(base) },
            Kind::Push(push) => Self::Push(Push {
                namespace: namespace.try_into()?,
                node: NodeId(push.node_id),
                incarnation: Incarnation(push.incarnation),
                push_no: PushNo(push.push_no),
                push_id: PushId(push.push_id),
                deltas: deltas(push.deltas)?,
                contact: push.contact.map(Into::into),
            }),
            Kind::Write(stored::Write { request_id, deltas: changes }) => Self::Write(Write {
                namespace: namespace.try_into()?,
                request_id: request_id.try_into()?,
                deltas: deltas(changes)?,
            }),
            Kind::Join(join) => Self::Join(Join {
                namespace: namespace.try_into()?,
                node: NodeId(join.node_id),
                incarnation: Incarnation(join.incarnation),
                previous: join.previous.map(Incarnation),
                boot_id: boot_id(&join.boot_id)?,
                group: join.group.try_into()?,
                tags: join.tags,
                contact: join.contact.map(Into::into),
            }),
            Kind::Gone(gone) => Self::Gone(Gone {
                namespace: namespace.try_into()?,
                node: NodeId(gone.node_id),
                incarnation: Incarnation(gone.incarnation),
                cause: gone.cause().try_into()?,
                beat: Beat(gone.beat),
                reason: gone.reason,
            }),
            Kind::Digest(digest) => Self::Digest(digest.try_into()?),
            Kind::Policy(policy) => Self::Policy(policy.into()),
        })
    }
}

fn boot_id(bytes: &[u8]) -> Result<BootId, Unreadable> {
    bytes.try_into().map(BootId).map_err(|_| Unreadable::Malformed("a boot_id that is not 16 bytes".into()))
}

fn deltas(stored: Vec<stored::Delta>) -> Result<Vec<Delta>, Unreadable> {
    stored.into_iter().map(Delta::try_from).collect()
}

impl From<Cause> for stored::gone::Cause {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Left => Self::Left,
            Cause::Expired => Self::Expired,
            Cause::Evicted => Self::Evicted,
        }
    }
}

impl TryFrom<stored::gone::Cause> for Cause {
    type Error = Unreadable;

    fn try_from(cause: stored::gone::Cause) -> Result<Self, Unreadable> {
        match cause {
            stored::gone::Cause::Left => Ok(Self::Left),
            stored::gone::Cause::Expired => Ok(Self::Expired),
            stored::gone::Cause::Evicted => Ok(Self::Evicted),
            stored::gone::Cause::Unspecified => Err(Unreadable::UnknownKind),
        }
    }
}

impl From<Contact> for stored::Contact {
    fn from(Contact { beat, asleep, lease_ms, awake_ms }: Contact) -> Self {
        Self { beat: beat.0, asleep, lease_ms, awake_ms }
    }
}

impl From<stored::Contact> for Contact {
    fn from(stored::Contact { beat, asleep, lease_ms, awake_ms }: stored::Contact) -> Self {
        Self { beat: Beat(beat), asleep, lease_ms, awake_ms }
    }
}

impl From<Digest> for stored::Digest {
    fn from(Digest { log_time_ms, evidence, suspects }: Digest) -> Self {
        let heard = |Evidence { namespace, node, incarnation, contact }| stored::digest::Evidence {
            namespace: String::from(namespace),
            node_id: node.0,
            incarnation: incarnation.0,
            contact: Some(contact.into()),
        };
        let mark = |Mark { namespace, node, incarnation, beat }| stored::digest::Mark {
            namespace: String::from(namespace),
            node_id: node.0,
            incarnation: incarnation.0,
            beat: beat.0,
        };
        Self {
            log_time_ms,
            evidence: evidence.into_iter().map(heard).collect(),
            suspects: suspects.into_iter().map(mark).collect(),
        }
    }
}

impl TryFrom<stored::Digest> for Digest {
    type Error = Unreadable;

    fn try_from(digest: stored::Digest) -> Result<Self, Unreadable> {
        let heard = |it: stored::digest::Evidence| -> Result<Evidence, Unreadable> {
            let contact =
                it.contact.ok_or_else(|| Unreadable::Malformed("evidence without a contact".into()))?;
            Ok(Evidence {
                namespace: it.namespace.try_into()?,
                node: NodeId(it.node_id),
                incarnation: Incarnation(it.incarnation),
                contact: contact.into(),
            })
        };
        let mark = |it: stored::digest::Mark| -> Result<Mark, Unreadable> {
            Ok(Mark {
                namespace: it.namespace.try_into()?,
                node: NodeId(it.node_id),
                incarnation: Incarnation(it.incarnation),
                beat: Beat(it.beat),
            })
        };
        Ok(Self {
            log_time_ms: digest.log_time_ms,
            evidence: digest.evidence.into_iter().map(heard).collect::<Result<_, _>>()?,
            suspects: digest.suspects.into_iter().map(mark).collect::<Result<_, _>>()?,
        })
    }
}

impl From<Policy> for stored::Policy {
    fn from(policy: Policy) -> Self {
        let unchanged = |limit: Option<u64>| limit.unwrap_or(0);
        Self {
            dead_rows_min: unchanged(policy.dead_rows_min),
            tombstones_max: unchanged(policy.tombstones_max),
            tombstone_ms: unchanged(policy.tombstone_ms),
            once_max: unchanged(policy.once_max),
            once_ms: unchanged(policy.once_ms),
            stamp_skew_ms: unchanged(policy.stamp_skew_ms),
            collections_max: unchanged(policy.collections_max),
            rows_max: unchanged(policy.rows_max),
            bytes_max: unchanged(policy.bytes_max),
            nodes_max: unchanged(policy.nodes_max),
        }
    }
}

impl From<stored::Policy> for Policy {
    fn from(policy: stored::Policy) -> Self {
        let limit = |number: u64| (number > 0).then_some(number);
        Self {
            dead_rows_min: limit(policy.dead_rows_min),
            tombstones_max: limit(policy.tombstones_max),
            tombstone_ms: limit(policy.tombstone_ms),
            once_max: limit(policy.once_max),
            once_ms: limit(policy.once_ms),
            stamp_skew_ms: limit(policy.stamp_skew_ms),
            collections_max: limit(policy.collections_max),
            rows_max: limit(policy.rows_max),
            bytes_max: limit(policy.bytes_max),
            nodes_max: limit(policy.nodes_max),
        }
    }
}

impl From<Delta> for stored::Delta {
    fn from(Delta { collection, key, change }: Delta) -> Self {
        use stored::delta::Change as Stored;
        let change = match change {
            Change::Counter(CounterDelta { reset, amount, once }) => Stored::Counter(stored::CounterDelta {
                reset: reset.is_some(),
                reset_as_of: reset.and_then(|it| it.as_of).map(u64::from),
                reset_total: reset.map_or(0, |it| it.total),
                amount,
                once: once
                    .into_iter()
                    .map(|Once { id, amount }| stored::counter_delta::Once { id: id.into(), amount })
                    .collect(),
            }),
            Change::Set(SetDelta { add, remove }) => Stored::Set(stored::SetDelta {
                add: add.into_iter().map(Into::into).collect(),
                remove: remove
                    .into_iter()
                    .map(|Remove { elements, as_of }| stored::set_delta::Remove {
                        elements: elements.into_iter().map(Into::into).collect(),
                        as_of: as_of.map(u64::from),
                    })
                    .collect(),
            }),
            Change::Register(RegisterDelta { value, stamp_ms, as_of }) => {
                Stored::Register(stored::RegisterDelta {
                    value: value.map(|it| match it {
                        Value::Text(text) => stored::register_delta::Value::Text(text),
                        Value::Data(data) => stored::register_delta::Value::Data(data.into()),
                    }),
                    stamp_ms,
                    as_of: as_of.map(u64::from),
                })
            }
        };
        Self { collection: collection.into(), key: key.into(), change: Some(change) }
    }
}

impl TryFrom<stored::Delta> for Delta {
    type Error = Unreadable;

    fn try_from(delta: stored::Delta) -> Result<Self, Unreadable> {
        use stored::delta::Change as Stored;
        let change = match delta.change.ok_or(Unreadable::UnknownKind)? {
            Stored::Counter(counter) => Change::Counter(counter.try_into()?),
            Stored::Set(set) => Change::Set(set.try_into()?),
            Stored::Register(stored::RegisterDelta { value, stamp_ms, as_of }) => {
                Change::Register(RegisterDelta {
                    value: value.map(|it| match it {
                        stored::register_delta::Value::Text(text) => Value::Text(text),
                        stored::register_delta::Value::Data(data) => Value::Data(data.into()),
                    }),
                    stamp_ms,
                    as_of: as_of.map(Revision),
                })
            }
        };
        Ok(Self { collection: delta.collection.try_into()?, key: delta.key.try_into()?, change })
    }
}

impl TryFrom<stored::CounterDelta> for CounterDelta {
    type Error = Unreadable;

    fn try_from(delta: stored::CounterDelta) -> Result<Self, Unreadable> {
        let stored::CounterDelta { reset, reset_as_of, reset_total, amount, once } = delta;
        Ok(Self {
            reset: reset.then_some(Reset { as_of: reset_as_of.map(Revision), total: reset_total }),
            amount,
            once: once
                .into_iter()
                .map(|it| Ok(Once { id: it.id.try_into()?, amount: it.amount }))
                .collect::<Result<_, InvalidName>>()?,
        })
    }
}

impl TryFrom<stored::SetDelta> for SetDelta {
    type Error = Unreadable;

    fn try_from(delta: stored::SetDelta) -> Result<Self, Unreadable> {
        let elements =
            |names: Vec<String>| names.into_iter().map(TryInto::try_into).collect::<Result<_, InvalidName>>();
        Ok(Self {
            add: elements(delta.add)?,
            remove: delta
                .remove
                .into_iter()
                .map(|it| Ok(Remove { elements: elements(it.elements)?, as_of: it.as_of.map(Revision) }))
                .collect::<Result<_, InvalidName>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An Open record with the highest base of all was read, applied, and the next record had no revision to take: the
    /// relay panicked, or in a release began again at zero and forgot what it had given out.
    #[test]
    fn a_base_that_leaves_no_revision_after_it_is_unreadable() {
        let opening = |base| {
            let records = vec![Record::Open { base: Revision(base) }];
            Frame::decode(&Frame { header: FrameHeader::default(), records }.encode())
        };
        assert!(opening(BASE_MAX).is_ok());
        assert!(matches!(opening(u64::MAX), Err(Unreadable::Malformed(_))));
    }
}
