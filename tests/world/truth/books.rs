//! The books of one namespace: what each record did, by the rules of the lattice and without a fold's short forms.

use std::collections::{BTreeMap, HashMap};

use dormouse_proto::{
    ids::{Incarnation, NodeId, PushId, Revision},
    lattice::{Change, Delta, Type, Value},
    record::{Push, Write},
};
use dormouse_relay::state::{Fold, PushVerdict, Reason, Refused, WriteVerdict};

use super::{events::EventLog, letters::Letters, limits::Limits, once::Ids, read};
use crate::{
    namespace,
    rows::{self, RowNo, Shown},
    said::{Op, Registry, Said, Seen},
    violation::{Violation, ensure, violation},
};

/// An effect that is unique: the revision of the push that had it.
#[derive(Clone, Debug)]
pub(super) struct Dot {
    pub(super) at: u64,
    /// From when on it is shown: later, if the log had lost it and was given it back.
    pub(super) since: u64,
    /// When it was taken away; `u64::MAX`: it is there.
    pub(super) until: u64,
    /// Of a counter.
    pub(super) amount: i64,
    /// Of siblings.
    pub(super) value: Option<Value>,
}

/// One row.
#[derive(Clone, Debug)]
pub(super) struct RowTruth {
    /// Of a remove-wins row: its removes, which are for ever.
    pub(super) dots: Vec<Dot>,
    /// Of a remove-wins row: there is an add whose author had observed every remove.
    pub(super) in_force: bool,
    /// Of a maximum or a minimum.
    pub(super) best: Option<i64>,
    /// Of a register: the winning stamp, revision and content.
    pub(super) winner: (u64, u64, Option<Value>),
    pub(super) log: EventLog,
    pub(super) holders: BTreeMap<NodeId, (Incarnation, Value)>,
    holders_changed_at: BTreeMap<NodeId, u64>,
    /// What a reader saw from each revision on.
    pub(super) versions: Vec<(u64, Shown)>,
}

/// The books of one namespace.
#[derive(Clone, Debug)]
pub(super) struct Books {
    pub(super) space: usize,
    pub(super) rows: Vec<RowTruth>,
    pub(super) bound: HashMap<PushId, u64>,
    pub(super) refused: HashMap<PushId, u64>,
    /// Who was ever admitted; `true`: once more by a late copy of the first Join, after all that was known had expired.
    admitted: HashMap<NodeId, bool>,
    pub(super) ids: Ids,
    pub(super) letters: Letters,
    pub(super) limits: Limits,
    /// Tails that were given back: behind which revision, up to which one, and where.
    pub(super) given_back: Vec<(u64, u64, u64)>,
    /// Rows and bytes of the fold after the last record that could change them.
    size: (u64, u64),
}

/// Whose deltas they are, and where and when they are bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Binding<'a> {
    pub(super) fold: &'a Fold,
    pub(super) at: u64,
    pub(super) author: Option<(NodeId, Incarnation)>,
    pub(super) log_time_ms: u64,
}

impl Books {
    pub(super) fn new(space: usize) -> Self {
        let row = |kind: Type| RowTruth {
            dots: Vec::new(),
            in_force: false,
            best: None,
            winner: (0, 0, None),
            log: EventLog::default(),
            holders: BTreeMap::new(),
            holders_changed_at: BTreeMap::new(),
            versions: vec![(0, Shown::nothing(kind))],
        };
        Self {
            space,
            rows: rows::all().iter().map(|it| row(it.kind)).collect(),
            bound: HashMap::new(),
            refused: HashMap::new(),
            admitted: HashMap::new(),
            ids: Ids::default(),
            letters: Letters::default(),
            limits: Limits::default(),
            given_back: Vec::new(),
            size: (0, 0),
        }
    }

    pub(super) fn push(
        &mut self,
        fold: &Fold,
        push: &Push,
        verdict: &PushVerdict,
        registry: &Registry,
        log_time_ms: u64,
    ) -> Result<(), Violation> {
        let id = push.push_id;
        match verdict {
            PushVerdict::Bound { revision, duplicate: false } => {
                let meant = registry.get(id).ok_or_else(|| violation("a push that nobody sealed"))?;
                // At most once is promised for as long as the tombstone of its author lives.
                let was_forgotten = self.admitted.get(&push.node).is_some_and(|again| *again);
                let before = self.bound.insert(id, revision.0);
                ensure(before.is_none() || was_forgotten, || "I7: a push bound twice".into())?;
                ensure(!self.refused.contains_key(&id) || was_forgotten, || {
                    "I7: a refused push bound".into()
                })?;
                let twice = meant.before.iter().find(|earlier| self.bound.contains_key(*earlier));
                ensure(twice.is_none() || was_forgotten, || {
                    format!("I7: the content of push {twice:?} bound twice")
                })?;
                let author = Some((push.node, push.incarnation));
                let by = Binding { fold, at: revision.0, author, log_time_ms };
                let said = |row: RowNo| {
                    meant.said.get(&row).cloned().ok_or_else(|| violation("a delta that nobody meant"))
                };
                push.deltas.iter().try_for_each(|delta| self.delta(delta, by, &said))?;
                self.bound_deltas(fold, &push.deltas, revision.0)
            }
            PushVerdict::Refused(refused) => {
                let was_decided = self.refused.insert(id, fold.revision().0);
                if let Some(decided) = was_decided {
                    self.refused.insert(id, decided);
                    return Ok(());
                }
                self.refused_deltas(fold, &push.deltas, refused)
            }
            _ => Ok(()),
        }
    }

