//! One lease: what is known of one node's life, and what follows from a contact, from the log and from silence.
//!
//! Two beats are kept. `beat` is the newest contact that this relay knows of; `confirmed` the newest one that the
//! log has told. A long lease rests on the confirmed one (rule L3), and so does a Gone: evidence that is still on
//! its way to the log then makes that Gone void, instead of being overrun by it.

use dormouse_proto::ids::{Beat, CallId, Incarnation, Revision};

use super::{LeaseKey, LeaseSettings, Millis, Session, Timestamp, UndeclaredFreeze, group::Standing};

/// When to ask again about a node whose end may not be proposed now.
const RECHECK: Millis = Millis::from_secs(1);
/// A Gone whose verdict has not come back by then is proposed again. Harmless: a second one is void.
const VERDICT_TIMEOUT: Millis = Millis::from_secs(30);
/// The guard against mass loss must have seen a whole tick before anybody's end is proposed for its silence.
const GRACE: Millis = Millis(100);
/// Stands for "not known": call ids are drawn at random.
const NO_CALL: CallId = CallId(0);

/// What a node says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Inside an invocation.
    Awake {
        /// What is left of the invocation, if the node knows.
        remaining: Option<Millis>,
        /// No second call follows. It counts as AWAKE until the remaining time (one awake lease if that is not
        /// known) is over, and as ASLEEP afterwards; one lease covers both.
        then_asleep: bool,
    },
    /// About to be frozen.
    Asleep,
}

/// A request that arrived at this relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The incarnation that the node believes to be.
    pub incarnation: Incarnation,
    /// Raised at every transmission.
    pub beat: Beat,
    /// Drawn for every call.
    pub call_id: CallId,
    /// What the node says of itself.
    pub activity: Activity,
    /// The highest revision that it was ever shown.
    pub head: Revision,
}

/// A contact as the log tells it (rule M4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The incarnation that was in contact.
    pub incarnation: Incarnation,
    /// Of the contact.
    pub beat: Beat,
    /// What the node said of itself.
    pub activity: Activity,
    /// The lease that it was, or is now, promised.
    pub ttl: Millis,
}

/// What a contact earned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Newer than all that was known.
    Granted {
        /// What may be promised at once: never above the awake lease.
        ttl: Millis,
        /// What may be promised, and is to be written into the evidence, once the log has told it.
        ttl_applied: Millis,
        /// What the node was taken for before; SUSPECT: it thawed in time.
        was: LeaseState,
    },
    /// A repeated or overtaken transmission. Nothing changed.
    NotNewer {
        /// What is left of the lease.
        left: Millis,
    },
    /// The same transmission number from another call: a clone of the process. Nothing changed.
    Forked,
    /// Of another incarnation than the one that lives. Nothing changed.
    OtherIncarnation {
        /// The one that lives.
        current: Incarnation,
    },
    /// A Gone of this node is under way: ask again when its verdict is known (rule L7). Nothing changed.
    Ending,
    /// No such member.
    Unknown,
}

/// What a member is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// Inside an invocation.
    Awake,
    /// Frozen, and said so.
    Asleep,
    /// Its lease ran out; its mailbox is kept.
    Suspect,
}

/// What silence has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The lease ran out just now.
    Suspect {
        /// Whose.
        key: LeaseKey,
        /// Of the silent one.
        incarnation: Incarnation,
        /// The newest that the log has told.
        beat: Beat,
    },
    /// A Gone is to be proposed. Said once, until its verdict or a time-out.
    Gone {
        /// Whose.
        key: LeaseKey,
        /// Of the silent one.
        incarnation: Incarnation,
        /// The newest that the log has told, so that any newer evidence makes the Gone void.
        beat: Beat,
    },
}

/// A lease as it is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeaseView {
    /// What the node is taken for.
    pub state: LeaseState,
    /// The living incarnation.
    pub incarnation: Incarnation,
    /// The newest contact known.
    pub beat: Beat,
    /// What is left of the lease; nothing when SUSPECT.
    pub left: Millis,
    /// Virtual time since the newest contact.
    pub silent: Millis,
    /// The session whose evidence was applied last.
    pub holder: Session,
    /// How likely it lives, 0 to 1.
    pub p_alive: f64,
    /// How long it has been asleep, if that is what it is taken for, or was before it became SUSPECT.
    pub asleep_for: Option<Millis>,
    /// The highest revision that it had been shown, as it said when it was last heard here.
    pub head: Revision,
}

/// How far its end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nobody thinks of it.
    Far,
    /// The other relays are asked whether they have heard of it since that beat, before a Gone is proposed.
    Asked(Beat),
    /// A Gone that names that beat is under way.
    Proposed(Beat),
}

