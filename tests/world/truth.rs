//! The reference: every dot of every row, never forgotten, beside the fold at the end of the log.
//!
//! A fold keeps one number where the lattice has a set; the reference keeps the set. It applies each record when it is
//! appended, compares the fold's rows after every push, and remembers what each row was at each revision.

use std::collections::{HashMap, HashSet};

use dormouse_proto::{
    ids::{OnceId, PushId, Revision},
    lattice::{Change, CounterDelta, Delta, RegisterDelta, SetDelta, Type, Value},
    record::{Push, Record},
    rows::RowWriter,
    traps::Trap,
    wire::v1,
};
use dormouse_relay::state::{Fold, PushVerdict, StateHash, Verdict};
use prost::Message as _;

use crate::{
    log::Entry,
    machine::Machine,
    namespace,
    rows::{self, RowNo, Shown, Told},
    said::{Registry, Said},
    violation::{Violation, ensure, violation},
};

/// An effect that is unique: the revision of the push that had it.
#[derive(Clone, Copy, Debug)]
struct Dot {
    at: u64,
    /// When it was removed; `u64::MAX`: it is there.
    until: u64,
    /// Of a counter.
    amount: i64,
}

#[derive(Clone, Debug)]
struct RowTruth {
    dots: Vec<Dot>,
    /// Of a register: the winning stamp, revision and content.
    winner: (u64, u64, Option<Value>),
    /// What a reader saw from each revision on.
    versions: Vec<(u64, Shown)>,
    /// When it last changed for a reader.
    changed_at: u64,
}

/// The reference at the end of one history of the log.
#[derive(Clone, Debug)]
pub struct Truth {
    /// The fold that is never restarted.
    pub machine: Machine,
    books: Books,
    /// Of every record, by frame.
    verdicts: Vec<Vec<(Revision, Verdict)>>,
    hash: Option<(usize, StateHash)>,
}

#[derive(Clone, Debug)]
struct Books {
    rows: Vec<RowTruth>,
    bound: HashMap<PushId, u64>,
    refused: HashMap<PushId, u64>,
    once: HashSet<(RowNo, OnceId)>,
}

impl Truth {
    /// Before the first frame.
    pub fn new(trap: Option<Trap>) -> Self {
        let row = |kind: Type| RowTruth {
            dots: Vec::new(),
            winner: (0, 0, None),
            versions: vec![(0, Shown::nothing(kind))],
            changed_at: 0,
        };
        let books = Books {
            rows: rows::all().iter().map(|it| row(it.kind)).collect(),
            bound: HashMap::new(),
            refused: HashMap::new(),
            once: HashSet::new(),
        };
        Self { machine: Machine::new(trap), books, verdicts: Vec::new(), hash: None }
    }

