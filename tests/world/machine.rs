//! The project's own fold, and the one rule around it that belongs to nobody else: frames are not deduplicated.

use std::{collections::HashMap, rc::Rc};

use dormouse_proto::{
    record::{Frame, Record},
    traps::{Trap, Traps},
};
use dormouse_relay::{
    log::RecordId,
    state::{Fold, Verdict},
};

use crate::{healing::Seeds, log::Entry};

/// What applies frames.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The state.
    pub fold: Fold,
    trap: Option<Trap>,
    /// The newest counter of each session; used only by the trap that deduplicates frames.
    newest: HashMap<u64, u64>,
}

/// The rules that are left out, as the code under test takes them.
pub fn traps(trap: Option<Trap>) -> Traps {
    trap.map_or_else(Traps::default, Traps::only)
}

impl Machine {
    /// Before the first frame.
    pub fn new(trap: Option<Trap>) -> Self {
        Self { fold: Fold::with_traps(traps(trap)), trap, newest: HashMap::new() }
    }

    /// Applies a frame, with what a Reseed in it refers to.
    pub fn apply(&mut self, frame: &Frame, seeds: &Seeds, each: impl FnMut(&Fold, usize, &Record, Verdict)) {
        let newest = self.newest.entry(frame.header.session).or_default();
        if self.trap == Some(Trap::FrameCounter) && frame.header.counter <= *newest {
            return;
        }
        *newest = (*newest).max(frame.header.counter);
        if let Some(reseed) = self.fold.wants(frame) {
            self.fold.give(seeds.state(reseed));
        }
        self.fold.apply_frame(frame, each);
    }
}

/// A snapshot, named by the last frame that it covers.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The ids of all frames up to there; the last one is the snapshot's name.
    pub covered: Vec<RecordId>,
    bytes: Rc<Vec<u8>>,
    newest: HashMap<u64, u64>,
}

impl Snapshot {
    /// Writes one.
    pub fn of(machine: &Machine, covered: &[Entry]) -> Self {
        let mut bytes = Vec::new();
        machine.fold.write_snapshot(|piece| bytes.extend_from_slice(piece));
        let covered = covered.iter().map(|entry| entry.id).collect();
        Self { covered, bytes: Rc::new(bytes), newest: machine.newest.clone() }
    }

    /// Reads it back, in pieces that end anywhere.
    pub fn restore(&self, trap: Option<Trap>) -> Machine {
        let fold = Fold::restore(self.bytes.chunks(701)).expect("a snapshot that was written can be read");
        Machine { fold, trap, newest: self.newest.clone() }
    }
}
