//! A relay as far as the log goes: it applies frames, writes frames, crashes, starts again, and notices a lost tail.

use std::sync::Arc;

use dormouse_proto::{
    ids::Revision,
    record::{Digest, Frame, FrameHeader, Record},
    traps::Trap,
};
use dormouse_relay::state::{Seeded, Verdict};

use crate::{
    log::Entry,
    machine::{Machine, Snapshot},
    truth::Truth,
    violation::{Violation, ensure},
    world::World,
};

/// How far an Open jumps at least, and at most beyond that.
pub(crate) const JUMP: u64 = 1 << 36;

/// One relay.
#[derive(Clone, Debug)]
pub struct Relay {
    /// Its state.
    pub machine: Machine,
    /// The frames that it has applied.
    pub frames: Vec<Entry>,
    session: u64,
    counter: u64,
    /// Whether it reaches the log.
    pub connected: bool,
    /// Whether it has a state to answer from.
    pub has_state: bool,
    /// Which history of the log it has applied.
    pub history: usize,
}

impl Relay {
    /// A relay that has not started.
    pub fn new(trap: Option<Trap>) -> Self {
        Self {
            machine: Machine::new(trap),
            frames: Vec::new(),
            session: 0,
            counter: 0,
            connected: false,
            has_state: false,
            history: 0,
        }
    }

    /// The revision that it has applied.
    pub fn revision(&self) -> Revision {
        self.machine.fold.revision()
    }
}

impl World {
    /// Appends a frame with one record and applies the log up to it. The verdict is `None` if the relay holds the frame
    /// for one that it has applied already.
    ///
    /// # Errors
    /// What the fold did and the reference would not.
    pub fn write(&mut self, relay: usize, record: Record) -> Result<Option<Verdict>, Violation> {
        let header = self.next_header(relay);
        // Nothing goes out on a new connection before the Open has been read back (N4).
        if self.faults.reorder && !matches!(record, Record::Open { .. }) && self.chance(0.15) {
            // The frame's first try timed out, and a newer one of this relay lands before it.
            let newer = self.next_header(relay);
            let log_time_ms = self.now;
            self.append(Frame {
                header: newer,
                records: vec![Record::Digest(Digest { log_time_ms, ..Digest::default() })],
            })?;
        }
        self.append(Frame { header, records: vec![record] })?;
        let at = self.log.len();
        if self.faults.reorder && self.chance(0.1) {
            self.copies.push(self.log.entries()[at - 1].clone());
        }
        self.catch_up(relay, at)?;
        let verdict = self.truth().verdicts(at - 1).last().map(|it| it.1.clone());
        match verdict {
            Some(Verdict::Reseed(Seeded::Healed)) => self.stats.healed += 1,
            Some(Verdict::Reseed(_)) => self.stats.voided += 1,
            _ => {}
        }
        Ok(verdict)
    }

    fn next_header(&mut self, relay: usize) -> FrameHeader {
        let it = &mut self.relays[relay];
        it.counter += 1;
        FrameHeader {
            session: it.session,
            counter: it.counter,
            applied_position: it.frames.len() as u64,
            applied_revision: it.revision(),
            stamp_ms: self.now,
        }
    }

    fn append(&mut self, frame: Frame) -> Result<(), Violation> {
        let entry = self.log.append(frame);
        self.note(&entry)
    }

    /// A frame whose first try had arrived lands once more.
    ///
    /// # Errors
    /// What the fold did and the reference would not.
    pub fn land_copy(&mut self) -> Result<(), Violation> {
        if self.copies.is_empty() {
            return Ok(());
        }
        let nth = self.rng.usize(..self.copies.len());
        let entry = self.copies.swap_remove(nth);
        self.say(|| format!("the frame {} lands once more: {:?}", entry.id, entry.frame.records));
        self.log.append_copy(entry.clone());
        self.note(&entry)
    }

    fn note(&mut self, entry: &Entry) -> Result<(), Violation> {
        let Self { truths, registry, seeds, .. } = self;
        truths.last_mut().expect("there is a history").apply(entry, registry, seeds)
    }

    /// A relay applies the log up to a position.
    ///
    /// # Errors
    /// I5, if it comes to another verdict or another state than the fold at the end of the log.
    pub fn catch_up(&mut self, relay: usize, upto: usize) -> Result<(), Violation> {
        let Self { relays, log, truths, rng, seeds, .. } = self;
        let it = &mut relays[relay];
        let truth = &truths[it.history];
        while it.frames.len() < upto {
            let entry = &log.entries()[it.frames.len()];
            let (expected, mut nth, mut alike) = (truth.verdicts(it.frames.len()), 0, true);
            it.machine.apply(&entry.frame, seeds, |fold, _, _, verdict| {
                alike &= expected.get(nth).is_some_and(|want| *want == (fold.revision(), verdict));
                nth += 1;
            });
            it.frames.push(entry.clone());
            let position = it.frames.len();
            ensure(alike && nth == expected.len(), || {
                format!("I5: relay {relay} comes to another verdict at position {position}")
            })?;
        }
        // Tidying moves places in memory about, at other times on every relay, and must not show.
        if rng.u8(..) < 40 {
            it.machine.fold.tidy();
        }
        if upto == log.len() && rng.u8(..) < 24 { self.compare_hash(relay) } else { Ok(()) }
    }

