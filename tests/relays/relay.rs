//! One relay: the project's own leases, company and fold, and what the shells around them do, without their waiting.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
    time::Duration,
};

use dormouse_proto::{
    ids::{Namespace, NodeId, Revision},
    record::{self, Frame, FrameHeader, Record},
    traps::{Trap, Traps},
};
use dormouse_relay::{
    keeper::contact_of,
    liveness::{
        Company, Evidence, LeaseKey, LeasePolicy, LeaseSettings, Silent, Timestamp,
        guard::{HoldNumber, VirtualClock},
    },
    state::{Fold, Verdict},
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

/// What a cut does to the connection to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It is lost, and all that was on its way.
    Lost,
    /// It lives through it, and all arrives later.
    Hangs,
    /// The same, but only what is sent hangs.
    SendsHang,
}

#[derive(Debug)]
pub(crate) struct Relay {
    /// Tells the events of one process from those of the one before.
    pub(crate) life: u32,
    pub(crate) phase: Phase,
    pub(crate) session: u64,
    pub(crate) company: Company,
    pub(crate) fold: Fold,
    pub(crate) clock: VirtualClock,
    /// After a pause, the ticking thread is not the first to run.
    pub(crate) ticks_from: u64,
    pub(crate) log_time: (u64, Timestamp),
    /// The position of the last frame applied.
    pub(crate) applied: usize,
    pub(crate) inbox: VecDeque<(Record, Waits)>,
    counter: u64,
    pub(crate) in_flight: Option<u64>,
    pub(crate) pending: HashMap<u64, Pending>,
    /// Connections to the log so far, which of them the session was opened on, and which the last look saw.
    pub(crate) connection: u64,
    pub(crate) opened_on: u64,
    pub(crate) seen_connection: u64,
    /// An append waits for an answer that is overdue.
    pub(crate) is_stalled: bool,
    pub(crate) paused_until: u64,
    /// Nothing gets through to the log until then.
    pub(crate) cut_until: u64,
    pub(crate) cut: Cut,
    pub(crate) looks: u32,
    pub(crate) listened: Option<HoldNumber>,
    /// Another relay has asked or told.
    pub(crate) is_stirred: bool,
    traps: Traps,
    pub(crate) has_trap: Option<Trap>,
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
            cut: Cut::Lost,
            looks: 0,
            listened: None,
            is_stirred: false,
            traps,
            has_trap: trap,
        }
    }

    /// A new process, which has read the log so far.
    pub(crate) fn start(&mut self, now: u64, session: u64, settings: LeaseSettings, log: &[Rc<Frame>]) {
        let Self { life, cut_until, cut, has_trap, .. } = *self;
        let fresh = Self::down(settings, has_trap);
        *self = Self { life: life + 1, session, cut_until, cut, ..fresh };
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
}

/// A contact, as a digest tells it.
pub(crate) fn as_record(key: LeaseKey, evidence: &Evidence) -> record::Evidence {
    let Evidence { incarnation, beat, activity, ttl } = *evidence;
    let contact = contact_of(beat, activity, ttl);
    record::Evidence { namespace: Namespace::default(), node: key.node, incarnation, contact }
}
