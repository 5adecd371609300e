//! The Operations service: the whole state, as the bytes of a file.
//!
//! The copy is made at once and handed out as fast as the reader takes it, like every other stream: two messages wait, a
//! reader that takes nothing for too long is cut off, and what was handed out is let go of.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use dormouse_proto::{
    backup::{BackupHeader, PIECE_BYTES, Writer},
    wire::{log_v1::SnapshotName, services::operations_server::Operations, v1},
};
use tokio::sync::OwnedSemaphorePermit;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use tracing::info;

use super::{
    Service, caller,
    stream::{self, Ended, Outlet},
};
use crate::{access::Caller, clock::Clock, error::RelayError, sequencer::Copied};

type Messages = Pin<Box<dyn Stream<Item = Result<v1::BackupResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Operations for Service {
    type BackupStream = Messages;

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let caller = caller(request.extensions()).map_err(|error| self.refused(error))?;
        Ok(Response::new(self.back_up(&caller).map_err(|error| self.refused(error))?))
    }
}

impl Service {
    fn back_up(&self, caller: &Caller) -> Result<Messages, RelayError> {
        if !caller.admits_all() {
            return Err(RelayError::NotOfAll { own: caller.own() });
        }
        let one = Arc::clone(&self.backups).try_acquire_owned().map_err(|_| RelayError::Busy("backups"))?;
        let (mut outlet, messages) = stream::open(&self.relay, self.standing(caller))?;
        let service = self.clone();
        tokio::spawn(async move {
            match service.hand_out(one, &mut outlet).await {
                Ok(()) => {}
                Err(Ended::Refused(error)) => outlet.end(service.refused(error).into()),
                // The reader has gone, or the relay stops: then it must not take a part for the whole.
                Err(Ended::Silently) => outlet.end(RelayError::Stopping.into()),
            }
        });
        Ok(Box::pin(messages))
    }

    async fn hand_out(
        &self,
        _one: OwnedSemaphorePermit,
        outlet: &mut Outlet<v1::BackupResponse>,
    ) -> Result<(), Ended> {
        let copied = self.relay.sequencer.copy().await.ok_or(RelayError::Starting)?;
        let bytes: usize = copied.pieces.iter().map(Bytes::len).sum();
        info!(revision = %copied.revision, bytes, "a backup is being taken");
        let (mut writer, first) = Writer::new(&self.header(&copied));
        outlet.deliver(message(first)).await?;
        for mut piece in copied.pieces {
            while !piece.is_empty() {
                let some = piece.split_to(piece.len().min(PIECE_BYTES));
                outlet.deliver(message(writer.piece(&some))).await?;
            }
        }
        outlet.deliver(message(writer.end())).await
    }

    fn header(&self, copied: &Copied) -> BackupHeader {
        let Copied { last, revision, hash, pieces, counts } = copied;
        let facts = self.relay.sequencer.log();
        let of_one = |piece: &Bytes| piece.len().div_ceil(PIECE_BYTES) as u64;
        BackupHeader {
            log_id: facts.id.0.to_be_bytes().to_vec().into(),
            broker: facts.kind.to_owned(),
            relay_version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: revision.0,
            last: Some(SnapshotName {
                position: last.position.0,
                session: last.record_id.session,
                counter: last.record_id.counter,
                crc: last.crc,
            }),
            taken_at_ms: Clock::wall_ms(),
            namespaces: counts.namespaces,
            rows: counts.rows,
            members: counts.members,
            pieces: pieces.iter().map(of_one).sum(),
            bytes: pieces.iter().map(|piece| piece.len() as u64).sum(),
            hash: hash.0.to_be_bytes().to_vec().into(),
        }
    }
}

fn message(data: Vec<u8>) -> v1::BackupResponse {
    v1::BackupResponse { data: data.into() }
}
