//! This relay in the company of the others on its log: what it may promise at once, whom it may end, and what it owes
//! them to hear.
//!
//! Nothing here writes to a log; what is to be written is handed out, and what was read is handed in. A contact is
//! noted before it is promised, and a position counts as applied after the doubts in it: so whoever asks about a node
//! is either told of a contact, or that contact was promised nothing.
//!
//! Why no Gone breaks a promise: it names a beat, and before it is proposed a mark with that beat has come back from the
//! log. Whoever has applied the mark promises that node nothing that the log has not told, and what the log tells makes the
//! Gone void. What was promised before that is told before the Gone is proposed, or it is over, because it was by a relay
//! that had been silent for longer than it lasts ([`Peers`]).

use std::sync::atomic::{AtomicBool, Ordering};

use dormouse_proto::traps::{Trap, Traps};
use parking_lot::Mutex;

use super::{
    Activity, Contact, Due, Evidence, Heard, LeaseKey, LeasePolicy, LeaseState, LeaseTable, Millis, Peers,
    Restored, Session, Silent, Timestamp, guard::HoldReason, questions::Questions, untold::Untold,
};

/// The most that one record moves log time. A lease that rode on a push was counted from when log time had last moved, and
/// that may have been so long before.
const LOG_TIME_STEP: Millis = Millis(5_000);

/// Where a contact's evidence travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// With the next digest.
    ByDigest,
    /// In a record that the caller writes.
    ByCaller,
}

/// What a digest is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    /// Contacts that no digest has told of and come back, in no order.
    pub contacts: Vec<(LeaseKey, Evidence)>,
    /// With them, all is told that this relay had heard before it applied this position.
    pub upto: u64,
}

/// How the ends of silent nodes are gone about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ends {
    /// No other relay can be there: they are proposed.
    Propose(Vec<Silent>),
    /// The others are asked first, with a mark for each. It is also a word to relays that come later, and to this one:
    /// until the log has told of a newer contact, nobody promises such a node anything by itself, so the Gone may come as
    /// late as the log likes.
    Ask(Vec<Silent>),
}

/// The leases of one relay, and the other relays on its log. `now` is virtual time.
#[derive(Debug)]
pub struct Company {
    leases: LeaseTable,
    /// Other relays may append to the log.
    is_shared: bool,
    peers: Mutex<Peers>,
    /// Whether a promise is worth nothing before the log has told of it, as of the last look.
    is_weak: AtomicBool,
    questions: Mutex<Questions>,
    untold: Mutex<Untold>,
    /// Another relay asks, and wants an answer at once.
    is_asked: AtomicBool,
    traps: Traps,
}

impl Company {
    /// Nobody is known yet. `is_shared`: other relays may append to the log.
    pub fn new(policy: LeasePolicy, is_shared: bool, now: Timestamp) -> Self {
        Self::with_traps(policy, is_shared, now, Traps::default())
    }

    /// The same, leaving out a rule.
    pub fn with_traps(policy: LeasePolicy, is_shared: bool, now: Timestamp, traps: Traps) -> Self {
        // Its session is not known before the log was read; `begin` says it.
        let peers = Peers::new(Session::default(), !is_shared, policy.longest_awake(), now).without(traps);
        Self {
            leases: LeaseTable::new(policy),
            is_shared,
            peers: Mutex::new(peers),
            is_weak: AtomicBool::new(is_shared),
            questions: Mutex::default(),
            untold: Mutex::default(),
            is_asked: AtomicBool::new(false),
            traps,
        }
    }

    /// A session begins, with what the fold knows. It may be called while frames are applied already.
    pub fn begin(&self, now: Timestamp, me: Session, members: impl IntoIterator<Item = Restored>) {
        let longest = self.leases.policy().longest_awake();
        *self.peers.lock() = Peers::new(me, !self.is_shared, longest, now).without(self.traps);
        // Any of them may have been asked about before.
        let mut marks = Vec::new();
        let members = members.into_iter().map(|mut it| {
            marks.push((it.key, it.evidence));
            it.evidence.ttl = it.evidence.ttl + LOG_TIME_STEP;
            it
        });
        self.leases.restored(now, members);
        for (key, Evidence { incarnation, beat, .. }) in marks {
            if self.is_shared && !self.traps.has(Trap::Forgetful) {
                self.leases.doubt(now, key, incarnation, beat);
            }
        }
    }

