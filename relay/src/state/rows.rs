//! Rows, where they lie, and the table that keeps them with their index and their dead.
//!
//! Row ids are places in memory: they differ between relays and appear in no result.

use std::collections::VecDeque;

use dormouse_proto::ids::Revision;

use super::index::Index;

/// The place of a row within its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RowId(pub(super) u32);

/// What a table must know of a row beside its `chg`.
pub(super) trait Body: Default {
    /// Whether nothing of it is visible.
    fn is_dead(&self) -> bool;

    /// The revision at which a dead row last said something new; at least `chg`.
    fn touched(&self, chg: Revision) -> Revision;
}

#[derive(Clone, Debug, Default)]
pub(super) struct Row<B> {
    /// The revision at which the observable state last changed; zero when it never did, and in a free place.
    pub(super) chg: Revision,
    pub(super) body: B,
}

/// A list in blocks of `LEN`. A full block never moves, so a long list grows without copying.
#[derive(Clone, Debug)]
pub(super) struct Blocks<T, const LEN: usize>(Vec<Vec<T>>);

impl<T, const LEN: usize> Default for Blocks<T, LEN> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const LEN: usize> Blocks<T, LEN> {
    pub(super) fn get(&self, at: u32) -> Option<&T> {
        self.0.get(at as usize / LEN)?.get(at as usize % LEN)
    }

    pub(super) fn at(&self, at: u32) -> &T {
        &self.0[at as usize / LEN][at as usize % LEN]
    }

    pub(super) fn at_mut(&mut self, at: u32) -> &mut T {
        &mut self.0[at as usize / LEN][at as usize % LEN]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }

    /// Puts one more behind the others; answers where. `None` when 2^32 are there.
    pub(super) fn push(&mut self, it: T) -> Option<u32> {
        if self.0.last().is_none_or(|block| block.len() == LEN) {
            self.0.push(Vec::new());
        }
        let before = (self.0.len() - 1) * LEN;
        let last = self.0.last_mut()?;
        let at = u32::try_from(before + last.len()).ok()?;
        if last.len() == last.capacity() {
            // The room for what may come is a share of what is there, so that a short list is not mostly empty room.
            let room = ((before + last.len()) / 8).max(8);
            last.reserve_exact(room.min(LEN - last.len()));
        }
        last.push(it);
        Some(at)
    }
}

/// Places for rows.
#[derive(Clone, Debug, Default)]
struct Slab<B> {
    rows: Blocks<Row<B>, 8192>,
    free: Vec<RowId>,
}

impl<B: Body> Slab<B> {
    fn row(&self, id: RowId) -> &Row<B> {
        self.rows.at(id.0)
    }

    fn row_mut(&mut self, id: RowId) -> &mut Row<B> {
        self.rows.at_mut(id.0)
    }

    /// `None` when 2^32 rows are there.
    fn insert(&mut self, body: B) -> Option<RowId> {
        let row = Row { chg: Revision::ZERO, body };
        if let Some(id) = self.free.pop() {
            *self.row_mut(id) = row;
            return Some(id);
        }
        self.rows.push(row).map(RowId)
    }

    fn remove(&mut self, id: RowId) -> Row<B> {
        self.free.push(id);
        std::mem::take(self.row_mut(id))
    }

    fn iter(&self) -> impl Iterator<Item = &Row<B>> {
        self.rows.iter()
    }
}

/// Rows with their index by revision, and the queue of the dead.
#[derive(Clone, Debug, Default)]
pub(super) struct Table<B> {
    slab: Slab<B>,
    index: Index,
    /// Oldest touch first. An entry counts if and only if its row is dead and was last touched then.
    dead: VecDeque<(Revision, RowId)>,
    live_rows: usize,
    dead_rows: usize,
    /// Dead rows with a `chg` up to here have been dropped.
    floor: Revision,
    /// Changes that readers must be told of, since this process began.
    changes: u64,
}

/// What a row looked like before a change; the other half of [`Table::changed`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    dead: bool,
    touched: Revision,
}

impl<B: Body> Table<B> {
    pub(super) fn row(&self, id: RowId) -> &Row<B> {
        self.slab.row(id)
    }

    pub(super) fn get(&self, id: RowId) -> Option<&Row<B>> {
        self.slab.rows.get(id.0)
    }

    pub(super) fn body_mut(&mut self, id: RowId) -> &mut B {
        &mut self.slab.row_mut(id).body
    }

    pub(super) fn live_rows(&self) -> usize {
        self.live_rows
    }

    pub(super) fn dead_rows(&self) -> usize {
        self.dead_rows
    }

