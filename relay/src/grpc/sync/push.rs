//! The push of a call, and what became of it.

use bytes::Bytes;
use dormouse_proto::{
    convert::PushRequest,
    ids::Revision,
    record::{Push, Record},
    rows::RowWriter,
    wire::{
        encoded,
        v1::{self, lease::Admission},
    },
};
use prost::Message as _;

use super::{Admitted, Sync, TRIES};
use crate::{
    error::RelayError,
    grpc::encode,
    keeper::{Told, contact_of},
    liveness::{Heard, LeaseKey, Millis},
    metrics::PushResult,
    sequencer::Outcome,
    state::{PushVerdict, Verdict},
};

impl Sync<'_> {
    /// Pushes; answers the lease that the evidence in the push has earned, if it got that far.
    pub(super) async fn push(
        &self,
        admitted: &mut Admitted,
        mut push: PushRequest,
        answer: &mut encoded::SyncResponse,
    ) -> Result<Option<Millis>, RelayError> {
        for _ in 0..TRIES {
            if matches!(admitted.how, Admission::Forked | Admission::Forgotten) {
                self.leave_unbound(admitted, answer);
                return Ok(None);
            }
            let Some(key) = self.key(admitted.node) else { break };
            let applied = match self.hear(key, admitted.incarnation, Told::ByCaller) {
                Heard::Granted { ttl_applied, .. } => ttl_applied,
                Heard::NotNewer { left } => left,
                Heard::Forked => {
                    *admitted = self.become_another(admitted.node, Admission::Forked).await?;
                    continue;
                }
                Heard::Ending => {
                    self.wait_for_verdict(key).await;
                    continue;
                }
                Heard::OtherIncarnation { .. } | Heard::Unknown => {
                    *admitted = self.admit().await?;
                    continue;
                }
            };
            if let Some(ttl) = self.push_once(key, admitted, &mut push, applied, answer).await? {
                return Ok(Some(ttl));
            }
            if answer.push_refused.is_some() {
                return Ok(None);
            }
        }
        if matches!(admitted.how, Admission::Forked | Admission::Forgotten) {
            self.leave_unbound(admitted, answer);
            return Ok(None);
        }
        answer.push_refused = Some(self.refuse(RelayError::Busy("writes")));
        Ok(None)
    }

    /// The identity that sealed this push is not this node's any more: only the client can tell what to repeat.
    fn leave_unbound(&self, admitted: &Admitted, answer: &mut encoded::SyncResponse) {
        if admitted.how == Admission::Forgotten {
            answer.push_refused = Some(self.refuse(RelayError::OutcomeUnknown));
        }
    }

    /// Writes the push and takes its verdict. `None`: no lease was earned by it.
    ///
    /// Its deltas go into the record and are there again when it is worth another try.
    async fn push_once(
        &self,
        key: LeaseKey,
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
        let mut outcome = match self.write(Record::Push(record), push.bytes, Some(RowWriter::PUSH_ACK)).await
        {
            Ok(outcome) => outcome,
            Err(error) => {
                answer.push_refused = Some(self.refuse(error));
                let evidence = self.evidence(admitted, applied);
                return Ok(Some(self.service.relay.keeper.tell_later(key, evidence)));
            }
        };
        let Verdict::Push(verdict) = &outcome.verdict else { return Ok(None) };
        self.service.relay.metrics.pushed(&self.namespace, result_of(verdict), count);
        match verdict {
            PushVerdict::Bound { revision, .. } => {
                // Rows that no answer can carry come with the chunks, and `settled` says that the push is bound.
                if outcome.is_whole {
                    answer.pushed = Some(self.ack(push, *revision, &outcome));
                    let _ = self.acked_at.set(outcome.revision);
                }
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
