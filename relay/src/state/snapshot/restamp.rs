//! The whole state under other revisions: it is written and read back, and the numbers are exchanged on the way.

use std::collections::{BTreeMap, BTreeSet};

use dormouse_proto::{ids::Revision, wire::v1};
use prost::Message as _;

use super::{Restore, RestoreError};
use crate::state::{Fold, collection::EncodedValue};

/// Which revision a row has instead; those that are not in it stay.
#[derive(Clone, Debug, Default)]
pub(super) struct Restamping(BTreeMap<Revision, Revision>);

impl Restamping {
    pub(super) fn of(&self, at: Revision) -> Revision {
        self.0.get(&at).copied().unwrap_or(at)
    }

    /// An entry of a log of events carries its revision to its readers.
    pub(super) fn event(&self, event: EncodedValue, at: Revision) -> Result<EncodedValue, RestoreError> {
        let Some(instead) = self.0.get(&at) else { return Ok(event) };
        let event = v1::Event { revision: instead.0, ..v1::Event::decode(&*event)? };
        Ok(event.encode_to_vec().into_boxed_slice())
    }
}

impl Fold {
    /// The same state, in which rows, members and messages that changed after `safe` have the revisions after `start`: in
    /// the order of their old ones, and equal ones stay equal. Answers how many revisions that took.
    ///
    /// # Errors
    /// [`RestoreError`], if what was written could not be read back.
    pub(in crate::state) fn restamped(
        &self,
        safe: Revision,
        start: Revision,
    ) -> Result<(Self, usize), RestoreError> {
        let old = self.changes_after(safe);
        let given = old.len();
        let new = (1..).map(|nth| Revision(start.0 + nth));
        let mut restore = Restore::new();
        restore.restamping = Restamping(old.into_iter().zip(new).collect());
        let mut taken = Ok(());
        self.write_snapshot(|piece| {
            if taken.is_ok() {
                taken = restore.take(piece);
            }
        });
        taken?;
        Ok((restore.finish()?, given))
    }

    fn changes_after(&self, safe: Revision) -> BTreeSet<Revision> {
        let mut changes = BTreeSet::new();
        for namespace in &self.namespaces {
            for collection in namespace.collections() {
                changes.extend(collection.table().changed_after(safe).map(|(at, _, _)| at));
            }
            changes.extend(namespace.members.roster().changed_after(safe).map(|(at, _, _)| at));
            let inboxes = namespace.inboxes.in_order().into_values();
            changes.extend(inboxes.flatten().map(|mail| mail.revision).filter(|at| *at > safe));
        }
        changes
    }
}
