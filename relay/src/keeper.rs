//! The shell around the leases: hears contacts, tells the log of them, and proposes the ends that silence leads to.
//!
//! Beats never reach the log one by one. Once a second a digest tells what changed; nobody in contact, no digest.

mod evidence;
mod obituary;

use std::{collections::HashMap, sync::Arc, time::Duration};

use dashmap::DashMap;
use dormouse_proto::{
    ids::{Beat, Group, Incarnation, Namespace, NodeId},
    record::{self, Cause, Digest, Gone, Record},
};
use parking_lot::Mutex;
use tokio::{
    sync::{broadcast, oneshot, watch},
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, info, warn};

use crate::{
    clock::Clock,
    liveness::{
        Activity, Contact, Due, Ended, Evidence, Heard, Learned, LeaseKey, LeasePolicy, LeaseSettings,
        LeaseState, LeaseTable, LeaseView, MemberCounts, Millis, Restored, Session, Timestamp,
        guard::HoldNumber,
    },
    metrics::Metrics,
    sequencer::{Outcome, Sequencer, Unwritten, Witness},
    state::{Fold, JoinVerdict, Verdict},
};

pub use evidence::contact_of;
pub use obituary::Obituary;

use evidence::{activity_of, evidence_of};
use obituary::Obituaries;

/// How often silence is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Looks between two digests: one second.
const LOOKS_PER_DIGEST: u32 = 10;
/// Looks between two digests that only move log time: five seconds, the most that one may move it.
const LOOKS_PER_TIME: u32 = 50;
/// Evidence in one digest, so that a frame stays small.
const EVIDENCE: usize = 1_000;
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

/// Where a request's evidence travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// With the next digest.
    ByDigest,
    /// In a record that the caller writes.
    ByCaller,
}

/// An end that was proposed to the log.
struct Proposed {
    key: LeaseKey,
    incarnation: Incarnation,
    answer: oneshot::Receiver<Result<Outcome, Unwritten>>,
}

/// The leases of this relay.
#[derive(Debug)]
pub struct Keeper {
    leases: LeaseTable,
    clock: Clock,
    /// Contacts that no record has told of yet.
    untold: Mutex<HashMap<LeaseKey, record::Evidence>>,
    names: DashMap<u32, Namespace>,
    /// Log time when it last moved, and when that was here.
    log_time: Mutex<(u64, Timestamp)>,
    turns: broadcast::Sender<Turn>,
    /// How often this relay's word became weaker, or as good as usual again.
    weakened: watch::Sender<u64>,
    obituaries: Mutex<Obituaries>,
    /// The hold that the log was last read to its head for.
    listened: Mutex<Option<HoldNumber>>,
    metrics: Arc<Metrics>,
}