#[derive(Debug)]
pub(super) struct Lease {
    pub(super) incarnation: Incarnation,
    beat: Beat,
    confirmed: Beat,
    /// What the newest contact earns once the log has told of it: settings may be others when a copy of it arrives.
    earned: Millis,
    call_id: CallId,
    holder: Session,
    heard: Timestamp,
    /// When AWAKE becomes ASLEEP without a further call.
    turns: Timestamp,
    /// The lease's end; of a SUSPECT one the next time to think about its end.
    deadline: Timestamp,
    pub(super) state: LeaseState,
    end: End,
    /// A relay asks, or may have asked, whether anybody has heard of it, and a Gone may come whenever the log takes it:
    /// what is promised from here on, the log must tell first. Until it has told of a newer contact, which makes that Gone
    /// void.
    pub(super) doubted: bool,
    /// When it fell asleep; [`Timestamp::NEVER`]: it is not asleep, and nothing says that it may be.
    asleep_since: Timestamp,
    /// Whether that is when it did, and not when this relay first heard of a sleep.
    is_measured: bool,
    head: Revision,
}

impl Lease {
    /// A lease that the log tells of for the first time.
    pub(super) fn told(now: Timestamp, evidence: &Evidence, by: Session, settings: &LeaseSettings) -> Self {
        let mut lease = Self {
            incarnation: evidence.incarnation,
            beat: evidence.beat,
            confirmed: evidence.beat,
            earned: evidence.ttl,
            call_id: NO_CALL,
            holder: by,
            heard: now,
            turns: Timestamp::NEVER,
            deadline: now,
            state: LeaseState::Awake,
            end: End::Far,
            doubted: false,
            asleep_since: Timestamp::NEVER,
            is_measured: true,
            head: Revision::ZERO,
        };
        lease.take(evidence.activity, evidence.ttl, settings);
        lease
    }

    /// The log tells of a sleep that began before this relay listened.
    pub(super) fn began_unseen(&mut self) {
        self.is_measured = false;
    }

    /// What its group learns from it.
    pub(super) fn standing(&self) -> Standing {
        match self.state {
            _ if self.asleep_since != Timestamp::NEVER => {
                Standing::Sleeping { began: self.asleep_since, measured: self.is_measured }
            }
            LeaseState::Suspect => Standing::Lapsed,
            LeaseState::Awake | LeaseState::Asleep => Standing::Awake,
        }
    }

    pub(super) fn hear(&mut self, now: Timestamp, contact: &Contact, settings: &LeaseSettings) -> Heard {
        if contact.incarnation != self.incarnation {
            return Heard::OtherIncarnation { current: self.incarnation };
        }
        if self.is_ending() {
            return Heard::Ending;
        }
        if contact.beat == self.beat {
            return self.hear_again(now, contact.call_id);
        }
        if contact.beat < self.beat {
            return Heard::NotNewer { left: self.left(now) };
        }
        self.beat = contact.beat;
        self.call_id = contact.call_id;
        self.heard = now;
        self.head = self.head.max(contact.head);
        let was = self.state;
        let ttl = settings.at_once(contact.activity);
        self.earned = settings.when_applied(contact.activity);
        self.take(contact.activity, ttl, settings);
        Heard::Granted { ttl, ttl_applied: self.earned, was }
    }

    /// What its newest contact earns once the log has told of it; `None`: that is not the newest one.
    pub(super) fn earns(&self, contact: &Contact) -> Option<Millis> {
        let is_newest = contact.incarnation == self.incarnation && contact.beat == self.beat;
        is_newest.then_some(self.earned)
    }

    fn hear_again(&mut self, now: Timestamp, call_id: CallId) -> Heard {
        // The log does not tell call ids, so the first call that shows one counts.
        if self.call_id == NO_CALL {
            self.call_id = call_id;
        }
        if self.call_id == call_id { Heard::NotNewer { left: self.left(now) } } else { Heard::Forked }
    }

    /// Evidence was read from the log. Answers whether it was of this incarnation and not overtaken.
    pub(super) fn apply(
        &mut self,
        now: Timestamp,
        evidence: &Evidence,
        by: Session,
        settings: &LeaseSettings,
    ) -> bool {
        if evidence.incarnation != self.incarnation || evidence.beat < self.confirmed {
            return false;
        }
        self.holder = by;
        // A copy of what was applied promises nothing new, and a Gone under way stands against it.
        if evidence.beat == self.confirmed {
            return true;
        }
        self.confirmed = evidence.beat;
        self.doubted = false;
        if evidence.beat < self.beat {
            return true;
        }
        if evidence.beat > self.beat {
            self.beat = evidence.beat;
            self.earned = evidence.ttl;
            self.call_id = NO_CALL;
            self.heard = now;
        }
        // The node counts from when it sent, so a lease from when it was heard is never too short.
        if self.heard + evidence.ttl > now {
            self.take(evidence.activity, evidence.ttl, settings);
        }
        true
    }

