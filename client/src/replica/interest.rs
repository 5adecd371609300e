//! Following and giving up at any time, while requests and answers are under way.
//!
//! A token says how far the node is in each collection that was asked for when it was made. So a collection that was given
//! up has a place in it until an answer has come to a request that did not name it; whoever followed it again before that
//! would go on from there, and never get back the rows that were dropped. And a relay that sees a collection for the first
//! time skips rows that were dead by then, unless it is told how old the rows are that are held already.

use std::collections::{BTreeMap, BTreeSet};

use dormouse_proto::ids::{Collection, Revision};

use super::{
    Follow, Replica, WriteError,
    intent::{Intent, each},
    message::KeyRows,
    outbox::Saying,
};

/// What was asked for, and what is still to be.
#[derive(Clone, Debug)]
pub(super) struct Interest {
    /// What the newest request asked for; `None` before the first.
    asked: Option<Follow>,
    /// It named acknowledged pushes, so its answer leaves rows out.
    asked_with_acked: bool,
    /// Given up, and perhaps still with a place in the token.
    left: BTreeSet<String>,
    /// To be followed as soon as nothing is left that it covers.
    deferred: Vec<String>,
    /// Followed, and the token does not know it yet; with the lowest revision at which a row of it is held.
    unbegun: BTreeMap<String, Option<Revision>>,
}

/// Whether one of two names stands for a collection of the other.
fn overlap(one: &str, other: &str) -> bool {
    let all_and_one = |all: &str, one: &str| all == Follow::ALL && one != Follow::MEMBERS;
    one == other || all_and_one(one, other) || all_and_one(other, one)
}

impl Interest {
    pub(super) fn new(follow: &Follow) -> Self {
        let mut this = Self {
            asked: None,
            asked_with_acked: false,
            left: BTreeSet::new(),
            deferred: Vec::new(),
            unbegun: BTreeMap::new(),
        };
        this.begin_all(follow);
        this
    }

    /// There is no token any more.
    pub(super) fn begin_all(&mut self, follow: &Follow) {
        self.unbegun = follow.names().iter().map(|name| (name.clone(), None)).collect();
        self.left.clear();
    }

    /// A request goes out.
    pub(super) fn ask(&mut self, follow: &Follow, with_acked: bool) {
        if self.asked.as_ref() != Some(follow) {
            self.asked = Some(follow.clone());
        }
        self.asked_with_acked = with_acked;
    }

    /// What the request asked for whose answer has come.
    pub(super) fn answered(&self, follow: &Follow) -> Follow {
        self.asked.as_ref().unwrap_or(follow).clone()
    }

    pub(super) const fn asked_with_acked(&self) -> bool {
        self.asked_with_acked
    }

    /// The token of an answer was taken.
    fn take_token(&mut self, answered: &Follow) {
        self.unbegun.retain(|name, _| !answered.lists(name));
        let is_asked = |name: &str| answered.lists(name) || (name != Follow::MEMBERS && answered.all());
        self.left.retain(|name| is_asked(name));
    }

    fn must_wait(&self, name: &str) -> bool {
        self.left.iter().any(|left| overlap(left, name))
    }

    /// Deferred names that need not wait any more.
    fn ready(&mut self) -> Vec<String> {
        let (wait, ready) =
            std::mem::take(&mut self.deferred).into_iter().partition(|name| self.must_wait(name));
        self.deferred = wait;
        ready
    }

    /// Everything that is to be followed has a place in the token.
    pub(super) fn is_complete(&self) -> bool {
        self.unbegun.is_empty() && self.deferred.is_empty()
    }

    /// The lowest revision at which a row of a collection is held that the token does not know.
    pub(super) fn held_since(&self) -> Option<Revision> {
        self.unbegun.values().flatten().min().copied()
    }

    /// Rows are held as of that revision.
    pub(super) fn hold(&mut self, as_of: Revision, keys: &[KeyRows]) {
        if self.unbegun.is_empty() {
            return;
        }
        for key in keys {
            // By its own name or as one of all, or both: the token may know neither.
            for name in [key.collection.as_str(), Follow::ALL] {
                if let Some(since) = self.unbegun.get_mut(name) {
                    *since = Some(since.map_or(as_of, |it| it.min(as_of)));
                }
            }
        }
    }
}

