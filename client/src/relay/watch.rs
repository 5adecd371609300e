//! Streams, for long-lived readers. A function must hold none: a frozen reader fills its window and learns nothing.

use dormouse_proto::wire::v1;
use tonic::Streaming;

use super::{FloorEvent, MemberEvent};
use crate::{error::Reason, replica::message::Chunk};

/// Changes of collections. Ends with the connection; [`Relay::watch`](super::Relay::watch) with the newest token goes
/// on from there.
#[derive(Debug)]
pub struct Watch {
    stream: Streaming<v1::WatchResponse>,
    token: Vec<u8>,
}

impl Watch {
    pub(super) fn new(stream: Streaming<v1::WatchResponse>) -> Self {
        Self { stream, token: Vec::new() }
    }

    /// The next chunk; `None`: the relay has ended the stream. A chunk without rows comes every 15 s.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn next(&mut self) -> Result<Option<Chunk>, Reason> {
        while let Some(message) = self.stream.message().await? {
            if let Some(chunk) = message.chunk {
                let chunk = crate::convert::chunk(chunk);
                self.token.clone_from(&chunk.token);
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }

    /// Of the newest chunk received.
    pub fn token(&self) -> &[u8] {
        &self.token
    }
}

/// Changes of the membership. Ends with the connection.
#[derive(Debug)]
pub struct MemberWatch(pub(super) Streaming<v1::WatchMembersResponse>);

/// What changed up to one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberChanges {
    /// Per member its newest state. Empty every 15 s.
    pub events: Vec<MemberEvent>,
    /// Floors of the namespace that were passed meanwhile; at first, those that are below.
    pub floors: Vec<FloorEvent>,
    /// To be named when watching again.
    pub revision: u64,
    /// Everybody who was there at the beginning has been named.
    pub caught_up: bool,
    /// Everybody is named again; at `caught_up`, who was not is gone.
    pub restart: bool,
}

impl MemberWatch {
    /// The next changes; `None`: the relay has ended the stream.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn next(&mut self) -> Result<Option<MemberChanges>, Reason> {
        let Some(message) = self.0.message().await? else {
            return Ok(None);
        };
        Ok(Some(MemberChanges {
            events: message.events.into_iter().filter_map(MemberEvent::from_wire).collect(),
            floors: message.floors.into_iter().map(FloorEvent::from_wire).collect(),
            revision: message.revision,
            caught_up: message.caught_up,
            restart: message.restart,
        }))
    }
}
