//! One relay: the project's own leases, company and fold, and what the shells around them do, without their waiting.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
    time::Duration,
};

use dormouse_proto::{
    ids::{Namespace, NodeId, Revision},
    record::{self, Cause, Digest, Frame, FrameHeader, Gone, Mark, Record},
    traps::{Trap, Traps},
};
use dormouse_relay::{
    keeper::{activity_of, contact_of, evidence_of},
    liveness::{
        Company, Due, Ended, Ends, Evidence, LeaseKey, LeasePolicy, LeaseSettings, Millis, Restored, Session,
        Silent, Telling, Timestamp,
        guard::{HoldNumber, VirtualClock},
    },
    state::{Fold, JoinVerdict, Verdict},
};

/// What waits for a record to come back.
#[derive(Debug)]
pub(crate) enum Waits {
    Nobody,
    /// A digest, sent then, that tells of these.
    Digest(Timestamp, Vec<(LeaseKey, Evidence)>),
    /// A hold that ends when the log was read to its head.
    Hold(HoldNumber),
    /// An end that was proposed.
    Gone(Silent),
    /// A call.
    Call(usize),
}

/// A frame that is on its way.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) frame: Rc<Frame>,
    pub(crate) waits: Vec<Waits>,
    pub(crate) verdicts: Option<Vec<Verdict>>,
    pub(crate) is_committed: bool,
    /// Transmissions so far.
    pub(crate) tries: u32,
}

/// How far a relay's process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Down,
    /// The log was read, and its Open is on its way.
    Opening,
    Serving,
}

#[derive(Debug)]
pub(crate) struct Relay {
    /// Tells the events of one process from those of the one before.
    pub(crate) life: u32,
    pub(crate) phase: Phase,
    pub(crate) session: u64,
    pub(crate) company: Company,
    pub(crate) fold: Fold,
    clock: VirtualClock,
    /// After a pause, the ticking thread is not the first to run.
    pub(crate) ticks_from: u64,
    log_time: (u64, Timestamp),
    /// The position of the last frame applied.
    pub(crate) applied: usize,
    pub(crate) inbox: VecDeque<(Record, Waits)>,
    counter: u64,
    pub(crate) in_flight: Option<u64>,
    pub(crate) pending: HashMap<u64, Pending>,
    /// Connections to the log so far, which of them the session was opened on, and which the last look saw.
    pub(crate) connection: u64,
    pub(crate) opened_on: u64,
    seen_connection: u64,
    /// An append waits for an answer that is overdue.
    pub(crate) is_stalled: bool,
    pub(crate) paused_until: u64,
    /// Nothing gets through to the log until then; whether the connection lives through it.
    pub(crate) cut_until: u64,
    pub(crate) survives_cut: bool,
    /// Only what it sends hangs.
    pub(crate) reads_through: bool,
    looks: u32,
    listened: Option<HoldNumber>,
    /// Another relay has asked or told.
    pub(crate) is_stirred: bool,
    traps: Traps,
    has_trap: Option<Trap>,
}

fn company(settings: LeaseSettings, traps: Traps) -> Company {
    let policy = LeasePolicy::new(settings, []).expect("leases that make sense");
    Company::with_traps(policy, true, Timestamp(0), traps)
}

impl Relay {
    pub(crate) fn down(settings: LeaseSettings, trap: Option<Trap>) -> Self {
        let traps = trap.map_or_else(Traps::default, Traps::only);
        Self {
            life: 0,
            phase: Phase::Down,
            session: 0,
            company: company(settings, traps),
            fold: Fold::new(),
            clock: VirtualClock::starting(Duration::ZERO, settings.awake),
            ticks_from: 0,
            log_time: (0, Timestamp(0)),
            applied: 0,
            inbox: VecDeque::new(),
            counter: 0,
            in_flight: None,
            pending: HashMap::new(),
            connection: 0,
            opened_on: 0,
            seen_connection: 0,
            is_stalled: false,
            paused_until: 0,
            cut_until: 0,
            survives_cut: false,
            reads_through: false,
            looks: 0,
            listened: None,
            is_stirred: false,
            traps,
            has_trap: trap,
        }
    }

