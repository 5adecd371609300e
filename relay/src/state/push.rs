//! Deltas on their way into the rows: all checks before anything is touched, then all of them at one revision.

mod bind;
mod check;
mod quota;

use dormouse_proto::{
    ids::{Incarnation, NodeId, Revision},
    record::{Push, Write},
    traps::{Trap, Traps},
};

use self::{bind::bind, check::check};
use super::{
    members::{LastPush, Refused},
    namespace::NamespaceState,
    once::OnceKey,
    policy::Limits,
    segments::Segments,
};

/// What became of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushVerdict {
    /// It took effect, now or, if it is a duplicate, then.
    Bound {
        /// The revision that it was bound at.
        revision: Revision,
        /// It was bound before; nothing has changed now.
        duplicate: bool,
    },
    /// It took no effect and never will; its number is used up.
    Refused(Refused),
    /// The same number with another id: another process holds this node's identity.
    Fork,
    /// A newer push of this node was accepted before: a clone's, or a late copy that nobody waits for.
    Old,
    /// No such member in that incarnation; nothing is remembered.
    Unknown,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteVerdict {
    /// It took effect, now or then.
    Bound {
        /// The revision that it was bound at.
        revision: Revision,
        /// It was bound before; nothing has changed now.
        duplicate: bool,
    },
    /// It took no effect, and a retry with the same id never will.
    Refused(Refused),
}

/// What checking and binding need beside the namespace.
pub(super) struct Context<'a> {
    pub(super) at: Revision,
    pub(super) segments: &'a Segments,
    pub(super) limits: &'a Limits,
    pub(super) log_time_ms: u64,
    pub(super) stamp_ms: u64,
    /// Whose deltas they are; `None`: a caller that is no node.
    pub(super) author: Option<(NodeId, Incarnation)>,
    pub(super) traps: Traps,
}

/// A node's push, at the revision that its record took.
pub(super) fn push(
    namespace: &mut NamespaceState,
    push: &Push,
    context: &Context<'_>,
    session: u64,
) -> PushVerdict {
    let known = namespace.members.get_mut(push.node).filter(|member| member.incarnation == push.incarnation);
    let Some(member) = known else { return PushVerdict::Unknown };
    if let Some(contact) = push.contact {
        member.hear(contact, session, context.log_time_ms);
    }
    if push.push_no == member.last.push_no {
        let same = push.push_id == member.last.push_id || context.traps.has(Trap::NoClone);
        return if same { repeated(&member.last) } else { PushVerdict::Fork };
    }
    if push.push_no < member.last.push_no {
        return PushVerdict::Old;
    }
    let mut last =
        LastPush { push_no: push.push_no, push_id: push.push_id, refused: None, revision: context.at };
    let verdict = match check(namespace, &push.deltas, context) {
        Ok(()) => PushVerdict::Bound { revision: context.at, duplicate: false },
        Err(refused) => {
            // The number is used up: a late copy must not bind what the node was told is refused.
            last.refused = Some(refused.clone());
            last.revision = Revision::ZERO;
            PushVerdict::Refused(refused)
        }
    };
    let forgotten = last.refused.is_some() && context.traps.has(Trap::VoidFree);
    if let Some(member) = namespace.members.get_mut(push.node).filter(|_| !forgotten) {
        member.last = last;
    }
    if matches!(verdict, PushVerdict::Bound { .. }) {
        bind(namespace, &push.deltas, context);
    }
    verdict
}

fn repeated(last: &LastPush) -> PushVerdict {
    match &last.refused {
        None => PushVerdict::Bound { revision: last.revision, duplicate: true },
        Some(refused) => PushVerdict::Refused(refused.clone()),
    }
}

/// A write of a caller that is no node, at the revision that its record took.
pub(super) fn write(namespace: &mut NamespaceState, write: &Write, context: &Context<'_>) -> WriteVerdict {
    let key = OnceKey::of_write(write.request_id.as_str());
    match namespace.once.get(key) {
        Some(Ok(revision)) => {
            return WriteVerdict::Bound { revision, duplicate: true };
        }
        Some(Err(reason)) => {
            return WriteVerdict::Refused(Refused { reason, deltas: Vec::new() });
        }
        None => {}
    }
    let checked = check(namespace, &write.deltas, context);
    let outcome = checked.as_ref().map(|()| context.at).map_err(|refused| refused.reason);
    namespace.once.insert(key, outcome, context.log_time_ms, context.limits);
    match checked {
        Ok(()) => {
            bind(namespace, &write.deltas, context);
            WriteVerdict::Bound { revision: context.at, duplicate: false }
        }
        Err(refused) => WriteVerdict::Refused(refused),
    }
}
