//! Counters: a row is a value and a total; what is said of it adds up until somebody resets it.

use dormouse_proto::{
    ids::OnceId,
    lattice::{Change, CounterDelta, MAX_AMOUNT, Once, Reset},
};

use super::{
    Path, Replica, WriteError,
    held::HeldRows,
    intent::{Intent, Room},
};

/// A counter as it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CounterRow {
    pub(super) value: i64,
    /// What a reset names; `None`: the history that it was read from is lost.
    pub(super) total: Option<i64>,
}

/// Takes away what is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ResetIntent {
    /// Of the counter as it will be known when the push is sealed.
    Open,
    /// Of what was seen at the call.
    Seen(Reset),
    /// Of nothing: only own amounts were there, and they were never sent.
    Own,
}

/// What was said of one counter.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct CounterIntent {
    reset: Option<ResetIntent>,
    amount: i64,
    once: Vec<Once>,
}

const BYTES: usize = 48;
const ONCE_BYTES: usize = 24;
const ONCE_MAX: usize = 1_000;

impl CounterIntent {
    /// What a reader who sees `value` sees with this on top.
    pub(super) fn over(&self, value: i64) -> i64 {
        // A reset of own amounts only says nothing of what others add: it takes away nothing that they will see.
        let takes_away = matches!(self.reset, Some(ResetIntent::Open | ResetIntent::Seen(_)));
        let base = if takes_away { 0 } else { value };
        let once = self.once.iter().map(|once| once.amount);
        once.fold(base.saturating_add(self.amount), i64::saturating_add)
    }

    fn names(&self, id: &OnceId) -> bool {
        self.once.iter().any(|once| once.id == *id)
    }

    fn once_bytes(&self) -> usize {
        let bytes = |once: &Once| ONCE_BYTES + once.id.as_str().len();
        self.once.iter().map(bytes).sum()
    }
}

impl Intent for CounterIntent {
    fn rows(&self) -> usize {
        1
    }

    fn bytes(&self) -> usize {
        BYTES + self.once_bytes()
    }

    fn growth(&self, later: &Self) -> usize {
        if later.reset.is_some() { 0 } else { later.once_bytes() }
    }

    fn then(&mut self, later: Self) {
        if later.reset.is_some() {
            *self = later;
            return;
        }
        self.amount = self.amount.saturating_add(later.amount);
        for once in later.once {
            if !self.names(&once.id) {
                self.once.push(once);
            }
        }
    }

    fn split(&mut self, room: &mut Room) -> Option<Self> {
        if !room.take(1, BYTES) {
            return None;
        }
        let most = i64::try_from(MAX_AMOUNT).unwrap_or(i64::MAX);
        let amount = self.amount.clamp(-most, most);
        self.amount -= amount;
        let mut part = Self { reset: self.reset.take(), amount, once: Vec::new() };
        let fitting = self
            .once
            .iter()
            .take(ONCE_MAX)
            .take_while(|once| room.take(0, ONCE_BYTES + once.id.as_str().len()))
            .count();
        part.once.extend(self.once.drain(..fitting));
        Some(part)
    }

    fn is_empty(&self) -> bool {
        self.reset.is_none() && self.amount == 0 && self.once.is_empty()
    }

    fn resolve(&mut self, path: &Path, held: &HeldRows) {
        if self.reset == Some(ResetIntent::Open) {
            self.reset = seen_reset(path, held).map(ResetIntent::Seen);
        }
    }

    fn change(&self) -> Option<Change> {
        let reset = match self.reset {
            Some(ResetIntent::Seen(reset)) => Some(reset),
            Some(ResetIntent::Open | ResetIntent::Own) | None => None,
        };
        let something = reset.is_some() || self.amount != 0 || !self.once.is_empty();
        something
            .then(|| Change::Counter(CounterDelta { reset, amount: self.amount, once: self.once.clone() }))
    }

    fn without_history(&mut self) -> Option<Change> {
        match self.reset {
            Some(ResetIntent::Seen(Reset { as_of: Some(_), .. }) | ResetIntent::Open) => {
                self.without_context()
            }
            _ => None,
        }
    }

