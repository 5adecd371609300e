//! Functions that wake, beat while they are awake, say that they sleep, and some day do not come back.

use dormouse_proto::ids::{Beat, BootId, CallId, Incarnation, NodeId};
use dormouse_relay::liveness::{Activity, Millis};

use crate::{
    calls::{Call, Step},
    world::{Event, World},
};

/// A beat each second while it is awake.
const BEAT: u64 = 1_000;
/// How long a node waits for an answer before it asks another relay.
const TIMEOUT: u64 = 1_200;
/// How long a relay works on a call.
const PATIENCE: u64 = 2_500;
/// Transmissions of one request.
const TRIES: u32 = 5;

const AWAKE: Activity = Activity::Awake { remaining: None, then_asleep: false };

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) boot_id: BootId,
    /// The one that it was last admitted in.
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) is_alive: bool,
    /// Of its newest transmission, and whether that was answered.
    pub(crate) beat: u64,
    pub(crate) is_answered: bool,
    pub(crate) push_no: u64,
    awake_until: u64,
    activity: Activity,
    tries: u32,
    relay: usize,
}

impl Node {
    pub(crate) fn new(nth: usize) -> Self {
        let mut boot_id = [7; 16];
        boot_id[..8].copy_from_slice(&(nth as u64).to_le_bytes());
        Self {
            id: NodeId(nth as u64 + 1),
            boot_id: BootId(boot_id),
            incarnation: None,
            is_alive: true,
            beat: 0,
            is_answered: true,
            push_no: 0,
            awake_until: 0,
            activity: AWAKE,
            tries: 0,
            relay: 0,
        }
    }
}

impl Node {
    pub(crate) fn died_asleep(&self) -> bool {
        !self.is_alive && self.activity == Activity::Asleep
    }
}

impl World {
    pub(crate) fn wake(&mut self, node: usize) {
        if !self.nodes[node].is_alive {
            return;
        }
        self.stats.wakes += 1;
        let length = [60, 300, 900, 2_500, 4_000][self.rng.usize(..5)];
        self.nodes[node].awake_until = self.now + length;
        if self.rng.u8(0..40) == 0 {
            let at = self.rng.u64(0..length + 3_000);
            self.plan(at, Event::Die(node));
        }
        if self.rng.u8(0..10) == 0 {
            let remaining = Some(Millis(length));
            self.request(node, Activity::Awake { remaining, then_asleep: true });
            self.falls_asleep(node, length);
        } else {
            self.beat(node);
        }
    }

    /// A beat of a node that is awake, or the word that it sleeps.
    pub(crate) fn beat(&mut self, node: usize) {
        if !self.nodes[node].is_alive {
            return;
        }
        let left = self.nodes[node].awake_until.saturating_sub(self.now);
        if left > 0 {
            let remaining = (self.rng.u8(0..8) == 0).then_some(Millis(left));
            self.request(node, Activity::Awake { remaining, then_asleep: false });
            self.plan(left.min(BEAT), Event::Beat(node));
        } else {
            self.request(node, Activity::Asleep);
            self.falls_asleep(node, 0);
        }
    }

    fn falls_asleep(&mut self, node: usize, after: u64) {
        let usual = self.settings.asleep.0;
        // Around the end of the lease, where a wake and a GONE meet.
        let gap = match self.rng.u8(0..4) {
            0 => self.rng.u64(usual - 1_000..usual + 1_000),
            1 => self.rng.u64(usual..usual * 2),
            _ => self.rng.u64(200..usual),
        };
        self.plan(after + gap, Event::Wake(node));
    }

    pub(crate) fn die(&mut self, node: usize) {
        if self.nodes[node].is_alive {
            self.nodes[node].is_alive = false;
            self.stats.deaths += 1;
        }
    }

    fn request(&mut self, node: usize, activity: Activity) {
        (self.nodes[node].activity, self.nodes[node].tries) = (activity, 0);
        self.send_request(node);
    }

    fn send_request(&mut self, node: usize) {
        let relay =
            if self.rng.bool() { self.nodes[node].relay } else { self.rng.usize(..self.relays.len()) };
        let it = &mut self.nodes[node];
        it.relay = relay;
        it.beat += 1;
        it.tries += 1;
        it.is_answered = false;
        let (beat, activity, incarnation) = (it.beat, it.activity, it.incarnation);
        // A wake gives up what was left of the sleep.
        let end = self.now + self.settings.when_applied(activity).0;
        self.ledger.gives_up_beyond(node, end);
        let call = Call {
            node,
            relay,
            life: 0,
            incarnation,
            beat: Beat(beat),
            id: CallId(self.rng.u64(1..)),
            activity,
            sent: self.now,
            until: self.now + PATIENCE,
            pushes: self.rng.u8(0..5) == 0,
            step: Step::Sent,
            tries: 0,
        };
        self.transmit_call(call);
        self.plan(TIMEOUT, Event::Unanswered(node, beat));
    }

    /// A transmission gets lost, or is late, or arrives twice. What another relay is told is another transmission.
    fn transmit_call(&mut self, call: Call) {
        let copies = match self.rng.u8(0..50) {
            0 => 0,
            1 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            self.calls.push(call.clone());
            let nth = self.calls.len() - 1;
            let slow = self.rng.u8(0..20) == 0;
            let delay = if slow { self.rng.u64(200..2_500) } else { self.rng.u64(1..40) };
            self.plan(delay, Event::Arrive(nth));
        }
    }

    pub(crate) fn unanswered(&mut self, node: usize, beat: u64) {
        let it = &self.nodes[node];
        if it.is_alive && it.beat == beat && !it.is_answered && it.tries < TRIES {
            self.send_request(node);
        }
    }
}
