//! A Sync call, taken apart: who calls, what it says of its life, what it pushes, what it pulls.

use std::collections::BTreeMap;

use prost::Message as _;

use super::{PullRequest, Violation, Violations, bounds, deltas_from_wire};
use crate::{
    ids::{Beat, BootId, CallId, Group, Incarnation, Namespace, NodeId, PushId, PushNo, Revision},
    lattice::Delta,
    wire::v1,
};

/// A whole Sync call.
#[derive(Clone, Debug)]
pub struct SyncCall {
    /// Where the node is a member; `None`: the token's own, or `default` without tokens.
    pub namespace: Option<Namespace>,
    /// Who calls.
    pub identity: Identity,
    /// What it says of its life.
    pub intent: Intent,
    /// Raised at every transmission.
    pub beat: Beat,
    /// Tells a clone's call from a retry.
    pub call_id: CallId,
    /// The highest revision that the node was ever shown.
    pub head: Revision,
    /// What it pushes. A push that cannot be accepted costs neither the lease nor the backlog, so it is kept as refused.
    pub push: Option<Admissible<PushRequest>>,
    /// What it pulls; likewise.
    pub pull: Option<Admissible<PullRequest>>,
}

/// A part of a call that may be refused on its own.
pub type Admissible<T> = Result<T, Violations>;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whose process it is.
    pub boot_id: BootId,
    /// As the last lease said; `None` at first.
    pub node: Option<(NodeId, Incarnation)>,
    /// What it runs.
    pub group: Group,
    /// Free labels; sent at first and when a lease asks for them.
    pub tags: BTreeMap<String, String>,
}

/// What a node says of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Nothing: renew what is.
    Renew,
    /// It is inside an invocation.
    Awake {
        /// Time left of it; `None`: unknown.
        remaining_ms: Option<u32>,
        /// No second call follows, it sleeps afterwards.
        then_asleep: bool,
    },
    /// It sleeps from now on.
    Asleep {
        /// For about this long; `None`: unknown.
        expected_ms: Option<u32>,
    },
    /// It ends.
    Leaving,
}

/// What a node pushes.
#[derive(Clone, Debug, PartialEq)]
pub struct PushRequest {
    /// Rises over the node's whole life.
    pub push_no: PushNo,
    /// Drawn when the push was sealed.
    pub push_id: PushId,
    /// At most one per collection, key and type.
    pub deltas: Vec<Delta>,
    /// The node has sent it before.
    pub retried: bool,
    /// What it had on the wire: what it takes up while it waits.
    pub bytes: usize,
}

impl TryFrom<v1::SyncRequest> for SyncCall {
    type Error = Violations;

    fn try_from(request: v1::SyncRequest) -> Result<Self, Violations> {
        let v1::SyncRequest { namespace, node, push, pull, beat, call_id, head, next } = request;
        let mut wrong = Violations::default();
        let namespace = optional_namespace(namespace, &mut wrong);
        let identity = match node {
            Some(node) => identity(node, &mut wrong),
            None => {
                wrong.add(Violation::new("node", "required"));
                None
            }
        };
        let call_id = word(&call_id, "call_id", &mut wrong);
        let rest = (namespace, identity, call_id);
        let (namespace, identity, call_id) = match rest {
            (Some(namespace), Some(identity), Some(call_id)) if wrong.0.is_empty() => {
                (namespace, identity, call_id)
            }
            _ => return Err(wrong),
        };
        Ok(Self {
            namespace,
            identity,
            intent: intent(next),
            beat: Beat(beat),
            call_id: CallId(call_id),
            head: Revision(head),
            push: push.map(PushRequest::try_from),
            pull: pull.map(PullRequest::try_from),
        })
    }
}

#[expect(clippy::option_option, reason = "the outer one: wrong; the inner one: not named")]
pub(super) fn optional_namespace(name: String, wrong: &mut Violations) -> Option<Option<Namespace>> {
    if name.is_empty() {
        return Some(None);
    }
    wrong.check(|| "namespace".to_owned(), name.try_into()).map(Some)
}

