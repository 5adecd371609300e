//! The shell around the leases: hears contacts, tells the log of them, and proposes the ends that silence leads to.
//!
//! Beats never reach the log one by one. Once a second a digest tells what changed; nobody in contact, no digest.

mod ending;
mod evidence;
mod line;
mod obituary;
mod telling;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use dormouse_proto::{
    ids::{Beat, Group, Namespace, NodeId},
    record::{self, Cause, Digest, Record},
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, broadcast, watch},
    time::{MissedTickBehavior, interval},
};
use tracing::warn;

use crate::{
    clock::Clock,
    liveness::{
        Activity, Company, Contact, Due, Ended, Evidence, GroupCounts, Heard, Learned, LeaseKey, LeasePolicy,
        LeaseSettings, LeaseState, LeaseView, MemberCounts, Millis, Restored, Session, Timestamp,
        guard::{HoldNumber, HoldReason},
    },
    log::Position,
    metrics::Metrics,
    sequencer::{Sequencer, Witness},
    state::{Fold, JoinVerdict, Verdict},
};

pub use evidence::{activity_of, contact_of, evidence_of};
pub use obituary::Obituary;

pub use crate::liveness::Told;

use line::Line;
use obituary::Obituaries;

/// How often silence is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Looks between two digests: one second.
const LOOKS_PER_DIGEST: u32 = 10;
/// Looks between two digests that only move log time: five seconds, the most that one may move it.
const LOOKS_PER_TIME: u32 = 50;
/// Events that a slow watcher of activity may be behind before it misses some.
const ACTIVITY: usize = 4_096;
/// How long the log is waited for before it counts as lost.
const LOG_PATIENCE: Duration = Duration::from_millis(2_500);

/// A member turned AWAKE, ASLEEP or SUSPECT.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Where.
    pub namespace: u32,
    /// Who.
    pub node: NodeId,
    /// Into what.
    pub state: LeaseState,
}

/// The leases of this relay.
#[derive(Debug)]
pub struct Keeper {
    company: Company,
    clock: Clock,
    names: DashMap<u32, Namespace>,
    /// Log time when it last moved, and when that was here.
    log_time: Mutex<(u64, Timestamp)>,
    turns: broadcast::Sender<Turn>,
    /// How often this relay's word became weaker, or as good as usual again.
    weakened: watch::Sender<u64>,
    /// Ends that wait to be proposed.
    line: Mutex<Line>,
    obituaries: Mutex<Obituaries>,
    /// The connection to the log, as of the last look.
    connection: AtomicU64,
    /// Another relay has asked or told.
    stirred: Notify,
    /// The hold that the log was last read to its head for.
    listened: Mutex<Option<HoldNumber>>,
    metrics: Arc<Metrics>,
}

impl Keeper {
    /// Nobody is known yet. `is_shared`: other relays may append to the log.
    pub fn new(policy: LeasePolicy, clock: Clock, metrics: Arc<Metrics>, is_shared: bool) -> Arc<Self> {
        Arc::new(Self {
            company: Company::new(policy, is_shared, clock.now()),
            connection: AtomicU64::new(0),
            stirred: Notify::new(),
            log_time: Mutex::new((0, clock.now())),
            clock,
            names: DashMap::new(),
            turns: broadcast::Sender::new(ACTIVITY),
            weakened: watch::Sender::new(0),
            line: Mutex::default(),
            obituaries: Mutex::default(),
            listened: Mutex::default(),
            metrics,
        })
    }