impl Replica {
    /// Follows a collection, `*` or `@members` from the next request on. What was fetched of it is forgotten. If it was
    /// given up a moment ago, it is not followed before a relay has heard of that.
    ///
    /// # Errors
    /// When the name breaks its rule, or 64 are followed already.
    pub fn follow(&mut self, name: &str) -> Result<(), WriteError> {
        let malformed = |rule: String| WriteError::Malformed { path: name.to_owned(), rule };
        if ![Follow::ALL, Follow::MEMBERS].contains(&name) {
            name.parse::<Collection>().map_err(|wrong| malformed(wrong.to_string()))?;
        }
        let deferred = &mut self.interest.deferred;
        if self.held.follow().lists(name) || deferred.iter().any(|it| it == name) {
            return Ok(());
        }
        if self.held.follow().names().len() + deferred.len() >= Follow::MAX {
            return Err(malformed(format!("at most {} collections are followed", Follow::MAX)));
        }
        if self.interest.must_wait(name) {
            self.interest.deferred.push(name.to_owned());
        } else {
            self.begin(name);
        }
        Ok(())
    }

    /// Contexts that were left open for an own push which is settled by now are taken, because the rows that they speak of
    /// are about to be forgotten: who has seen its own write must not be told from somebody who has seen nothing. Those of
    /// other collections stay open: what they speak of may be on its way in this very answer.
    fn take_open_contexts(&mut self, name: &str) {
        let Self { outbox, sealed, held, .. } = self;
        let follow = held.follow().clone();
        let is_forgotten =
            |collection: &str| name == collection || (name == Follow::ALL && !follow.lists(collection));
        let under_way = |saying: &Saying| {
            let mut said = sealed.iter().flat_map(|push| push.said.list());
            said.any(|it| it.path == saying.path && it.intent.kind() == saying.intent.kind())
        };
        outbox.change_each(|saying| {
            if is_forgotten(saying.path.collection.as_str()) && !under_way(saying) {
                each!(&mut saying.intent, it => it.resolve(&saying.path, held));
            }
        });
    }

    /// Follows a collection no longer, and drops its rows. Own writes that wait are pushed all the same. Returns whether
    /// it was followed by that name; while `*` is followed, a collection that has no name of its own cannot be given up.
    pub fn unfollow(&mut self, name: &str) -> bool {
        let deferred = self.interest.deferred.len();
        self.interest.deferred.retain(|it| it != name);
        if self.interest.deferred.len() < deferred {
            return true;
        }
        self.take_open_contexts(name);
        if !self.held.give_up(name) {
            return false;
        }
        if name == Follow::MEMBERS {
            self.members = super::HeldMembers::default();
        }
        let unbegun = self.interest.unbegun.remove(name);
        if let (Follow::ALL, Some(since)) = (name, unbegun) {
            // Followed by name while the token did not know `*` yet, so it may not know them either.
            for name in self.held.follow().named() {
                self.interest.unbegun.entry(name.to_owned()).or_insert(since);
            }
        }
        let still_covered = name != Follow::MEMBERS && self.held.follow().covers(name);
        let may_have_a_place = self.interest.asked.is_some() || !self.token.is_empty();
        if may_have_a_place && !still_covered {
            self.interest.left.insert(name.to_owned());
        }
        true
    }

    fn begin(&mut self, name: &str) {
        let was_covered = name != Follow::MEMBERS && self.held.follow().covers(name);
        self.take_open_contexts(name);
        self.held.begin(name);
        if !was_covered {
            self.interest.unbegun.insert(name.to_owned(), None);
            // Rows of it that came with an acknowledgement were not held, so they must not be left out.
            self.acked.clear();
        }
    }

    /// The token of an answer to a request that asked for `answered` was taken, or given up.
    pub(super) fn take_place(&mut self, answered: &Follow) {
        if self.token.is_empty() {
            self.interest.begin_all(self.held.follow());
        } else {
            self.interest.take_token(answered);
        }
        for name in self.interest.ready() {
            self.begin(&name);
        }
    }
}
