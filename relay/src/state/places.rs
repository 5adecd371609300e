//! From a hash to the place of a row or key: a hash table that holds nothing but places.
//!
//! A general table keeps its tags apart from its entries, so that a lookup among millions of rows misses the cache
//! twice before it reaches the row. Here both are one word. The word also says where an entry belongs, so that growing
//! and removing never look at a row; and the table is split into parts, so that growing one never stalls on all of them.
//! Parts begin with different lengths and grow by half, so they grow at different times and the whole table takes close
//! to the same number of bytes for each entry at any size: the quota of a namespace is told in bytes of memory.

/// An entry: the tag, and the place plus one. Zero is a free slot.
type Slot = u64;

const PARTS: usize = 64;

/// One part: open addressing with linear probing.
#[derive(Clone, Debug, Default)]
struct Part {
    slots: Vec<Slot>,
    entries: usize,
}

fn tag_of(hash: u64) -> u64 {
    hash >> 32
}

impl Part {
    /// The slot behind this one; behind the last comes the first.
    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// How many steps lead from one slot to another.
    fn steps(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.slots.len() - from }
    }

    /// Where an entry with this tag belongs: the tag as a share of all tags. Works with any length.
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
            at = self.after(at);
        }
    }

    /// Takes in an entry; the first one makes room for `first` of them.
    fn insert(&mut self, tag: u64, place: u32, first: usize) {
        if (self.entries + 1) * 4 > self.slots.len() * 3 {
            let len = self.slots.len();
            self.grow(if len == 0 { first } else { len + len / 2 });
        }
        self.put(slot_of(tag, place));
        self.entries += 1;
    }

    fn put(&mut self, slot: Slot) {
        let mut at = self.home(slot >> 32);
        while self.slots[at] != 0 {
            at = self.after(at);
        }
        self.slots[at] = slot;
    }

    /// Entries are met in the order in which they will stand, so this is one pass over memory.
    fn grow(&mut self, len: usize) {
        let old = std::mem::replace(&mut self.slots, vec![0; len]);
        for slot in old.into_iter().filter(|slot| *slot != 0) {
            self.put(slot);
        }
    }

    /// Frees a slot and moves back those behind it that only stood there because it was taken.
    fn remove(&mut self, mut hole: usize) {
        let mut at = hole;
        loop {
            at = self.after(at);
            let slot = self.slots[at];
            if slot == 0 {
                break;
            }
            if self.steps(self.home(slot >> 32), at) >= self.steps(hole, at) {
                self.slots[hole] = slot;
                hole = at;
            }
        }
        self.slots[hole] = 0;
        self.entries -= 1;
    }
}

fn slot_of(tag: u64, place: u32) -> Slot {
    (tag << 32) | (u64::from(place) + 1)
}

#[expect(clippy::cast_possible_truncation, reason = "the place is the lower half")]
const fn place_in(slot: Slot) -> u32 {
    (slot as u32).wrapping_sub(1)
}

#[expect(clippy::cast_possible_truncation, reason = "the lowest bits are enough for a part")]
const fn part_of(hash: u64) -> usize {
    hash as usize % PARTS
}

/// Slots that a part begins with. Grown by halves, these four lengths stay evenly apart.
const fn first_len(part: usize) -> usize {
    8 + part % 4
}

/// The slots of a part with so many entries: what it would have grown to.
fn len_for(entries: usize, first: usize) -> usize {
    let mut len = first;
    while entries * 4 > len * 3 {
        len += len / 2;
    }
    len
}

/// Places that are known before any of them is looked for, as a snapshot's. Put into a large table one by one, each
/// misses the cache; sorted by parts first, they are put into one part at a time, which is made as long as it has to be.
#[derive(Clone, Debug)]
pub(super) struct Gathered {
    parts: Vec<Vec<Slot>>,
}

impl Default for Gathered {
    fn default() -> Self {
        Self { parts: vec![Vec::new(); PARTS] }
    }
}

impl Gathered {
    /// Takes in a place that is not there yet.
    pub(super) fn push(&mut self, hash: u64, place: u32) {
        self.parts[part_of(hash)].push(slot_of(tag_of(hash), place));
    }

    /// The table of all of them.
    pub(super) fn into_places(self) -> Places {
        let part = |(nth, gathered): (usize, Vec<Slot>)| {
            let mut part = Part { slots: Vec::new(), entries: gathered.len() };
            if !gathered.is_empty() {
                part.slots = vec![0; len_for(gathered.len(), first_len(nth))];
                for slot in gathered {
                    part.put(slot);
                }
            }
            part
        };
        Places { parts: self.parts.into_iter().enumerate().map(part).collect() }
    }
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

    /// The place under this hash that `is_it`.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let part = self.part(hash);
        part.find(tag_of(hash), is_it).map(|at| place_in(part.slots[at]))
    }

    /// The place that is probably found under this hash, by the tag alone and without a look at the row.
    pub(super) fn guess(&self, hash: u64) -> Option<u32> {
        /// The slots of one cache line; what stands further away is found late, and is rare.
        const NEAR: usize = 8;
        let part = self.part(hash);
        let home = part.home(tag_of(hash));
        let near = part.slots.get(home..part.slots.len().min(home + NEAR))?;
        let found = near.iter().take_while(|slot| **slot != 0).find(|slot| **slot >> 32 == tag_of(hash));
        found.map(|slot| place_in(*slot))
    }

    /// Takes in a place that is not there yet.
    pub(super) fn insert(&mut self, hash: u64, place: u32) {
        let part = part_of(hash);
        self.parts[part].insert(tag_of(hash), place, first_len(part));
    }

    /// Forgets a place.
    pub(super) fn remove(&mut self, hash: u64, place: u32) {
        let part = &mut self.parts[part_of(hash)];
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

    #[test]
    fn gathered_places_make_the_table_that_they_would_have_grown_to() {
        let (mut gathered, mut grown, hasher) =
            (Gathered::default(), Places::default(), RandomState::default());
        for place in 0..10_000 {
            gathered.push(hasher.hash_one(place), place);
            grown.insert(hasher.hash_one(place), place);
        }
        let places = gathered.into_places();
        for (part, grown) in places.parts.iter().zip(&grown.parts) {
            assert_eq!((part.entries, part.slots.len()), (grown.entries, grown.slots.len()));
        }
        assert!((0..10_000).all(|place| places.find(hasher.hash_one(place), |it| it == place).is_some()));
    }

    /// Beyond some thousands, where the first slots of 64 parts no longer count.
    #[test]
    fn an_entry_takes_close_to_the_same_memory_at_any_size() {
        let (mut places, hasher) = (Places::default(), RandomState::default());
        for place in 0..200_000 {
            places.insert(hasher.hash_one(place), place);
            if place > 10_000 && place % 1000 == 0 {
                let slots = places.parts.iter().map(|part| part.slots.capacity()).sum::<usize>();
                let bytes = f64::from(u32::try_from(slots * size_of::<Slot>()).expect("small"));
                let each = bytes / f64::from(place);
                assert!((12.0..14.5).contains(&each), "{each} bytes for each of {place}");
            }
        }
    }
}
