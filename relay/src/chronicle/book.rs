//! The newest changes of one namespace's members: pages that were written once and are read by many, and behind them what
//! is on no page yet.
//!
//! Invariants: every change after [`Book::from`] is on a page or waits for one; there are never more changes, nor do they
//! weigh more, than the bounds allow, whoever reads or does not.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use dormouse_proto::{
    ids::{Group, Revision},
    wire::v1::member::State,
};

use crate::state::{RosterEntry, Tags};

/// What a change weighs beside its labels and what is written of it.
const CHANGE_BYTES: usize = 160;

/// How much a book may hold; beyond it the oldest changes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Changes, written or not.
    pub changes: usize,
    /// Bytes of memory that they may take, estimated.
    pub bytes: usize,
}

/// A reader has read up to a revision after which changes were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFarBehind;

/// What a filter asks of one written change.
#[derive(Clone, Debug)]
pub struct Told {
    /// The revision of the change.
    pub at: Revision,
    /// What the member runs.
    pub group: Group,
    /// Its labels.
    pub tags: Tags,
    /// What it was taken for when it was written, and how likely it lived; `None`: it has ended.
    pub live: Option<(State, f32)>,
    /// Where what is written of it ends.
    end: usize,
}

/// Changes, written.
#[derive(Debug)]
pub struct Page {
    after: Revision,
    upto: Revision,
    told: Vec<Told>,
    written: Bytes,
    weight: usize,
    changes: usize,
}

impl Page {
    /// Everything up to here was told to whoever has read the pages before and this one.
    pub fn upto(&self) -> Revision {
        self.upto
    }

    /// How many changes are written on it.
    pub fn len(&self) -> usize {
        self.told.len()
    }

    /// Nothing is: all of its changes were overtaken by later ones.
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// All of it, for a reader that has read everything before it; `None` for one that knows some of it.
    pub fn whole(&self, after: Revision) -> Option<Bytes> {
        (after <= self.after).then(|| self.written.clone())
    }

    /// What is written of the changes after a revision that are wanted, in as few pieces as that takes.
    pub fn pick(&self, after: Revision, wanted: impl Fn(&Told) -> bool) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        let (mut begin, mut end) = (0, 0);
        for (nth, told) in self.told.iter().enumerate() {
            if told.at <= after || !wanted(told) {
                continue;
            }
            let begins = nth.checked_sub(1).map_or(0, |before| self.told[before].end);
            if begins != end {
                pieces.extend((begin < end).then(|| self.written.slice(begin..end)));
                begin = begins;
            }
            end = told.end;
        }
        pieces.extend((begin < end).then(|| self.written.slice(begin..end)));
        pieces
    }
}

/// The newest changes of one namespace.
#[derive(Debug)]
pub struct Book {
    bounds: Bounds,
    from: Revision,
    pages: VecDeque<Arc<Page>>,
    unwritten: VecDeque<(Revision, RosterEntry)>,
    changes: usize,
    bytes: usize,
}

impl Book {
    /// An empty one that hears of every change after a revision.
    pub fn new(from: Revision, bounds: Bounds) -> Self {
        Self { bounds, from, pages: VecDeque::new(), unwritten: VecDeque::new(), changes: 0, bytes: 0 }
    }

    /// Changes up to here may have been dropped, or were before its time.
    pub fn from(&self) -> Revision {
        self.from
    }

    /// Changes that it holds.
    pub fn changes(&self) -> usize {
        self.changes
    }

    /// What they take in memory, estimated.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Holds at most so much from here on.
    pub fn bound(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        self.drop_oldest();
    }

    /// A member's row changed at `at`, which is above every revision noted before.
    pub fn note(&mut self, at: Revision, entry: RosterEntry) {
        self.changes += 1;
        self.bytes += weight(&entry);
        self.unwritten.push_back((at, entry));
        self.drop_oldest();
    }

    /// A change cannot be told: nobody who has not heard of `at` goes on from here.
    pub fn lose(&mut self, at: Revision) {
        self.pages.clear();
        self.unwritten.clear();
        (self.from, self.changes, self.bytes) = (at, 0, 0);
    }

