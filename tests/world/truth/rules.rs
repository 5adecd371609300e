//! What a delta means, type by type, with what its author was really shown instead of the revision that it names.

use std::collections::HashMap;

use dormouse_proto::{
    ids::{Element, PushId, Revision},
    lattice::{
        Change, CounterDelta, Delta, EventsDelta, FlagDelta, RegisterDelta, RemoveWinsSetDelta, SetDelta,
        Siblings, Value,
    },
};

use super::{
    books::{Binding, Books, Dot},
    read,
};
use crate::{
    rows::{self, RowNo},
    said::Said,
    violation::{Violation, ensure, violation},
};

/// What the author meant with a row.
type Meant<'a> = &'a dyn Fn(RowNo) -> Result<Said, Violation>;

impl Books {
    pub(super) fn delta(&mut self, delta: &Delta, by: Binding<'_>, said: Meant<'_>) -> Result<(), Violation> {
        let row = || row_of(delta, None);
        match &delta.change {
            Change::Set(set) => self.set(delta, set, by, said),
            Change::GrowOnlySet(set) => self.add_all(delta, &set.add, by),
            Change::RemoveWinsSet(set) => self.remove_wins_set(delta, set, by, said),
            Change::Flag(flag) => self.flag(row()?, *flag, by, said),
            Change::DisableWinsFlag(flag) if flag.on => {
                self.guarded_add(row()?, flag.as_of, by, &said(row()?)?)
            }
            Change::DisableWinsFlag(_) => {
                self.guarded_remove(row()?, by);
                Ok(())
            }
            Change::Counter(counter) => self.counter(delta, counter, by, &said(row()?)?),
            Change::Register(register) => self.register(row()?, register, by, &said(row()?)?),
            Change::Max(offer) => {
                self.offer(row()?, *offer, i64::max);
                Ok(())
            }
            Change::Min(offer) => {
                self.offer(row()?, *offer, i64::min);
                Ok(())
            }
            Change::Siblings(siblings) => {
                self.take_away(row()?, siblings.as_of, by.at, &said(row()?)?)?;
                if let Some(value) = siblings.value.clone() {
                    self.write_sibling(row()?, value, by.at);
                }
                Ok(())
            }
            Change::Events(events) => self.events(delta, events, by),
            Change::Presence(presence) => {
                let Some((node, incarnation)) = by.author else {
                    return Err(violation("presence of nobody"));
                };
                let held = presence.value.clone().map(|value| (incarnation, value));
                self.rows[row()?].hold(node, held, by.at);
                Ok(())
            }
        }
    }

    fn add_dot(&mut self, row: RowNo, at: u64, amount: i64, value: Option<Value>) {
        self.rows[row].dots.push(Dot { at, since: at, until: u64::MAX, amount, value });
    }

    fn add_all(&mut self, delta: &Delta, elements: &[Element], by: Binding<'_>) -> Result<(), Violation> {
        for element in elements {
            let row = row_of(delta, Some(element.as_str()))?;
            self.add_dot(row, by.at, 0, None);
        }
        Ok(())
    }

    fn set(
        &mut self,
        delta: &Delta,
        set: &SetDelta,
        by: Binding<'_>,
        said: Meant<'_>,
    ) -> Result<(), Violation> {
        for remove in &set.remove {
            for element in &remove.elements {
                let row = row_of(delta, Some(element.as_str()))?;
                self.take_away(row, remove.as_of, by.at, &said(row)?)?;
            }
        }
        self.add_all(delta, &set.add, by)
    }

    fn flag(
        &mut self,
        row: RowNo,
        flag: FlagDelta,
        by: Binding<'_>,
        said: Meant<'_>,
    ) -> Result<(), Violation> {
        if flag.on {
            self.add_dot(row, by.at, 0, None);
            return Ok(());
        }
        self.take_away(row, flag.as_of, by.at, &said(row)?)
    }

    fn remove_wins_set(
        &mut self,
        delta: &Delta,
        set: &RemoveWinsSetDelta,
        by: Binding<'_>,
        said: Meant<'_>,
    ) -> Result<(), Violation> {
        for element in &set.remove {
            self.guarded_remove(row_of(delta, Some(element.as_str()))?, by);
        }
        for add in &set.add {
            for element in &add.elements {
                let row = row_of(delta, Some(element.as_str()))?;
                self.guarded_add(row, add.as_of, by, &said(row)?)?;
            }
        }
        Ok(())
    }

    fn guarded_remove(&mut self, row: RowNo, by: Binding<'_>) {
        self.add_dot(row, by.at, 0, None);
        // No add that was bound before can have observed this one.
        self.rows[row].in_force = false;
    }

    /// Counts if its author had observed every remove; the context that it names must cover exactly those it had.
    fn guarded_add(
        &mut self,
        row: RowNo,
        as_of: Option<Revision>,
        by: Binding<'_>,
        said: &Said,
    ) -> Result<(), Violation> {
        let observed = self.observe(row, as_of, by.at, said)?;
        self.rows[row].in_force |= observed.iter().all(|it| *it);
        Ok(())
    }

