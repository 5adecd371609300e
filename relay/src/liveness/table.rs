//! All leases of one relay.
//!
//! A beat takes one shard of the table for reading and the lock of its own lease, which nobody else wants; it
//! allocates nothing and touches nothing that is shared by all. Lock order: shard, lease, wheel; a tick lets the
//! wheel go before it looks at leases.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use dashmap::{DashMap, Entry};
use dormouse_proto::ids::{Group, Incarnation};
use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::{
    Contact, Due, Evidence, Heard, LeaseKey, LeasePolicy, LeaseSettings, LeaseState, LeaseView, Session,
    Timestamp,
    guard::HoldReason,
    lease::Lease,
    wheel::{Place, Wheel},
};

/// Members of a namespace by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberCounts {
    /// Inside an invocation.
    pub awake: u64,
    /// Frozen, and said so.
    pub asleep: u64,
    /// Lease ran out.
    pub suspect: u64,
}

/// A member that the fold knew when this relay started.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Whose lease.
    pub key: LeaseKey,
    /// What it runs.
    pub group: Group,
    /// The newest evidence, with what is left of its lease in log time as `ttl`.
    pub evidence: Evidence,
    /// The session whose evidence that was.
    pub holder: Session,
}

#[derive(Debug, Default)]
struct Tally {
    awake: AtomicU64,
    asleep: AtomicU64,
    suspect: AtomicU64,
}

impl Tally {
    fn of(&self, state: LeaseState) -> &AtomicU64 {
        match state {
            LeaseState::Awake => &self.awake,
            LeaseState::Asleep => &self.asleep,
            LeaseState::Suspect => &self.suspect,
        }
    }

    fn joined(&self, state: LeaseState) {
        self.of(state).fetch_add(1, Ordering::Relaxed);
    }

    fn left(&self, state: LeaseState) {
        self.of(state).fetch_sub(1, Ordering::Relaxed);
    }

    fn moved(&self, before: LeaseState, after: LeaseState) {
        if before != after {
            self.joined(after);
            self.left(before);
        }
    }
}

#[derive(Debug)]
struct Slot {
    placed: Mutex<Placed>,
    tally: Arc<Tally>,
    group: u16,
}

/// A lease and where the wheel waits for it.
#[derive(Debug)]
struct Placed {
    lease: Lease,
    /// The bucket that counts; a key found in any other one is out of date.
    place: Place,
    /// A later bucket that still holds the key, from before the lease became shorter. Going back to it when the
    /// lease is long again keeps a node that wakes and sleeps all day from filling the wheel.
    later: Option<Place>,
}

impl Placed {
    /// A lease that became longer is found when its bucket fires; one that became shorter needs an earlier one.
    fn place_earlier(&mut self, key: LeaseKey, wheel: &Mutex<Wheel>) {
        let wanted = Place::of(self.lease.next_look());
        if wanted < self.place {
            let place = wheel.lock().insert(key, wanted);
            self.later.get_or_insert(self.place);
            self.place = place;
        }
    }

    /// The bucket that counted has fired.
    fn place_again(&mut self, key: LeaseKey, wheel: &Mutex<Wheel>) {
        let wanted = Place::of(self.lease.next_look());
        self.place = match self.later.take_if(|later| *later <= wanted) {
            Some(later) => later,
            None => wheel.lock().insert(key, wanted),
        };
    }
}

/// The leases of all namespaces of one relay.
#[derive(Debug)]
pub struct LeaseTable {
    policy: LeasePolicy,
    slots: DashMap<LeaseKey, Slot, RandomState>,
    tallies: DashMap<u32, Arc<Tally>, RandomState>,
    pub(super) wheel: Mutex<Wheel>,
    /// Held for a whole tick, so that buckets are worked off in their order; what it holds is only kept for its
    /// capacity.
    tick: Mutex<Vec<(Place, LeaseKey)>>,
}

impl LeaseTable {
    /// An empty table.
    pub fn new(policy: LeasePolicy) -> Self {
        Self {
            policy,
            slots: DashMap::with_hasher(RandomState::default()),
            tallies: DashMap::with_hasher(RandomState::default()),
            wheel: Mutex::new(Wheel::new()),
            tick: Mutex::default(),
        }
    }

    /// The lease settings that the table works with.
    pub fn policy(&self) -> &LeasePolicy {
        &self.policy
    }

    /// A request of a node arrived. Grants at most an awake lease; a longer one waits for
    /// [`Self::evidence_applied`]. A wake takes effect at once: it gives up what was left of the sleep.
    pub fn heard(&self, now: Timestamp, key: LeaseKey, contact: &Contact) -> Heard {
        self.change(key, |lease, settings| lease.hear(now, contact, settings)).unwrap_or(Heard::Unknown)
    }

    /// Evidence was read from the log, of this relay or of another one. All that the fold accepts must be told
    /// here, because a Gone names the newest beat that was. Answers whether it counted.
    pub fn evidence_applied(&self, now: Timestamp, key: LeaseKey, evidence: &Evidence, by: Session) -> bool {
        self.change(key, |lease, settings| lease.apply(now, evidence, by, settings)).unwrap_or(false)
    }

