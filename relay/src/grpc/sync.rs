//! The wake cycle of a function, in one call: admit, renew, push, pull.
//!
//! Each part has its own result. A refused push costs neither the lease nor the backlog, an accepted one is seen by the
//! pull, and any retry of the whole call, at any relay, is harmless.

use std::time::Duration;

use bytes::Bytes;
use dormouse_proto::{
    convert::{Intent, PullRequest, PushRequest, SyncCall},
    ids::{Beat, Incarnation, Namespace, NodeId, Revision},
    record::{self, Cause, Contact, Gone, Join, Push, Record},
    rows::RowWriter,
    wire::{
        encoded,
        v1::{self, lease::Admission},
    },
};
use prost::Message as _;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::{Service, encode, status};
use crate::{
    error::RelayError,
    keeper::{Told, contact_of},
    liveness::{Activity, Heard, LeaseKey, Millis},
    metrics::{Admission as Kind, PushResult},
    sequencer::Outcome,
    state::{Fold, JoinVerdict, LastPush, Lost, Pull, PullError, PushVerdict, Token, Verdict},
};

/// How often admission is tried again when the state moves under it.
const TRIES: u32 = 4;
/// What a Join takes in a frame, about.
const JOIN_BYTES: usize = 512;

/// A node that was admitted: the one that calls, or the one that it has become.
#[derive(Clone, Copy, Debug)]
struct Admitted {
    node: NodeId,
    incarnation: Incarnation,
    how: Admission,
}

/// What the member's record says, as far as admission needs it.
enum Known {
    Live { incarnation: Incarnation, same_process: bool },
    Ended { incarnation: Incarnation, same_process: bool, evicted: bool },
    Nothing,
}

/// One call on its way through its parts.
pub(super) struct Sync<'a> {
    service: &'a Service,
    call: SyncCall,
    namespace: Namespace,
    activity: Activity,
    until: Instant,
}

impl<'a> Sync<'a> {
    pub(super) fn new(
        service: &'a Service,
        call: SyncCall,
        namespace: Namespace,
        patience: Duration,
    ) -> Self {
        let activity = match call.intent {
            Intent::Renew | Intent::Leaving => Activity::Awake { remaining: None, then_asleep: false },
            Intent::Awake { remaining_ms, then_asleep } => {
                Activity::Awake { remaining: remaining_ms.map(|ms| Millis(u64::from(ms))), then_asleep }
            }
            Intent::Asleep { .. } => Activity::Asleep,
        };
        Self { service, call, namespace, activity, until: Instant::now() + patience }
    }