    fn without_context(&mut self) -> Option<Change> {
        let reset = match self.reset.take()? {
            ResetIntent::Seen(reset) => reset,
            ResetIntent::Open => Reset { as_of: None, total: 0 },
            ResetIntent::Own => return None,
        };
        Some(Change::Counter(CounterDelta { reset: Some(reset), ..CounterDelta::default() }))
    }

    fn without_growth(&mut self) -> Option<Change> {
        self.whole()
    }

    fn without_repeats(&mut self) -> Option<Change> {
        // Not even amounts with an id are said again: the log remembers ids for no longer than it remembers an ended node.
        self.whole()
    }
}

/// The reset of what is seen now; `None`: nothing is.
fn seen_reset(path: &Path, held: &HeldRows) -> Option<Reset> {
    match held.counter(path) {
        Some(row) if row.state.value == 0 => None,
        Some(row) => Some(Reset { as_of: held.context(path, Some(row.as_of)), total: row.state.total? }),
        None if held.follows(path) => None,
        None => Some(Reset { as_of: None, total: 0 }),
    }
}

impl Replica {
    /// The counter as it is known, with own writes; `None`: not followed, or nothing was ever heard of it.
    pub fn counter(&self, path: &Path) -> Option<i64> {
        let held = self.held.counter(path);
        let as_of = held.map(|row| row.as_of);
        let sealed = self.sealed_intent::<CounterIntent>(path).filter(|_| self.shows_sealed(path, as_of));
        let own = sealed.into_iter().chain(self.waiting_intent(path));
        let seen = held.map(|row| row.state.value);
        let value = own.fold(seen, |value, intent: &CounterIntent| Some(intent.over(value.unwrap_or(0))));
        match seen {
            None if self.held.knows(path) => Some(value.unwrap_or(0)),
            None if !self.held.follows(path) => None,
            _ => value,
        }
    }

    /// Whether the counter is known to have reached `at_least`. It may be beyond it by what others have not pushed yet.
    pub fn reached(&self, path: &Path, at_least: i64) -> bool {
        self.counter(path).is_some_and(|value| value >= at_least)
    }

    /// Adds an amount, which may be negative.
    ///
    /// # Errors
    /// When it is above 2^48 or the outbox is full.
    pub fn counter_add(&mut self, path: &Path, amount: i64) -> Result<(), WriteError> {
        check_amount(amount)?;
        self.say(path, CounterIntent { amount, ..CounterIntent::default() })
    }

    /// Adds an amount that counts once per id, whoever repeats it.
    ///
    /// # Errors
    /// When it is above 2^48 or the outbox is full.
    pub fn counter_add_once(&mut self, path: &Path, id: OnceId, amount: i64) -> Result<(), WriteError> {
        check_amount(amount)?;
        let sent = self.sealed_intent::<CounterIntent>(path);
        if sent.is_some_and(|intent| intent.names(&id)) {
            return Ok(());
        }
        let once = vec![Once { id, amount }];
        self.say(path, CounterIntent { once, ..CounterIntent::default() })
    }

    /// Takes away what is seen now; what others add meanwhile survives.
    ///
    /// # Errors
    /// When the outbox is full.
    pub fn counter_reset(&mut self, path: &Path) -> Result<(), WriteError> {
        self.say(path, self.counter_reset_intent(path))
    }

    /// Takes away what is seen now.
    pub(super) fn counter_reset_intent(&self, path: &Path) -> CounterIntent {
        let under_way = self.own_is_under_way::<CounterIntent>(path, |_| true);
        let reset = if under_way {
            Some(ResetIntent::Open)
        } else {
            seen_reset(path, &self.held).map(ResetIntent::Seen)
        };
        let reset = Some(reset.unwrap_or(ResetIntent::Own));
        CounterIntent { reset, ..CounterIntent::default() }
    }
}

fn check_amount(amount: i64) -> Result<(), WriteError> {
    if amount.unsigned_abs() > MAX_AMOUNT {
        return Err(WriteError::AmountTooLarge(amount.into()));
    }
    Ok(())
}