    /// A new process, which has read the log so far.
    pub(crate) fn start(&mut self, now: u64, session: u64, settings: LeaseSettings, log: &[Rc<Frame>]) {
        let Self { life, cut_until, survives_cut, reads_through, has_trap, .. } = *self;
        let fresh = Self::down(settings, has_trap);
        *self = Self { life: life + 1, session, cut_until, survives_cut, reads_through, ..fresh };
        self.company = company(settings, self.traps);
        self.clock = VirtualClock::starting(Duration::from_millis(now), settings.awake);
        self.phase = Phase::Opening;
        for frame in log {
            self.fold.apply_frame(frame, |_, _, _, _| {});
        }
        self.applied = log.len();
        let base = Revision(self.fold.revision().0 + (1 << 20));
        self.inbox.push_back((Record::Open { base }, Waits::Nobody));
    }

    pub(crate) fn kill(&mut self) {
        self.life += 1;
        self.phase = Phase::Down;
        self.pending.clear();
        self.in_flight = None;
        self.inbox.clear();
    }

    /// Virtual time; the clock's thread ticks as long as the process runs.
    pub(crate) fn now(&self, now: u64) -> Timestamp {
        let monotonic = Duration::from_millis(now);
        if now >= self.ticks_from {
            self.clock.tick(monotonic);
        }
        self.clock.now(monotonic)
    }

    pub(crate) fn is_held(&self, now: u64) -> bool {
        self.clock.expiry_held(self.now(now)).is_some()
    }

    /// The key of a node's lease, once its namespace is known.
    pub(crate) fn key(&self, node: NodeId) -> Option<LeaseKey> {
        let view = self.fold.namespace(&Namespace::default())?;
        Some(LeaseKey { namespace: view.number(), node })
    }

    /// Log time as this relay proposes it.
    pub(crate) fn log_time_ms(&self, now: u64) -> u64 {
        self.log_time.0 + self.now(now).since(self.log_time.1).0
    }

    // ---- what the writer does ----

    /// The next frame: all that waits, or an Open alone.
    pub(crate) fn fill(&mut self) -> Option<u64> {
        if self.in_flight.is_some() || self.inbox.is_empty() {
            return None;
        }
        let (records, waits) = self.inbox.drain(..).unzip();
        self.counter += 1;
        self.put_on_its_way(self.counter, records, waits);
        self.in_flight = Some(self.counter);
        Some(self.counter)
    }

    /// An Open over a new connection, before anything else goes out.
    pub(crate) fn open_anew(&mut self) -> u64 {
        self.counter += 1;
        let base = Revision(self.fold.revision().0 + (1 << 20));
        self.put_on_its_way(self.counter, vec![Record::Open { base }], vec![Waits::Nobody]);
        self.counter
    }

    fn put_on_its_way(&mut self, counter: u64, records: Vec<Record>, waits: Vec<Waits>) {
        let header = FrameHeader {
            session: self.session,
            counter,
            applied_position: self.applied as u64,
            applied_revision: self.fold.revision(),
            stamp_ms: 0,
        };
        let frame = Rc::new(Frame { header, records });
        let pending = Pending { frame, waits, verdicts: None, is_committed: false, tries: 0 };
        self.pending.insert(counter, pending);
    }

    /// Takes out a frame that is both committed and applied.
    pub(crate) fn settled(&mut self, counter: u64) -> Option<(Vec<Waits>, Vec<Verdict>)> {
        let pending = self.pending.get(&counter)?;
        if !pending.is_committed || pending.verdicts.is_none() {
            return None;
        }
        let pending = self.pending.remove(&counter)?;
        Some((pending.waits, pending.verdicts?))
    }

    // ---- what the keeper does ----

    /// The keeper's look, ten times a second.
    pub(crate) fn look(&mut self, now: u64) {
        self.listen_after_a_hold(now);
        let at = self.now(now);
        if self.is_stalled || self.seen_connection != self.connection {
            self.seen_connection = self.connection;
            self.clock.log_lost(at);
        }
        let hold = self.company.hold(at, self.clock.expiry_held(at));
        let mut due = Vec::new();
        self.company.look(at, hold, &mut due);
        let silent: Vec<Silent> = due
            .into_iter()
            .filter_map(|due| match due {
                Due::Gone { key, incarnation, beat } => Some((key, incarnation, beat)),
                Due::Suspect { .. } => None,
            })
            .collect();
        if !silent.is_empty() {
            match self.company.end(at, silent) {
                Ends::Propose(silent) => self.propose(silent),
                Ends::Ask(silent) => self.ask(now, &silent),
            }
        }
        if hold.is_none() {
            let silent = self.company.conclude(at);
            self.propose(silent);
        }
        self.looks += 1;
        if self.looks.is_multiple_of(10) {
            if self.company.has_to_speak(at) {
                self.tell_all(now);
            }
            self.company.forget(at);
        }
    }

