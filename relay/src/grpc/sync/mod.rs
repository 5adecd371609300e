//! The wake cycle of a function, in one call: admit, renew, push, pull.
//!
//! Each part has its own result. A refused push costs neither the lease nor the backlog, an accepted one is seen by the
//! pull, and any retry of the whole call, at any relay, is harmless.

mod admission;
mod push;

use std::{sync::OnceLock, time::Duration};

use dormouse_proto::{
    convert::{Intent, PullRequest, SyncCall, Violations},
    ids::{Beat, Incarnation, Namespace, NodeId, Revision},
    record::{self, Cause, Gone, Record},
    wire::{
        encoded,
        v1::{self, lease::Admission},
    },
};
use tokio::time::Instant;

use super::{Service, encode, status};
use crate::{
    error::RelayError,
    keeper::{Told, contact_of},
    liveness::{Activity, Contact, Heard, LeaseKey, Millis},
    sequencer::Outcome,
    state::{Fold, LastPush, Lost, Pull, PullError, Token},
};

/// How often a step is tried again when the state moves under it.
const TRIES: u32 = 4;

/// A node that was admitted: the one that calls, or the one that it has become.
#[derive(Clone, Copy, Debug)]
struct Admitted {
    node: NodeId,
    incarnation: Incarnation,
    how: Admission,
}

