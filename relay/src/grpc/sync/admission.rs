//! Who calls: the member that it was, that member again, or another one.

use std::collections::BTreeMap;

use dormouse_proto::{
    convert::bounds,
    ids::{Beat, Incarnation, NodeId},
    record::{Cause, Contact, Join, Record},
    wire::v1::lease::Admission,
};
use xxhash_rust::xxh3::xxh3_64;

use super::{Admitted, Sync, TRIES};
use crate::{
    error::RelayError,
    keeper::contact_of,
    liveness::LeaseKey,
    metrics::Admission as Kind,
    state::{JoinVerdict, Verdict},
};

/// What a Join takes in a frame, about.
const JOIN_BYTES: usize = 512 + bounds::TAG_BYTES;

/// What the member's record says, as far as admission needs it.
enum Known {
    Live { incarnation: Incarnation, same_process: bool },
    Ended { incarnation: Incarnation, same_process: bool, evicted: bool },
    Nothing,
}

impl Sync<'_> {
    pub(super) async fn admit(&self) -> Result<Admitted, RelayError> {
        let identity = &self.call.identity;
        let Some((node, incarnation)) = identity.node else { return self.join_first().await };
        match self.known(node) {
            Known::Live { incarnation: living, same_process: true } => {
                let how = if living == incarnation { Admission::Renewed } else { Admission::Readmitted };
                Ok(Admitted { node, incarnation: living, how })
            }
            Known::Ended { evicted: true, .. } => Err(RelayError::NodeGone(node.to_string())),
            Known::Ended { incarnation: ended, same_process: true, .. } => {
                let next = ended.max(incarnation).next();
                self.rejoin(node, next, incarnation).await
            }
            Known::Live { .. } | Known::Ended { .. } => self.become_another(node, Admission::Forked).await,
            Known::Nothing => self.rejoin(node, incarnation.next(), incarnation).await,
        }
    }

    fn known(&self, node: NodeId) -> Known {
        let boot_id = self.call.identity.boot_id;
        let applied = self.service.relay.sequencer.read();
        let Some(view) = applied.fold.namespace(&self.namespace) else { return Known::Nothing };
        if let Some(member) = view.member(node) {
            return Known::Live { incarnation: member.incarnation, same_process: member.boot_id == boot_id };
        }
        view.tombstone(node).map_or(Known::Nothing, |tombstone| Known::Ended {
            incarnation: tombstone.incarnation,
            same_process: tombstone.boot_id == boot_id,
            evicted: tombstone.cause == Cause::Evicted,
        })
    }

    /// The first wake of a process. Its node id follows from its boot id, so that a retry finds what the first try made.
    async fn join_first(&self) -> Result<Admitted, RelayError> {
        let boot_id = self.call.identity.boot_id;
        for attempt in 0..TRIES {
            let node = node_id(&[&boot_id.0, &attempt.to_le_bytes()]);
            let how = Admission::Joined;
            match self.known(node) {
                Known::Live { incarnation, same_process: true } => {
                    return Ok(Admitted { node, incarnation, how });
                }
                Known::Ended { incarnation, same_process: true, evicted: false } => {
                    return self.rejoin(node, incarnation.next(), incarnation).await;
                }
                Known::Ended { evicted: true, same_process: true, .. } => {
                    return Err(RelayError::NodeGone(node.to_string()));
                }
                Known::Live { .. } | Known::Ended { .. } => {}
                Known::Nothing => match self.join(node, Incarnation(1), None).await? {
                    JoinVerdict::Admitted { .. } => {
                        return Ok(Admitted { node, incarnation: Incarnation(1), how });
                    }
                    verdict => self.give_up(node, &verdict)?,
                },
            }
        }
        Err(RelayError::Busy("joins"))
    }

    /// A node that had been declared GONE gets its id back, if its tombstone is still there.
    async fn rejoin(
        &self,
        node: NodeId,
        mut next: Incarnation,
        previous: Incarnation,
    ) -> Result<Admitted, RelayError> {
        let how = Admission::Readmitted;
        for _ in 0..TRIES {
            match self.join(node, next, Some(previous)).await? {
                JoinVerdict::Admitted { .. } => return Ok(Admitted { node, incarnation: next, how }),
                JoinVerdict::Forgotten => return self.become_another(node, Admission::Forgotten).await,
                JoinVerdict::Superseded => match self.known(node) {
                    // Two transmissions of one call raced: the other one has done it.
                    Known::Live { incarnation, same_process: true } => {
                        return Ok(Admitted { node, incarnation, how });
                    }
                    // It was admitted and ended again while this relay was behind. Another name would seal anew what
                    // that incarnation may have pushed.
                    Known::Ended { incarnation, same_process: true, .. } => next = incarnation.next(),
                    _ => return self.become_another(node, Admission::Forked).await,
                },
                verdict => {
                    self.give_up(node, &verdict)?;
                    break;
                }
            }
        }
        Err(RelayError::Busy("joins"))
    }

    /// The id belongs to another process, or is forgotten: this one gets a new identity.
    pub(super) async fn become_another(&self, was: NodeId, how: Admission) -> Result<Admitted, RelayError> {
        let identity = &self.call.identity;
        // Of the call, so that two clones become two nodes and a retry of one finds what the first try made.
        let salt = self.call.call_id.0.to_le_bytes();
        for attempt in 0..TRIES {
            let node = node_id(&[&identity.boot_id.0, &was.0.to_le_bytes(), &salt, &attempt.to_le_bytes()]);
            match self.join(node, Incarnation(1), None).await? {
                JoinVerdict::Admitted { .. } => {
                    return Ok(Admitted { node, incarnation: Incarnation(1), how });
                }
                verdict => self.give_up(node, &verdict)?,
            }
        }
        Err(RelayError::Busy("joins"))
    }

    /// The node's labels: as it says now, or as it said before. They are sent only at first.
    fn tags(&self) -> BTreeMap<String, String> {
        let identity = &self.call.identity;
        let Some((node, _)) = identity.node.filter(|_| identity.tags.is_empty()) else {
            return identity.tags.clone();
        };
        let applied = self.service.relay.sequencer.read();
        let told = applied.fold.namespace(&self.namespace).and_then(|view| view.roster_entry(node));
        told.map_or_else(BTreeMap::new, |(_, entry)| entry.tags.as_ref().clone())
    }

    fn give_up(&self, node: NodeId, verdict: &JoinVerdict) -> Result<(), RelayError> {
        match verdict {
            JoinVerdict::Full => {
                let applied = self.service.relay.sequencer.read();
                Err(match applied.fold.namespace(&self.namespace) {
                    Some(view) => RelayError::Full { limit: view.limits().nodes_max },
                    None => RelayError::TooManyNamespaces { limit: applied.fold.limits().namespaces_max },
                })
            }
            JoinVerdict::Evicted => Err(RelayError::NodeGone(node.to_string())),
            JoinVerdict::Admitted { .. } | JoinVerdict::Superseded | JoinVerdict::Forgotten => Ok(()),
        }
    }

    async fn join(
        &self,
        node: NodeId,
        incarnation: Incarnation,
        previous: Option<Incarnation>,
    ) -> Result<JoinVerdict, RelayError> {
        let _place = self.service.relay.joins.try_acquire().map_err(|_| RelayError::Busy("joins"))?;
        let identity = &self.call.identity;
        // A namespace without a number has no members yet, and the lease of the very first one is not learned.
        let key = self.key(node).unwrap_or(LeaseKey { namespace: u32::MAX, node });
        let lease = self.service.relay.keeper.lease_of(key, &identity.group, self.activity);
        let join = Join {
            namespace: self.namespace.clone(),
            node,
            incarnation,
            previous,
            boot_id: identity.boot_id,
            group: identity.group.clone(),
            tags: self.tags(),
            // The call itself is heard afterwards, under its own beat.
            contact: Some(Contact { beat: Beat(0), ..contact_of(self.call.beat, self.activity, lease) }),
        };
        let outcome = self.write(Record::Join(join), JOIN_BYTES, None).await?;
        match outcome.verdict {
            Verdict::Join(verdict) => {
                if matches!(verdict, JoinVerdict::Admitted { again: false }) {
                    let how = if previous.is_some() { Kind::Readmitted } else { Kind::Joined };
                    self.service.relay.metrics.joined(how);
                }
                Ok(verdict)
            }
            _ => Err(RelayError::LogUnreachable),
        }
    }
}

/// A node id that follows from what is given: 64 bits of a hash of at least 128 random ones.
fn node_id(parts: &[&[u8]]) -> NodeId {
    NodeId(xxh3_64(&parts.concat()))
}