fn identity(node: v1::NodeIdentity, wrong: &mut Violations) -> Option<Identity> {
    let v1::NodeIdentity { boot_id, node_id, incarnation, group, tags } = node;
    let boot_id = <[u8; 16]>::try_from(&*boot_id)
        .map_err(|_| {
            wrong.add(Violation::new("node.boot_id", format!("{} bytes, must be 16", boot_id.len())));
        })
        .ok();
    let node = if node_id.is_empty() {
        Some(None)
    } else {
        let id = wrong.check(|| "node.node_id".to_owned(), node_id.parse::<NodeId>());
        id.map(|id| Some((id, Incarnation(incarnation))))
    };
    if incarnation > bounds::INCARNATION {
        wrong.add(Violation::new("node.incarnation", "must be one that a Lease named"));
    }
    let group = wrong.check(|| "node.group".to_owned(), group.try_into());
    check_tags(&tags, wrong);
    Some(Identity { boot_id: BootId(boot_id?), node: node?, group: group?, tags })
}

fn check_tags(tags: &BTreeMap<String, String>, wrong: &mut Violations) {
    if tags.len() > bounds::TAGS {
        wrong.add(Violation::too_large("node.tags", tags.len(), bounds::TAGS, "tags"));
    }
    let bytes = tags.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > bounds::TAG_BYTES {
        wrong.add(Violation::too_large("node.tags", bytes, bounds::TAG_BYTES, "bytes"));
    }
    let named = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
    };
    for (name, value) in tags {
        if !named(name) || value.chars().any(char::is_control) {
            let rule = "a tag's name is of [A-Za-z0-9._/-], its value has no control characters";
            wrong.add(Violation::new(format!("node.tags[{name:?}]"), rule));
        }
    }
}

fn intent(next: Option<v1::sync_request::Next>) -> Intent {
    let known = |ms: u32| (ms > 0).then_some(ms);
    match next {
        None => Intent::Renew,
        Some(v1::sync_request::Next::Awake(v1::Awake { remaining_ms, then_asleep })) => {
            Intent::Awake { remaining_ms: known(remaining_ms), then_asleep }
        }
        Some(v1::sync_request::Next::Asleep(v1::Asleep { expected_ms })) => {
            Intent::Asleep { expected_ms: known(expected_ms) }
        }
        Some(v1::sync_request::Next::Leaving(v1::Leaving { reason: _ })) => Intent::Leaving,
    }
}

/// Eight random bytes; absent stands for zero, so that a client by hand need not draw any.
fn word(bytes: &[u8], field: &str, wrong: &mut Violations) -> Option<u64> {
    if bytes.is_empty() {
        return Some(0);
    }
    let word = bytes.try_into().map(u64::from_be_bytes);
    word.map_err(|_| wrong.add(Violation::new(field, format!("{} bytes, must be 8", bytes.len())))).ok()
}

impl TryFrom<v1::Push> for PushRequest {
    type Error = Violations;

    fn try_from(push: v1::Push) -> Result<Self, Violations> {
        let bytes = push.encoded_len();
        if bytes > bounds::PUSH_BYTES {
            return Err(Violation::too_large("push", bytes, bounds::PUSH_BYTES, "bytes").into());
        }
        let v1::Push { push_no, deltas, push_id, retried } = push;
        let mut wrong = Violations::default();
        if push_no == 0 {
            wrong.add(Violation::new("push.push_no", "must be above 0"));
        }
        let push_id = word(&push_id, "push.push_id", &mut wrong);
        let push_id = wrong.into_result(push_id)?;
        let deltas = deltas_from_wire(deltas, "push.deltas")?;
        Ok(Self { push_no: PushNo(push_no), push_id: PushId(push_id), deltas, retried, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The relay answers a node that it does not know with the next incarnation. Of the highest number there is none:
    /// a call that claimed it made the relay panic, or in a release wrap around to the incarnation before the first.
    #[test]
    fn an_incarnation_that_leaves_no_next_one_is_refused() {
        let claiming = |incarnation| {
            let node_id = NodeId(7).to_string();
            let node = v1::NodeIdentity {
                boot_id: vec![1; 16].into(),
                node_id,
                incarnation,
                group: "ads".into(),
                ..Default::default()
            };
            SyncCall::try_from(v1::SyncRequest { node: Some(node), ..Default::default() })
        };
        assert!(claiming(bounds::INCARNATION).is_ok());
        let refused = claiming(u64::MAX).expect_err("no relay ever named it");
        assert_eq!(refused.0[0].field, "node.incarnation");
    }
}