    pub(super) fn floor(&self) -> Revision {
        self.floor
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn set_floor(&mut self, floor: Revision) {
        self.floor = floor;
    }

    /// Takes in a row that is dead until [`Table::changed`] says otherwise.
    pub(super) fn insert(&mut self, body: B) -> Option<RowId> {
        let id = self.slab.insert(body)?;
        self.dead_rows += 1;
        Some(id)
    }

    /// Takes in a row that is alive from its first moment.
    pub(super) fn insert_live(&mut self, body: B, at: Revision) -> Option<RowId> {
        let id = self.insert(body)?;
        self.changed(id, Before { dead: true, touched: Revision::ZERO }, true, at);
        Some(id)
    }

    /// Takes a live row out without a trace: something else tells readers that it is gone.
    pub(super) fn remove(&mut self, id: RowId) -> Row<B> {
        let row = self.slab.remove(id);
        self.live_rows -= 1;
        if row.chg > Revision::ZERO && !self.index.withdraw(row.chg, id) {
            self.index.retire(row.chg);
        }
        row
    }

    /// To be taken before a row is changed. A row that was just inserted counts as dead and untouched.
    pub(super) fn before(&self, id: RowId) -> Before {
        let row = self.slab.row(id);
        Before { dead: row.body.is_dead(), touched: row.body.touched(row.chg) }
    }

    /// Books a change of a row: its `chg` if readers must be told, and its life or death.
    pub(super) fn changed(&mut self, id: RowId, before: Before, observable: bool, at: Revision) {
        let row = self.slab.row_mut(id);
        if observable && row.chg != at {
            if row.chg > Revision::ZERO {
                self.index.retire(row.chg);
            }
            row.chg = at;
            self.index.append(at, id);
            self.changes += 1;
        }
        let (dead, touched) = (row.body.is_dead(), row.body.touched(row.chg));
        match (before.dead, dead) {
            (true, false) => {
                self.dead_rows -= 1;
                self.live_rows += 1;
            }
            (false, true) => {
                self.live_rows -= 1;
                self.dead_rows += 1;
            }
            _ => {}
        }
        // A row that dies in the record that touched it while it lived is news to the queue all the same.
        let is_news = !before.dead || touched != before.touched;
        if dead && is_news && self.dead.back() != Some(&(touched, id)) {
            self.enqueue_dead(touched, id);
        }
    }

    fn enqueue_dead(&mut self, touched: Revision, id: RowId) {
        if self.dead.len() == self.dead.capacity() {
            self.dead.reserve_exact((self.dead.len() / 4).max(16));
        }
        self.dead.push_back((touched, id));
        // Rows that came back to life leave entries behind; they may not outnumber the dead.
        if self.dead.len() > 2 * self.dead_rows + 1024 {
            let slab = &self.slab;
            self.dead.retain(|entry| is_entry(slab, *entry));
        }
    }

    /// Drops the dead row that was touched longest ago, if there are more than `cap`. Raises the floor.
    pub(super) fn drop_oldest_dead(&mut self, cap: usize) -> Option<(RowId, Row<B>)> {
        if self.dead_rows <= cap {
            return None;
        }
        while let Some(entry) = self.dead.pop_front() {
            if is_entry(&self.slab, entry) {
                let row = self.slab.remove(entry.1);
                self.dead_rows -= 1;
                self.floor = self.floor.max(row.chg);
                if row.chg > Revision::ZERO {
                    self.index.retire(row.chg);
                }
                return Some((entry.1, row));
            }
        }
        None
    }

    /// Whether there is work for [`Table::tidy`].
    pub(super) fn is_untidy(&self) -> bool {
        self.index.is_untidy()
    }

    /// One bounded step of index tidying. Returns whether there is more to do.
    pub(super) fn tidy(&mut self) -> bool {
        let slab = &self.slab;
        self.index.tidy(|at, id| slab.row(id).chg == at)
    }

    /// Live entries of the index after `cursor`, in the order of their revisions.
    pub(super) fn changed_after(&self, cursor: Revision) -> impl Iterator<Item = (Revision, RowId, &Row<B>)> {
        self.index.after(cursor).filter_map(|(at, id)| {
            let row = self.slab.row(id);
            (row.chg == at).then_some((at, id, row))
        })
    }

    /// An upper bound of the rows that changed after `cursor`.
    pub(super) fn count_after(&self, cursor: Revision) -> usize {
        self.index.live_after(cursor)
    }

    /// Rows that were never observable, in no order.
    pub(super) fn unseen(&self) -> impl Iterator<Item = &Row<B>> {
        self.slab.iter().filter(|row| row.chg == Revision::ZERO && row.body.touched(row.chg) > Revision::ZERO)
    }

    /// All rows, in no order that matters.
    pub(super) fn all(&self) -> impl Iterator<Item = &Row<B>> {
        self.slab.iter()
    }

    /// The dead in the order in which they will be dropped.
    pub(super) fn dead_in_order(&self) -> impl Iterator<Item = &Row<B>> {
        self.dead.iter().filter(|entry| is_entry(&self.slab, **entry)).map(|entry| self.slab.row(entry.1))
    }

    /// Puts back a row of a snapshot; rows come in the order of their `chg`.
    pub(super) fn restore(&mut self, body: B, chg: Revision) -> Option<RowId> {
        let id = self.slab.insert(body)?;
        let row = self.slab.row_mut(id);
        row.chg = chg;
        if row.body.is_dead() {
            self.dead_rows += 1;
        } else {
            self.live_rows += 1;
        }
        if chg > Revision::ZERO {
            self.index.append(chg, id);
        }
        Some(id)
    }

    /// Puts back the queue of the dead, oldest first.
    pub(super) fn restore_dead(&mut self, ids: impl Iterator<Item = RowId>) {
        let slab = &self.slab;
        self.dead = ids.map(|id| (slab.row(id).body.touched(slab.row(id).chg), id)).collect();
    }
}

fn is_entry<B: Body>(slab: &Slab<B>, (touched, id): (Revision, RowId)) -> bool {
    let row = slab.row(id);
    row.body.is_dead() && touched > Revision::ZERO && row.body.touched(row.chg) == touched
}
