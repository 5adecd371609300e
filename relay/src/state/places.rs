//! From a hash to the place of a row or key: a hash table that holds nothing but places.
//!
//! A general table keeps its tags apart from its entries, so that a lookup among millions of rows misses the cache
//! twice before it reaches the row. Here both are one word. The word also says where an entry belongs, so that growing
//! and removing never look at a row; and the table is split into parts, so that growing one never stalls on all of them.

/// An entry: the tag, and the place plus one. Zero is a free slot.
type Slot = u64;

const PARTS: usize = 64;

/// One part: open addressing with linear probing.
#[derive(Clone, Debug, Default)]
struct Part {
    /// Empty, or a power of two of them.
    slots: Vec<Slot>,
    entries: usize,
}

fn tag_of(hash: u64) -> u64 {
    hash >> 32
}

impl Part {
    fn mask(&self) -> usize {
        self.slots.len() - 1
    }

    /// Where an entry with this tag belongs: the top bits of the tag.
    fn home(&self, tag: u64) -> usize {
        ((tag * self.slots.len() as u64) >> 32) as usize
    }

    fn find(&self, tag: u64, is_it: impl Fn(u32) -> bool) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.home(tag);
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return None;
            }
            if slot >> 32 == tag && is_it(place_in(slot)) {
                return Some(at);
            }
            at = (at + 1) & self.mask();
        }
    }

    fn insert(&mut self, tag: u64, place: u32) {
        if (self.entries + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        self.put((tag << 32) | (u64::from(place) + 1));
        self.entries += 1;
    }

    fn put(&mut self, slot: Slot) {
        let mut at = self.home(slot >> 32);
        while self.slots[at] != 0 {
            at = (at + 1) & self.mask();
        }
        self.slots[at] = slot;
    }

    fn grow(&mut self) {
        let larger = vec![0; (self.slots.len() * 2).max(8)];
        let old = std::mem::replace(&mut self.slots, larger);
        for slot in old.into_iter().filter(|slot| *slot != 0) {
            self.put(slot);
        }
    }

    /// Frees a slot and moves back those behind it that only stood there because it was taken.
    fn remove(&mut self, mut hole: usize) {
        let mask = self.mask();
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let slot = self.slots[at];
            if slot == 0 {
                break;
            }
            let displaced = at.wrapping_sub(self.home(slot >> 32)) & mask;
            if displaced >= at.wrapping_sub(hole) & mask {
                self.slots[hole] = slot;
                hole = at;
            }
        }
        self.slots[hole] = 0;
        self.entries -= 1;
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the place is the lower half")]
const fn place_in(slot: Slot) -> u32 {
    (slot as u32).wrapping_sub(1)
}

#[expect(clippy::cast_possible_truncation, reason = "the lowest bits are enough for a part")]
const fn part_of(hash: u64) -> usize {
    hash as usize % PARTS
}

/// The table. Hashes must be good in all bits. Places are below 2^32 - 1.
#[derive(Clone, Debug)]
pub(super) struct Places {
    parts: Vec<Part>,
}

impl Default for Places {
    fn default() -> Self {
        Self { parts: vec![Part::default(); PARTS] }
    }
}

impl Places {
    fn part(&self, hash: u64) -> &Part {
        &self.parts[part_of(hash)]
    }

    fn part_mut(&mut self, hash: u64) -> &mut Part {
        &mut self.parts[part_of(hash)]
    }

    /// The place under this hash that `is_it`.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let part = self.part(hash);
        part.find(tag_of(hash), is_it).map(|at| place_in(part.slots[at]))
    }

    /// The place that is probably found under this hash, by the tag alone and without a second look.
    pub(super) fn guess(&self, hash: u64) -> Option<u32> {
        let part = self.part(hash);
        let slot = *part.slots.get(part.home(tag_of(hash)))?;
        (slot >> 32 == tag_of(hash) && slot != 0).then(|| place_in(slot))
    }

    /// Takes in a place that is not there yet.
    pub(super) fn insert(&mut self, hash: u64, place: u32) {
        self.part_mut(hash).insert(tag_of(hash), place);
    }

    /// Forgets a place.
    pub(super) fn remove(&mut self, hash: u64, place: u32) {
        let part = self.part_mut(hash);
        if let Some(at) = part.find(tag_of(hash), |it| it == place) {
            part.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, hash::BuildHasher as _};

    use foldhash::quality::RandomState;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_finds_what_a_set_finds(steps in prop::collection::vec((any::<bool>(), 0..400_u32), 1..2000), few_hashes in any::<bool>()) {
            let (mut places, mut set, hasher) = (Places::default(), HashSet::new(), RandomState::default());
            // Few different hashes make long runs of neighbours.
            let hash = |place: u32| hasher.hash_one(if few_hashes { place % 7 } else { place });
            for (insert, place) in steps {
                if insert {
                    if set.insert(place) {
                        places.insert(hash(place), place);
                    }
                } else if set.remove(&place) {
                    places.remove(hash(place), place);
                }
            }
            for place in 0..400 {
                prop_assert_eq!(places.find(hash(place), |it| it == place).is_some(), set.contains(&place));
            }
            prop_assert_eq!(places.parts.iter().map(|part| part.entries).sum::<usize>(), set.len());
        }
    }
}