    fn listen_after_a_hold(&mut self, now: u64) {
        let hold = self.clock.hold();
        if !self.is_held(now) || self.is_stalled || self.listened == Some(hold) {
            return;
        }
        self.listened = Some(hold);
        self.inbox.push_back((Record::Digest(Digest::default()), Waits::Hold(hold)));
    }

    /// Another relay has asked or told.
    pub(crate) fn answer_the_others(&mut self, now: u64) {
        self.is_stirred = false;
        if self.company.take_asked() {
            self.tell_all(now);
        }
        let at = self.now(now);
        if self.company.hold(at, self.clock.expiry_held(at)).is_none() {
            let silent = self.company.conclude(at);
            self.propose(silent);
        }
    }

    fn tell_all(&mut self, now: u64) {
        if self.is_stalled {
            return;
        }
        let Telling { mut contacts, upto } = self.company.telling();
        contacts.sort_unstable_by_key(|(key, _)| *key);
        let evidence = contacts.iter().map(|(key, evidence)| as_record(*key, evidence)).collect();
        let log_time_ms = self.log_time_ms(now);
        let digest = Digest { log_time_ms, evidence, suspects: Vec::new(), told_upto: upto };
        let at = self.now(now);
        self.company.spoke(at);
        self.inbox.push_back((Record::Digest(digest), Waits::Digest(at, contacts)));
    }

    fn ask(&mut self, now: u64, silent: &[Silent]) {
        let mark = |(key, incarnation, beat): &Silent| Mark {
            namespace: Namespace::default(),
            node: key.node,
            incarnation: *incarnation,
            beat: *beat,
        };
        let suspects = silent.iter().map(mark).collect();
        let log_time_ms = self.log_time_ms(now);
        let digest = Digest { log_time_ms, suspects, ..Digest::default() };
        self.inbox.push_back((Record::Digest(digest), Waits::Nobody));
    }

    fn propose(&mut self, silent: Vec<Silent>) {
        for (key, incarnation, beat) in silent {
            let (namespace, reason) = (Namespace::default(), String::new());
            let gone = Gone { namespace, node: key.node, incarnation, cause: Cause::Expired, beat, reason };
            self.inbox.push_back((Record::Gone(gone), Waits::Gone((key, incarnation, beat))));
        }
    }

    /// What the keeper makes of the answers that it waits for. A call's answer is left to whoever asks.
    pub(crate) fn answered(&mut self, now: u64, waits: Waits, verdict: Option<&Verdict>) -> Option<usize> {
        let at = self.now(now);
        match (waits, verdict.is_some()) {
            (Waits::Nobody, _) | (Waits::Gone(_), true) => {}
            (Waits::Digest(sent, contacts), true) => self.company.came_back(sent, &contacts),
            (Waits::Digest(sent, _), false) => self.company.did_not_come_back(at, sent),
            (Waits::Hold(hold), true) => {
                self.clock.log_read_to_head(hold);
                self.clock.drained(hold);
            }
            (Waits::Hold(_), false) => self.listened = None,
            (Waits::Gone((key, incarnation, beat)), false) => {
                self.company.leases().gone_rejected(at, key, incarnation, beat);
            }
            (Waits::Call(call), _) => return Some(call),
        }
        None
    }

    // ---- what the reader does ----

