//! Relays that still hold what the log has lost, and what their Reseeds refer to.

use std::rc::Rc;

use dormouse_proto::{
    ids::Revision,
    record::{Record, Reseed, SnapshotName},
    traps::Trap,
};
use dormouse_relay::state::Fold;

use crate::{
    machine::Snapshot,
    relay::{JUMP, Relay},
    truth::Truth,
    violation::Violation,
    world::World,
};

/// The stored states that Reseeds refer to, each with the reference at the end of the lost tail.
#[derive(Clone, Debug, Default)]
pub struct Seeds(Vec<(Snapshot, Rc<Truth>)>);

impl Seeds {
    /// The state that a Reseed refers to, read back from what was stored.
    pub fn state(&self, reseed: &Reseed) -> Fold {
        self.of(reseed).0.restore(None).fold
    }

    /// The reference where that state was.
    pub fn truth(&self, reseed: &Reseed) -> &Truth {
        &self.of(reseed).1
    }

    fn of(&self, reseed: &Reseed) -> &(Snapshot, Rc<Truth>) {
        let nth = usize::try_from(reseed.snapshot.crc).expect("few of them");
        &self.0[nth]
    }

    fn store(&mut self, state: Snapshot, truth: Truth) -> u64 {
        self.0.push((state, Rc::new(truth)));
        self.0.len() as u64 - 1
    }
}

impl World {
    /// A relay finds that the log has lost what it applied. It gives that back if nothing has taken effect since, and begins
    /// anew with what the log has otherwise; `false`: it waits for others, and stays away meanwhile.
    ///
    /// # Errors
    /// What a fold did and the reference would not.
    pub fn find_lost(&mut self, relay: usize) -> Result<bool, Violation> {
        let entries = self.log.entries();
        let same = self.relays[relay].frames.iter().zip(entries).take_while(|(mine, its)| mine.id == its.id);
        let cut = same.count();
        let records = entries[cut..].iter().flat_map(|entry| &entry.frame.records);
        let mut effects = records.filter(|it| it.takes_effect() || matches!(it, Record::Reseed(_)));
        let is_free = effects.next().is_none() && self.trap != Some(Trap::NoOpen);
        self.say(|| format!("relay {relay} finds that the log has lost what it applied behind {cut}"));
        if !is_free {
            self.relays[relay] = Relay::new(self.trap);
            return Ok(true);
        }
        let mine = self.relays[relay].revision();
        let holds_more = |it: &Relay| !it.connected && it.has_state && it.revision() > mine;
        if self.relays.iter().any(holds_more) && self.chance(0.7) {
            return Ok(false);
        }
        self.heal(relay, cut)
    }

    fn heal(&mut self, relay: usize, cut: usize) -> Result<bool, Violation> {
        let lost = self.relays[relay].clone();
        let truth = self.truth_at_the_end_of(&lost)?;
        let at_the_cut = cut.checked_sub(1).and_then(|last| truth.verdicts(last).last());
        let safe = at_the_cut.map_or(Revision::ZERO, |it| it.0);
        let hash = lost.machine.fold.hash().0;
        let record_id = cut.checked_sub(1).map(|last| lost.frames[last].id);
        let nth = self.seeds.store(Snapshot::of(&lost.machine, &lost.frames), truth);
        self.relays[relay] = Relay::new(self.trap);
        self.open_session(relay)?;
        let above = lost.revision().max(self.relays[relay].revision());
        let reseed = Record::Reseed(Reseed {
            position: cut as u64,
            record_id: record_id.map_or((0, 0), |id| (id.session, id.counter)),
            safe,
            snapshot: SnapshotName { crc: nth, ..SnapshotName::default() },
            hash,
            base: Revision(above.0 + JUMP + self.rng.u64(..JUMP)),
        });
        self.say(|| format!("relay {relay} gives back what is behind {safe}: {reseed:?}"));
        if self.chance(0.3) {
            // It is under way for long, and others may be faster.
            self.reseeds.push(reseed);
            self.relays[relay] = lost;
            return Ok(false);
        }
        self.write(relay, reseed)?;
        Ok(true)
    }

    /// The reference where that relay is: the log that it has read is not there any more.
    fn truth_at_the_end_of(&self, relay: &Relay) -> Result<Truth, Violation> {
        let known = &self.truths[relay.history];
        if known.position() == relay.frames.len() {
            return Ok(known.clone());
        }
        let mut truth = Truth::new(self.trap);
        for entry in &relay.frames {
            truth.apply(entry, &self.registry, &self.seeds)?;
        }
        Ok(truth)
    }

    /// A Reseed that was under way for long arrives.
    ///
    /// # Errors
    /// What a fold did and the reference would not.
    pub fn land_reseed(&mut self, relay: usize) -> Result<(), Violation> {
        if let Some(reseed) = self.reseeds.pop() {
            self.say(|| format!("a Reseed arrives late: {reseed:?}"));
            self.write(relay, reseed)?;
        }
        Ok(())
    }
}
