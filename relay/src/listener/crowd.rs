//! All connections, and who of them goes when there are too many. Reads no clock: `now` is an argument.
//!
//! A new connection is worth more than an idle one: whoever holds an idle one and lives comes back with one more round
//! trip, while a function that is turned away has nothing. So the idlest goes first, and among the idle those that never had
//! an answer, which is all that somebody without a token can hold. Who has a call under way, or had an answer within a few
//! seconds, is never closed for another; if all have, the new one is turned away at once, because a queue would only hide that.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;

use super::{
    conduct::{Conduct, Millis, Rank, Why},
    member::Member,
};

/// Found in one look over all, because a look takes a lock for each of them.
const LOOK: usize = 64;
/// Nobody looks again so soon after a look that found nobody.
const BLIND: Millis = 100;

/// How many there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) all: usize,
    pub(super) per_address: usize,
    /// Who has not said what he wants.
    pub(super) newcomers: usize,
}

/// Why a new connection is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    /// All places are taken by connections with calls under way.
    Full,
    /// Likewise all places of its address.
    AddressFull,
}

/// Everybody who is connected.
#[derive(Debug)]
pub(super) struct Crowd {
    room: Room,
    newcomers: Arc<AtomicUsize>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    members: HashMap<u64, Arc<Member>>,
    per_address: HashMap<IpAddr, usize>,
    next: u64,
    /// In the order in which they came; some have gone on or away since.
    newcomers: VecDeque<u64>,
    /// Found by the last look, the first to go at the front; of one address, or of all.
    found: VecDeque<(u64, Rank)>,
    found_of: Option<IpAddr>,
    blind_until: Millis,
}

/// The part of an address that somebody is given as a whole: of IPv6 that is a /64.
pub(super) fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Crowd {
    pub(super) fn new(room: Room) -> Self {
        Self { room, newcomers: Arc::default(), state: Mutex::default() }
    }

    /// Takes a new connection in, if necessary in the place of another one. Those are told.
    pub(super) fn admit(&self, address: IpAddr, now: Millis) -> Result<Arc<Member>, TurnedAway> {
        let address = origin(address);
        let mut state = self.state.lock();
        let of_address = state.per_address.get(&address).copied().unwrap_or(0);
        if of_address >= self.room.per_address && !state.make_room(Some(address), now) {
            return Err(TurnedAway::AddressFull);
        }
        if state.members.len() >= self.room.all && !state.make_room(None, now) {
            return Err(TurnedAway::Full);
        }
        if self.newcomers.load(Relaxed) >= self.room.newcomers {
            state.drop_oldest_newcomer();
        }
        state.next += 1;
        let number = state.next;
        let member = Arc::new(Member::new(number, address, Conduct::new(now), Arc::clone(&self.newcomers)));
        state.members.insert(number, Arc::clone(&member));
        *state.per_address.entry(address).or_default() += 1;
        state.newcomers.push_back(number);
        if state.newcomers.len() > 2 * self.room.newcomers {
            let State { newcomers, members, .. } = &mut *state;
            newcomers.retain(|it| members.get(it).is_some_and(|member| member.is_newcomer()));
        }
        Ok(member)
    }

    /// A connection has ended.
    pub(super) fn leave(&self, member: &Member) {
        self.state.lock().forget(member.number());
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.state.lock().members.len()
    }
}

