//! Messages to this node, and to which invocations they are shown.

use dormouse_proto::lattice::Value;

use crate::replica::message::InboxRow;

/// A message to this node alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxMessage {
    /// Where it was accepted.
    pub revision: u64,
    /// Its sender's name for it.
    pub message_id: String,
    /// Who sent it, in its own words.
    pub sender: String,
    /// What it says, at most 64 KiB.
    pub payload: Value,
}

#[derive(Debug)]
struct Arrived {
    message: InboxMessage,
    /// The last invocation that sees it.
    until: u64,
    taken: bool,
}

/// Messages that running invocations can see, in the order in which the log accepted them.
#[derive(Debug, Default)]
pub(crate) struct Inbox(Vec<Arrived>);

impl Inbox {
    pub(crate) fn put(&mut self, messages: Vec<InboxRow>, until: u64) {
        self.0.extend(messages.into_iter().map(|InboxRow { revision, message_id, sender, payload }| {
            let message = InboxMessage { revision: revision.0, message_id, sender, payload };
            Arrived { message, until, taken: false }
        }));
    }

    /// Forgets what only invocations could see that have ended.
    pub(crate) fn forget_before(&mut self, first_running: u64) {
        self.0.retain(|it| it.until >= first_running);
    }

    pub(crate) fn list(&self) -> Vec<InboxMessage> {
        self.0.iter().map(|it| it.message.clone()).collect()
    }

    pub(crate) fn take(&mut self) -> Vec<InboxMessage> {
        let fresh = self.0.iter_mut().filter(|it| !it.taken);
        fresh
            .map(|it| {
                it.taken = true;
                it.message.clone()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use dormouse_proto::ids::Revision;

    use super::*;

    fn message(revision: u64) -> InboxRow {
        let message_id = revision.to_string();
        InboxRow {
            revision: Revision(revision),
            message_id,
            sender: String::new(),
            payload: Value::Text("{}".into()),
        }
    }

    #[test]
    fn a_message_is_taken_once_and_listed_to_the_end_of_the_invocation() {
        let mut inbox = Inbox::default();
        inbox.put(vec![message(3), message(4)], 1);
        assert_eq!(inbox.take().len(), 2);
        inbox.put(vec![message(5)], 1);
        assert_eq!(inbox.take().iter().map(|it| it.revision).collect::<Vec<_>>(), [5]);
        assert_eq!(inbox.list().len(), 3);
        inbox.forget_before(2);
        assert!(inbox.list().is_empty());
    }

    #[test]
    fn what_arrives_while_the_node_falls_asleep_is_for_the_next_invocation() {
        let mut inbox = Inbox::default();
        inbox.put(vec![message(3)], 2);
        inbox.forget_before(2);
        assert_eq!(inbox.take().len(), 1);
    }
}
