//! What one connection has done, and whether it may stay. Pure: `now` is an argument.
//!
//! Nothing here counts what a caller asks for, because that is refused in words, call by call. It counts what no call is
//! made of: silence, bytes of the protocol alone, calls that are given up, calls that are sent away.

use std::{collections::VecDeque, time::Duration};

/// Milliseconds since the relay was started.
pub(crate) type Millis = u64;

/// Bytes that are neither header nor body of a call: pings, settings, windows. What HTTP/2 may have on its way unread (one
/// window of 1 MiB) counts until it is read, hence so many ...
const PROTOCOL_BYTES: Allowance = Allowance { most: 4 << 20, per_second: 64 << 10 };
/// ... and calls that are given up before there is an answer: as many as two full connections, then a hundred a second.
const GIVEN_UP: Allowance = Allowance { most: 512, per_second: 100 };
/// Of a body that is refused so much may have come, or be on its way: a window of HTTP/2 ...
const UNREAD: u64 = 1 << 20;
/// ... which is forgiven so often at once and in a second, because it might as well be pings.
const FORGIVEN: Allowance = Allowance { most: 64, per_second: 4 };
/// Calls in a row that were sent away for their token, until the next ones have to connect anew.
pub(crate) const SENT_AWAY: u32 = 100;

/// Between two calls of an invocation a connection is in use, if there ever was an answer on it. Three beats.
pub(crate) const IN_USE: Millis = 3_000;

/// How long a connection may do what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// From the beginning until it says what it wants.
    pub(crate) greeting: Duration,
    /// Without a call.
    pub(crate) idle: Duration,
    /// From the header of a call until its answer was taken; streams excepted.
    pub(crate) answer: Duration,
}

/// Why a connection is closed by this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It never said what it wants.
    Silent,
    /// Nobody called for long.
    Idle,
    /// An answer was not taken in time.
    Slow,
    /// Bytes or calls without sense, and too many of them.
    Flood,
    /// Its calls were sent away again and again.
    SentAway,
    /// A new connection has its place.
    MadeRoom,
}

/// What to do with a connection now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It stays; to be asked again at that time, or when something has happened.
    Stay(Millis),
    /// It ends.
    End(Why),
}

/// The newest and the idlest go first: whoever has never had an answer before those who had, then by how long.
pub(crate) type Rank = (bool, Millis);

/// The record of one connection.
#[derive(Debug)]
pub(crate) struct Conduct {
    since: Millis,
    greeted: bool,
    /// A call was answered with something else than a refusal.
    proven: bool,
    idle_since: Millis,
    calls: VecDeque<Call>,
    next_call: u64,
    protocol_bytes: Used,
    /// Bytes of calls that nobody reads any more, and that may still come.
    unread: u64,
    forgiven: Used,
    given_up: Used,
    sent_away: u32,
    end: Option<Why>,
}

#[derive(Debug)]
struct Call {
    number: u64,
    /// `None`: it may go on for ever.
    began: Option<Millis>,
}

/// How a call has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With an answer that was taken.
    Answered,
    /// With an answer that was not taken to its end.
    Left,
    /// Without an answer.
    GivenUp,
}

impl Conduct {
    pub(crate) fn new(now: Millis) -> Self {
        Self {
            since: now,
            greeted: false,
            proven: false,
            idle_since: now,
            calls: VecDeque::new(),
            next_call: 0,
            protocol_bytes: Used::default(),
            unread: 0,
            forgiven: Used::default(),
            given_up: Used::default(),
            sent_away: 0,
            end: None,
        }
    }

    /// The handshake is done, and the time for the first bytes begins.
    pub(crate) fn shook_hands(&mut self, now: Millis) {
        (self.since, self.idle_since) = (now, now);
    }

    /// It has said what it wants; answers whether that is new.
    pub(crate) fn greeted(&mut self) -> bool {
        !std::mem::replace(&mut self.greeted, true)
    }

    pub(crate) fn has_greeted(&self) -> bool {
        self.greeted
    }

    /// Bytes came; answers whether they are too many.
    pub(crate) fn received(&mut self, bytes: u64, now: Millis) -> bool {
        let unread = self.unread.min(bytes);
        self.unread -= unread;
        let flood = !self.protocol_bytes.take(PROTOCOL_BYTES, bytes - unread, now);
        flood && self.end(Why::Flood)
    }

    /// So many of the bytes that came were part of a call.
    pub(crate) fn meant(&mut self, bytes: u64) {
        self.protocol_bytes.give_back(bytes);
    }

