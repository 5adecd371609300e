//! Who came and went lately, written once for all who watch.
//!
//! A mass of ends drops rows sooner than watchers can read them, and what each watcher encodes for itself costs as much as
//! there are watchers. So a namespace that somebody watches has a `Book`: each change is noted in it when it is applied,
//! and written by the first reader that comes to it. While nobody watches, nothing is noted and nothing is held.
//!
//! Invariants: a book has every change that was applied since its namespace is followed, up to its bounds; all books
//! together hold at most 64 MiB. Lock order: the state, the list of books, a book.

mod book;

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use dormouse_proto::{
    ids::{Namespace, NodeId, Revision},
    record::Record,
    wire::v1::member::State,
};
use parking_lot::{Mutex, RwLock};

pub use book::{Book, Bounds, Page, Told, TooFarBehind};

use crate::state::{Fold, JoinVerdict, RosterEntry, Seeded, Verdict};

/// Bytes that all books together may hold, estimated.
const BYTES: usize = 64 << 20;
/// Changes that one book may hold: more than two masses of a hundred thousand ends.
const CHANGES: usize = 1 << 18;
/// Changes on one page, which are written in one go while nothing is applied.
const PAGE: usize = 1_000;

/// The books of all namespaces that are watched.
#[derive(Debug, Default)]
pub struct Chronicle {
    books: RwLock<HashMap<Namespace, Weak<Mutex<Book>>>>,
    written: AtomicU64,
}

/// A namespace that is followed for as long as this is held.
#[derive(Clone, Debug)]
pub struct Followed(Arc<Mutex<Book>>);

/// What there is for a reader.
#[derive(Debug)]
pub enum Next {
    /// This page says something new.
    Page(Arc<Page>),
    /// Something new is to be written first, see [`Chronicle::write`].
    Unwritten,
    /// Everything was told up to the newest change.
    Nothing,
}

impl Chronicle {
    /// Follows a namespace from this state on.
    ///
    /// The fold must be the state as it is, still locked: a change between the two would be missed.
    pub fn follow(&self, fold: &Fold, namespace: &Namespace) -> Followed {
        let mut books = self.books.write();
        if let Some(book) = books.get(namespace).and_then(Weak::upgrade) {
            return Followed(book);
        }
        books.retain(|_, book| book.strong_count() > 0);
        let bounds = Bounds { changes: CHANGES, bytes: BYTES / (books.len() + 1) };
        for book in books.values().filter_map(Weak::upgrade) {
            book.lock().bound(bounds);
        }
        let book = Arc::new(Mutex::new(Book::new(fold.revision(), bounds)));
        books.insert(namespace.clone(), Arc::downgrade(&book));
        Followed(book)
    }

    /// A record was applied, and the state is as it was right after it.
    pub fn witness(&self, fold: &Fold, record: &Record, verdict: &Verdict) {
        match (record, verdict) {
            (Record::Join(join), Verdict::Join(JoinVerdict::Admitted { again: false })) => {
                self.note(fold, &join.namespace, join.node);
            }
            (Record::Gone(gone), Verdict::Gone(true)) => self.note(fold, &gone.namespace, gone.node),
            (Record::Reseed(_), Verdict::Reseed(Seeded::Healed)) => self.witness_anew(),
            // Each is named, so that a new kind of record that changes members is not forgotten here.
            (
                Record::Join(_)
                | Record::Gone(_)
                | Record::Open { .. }
                | Record::Push(_)
                | Record::Write(_)
                | Record::Digest(_)
                | Record::Policy(_)
                | Record::Send(_)
                | Record::Received(_)
                | Record::Reseed(_),
                _,
            ) => {}
        }
    }

    /// Another state took the place of the one that was followed: what changed between the two was not told one by one.
    pub fn witness_anew(&self) {
        // Revisions of before may be of a history that is gone, so nobody goes on in the books of before.
        for (_, book) in self.books.write().drain() {
            if let Some(book) = book.upgrade() {
                book.lock().close();
            }
        }
    }

    fn note(&self, fold: &Fold, namespace: &Namespace, node: NodeId) {
        let Some(book) = self.books.read().get(namespace).and_then(Weak::upgrade) else { return };
        let (at, mut book) = (fold.revision(), book.lock());
        let entry = fold.namespace(namespace).and_then(|view| view.roster_entry(node));
        match entry.filter(|(changed, _)| *changed == at) {
            Some((_, entry)) => book.note(at, entry.clone()),
            // Dropped in the moment it died: no dead row is kept in this namespace.
            None => book.lose(at),
        }
    }

    /// Writes what is on no page yet, a page of it. The fold must be the state as it is, still locked.
    ///
    /// `write` is asked for each change, see `Book::write_page`.
    pub fn write(
        &self,
        followed: &Followed,
        mut write: impl FnMut(Revision, &RosterEntry, &mut Vec<u8>) -> Option<Option<(State, f32)>>,
    ) {
        let mut count = 0;
        followed.0.lock().write_page(PAGE, |at, entry, into| {
            let told = write(at, entry, into);
            count += u64::from(told.is_some());
            told
        });
        self.written.fetch_add(count, Ordering::Relaxed);
    }

    /// Changes that were written since this relay started, each once for all readers.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

impl Followed {
    /// What there is for a reader that has read up to `after`.
    ///
    /// # Errors
    /// Some of what it has not read was dropped.
    pub fn next(&self, after: Revision) -> Result<Next, TooFarBehind> {
        let book = self.0.lock();
        Ok(match book.page_after(after)? {
            Some(page) => Next::Page(page),
            None if book.is_unwritten() => Next::Unwritten,
            None => Next::Nothing,
        })
    }
}