    /// The leases.
    pub fn leases(&self) -> &LeaseTable {
        &self.leases
    }

    /// Whether other relays may append to the log.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// How many relays are on the log, this one included.
    pub fn count(&self, now: Timestamp) -> usize {
        self.peers.lock().count(now)
    }

    /// Forgets relays that have been gone for long.
    pub fn forget(&self, now: Timestamp) {
        self.peers.lock().forget(now);
    }

    // ---- contacts and promises ----

    /// A request of a node arrived, or a copy of its newest one. Answers what may be promised although the log has not told of it yet (rules L4 and
    /// L5). `is_held`: whether expiry is held, asked after the contact was noted.
    pub fn hear(
        &self,
        now: Timestamp,
        is_held: impl FnOnce() -> bool,
        key: LeaseKey,
        contact: &Contact,
        told: Told,
    ) -> Heard {
        let heard = self.hear_copies(now, key, contact);
        if let Heard::Granted { ttl_applied: ttl, .. } = heard
            && told == Told::ByDigest
        {
            let Contact { incarnation, beat, activity, .. } = *contact;
            self.note(key, Evidence { incarnation, beat, activity, ttl });
        }
        match heard {
            Heard::Granted { ttl, ttl_applied, was } if self.is_shared => {
                // Stretched leases are for the log to tell: others count on nobody promising more than this.
                let ttl = ttl.min(self.leases.policy().longest_awake());
                let ttl = if self.must_be_told(is_held, key) { Millis(0) } else { ttl };
                Heard::Granted { ttl, ttl_applied, was }
            }
            // What is left is of a newer contact, which may have been promised nothing.
            Heard::NotNewer { .. } if self.is_shared && !self.leases.is_told(key) => {
                Heard::NotNewer { left: Millis(0) }
            }
            other => other,
        }
    }

    /// A copy of the newest contact earns the same evidence, in full: what the log tells first of a beat counts, and it may
    /// be that of the copy.
    fn hear_copies(&self, now: Timestamp, key: LeaseKey, contact: &Contact) -> Heard {
        let heard = self.leases.heard(now, key, contact);
        let Heard::NotNewer { left: ttl } = heard else { return heard };
        let Some(ttl_applied) = self.leases.earns(key, contact) else { return heard };
        let is_asleep = contact.activity == Activity::Asleep;
        let was = if is_asleep { LeaseState::Asleep } else { LeaseState::Awake };
        Heard::Granted { ttl, ttl_applied, was }
    }

    /// The record that was to tell of a contact may not have been written. It is told with the next digest; answers what
    /// may be promised meanwhile.
    pub fn tell_later(
        &self,
        now: Timestamp,
        is_held: impl FnOnce() -> bool,
        key: LeaseKey,
        evidence: Evidence,
    ) -> Millis {
        self.note(key, evidence);
        let Evidence { incarnation, beat, .. } = evidence;
        match self.leases.view(key, now) {
            // What is left may be of another contact by now, or of another incarnation.
            Some(view) if (view.incarnation, view.beat) != (incarnation, beat) => Millis(0),
            Some(view) if !self.must_be_told(is_held, key) => {
                view.left.min(self.leases.policy().longest_awake())
            }
            _ => Millis(0),
        }
    }

    /// Whether a promise to this node would be worth nothing before the log has told of it.
    fn must_be_told(&self, is_held: impl FnOnce() -> bool, key: LeaseKey) -> bool {
        // A pause is seen by the guard before the next look is.
        let is_weak = || self.is_weak.load(Ordering::Acquire) || is_held();
        let is_doubted = || self.leases.is_doubted(key);
        self.is_shared
            && (!self.traps.has(Trap::Boastful) && is_weak()
                || !self.traps.has(Trap::Doubtless) && is_doubted())
    }

    /// A contact is told with the next digest, unless a newer one of that node is.
    pub fn note(&self, key: LeaseKey, evidence: Evidence) {
        self.untold.lock().note(key, evidence);
    }

    /// That membership is over.
    pub fn forget_contact(&self, key: LeaseKey) {
        self.untold.lock().forget(key);
    }

    // ---- what this relay says ----

    /// Whether a digest is to be sent each second: there are contacts to tell of, or others who want to hear that this
    /// relay is there.
    pub fn has_to_speak(&self, now: Timestamp) -> bool {
        self.peers.lock().is_in_company(now) || !self.untold.lock().is_empty()
    }