    /// Applies the next frame of the log.
    pub(crate) fn apply(&mut self, now: u64, frame: &Frame) {
        let (at, by) = (self.now(now), Session(frame.header.session));
        let own = by.0 == self.session;
        let mut fold = std::mem::take(&mut self.fold);
        let mut verdicts = Vec::new();
        fold.apply_frame(frame, |fold, _, record, verdict| {
            if self.phase == Phase::Serving {
                self.witness(at, by, fold, record, &verdict);
            }
            if self.log_time.0 != fold.log_time_ms() {
                self.log_time = (fold.log_time_ms(), at);
            }
            verdicts.push(verdict);
        });
        self.fold = fold;
        self.applied += 1;
        if self.phase == Phase::Serving {
            if self.has_trap == Some(Trap::HeaderTells) {
                self.is_stirred |= self.company.told(by, frame.header.applied_position);
            }
            self.is_stirred |= self.company.placed(at, by, self.applied as u64);
        }
        if own && let Some(pending) = self.pending.get_mut(&frame.header.counter) {
            pending.verdicts.get_or_insert(verdicts);
        }
        if own && self.phase == Phase::Opening {
            self.begin(at);
        }
    }

    /// The Open was read back: from here on it serves.
    fn begin(&mut self, at: Timestamp) {
        self.phase = Phase::Serving;
        self.log_time = (self.fold.log_time_ms(), at);
        let restored: Vec<Restored> = self.members().collect();
        self.company.begin(at, Session(self.session), restored);
    }

    fn members(&self) -> impl Iterator<Item = Restored> {
        let log_time_ms = self.fold.log_time_ms();
        let view = self.fold.namespace(&Namespace::default());
        view.into_iter().flat_map(move |view| {
            view.members().iter().map(move |(node, member)| Restored {
                key: LeaseKey { namespace: view.number(), node: *node },
                group: member.group.clone(),
                evidence: Evidence {
                    incarnation: member.incarnation,
                    beat: member.soft.beat,
                    activity: activity_of(member.soft.asleep, 0),
                    ttl: Millis(member.soft.ends_at_ms.saturating_sub(log_time_ms)),
                },
                holder: Session(member.soft.holder),
            })
        })
    }

    fn witness(&mut self, at: Timestamp, by: Session, fold: &Fold, record: &Record, verdict: &Verdict) {
        let Some(view) = fold.namespace(&Namespace::default()) else { return };
        let key = |node| LeaseKey { namespace: view.number(), node };
        let leases = self.company.leases();
        match (record, verdict) {
            (Record::Push(push), _) => {
                if let Some(contact) = push.contact {
                    let evidence = evidence_of(push.incarnation, contact);
                    leases.evidence_applied(at, key(push.node), &evidence, by);
                }
            }
            (Record::Join(join), Verdict::Join(JoinVerdict::Admitted { .. })) => {
                let contact = join.contact.expect("every Join of this world has one");
                let evidence = evidence_of(join.incarnation, contact);
                leases.admitted(at, key(join.node), &join.group, &evidence, by);
            }
            (Record::Gone(gone), Verdict::Gone(true)) => {
                leases.ended(at, key(gone.node), gone.incarnation, Ended::Silent);
                self.company.forget_contact(key(gone.node));
            }
            (Record::Gone(gone), _) => {
                leases.gone_rejected(at, key(gone.node), gone.incarnation, gone.beat);
            }
            (Record::Digest(digest), _) => {
                for mark in &digest.suspects {
                    self.company.asked(at, by, (key(mark.node), mark.incarnation, mark.beat));
                }
                if self.has_trap != Some(Trap::HeaderTells) {
                    self.is_stirred |= self.company.told(by, digest.told_upto);
                }
                for heard in &digest.evidence {
                    let evidence = evidence_of(heard.incarnation, heard.contact);
                    leases.evidence_applied(at, key(heard.node), &evidence, by);
                }
            }
            _ => {}
        }
    }

    /// How many of these nodes are not members for the fold and the leases alike, in the same incarnation.
    pub(crate) fn disagreements(&self, now: u64, nodes: impl Iterator<Item = NodeId>) -> usize {
        let view = self.fold.namespace(&Namespace::default());
        let differs = |node: &NodeId| {
            let member = view.as_ref().and_then(|view| view.member(*node)).map(|it| it.incarnation);
            let lease = self.key(*node).and_then(|key| self.company.leases().view(key, self.now(now)));
            lease.map(|it| it.incarnation) != member
        };
        nodes.filter(differs).count()
    }
}

/// A contact, as a digest tells it.
pub(crate) fn as_record(key: LeaseKey, evidence: &Evidence) -> record::Evidence {
    let Evidence { incarnation, beat, activity, ttl } = *evidence;
    let contact = contact_of(beat, activity, ttl);
    record::Evidence { namespace: Namespace::default(), node: key.node, incarnation, contact }
}
