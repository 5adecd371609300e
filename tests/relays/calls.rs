//! A call on its way through a relay: admit, renew or push, promise. As `relay/src/grpc/sync` does it, a step at a time.

use std::collections::BTreeMap;

use dormouse_proto::{
    ids::{Beat, CallId, Incarnation, Namespace, PushId, PushNo, Revision},
    record::{Contact, Digest, Join, Push, Record},
};
use dormouse_relay::{
    keeper::contact_of,
    liveness::{Activity, Contact as Called, Evidence, Heard, LeaseKey, Millis, Told},
    state::{JoinVerdict, PushVerdict, Verdict},
};

use crate::{
    ledger::Promise,
    relay::{Phase, Waits, as_record},
    world::{Event, World},
};

/// How often a step is tried again when the state moves under it.
const TRIES: u32 = 4;

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// To arrive.
    Sent,
    /// To go on.
    Working,
    /// For its Join to be applied.
    Joining(Incarnation),
    /// For the evidence of this lease to be applied.
    Telling(LeaseKey, Incarnation, Millis),
    /// It was answered, or nobody will.
    Over,
}

/// One transmission of a node's request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) node: usize,
    pub(crate) relay: usize,
    /// The process that it arrived at.
    pub(crate) life: u32,
    /// As the node believes.
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) beat: Beat,
    /// Drawn for it.
    pub(crate) id: CallId,
    pub(crate) activity: Activity,
    pub(crate) sent: u64,
    /// The relay's patience.
    pub(crate) until: u64,
    /// It pushes as well.
    pub(crate) pushes: bool,
    pub(crate) step: Step,
    pub(crate) tries: u32,
}

impl World {
    pub(crate) fn arrive(&mut self, nth: usize) {
        let relay = &self.relays[self.calls[nth].relay];
        if relay.phase != Phase::Serving {
            return;
        }
        if relay.paused_until > self.now {
            let later = relay.paused_until - self.now + self.rng.u64(0..30);
            return self.plan(later, Event::Arrive(nth));
        }
        self.calls[nth].life = relay.life;
        self.calls[nth].step = Step::Working;
        self.calls[nth].until = self.calls[nth].until.max(self.now + 300);
        let left = self.calls[nth].until - self.now;
        self.plan(left, Event::Impatient(nth));
        self.stats.contacts += 1;
        self.go_on(nth);
    }

    /// Whether the process that works on it still runs; it goes on later if that stands still.
    fn is_worked_on(&mut self, nth: usize, event: Event) -> bool {
        let relay = &self.relays[self.calls[nth].relay];
        if relay.life != self.calls[nth].life || relay.phase == Phase::Down {
            self.calls[nth].step = Step::Over;
            return false;
        }
        if relay.paused_until > self.now {
            let later = relay.paused_until - self.now + self.rng.u64(0..30);
            self.plan(later, event);
            return false;
        }
        true
    }

    pub(crate) fn again(&mut self, nth: usize) {
        if self.calls[nth].step == Step::Working && self.is_worked_on(nth, Event::Again(nth)) {
            self.go_on(nth);
        }
    }

    fn go_on(&mut self, nth: usize) {
        self.calls[nth].tries += 1;
        if self.calls[nth].tries > TRIES * 20 {
            return self.answer(nth, None, Millis(0));
        }
        let call = self.calls[nth].clone();
        let (relay, node) = (&self.relays[call.relay], &self.nodes[call.node]);
        let member =
            relay.fold.namespace(&Namespace::default()).and_then(|view| view.member(node.id).cloned());
        match member {
            Some(member) => self.renew(nth, member.incarnation),
            None => self.join(nth),
        }
    }

    fn join(&mut self, nth: usize) {
        let call = self.calls[nth].clone();
        let (relay, node) = (&mut self.relays[call.relay], &self.nodes[call.node]);
        let view = relay.fold.namespace(&Namespace::default());
        let tombstone = view.and_then(|view| view.tombstone(node.id).map(|it| it.incarnation));
        let previous = tombstone.or(call.incarnation);
        if previous.is_some() && tombstone.is_none() {
            // What the node was shown says that this relay is behind: it reads on first.
            return self.plan(50, Event::Again(nth));
        }
        let incarnation = previous.max(call.incarnation).map_or(Incarnation(1), Incarnation::next);
        let lease = self.settings.when_applied(call.activity);
        let join = Join {
            namespace: Namespace::default(),
            node: node.id,
            incarnation,
            previous,
            boot_id: node.boot_id,
            group: "g".parse().expect("a name"),
            tags: BTreeMap::new(),
            contact: Some(Contact { beat: Beat(0), ..contact_of(call.beat, call.activity, lease) }),
        };
        self.calls[nth].step = Step::Joining(incarnation);
        relay.inbox.push_back((Record::Join(join), Waits::Call(nth)));
        self.pump(call.relay);
    }