    /// A Join took effect, with the evidence that rode on it. The same one again is only evidence.
    pub fn admitted(&self, now: Timestamp, key: LeaseKey, group: &Group, evidence: &Evidence, by: Session) {
        let number = self.policy.number(group);
        let lease = Lease::told(now, evidence, by, self.policy.numbered(number));
        match self.slots.entry(key) {
            Entry::Vacant(vacant) => {
                let tally = self.tally(key.namespace);
                tally.joined(lease.state);
                let place = self.wheel.lock().insert(key, Place::of(lease.next_look()));
                let placed = Mutex::new(Placed { lease, place, later: None });
                vacant.insert(Slot { placed, tally, group: number });
            }
            Entry::Occupied(mut occupied) => {
                let slot = occupied.get_mut();
                let placed = slot.placed.get_mut();
                let before = placed.lease.state;
                if evidence.incarnation > placed.lease.incarnation {
                    placed.lease = lease;
                    slot.group = number;
                } else {
                    placed.lease.apply(now, evidence, by, self.policy.numbered(slot.group));
                }
                slot.tally.moved(before, placed.lease.state);
                placed.place_earlier(key, &self.wheel);
            }
        }
    }

    /// The members that the fold knew at the start. None has less than one awake lease, because nobody listened
    /// to them while the relay was away (rule L6).
    pub fn restored(&self, now: Timestamp, members: impl IntoIterator<Item = Restored>) {
        for Restored { key, group, mut evidence, holder } in members {
            evidence.ttl = evidence.ttl.max(self.policy.of(&group).awake);
            self.admitted(now, key, &group, &evidence, holder);
        }
    }

    /// A Gone, Leave or Evict took effect. Answers whether that incarnation was known.
    pub fn ended(&self, key: LeaseKey, incarnation: Incarnation) -> bool {
        let same = |_: &LeaseKey, slot: &mut Slot| slot.placed.get_mut().lease.incarnation == incarnation;
        let Some((_, mut slot)) = self.slots.remove_if_mut(&key, same) else {
            return false;
        };
        slot.tally.left(slot.placed.get_mut().lease.state);
        true
    }

    /// A proposed Gone was void, or could not be appended: the node may be heard again, and is proposed again if
    /// it stays silent.
    pub fn gone_rejected(&self, now: Timestamp, key: LeaseKey, incarnation: Incarnation) {
        self.change(key, |lease, _| {
            if lease.incarnation == incarnation {
                lease.spare(now);
            }
        });
    }

    /// What silence has led to by `now`: all of it, however much. While expiry is held nobody's end is proposed,
    /// nor is the end of a lease of a session that this relay does not answer for; both are looked at again.
    pub fn due(
        &self,
        now: Timestamp,
        hold: Option<HoldReason>,
        answers_for: impl Fn(Session) -> bool,
        out: &mut Vec<Due>,
    ) {
        let mut fired = self.tick.lock();
        self.wheel.lock().fire(now, &mut fired);
        for (place, key) in fired.drain(..) {
            let Some(slot) = self.slots.get(&key) else {
                continue;
            };
            let mut placed = slot.placed.lock();
            if placed.place != place {
                continue;
            }
            let before = placed.lease.state;
            let settings = self.policy.numbered(slot.group);
            placed.lease.look(key, now, settings, |holder| hold.is_none() && answers_for(holder), out);
            slot.tally.moved(before, placed.lease.state);
            placed.place_again(key, &self.wheel);
        }
    }

    /// When [`Self::due`] next has something to look at.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.wheel.lock().next()
    }

    /// A lease as it is shown.
    pub fn view(&self, key: LeaseKey, now: Timestamp) -> Option<LeaseView> {
        let slot = self.slots.get(&key)?;
        let view = slot.placed.lock().lease.view(now);
        Some(view)
    }

    /// Members of a namespace by state.
    pub fn counts(&self, namespace: u32) -> MemberCounts {
        self.tallies.get(&namespace).map_or_else(MemberCounts::default, |tally| MemberCounts {
            awake: tally.awake.load(Ordering::Relaxed),
            asleep: tally.asleep.load(Ordering::Relaxed),
            suspect: tally.suspect.load(Ordering::Relaxed),
        })
    }

    fn tally(&self, namespace: u32) -> Arc<Tally> {
        Arc::clone(&self.tallies.entry(namespace).or_default())
    }

    fn change<T>(&self, key: LeaseKey, change: impl FnOnce(&mut Lease, &LeaseSettings) -> T) -> Option<T> {
        let slot = self.slots.get(&key)?;
        let mut placed = slot.placed.lock();
        let before = placed.lease.state;
        let changed = change(&mut placed.lease, self.policy.numbered(slot.group));
        slot.tally.moved(before, placed.lease.state);
        placed.place_earlier(key, &self.wheel);
        Some(changed)
    }
}
