//! What stands in the log: a frame is a batch of records, and every record takes the next revision.
//!
//! The domain form of package `dormouse.log.v1`, with the only way in and out of it.

mod deltas;
mod stored;

use std::collections::BTreeMap;

use prost::Message as _;

use crate::{
    ids::{
        Beat, BootId, Group, Incarnation, InvalidName, Namespace, NodeId, OnceId, PushId, PushNo, Revision,
    },
    lattice::{Delta, Value},
    wire::log_v1,
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
    /// A message to one node.
    Send(Send),
    /// A node has received its messages up to a revision.
    Received(Received),
    /// A relay heals a log that has lost what it still holds.
    Reseed(Reseed),
}

impl Record {
    /// Whether it may change what nodes see. Between a cut of the log and a [`Reseed`] nothing of that kind may lie; of a
    /// Reseed only its verdict says.
    pub fn takes_effect(&self) -> bool {
        !matches!(self, Self::Open { .. } | Self::Digest(_) | Self::Reseed(_))
    }
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
    /// A position in the log: every contact that this relay had heard of before it applied that is told, here or
    /// earlier. 0: nothing is said.
    pub told_upto: u64,
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

/// A message to one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Send {
    /// Where the node is a member.
    pub namespace: Namespace,
    /// To whom; void unless it is a live member.
    pub node: NodeId,
    /// Takes effect once.
    pub message_id: OnceId,
    /// In the sender's own words.
    pub sender: String,
    /// What it says.
    pub payload: Value,
    /// How long it waits to be received, in log time.
    pub ttl_ms: u64,
}

/// A node has received its messages up to a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Where.
    pub namespace: Namespace,
    /// Who.
    pub node: NodeId,
    /// Up to here.
    pub upto: Revision,
}

/// The log came back without its newest frames, and a relay still holds what they made in its memory: that state takes the
/// place of the log's. Void if anything that takes effect lies between the cut and the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reseed {
    /// The last position at which the log and the relay's memory agree; 0: there is none.
    pub position: u64,
    /// The session and counter of the frame there.
    pub record_id: (u64, u64),
    /// The revision there. Whoever was shown no more goes on; everybody else starts over.
    pub safe: Revision,
    /// Where the relay's state lies.
    pub snapshot: SnapshotName,
    /// The hash of that state.
    pub hash: u128,
    /// The revision jumps to this or above.
    pub base: Revision,
}

/// A stored snapshot, by the last frame that it covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotName {
    /// Where that frame is, or was.
    pub position: u64,
    /// Who wrote it.
    pub session: u64,
    /// Its number in that session.
    pub counter: u64,
    /// The checksum of its bytes.
    pub crc: u64,
}

/// Limits that the fold itself enforces; `None` leaves one as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Only for this namespace; `None`: for all that have no limit of their own.
    pub namespace: Option<Namespace>,
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
    /// Entries of one log of events; older ones are trimmed.
    pub events_max: Option<u64>,
    /// Bytes of the entries of one log of events; older ones are trimmed.
    pub events_bytes_max: Option<u64>,
    /// How long an event is kept, in log time.
    pub events_age_ms: Option<u64>,
    /// Messages that wait for one node.
    pub inbox_max: Option<u64>,
    /// Bytes of the messages that wait for one node.
    pub inbox_bytes_max: Option<u64>,
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
        prost::encoding::message::encode(2, &log_v1::Record::from(record), &mut self.bytes);
        self.records += 1;
    }

    /// The stored form of the whole frame.
    pub fn finish(mut self, header: FrameHeader) -> Vec<u8> {
        // The order of fields means nothing in protobuf, and the header is known last.
        let FrameHeader { session, counter, applied_position, applied_revision, stamp_ms } = header;
        let applied_revision = applied_revision.0;
        let header = log_v1::FrameHeader {
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
        let frame = log_v1::Frame::decode(bytes).map_err(|e| Unreadable::Malformed(e.to_string()))?;
        let header = frame.header.ok_or_else(|| Unreadable::Malformed("no header".into()))?;
        if header.format != FRAME_FORMAT {
            return Err(Unreadable::Format(header.format));
        }
        let log_v1::FrameHeader { format: _, session, counter, applied_position, applied_revision, stamp_ms } =
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
