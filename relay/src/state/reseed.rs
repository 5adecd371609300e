//! A log that came back without its newest frames, healed from the memory of a relay that still holds what they made.
//!
//! The state of that relay takes the place of what the log is left with. Nothing may have taken effect in between, or it
//! would be undone: of two such records the second is void, and so is one that comes late (rule G4). Numbers that the lost
//! tail had given out are valid nowhere any more, so what changed there is told anew under numbers that are.

use dormouse_proto::{
    ids::Revision,
    record::{Frame, Record, Reseed},
    traps::Trap,
};

use super::Fold;

/// What became of a Reseed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seeded {
    /// Something took effect since the cut: it changes nothing.
    Void,
    /// The state is the one that it refers to.
    Healed,
    /// It takes effect, and nobody has given the fold what it refers to: this is not the state of the log any more, and
    /// nothing may be applied to it. [`Fold::wants`] would have told.
    Missing,
}

impl Fold {
    /// The Reseed in that frame that will take effect when it is applied next; [`Fold::give`] must come first then.
    pub fn wants<'a>(&self, frame: &'a Frame) -> Option<&'a Reseed> {
        for record in &frame.records {
            match record {
                Record::Reseed(reseed) if self.accepts(reseed) => return Some(reseed),
                // Within a frame the later ones come after this.
                it if it.takes_effect() && !self.traps.has(Trap::LateReseed) => return None,
                _ => {}
            }
        }
        None
    }

    /// The state that the Reseed refers to, restored and compared with its hash.
    pub fn give(&mut self, lost: Self) {
        self.seed = Some(Box::new(lost));
    }

    fn accepts(&self, reseed: &Reseed) -> bool {
        self.is_valid(reseed.safe) && (self.effective <= reseed.safe || self.traps.has(Trap::LateReseed))
    }

    pub(super) fn reseed(&mut self, reseed: &Reseed) -> Seeded {
        let seed = self.seed.take();
        if !self.accepts(reseed) {
            self.segments.advance();
            return Seeded::Void;
        }
        let start = reseed.base.max(self.revision().next());
        let healed = seed.and_then(|lost| self.healed(*lost, reseed.safe, start));
        match healed {
            Some(healed) => {
                *self = healed;
                Seeded::Healed
            }
            None => {
                self.segments.advance();
                Seeded::Missing
            }
        }
    }

    /// The lost state with numbers that begin at `start`, in the place of this one.
    fn healed(&self, lost: Self, safe: Revision, start: Revision) -> Option<Self> {
        let (mut segments, head) = (lost.segments.clone(), lost.revision());
        segments.clip(safe);
        let start = segments.jump(start.max(head.next()));
        let mut fold = if self.traps.has(Trap::NoRestamp) {
            lost
        } else {
            let (fold, given) = lost.restamped(safe, start).ok()?;
            for _ in 0..given {
                segments.advance();
            }
            fold
        };
        for (number, namespace) in fold.namespaces.iter_mut().enumerate() {
            // What this process has counted is no part of either state.
            if let Some(before) = self.namespaces.get(number) {
                namespace.go_on_counting(before);
            }
        }
        fold.effective = segments.head();
        fold.segments = segments;
        // Both clocks of the fold only ever go forward.
        fold.log_time_ms = fold.log_time_ms.max(self.log_time_ms);
        fold.stamp_ms = fold.stamp_ms.max(self.stamp_ms);
        fold.traps = self.traps;
        Some(fold)
    }
}
