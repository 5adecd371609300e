//! Between the domain form of records and the stored one, field by field.

use super::{
    BASE_MAX, Cause, Contact, Digest, Evidence, Gone, Join, Mark, Policy, Push, Received, Record, Reseed,
    Send, SnapshotName, Unreadable, Write,
};
use crate::{
    ids::{Beat, BootId, Incarnation, NodeId, PushId, PushNo, Revision},
    lattice::{Delta, Value},
    wire::log_v1 as stored,
};

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
            Record::Policy(policy) => {
                let namespace = policy.namespace.clone().map_or_else(String::new, Into::into);
                (namespace, Kind::Policy(policy.into()))
            }
            Record::Send(Send { namespace, node, message_id, sender, payload, ttl_ms }) => {
                let (message_id, payload) = (message_id.into(), Some(payload.into()));
                let send = stored::Send { node_id: node.0, message_id, sender, payload, ttl_ms };
                (namespace.into(), Kind::Send(send))
            }
            Record::Received(Received { namespace, node, upto }) => {
                let received = stored::Received { node_id: node.0, upto: upto.0 };
                (namespace.into(), Kind::Received(received))
            }
            Record::Reseed(reseed) => (String::new(), Kind::Reseed(reseed.into())),
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
            Kind::Policy(policy) => {
                let namespace = if namespace.is_empty() { None } else { Some(namespace.try_into()?) };
                Self::Policy(Policy { namespace, ..policy.into() })
            }
            Kind::Send(stored::Send { node_id, message_id, sender, payload, ttl_ms }) => Self::Send(Send {
                namespace: namespace.try_into()?,
                node: NodeId(node_id),
                message_id: message_id.try_into()?,
                sender,
                payload: required_value(payload)?,
                ttl_ms,
            }),
            Kind::Received(stored::Received { node_id, upto }) => Self::Received(Received {
                namespace: namespace.try_into()?,
                node: NodeId(node_id),
                upto: Revision(upto),
            }),
            Kind::Reseed(reseed) => Self::Reseed(reseed.try_into()?),
        })
    }
}

/// A value that has to be there.
pub(super) fn required_value(value: Option<stored::Value>) -> Result<Value, Unreadable> {
    let value = value.ok_or_else(|| Unreadable::Malformed("a value that is missing".into()))?;
    value.try_into()
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
    fn from(Digest { log_time_ms, evidence, suspects, told_upto }: Digest) -> Self {
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
            told_upto,
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
            told_upto: digest.told_upto,
        })
    }
}

impl From<Reseed> for stored::Reseed {
    fn from(Reseed { position, record_id, safe, snapshot, hash, base }: Reseed) -> Self {
        let SnapshotName { position: at, session, counter, crc } = snapshot;
        Self {
            position,
            session: record_id.0,
            counter: record_id.1,
            safe: safe.0,
            snapshot: Some(stored::SnapshotName { position: at, session, counter, crc }),
            hash: hash.to_le_bytes().to_vec().into(),
            base: base.0,
        }
    }
}

impl TryFrom<stored::Reseed> for Reseed {
    type Error = Unreadable;

    fn try_from(stored: stored::Reseed) -> Result<Self, Unreadable> {
        let malformed = |what: &str| Unreadable::Malformed(what.into());
        let named = stored.snapshot.ok_or_else(|| malformed("a Reseed without a snapshot"))?;
        let stored::SnapshotName { position, session, counter, crc } = named;
        if stored.base > BASE_MAX {
            return Err(malformed("a base that leaves no revision after it"));
        }
        Ok(Self {
            position: stored.position,
            record_id: (stored.session, stored.counter),
            safe: Revision(stored.safe),
            snapshot: SnapshotName { position, session, counter, crc },
            hash: u128::from_le_bytes(
                stored.hash.as_ref().try_into().map_err(|_| malformed("a hash that is not 16 bytes"))?,
            ),
            base: Revision(stored.base),
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
            events_max: unchanged(policy.events_max),
            events_bytes_max: unchanged(policy.events_bytes_max),
            events_age_ms: unchanged(policy.events_age_ms),
            inbox_max: unchanged(policy.inbox_max),
            inbox_bytes_max: unchanged(policy.inbox_bytes_max),
        }
    }
}

impl From<stored::Policy> for Policy {
    fn from(policy: stored::Policy) -> Self {
        let limit = |number: u64| (number > 0).then_some(number);
        Self {
            namespace: None,
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
            events_max: limit(policy.events_max),
            events_bytes_max: limit(policy.events_bytes_max),
            events_age_ms: limit(policy.events_age_ms),
            inbox_max: limit(policy.inbox_max),
            inbox_bytes_max: limit(policy.inbox_bytes_max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Frame, FrameHeader};

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