    /// Takes over what the fold knows when a session begins.
    pub fn restore(&self, fold: &Fold, session: u64) {
        let now = self.clock.now();
        *self.log_time.lock() = (fold.log_time_ms(), now);
        let mut members = Vec::new();
        for (name, view) in fold.namespaces() {
            self.names.insert(view.number(), name.clone());
            members.extend(view.members().iter().map(|(node, member)| Restored {
                key: LeaseKey { namespace: view.number(), node: *node },
                group: member.group.clone(),
                evidence: Evidence {
                    incarnation: member.incarnation,
                    beat: member.soft.beat,
                    activity: activity_of(member.soft.asleep, 0),
                    ttl: Millis(member.soft.ends_at_ms.saturating_sub(fold.log_time_ms())),
                },
                holder: Session(member.soft.holder),
            }));
        }
        self.company.begin(now, Session(session), members);
    }

    /// A request of a member arrived. Answers what may be promised although the log has not told of it yet.
    pub fn hear(&self, key: LeaseKey, contact: &Contact, told: Told) -> Heard {
        let heard = self.company.hear(self.clock.now(), || self.expiry_held(), key, contact, told);
        if let Heard::Granted { was, .. } = heard {
            let state =
                if contact.activity == Activity::Asleep { LeaseState::Asleep } else { LeaseState::Awake };
            if was != state {
                self.turned(key, state);
            }
        }
        heard
    }

    /// Whether a Gone of this node is under way.
    pub fn is_ending(&self, key: LeaseKey) -> bool {
        self.company.leases().is_ending(key)
    }

    /// How many relays are on the log, this one included.
    pub fn relays(&self) -> usize {
        self.company.count(self.clock.now())
    }

    /// What a node of this group is promised once the log has told of its contact.
    pub fn lease_of(&self, key: LeaseKey, group: &Group, activity: Activity) -> Millis {
        self.company.leases().grant(key, group, activity)
    }

    /// The leases of a group as they are set.
    pub fn settings_of(&self, group: &Group) -> LeaseSettings {
        *self.company.leases().policy().of(group)
    }

    /// What is learned of a group; `None`: nobody of it was ever a member here.
    pub fn learned(&self, namespace: u32, group: &Group) -> Option<Learned> {
        self.company.leases().learned(namespace, group)
    }

    /// How many members of a namespace are alive, as the sum of their likelihoods.
    pub fn expected_alive(&self, namespace: u32) -> f64 {
        self.company.leases().expected_alive(namespace)
    }

    /// Why a member that was declared GONE for its silence was; forgotten after some thousand others.
    pub fn obituary(&self, key: LeaseKey) -> Option<Obituary> {
        self.obituaries.lock().get(key)
    }

    /// How long this relay runs, by the clock without its own pauses.
    pub fn uptime(&self) -> Millis {
        Millis(self.clock.now().0)
    }

    /// How long this relay stood still since it started.
    pub fn stood_still(&self) -> Millis {
        self.clock.guard().lost()
    }

    /// A lease as it is shown.
    pub fn view(&self, key: LeaseKey) -> Option<LeaseView> {
        self.company.leases().view(key, self.clock.now())
    }

    /// The groups that have members, those first that this relay knew first.
    pub fn groups(&self) -> Vec<GroupCounts> {
        self.company.leases().groups()
    }

    /// Members of a namespace by state.
    pub fn counts(&self, namespace: u32) -> MemberCounts {
        self.company.leases().counts(namespace)
    }

    /// Whether nobody may be declared gone at this moment.
    pub fn expiry_held(&self) -> bool {
        self.clock.guard().expiry_held(self.clock.now()).is_some()
    }

    /// Whether members that fell silent with very many others are kept.
    pub fn mass_loss_held(&self) -> bool {
        self.company.leases().mass_loss_held(self.clock.now())
    }

    /// The percentage of the usual that awake leases have; above 100 while this relay answers late.
    pub fn lease_percent(&self) -> u32 {
        self.company.leases().percent()
    }

    /// Hears when this relay's word becomes weaker than usual, or as good as usual again.
    pub fn weakened(&self) -> watch::Receiver<u64> {
        self.weakened.subscribe()
    }

    /// Hears of members that turn AWAKE, ASLEEP or SUSPECT from here on.
    pub fn turns(&self) -> broadcast::Receiver<Turn> {
        self.turns.subscribe()
    }