    /// I5: at the same position, the same hash of the whole state.
    ///
    /// # Errors
    /// If it is another.
    pub fn compare_hash(&mut self, relay: usize) -> Result<(), Violation> {
        let position = self.log.len();
        let (is, want) = (self.relays[relay].machine.fold.hash(), self.truth_mut().hash());
        ensure(is == want, || format!("I5: relay {relay} has another state at position {position}"))
    }

    /// A relay writes a snapshot of what it has applied.
    pub fn take_snapshot(&mut self, relay: usize) {
        let it = &self.relays[relay];
        if !it.frames.is_empty() {
            self.snapshots.push(Snapshot::of(&it.machine, &it.frames));
            let covered = it.frames.len();
            self.say(|| format!("relay {relay} writes a snapshot of {covered} frames"));
        }
    }

    /// A relay loses its memory and its connection.
    pub fn crash(&mut self, relay: usize) {
        self.relays[relay] = Relay::new(self.trap);
        self.say(|| format!("relay {relay} crashes"));
    }

    /// The log loses its tail; all relays lose it, and some lose their memory too.
    ///
    /// # Errors
    /// What a fold did and the reference would not, on the shorter log.
    pub fn regress(&mut self) -> Result<(), Violation> {
        let wanted = self.rng.usize(1..15);
        let lost = self.log.lose_tail(wanted);
        let left = self.log.len();
        self.say(|| format!("the log loses {lost} frames, {left} are left"));
        self.stats.regressed += 1;
        self.late.clear();
        self.copies.clear();
        self.reseeds.clear();
        let mut truth = Truth::new(self.trap);
        for entry in self.log.entries() {
            truth.apply(entry, &self.registry, &self.seeds)?;
        }
        self.truths.push(truth);
        let all_crash = self.chance(0.3);
        for relay in 0..self.relays.len() {
            self.relays[relay].connected = false;
            if all_crash || self.chance(0.3) {
                self.crash(relay);
            }
        }
        Ok(())
    }

    /// A relay gets its connection to the log: it checks what it has applied, reads on, and opens its session.
    ///
    /// # Errors
    /// What it comes to and the reference would not.
    pub fn reconnect(&mut self, relay: usize) -> Result<(), Violation> {
        let it = &self.relays[relay];
        let there = |last: usize| self.log.entries().get(last).map(|entry| entry.id);
        let lost = it.frames.last().is_some_and(|mine| there(it.frames.len() - 1) != Some(mine.id));
        if lost && !self.find_lost(relay)? {
            return Ok(());
        }
        self.open_session(relay)
    }

    /// A relay reads on, from a snapshot if it has nothing, and opens its session.
    pub(crate) fn open_session(&mut self, relay: usize) -> Result<(), Violation> {
        if self.relays[relay].frames.is_empty() {
            self.restore(relay);
        }
        let history = self.truths.len() - 1;
        let session = self.rng.u64(..);
        let it = &mut self.relays[relay];
        (it.history, it.session, it.counter, it.connected, it.has_state) = (history, session, 0, true, true);
        self.catch_up(relay, self.log.len())?;
        let base = Revision(self.relays[relay].revision().0 + JUMP + self.rng.u64(..JUMP));
        self.say(|| format!("relay {relay} opens session {session:016x} at {base}"));
        self.write(relay, Record::Open { base })?;
        Ok(())
    }

    /// Starts from the newest snapshot whose last frame is the one that the log has there.
    fn restore(&mut self, relay: usize) {
        let blind = self.trap == Some(Trap::SnapshotBlind);
        let entries = self.log.entries();
        let usable = |it: &&Snapshot| {
            let place = entries.get(it.covered.len() - 1);
            place.is_some_and(|entry| blind || Some(&entry.id) == it.covered.last())
        };
        // A restored fold leaves no rule out, so where one is to be left out the whole log is read.
        let in_the_fold = !matches!(self.trap, None | Some(Trap::SnapshotBlind | Trap::FrameCounter));
        let found = self.snapshots.iter().rev().find(usable).filter(|_| !in_the_fold);
        if let Some(snapshot) = found {
            let covered = snapshot.covered.len();
            let machine = snapshot.restore(self.trap);
            let frames = entries[..covered].to_vec();
            let it = &mut self.relays[relay];
            (it.machine, it.frames) = (machine, frames);
            self.stats.restored += 1;
            self.say(|| format!("relay {relay} starts from a snapshot of {covered} frames"));
        }
    }

    /// An own relay that reads the whole log from its first frame.
    pub fn replay(&self) -> Arc<Machine> {
        let mut machine = Machine::new(self.trap);
        self.log.entries().iter().for_each(|entry| machine.apply(&entry.frame, &self.seeds, |_, _, _, _| {}));
        Arc::new(machine)
    }
}