    /// Where that is to be found which happened at a revision.
    pub(super) fn found_at(&self, revision: u64) -> u64 {
        let back =
            |at: u64, (safe, upto, now): &(u64, u64, u64)| if at > *safe && at <= *upto { *now } else { at };
        self.given_back.iter().fold(revision, back)
    }

    /// A node was admitted that the fold did not know.
    pub(super) fn admit(&mut self, node: NodeId) {
        self.admitted.entry(node).and_modify(|again| *again = true).or_insert(false);
    }

    /// A write of a caller that is no node. It looks at nothing, so it means whatever is there; or it says so.
    pub(super) fn write(
        &mut self,
        fold: &Fold,
        write: &Write,
        verdict: &WriteVerdict,
        log_time_ms: u64,
    ) -> Result<(), Violation> {
        let name = format!("write {}", write.request_id);
        let known = self.ids.get(&name);
        let duplicate = known.map(|known| known.map_or(0, |it| it));
        let repeated = match verdict {
            WriteVerdict::Bound { revision, duplicate: true } => Some(revision.0),
            WriteVerdict::Refused(_) if known.is_some() => Some(0),
            _ => None,
        };
        ensure(duplicate == repeated, || format!("I7: a write bound {verdict:?}, known was {known:?}"))?;
        if known.is_some() {
            return Ok(());
        }
        let at = fold.revision().0;
        let bound = matches!(verdict, WriteVerdict::Bound { .. });
        self.ids.take(name, bound.then_some(at), log_time_ms, &self.limits);
        if let WriteVerdict::Refused(refused) = verdict {
            return self.refused_deltas(fold, &write.deltas, refused);
        }
        let by = Binding { fold, at, author: None, log_time_ms };
        let nothing = write.deltas.iter().any(has_seen_nothing);
        let seen = if nothing { Seen::default() } else { Seen::EVERYTHING };
        let said = Said { op: Op::Plain, seen: Some(seen), own: Vec::new() };
        write.deltas.iter().try_for_each(|delta| self.delta(delta, by, &|_| Ok(said.clone())))?;
        self.bound_deltas(fold, &write.deltas, at)
    }

    fn bound_deltas(&mut self, fold: &Fold, deltas: &[Delta], at: u64) -> Result<(), Violation> {
        let touched: Vec<RowNo> = deltas.iter().flat_map(rows::touched).collect();
        self.compare(fold, &touched, at)?;
        let (before, after) = (self.size, self.measure(fold));
        let rows_max = self.limits.most(|it| it.rows_max);
        let bytes_max = self.limits.most(|it| it.bytes_max);
        let fits = |before: u64, after: u64, most: u64| after <= before || after <= most;
        ensure(fits(before.0, after.0, rows_max) && fits(before.1, after.1, bytes_max), || {
            format!("quota: from {before:?} to {after:?} rows and bytes, beyond {rows_max} and {bytes_max}")
        })
    }

    /// Nothing has changed; and what needs no room is not refused for want of it.
    fn refused_deltas(&mut self, fold: &Fold, deltas: &[Delta], refused: &Refused) -> Result<(), Violation> {
        let touched: Vec<RowNo> = deltas.iter().flat_map(rows::touched).collect();
        self.compare(fold, &touched, fold.revision().0)?;
        let before = self.size;
        ensure(self.measure(fold) == before, || "quota: a refused push changed what is there".into())?;
        if refused.reason != Reason::Quota {
            return Ok(());
        }
        ensure(deltas.iter().any(may_grow), || format!("quota: a removal was refused: {deltas:?}"))?;
        let more: usize = deltas.iter().map(|it| it.change.rows()).sum();
        let full = before.0 + more as u64 > self.limits.most(|it| it.rows_max);
        ensure(full || self.limits.get(|it| it.bytes_max).is_some(), || {
            format!("quota: {more} rows were refused beside {before:?}")
        })
    }