    fn renew(&mut self, nth: usize, incarnation: Incarnation) {
        let call = self.calls[nth].clone();
        let (now, node) = (self.now, self.nodes[call.node].id);
        let relay = &self.relays[call.relay];
        let Some(key) = relay.key(node) else { return self.plan(50, Event::Again(nth)) };
        let long = call.activity == Activity::Asleep
            || matches!(call.activity, Activity::Awake { then_asleep: true, .. });
        let told = if long || call.pushes { Told::ByCaller } else { Told::ByDigest };
        let Call { beat, id: call_id, activity, .. } = call;
        let contact = Called { incarnation, beat, call_id, activity, head: Revision::ZERO };
        let heard = relay.company.hear(relay.now(now), || relay.is_held(now), key, &contact, told);
        match heard {
            Heard::Granted { ttl, ttl_applied, .. } if long || call.pushes || ttl == Millis(0) => {
                self.stats.weak += u64::from(!long && !call.pushes);
                self.tell(nth, key, incarnation, ttl_applied);
            }
            Heard::NotNewer { left } if call.pushes => self.tell(nth, key, incarnation, left),
            Heard::Granted { ttl, .. } | Heard::NotNewer { left: ttl } => {
                self.answer(nth, Some(incarnation), ttl);
            }
            Heard::Forked => self.answer(nth, None, Millis(0)),
            Heard::Ending | Heard::OtherIncarnation { .. } | Heard::Unknown => {
                self.plan(20, Event::Again(nth));
            }
        }
    }

    /// Writes the evidence; what it earns is promised when it was applied.
    fn tell(&mut self, nth: usize, key: LeaseKey, incarnation: Incarnation, ttl: Millis) {
        let call = self.calls[nth].clone();
        self.calls[nth].step = Step::Telling(key, incarnation, ttl);
        let evidence = Evidence { incarnation, beat: call.beat, activity: call.activity, ttl };
        let record = if call.pushes {
            self.nodes[call.node].push_no += 1;
            let push_no = self.nodes[call.node].push_no;
            Record::Push(Push {
                namespace: Namespace::default(),
                node: key.node,
                incarnation,
                push_no: PushNo(push_no),
                push_id: PushId(push_no),
                deltas: Vec::new(),
                contact: Some(contact_of(call.beat, call.activity, ttl)),
            })
        } else {
            let (log_time_ms, evidence) =
                (self.relays[call.relay].log_time_ms(self.now), vec![as_record(key, &evidence)]);
            Record::Digest(Digest { log_time_ms, evidence, ..Digest::default() })
        };
        self.relays[call.relay].inbox.push_back((record, Waits::Call(nth)));
        self.pump(call.relay);
    }

    /// The record that a call waited for came back, or never will.
    pub(crate) fn written(&mut self, nth: usize, verdict: Option<&Verdict>) {
        match (self.calls[nth].step, verdict) {
            (
                Step::Joining(_),
                Some(Verdict::Join(JoinVerdict::Admitted { .. } | JoinVerdict::Superseded)),
            ) => {
                self.calls[nth].step = Step::Working;
                self.go_on(nth);
            }
            (Step::Joining(_), _) => self.calls[nth].step = Step::Over,
            (Step::Telling(_, incarnation, ttl), Some(verdict)) => {
                let call = &self.calls[nth];
                let view = self.relays[call.relay].fold.namespace(&Namespace::default());
                let member =
                    view.and_then(|view| view.member(self.nodes[call.node].id).map(|it| it.incarnation));
                let is_kept = match verdict {
                    Verdict::Push(verdict) => {
                        matches!(verdict, PushVerdict::Bound { .. } | PushVerdict::Refused(_))
                    }
                    _ => member == Some(incarnation),
                };
                if is_kept {
                    self.answer(nth, Some(incarnation), ttl);
                } else {
                    self.calls[nth].step = Step::Working;
                    self.go_on(nth);
                }
            }
            (Step::Telling(key, incarnation, ttl), None) => self.tell_later(nth, key, incarnation, ttl),
            _ => {}
        }
    }

    pub(crate) fn impatient(&mut self, nth: usize) {
        if self.calls[nth].step == Step::Over || !self.is_worked_on(nth, Event::Impatient(nth)) {
            return;
        }
        match self.calls[nth].step {
            Step::Telling(key, incarnation, ttl) => self.tell_later(nth, key, incarnation, ttl),
            _ => self.answer(nth, None, Millis(0)),
        }
    }

    fn tell_later(&mut self, nth: usize, key: LeaseKey, incarnation: Incarnation, ttl: Millis) {
        let Call { beat, activity, relay, .. } = self.calls[nth];
        let (now, relay) = (self.now, &self.relays[relay]);
        let evidence = Evidence { incarnation, beat, activity, ttl };
        let ttl = relay.company.tell_later(relay.now(now), || relay.is_held(now), key, evidence);
        self.answer(nth, Some(incarnation), ttl);
    }

    /// The answer leaves the relay. What it promises counts from here on, whether it arrives or not.
    fn answer(&mut self, nth: usize, incarnation: Option<Incarnation>, ttl: Millis) {
        self.calls[nth].step = Step::Over;
        let call = self.calls[nth].clone();
        let node = &mut self.nodes[call.node];
        if node.beat != call.beat.0 || !node.is_alive {
            return; // Nobody waits for it any more.
        }
        let Some(incarnation) = incarnation.filter(|it| node.incarnation <= Some(*it)) else { return };
        node.incarnation = Some(incarnation);
        node.is_answered = true;
        if ttl == Millis(0) {
            return;
        }
        self.stats.promises += 1;
        let promise = Promise {
            incarnation,
            relay: call.relay,
            beat: call.beat.0,
            sent: call.sent,
            answered: self.now,
            end: call.sent + ttl.0,
        };
        if let Err(broken) = self.ledger.promised(call.node, promise) {
            self.violated(broken);
        }
    }
}
