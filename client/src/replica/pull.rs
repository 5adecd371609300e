//! The way down: chunks, and pulls that start over.

use dormouse_proto::{ids::Revision, lattice::Change};

use super::{
    Follow, Path, Replica,
    intent::{Intent, each},
    message::{Chunk, KeyRows, MemberRow, Restart},
};

/// How far a pull has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The view is exactly the state at the chunk's revision.
    pub caught_up: bool,
    /// An upper bound of what is left.
    pub rows_left: u64,
}

impl Replica {
    /// Takes in a piece of backlog. What [`absorb_settled`](Self::absorb_settled) says of the same answer comes first.
    pub fn absorb_chunk(&mut self, chunk: Chunk) -> Progress {
        let behind = Progress { caught_up: false, rows_left: chunk.rows_left };
        let answered = self.interest.answered(self.held.follow());
        if let Some(restart) = chunk.restart {
            self.restart(restart, &chunk.restarted, chunk.as_of);
            // Rows were left out because their acknowledgement had arrived; but that they arrived before the restart
            // says nothing of what this pull must deliver. So nothing else of it is taken, and the next request, with
            // the same token and nothing acknowledged, starts over completely.
            if self.interest.asked_with_acked() || !self.acked.is_empty() {
                self.acked.clear();
                // A relay that has not come so far yet has collected nothing and would go on with the old pull.
                self.head = self.head.max(chunk.as_of);
                if restart == Restart::Lost {
                    // Its revisions are of the lost history, and the head that vouched for them is not any more: a
                    // relay that has not come so far yet would wait for them for ever.
                    self.token.clear();
                    self.take_place(&answered);
                }
                return behind;
            }
        }
        self.take_in(chunk, &answered)
    }

    /// Takes in the rows of a chunk, and what it says of the whole.
    fn take_in(&mut self, chunk: Chunk, answered: &Follow) -> Progress {
        self.token = chunk.token;
        self.take_place(answered);
        self.head = self.head.max(chunk.as_of);
        self.hold_backlog(chunk.as_of, chunk.keys);
        if self.held.follow().members() {
            self.members.put(chunk.as_of, chunk.members);
        }
        self.inbox.put(chunk.inbox);
        if chunk.caught_up {
            self.held.reach_all(answered, chunk.as_of);
            self.acked.retain(|revision| *revision > chunk.as_of);
        } else {
            self.held.reach(&chunk.caught_up_in, answered, chunk.as_of);
        }
        let named = || chunk.caught_up_in.iter().any(|name| name == Follow::MEMBERS);
        if answered.members() && (chunk.caught_up || named()) {
            self.members.reach(chunk.as_of);
        }
        self.settle_what_arrived(chunk.as_of);
        Progress { caught_up: chunk.caught_up && self.interest.is_complete(), rows_left: chunk.rows_left }
    }

    fn restart(&mut self, restart: Restart, names: &[String], answered_at: Revision) {
        let names = if restart == Restart::Compacted { names } else { &[] };
        self.held.restart(names);
        if names.is_empty() || names.iter().any(|name| name == Follow::MEMBERS) {
            self.members.restart();
        }
        if restart == Restart::Lost {
            self.lose_history(answered_at);
        }
    }

    /// What is held may come from a history that the log has lost. It is still shown, but it is no context any more.
    fn lose_history(&mut self, answered_at: Revision) {
        self.head = answered_at;
        self.held.lose_history();
        self.members.lose_history();
        self.inbox.lose_history();
        if let Some(push) = &mut self.sealed {
            push.bound = None;
            push.void = false;
        }
        let mut dropped: Vec<(Path, Option<Change>)> = Vec::new();
        self.outbox.change_each(|saying| {
            let change = each!(&mut saying.intent, it => it.without_history());
            dropped.push((saying.path.clone(), change));
        });
        for (path, change) in dropped {
            self.report_dropped(&path, change, "LOST");
        }
        // What was held up may have been held up in the lost history alone.
        self.hold_up_again();
    }

    /// Takes in keys that were read on their own, each of them as a whole.
    pub fn absorb_read(&mut self, as_of: Revision, paths: &[Path], keys: Vec<KeyRows>) {
        for path in paths {
            self.held.fetched(path);
        }
        self.hold(as_of, keys);
        self.head = self.head.max(as_of);
    }

    /// Holds rows that came beside the backlog. Of collections that the token does not know yet the relay must learn how
    /// old the oldest of them is.
    pub(super) fn hold(&mut self, as_of: Revision, keys: Vec<KeyRows>) {
        self.interest.hold(as_of, &keys);
        self.held.put(as_of, false, keys);
        self.hold_up_what_was_taken();
    }

    fn hold_backlog(&mut self, as_of: Revision, keys: Vec<KeyRows>) {
        self.held.put(as_of, true, keys);
        self.hold_up_what_was_taken();
    }

    /// The members, in the order of their ids; `None`: `@members` is not followed.
    pub fn members(&self) -> Option<impl Iterator<Item = &MemberRow>> {
        self.held.follow().members().then(|| self.members.iter())
    }
}
