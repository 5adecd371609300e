//! A message to one node.

use super::{Violation, Violations, bounds, push::optional_namespace, value_from_wire};
use crate::{
    ids::{Namespace, NodeId, OnceId},
    lattice::Value,
    wire::v1,
};

/// A message to one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Mail {
    /// Where the node is a member; `None`: the token's own, or `default` without tokens.
    pub namespace: Option<Namespace>,
    /// To whom.
    pub node: NodeId,
    /// Delivered once, whoever repeats it.
    pub message_id: OnceId,
    /// In the sender's own words.
    pub sender: String,
    /// What it says.
    pub payload: Value,
    /// How long it waits to be received, in log time.
    pub ttl_ms: u64,
}

impl TryFrom<v1::SendRequest> for Mail {
    type Error = Violations;

    fn try_from(request: v1::SendRequest) -> Result<Self, Violations> {
        let v1::SendRequest { namespace, node_id, message_id, payload, ttl_ms, sender } = request;
        let mut wrong = Violations::default();
        let namespace = optional_namespace(namespace, &mut wrong);
        let node = wrong.check(|| "node_id".to_owned(), node_id.parse());
        let message_id = wrong.check(|| "message_id".to_owned(), message_id.try_into());
        let payload = match payload.map(|it| value_from_wire(it, || "payload".to_owned())) {
            Some(Ok(payload)) => Some(payload),
            Some(Err(violation)) => {
                wrong.add(violation);
                None
            }
            None => {
                wrong.add(Violation::new("payload", "required"));
                None
            }
        };
        let bytes = payload.as_ref().map_or(0, Value::len);
        if bytes > bounds::MAIL_BYTES {
            wrong.add(Violation::too_large("payload", bytes, bounds::MAIL_BYTES, "bytes"));
        }
        if sender.len() > bounds::SENDER_BYTES || sender.chars().any(char::is_control) {
            wrong.add(Violation::new("sender", "at most 64 bytes without control characters"));
        }
        let ttl_ms = match u64::from(ttl_ms) {
            0 => bounds::MAIL_TTL_MS,
            ttl if ttl > bounds::MAIL_TTL_MAX_MS => {
                wrong.add(Violation::new("ttl_ms", "at most seven days: 604,800,000"));
                ttl
            }
            ttl => ttl,
        };
        let parts = (namespace, node, message_id, payload);
        let (Some(namespace), Some(node), Some(message_id), Some(payload)) = parts else { return Err(wrong) };
        wrong.into_result(Some(Self { namespace, node, message_id, sender, payload, ttl_ms }))
    }
}