    /// What is to be told now.
    pub fn telling(&self) -> Telling {
        let mut untold = self.untold.lock();
        let (upto, contacts) = untold.all();
        let telling = Telling { contacts: contacts.collect(), upto: if self.is_shared { upto } else { 0 } };
        if self.traps.has(Trap::ToldWhenSent) {
            untold.told(&telling.contacts);
        }
        telling
    }

    /// An own digest is on its way.
    pub fn spoke(&self, now: Timestamp) {
        self.peers.lock().spoke(now);
    }

    /// The own digest that was sent at `sent` was applied here, and so was what it tells of.
    pub fn came_back(&self, sent: Timestamp, contacts: &[(LeaseKey, Evidence)]) {
        self.untold.lock().told(contacts);
        self.peers.lock().heard_myself(sent);
    }

    /// The own digest that was sent at `sent` was not written: nothing is promised until a later one has come back.
    pub fn did_not_come_back(&self, now: Timestamp, sent: Timestamp) {
        let mut peers = self.peers.lock();
        peers.heard_myself(sent);
        peers.listen_anew(now);
    }

    // ---- silence ----

    /// Why nobody may be declared gone at this moment, if so. `held`: what the guard says.
    pub fn hold(&self, now: Timestamp, held: Option<HoldReason>) -> Option<HoldReason> {
        let mut peers = self.peers.lock();
        if held.is_some() {
            peers.listen_anew(now);
        }
        held.or_else(|| peers.is_deaf(now).then_some(HoldReason::LogLost))
    }

    /// Draws the conclusions of silence. Answers whether very many fell silent at once just now.
    pub fn look(&self, now: Timestamp, hold: Option<HoldReason>, due: &mut Vec<Due>) -> bool {
        let peers = self.peers.lock();
        self.is_weak.store(peers.is_weak(now), Ordering::Release);
        self.leases.due(now, hold, |holder| peers.answers_for(now, holder), due)
    }

    /// How to go about the ends of these.
    pub fn end(&self, now: Timestamp, silent: Vec<Silent>) -> Ends {
        if !self.is_shared || self.traps.has(Trap::Unasked) {
            return Ends::Propose(silent);
        }
        for (key, incarnation, beat) in &silent {
            self.leases.ask(now, *key, *beat);
            self.questions.lock().ask(now, (*key, *incarnation, *beat));
        }
        Ends::Ask(silent)
    }

    /// Those of whom all others have told, and whose end is to be proposed. Questions that nobody answers are given up.
    pub fn conclude(&self, now: Timestamp) -> Vec<Silent> {
        let mut decided = {
            let (mut questions, peers) = (self.questions.lock(), self.peers.lock());
            questions.decided(now, |position| peers.have_told(now, position))
        };
        for (key, incarnation, beat) in decided.unanswered {
            self.leases.gone_rejected(now, key, incarnation, beat);
        }
        let ends = |it: &Silent| self.leases.end_asked(now, it.0, it.1, it.2);
        decided.answered.retain(ends);
        decided.answered
    }

    // ---- what the log says of relays ----

    /// A relay asks about a node, in the frame that is being applied.
    pub fn asked(&self, now: Timestamp, by: Session, mark: Silent) {
        let (key, incarnation, beat) = mark;
        self.leases.doubt(now, key, incarnation, beat);
        if self.peers.lock().is_me(by) {
            self.questions.lock().read_back(mark);
        } else {
            self.is_asked.store(true, Ordering::Release);
        }
    }

    /// A relay has told of every contact that it had heard before it applied that position. Answers whether this relay
    /// waits for such words.
    pub fn told(&self, by: Session, upto: u64) -> bool {
        let mut peers = self.peers.lock();
        if peers.is_me(by) || upto == 0 {
            return false;
        }
        peers.told(by, upto);
        drop(peers);
        !self.questions.lock().is_empty()
    }

    /// A whole frame of a relay was applied, at `position`. Answers whether somebody wants an answer at once.
    pub fn placed(&self, now: Timestamp, by: Session, position: u64) -> bool {
        self.questions.lock().placed(position);
        // After the doubts of this frame: what is told from here on was heard before them, or was not promised.
        self.untold.lock().applied(position);
        self.peers.lock().heard(now, by);
        self.is_asked.load(Ordering::Acquire)
    }

    /// Whether somebody wants an answer; it counts as given.
    pub fn take_asked(&self) -> bool {
        self.is_asked.swap(false, Ordering::AcqRel)
    }
}