impl State {
    fn forget(&mut self, number: u64) -> Option<Arc<Member>> {
        let member = self.members.remove(&number)?;
        if let Some(count) = self.per_address.get_mut(&member.address()) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&member.address());
            }
        }
        Some(member)
    }

    /// Closes the idlest, of that address or of all; its place counts as free from now on.
    fn make_room(&mut self, of: Option<IpAddr>, now: Millis) -> bool {
        if self.found_of != of {
            self.found.clear();
            (self.found_of, self.blind_until) = (of, 0);
        }
        if self.close_first_found(now) {
            return true;
        }
        if now < self.blind_until {
            return false;
        }
        self.look(of, now);
        let closed = self.close_first_found(now);
        if !closed {
            self.blind_until = now + BLIND;
        }
        closed
    }

    fn close_first_found(&mut self, now: Millis) -> bool {
        while let Some((number, rank)) = self.found.pop_front() {
            let still = self.members.get(&number).is_some_and(|it| it.rank(now) == Some(rank));
            if still && self.forget(number).is_some_and(|it| it.end(Why::MadeRoom)) {
                return true;
            }
        }
        false
    }

    fn look(&mut self, of: Option<IpAddr>, now: Millis) {
        let idle = self
            .members
            .iter()
            .filter(|(_, member)| of.is_none_or(|address| member.address() == address))
            .filter_map(|(number, member)| Some((member.rank(now)?, *number)));
        let mut idle: Vec<_> = idle.collect();
        if idle.len() > LOOK {
            idle.select_nth_unstable(LOOK - 1);
            idle.truncate(LOOK);
        }
        idle.sort_unstable();
        self.found = idle.into_iter().map(|(rank, number)| (number, rank)).collect();
    }

    fn drop_oldest_newcomer(&mut self) {
        while let Some(number) = self.newcomers.pop_front() {
            if !self.members.get(&number).is_some_and(|it| it.is_newcomer()) {
                continue;
            }
            let Some(member) = self.forget(number) else { continue };
            if member.end(Why::MadeRoom) {
                // It does not count any more, however long it takes to be gone.
                member.greet();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::conduct::{Ended, IN_USE, Patience, Verdict};

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn crowd(all: usize, per_address: usize, newcomers: usize) -> Crowd {
        Crowd::new(Room { all, per_address, newcomers })
    }

    fn ended(member: &Member) -> bool {
        const LONG: std::time::Duration = std::time::Duration::from_secs(1 << 30);
        let patience = Patience { greeting: LONG, idle: LONG, answer: LONG };
        member.verdict(&patience, 0) == Verdict::End(Why::MadeRoom)
    }

    /// So many who have said what they want and wait, each a millisecond after the one before.
    fn waiting(crowd: &Crowd, address: IpAddr, count: u64) -> Vec<Arc<Member>> {
        let admit = |at| {
            let member = crowd.admit(address, at).expect("room");
            member.greet();
            member
        };
        (0..count).map(admit).collect()
    }

    #[test]
    fn the_idlest_makes_room_and_who_had_an_answer_goes_last() {
        let crowd = crowd(4, 100, 100);
        let members = waiting(&crowd, ONE, 4);
        members[0].let_in();
        crowd.admit(OTHER, IN_USE).expect("somebody goes");
        assert_eq!(members.iter().map(|it| ended(it)).collect::<Vec<_>>(), [false, true, false, false]);
        assert_eq!(crowd.len(), 4);
    }

    #[test]
    fn a_call_under_way_is_never_closed_and_the_new_one_is_turned_away() {
        let crowd = crowd(2, 100, 100);
        let members = waiting(&crowd, ONE, 2);
        let calls: Vec<_> = members.iter().map(|it| it.call_began(5)).collect();
        assert_eq!(crowd.admit(OTHER, 10).map(|_| ()), Err(TurnedAway::Full));
        members[0].call_ended(calls[0], Ended::Answered, 20);
        // It looks again only after a while: that a look costs something must not help who causes looks.
        assert_eq!(crowd.admit(OTHER, 50).map(|_| ()), Err(TurnedAway::Full));
        crowd.admit(OTHER, 10 + BLIND).expect("the idle one goes");
        assert!(ended(&members[0]) && !ended(&members[1]));
    }

    #[test]
    fn who_had_an_answer_just_now_is_not_closed_for_another() {
        let crowd = crowd(1, 100, 100);
        let members = waiting(&crowd, ONE, 1);
        members[0].let_in();
        assert_eq!(crowd.admit(OTHER, IN_USE - 1).map(|_| ()), Err(TurnedAway::Full));
        crowd.admit(OTHER, IN_USE - 1 + BLIND).expect("it is idle by now");
        assert!(ended(&members[0]));
    }

    #[test]
    fn an_address_that_has_its_share_only_takes_from_itself() {
        let crowd = crowd(100, 3, 100);
        let (mine, others) = (waiting(&crowd, ONE, 3), waiting(&crowd, OTHER, 3));
        crowd.admit(ONE, 10).expect("one of its own goes");
        assert!(ended(&mine[0]) && others.iter().all(|it| !ended(it)));
        let _calls: Vec<_> = others.iter().map(|it| it.call_began(5)).collect();
        assert_eq!(crowd.admit(OTHER, 10).map(|_| ()), Err(TurnedAway::AddressFull));
        crowd.leave(&others[0]);
        crowd.admit(OTHER, 10).expect("there is room again");
    }

    #[test]
    fn a_place_that_has_been_used_since_the_look_stays() {
        let crowd = crowd(3, 100, 100);
        let members = waiting(&crowd, ONE, 3);
        crowd.admit(ONE, 10).expect("the first goes").greet();
        let call = members[1].call_began(20);
        members[1].call_ended(call, Ended::Answered, 30);
        crowd.admit(ONE, 40).expect("the third goes");
        assert_eq!(members.iter().map(|it| ended(it)).collect::<Vec<_>>(), [true, false, true]);
    }

    #[test]
    fn the_oldest_newcomer_goes_first_and_is_counted_once() {
        let crowd = crowd(1_000, 1_000, 2);
        let first = crowd.admit(ONE, 0).expect("room");
        let second = crowd.admit(ONE, 1).expect("room");
        first.greet();
        let third = crowd.admit(ONE, 2).expect("room");
        let fourth = crowd.admit(ONE, 3).expect("the second goes");
        assert_eq!([&first, &second, &third, &fourth].map(|it| ended(it)), [false, true, false, false]);
        for at in 4..1_000 {
            crowd.admit(ONE, at).expect("room").greet();
        }
        assert!(ended(&third) && !ended(&fourth), "only the first of the rest found the places taken");
        assert!(crowd.state.lock().newcomers.len() <= 5);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let at = |text: &str| origin(text.parse().expect("an address"));
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1:2:3"));
        assert_ne!(at("2001:db8:0:1::1"), at("2001:db8::1"));
        assert_eq!(at("::ffff:192.0.2.1"), ONE);
    }
}
