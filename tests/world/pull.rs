//! The pull of a Sync call, as `relay/src/grpc/sync/mod.rs` answers it.

use dormouse_proto::{
    convert::PullRequest,
    ids::{NodeId, Revision},
    record::{Digest, Received, Record},
    wire::v1::{self, sync_response as response},
};
use dormouse_relay::state::{Lost, Pull, Token};

use crate::{
    LOG,
    answer::{refusal, settled, wire_chunk},
    namespace,
    sync::{Admitted, Call, NoAnswer},
};

impl Call<'_> {
    pub(crate) fn pull(
        &mut self,
        admitted: &Admitted,
        answer: &mut v1::SyncResponse,
    ) -> Result<(), NoAnswer> {
        if let Some(pull) = self.request.pull.clone() {
            let request = PullRequest::try_from(pull).expect("the replica asks only for what is acceptable");
            let log_is_read = self.reach_head()?;
            let received = self.received(admitted.node, &request);
            let fold = &self.world.relays[self.relay].machine.fold;
            let pull = Pull {
                token: (!request.token.is_empty()).then(|| Token::decode(&request.token)),
                all: request.follow.all,
                collections: &request.follow.collections,
                members: request.follow.members,
                node: Some(admitted.node),
                acked: &request.acked,
                held_since: request.held_since,
                head: Revision(self.request.head),
                max_bytes: self.request.max_bytes,
                log_is_read,
            };
            let chunk = fold.pull(LOG, namespace(self.request.space), &pull);
            let is_lost = chunk.as_ref().is_ok_and(|chunk| chunk.restart == Some(Lost::History));
            let received = received.filter(|_| chunk.is_ok() && !is_lost);
            answer.pull_result = Some(if let Ok(chunk) = chunk {
                response::PullResult::Chunk(wire_chunk(chunk))
            } else {
                self.world.stats.behind += 1;
                response::PullResult::PullRefused(refusal("BEHIND", &[]))
            });
            self.settled(admitted, answer);
            if let Some(received) = received {
                self.take_note_of_receipt(received)?;
            }
            return Ok(());
        }
        self.settled(admitted, answer);
        Ok(())
    }

    /// The fate of the last push, from the same view as the chunk.
    fn settled(&self, admitted: &Admitted, answer: &mut v1::SyncResponse) {
        let fold = &self.world.relays[self.relay].machine.fold;
        let chunk = matches!(answer.pull_result, Some(response::PullResult::Chunk(_)));
        if !chunk && !fold.is_valid(Revision(self.request.head)) {
            return;
        }
        let Some(view) = fold.namespace(namespace(self.request.space)) else { return };
        let last = view.member(admitted.node).map(|it| &it.last);
        let last = last.or_else(|| view.tombstone(admitted.node).map(|it| &it.last));
        answer.settled = last.and_then(settled);
    }

    /// Messages up to the token that the node sends have arrived there, and need not wait any more.
    fn received(&self, node: NodeId, request: &PullRequest) -> Option<Received> {
        let fold = &self.world.relays[self.relay].machine.fold;
        let name = namespace(self.request.space);
        let upto = Token::received(&request.token, LOG, name)?;
        let waits = fold.namespace(name).is_some_and(|view| view.has_mail_upto(node, upto));
        (waits && fold.is_valid(upto)).then(|| Received { namespace: name.clone(), node, upto })
    }

    /// Nobody waits for that record: if it is lost, the next pull says the same.
    fn take_note_of_receipt(&mut self, received: Received) -> Result<(), NoAnswer> {
        if self.world.relays[self.relay].connected && !self.world.chance(0.1) {
            self.write(Record::Received(received))?;
        }
        Ok(())
    }

    /// A record that is appended now and applied proves that the log holds nothing more.
    fn reach_head(&mut self) -> Result<bool, NoAnswer> {
        if self.revision() >= self.request.head || !self.world.relays[self.relay].connected {
            return Ok(false);
        }
        self.write(Record::Digest(Digest::default()))?;
        Ok(true)
    }
}
