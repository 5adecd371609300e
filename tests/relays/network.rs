//! What lies between the relays and their log: appends and reads that are late, hang, get lost or are refused; and the
//! processes that stand still, die and start.

use std::rc::Rc;

use dormouse_proto::record::Frame;

use crate::{
    relay::{Cut, Phase, Waits},
    world::{Event, World},
};

/// Wait before an append whose outcome is unknown is tried again.
const RETRY: u64 = 50;

impl World {
    /// Sends the next frame, if none is on its way.
    pub(crate) fn pump(&mut self, relay: usize) {
        if let Some(counter) = self.relays[relay].fill() {
            self.transmit(relay, counter);
        }
    }

    /// Sends a frame, once more maybe. Over a new connection an Open goes first.
    pub(crate) fn transmit(&mut self, relay: usize, counter: u64) {
        let (connection, opened_on) = (self.relays[relay].connection, self.relays[relay].opened_on);
        let counter = if connection == opened_on || self.relays[relay].phase == Phase::Opening {
            counter
        } else {
            // The frame is sent when the Open was read back; `applied` sees to it.
            self.relays[relay].open_anew()
        };
        self.send(relay, counter);
    }

    fn send(&mut self, relay: usize, counter: u64) {
        let life = self.relays[relay].life;
        let (now, cut_until) = (self.now, self.relays[relay].cut_until);
        let is_cut = cut_until > now;
        let Some(pending) = self.relays[relay].pending.get_mut(&counter) else { return };
        pending.tries += 1;
        let (frame, tries) = (Rc::clone(&pending.frame), pending.tries);
        if !is_cut || self.relays[relay].cut != Cut::Lost {
            let at = self.lands_at(relay, now.max(cut_until));
            self.plan(at - now, Event::Land(relay, life, counter, frame));
        }
        let timeout = self.faults.append_timeout_ms;
        self.plan(timeout, Event::Overdue(relay, life, counter, tries));
    }

    pub(crate) fn land(&mut self, relay: usize, life: u32, counter: u64, frame: &Rc<Frame>) {
        let refused = self.faults.refusals && !self.is_calm && self.rng.u8(0..40) == 0;
        if !refused {
            self.append(relay, frame);
        }
        let delay = self.rng.u64(1..self.faults.delay_ms);
        let cut_until = self.relays[relay].cut_until;
        if cut_until <= self.now || self.relays[relay].cut != Cut::Lost {
            let at =
                if self.relays[relay].cut == Cut::SendsHang { self.now } else { cut_until.max(self.now) }
                    + delay;
            self.plan(at - self.now, Event::Acked(relay, life, counter, !refused));
        }
    }

    pub(crate) fn acked(&mut self, relay: usize, counter: u64, has_it: bool) {
        let Some(pending) = self.relays[relay].pending.get_mut(&counter) else { return };
        pending.is_committed |= has_it;
        self.relays[relay].is_stalled = false;
        if self.relays[relay].in_flight == Some(counter) {
            self.relays[relay].in_flight = None;
        }
        if !has_it && !self.relays[relay].pending[&counter].is_committed {
            if let Some(pending) = self.relays[relay].pending.remove(&counter) {
                for waits in pending.waits {
                    self.hand(relay, waits, None);
                }
            }
            if self.relays[relay].phase == Phase::Opening {
                return self.restart(relay, 500);
            }
            // An Open that was refused refuses what waits behind it; the next frame tries once more.
            self.retry_behind(relay);
        }
        self.settle(relay, counter);
        self.pump(relay);
    }

    fn retry_behind(&mut self, relay: usize) {
        if let Some(waiting) = self.relays[relay].in_flight {
            let life = self.relays[relay].life;
            self.plan(RETRY, Event::Transmit(relay, life, waiting));
        }
    }

    pub(crate) fn overdue(&mut self, relay: usize, life: u32, counter: u64, tries: u32) {
        let Some(pending) = self.relays[relay].pending.get(&counter) else { return };
        if pending.is_committed || pending.tries != tries {
            return;
        }
        self.relays[relay].is_stalled = true;
        // An Open of a connection that is no more gives way to the next one.
        let again = self.relays[relay].in_flight.unwrap_or(counter);
        if again != counter {
            self.relays[relay].pending.remove(&counter);
        }
        self.plan(RETRY, Event::Transmit(relay, life, again));
    }

    pub(crate) fn deliver(&mut self, relay: usize, life: u32, upto: usize) {
        let cut_until = self.relays[relay].cut_until;
        if cut_until > self.now && self.relays[relay].cut != Cut::SendsHang {
            let later = cut_until - self.now + self.rng.u64(1..50);
            return self.plan(later, Event::Deliver(relay, life, upto));
        }
        while self.relays[relay].applied < upto {
            let frame = Rc::clone(&self.log[self.relays[relay].applied]);
            let (now, was_opening) = (self.now, self.relays[relay].phase == Phase::Opening);
            self.relays[relay].apply(now, &frame);
            if frame.header.session == self.relays[relay].session {
                self.read_back(relay, &frame, was_opening);
            }
        }
        if self.relays[relay].is_stirred {
            let soon = self.rng.u64(0..=self.faults.delay_ms / 8);
            self.plan(soon, Event::Stir(relay, life));
        }
        self.pump(relay);
    }

