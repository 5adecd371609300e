//! What a reader asks for.

use super::{Violation, Violations, bounds};
use crate::{
    ids::{Collection, Revision},
    wire::v1,
};

/// Which collections a reader follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Follow {
    /// `*`: every collection but the members'.
    pub all: bool,
    /// `@members`.
    pub members: bool,
    /// By name.
    pub collections: Vec<Collection>,
}

impl Follow {
    /// The members' rows, as a collection.
    pub const MEMBERS: &'static str = "@members";
    /// Every collection but the members'.
    pub const ALL: &'static str = "*";

    /// Checks a list of collections.
    ///
    /// # Errors
    /// Names that break their rule; more than 64 of them.
    pub fn from_names(names: Vec<String>, field: &str) -> Result<Self, Violations> {
        if names.len() > bounds::COLLECTIONS {
            return Err(Violation::too_large(field, names.len(), bounds::COLLECTIONS, "collections").into());
        }
        let (mut follow, mut wrong) = (Self::default(), Violations::default());
        for (nth, name) in names.into_iter().enumerate() {
            match name.as_str() {
                Self::ALL => follow.all = true,
                Self::MEMBERS => follow.members = true,
                _ => follow.collections.extend(wrong.check(|| format!("{field}[{nth}]"), name.try_into())),
            }
        }
        wrong.into_result(Some(follow))
    }
}

/// What a reader asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullRequest {
    /// Of the newest chunk received; empty: from the beginning.
    pub token: Vec<u8>,
    /// Which collections.
    pub follow: Follow,
    /// Revisions of pushes whose acknowledgement arrived, in order.
    pub acked: Vec<Revision>,
    /// Without a token: the lowest `as_of` held.
    pub held_since: Option<Revision>,
    /// The bound of the answer.
    pub max_bytes: usize,
    /// Not before this revision.
    pub min_revision: Revision,
}

impl TryFrom<v1::Pull> for PullRequest {
    type Error = Violations;

    fn try_from(pull: v1::Pull) -> Result<Self, Violations> {
        let v1::Pull { token, collections, mut acked, held_since, max_bytes, min_revision } = pull;
        if acked.len() > bounds::ACKED {
            return Err(Violation::too_large("pull.acked", acked.len(), bounds::ACKED, "revisions").into());
        }
        acked.sort_unstable();
        let max_bytes = match max_bytes {
            0 => bounds::CHUNK_DEFAULT,
            wanted => wanted.clamp(bounds::CHUNK_MIN, bounds::CHUNK_MAX),
        };
        Ok(Self {
            token: token.into(),
            follow: Follow::from_names(collections, "pull.collections")?,
            acked: acked.into_iter().map(Revision).collect(),
            held_since: (held_since > 0).then_some(Revision(held_since)),
            max_bytes: max_bytes as usize,
            min_revision: Revision(min_revision),
        })
    }
}
