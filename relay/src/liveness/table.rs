//! All leases of one relay.
//!
//! A beat takes one shard of the table for reading and the lock of its own lease, which nobody else wants; it
//! allocates nothing and touches nothing that is shared by all. Lock order: shard, lease, wheel; a tick lets the
//! wheel go before it looks at leases.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use dashmap::{DashMap, Entry};
use dormouse_proto::ids::{Beat, Group, Incarnation};
use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::{
    Activity, Contact, Due, Evidence, Heard, Learned, LeaseKey, LeasePolicy, LeaseSettings, LeaseView,
    Millis, Session, Timestamp,
    group::{GroupKey, GroupLife, Standing},
    guard::HoldReason,
    lease::Lease,
    load::Stretch,
    mass_loss::MassLoss,
    tally::{MemberCounts, Tally},
    wheel::{Place, Wheel},
};

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

/// Why a membership is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing was heard of it.
    Silent,
    /// It left, or somebody evicted it.
    Told,
}

/// The members of one group in one namespace, as they are counted.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupCounts {
    /// The number of the namespace.
    pub namespace: u32,
    /// Its name.
    pub group: Group,
    /// Since when this relay knows of it.
    pub since: Timestamp,
    /// By state.
    pub members: MemberCounts,
    /// How many of them are alive, as the sum of their likelihoods at the last [`LeaseTable::refit`].
    pub expected_alive: f64,
    /// How many were declared GONE for their silence, since this relay knows of the group.
    pub expired: u64,
    /// How many of those came back while they were waited for.
    pub back: u64,
}