    /// Which dots the author had observed; the context that it names must cover exactly those that are there.
    fn observe(
        &self,
        row: RowNo,
        as_of: Option<Revision>,
        at: u64,
        said: &Said,
    ) -> Result<Vec<bool>, Violation> {
        let as_of = as_of.map_or(at - 1, |it| it.0);
        let dots = &self.rows[row].dots;
        let observed: Vec<bool> = dots.iter().map(|dot| observed(said, dot.at, &self.bound)).collect();
        for (dot, observed) in dots.iter().zip(&observed).filter(|(dot, _)| dot.until == u64::MAX) {
            ensure(*observed == (dot.at <= as_of), || {
                let (name, dot) = (rows::name(row), dot.at);
                format!(
                    "I4: a context names what its author had not seen, or not what it had: {name}, dot {dot}, as of {as_of}, seen {observed}"
                )
            })?;
        }
        Ok(observed)
    }

    /// Removes the dots that the author had observed.
    fn take_away(
        &mut self,
        row: RowNo,
        as_of: Option<Revision>,
        at: u64,
        said: &Said,
    ) -> Result<(), Violation> {
        let observed = self.observe(row, as_of, at, said)?;
        let dots = self.rows[row].dots.iter_mut().zip(observed);
        dots.filter(|(dot, observed)| *observed && dot.until == u64::MAX).for_each(|(dot, _)| dot.until = at);
        Ok(())
    }

    fn write_sibling(&mut self, row: RowNo, value: Value, at: u64) {
        let value = Some(value);
        self.add_dot(row, at, 0, value);
        if self.rows[row].there().count() > Siblings::<Value>::MAX {
            let oldest = self.rows[row].dots.iter_mut().find(|dot| dot.until == u64::MAX);
            oldest.expect("there are many").until = at;
        }
    }

    fn offer(&mut self, row: RowNo, offer: i64, better: fn(i64, i64) -> i64) {
        let best = &mut self.rows[row].best;
        *best = Some(best.map_or(offer, |best| better(best, offer)));
    }

    fn counter(
        &mut self,
        delta: &Delta,
        counter: &CounterDelta,
        by: Binding<'_>,
        said: &Said,
    ) -> Result<(), Violation> {
        let row = row_of(delta, None)?;
        if let Some(reset) = counter.reset {
            self.take_away(row, reset.as_of, by.at, said)?;
        }
        let mut amount = counter.amount;
        let name = |id: &str| format!("count {}/{} {id}", delta.collection, delta.key);
        // All of a delta are judged by what was known before it.
        let mut fresh: Vec<(String, i64)> = Vec::new();
        for once in &counter.once {
            let name = name(once.id.as_str());
            if self.ids.get(&name).is_none() && fresh.iter().all(|it| it.0 != name) {
                fresh.push((name, once.amount));
            }
        }
        for (name, more) in fresh {
            self.ids.take(name, Some(by.at), by.log_time_ms, &self.limits);
            amount += more;
        }
        if amount != 0 {
            self.add_dot(row, by.at, amount, None);
        }
        Ok(())
    }

    fn events(&mut self, delta: &Delta, events: &EventsDelta, by: Binding<'_>) -> Result<(), Violation> {
        let row = row_of(delta, None)?;
        let mut fresh = Vec::new();
        for (index, append) in (0_u32..).zip(&events.append) {
            let name = |id: &str| format!("event {}/{} {id}", delta.collection, delta.key);
            let id = append.id.as_ref().map(|id| name(id.as_str()));
            if id.is_none_or(|id| self.ids.take(id, Some(by.at), by.log_time_ms, &self.limits)) {
                fresh.push((index, append.payload.clone()));
            }
        }
        let log = &mut self.rows[row].log;
        log.trim(events.trim_upto.0, by.at);
        let author = by.author.map(|(node, _)| node);
        for (index, payload) in fresh {
            log.append((by.at, index), payload, author, by.log_time_ms);
        }
        log.retain(&self.limits, by.at);
        Ok(())
    }

    /// Wins by stamp and revision, or because its author saw the winner. The stamp that a winner got is the fold's
    /// own matter where a dropped row may have lifted it, and is read from the fold.
    fn register(
        &mut self,
        row: RowNo,
        write: &RegisterDelta,
        by: Binding<'_>,
        said: &Said,
    ) -> Result<(), Violation> {
        let (fold, at) = (by.fold, by.at);
        let as_of = write.as_of.map_or(at - 1, |it| it.0);
        let clamped = match write.stamp_ms {
            0 => fold.stamp_ms(),
            stamp => stamp.min(fold.stamp_ms() + self.limits.most(|it| it.stamp_skew_ms)),
        };
        let (stamp, winner) = (self.rows[row].winner.0, self.rows[row].winner.1);
        let saw = observed(said, winner, &self.bound);
        ensure(winner == 0 || saw == (as_of >= winner), || {
            let name = rows::name(row);
            format!(
                "I4: a write names what its author had not seen, or not what it had: {name}, winner {winner}, as of {as_of}, seen {saw}"
            )
        })?;
        if winner > 0 && !saw && (clamped, at) <= (stamp, winner) {
            return Ok(());
        }
        let lifted = read(fold, self.space, row)?.map_or(clamped, |told| told.1);
        let exact = winner > 0 && !saw;
        ensure(lifted >= clamped && (!exact || lifted == clamped), || {
            format!("I4: {} got the stamp {lifted} for {clamped}", rows::name(row))
        })?;
        let it = &mut self.rows[row];
        it.dots.iter_mut().filter(|dot| dot.until == u64::MAX).for_each(|dot| dot.until = at);
        it.winner = (lifted, at, write.value.clone());
        self.add_dot(row, at, 0, None);
        Ok(())
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