    /// Takes a lease of `ttl` from the last contact on.
    fn take(&mut self, activity: Activity, ttl: Millis, settings: &LeaseSettings) {
        const NEVER: Timestamp = Timestamp::NEVER;
        (self.state, self.turns) = match activity {
            Activity::Awake { remaining, then_asleep: true } => {
                (LeaseState::Awake, self.heard + settings.awake_for(remaining))
            }
            Activity::Awake { .. } => (LeaseState::Awake, NEVER),
            Activity::Asleep => (LeaseState::Asleep, NEVER),
        };
        self.asleep_since = if activity == Activity::Asleep { self.heard } else { NEVER };
        self.is_measured = true;
        self.deadline = self.heard + ttl;
        self.end = End::Far;
    }

    /// Draws the conclusions of silence. `may_end` is asked only when an end would be proposed.
    pub(super) fn look(
        &mut self,
        key: LeaseKey,
        now: Timestamp,
        settings: &LeaseSettings,
        may_end: impl FnOnce(Session, Standing) -> bool,
        out: &mut Vec<Due>,
    ) {
        let (incarnation, beat) = (self.incarnation, self.confirmed);
        if now >= self.turns {
            self.state = LeaseState::Asleep;
            self.asleep_since = self.turns;
            self.turns = Timestamp::NEVER;
        }
        if now >= self.deadline && self.state != LeaseState::Suspect {
            self.deadline = now + self.patience(settings);
            self.state = LeaseState::Suspect;
            if self.asleep_since == Timestamp::NEVER && settings.undeclared_freeze == UndeclaredFreeze::Allow
            {
                self.asleep_since = self.heard;
            }
            self.turns = Timestamp::NEVER;
            out.push(Due::Suspect { key, incarnation, beat });
        }
        if now < self.deadline {
            return;
        }
        if may_end(self.holder, self.standing()) {
            self.end = End::Proposed(beat);
            self.deadline = now + VERDICT_TIMEOUT;
            out.push(Due::Gone { key, incarnation, beat });
        } else {
            self.deadline = now + RECHECK;
        }
    }

    /// How long a node whose lease just ran out stays SUSPECT.
    fn patience(&self, settings: &LeaseSettings) -> Millis {
        let declared = self.state == LeaseState::Asleep || self.turns != Timestamp::NEVER;
        match (declared, settings.undeclared_freeze) {
            (true, _) if self.confirmed == self.beat => Millis(0),
            // It said that it sleeps, but the log never told, so it only had an awake lease: silence is no sign.
            (true, _) | (false, UndeclaredFreeze::Allow) => settings.asleep,
            (false, UndeclaredFreeze::Deny) => settings.suspect_grace.max(GRACE),
        }
    }

    /// The Gone that named this beat did not take effect, or could not be appended; or the other relays did not answer.
    pub(super) fn spare(&mut self, now: Timestamp, beat: Beat) {
        if self.end == End::Asked(beat) || self.end == End::Proposed(beat) {
            self.end = End::Far;
            self.deadline = now + RECHECK;
        }
    }

    /// Instead of proposing its end at once, the others are asked first. Meanwhile it may be heard.
    pub(super) fn ask(&mut self, beat: Beat) {
        if self.end == End::Proposed(beat) {
            self.end = End::Asked(beat);
        }
    }

    /// The others have answered. Answers whether nothing was heard since they were asked, so that its end is proposed.
    pub(super) fn end_asked(&mut self, incarnation: Incarnation, beat: Beat) -> bool {
        let is_asked = self.end == End::Asked(beat) && self.incarnation == incarnation;
        let ends = is_asked && self.confirmed == beat;
        if ends {
            self.end = End::Proposed(beat);
        }
        ends
    }

    /// A relay asks about it (rule L5).
    pub(super) fn doubt(&mut self, incarnation: Incarnation, beat: Beat) {
        self.doubted |= self.incarnation == incarnation && self.confirmed <= beat;
    }

    /// Whether a Gone is under way.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.end, End::Proposed(_))
    }

    /// Whether the log has told of the newest contact.
    pub(super) fn is_told(&self) -> bool {
        self.confirmed == self.beat
    }

    /// When silence next leads to anything.
    pub(super) fn next_look(&self) -> Timestamp {
        self.deadline.min(self.turns)
    }

    fn left(&self, now: Timestamp) -> Millis {
        if self.state == LeaseState::Suspect { Millis(0) } else { self.deadline.since(now) }
    }

    pub(super) fn view(&self, now: Timestamp) -> LeaseView {
        LeaseView {
            state: self.state,
            incarnation: self.incarnation,
            beat: self.beat,
            left: self.left(now),
            silent: now.since(self.heard),
            holder: self.holder,
            p_alive: 0.0,
            asleep_for: (self.asleep_since != Timestamp::NEVER).then(|| now.since(self.asleep_since)),
            head: self.head,
        }
    }
}
