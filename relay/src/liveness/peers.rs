//! The other relays on the log, as far as their frames tell of them, and what follows for this one.
//!
//! A relay speaks at least once a second while there are others. One that was silent for [`Peers::silence`] is gone, and the
//! lowest that lives takes over its leases. Before anybody's end is proposed, every other relay must have told what it had
//! heard; and a relay that the others may not hear promises nothing that the log has not told.
//!
//! Why nothing breaks: a promise that the log has not told lasts one awake lease at most, and is given only while the own
//! frames come back within [`ECHO`]. So it is over before the silence is, and whoever takes over comes after it.

use std::collections::{BTreeMap, VecDeque};

use dormouse_proto::traps::{Trap, Traps};

use super::{Millis, Session, Timestamp};

/// An own digest that has not come back by then: the others may not hear this relay (rule L4).
const ECHO: Millis = Millis(1_500);
/// An own digest that came back proves for so long that the others may hear this relay: until the next one is due, and has
/// had its time. A relay that had nothing to say for longer may be far behind without knowing it.
const FRESH: Millis = Millis(1_000 + ECHO.0 + 100);
/// An own digest that has not come back by then: what this relay knows is too old to end anybody (rule L7).
const DEAF: Millis = Millis(2_500);
/// A relay counts as gone after this at the least (rule L6).
const SILENCE_MIN: Millis = Millis(6_000);
/// How long after the last word of another relay this one still speaks each second. Ample, because both must fall silent.
const COMPANY: Millis = Millis(60_000);
/// Own digests on their way that are kept count of.
const UNHEARD: usize = 64;

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    heard: Timestamp,
    /// Every contact that it had heard before it applied this position is told.
    told_upto: u64,
}

/// The relays on one log, as one of them sees them. `now` is virtual time.
#[derive(Debug)]
pub struct Peers {
    me: Session,
    /// No other process can write to the log.
    exclusive: bool,
    awake_lease: Millis,
    /// Since when this relay hears everything that is in the log.
    listening: Timestamp,
    /// When the newest own digest was sent that has come back, if that was since then.
    proven: Option<Timestamp>,
    /// When the own digests were sent that have not come back, oldest first.
    unheard: VecDeque<Timestamp>,
    others: BTreeMap<Session, Peer>,
    traps: Traps,
}

impl Peers {
    /// A relay that begins to listen. `awake_lease` is the longest one of all groups.
    pub fn new(me: Session, exclusive: bool, awake_lease: Millis, now: Timestamp) -> Self {
        let (unheard, others) = (VecDeque::new(), BTreeMap::new());
        let traps = Traps::default();
        Self { me, exclusive, awake_lease, listening: now, proven: None, unheard, others, traps }
    }

    /// The same, leaving out a rule.
    #[must_use]
    pub(super) fn without(self, traps: Traps) -> Self {
        Self { traps, ..self }
    }

    /// How long another relay is silent before it counts as gone: longer than a promise that it may have given and
    /// that nobody was told of.
    pub fn silence(&self) -> Millis {
        if self.traps.has(Trap::HastyTakeover) {
            return Millis(2_000);
        }
        // A digest each second, ECHO, and one awake lease.
        SILENCE_MIN.max(Millis(1_000 + ECHO.0 + self.awake_lease.0 + 500))
    }

    /// Whether that is this relay.
    pub fn is_me(&self, session: Session) -> bool {
        self.me == session
    }

    /// A frame of that relay was applied.
    pub fn heard(&mut self, now: Timestamp, of: Session) {
        if of != self.me {
            self.others.entry(of).or_default().heard = now;
        }
    }

    /// A relay has told of every contact that it had heard before it applied that position.
    pub fn told(&mut self, of: Session, upto: u64) {
        if let Some(peer) = self.others.get_mut(&of) {
            peer.told_upto = peer.told_upto.max(upto);
        }
    }

    /// This relay stood still, or lost the log: what others say and do has not been heard since.
    pub fn listen_anew(&mut self, now: Timestamp) {
        self.listening = self.listening.max(now);
        self.proven = None;
    }

