//! The reference: every dot of every row, never forgotten, beside the fold at the end of the log.
//!
//! A fold keeps one number where the lattice has a set; the reference keeps the set. It applies each record when it is
//! appended, compares the fold's rows after every push, and remembers what each row was at each revision.

mod books;
mod events;
mod letters;
mod limits;
mod once;
mod reseed;
mod rules;

use dormouse_proto::{
    ids::{NodeId, PushId, Revision},
    record::{Record, Reseed},
    rows::RowWriter,
    traps::Trap,
    wire::v1,
};
use dormouse_relay::state::{Fold, JoinVerdict, ReadBounds, Seeded, StateHash, Verdict};
use prost::Message as _;

use crate::{
    SPACES,
    healing::Seeds,
    log::Entry,
    machine::Machine,
    namespace,
    rows::{self, RowNo, Shown},
    said::Registry,
    told,
    violation::{Violation, ensure, violation},
};
use books::Books;
pub use letters::Letter;

/// The reference at the end of one history of the log.
#[derive(Clone, Debug)]
pub struct Truth {
    /// The fold that is never restarted.
    pub machine: Machine,
    ledger: Ledger,
    /// Of every record, by frame.
    verdicts: Vec<Vec<(Revision, Verdict)>>,
    hash: Option<(usize, StateHash)>,
}

/// The books of all namespaces, and the log's time.
#[derive(Clone, Debug)]
struct Ledger {
    spaces: [Books; SPACES],
    log_time_ms: u64,
    /// The newest record that may have changed what nodes see.
    effective: u64,
}

impl Truth {
    /// Before the first frame.
    pub fn new(trap: Option<Trap>) -> Self {
        let ledger = Ledger { spaces: std::array::from_fn(Books::new), log_time_ms: 0, effective: 0 };
        Self { machine: Machine::new(trap), ledger, verdicts: Vec::new(), hash: None }
    }

    /// Applies the next frame of the log.
    ///
    /// # Errors
    /// What the fold did and the reference would not.
    pub fn apply(&mut self, entry: &Entry, registry: &Registry, seeds: &Seeds) -> Result<(), Violation> {
        let Self { machine, ledger, verdicts, .. } = self;
        let (mut these, mut wrong) = (Vec::new(), None);
        machine.apply(&entry.frame, seeds, |fold, _, record, verdict| {
            if wrong.is_none() {
                wrong = match record {
                    Record::Reseed(reseed) => ledger.reseed(fold, reseed, &verdict, seeds).err(),
                    _ => ledger.note(fold, record, &verdict, registry).err(),
                };
            }
            these.push((fold.revision(), verdict));
        });
        verdicts.push(these);
        wrong.map_or(Ok(()), Err)
    }

    /// How many frames it has applied.
    pub fn position(&self) -> usize {
        self.verdicts.len()
    }

    /// The revisions and verdicts of the records of a frame, by the frame's index.
    pub fn verdicts(&self, frame: usize) -> &[(Revision, Verdict)] {
        &self.verdicts[frame]
    }

    /// The hash of the fold at the end of the log.
    pub fn hash(&mut self) -> StateHash {
        match self.hash {
            Some((position, hash)) if position == self.position() => hash,
            _ => {
                let hash = self.machine.fold.hash();
                self.hash = Some((self.position(), hash));
                hash
            }
        }
    }

    /// What a reader saw of a row at a revision.
    pub fn shown(&self, space: usize, row: RowNo, at: u64) -> &Shown {
        let versions = &self.ledger.spaces[space].rows[row].versions;
        let after = versions.partition_point(|version| version.0 <= at);
        &versions[after.max(1) - 1].1
    }

    /// How many rows of the wire changed after a revision, and are there.
    pub fn changed_after(&self, space: usize, row: RowNo, at: u64) -> u64 {
        self.ledger.spaces[space].rows[row].changed_after(rows::all()[row].kind, at)
    }

    /// The dots that a row had at a revision.
    pub fn dots(&self, space: usize, row: RowNo, at: u64) -> impl Iterator<Item = u64> + '_ {
        let dots = self.ledger.spaces[space].rows[row].dots.iter();
        dots.filter(move |dot| dot.since <= at && at < dot.until).map(|dot| dot.at)
    }

    /// Who appended an event.
    pub fn author_of(&self, space: usize, row: RowNo, at: (u64, u32)) -> Option<NodeId> {
        self.ledger.spaces[space].rows[row].log.author_of(at)
    }

    /// How far any log of events in the collection of that row was ever trimmed: a log that begins anew begins there,
    /// for the fold keeps one trim point for all logs of a collection whose heads it has dropped.
    pub fn trimmed_beside(&self, space: usize, row: RowNo) -> u64 {
        let (all, rows) = (rows::all(), &self.ledger.spaces[space].rows);
        let beside = all.iter().zip(rows).filter(|(it, _)| it.collection == all[row].collection);
        beside.map(|(_, truth)| truth.log.trimmed).max().unwrap_or(0)
    }

    /// The messages that waited for a node at a revision.
    pub fn letters(&self, space: usize, node: NodeId, at: u64) -> impl Iterator<Item = &Letter> {
        self.ledger.spaces[space].letters.waiting(node, at)
    }

    /// Where a push was bound.
    pub fn bound(&self, push_id: PushId) -> Option<u64> {
        self.ledger.spaces.iter().find_map(|books| books.bound.get(&push_id).copied())
    }

    /// Where a push was bound or refused.
    pub fn decided(&self, push_id: PushId) -> Option<u64> {
        self.ledger.spaces.iter().find_map(|books| {
            let decided = books.bound.get(&push_id).or_else(|| books.refused.get(&push_id));
            decided.map(|at| books.found_at(*at))
        })
    }

    /// At the end: what the fold has counted is what the reference has.
    ///
    /// # Errors
    /// Messages that are neither here nor there.
    pub fn check_letters(&self) -> Result<(), Violation> {
        let check = |(space, books): (usize, &Books)| {
            let view = self.machine.fold.namespace(namespace(space));
            books.letters.check(view.map(|view| (view.mail_counts(), view.mail_waiting().0)))
        };
        self.ledger.spaces.iter().enumerate().try_for_each(check)
    }
}