    /// A body was refused, or given up, before its end.
    pub(crate) fn left_unread(&mut self, now: Millis) {
        if self.forgiven.take(FORGIVEN, 1, now) {
            let came = self.protocol_bytes.amount.min(UNREAD);
            self.protocol_bytes.give_back(came);
            self.unread = self.unread.max(UNREAD - came);
        }
    }

    /// A body broke off; answers whether the connection is to be looked at.
    pub(crate) fn broke_off(&mut self, now: Millis) -> bool {
        !self.given_up.take(GIVEN_UP, 1, now) && self.end(Why::Flood)
    }

    /// A call begins; the number is for its end.
    pub(crate) fn call_began(&mut self, bounded: bool, now: Millis) -> u64 {
        self.next_call += 1;
        self.calls.push_back(Call { number: self.next_call, began: bounded.then_some(now) });
        self.next_call
    }

    /// A call that began as every other turns out to be a stream.
    pub(crate) fn goes_on(&mut self, number: u64) {
        if let Some(call) = self.calls.iter_mut().find(|call| call.number == number) {
            call.began = None;
        }
    }

    /// A call has ended; answers whether the connection is to be looked at.
    pub(crate) fn call_ended(&mut self, number: u64, how: Ended, now: Millis) -> bool {
        self.calls.retain(|call| call.number != number);
        self.idle_since = now;
        how == Ended::GivenUp && self.broke_off(now)
    }

    /// A call was let in.
    pub(crate) fn let_in(&mut self) {
        (self.proven, self.sent_away) = (true, 0);
    }

    /// A call was sent away for its token; answers whether the connection is to be looked at.
    pub(crate) fn sent_away(&mut self) -> bool {
        self.sent_away += 1;
        self.sent_away >= SENT_AWAY && self.end(Why::SentAway)
    }

    /// Ends it; answers whether that is new.
    pub(crate) fn end(&mut self, why: Why) -> bool {
        let new = self.end.is_none();
        self.end.get_or_insert(why);
        new
    }

    /// `None`: it is in use, or ends anyway.
    pub(crate) fn rank(&self, now: Millis) -> Option<Rank> {
        let in_use = !self.calls.is_empty() || self.proven && now.saturating_sub(self.idle_since) < IN_USE;
        (!in_use && self.end.is_none()).then_some((self.proven, self.idle_since))
    }

    pub(crate) fn verdict(&self, patience: &Patience, now: Millis) -> Verdict {
        let after = |since: Millis, time: Duration| {
            since.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
        };
        if let Some(why) = self.end {
            return Verdict::End(why);
        }
        let (until, why) = if !self.greeted {
            (after(self.since, patience.greeting), Why::Silent)
        } else if self.calls.is_empty() {
            (after(self.idle_since, patience.idle), Why::Idle)
        } else {
            // In the order in which they began.
            let oldest = self.calls.iter().find_map(|call| call.began);
            (oldest.map_or(Millis::MAX, |began| after(began, patience.answer)), Why::Slow)
        };
        if now >= until { Verdict::End(why) } else { Verdict::Stay(until) }
    }
}

/// So much at once, and so much more in each second.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    most: u64,
    per_second: u64,
}

/// What of an allowance is used.
#[derive(Debug, Default)]
struct Used {
    amount: u64,
    at: Millis,
}

impl Used {
    /// Whether there was so much left.
    fn take(&mut self, of: Allowance, amount: u64, now: Millis) -> bool {
        let regained = now.saturating_sub(self.at).saturating_mul(of.per_second) / 1_000;
        if regained > 0 {
            self.amount = self.amount.saturating_sub(regained);
            self.at = now;
        }
        self.amount = self.amount.saturating_add(amount);
        self.amount <= of.most
    }