    fn read_back(&mut self, relay: usize, frame: &Frame, was_opening: bool) {
        let counter = frame.header.counter;
        let is_open = matches!(frame.records[..], [dormouse_proto::record::Record::Open { .. }]);
        if is_open && !was_opening && self.relays[relay].pending.contains_key(&counter) {
            self.relays[relay].opened_on = self.relays[relay].connection;
            self.relays[relay].pending.remove(&counter);
            self.retry_behind(relay);
        }
        self.settle(relay, counter);
    }

    /// Answers who waited for a frame that is committed and applied.
    fn settle(&mut self, relay: usize, counter: u64) {
        if let Some((waits, verdicts)) = self.relays[relay].settled(counter) {
            for (waits, verdict) in waits.into_iter().zip(verdicts) {
                self.hand(relay, waits, Some(&verdict));
            }
        }
    }

    fn hand(&mut self, relay: usize, waits: Waits, verdict: Option<&dormouse_relay::state::Verdict>) {
        let now = self.now;
        if let Some(call) = self.relays[relay].answered(now, waits, verdict) {
            self.written(call, verdict);
        }
    }

    // ---- what goes wrong ----

    pub(crate) fn fault(&mut self) {
        if self.is_calm {
            return;
        }
        let next = self.rng.u64(1..self.faults.every_ms * 2);
        self.plan(next, Event::Fault);
        let relay = self.rng.usize(..self.relays.len());
        let length = [300, 1_200, 2_000, 3_500, 6_500, 9_000, 15_000];
        let length = if self.faults.long { 15_000 } else { length[self.rng.usize(..7)] };
        let length = length + self.rng.u64(0..length / 2);
        let which = self.rng.u8(0..5);
        self.stats.faults += 1;
        match which {
            0 if self.faults.pauses => self.pause(relay, length),
            1 if self.faults.cuts => self.cut(relay, length, Cut::Lost),
            2 if self.faults.hangs && self.faults.one_way => self.cut(relay, length, Cut::SendsHang),
            2 if self.faults.hangs => self.cut(relay, length, Cut::Hangs),
            3 if self.faults.restarts => self.restart(relay, length),
            4 if self.faults.stalls => self.stalled_until = self.stalled_until.max(self.now + length / 2),
            _ => self.stats.faults -= 1,
        }
    }

    fn pause(&mut self, relay: usize, length: u64) {
        let until = self.now + length;
        let after = self.rng.u64(0..20);
        let relay = &mut self.relays[relay];
        if relay.paused_until <= self.now {
            // The last tick was just before.
            relay.now(self.now);
            relay.paused_until = until;
            relay.ticks_from = until + after;
        }
    }

    fn cut(&mut self, relay: usize, length: u64, cut: Cut) {
        if self.relays[relay].cut_until > self.now {
            return;
        }
        self.relays[relay].cut_until = self.now + length;
        self.relays[relay].cut = cut;
        if cut == Cut::Lost {
            self.plan(length, Event::Reconnect(relay));
        }
    }

    pub(crate) fn reconnect(&mut self, relay: usize) {
        self.relays[relay].connection += 1;
        // What was on its way over the old one is as good as overdue.
        let relay_now = &self.relays[relay];
        let (life, in_flight) = (relay_now.life, relay_now.in_flight);
        if let Some(pending) =
            in_flight.and_then(|counter| Some((counter, relay_now.pending.get(&counter)?.tries)))
        {
            let soon = self.rng.u64(0..200);
            self.plan(soon, Event::Overdue(relay, life, pending.0, pending.1));
        }
    }

    fn restart(&mut self, relay: usize, length: u64) {
        if self.relays[relay].phase == Phase::Down {
            return;
        }
        self.relays[relay].kill();
        self.relays[relay].paused_until = 0;
        let life = self.relays[relay].life;
        let length = if self.faults.long { 300 } else { length };
        if self.is_calm || self.rng.u8(0..4) > 0 {
            self.plan(length, Event::Start(relay, life));
        }
    }

    pub(crate) fn start(&mut self, relay: usize, life: u32) {
        if self.relays[relay].life != life || self.relays[relay].phase != Phase::Down {
            return;
        }
        let wait = self.relays[relay].cut_until.max(self.stalled_until);
        if wait > self.now {
            return self.plan(wait - self.now + 10, Event::Start(relay, life));
        }
        self.stats.starts += 1;
        let session = self.rng.u64(1..);
        let (now, settings) = (self.now, self.settings);
        self.relays[relay].start(now, session, settings, &self.log);
        let life = self.relays[relay].life;
        self.plan(0, Event::Look(relay, life));
        self.pump(relay);
    }
}