    fn turned(&self, key: LeaseKey, state: LeaseState) {
        let _ = self.turns.send(Turn { namespace: key.namespace, node: key.node, state });
    }

    /// Looks at silence and tells of contacts until it is told to stop.
    pub async fn run(self: Arc<Self>, sequencer: Sequencer, mut stop: watch::Receiver<bool>) {
        let mut looks = interval(LOOK);
        // A pause of this relay must not be followed by a storm of looks.
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count: u32 = 0;
        let mut due = Vec::new();
        let (mut looked, mut word) = (self.clock.now(), self.word());
        loop {
            tokio::select! {
                _ = looks.tick() => count = count.wrapping_add(1),
                () = self.stirred.notified() => {
                    self.answer_the_others(&sequencer);
                    continue;
                }
                _ = stop.wait_for(|stop| *stop) => return,
            }
            self.notice_lateness(&mut looked);
            self.listen_after_a_hold(&sequencer);
            self.look(&sequencer, &mut due);
            if word != self.word() {
                word = self.word();
                self.weakened.send_modify(|count| *count += 1);
            }
            if count.is_multiple_of(LOOKS_PER_DIGEST) {
                self.company.leases().refit(self.clock.now());
                self.tell(&sequencer, count.is_multiple_of(LOOKS_PER_TIME));
                self.company.forget(self.clock.now());
            }
        }
    }

    /// What makes this relay's word weaker than usual.
    fn word(&self) -> (bool, bool, bool) {
        (self.expiry_held(), self.mass_loss_held(), self.lease_percent() > 100)
    }

    /// A relay that comes late to its own looks comes late to its callers too. Its pauses are no part of its time.
    fn notice_lateness(&self, looked: &mut Timestamp) {
        let now = self.clock.now();
        let late = Millis(now.since(*looked).0.saturating_sub(Millis::from(LOOK).0));
        *looked = now;
        self.metrics.looked_late(Duration::from_millis(late.0));
        let before = self.company.leases().percent();
        let percent = self.company.leases().looked_late(late);
        if percent > before {
            warn!(percent, "this relay is late: awake leases grow until it is not");
        }
    }

    /// Reports what the expiry hold waits for: that requests which had been waiting are handled, and that the log was
    /// read to its head. The hold itself lasts one awake lease at least, which is ample for the former.
    fn listen_after_a_hold(self: &Arc<Self>, sequencer: &Sequencer) {
        let hold = self.clock.guard().hold();
        // Behind a log that does not answer, questions would only pile up.
        if !self.expiry_held() || sequencer.is_stalled() || *self.listened.lock() == Some(hold) {
            return;
        }
        *self.listened.lock() = Some(hold);
        let (keeper, sequencer) = (Arc::clone(self), sequencer.clone());
        tokio::spawn(async move {
            if sequencer.write(Record::Digest(Digest::default()), 64, None, LOG_PATIENCE).await.is_ok() {
                keeper.clock.guard().log_read_to_head(hold);
                keeper.clock.guard().drained(hold);
            } else {
                *keeper.listened.lock() = None;
            }
        });
    }

    /// Draws the conclusions of silence.
    fn look(self: &Arc<Self>, sequencer: &Sequencer, due: &mut Vec<Due>) {
        let now = self.clock.now();
        // A log that cannot be read may hold contacts that others told of.
        let connection = sequencer.connection();
        if sequencer.trouble().is_some() || self.connection.swap(connection, Ordering::Relaxed) != connection
        {
            self.clock.guard().log_lost(now);
        }
        let hold = self.hold(now);
        let is_mass = self.company.look(now, hold, due);
        if is_mass {
            warn!("very many members fell silent at once: they are kept as SUSPECT for two awake leases");
            self.metrics.lost_many();
        }
        let mut silent = Vec::new();
        for due in due.drain(..) {
            match due {
                Due::Suspect { key, .. } => self.turned(key, LeaseState::Suspect),
                Due::Gone { key, incarnation, beat } => silent.push((key, incarnation, beat)),
            }
        }
        self.end(sequencer, silent);
        if hold.is_none() {
            self.conclude(sequencer);
        }
    }