    /// An own digest is on its way.
    pub fn spoke(&mut self, now: Timestamp) {
        // The oldest decides, so a log that does not answer for long makes nothing grow.
        if self.unheard.len() < UNHEARD {
            self.unheard.push_back(now);
        }
    }

    /// The own digests up to the one that was sent at `at` have come back.
    pub fn heard_myself(&mut self, at: Timestamp) {
        if at >= self.listening {
            self.proven = self.proven.max(Some(at));
        }
        while self.unheard.front().is_some_and(|sent| *sent <= at) {
            self.unheard.pop_front();
        }
    }

    /// Whether a promise is worth nothing before the log has told of it.
    pub fn is_weak(&self, now: Timestamp) -> bool {
        let is_proven = self.proven.is_some_and(|at| now <= at + FRESH);
        !self.exclusive && (!is_proven || self.waits_longer_than(ECHO, now))
    }

    /// Whether what this relay knows is too old to end anybody.
    pub fn is_deaf(&self, now: Timestamp) -> bool {
        !self.exclusive && self.waits_longer_than(DEAF, now)
    }

    fn waits_longer_than(&self, length: Millis, now: Timestamp) -> bool {
        self.unheard.front().is_some_and(|at| *at + length < now)
    }

    /// Whether a digest is to be sent each second although there is nothing to tell.
    pub fn is_in_company(&self, now: Timestamp) -> bool {
        !self.exclusive
            && (self.proven.is_none() || self.others.values().any(|peer| peer.heard + COMPANY > now))
    }

    /// Whether every other relay has told what it had heard before it applied `position`.
    pub fn have_told(&self, now: Timestamp, position: u64) -> bool {
        now >= self.listening + self.silence()
            && self.living(now).all(|session| self.others[&session].told_upto >= position)
    }

    /// Whether this relay draws the conclusions for leases whose newest evidence came from `holder`: its own ones, and,
    /// as the lowest that lives, those of one that is gone, an awake lease later.
    pub fn answers_for(&self, now: Timestamp, holder: Session) -> bool {
        if self.exclusive || holder == self.me {
            return true;
        }
        let last = self.others.get(&holder).map_or(Timestamp(0), |peer| peer.heard).max(self.listening);
        let patience = if self.traps.has(Trap::HastyTakeover) { Millis(0) } else { self.awake_lease };
        now >= last + self.silence() + patience && self.living(now).all(|other| self.me < other)
    }

    fn living(&self, now: Timestamp) -> impl Iterator<Item = Session> {
        let alive = move |peer: &Peer| now < peer.heard.max(self.listening) + self.silence();
        self.others.iter().filter(move |(_, peer)| alive(peer)).map(|(session, _)| *session)
    }

    /// How many relays are on the log, this one included.
    pub fn count(&self, now: Timestamp) -> usize {
        1 + self.living(now).count()
    }

    /// Forgets those that have been gone for long.
    pub fn forget(&mut self, now: Timestamp) {
        self.others.retain(|_, peer| peer.heard + COMPANY > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Session = Session(5);
    const LOW: Session = Session(2);
    const HIGH: Session = Session(9);
    const LEASE: Millis = Millis(3_000);

    fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000)
    }

    /// A relay on a shared log that hears itself.
    fn settled() -> Peers {
        let mut peers = Peers::new(ME, false, LEASE, at(0));
        peers.hear_myself(at(1));
        peers
    }

    impl Peers {
        fn hear_myself(&mut self, at: Timestamp) {
            self.spoke(at);
            self.heard_myself(at);
        }
    }

    #[test]
    fn a_relay_that_has_the_log_to_itself_asks_nobody() {
        let peers = Peers::new(ME, true, LEASE, at(0));
        assert!(peers.answers_for(at(0), HIGH));
        assert!(!peers.is_weak(at(0)) && !peers.is_in_company(at(0)));
    }

    #[test]
    fn a_relay_knows_only_after_the_silence_that_it_is_alone() {
        let mut peers = settled();
        peers.hear_myself(at(4));
        assert!(!peers.is_weak(at(5)), "others hear it");
        assert!(!peers.have_told(at(5), 0), "others may be there that have not spoken yet");
        assert!(peers.have_told(at(6), 0));
        assert!(!peers.answers_for(at(8), HIGH), "whoever held a lease before may have promised it just now");
        assert!(peers.answers_for(at(9), HIGH));
    }

