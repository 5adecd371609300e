//! Messages into the inbox of one node.

use std::time::Duration;

use dormouse_proto::{
    lattice::Value,
    wire::v1::{self, mailbox_client::MailboxClient},
};

use crate::{
    connection::{ANSWER_MAX, Attempt, Budget, Connection},
    error::Reason,
    outcome::Durability,
};

/// How a message is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// How long it waits to be received, in the log's time, at most seven days; `None`: a day.
    pub ttl: Option<Duration>,
    /// Who sends it, in its own words, at most 64 bytes. Nobody checks them.
    pub sender: Option<String>,
}

/// A message was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Where, now or, if its id was known, then.
    pub revision: u64,
    /// What the log promises.
    pub durability: Durability,
}

/// An id that is drawn; the same for every transmission of one call.
pub(crate) fn drawn_id() -> Result<String, Reason> {
    Ok(format!("{:016x}", getrandom::u64().map_err(|_| Reason::NoRandomness)?))
}

pub(crate) fn request(
    namespace: &str,
    node_id: &str,
    message_id: Option<&str>,
    payload: Value,
    options: SendOptions,
) -> Result<v1::SendRequest, Reason> {
    // Zero stands for the default on the wire; a time to live that is shorter than a millisecond is still one.
    let ttl_ms = |ttl: Duration| u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX).max(1);
    Ok(v1::SendRequest {
        namespace: namespace.to_owned(),
        node_id: node_id.to_owned(),
        message_id: message_id.map_or_else(drawn_id, |id| Ok(id.to_owned()))?,
        payload: Some(payload.into()),
        ttl_ms: options.ttl.map_or(0, ttl_ms),
        sender: options.sender.unwrap_or_default(),
    })
}

pub(crate) async fn send(
    connection: &Connection,
    budget: Budget,
    request: v1::SendRequest,
) -> Result<Sent, Reason> {
    let send = |channel, attempt: Attempt| {
        let request = attempt.request(request.clone());
        async move { MailboxClient::new(channel).max_decoding_message_size(ANSWER_MAX).send(request).await }
    };
    let sent = connection.call(budget, send).await?;
    Ok(Sent { revision: sent.revision, durability: Durability::from_wire(sent.durability) })
}
