//! The members' rows, for nodes that follow `@members`.

use std::collections::BTreeMap;

use dormouse_proto::ids::{NodeId, Revision};

use super::message::MemberRow;

#[derive(Clone, Debug)]
struct Held {
    as_of: Revision,
    pull: u32,
    row: MemberRow,
}

/// Members by their ids. Who is gone stays for as long as an older row could still arrive.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldMembers {
    rows: BTreeMap<NodeId, Held>,
    pull: u32,
    restarted: bool,
}

impl HeldMembers {
    pub(super) fn iter(&self) -> impl Iterator<Item = &MemberRow> {
        self.rows.values().map(|held| &held.row).filter(|row| !row.gone)
    }

    pub(super) fn put(&mut self, as_of: Revision, rows: Vec<MemberRow>) {
        let pull = self.pull;
        for row in rows {
            let held = self.rows.entry(row.node).or_insert_with(|| Held {
                as_of,
                pull,
                row: row.clone(),
            });
            held.pull = pull;
            if as_of >= held.as_of {
                *held = Held { as_of, pull, row };
            }
        }
    }

    pub(super) fn restart(&mut self) {
        self.pull += 1;
        self.restarted = true;
    }

    pub(super) fn lose_history(&mut self) {
        for held in self.rows.values_mut() {
            held.as_of = Revision::ZERO;
        }
    }

    pub(super) fn reach(&mut self, at: Revision) {
        let (pull, restarted) = (self.pull, std::mem::take(&mut self.restarted));
        self.rows.retain(|_, held| {
            let undelivered = restarted && held.pull != pull;
            held.as_of > at || !(held.row.gone || undelivered)
        });
    }
}