/// One call on its way through its parts.
pub(super) struct Sync<'a> {
    service: &'a Service,
    call: SyncCall,
    namespace: Namespace,
    activity: Activity,
    until: Instant,
    /// What the rows of this call's acknowledgement are as of.
    acked_at: OnceLock<Revision>,
    /// All that was in the log when the call arrived has been applied.
    log_is_read: bool,
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
        Self {
            service,
            call,
            namespace,
            activity,
            until: Instant::now() + patience,
            acked_at: OnceLock::new(),
            log_is_read: false,
        }
    }

    fn patience(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    pub(super) async fn run(mut self) -> Result<encoded::SyncResponse, RelayError> {
        self.meet_head().await;
        let leaving = self.call.intent == Intent::Leaving;
        let push = self.call.push.take();
        let pull = self.call.pull.take();
        if leaving && push.is_none() {
            return self.leave().await;
        }
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
            // What it pushed comes first: it will not be there to push it again.
            _ if leaving => self.end(admitted.node, admitted.incarnation).await?,
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
            self.call.beat = Beat(known.map_or(0, |lease| lease.beat.0).saturating_add(1));
        }
    }

    fn refuse(&self, error: RelayError) -> v1::Refusal {
        status::refusal(&self.service.refused(error))
    }

    /// A relay that is behind what the node was shown reads its log to the end: either that brings it there, or the node
    /// comes from a history that this log does not have.
    async fn meet_head(&mut self) {
        let patience = self.patience() / 2;
        self.log_is_read = self.service.catch_up(self.call.head, Revision::ZERO, patience).await;
    }

    fn key(&self, node: NodeId) -> Option<LeaseKey> {
        let applied = self.service.relay.sequencer.read();
        applied.fold.namespace(&self.namespace).map(|view| LeaseKey { namespace: view.number(), node })
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
                Heard::Granted { ttl, ttl_applied, .. } if long || ttl == Millis(0) => {
                    match self.promise(key, admitted, ttl_applied).await {
                        Some(ttl) => return Ok(ttl),
                        None => *admitted = self.admit().await?,
                    }
                }
                Heard::Granted { ttl, .. } => return Ok(ttl),
                Heard::NotNewer { left } => return Ok(left),
                Heard::Forked => *admitted = self.become_another(admitted.node, Admission::Forked).await?,
                Heard::Ending => self.wait_for_verdict(key).await,
                Heard::OtherIncarnation { .. } | Heard::Unknown => *admitted = self.admit().await?,
            }
        }
        Ok(Millis(0))
    }

    fn hear(&self, key: LeaseKey, incarnation: Incarnation, told: Told) -> Heard {
        let SyncCall { beat, call_id, head, .. } = self.call;
        let contact = Contact { incarnation, beat, call_id, activity: self.activity, head };
        self.service.relay.keeper.hear(key, &contact, told)
    }

    /// What others may break is promised only when the log has told of its evidence; `None`: its end came first.
    async fn promise(&self, key: LeaseKey, admitted: &Admitted, applied: Millis) -> Option<Millis> {
        let evidence = self.evidence(admitted, applied);
        let digest = self.service.relay.keeper.digest_of(evidence.clone());
        match self.write(Record::Digest(digest), 128, None).await {
            Ok(_) => self.is_member(admitted).then_some(applied),
            Err(_) => Some(self.service.relay.keeper.tell_later(key, evidence)),
        }
    }

    fn evidence(&self, admitted: &Admitted, lease: Millis) -> record::Evidence {
        record::Evidence {
            namespace: self.namespace.clone(),
            node: admitted.node,
            incarnation: admitted.incarnation,
            contact: contact_of(self.call.beat, self.activity, lease),
        }
    }

    fn is_member(&self, admitted: &Admitted) -> bool {
        let applied = self.service.relay.sequencer.read();
        let member = applied.fold.namespace(&self.namespace).and_then(|view| view.member(admitted.node));
        member.is_some_and(|member| member.incarnation == admitted.incarnation)
    }

    /// The node's end is under way; its verdict comes with one of the next records.
    async fn wait_for_verdict(&self, key: LeaseKey) {
        let sequencer = &self.service.relay.sequencer;
        loop {
            let next = sequencer.read().fold.revision().next();
            if !self.service.relay.keeper.is_ending(key) || !sequencer.reached(next, self.patience()).await {
                return;
            }
        }
    }

    async fn leave(&self) -> Result<encoded::SyncResponse, RelayError> {
        let Some((node, incarnation)) = self.call.identity.node else {
            return Err(RelayError::NodeUnknown(String::new()));
        };
        let admitted = Admitted { node, incarnation, how: Admission::Unspecified };
        let ttl = self.end(node, incarnation).await?;
        Ok(encoded::SyncResponse { lease: Some(lease(&admitted, ttl)), ..Default::default() })
    }

    async fn end(&self, node: NodeId, incarnation: Incarnation) -> Result<Millis, RelayError> {
        let (namespace, beat) = (self.namespace.clone(), self.call.beat);
        let gone = Gone { namespace, node, incarnation, cause: Cause::Left, beat, reason: String::new() };
        self.write(Record::Gone(gone), 128, None).await?;
        Ok(Millis(0))
    }

    // ---- the pull ----

    /// A first pull begins where the node's oldest row is from, and that may be this call's acknowledgement: what dies
    /// between the two must be told.
    fn begun(&self, request: PullRequest) -> PullRequest {
        let oldest = request.held_since.into_iter().chain(self.acked_at.get().copied()).min();
        PullRequest { held_since: oldest, ..request }
    }

    /// Chunk, counts and the fate of the last push, all from one view.
    async fn pull(
        &self,
        admitted: &Admitted,
        pull: Option<Result<PullRequest, Violations>>,
        answer: &mut encoded::SyncResponse,
    ) {
        let request = match pull {
            Some(Ok(request)) => Some(self.begun(request)),
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
            let reader =
                Reader { namespace: &self.namespace, node: Some(admitted.node), head: self.call.head };
            let log = sequencer.log_fingerprint();
            match chunk(fold, log, &reader, request, log_is_read) {
                Ok(chunk) => {
                    // What arrived in a history that is lost says nothing of this one: what had expired there may wait here.
                    if chunk.restart != Some(Lost::History) {
                        self.take_note_of_receipt(fold, log, admitted.node, request);
                    }
                    self.service.relay.metrics.pulled(chunk.rows, chunk.keys.len());
                    self.service.relay.caught_up(&self.namespace, &chunk);
                    answer.chunk = Some(encode::chunk(chunk));
                }
                Err(error) => answer.pull_refused = Some(self.refuse(error)),
            }
        }
        let Some(view) = fold.namespace(&self.namespace) else { return };
        // A relay that is not where the node was, and without a chunk that says so, may tell of a history that is lost.
        if answer.chunk.is_some() || fold.is_valid(self.call.head) {
            let last: Option<&LastPush> = view
                .member(admitted.node)
                .map(|it| &it.last)
                .or_else(|| view.tombstone(admitted.node).map(|it| &it.last));
            answer.settled = last.and_then(encode::settled);
        }
        answer.members = Some(self.service.member_counts(view.number(), fold.revision()));
    }

    /// Messages up to the token that the node sends have arrived there, and need not wait any more. Nobody waits for that
    /// record: if it is lost, the next pull says the same.
    fn take_note_of_receipt(&self, fold: &Fold, log: u64, node: NodeId, request: &PullRequest) {
        let Some(upto) = Token::received(&request.token, log, &self.namespace) else { return };
        let waits = fold.namespace(&self.namespace).is_some_and(|view| view.has_mail_upto(node, upto));
        if waits && fold.is_valid(upto) {
            let received = record::Received { namespace: self.namespace.clone(), node, upto };
            let _ = self.service.relay.sequencer.submit(Record::Received(received), 64, None);
        }
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

/// Who reads.
pub(super) struct Reader<'a> {
    pub(super) namespace: &'a Namespace,
    /// Whose messages come along.
    pub(super) node: Option<NodeId>,
    /// The highest revision that it was ever shown.
    pub(super) head: Revision,
}

/// Builds a chunk, once this relay has what the reader knows of.
pub(super) fn chunk(
    fold: &Fold,
    log: u64,
    reader: &Reader<'_>,
    request: &PullRequest,
    log_is_read: bool,
) -> Result<crate::state::Chunk, RelayError> {
    let has = fold.revision();
    let pull = Pull {
        token: (!request.token.is_empty()).then(|| Token::decode(&request.token)),
        all: request.follow.all,
        collections: &request.follow.collections,
        members: request.follow.members,
        node: reader.node,
        acked: &request.acked,
        held_since: request.held_since,
        head: reader.head,
        max_bytes: request.max_bytes,
        log_is_read,
    };
    let chunk = fold
        .pull(log, reader.namespace, &pull)
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