impl Ledger {
    /// A state took the place of the one at the end of the log, or was to: never where anything would be undone.
    fn reseed(
        &mut self,
        fold: &Fold,
        reseed: &Reseed,
        verdict: &Verdict,
        seeds: &Seeds,
    ) -> Result<(), Violation> {
        let is_free = self.effective <= reseed.safe.0;
        match verdict {
            Verdict::Reseed(Seeded::Healed) => {
                ensure(is_free, || format!("G4: a Reseed undoes what took effect at {}", self.effective))?;
            }
            Verdict::Reseed(Seeded::Void) => {
                let may = is_free && fold.is_valid(reseed.safe);
                return ensure(!may, || {
                    format!("G4: a Reseed is void, and nothing took effect behind {}", reseed.safe)
                });
            }
            other => return Err(violation(format!("G4: a Reseed came to {other:?}"))),
        }
        let lost = seeds.truth(reseed);
        let (upto, lost) = (lost.machine.fold.revision().0, &lost.ledger);
        self.log_time_ms = self.log_time_ms.max(lost.log_time_ms);
        self.effective = fold.revision().0;
        for (books, lost) in self.spaces.iter_mut().zip(&lost.spaces) {
            books.reseed(lost, fold, (reseed.safe.0, upto))?;
        }
        Ok(())
    }

    fn space(&mut self, name: &dormouse_proto::ids::Namespace) -> Result<&mut Books, Violation> {
        let space = (0..SPACES).find(|space| namespace(*space) == name);
        Ok(&mut self.spaces[space.ok_or_else(|| violation("a namespace that the world does not have"))?])
    }

    fn note(
        &mut self,
        fold: &Fold,
        record: &Record,
        verdict: &Verdict,
        registry: &Registry,
    ) -> Result<(), Violation> {
        let log_time_ms = self.log_time_ms;
        if record.takes_effect() {
            self.effective = fold.revision().0;
        }
        match (record, verdict) {
            (Record::Push(push), Verdict::Push(verdict)) => {
                self.space(&push.namespace)?.push(fold, push, verdict, registry, log_time_ms)
            }
            (Record::Write(write), Verdict::Write(verdict)) => {
                self.space(&write.namespace)?.write(fold, write, verdict, log_time_ms)
            }
            (Record::Join(join), Verdict::Join(JoinVerdict::Admitted { again: false }))
                if join.previous.is_none() =>
            {
                self.space(&join.namespace)?.admit(join.node);
                Ok(())
            }
            (Record::Gone(gone), Verdict::Gone(true)) => self.space(&gone.namespace)?.gone(fold, gone.node),
            (Record::Send(send), Verdict::Send(verdict)) => {
                self.space(&send.namespace)?.send(fold, send, *verdict, log_time_ms)
            }
            (Record::Received(received), _) => self.space(&received.namespace)?.letters.receive(
                received.node,
                received.upto.0,
                fold.revision().0,
                registry,
            ),
            (Record::Policy(policy), _) => {
                self.spaces.iter_mut().for_each(|books| books.limits.note(namespace(books.space), policy));
                Ok(())
            }
            (Record::Digest(digest), _) => {
                // Log time only moves forward, and by at most five seconds for one record (N5).
                self.log_time_ms = log_time_ms.max(digest.log_time_ms.min(log_time_ms + 5_000));
                let now = self.log_time_ms;
                self.spaces.iter_mut().try_for_each(|books| books.pass_time(fold, now))
            }
            _ => Ok(()),
        }
    }
}

/// A row of a fold, as it reads, with the stamp of a register.
///
/// # Errors
/// What cannot be read.
pub fn read(fold: &Fold, space: usize, row: RowNo) -> Result<Option<(Shown, u64)>, Violation> {
    let it = &rows::all()[row];
    let keys = read_key(fold, space, it.path.collection.as_str(), it.path.key.as_str());
    Ok(told::whole(&told::told(&keys).map_err(violation)?, row))
}

/// All that is under one name in a fold, as Read answers it.
pub fn read_key(fold: &Fold, space: usize, collection: &str, key: &str) -> Vec<v1::KeyState> {
    let mut bytes = Vec::new();
    if let Some(view) = fold.namespace(namespace(space)) {
        let mut writer = RowWriter::new(&mut bytes, RowWriter::READ);
        view.write_matching(collection, key, None, ReadBounds::bytes(usize::MAX), &mut writer);
        writer.finish();
    }
    v1::ReadResponse::decode(bytes.as_slice()).expect("what the fold writes decodes").keys
}