    #[test]
    fn everybody_who_lives_must_have_told() {
        let mut peers = settled();
        peers.heard(at(10), LOW);
        peers.heard(at(10), HIGH);
        assert_eq!(peers.count(at(11)), 3);
        peers.told(LOW, 7);
        assert!(!peers.have_told(at(11), 7));
        peers.told(HIGH, 6);
        assert!(!peers.have_told(at(11), 7));
        peers.told(HIGH, 8);
        assert!(peers.have_told(at(11), 7));
        peers.told(HIGH, 1);
        assert!(peers.have_told(at(11), 7), "what was told once stays told");
        assert!(peers.have_told(at(16), 999), "those that are gone tell nothing any more");
    }

    #[test]
    fn only_the_lowest_that_lives_takes_over() {
        let mut peers = settled();
        let gone = Session(77);
        peers.heard(at(10), gone);
        for second in 10..30 {
            peers.heard(at(second), HIGH);
        }
        assert!(!peers.answers_for(at(18), gone), "six seconds of silence and one awake lease");
        assert!(peers.answers_for(at(19), gone));
        peers.heard(at(20), LOW);
        assert!(!peers.answers_for(at(21), gone));
        assert!(peers.answers_for(at(21), ME), "its own it keeps");
        assert!(peers.answers_for(at(27), gone), "the lower one is gone as well");
    }

    #[test]
    fn a_relay_that_does_not_hear_itself_promises_nothing_and_later_ends_nobody() {
        let mut peers = settled();
        peers.hear_myself(at(19));
        peers.spoke(at(20));
        peers.spoke(at(21));
        assert!(!peers.is_weak(Timestamp(21_500)) && peers.is_weak(Timestamp(21_501)));
        assert!(!peers.is_deaf(Timestamp(22_500)) && peers.is_deaf(Timestamp(22_501)));
        peers.heard_myself(at(20));
        assert!(!peers.is_weak(at(22)) && peers.is_weak(at(23)), "the one from 21 s is still out");
        peers.heard_myself(at(21));
        assert!(!peers.is_weak(at(23)) && !peers.is_deaf(at(24)));
    }

    #[test]
    fn a_relay_that_had_nothing_to_say_for_long_promises_nothing_before_it_has_heard_itself_again() {
        let mut peers = settled();
        peers.hear_myself(at(20));
        assert!(!peers.is_weak(Timestamp(22_600)) && peers.is_weak(Timestamp(22_601)));
        peers.hear_myself(at(30));
        assert!(!peers.is_weak(at(31)));
    }

    #[test]
    fn after_a_pause_nothing_that_was_heard_before_counts() {
        let mut peers = settled();
        peers.heard(at(10), LOW);
        peers.listen_anew(at(300));
        peers.heard_myself(at(20));
        assert!(peers.is_weak(at(307)), "a digest from before the pause proves nothing");
        peers.hear_myself(at(301));
        assert!(!peers.is_weak(at(302)));
        assert_eq!(peers.count(at(301)), 2, "the other one has had no time to speak");
        assert!(!peers.answers_for(at(308), LOW) && peers.answers_for(at(309), LOW));
    }

    #[test]
    fn it_speaks_each_second_while_there_may_be_others() {
        let mut peers = Peers::new(ME, false, LEASE, at(0));
        assert!(peers.is_in_company(at(0)), "until it has heard itself");
        peers.heard_myself(at(1));
        assert!(!peers.is_in_company(at(2)));
        peers.heard(at(3), HIGH);
        assert!(peers.is_in_company(at(62)) && !peers.is_in_company(at(63)));
        peers.forget(at(63));
        assert_eq!(peers.others.len(), 0);
    }

    #[test]
    fn a_longer_awake_lease_makes_the_silence_longer() {
        assert_eq!(settled().silence(), Millis(6_000));
        assert_eq!(Peers::new(ME, false, Millis(10_000), at(0)).silence(), Millis(13_000));
    }
}