    fn give_back(&mut self, amount: u64) {
        self.amount = self.amount.saturating_sub(amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        greeting: Duration::from_secs(5),
        idle: Duration::from_secs(300),
        answer: Duration::from_secs(120),
    };

    fn greeted() -> Conduct {
        let mut conduct = Conduct::new(0);
        assert!(conduct.greeted() && !conduct.greeted());
        conduct
    }

    #[test]
    fn who_says_nothing_has_the_time_of_a_greeting() {
        let mut conduct = Conduct::new(1_000);
        assert_eq!(conduct.verdict(&PATIENCE, 5_999), Verdict::Stay(6_000));
        assert_eq!(conduct.verdict(&PATIENCE, 6_000), Verdict::End(Why::Silent));
        conduct.shook_hands(3_000);
        assert_eq!(conduct.verdict(&PATIENCE, 6_000), Verdict::Stay(8_000));
        conduct.greeted();
        assert_eq!(conduct.verdict(&PATIENCE, 8_000), Verdict::Stay(303_000));
    }

    #[test]
    fn only_who_has_no_call_is_idle() {
        let mut conduct = greeted();
        let call = conduct.call_began(true, 299_000);
        assert_eq!(conduct.verdict(&PATIENCE, 301_000), Verdict::Stay(419_000));
        assert_eq!(conduct.rank(301_000), None);
        conduct.call_ended(call, Ended::Answered, 302_000);
        assert_eq!(conduct.verdict(&PATIENCE, 302_000), Verdict::Stay(602_000));
        assert_eq!(conduct.verdict(&PATIENCE, 602_000), Verdict::End(Why::Idle));
    }

    #[test]
    fn the_oldest_call_decides_and_streams_go_on() {
        let mut conduct = greeted();
        let stream = conduct.call_began(true, 0);
        conduct.goes_on(stream);
        assert_eq!(conduct.verdict(&PATIENCE, 1 << 40), Verdict::Stay(Millis::MAX));
        let first = conduct.call_began(true, 1_000);
        conduct.call_began(true, 2_000);
        assert_eq!(conduct.verdict(&PATIENCE, 120_000), Verdict::Stay(121_000));
        conduct.call_ended(first, Ended::Left, 120_500);
        assert_eq!(conduct.verdict(&PATIENCE, 121_000), Verdict::Stay(122_000));
        assert_eq!(conduct.verdict(&PATIENCE, 122_000), Verdict::End(Why::Slow));
    }

    #[test]
    fn bytes_of_calls_are_no_flood_and_others_are() {
        let mut conduct = greeted();
        for _ in 0..1_000 {
            assert!(!conduct.received(1 << 20, 0));
            conduct.meant(1 << 20);
        }
        let mut pings = 0;
        while !conduct.received(17, 0) {
            pings += 1;
        }
        assert_eq!(pings, PROTOCOL_BYTES.most / 17);
        assert_eq!(conduct.verdict(&PATIENCE, 0), Verdict::End(Why::Flood));
        let mut slow = greeted();
        assert!((0..10_000).all(|second| !slow.received(PROTOCOL_BYTES.per_second, second * 1_000)));
    }

    #[test]
    fn what_came_for_refused_calls_is_no_flood_unless_there_are_very_many() {
        let mut conduct = greeted();
        for _ in 0..FORGIVEN.most / 2 {
            // Before the refusal, and after it.
            assert!(!conduct.received(UNREAD, 0));
            conduct.left_unread(0);
            conduct.left_unread(0);
            assert!(!conduct.received(UNREAD, 0));
        }
        assert!(!conduct.received(PROTOCOL_BYTES.most, 0), "nothing of that was used");
        conduct.left_unread(0);
        assert!(conduct.received(1, 0));
    }

    #[test]
    fn who_gives_up_call_after_call_is_ended() {
        let mut conduct = greeted();
        let mut given_up = 0;
        loop {
            let call = conduct.call_began(true, 0);
            if conduct.call_ended(call, Ended::GivenUp, 0) {
                break;
            }
            given_up += 1;
        }
        assert_eq!(given_up, GIVEN_UP.most);
    }

    #[test]
    fn one_call_that_is_let_in_forgives_those_that_were_sent_away() {
        let mut conduct = greeted();
        for _ in 1..SENT_AWAY {
            assert!(!conduct.sent_away());
        }
        conduct.let_in();
        for _ in 1..SENT_AWAY {
            assert!(!conduct.sent_away());
        }
        assert!(conduct.sent_away());
        assert_eq!(conduct.verdict(&PATIENCE, 0), Verdict::End(Why::SentAway));
    }

    #[test]
    fn who_never_had_an_answer_goes_before_whoever_had_one() {
        let (mut old, mut new) = (greeted(), greeted());
        old.let_in();
        new.shook_hands(9_000);
        assert!(new.rank(9_000).is_some() && new.rank(9_000) < old.rank(9_000));
        assert_eq!(old.rank(IN_USE - 1), None, "it has only just been used");
        new.end(Why::MadeRoom);
        assert_eq!(new.rank(9_000), None);
    }
}