    fn patience(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    pub(super) async fn run(mut self) -> Result<encoded::SyncResponse, RelayError> {
        self.wait_for_head().await;
        if self.call.intent == Intent::Leaving {
            return self.leave().await;
        }
        let push = self.call.push.take();
        let pull = self.call.pull.take();
        let mut admitted = self.admit().await?;
        self.number_the_call(&admitted);
        let mut answer = encoded::SyncResponse::default();
        let mut ttl = None;
        match push {
            Some(Ok(push)) => ttl = self.push(&mut admitted, push, &mut answer).await?,
            Some(Err(violations)) => answer.push_refused = Some(self.refuse(violations.into())),
            None => {}
        }
        let ttl = match ttl {
            Some(ttl) => ttl,
            None => self.renew(&mut admitted).await?,
        };
        answer.lease = Some(lease(&admitted, ttl));
        self.pull(&admitted, pull, &mut answer).await;
        answer.conditions = self.service.conditions();
        Ok(answer)
    }

    /// A caller by hand does not count its transmissions; each of its calls is taken for a new one.
    fn number_the_call(&mut self, admitted: &Admitted) {
        if self.call.beat == Beat(0) {
            let known = self.key(admitted.node).and_then(|key| self.service.relay.keeper.view(key));
            self.call.beat = Beat(known.map_or(0, |lease| lease.beat.0) + 1);
        }
    }

    fn refuse(&self, error: RelayError) -> v1::Refusal {
        status::refusal(&self.service.refused(error))
    }

    /// A relay that is behind what the node was shown waits; the pull says so if that does not help.
    async fn wait_for_head(&self) {
        let head = self.call.head;
        if self.service.relay.sequencer.read().fold.revision() < head {
            self.service.relay.sequencer.reached(head, self.patience()).await;
        }
    }

    fn key(&self, node: NodeId) -> Option<LeaseKey> {
        let applied = self.service.relay.sequencer.read();
        applied.fold.namespace(&self.namespace).map(|view| LeaseKey { namespace: view.number(), node })
    }

    // ---- admission ----

    async fn admit(&self) -> Result<Admitted, RelayError> {
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
        next: Incarnation,
        previous: Incarnation,
    ) -> Result<Admitted, RelayError> {
        match self.join(node, next, Some(previous)).await? {
            JoinVerdict::Admitted { .. } => {
                Ok(Admitted { node, incarnation: next, how: Admission::Readmitted })
            }
            JoinVerdict::Forgotten => self.become_another(node, Admission::Forgotten).await,
            JoinVerdict::Superseded => match self.known(node) {
                // Two transmissions of one call raced: the other one has done it.
                Known::Live { incarnation, same_process: true } => {
                    Ok(Admitted { node, incarnation, how: Admission::Readmitted })
                }
                _ => self.become_another(node, Admission::Forked).await,
            },
            verdict => {
                self.give_up(node, &verdict)?;
                Err(RelayError::Busy("joins"))
            }
        }
    }

    /// The id belongs to another process, or is forgotten: this one gets a new identity.
    async fn become_another(&self, was: NodeId, how: Admission) -> Result<Admitted, RelayError> {
        let identity = &self.call.identity;
        // Of the call, so that two clones become two nodes and a retry of one finds what the first try made.
        let salt = self.call.call_id.0.to_le_bytes();
        let node = node_id(&[&identity.boot_id.0, &was.0.to_le_bytes(), &salt]);
        match self.join(node, Incarnation(1), None).await? {
            JoinVerdict::Admitted { .. } => Ok(Admitted { node, incarnation: Incarnation(1), how }),
            verdict => {
                self.give_up(node, &verdict)?;
                Err(RelayError::Busy("joins"))
            }
        }
    }

    fn give_up(&self, node: NodeId, verdict: &JoinVerdict) -> Result<(), RelayError> {
        match verdict {
            JoinVerdict::Full => {
                Err(RelayError::Full { limit: self.service.relay.sequencer.read().fold.limits().nodes_max })
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
        let (_, lease) = self.service.relay.keeper.lease_of(&identity.group, self.activity);
        let join = Join {
            namespace: self.namespace.clone(),
            node,
            incarnation,
            previous,
            boot_id: identity.boot_id,
            group: identity.group.clone(),
            tags: identity.tags.clone(),
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

    async fn write(&self, record: Record, bytes: usize, touched: Option<u32>) -> Result<Outcome, RelayError> {
        Ok(self.service.relay.sequencer.write(record, bytes, touched, self.patience()).await?)
    }

    // ---- the lease ----

    /// Renews the lease without a push; waits for the log only where a long lease is to be promised.
    async fn renew(&self, admitted: &mut Admitted) -> Result<Millis, RelayError> {
        let long = self.activity == Activity::Asleep
            || matches!(self.activity, Activity::Awake { then_asleep: true, .. });
        let told = if long { Told::ByCaller } else { Told::ByDigest };
        for _ in 0..TRIES {
            let Some(key) = self.key(admitted.node) else { break };
            match self.hear(key, admitted.incarnation, told) {
                Heard::Granted { ttl, ttl_applied, .. } if long => {
                    return Ok(self.promise(admitted, ttl, ttl_applied).await);
                }
                Heard::Granted { ttl, .. } => return Ok(ttl),
                Heard::NotNewer { left } => return Ok(left),
                Heard::Forked => *admitted = self.become_another(admitted.node, Admission::Forked).await?,
                Heard::Ending => self.wait_for_verdict().await,
                Heard::OtherIncarnation { .. } | Heard::Unknown => *admitted = self.admit().await?,
            }
        }
        Ok(Millis(0))
    }

    fn hear(&self, key: LeaseKey, incarnation: Incarnation, told: Told) -> Heard {
        self.service.relay.keeper.hear(
            key,
            incarnation,
            self.call.beat,
            self.call.call_id,
            self.activity,
            told,
        )
    }

    /// A lease longer than the awake lease is promised only when the log has told of its evidence.
    async fn promise(&self, admitted: &Admitted, at_once: Millis, applied: Millis) -> Millis {
        let evidence = record::Evidence {
            namespace: self.namespace.clone(),
            node: admitted.node,
            incarnation: admitted.incarnation,
            contact: contact_of(self.call.beat, self.activity, applied),
        };
        let digest = self.service.relay.keeper.digest_of(evidence);
        match self.write(Record::Digest(digest), 128, None).await {
            Ok(_) => applied,
            Err(_) => at_once,
        }
    }

    /// The node's end is under way; its verdict comes with one of the next records.
    async fn wait_for_verdict(&self) {
        let sequencer = &self.service.relay.sequencer;
        let next = sequencer.read().fold.revision().next();
        sequencer.reached(next, self.patience()).await;
    }

    async fn leave(&self) -> Result<encoded::SyncResponse, RelayError> {
        let Some((node, incarnation)) = self.call.identity.node else {
            return Err(RelayError::NodeUnknown(String::new()));
        };
        let gone = Gone {
            namespace: self.namespace.clone(),
            node,
            incarnation,
            cause: Cause::Left,
            beat: self.call.beat,
            reason: String::new(),
        };
        self.write(Record::Gone(gone), 128, None).await?;
        let admitted = Admitted { node, incarnation, how: Admission::Unspecified };
        Ok(encoded::SyncResponse { lease: Some(lease(&admitted, Millis(0))), ..Default::default() })
    }

    // ---- the push ----

    /// Pushes; answers the lease that the evidence in the push has earned, if it got that far.
    async fn push(
        &self,
        admitted: &mut Admitted,
        mut push: PushRequest,
        answer: &mut encoded::SyncResponse,
    ) -> Result<Option<Millis>, RelayError> {
        if matches!(admitted.how, Admission::Forked | Admission::Forgotten) {
            // The identity that sealed this push is not this node's any more: only the client can tell what to repeat.
            if admitted.how == Admission::Forgotten {
                answer.push_refused = Some(self.refuse(RelayError::OutcomeUnknown));
            }
            return Ok(None);
        }
        for _ in 0..TRIES {
            let Some(key) = self.key(admitted.node) else { break };
            let applied = match self.hear(key, admitted.incarnation, Told::ByCaller) {
                Heard::Granted { ttl_applied, .. } => ttl_applied,
                Heard::NotNewer { left } => left,
                Heard::Forked => {
                    *admitted = self.become_another(admitted.node, Admission::Forked).await?;
                    return Ok(None);
                }
                Heard::Ending => {
                    self.wait_for_verdict().await;
                    continue;
                }
                Heard::OtherIncarnation { .. } | Heard::Unknown => {
                    *admitted = self.admit().await?;
                    continue;
                }
            };
            if let Some(ttl) = self.push_once(admitted, &mut push, applied, answer).await? {
                return Ok(Some(ttl));
            }
            if answer.push_refused.is_some()
                || matches!(admitted.how, Admission::Forked | Admission::Forgotten)
            {
                return Ok(None);
            }
        }
        answer.push_refused = Some(self.refuse(RelayError::Busy("writes")));
        Ok(None)
    }

    /// Writes the push and takes its verdict. `None`: no lease was earned by it.
    ///
    /// Its deltas go into the record and are there again when it is worth another try.
    async fn push_once(
        &self,
        admitted: &mut Admitted,
        push: &mut PushRequest,
        applied: Millis,
        answer: &mut encoded::SyncResponse,
    ) -> Result<Option<Millis>, RelayError> {
        let count = push.deltas.len();
        let record = Push {
            namespace: self.namespace.clone(),
            node: admitted.node,
            incarnation: admitted.incarnation,
            push_no: push.push_no,
            push_id: push.push_id,
            deltas: std::mem::take(&mut push.deltas),
            contact: Some(contact_of(self.call.beat, self.activity, applied)),
        };
        let bytes = 128 + 96 * count;
        let mut outcome = match self.write(Record::Push(record), bytes, Some(RowWriter::PUSH_ACK)).await {
            Ok(outcome) => outcome,
            Err(error) => {
                answer.push_refused = Some(self.refuse(error));
                return Ok(None);
            }
        };
        let Verdict::Push(verdict) = &outcome.verdict else { return Ok(None) };
        self.service.relay.metrics.pushed(result_of(verdict), count);
        match verdict {
            PushVerdict::Bound { revision, .. } => {
                answer.pushed = Some(self.ack(push, *revision, &outcome));
                Ok(Some(applied))
            }
            PushVerdict::Refused(refused) => {
                let error = RelayError::Refused { refused: refused.clone(), path: "push.deltas" };
                answer.push_refused = Some(self.refuse(error));
                Ok(Some(applied))
            }
            PushVerdict::Fork => {
                *admitted = self.become_another(admitted.node, Admission::Forked).await?;
                Ok(None)
            }
            PushVerdict::Old => {
                *admitted = self.become_another(admitted.node, Admission::Forgotten).await?;
                answer.push_refused = Some(self.refuse(RelayError::OutcomeUnknown));
                Ok(None)
            }
            PushVerdict::Unknown => {
                push.deltas = std::mem::take(&mut outcome.unheard);
                *admitted = self.admit().await?;
                Ok(None)
            }
        }
    }

    fn ack(&self, push: &PushRequest, revision: Revision, outcome: &Outcome) -> Bytes {
        let durability = encode::durability(self.service.relay.sequencer.log().durability);
        let mut ack = v1::PushAck {
            push_no: push.push_no.0,
            revision: revision.0,
            as_of: outcome.revision.0,
            durability: durability as i32,
            keys: Vec::new(),
        }
        .encode_to_vec();
        ack.extend_from_slice(&outcome.touched);
        ack.into()
    }

    // ---- the pull ----

    /// Chunk, counts and the fate of the last push, all from one view.
    async fn pull(
        &self,
        admitted: &Admitted,
        pull: Option<Result<PullRequest, dormouse_proto::convert::Violations>>,
        answer: &mut encoded::SyncResponse,
    ) {
        let request = match pull {
            Some(Ok(request)) => Some(request),
            Some(Err(violations)) => {
                answer.pull_refused = Some(self.refuse(violations.into()));
                None
            }
            None => None,
        };
        let log_is_read = match &request {
            Some(request) => {
                self.service.catch_up(self.call.head, request.min_revision, self.patience()).await
            }
            None => false,
        };
        let sequencer = &self.service.relay.sequencer;
        let applied = sequencer.read();
        let fold = &applied.fold;
        if let Some(request) = &request {
            match chunk(
                fold,
                sequencer.log_fingerprint(),
                &self.namespace,
                request,
                self.call.head,
                log_is_read,
            ) {
                Ok(chunk) => {
                    self.service.relay.metrics.pulled(chunk.rows, chunk.keys.len());
                    answer.chunk = Some(encode::chunk(chunk));
                }
                Err(error) => answer.pull_refused = Some(self.refuse(error)),
            }
        }
        let Some(view) = fold.namespace(&self.namespace) else { return };
        let last: Option<&LastPush> = view
            .member(admitted.node)
            .map(|it| &it.last)
            .or_else(|| view.tombstone(admitted.node).map(|it| &it.last));
        answer.settled = last.and_then(encode::settled);
        answer.members = Some(self.service.member_counts(view.number(), fold.revision()));
    }
}

impl Service {
    /// Waits until this relay has applied what the caller knows of. Answers whether the whole log was read meanwhile.
    pub(super) async fn catch_up(&self, head: Revision, min_revision: Revision, patience: Duration) -> bool {
        let sequencer = &self.relay.sequencer;
        let wanted = head.max(min_revision);
        if sequencer.read().fold.revision() >= wanted {
            return false;
        }
        // A record that is appended now and applied proves that the log holds nothing more.
        let barrier = sequencer.write(Record::Digest(record::Digest::default()), 64, None, patience);
        barrier.await.is_ok()
    }
}

/// Builds a chunk, once this relay has what the reader knows of.
pub(super) fn chunk(
    fold: &Fold,
    log: u64,
    namespace: &Namespace,
    request: &PullRequest,
    head: Revision,
    log_is_read: bool,
) -> Result<crate::state::Chunk, RelayError> {
    let has = fold.revision();
    let pull = Pull {
        token: (!request.token.is_empty()).then(|| Token::decode(&request.token)),
        all: request.follow.all,
        collections: &request.follow.collections,
        members: request.follow.members,
        acked: &request.acked,
        held_since: request.held_since,
        head,
        max_bytes: request.max_bytes,
        log_is_read,
    };
    let chunk = fold
        .pull(log, namespace, &pull)
        .map_err(|PullError::Behind(wanted)| RelayError::Behind { wanted, has })?;
    let lost = chunk.restart == Some(Lost::History);
    if has < request.min_revision && !lost {
        return Err(RelayError::Behind { wanted: request.min_revision, has });
    }
    Ok(chunk)
}

fn lease(admitted: &Admitted, ttl: Millis) -> v1::Lease {
    v1::Lease {
        node_id: admitted.node.to_string(),
        incarnation: admitted.incarnation.0,
        ttl_ms: encode::millis(ttl.0),
        admission: admitted.how as i32,
        send_tags: false,
    }
}

fn result_of(verdict: &PushVerdict) -> PushResult {
    match verdict {
        PushVerdict::Bound { duplicate: false, .. } => PushResult::Bound,
        PushVerdict::Bound { duplicate: true, .. } => PushResult::Duplicate,
        PushVerdict::Refused(_) => PushResult::Refused,
        PushVerdict::Fork => PushResult::Fork,
        PushVerdict::Old | PushVerdict::Unknown => PushResult::Old,
    }
}

/// A node id that follows from what is given: 64 bits of a hash of at least 128 random ones.
fn node_id(parts: &[&[u8]]) -> NodeId {
    NodeId(xxh3_64(&parts.concat()))
}
