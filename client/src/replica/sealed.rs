//! The one push under way. Number, id and deltas never change, so any copy of it, sent through any relay at any time,
//! binds once.

use dormouse_proto::{
    ids::{PushId, PushNo, Revision},
    lattice::Delta,
};

use super::outbox::{Saying, Sayings};

/// The push under way.
#[derive(Clone, Debug)]
pub struct SealedPush {
    push_no: PushNo,
    push_id: PushId,
    deltas: Vec<Delta>,
    /// The same, as it was said: what its deltas are made from, in the same order.
    pub(super) said: Sayings,
    /// How often it has been sent.
    pub(super) sent: u32,
    /// Where it was bound, once an answer has said so.
    pub(super) bound: Option<Revision>,
    /// It was refused, and what exactly was wrong is not known yet: it is shown no more, and sent again for the details.
    pub(super) void: bool,
}

impl SealedPush {
    /// Seals what was said, contexts taken; `None`: nothing was.
    pub(super) fn new(push_no: PushNo, push_id: PushId, said: Vec<Saying>) -> Option<Self> {
        let (said, deltas): (Vec<_>, Vec<_>) = said
            .into_iter()
            .filter_map(|saying| {
                let delta = delta_of(&saying)?;
                Some((saying, delta))
            })
            .unzip();
        (!deltas.is_empty()).then(|| Self {
            push_no,
            push_id,
            deltas,
            said: Sayings::from_list(said),
            sent: 0,
            bound: None,
            void: false,
        })
    }

    /// Its number.
    pub const fn push_no(&self) -> PushNo {
        self.push_no
    }

    /// Drawn when it was sealed.
    pub const fn push_id(&self) -> PushId {
        self.push_id
    }

    /// Its deltas, at most one per collection, key and type.
    pub fn deltas(&self) -> &[Delta] {
        &self.deltas
    }

    /// How often it has been sent.
    pub const fn transmissions(&self) -> u32 {
        self.sent
    }
}

/// What was said, as a delta; `None`: nothing to say.
pub(super) fn delta_of(saying: &Saying) -> Option<Delta> {
    let change = super::intent::change_of(&saying.intent)?;
    Some(Delta {
        collection: saying.path.collection.clone(),
        key: saying.path.key.clone(),
        change,
    })
}