#[derive(Debug)]
struct Slot {
    placed: Mutex<Placed>,
    tally: Arc<Tally>,
    life: Arc<GroupLife>,
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
    lives: DashMap<GroupKey, Arc<GroupLife>, RandomState>,
    /// Awake leases are this many percent of what the settings say.
    percent: AtomicU32,
    stretch: Mutex<Stretch>,
    mass_loss: Mutex<MassLoss>,
    /// Until when it holds, for those who must not wait for a look.
    mass_loss_until: AtomicU64,
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
            lives: DashMap::with_hasher(RandomState::default()),
            percent: AtomicU32::new(100),
            stretch: Mutex::default(),
            mass_loss: Mutex::default(),
            mass_loss_until: AtomicU64::new(0),
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
        self.change(now, key, |lease, settings| lease.hear(now, contact, settings)).unwrap_or(Heard::Unknown)
    }

    /// Evidence was read from the log, of this relay or of another one. All that the fold accepts must be told
    /// here, because a Gone names the newest beat that was. Answers whether it counted.
    pub fn evidence_applied(&self, now: Timestamp, key: LeaseKey, evidence: &Evidence, by: Session) -> bool {
        self.change(now, key, |lease, settings| lease.apply(now, evidence, by, settings)).unwrap_or(false)
    }

    /// A Join took effect, with the evidence that rode on it. The same one again is only evidence.
    pub fn admitted(&self, now: Timestamp, key: LeaseKey, group: &Group, evidence: &Evidence, by: Session) {
        self.admit(now, key, group, evidence, by, true);
    }

    fn admit(
        &self,
        now: Timestamp,
        key: LeaseKey,
        group: &Group,
        evidence: &Evidence,
        by: Session,
        is_new: bool,
    ) {
        let life = self.life(now, key.namespace, group);
        let mut lease = Lease::told(now, evidence, by, &self.settings(&life, key));
        if !is_new {
            lease.began_unseen();
        }
        match self.slots.entry(key) {
            Entry::Vacant(vacant) => {
                let tally = self.tally(key.namespace);
                tally.joined(lease.state);
                life.tally.joined(lease.state);
                life.joined(key.node, lease.standing(), now);
                let place = self.wheel.lock().insert(key, Place::of(lease.next_look()));
                let placed = Mutex::new(Placed { lease, place, later: None });
                vacant.insert(Slot { placed, tally, life });
            }
            Entry::Occupied(mut occupied) => {
                let slot = occupied.get_mut();
                let placed = slot.placed.get_mut();
                let (before, stood) = (placed.lease.state, placed.lease.standing());
                slot.life.tally.left(before);
                if evidence.incarnation > placed.lease.incarnation {
                    slot.life.ended(key.node, stood, now, false);
                    life.joined(key.node, lease.standing(), now);
                    placed.lease = lease;
                    slot.life = life;
                } else {
                    placed.lease.apply(now, evidence, by, &self.settings(&slot.life, key));
                    slot.life.moved(stood, placed.lease.standing(), now);
                }
                slot.life.tally.joined(placed.lease.state);
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
            self.admit(now, key, &group, &evidence, holder, false);
        }
    }

    /// All members that are known, in no order.
    pub fn known(&self) -> Vec<(LeaseKey, Incarnation)> {
        self.slots.iter().map(|slot| (*slot.key(), slot.placed.lock().lease.incarnation)).collect()
    }

    /// A Gone, Leave or Evict took effect. Answers whether that incarnation was known.
    pub fn ended(&self, now: Timestamp, key: LeaseKey, incarnation: Incarnation, how: Ended) -> bool {
        let same = |_: &LeaseKey, slot: &mut Slot| slot.placed.get_mut().lease.incarnation == incarnation;
        let Some((_, mut slot)) = self.slots.remove_if_mut(&key, same) else {
            return false;
        };
        let lease = &slot.placed.get_mut().lease;
        slot.tally.left(lease.state);
        slot.life.tally.left(lease.state);
        if how == Ended::Silent {
            slot.life.tally.expire();
        }
        slot.life.ended(key.node, lease.standing(), now, how == Ended::Silent);
        true
    }

    /// The Gone that named this beat was void, or could not be appended: the node may be heard again, and is proposed
    /// again if it stays silent. A Gone of a newer beat is under way nevertheless.
    pub fn gone_rejected(&self, now: Timestamp, key: LeaseKey, incarnation: Incarnation, beat: Beat) {
        self.change(now, key, |lease, _| {
            if lease.incarnation == incarnation {
                lease.spare(now, beat);
            }
        });
    }

    /// The others are asked before the end of this node is proposed; meanwhile it may be heard.
    pub fn ask(&self, now: Timestamp, key: LeaseKey, beat: Beat) {
        self.change(now, key, |lease, _| lease.ask(beat));
    }

    /// All others have answered. Answers whether its end is to be proposed: nothing was heard of it since.
    pub fn end_asked(&self, now: Timestamp, key: LeaseKey, incarnation: Incarnation, beat: Beat) -> bool {
        self.change(now, key, |lease, _| lease.end_asked(incarnation, beat)).unwrap_or(false)
    }

    /// A relay asks whether anybody has heard of a node since that beat (rule L5).
    pub fn doubt(&self, now: Timestamp, key: LeaseKey, incarnation: Incarnation, beat: Beat) {
        self.change(now, key, |lease, _| lease.doubt(incarnation, beat));
    }

    /// Whether a node may be promised nothing that the log has not told of: a relay may be about to end it.
    pub fn is_doubted(&self, key: LeaseKey) -> bool {
        self.slots.get(&key).is_some_and(|slot| slot.placed.lock().lease.doubted)
    }

    /// Whether a Gone of this node is under way.
    pub fn is_ending(&self, key: LeaseKey) -> bool {
        self.slots.get(&key).is_some_and(|slot| slot.placed.lock().lease.is_ending())
    }

    /// What a contact earns once the log has told of it, if it is the newest one of its node.
    pub fn earns(&self, key: LeaseKey, contact: &Contact) -> Option<Millis> {
        let slot = self.slots.get(&key)?;
        slot.placed.lock().lease.earns(contact)
    }

    /// Whether the log has told of the newest contact of a node.
    pub fn is_told(&self, key: LeaseKey) -> bool {
        self.slots.get(&key).is_some_and(|slot| slot.placed.lock().lease.is_told())
    }

    /// What silence has led to by `now`: all of it, however much. While expiry is held nobody's end is proposed,
    /// nor is the end of a lease of a session that this relay does not answer for; both are looked at again. So are
    /// those that fell silent with very many others. Answers whether it has just come to that.
    pub fn due(
        &self,
        now: Timestamp,
        hold: Option<HoldReason>,
        answers_for: impl Fn(Session) -> bool,
        out: &mut Vec<Due>,
    ) -> bool {
        let mut fired = self.tick.lock();
        self.wheel.lock().fire(now, &mut fired);
        let is_mass = self.mass_loss_held(now);
        let mut lapsed = 0;
        for (place, key) in fired.drain(..) {
            let Some(slot) = self.slots.get(&key) else {
                continue;
            };
            let mut placed = slot.placed.lock();
            if placed.place != place {
                continue;
            }
            let (before, stood) = (placed.lease.state, placed.lease.standing());
            let settings = self.settings(&slot.life, key);
            let may_end = |holder, standing| {
                hold.is_none() && answers_for(holder) && !(is_mass && standing == Standing::Lapsed)
            };
            placed.lease.look(key, now, &settings, may_end, out);
            let stands = placed.lease.standing();
            lapsed += u64::from(stands == Standing::Lapsed && stood != stands);
            slot.life.moved(stood, stands, now);
            slot.tally.moved(before, placed.lease.state);
            slot.life.tally.moved(before, placed.lease.state);
            placed.place_again(key, &self.wheel);
        }
        drop(fired);
        let awake = self.tallies.iter().map(|it| it.counts().awake).sum();
        let mut guard = self.mass_loss.lock();
        let begins = guard.look(now, lapsed, awake, self.policy.longest_awake());
        self.mass_loss_until.store(guard.held_until.0, Ordering::Relaxed);
        begins
    }

    /// Draws the conclusions of what every group has taught; about once a second.
    pub fn refit(&self, now: Timestamp) {
        let mut expected: HashMap<u32, f64> = HashMap::new();
        for life in &self.lives {
            let alive = life.refit(now, self.policy.numbered(life.settings));
            life.tally.expect(alive);
            *expected.entry(life.namespace).or_default() += alive;
        }
        // Nobody is a member of it, and what it has taught has faded.
        self.lives.retain(|_, life| Arc::strong_count(life) > 1 || life.is_remembered());
        for tally in &self.tallies {
            let alive = expected.get(tally.key()).copied().unwrap_or_default();
            tally.expect(alive);
        }
    }

    /// How many members of a namespace are alive, as the sum of their likelihoods at the last [`Self::refit`].
    pub fn expected_alive(&self, namespace: u32) -> f64 {
        self.tallies.get(&namespace).map_or(0.0, |tally| tally.expected())
    }

    /// What is learned of a group; `None`: nobody of it was ever a member here.
    pub fn learned(&self, namespace: u32, group: &Group) -> Option<Learned> {
        self.lives.get(&(namespace, group.clone())).map(|life| life.learned())
    }

    /// What a node of this group is granted now, once the log has told of its contact.
    pub fn grant(&self, key: LeaseKey, group: &Group, activity: Activity) -> Millis {
        let settings = match self.lives.get(&(key.namespace, group.clone())) {
            Some(life) => self.settings(&life, key),
            None => {
                let settings = self.policy.of(group);
                settings.with(settings.asleep, self.percent())
            }
        };
        settings.when_applied(activity)
    }

    /// This relay looked at its leases so much later than it wanted to. Answers the percentage of the usual that awake
    /// leases have from here on.
    pub fn looked_late(&self, late: Millis) -> u32 {
        let percent = self.stretch.lock().look(late, self.policy.longest_awake());
        self.percent.store(percent, Ordering::Relaxed);
        percent
    }

    /// The percentage of the usual that awake leases have; above 100 while this relay answers late.
    pub fn percent(&self) -> u32 {
        self.percent.load(Ordering::Relaxed)
    }

    /// Whether ends are held because very many members fell silent at once.
    pub fn mass_loss_held(&self, now: Timestamp) -> bool {
        now.0 < self.mass_loss_until.load(Ordering::Relaxed)
    }

    /// When [`Self::due`] next has something to look at.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.wheel.lock().next()
    }

    /// A lease as it is shown.
    pub fn view(&self, key: LeaseKey, now: Timestamp) -> Option<LeaseView> {
        let slot = self.slots.get(&key)?;
        let placed = slot.placed.lock();
        let p_alive = slot.life.p_alive(placed.lease.standing(), now);
        Some(LeaseView { p_alive, ..placed.lease.view(now) })
    }

    /// Members of a namespace by state.
    pub fn counts(&self, namespace: u32) -> MemberCounts {
        self.tallies.get(&namespace).map_or_else(MemberCounts::default, |tally| tally.counts())
    }

    /// The groups that have members, those first that this relay knew first, then by namespace and name.
    pub fn groups(&self) -> Vec<GroupCounts> {
        let counted = self.lives.iter().map(|life| GroupCounts {
            namespace: life.namespace,
            group: life.key().1.clone(),
            since: life.since,
            members: life.tally.counts(),
            expected_alive: life.tally.expected(),
            expired: life.tally.expired(),
            back: life.tally.back(),
        });
        let mut groups: Vec<GroupCounts> = counted.filter(|it| it.members.all() > 0).collect();
        groups
            .sort_unstable_by(|a, b| (a.since, a.namespace, &a.group).cmp(&(b.since, b.namespace, &b.group)));
        groups
    }

    fn tally(&self, namespace: u32) -> Arc<Tally> {
        Arc::clone(&self.tallies.entry(namespace).or_default())
    }

    fn life(&self, now: Timestamp, namespace: u32, group: &Group) -> Arc<GroupLife> {
        let settings = self.policy.number(group);
        let life = self.lives.entry((namespace, group.clone()));
        Arc::clone(&life.or_insert_with(|| Arc::new(GroupLife::new(namespace, settings, now))))
    }

    /// The settings of a group, with what was learned of it and what this relay's load asks for.
    fn settings(&self, life: &GroupLife, key: LeaseKey) -> LeaseSettings {
        let settings = self.policy.numbered(life.settings);
        settings.with(life.asleep_lease(key.node, settings), self.percent())
    }

    fn change<T>(
        &self,
        now: Timestamp,
        key: LeaseKey,
        change: impl FnOnce(&mut Lease, &LeaseSettings) -> T,
    ) -> Option<T> {
        let slot = self.slots.get(&key)?;
        let mut placed = slot.placed.lock();
        let (before, stood) = (placed.lease.state, placed.lease.standing());
        let changed = change(&mut placed.lease, &self.settings(&slot.life, key));
        slot.life.moved(stood, placed.lease.standing(), now);
        slot.tally.moved(before, placed.lease.state);
        slot.life.tally.moved(before, placed.lease.state);
        placed.place_earlier(key, &self.wheel);
        Some(changed)
    }
}