    pub(super) fn measure(&mut self, fold: &Fold) -> (u64, u64) {
        /// What the fold counts for a place in the queue of the dead. A death needs that room and always passes.
        const DEAD: u64 = 20;
        let view = fold.namespace(namespace(self.space));
        self.size = view.map_or((0, 0), |view| (view.rows(), view.bytes() - DEAD * view.dead_rows()));
        self.size
    }

    /// The record that ends a membership takes away what the node held up.
    pub(super) fn gone(&mut self, fold: &Fold, node: NodeId) -> Result<(), Violation> {
        let at = fold.revision().0;
        let held = (0..self.rows.len()).filter(|row| self.rows[*row].holders.contains_key(&node));
        let held: Vec<RowNo> = held.collect();
        for row in &held {
            self.rows[*row].hold(node, None, at);
        }
        self.forget_letters(fold);
        self.measure(fold);
        self.compare(fold, &held, at)
    }

    /// Log time has moved on, perhaps.
    pub(super) fn pass_time(&mut self, fold: &Fold, log_time_ms: u64) -> Result<(), Violation> {
        let at = fold.revision().0;
        self.end_letters(fold, log_time_ms);
        self.forget_ids(log_time_ms);
        let mut trimmed = Vec::new();
        if self.limits.get(|it| it.events_age_ms).is_some() {
            for (row, it) in self.rows.iter_mut().enumerate() {
                if it.log.expire(log_time_ms, &self.limits, at) {
                    trimmed.push(row);
                }
            }
        }
        self.measure(fold);
        self.compare(fold, &trimmed, at)
    }

    /// After the whole record: the fold's rows are what the dots say, and the versions are noted.
    pub(super) fn compare(&mut self, fold: &Fold, touched: &[RowNo], at: u64) -> Result<(), Violation> {
        for row in touched.iter().copied() {
            let kind = rows::all()[row].kind;
            let want = self.rows[row].visible(kind);
            let is = read(fold, self.space, row)?.map_or_else(|| Shown::nothing(kind), |told| told.0);
            ensure(is == want, || {
                let name = rows::name(row);
                format!("I4: the fold's row differs from its dots: {name} is {is:?}, must be {want:?}")
            })?;
            let it = &mut self.rows[row];
            if it.versions.last().is_none_or(|last| last.1 != want) {
                it.versions.push((at, want));
            }
        }
        Ok(())
    }
}

/// A write that says that its author has seen nothing, which stands beside what is there.
fn has_seen_nothing(delta: &Delta) -> bool {
    matches!(&delta.change, Change::Siblings(it) if it.as_of == Some(Revision::ZERO))
}

/// Whether a delta may need room. A remove that must be remembered does.
fn may_grow(delta: &Delta) -> bool {
    match &delta.change {
        Change::Set(change) => !change.add.is_empty(),
        Change::Flag(change) => change.on,
        Change::Siblings(change) => change.value.is_some(),
        Change::Events(change) => !change.append.is_empty(),
        Change::Presence(change) => change.value.is_some(),
        _ => true,
    }
}

impl RowTruth {
    pub(super) fn there(&self) -> impl Iterator<Item = &Dot> {
        self.dots.iter().filter(|dot| dot.until == u64::MAX)
    }

    pub(super) fn hold(&mut self, node: NodeId, held: Option<(Incarnation, Value)>, at: u64) {
        let before = match &held {
            Some(held) => self.holders.insert(node, held.clone()),
            None => self.holders.remove(&node),
        };
        if before != held {
            self.holders_changed_at.insert(node, at);
        }
    }

    fn visible(&self, kind: Type) -> Shown {
        match kind {
            Type::Set | Type::Flag | Type::GrowOnlySet => Shown::Present(self.there().next().is_some()),
            Type::RemoveWinsSet | Type::DisableWinsFlag => Shown::Present(self.in_force),
            Type::Counter => Shown::Counter(self.there().map(|dot| dot.amount).sum()),
            Type::Register => Shown::Register(self.winner.2.clone()),
            Type::Max | Type::Min => Shown::Number(self.best),
            Type::Siblings => {
                let value = |dot: &Dot| Some((dot.at, dot.value.clone()?));
                Shown::Siblings(self.there().filter_map(value).collect())
            }
            Type::Events => self.log.shown(),
            Type::Presence => {
                Shown::Holders(self.holders.iter().map(|(node, held)| (*node, held.1.clone())).collect())
            }
        }
    }

    pub(super) fn changed_after(&self, kind: Type, at: u64) -> u64 {
        match kind {
            Type::Events => self.log.changed_after(at),
            Type::Presence => self.holders_changed_at.values().filter(|it| **it > at).count() as u64,
            _ => u64::from(self.versions.last().is_some_and(|version| version.0 > at)),
        }
    }
}
