//! What a relay remembers of its own last minutes, for people: figures of each second, and when a revision was new.
//!
//! Both have a fixed size, whatever happens, and both are lost with the process. The room is pure: `now` is an argument, in
//! milliseconds since the relay started. Nothing is decided by what stands here.

mod ages;
mod samples;

pub use ages::Ages;
pub use samples::{GROUPS, LENGTH, Recent, Sample, Samples};

use dormouse_proto::ids::Revision;
use parking_lot::RwLock;

use crate::metrics::{FIGURES, GroupGauge};

/// Both, shared.
#[derive(Debug, Default)]
pub struct History {
    samples: RwLock<Samples>,
    ages: RwLock<Ages>,
}

impl History {
    /// A second is over.
    pub fn take(
        &self,
        now_ms: u64,
        revision: Revision,
        figures: [u64; FIGURES.len()],
        groups: &[GroupGauge],
    ) {
        self.ages.write().note(now_ms, revision);
        self.samples.write().take(now_ms, figures, groups);
    }

    /// Milliseconds since something newer than `revision` was first seen, at least; 0 if nothing was.
    pub fn age(&self, now_ms: u64, revision: Revision) -> u64 {
        self.ages.read().age(now_ms, revision)
    }

    /// The samples from number `from` on; all that there are if it is too far back, or ahead.
    pub fn recent(&self, from: u64) -> Recent {
        self.samples.read().from(from)
    }
}