impl Keeper {
    /// Nobody is known yet.
    pub fn new(policy: LeasePolicy, clock: Clock, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            leases: LeaseTable::new(policy),
            log_time: Mutex::new((0, clock.now())),
            clock,
            untold: Mutex::default(),
            names: DashMap::new(),
            turns: broadcast::Sender::new(ACTIVITY),
            weakened: watch::Sender::new(0),
            obituaries: Mutex::default(),
            listened: Mutex::default(),
            metrics,
        })
    }

    /// Takes over what the fold knows when a session begins.
    pub fn restore(&self, fold: &Fold) {
        let now = self.clock.now();
        *self.log_time.lock() = (fold.log_time_ms(), now);
        for (name, view) in fold.namespaces() {
            self.names.insert(view.number(), name.clone());
            let restored = view.members().iter().map(|(node, member)| Restored {
                key: LeaseKey { namespace: view.number(), node: *node },
                group: member.group.clone(),
                evidence: Evidence {
                    incarnation: member.incarnation,
                    beat: member.soft.beat,
                    activity: activity_of(member.soft.asleep, 0),
                    ttl: Millis(member.soft.ends_at_ms.saturating_sub(fold.log_time_ms())),
                },
                holder: Session(member.soft.holder),
            });
            self.leases.restored(now, restored);
        }
    }

    /// A request of a member arrived.
    pub fn hear(&self, key: LeaseKey, contact: &Contact, told: Told) -> Heard {
        let heard = self.leases.heard(self.clock.now(), key, contact);
        if let Heard::Granted { ttl_applied, was, .. } = heard {
            let Contact { incarnation, beat, activity, .. } = *contact;
            let state = if activity == Activity::Asleep { LeaseState::Asleep } else { LeaseState::Awake };
            if was != state {
                self.turned(key, state);
            }
            if told == Told::ByDigest
                && let Some(namespace) = self.names.get(&key.namespace)
            {
                let contact = contact_of(beat, activity, ttl_applied);
                let evidence =
                    record::Evidence { namespace: namespace.clone(), node: key.node, incarnation, contact };
                self.untold.lock().insert(key, evidence);
            }
        }
        heard
    }

    /// What a node of this group is promised once the log has told of its contact.
    pub fn lease_of(&self, key: LeaseKey, group: &Group, activity: Activity) -> Millis {
        self.leases.grant(key, group, activity)
    }

    /// The leases of a group as they are set.
    pub fn settings_of(&self, group: &Group) -> LeaseSettings {
        *self.leases.policy().of(group)
    }

    /// What is learned of a group; `None`: nobody of it was ever a member here.
    pub fn learned(&self, namespace: u32, group: &Group) -> Option<Learned> {
        self.leases.learned(namespace, group)
    }

    /// How many members of a namespace are alive, as the sum of their likelihoods.
    pub fn expected_alive(&self, namespace: u32) -> f64 {
        self.leases.expected_alive(namespace)
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
        self.leases.view(key, self.clock.now())
    }

    /// Members of a namespace by state.
    pub fn counts(&self, namespace: u32) -> MemberCounts {
        self.leases.counts(namespace)
    }

    /// Whether nobody may be declared gone at this moment.
    pub fn expiry_held(&self) -> bool {
        self.clock.guard().expiry_held(self.clock.now()).is_some()
    }

    /// Whether members that fell silent with very many others are kept.
    pub fn mass_loss_held(&self) -> bool {
        self.leases.mass_loss_held(self.clock.now())
    }

    /// The percentage of the usual that awake leases have; above 100 while this relay answers late.
    pub fn lease_percent(&self) -> u32 {
        self.leases.percent()
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
                self.leases.refit(self.clock.now());
                self.tell(&sequencer, count.is_multiple_of(LOOKS_PER_TIME));
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
        let before = self.leases.percent();
        let percent = self.leases.looked_late(late);
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
        if sequencer.trouble().is_some() {
            self.clock.guard().log_lost(now);
        }
        let hold = self.clock.guard().expiry_held(now);
        // Alone on its log, a relay answers for every lease.
        if self.leases.due(now, hold, |_| true, due) {
            warn!("very many members fell silent at once: they are kept as SUSPECT for two awake leases");
            self.metrics.lost_many();
        }
        let mut answers = Vec::new();
        for due in due.drain(..) {
            match due {
                Due::Suspect { key, .. } => self.turned(key, LeaseState::Suspect),
                Due::Gone { key, incarnation, beat } => {
                    answers.extend(self.propose_end(sequencer, key, incarnation, beat));
                }
            }
        }
        self.await_verdicts(answers);
    }

    fn propose_end(
        &self,
        sequencer: &Sequencer,
        key: LeaseKey,
        incarnation: Incarnation,
        beat: Beat,
    ) -> Option<Proposed> {
        let namespace = self.names.get(&key.namespace).map(|name| name.clone())?;
        debug!(%namespace, node = %key.node, %incarnation, "lease ran out");
        let reason = String::from("lease ran out");
        let gone = Gone { namespace, node: key.node, incarnation, cause: Cause::Expired, beat, reason };
        let answer = sequencer.submit(Record::Gone(gone), 64, None);
        if answer.is_err() {
            self.leases.gone_rejected(self.clock.now(), key, incarnation);
        }
        answer.ok().map(|answer| Proposed { key, incarnation, answer })
    }

    /// A node whose end the log did not take may be heard again. (One that it took is told of by the witness.)
    fn await_verdicts(self: &Arc<Self>, proposed: Vec<Proposed>) {
        if proposed.is_empty() {
            return;
        }
        let keeper = Arc::clone(self);
        tokio::spawn(async move {
            for Proposed { key, incarnation, answer } in proposed {
                if !matches!(answer.await, Ok(Ok(_))) {
                    keeper.leases.gone_rejected(keeper.clock.now(), key, incarnation);
                }
            }
        });
    }

    /// Tells the log of contacts, and of the time if something in the state waits for it.
    fn tell(&self, sequencer: &Sequencer, time: bool) {
        if sequencer.is_stalled() {
            return; // what is not told yet is told together when the log answers again
        }
        let mut untold: Vec<record::Evidence> =
            self.untold.lock().drain().map(|(_, evidence)| evidence).collect();
        untold.sort_unstable_by(|a, b| (&a.namespace, a.node).cmp(&(&b.namespace, b.node)));
        let time_matters = time && sequencer.read().fold.awaits_log_time();
        if untold.is_empty() && !time_matters {
            return;
        }
        let mut digests: Vec<Vec<record::Evidence>> = Vec::new();
        while untold.len() > EVIDENCE {
            digests.push(untold.split_off(untold.len() - EVIDENCE));
        }
        digests.push(untold);
        for evidence in digests {
            let bytes = 64 * (evidence.len() + 1);
            let digest = Digest { log_time_ms: self.log_time_ms(), evidence, suspects: Vec::new() };
            if sequencer.submit(Record::Digest(digest), bytes, None).is_err() {
                info!("a digest found no room; the contacts in it are told when they are heard again");
            }
        }
    }

    /// Log time as this relay proposes it: where it last moved to, and the virtual time since.
    fn log_time_ms(&self) -> u64 {
        let (log_time_ms, at) = *self.log_time.lock();
        log_time_ms + self.clock.now().since(at).0
    }

    /// A digest record with one contact, and the current log time.
    pub fn digest_of(&self, evidence: record::Evidence) -> Digest {
        Digest { log_time_ms: self.log_time_ms(), evidence: vec![evidence], suspects: Vec::new() }
    }

    fn witness_member(&self, fold: &Fold, session: u64, record: &Record, verdict: &Verdict) {
        let (now, by) = (self.clock.now(), Session(session));
        let key = |namespace: &Namespace, node| {
            fold.namespace(namespace).map(|view| LeaseKey { namespace: view.number(), node })
        };
        match (record, verdict) {
            (Record::Push(push), _) => {
                if let (Some(contact), Some(key)) = (push.contact, key(&push.namespace, push.node)) {
                    self.leases.evidence_applied(now, key, &evidence_of(push.incarnation, contact), by);
                }
            }
            (Record::Join(join), Verdict::Join(JoinVerdict::Admitted { again })) => {
                let Some(key) = key(&join.namespace, join.node) else { return };
                self.names.entry(key.namespace).or_insert_with(|| join.namespace.clone());
                let silent = record::Contact { beat: Beat(0), asleep: false, lease_ms: 0, awake_ms: 0 };
                let evidence = evidence_of(join.incarnation, join.contact.unwrap_or(silent));
                self.leases.admitted(now, key, &join.group, &evidence, by);
                if !again && join.previous.is_some() {
                    self.metrics.died_falsely();
                }
            }
            (Record::Gone(gone), Verdict::Gone(took_effect)) => {
                let Some(key) = key(&gone.namespace, gone.node) else { return };
                if *took_effect {
                    let how = if gone.cause == Cause::Expired { Ended::Silent } else { Ended::Told };
                    if how == Ended::Silent
                        && let Some(lease) = self.leases.view(key, now)
                    {
                        self.obituaries.lock().note(key, Obituary { at: now, lease });
                    }
                    self.leases.ended(now, key, gone.incarnation, how);
                    self.untold.lock().remove(&key);
                    self.metrics.ended(gone.cause);
                } else {
                    self.leases.gone_rejected(now, key, gone.incarnation);
                }
            }
            (Record::Digest(digest), _) => {
                for heard in &digest.evidence {
                    if let Some(key) = key(&heard.namespace, heard.node) {
                        self.leases.evidence_applied(
                            now,
                            key,
                            &evidence_of(heard.incarnation, heard.contact),
                            by,
                        );
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
}