    /// Applies the next frame of the log.
    ///
    /// # Errors
    /// What the fold did and the reference would not.
    pub fn apply(&mut self, entry: &Entry, registry: &Registry) -> Result<(), Violation> {
        let Self { machine, books, verdicts, .. } = self;
        let (mut these, mut wrong) = (Vec::new(), None);
        machine.apply(&entry.frame, |fold, _, record, verdict| {
            if let (Record::Push(push), Verdict::Push(verdict), None) = (record, &verdict, &wrong) {
                wrong = books.push(fold, push, verdict, registry).err();
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
    pub fn shown(&self, row: RowNo, at: u64) -> &Shown {
        let versions = &self.books.rows[row].versions;
        let after = versions.partition_point(|version| version.0 <= at);
        &versions[after.max(1) - 1].1
    }

    /// When a row last changed for a reader.
    pub fn changed_at(&self, row: RowNo) -> u64 {
        self.books.rows[row].changed_at
    }

    /// The dots that a row had at a revision.
    pub fn dots(&self, row: RowNo, at: u64) -> impl Iterator<Item = u64> + '_ {
        let dots = self.books.rows[row].dots.iter();
        dots.filter(move |dot| dot.at <= at && at < dot.until).map(|dot| dot.at)
    }

    /// Where a push was bound.
    pub fn bound(&self, push_id: PushId) -> Option<u64> {
        self.books.bound.get(&push_id).copied()
    }

    /// Where a push was bound or refused.
    pub fn decided(&self, push_id: PushId) -> Option<u64> {
        self.bound(push_id).or_else(|| self.books.refused.get(&push_id).copied())
    }
}

impl Books {
    fn push(
        &mut self,
        fold: &Fold,
        push: &Push,
        verdict: &PushVerdict,
        registry: &Registry,
    ) -> Result<(), Violation> {
        let id = push.push_id;
        match verdict {
            PushVerdict::Bound { revision, duplicate: false } => {
                let meant = registry.get(&id).ok_or_else(|| violation("a push that nobody sealed"))?;
                ensure(self.bound.insert(id, revision.0).is_none(), || "I7: a push bound twice".into())?;
                ensure(!self.refused.contains_key(&id), || "I7: a refused push bound".into())?;
                let twice = meant.before.iter().find(|earlier| self.bound.contains_key(*earlier));
                ensure(twice.is_none(), || format!("I7: the content of push {twice:?} bound twice"))?;
                for delta in &push.deltas {
                    self.delta(fold, delta, revision.0, &meant.said)?;
                }
                self.compare(fold, &push.deltas, revision.0)
            }
            PushVerdict::Refused(_) => {
                self.refused.entry(id).or_insert(fold.revision().0);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn delta(
        &mut self,
        fold: &Fold,
        delta: &Delta,
        at: u64,
        said: &std::collections::BTreeMap<RowNo, Said>,
    ) -> Result<(), Violation> {
        let said = |row: RowNo| said.get(&row).ok_or_else(|| violation("a delta that nobody meant"));
        match &delta.change {
            Change::Set(set) => self.set(delta, set, at, said),
            Change::Counter(counter) => {
                let row = row_of(delta, None)?;
                self.counter(row, counter, at, said(row)?)
            }
            Change::Register(register) => {
                let row = row_of(delta, None)?;
                self.register(fold, row, register, at, said(row)?)
            }
        }
    }

    fn set<'a>(
        &mut self,
        delta: &Delta,
        set: &SetDelta,
        at: u64,
        said: impl Fn(RowNo) -> Result<&'a Said, Violation>,
    ) -> Result<(), Violation> {
        for remove in &set.remove {
            for element in &remove.elements {
                let row = row_of(delta, Some(element.as_str()))?;
                self.take_away(row, remove.as_of, at, said(row)?)?;
            }
        }
        for element in &set.add {
            let row = row_of(delta, Some(element.as_str()))?;
            self.rows[row].dots.push(Dot { at, until: u64::MAX, amount: 0 });
        }
        Ok(())
    }

    /// Removes the dots that the author had observed; the context that it names must cover exactly those.
    fn take_away(
        &mut self,
        row: RowNo,
        as_of: Option<Revision>,
        at: u64,
        said: &Said,
    ) -> Result<(), Violation> {
        let as_of = as_of.map_or(at - 1, |it| it.0);
        let observed: Vec<bool> =
            self.rows[row].dots.iter().map(|dot| observed(said, dot.at, &self.bound)).collect();
        for (dot, observed) in self.rows[row].dots.iter_mut().zip(observed) {
            if dot.until < u64::MAX {
                continue;
            }
            ensure(observed == (dot.at <= as_of), || {
                let (name, dot) = (rows::name(row), dot.at);
                format!(
                    "I4: a context names what its author had not seen, or not what it had: {name}, dot {dot}, as of {as_of}, seen {observed}"
                )
            })?;
            if observed {
                dot.until = at;
            }
        }
        Ok(())
    }

    fn counter(&mut self, row: RowNo, counter: &CounterDelta, at: u64, said: &Said) -> Result<(), Violation> {
        if let Some(reset) = counter.reset {
            self.take_away(row, reset.as_of, at, said)?;
        }
        let mut amount = counter.amount;
        for once in &counter.once {
            if self.once.insert((row, once.id.clone())) {
                amount += once.amount;
            }
        }
        if amount != 0 {
            self.rows[row].dots.push(Dot { at, until: u64::MAX, amount });
        }
        Ok(())
    }

    /// Wins by stamp and revision, or because its author saw the winner. The stamp that a winner got is the fold's
    /// own matter where a dropped row may have lifted it, and is read from the fold.
    fn register(
        &mut self,
        fold: &Fold,
        row: RowNo,
        write: &RegisterDelta,
        at: u64,
        said: &Said,
    ) -> Result<(), Violation> {
        let as_of = write.as_of.map_or(at - 1, |it| it.0);
        let clamped = match write.stamp_ms {
            0 => fold.stamp_ms(),
            stamp => stamp.min(fold.stamp_ms() + fold.limits().stamp_skew_ms),
        };
        let (stamp, winner) = (self.rows[row].winner.0, self.rows[row].winner.1);
        let saw = observed(said, winner, &self.bound);
        ensure(winner == 0 || saw == (as_of >= winner), || {
            let name = rows::name(row);
            format!(
                "I4: a write names what its author had not seen, or not what it had: {name}, winner {winner}, as of {as_of}, seen {saw}"
            )
        })?;
        let wins = winner == 0 || saw || (clamped, at) > (stamp, winner);
        if !wins {
            return Ok(());
        }
        let lifted = read(fold, row)?.map_or(clamped, |told| told.stamp_ms);
        let exact = winner > 0 && !saw;
        ensure(lifted >= clamped && (!exact || lifted == clamped), || {
            format!("I4: {} got the stamp {lifted} for {clamped}", rows::name(row))
        })?;
        let it = &mut self.rows[row];
        it.dots.iter_mut().filter(|dot| dot.until == u64::MAX).for_each(|dot| dot.until = at);
        it.dots.push(Dot { at, until: u64::MAX, amount: 0 });
        it.winner = (lifted, at, write.value.clone());
        Ok(())
    }

    /// After the whole push: the fold's rows are what the dots say, and the versions are noted.
    fn compare(&mut self, fold: &Fold, deltas: &[Delta], at: u64) -> Result<(), Violation> {
        for row in deltas.iter().flat_map(rows::touched) {
            let want = self.rows[row].visible(rows::all()[row].kind);
            let is =
                read(fold, row)?.map_or_else(|| Shown::nothing(rows::all()[row].kind), |told| told.shown);
            ensure(is == want, || {
                let name = rows::name(row);
                format!("I4: the fold's row differs from its dots: {name} is {is:?}, must be {want:?}")
            })?;
            let it = &mut self.rows[row];
            if it.versions.last().is_none_or(|last| last.1 != want) {
                it.versions.push((at, want));
                it.changed_at = at;
            }
        }
        Ok(())
    }
}

impl RowTruth {
    fn visible(&self, kind: Type) -> Shown {
        let mut dots = self.dots.iter().filter(|dot| dot.until == u64::MAX);
        match kind {
            Type::Set => Shown::Element(dots.next().is_some()),
            Type::Counter => Shown::Counter(dots.map(|dot| dot.amount).sum()),
            Type::Register => Shown::Register(self.winner.2.clone()),
        }
    }
}

fn row_of(delta: &Delta, element: Option<&str>) -> Result<RowNo, Violation> {
    rows::find(delta.collection.as_str(), delta.key.as_str(), delta.change.kind(), element)
        .ok_or_else(|| violation("a delta of a row that the world does not have"))
}

fn observed(said: &Said, dot: u64, bound: &HashMap<PushId, u64>) -> bool {
    let seen = said.seen.as_ref().is_some_and(|seen| dot <= seen.barrier || seen.dots.contains(&dot));
    seen || said.own.iter().any(|id| bound.get(id) == Some(&dot))
}

/// A row of a fold, as it reads.
pub fn read(fold: &Fold, row: RowNo) -> Result<Option<Told>, Violation> {
    let it = &rows::all()[row];
    let mut bytes = Vec::new();
    if let Some(view) = fold.namespace(namespace()) {
        let mut writer = RowWriter::new(&mut bytes, RowWriter::CHUNK);
        let (collection, key) = (it.path.collection.as_str(), it.path.key.as_str());
        view.write_matching(collection, key, None, usize::MAX, &mut writer);
        writer.finish();
    }
    let chunk = v1::Chunk::decode(bytes.as_slice()).map_err(|error| violation(error.to_string()))?;
    Ok(rows::told(&chunk.keys).map_err(violation)?.into_iter().find(|told| told.row == row))
}
