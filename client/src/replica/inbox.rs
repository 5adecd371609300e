//! Messages to this node alone: delivered in order, each once, whatever is delivered again.
//!
//! A relay sends a message until the node pulls with a token that is newer. What is newer than the newest message that was
//! delivered is new; but when the log has lost its tail, or the node's history is another, revisions do not say so any more.
//! Hence the names of the newest messages are kept as well.

use std::collections::{HashSet, VecDeque};

use dormouse_proto::ids::Revision;

use super::{Replica, message::InboxRow};

/// Names that are kept.
const IDS_MAX: usize = 1_024;

/// What was delivered, and what is to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Inbox {
    delivered: Revision,
    ids: HashSet<String>,
    /// The same, oldest first.
    order: VecDeque<String>,
    arrived: Vec<InboxRow>,
}

impl Inbox {
    pub(super) fn put(&mut self, messages: Vec<InboxRow>) {
        for message in messages {
            if message.revision <= self.delivered || !self.ids.insert(message.message_id.clone()) {
                continue;
            }
            self.order.push_back(message.message_id.clone());
            if self.order.len() > IDS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.ids.remove(&oldest);
            }
            self.delivered = message.revision;
            self.arrived.push(message);
        }
    }

    /// Revisions of another history say nothing of this one's.
    pub(super) fn lose_history(&mut self) {
        self.delivered = Revision::ZERO;
    }
}

impl Replica {
    /// Messages that have arrived since this was called last, in the order in which the log accepted them.
    pub fn take_inbox(&mut self) -> Vec<InboxRow> {
        std::mem::take(&mut self.inbox.arrived)
    }
}