    /// Why nobody may be declared gone at this moment, if so.
    fn hold(&self, now: Timestamp) -> Option<HoldReason> {
        self.company.hold(now, self.clock.guard().expiry_held(now))
    }

    fn witness_member(&self, fold: &Fold, session: u64, record: &Record, verdict: &Verdict) {
        let (now, by) = (self.clock.now(), Session(session));
        let key = |namespace: &Namespace, node| {
            fold.namespace(namespace).map(|view| LeaseKey { namespace: view.number(), node })
        };
        match (record, verdict) {
            (Record::Push(push), _) => {
                if let (Some(contact), Some(key)) = (push.contact, key(&push.namespace, push.node)) {
                    self.company.leases().evidence_applied(
                        now,
                        key,
                        &evidence_of(push.incarnation, contact),
                        by,
                    );
                }
            }
            (Record::Join(join), Verdict::Join(JoinVerdict::Admitted { again })) => {
                let Some(key) = key(&join.namespace, join.node) else { return };
                self.names.entry(key.namespace).or_insert_with(|| join.namespace.clone());
                let silent = record::Contact { beat: Beat(0), asleep: false, lease_ms: 0, awake_ms: 0 };
                let evidence = evidence_of(join.incarnation, join.contact.unwrap_or(silent));
                self.company.leases().admitted(now, key, &join.group, &evidence, by);
                if !again && join.previous.is_some() {
                    self.metrics.died_falsely();
                }
            }
            (Record::Gone(gone), Verdict::Gone(took_effect)) => {
                let Some(key) = key(&gone.namespace, gone.node) else { return };
                if *took_effect {
                    let how = if gone.cause == Cause::Expired { Ended::Silent } else { Ended::Told };
                    if how == Ended::Silent
                        && let Some(lease) = self.company.leases().view(key, now)
                    {
                        self.obituaries.lock().note(key, Obituary { at: now, lease });
                    }
                    self.company.leases().ended(now, key, gone.incarnation, how);
                    self.company.forget_contact(key);
                    self.metrics.ended(gone.cause);
                } else {
                    self.company.leases().gone_rejected(now, key, gone.incarnation, gone.beat);
                }
            }
            (Record::Digest(digest), _) => {
                self.witness_others(fold, by, digest);
                for heard in &digest.evidence {
                    if let Some(key) = key(&heard.namespace, heard.node) {
                        let evidence = evidence_of(heard.incarnation, heard.contact);
                        self.company.leases().evidence_applied(now, key, &evidence, by);
                    }
                }
            }
            _ => {}
        }
    }
}

impl Witness for Keeper {
    fn witness(&self, fold: &Fold, session: u64, record: &Record, verdict: &Verdict) {
        self.witness_member(fold, session, record, verdict);
        let mut log_time = self.log_time.lock();
        if log_time.0 != fold.log_time_ms() {
            *log_time = (fold.log_time_ms(), self.clock.now());
        }
    }

    fn witness_frame(&self, session: u64, position: Position) {
        self.placed(session, position);
    }

    fn witness_anew(&self, fold: &Fold, me: u64) {
        let now = self.clock.now();
        for (key, incarnation) in self.company.leases().known() {
            let name = self.names.get(&key.namespace).map(|name| name.clone());
            let view = name.and_then(|name| fold.namespace(&name));
            if view.and_then(|view| view.member(key.node)).is_none() {
                self.company.leases().ended(now, key, incarnation, Ended::Told);
                self.company.forget_contact(key);
            }
        }
        // What was promised stays promised: no lease gets shorter by this.
        self.restore(fold, me);
    }
}