    /// Whoever reads it has to begin anew, with another one.
    pub fn close(&mut self) {
        self.lose(Revision(u64::MAX));
    }

    fn drop_oldest(&mut self) {
        while self.changes > self.bounds.changes || self.bytes > self.bounds.bytes {
            if let Some(page) = self.pages.pop_front() {
                self.from = page.upto;
                self.changes -= page.changes;
                self.bytes -= page.weight;
            } else if let Some((at, entry)) = self.unwritten.pop_front() {
                self.from = at;
                self.changes -= 1;
                self.bytes -= weight(&entry);
            } else {
                return;
            }
        }
    }

    /// Whether a change waits to be written.
    pub fn is_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// The first page that says something new to whoever has read up to `after`; `None`: none does.
    ///
    /// # Errors
    /// Some of what it has not read was dropped.
    pub fn page_after(&self, after: Revision) -> Result<Option<Arc<Page>>, TooFarBehind> {
        if after < self.from {
            return Err(TooFarBehind);
        }
        let next = self.pages.partition_point(|page| page.upto <= after);
        Ok(self.pages.get(next).map(Arc::clone))
    }

    /// Writes the oldest changes that are on no page yet, `at_most` so many. `write` puts one behind the others and
    /// answers what a filter is to know of it; `None`: a later change says more, so it is left out.
    pub fn write_page(
        &mut self,
        at_most: usize,
        mut write: impl FnMut(Revision, &RosterEntry, &mut Vec<u8>) -> Option<Option<(State, f32)>>,
    ) {
        let count = self.unwritten.len().min(at_most);
        let after = self.pages.back().map_or(self.from, |page| page.upto);
        let (mut upto, mut weighed) = (after, 0);
        let (mut told, mut written) = (Vec::with_capacity(count), Vec::new());
        for (at, entry) in self.unwritten.drain(..count) {
            (upto, weighed) = (at, weighed + weight(&entry));
            if let Some(live) = write(at, &entry, &mut written) {
                let RosterEntry { group, tags, .. } = entry;
                told.push(Told { at, group, tags, live, end: written.len() });
            }
        }
        if count > 0 {
            self.bytes += written.len();
            let weight = weighed + written.len();
            let page = Page { after, upto, told, written: written.into(), weight, changes: count };
            self.pages.push_back(Arc::new(page));
            self.drop_oldest();
        }
    }
}

fn weight(entry: &RosterEntry) -> usize {
    let labels = entry.tags.iter().map(|(name, value)| 64 + name.len() + value.len());
    CHANGE_BYTES + labels.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dormouse_proto::{
        ids::{Incarnation, NodeId},
        record::Cause,
    };
    use proptest::prelude::*;

    use super::*;

    const WIDE: Bounds = Bounds { changes: 1_000_000, bytes: usize::MAX };

    fn ended(node: u64) -> RosterEntry {
        let group = if node.is_multiple_of(3) { "ads" } else { "mail" };
        RosterEntry {
            node: NodeId(node),
            incarnation: Incarnation(1),
            group: group.parse().expect("a group"),
            tags: Tags::default(),
            gone: Some(Cause::Expired),
        }
    }

    /// Each change is written as eight bytes, which say who.
    fn write(book: &mut Book, at_most: usize) {
        book.write_page(at_most, |_, entry, into| {
            into.extend(entry.node.0.to_be_bytes());
            Some(None)
        });
    }

    /// Whom a reader is told of that has read up to `after`, and up to where it has read then.
    fn read(
        book: &Book,
        mut after: Revision,
        wanted: impl Fn(&Told) -> bool,
    ) -> Result<(Vec<u64>, Revision), TooFarBehind> {
        let mut nodes = Vec::new();
        while let Some(page) = book.page_after(after)? {
            let bytes = page.pick(after, &wanted).concat();
            nodes.extend(bytes.chunks(8).map(|node| u64::from_be_bytes(node.try_into().expect("eight"))));
            after = page.upto();
        }
        Ok((nodes, after))
    }

    #[test]
    fn all_readers_share_what_was_written_once() {
        let mut book = Book::new(Revision(10), WIDE);
        (11..=30).for_each(|at| book.note(Revision(at), ended(at)));
        let mut written = 0;
        while book.is_unwritten() {
            book.write_page(8, |_, _, into| {
                written += 1;
                into.push(7);
                Some(None)
            });
        }
        assert_eq!(written, 20);
        for _reader in 0..5 {
            let (mut after, mut pages) = (Revision(10), Vec::new());
            while let Some(page) = book.page_after(after).expect("near") {
                pages.push(page.whole(after).expect("all of it is new").as_ptr());
                after = page.upto();
            }
            let again: Vec<_> = book.pages.iter().map(|page| page.written.as_ptr()).collect();
            assert_eq!((pages.len(), pages), (3, again), "not copied");
        }
        assert!(book.pages[0].whole(Revision(11)).is_none(), "whoever knows some of it is not told all");
    }

    #[test]
    fn a_change_that_is_lost_leaves_nobody_behind_who_would_miss_it() {
        let mut book = Book::new(Revision(10), WIDE);
        book.note(Revision(11), ended(1));
        book.lose(Revision(12));
        book.note(Revision(13), ended(2));
        write(&mut book, 100);
        assert_eq!(read(&book, Revision(11), |_| true), Err(TooFarBehind));
        assert_eq!(read(&book, Revision(12), |_| true), Ok((vec![2], Revision(13))));
    }

    #[test]
    fn what_a_later_change_overtook_is_not_told_and_not_missed() {
        let mut book = Book::new(Revision(0), WIDE);
        (1..=4).for_each(|at| book.note(Revision(at), ended(at)));
        book.write_page(2, |_, _, _| None);
        write(&mut book, 2);
        assert_eq!(read(&book, Revision(0), |_| true), Ok((vec![3, 4], Revision(4))));
        assert_eq!(book.changes(), 4, "they count until their page is dropped");
    }

    proptest! {
        #[test]
        fn whoever_is_not_too_far_behind_is_told_of_each_change_once(
            steps in prop::collection::vec((0..4_u8, 1..40_usize), 1..60),
            (changes, bytes) in (1..200_usize, 1_000..60_000_usize),
        ) {
            let bounds = Bounds { changes, bytes };
            let mut book = Book::new(Revision(0), bounds);
            let (mut head, mut all) = (0, BTreeMap::new());
            let (mut followed, mut told) = (Revision(0), Vec::new());
            for (kind, count) in steps {
                match kind {
                    0 => write(&mut book, count),
                    1 => while book.is_unwritten() { write(&mut book, count) },
                    2 => if let Ok((nodes, upto)) = read(&book, followed, |_| true) {
                        told.extend(nodes);
                        followed = upto;
                    } else {
                        told = all.range(..=book.from()).map(|(_, node)| *node).collect();
                        followed = book.from();
                    },
                    // Records of other kinds take revisions too.
                    _ => for nth in 1..=count {
                        head += 1 + (nth % 3) as u64;
                        all.insert(Revision(head), head);
                        book.note(Revision(head), ended(head));
                    },
                }
                prop_assert!(book.changes() <= changes && book.bytes() <= bytes);
                let upto = all.range(..=followed).map(|(_, node)| *node).collect::<Vec<_>>();
                prop_assert_eq!(&told, &upto);
            }
            while book.is_unwritten() { write(&mut book, 7) }
            for after in (0..=head).step_by(5).map(Revision) {
                let ads = |told: &Told| told.group.as_str() == "ads";
                let expected = |only_ads: bool| all.range(Revision(after.0 + 1)..).map(|(_, node)| *node)
                    .filter(|node| !only_ads || node.is_multiple_of(3)).collect::<Vec<_>>();
                match read(&book, after, |_| true) {
                    Ok((nodes, _)) => {
                        prop_assert_eq!(nodes, expected(false));
                        prop_assert_eq!(read(&book, after, ads).map(|it| it.0), Ok(expected(true)));
                    }
                    Err(TooFarBehind) => prop_assert!(after < book.from()),
                }
            }
            while let Some(page) = book.pages.pop_front() {
                book.changes -= page.changes;
                book.bytes -= page.weight;
            }
            prop_assert_eq!((book.changes(), book.bytes()), (0, 0));
        }
    }
}
