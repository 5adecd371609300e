//! What a program said about one key and the relay has not yet confirmed.
//!
//! One op per row: saying something twice replaces or adds up, so the outbox grows with the rows touched, not with the
//! calls made. Each type is one file that implements [`Intent`].

use dormouse_proto::{
    ids::Revision,
    lattice::{Change, Type},
};

use super::{Path, counter::CounterIntent, held::HeldRows, register::RegisterIntent, set::SetIntent};

/// The revision at which the author saw a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    /// Taken when the push is sealed: the row has a delta in a push whose fate is unknown, so what the author has seen
    /// includes a write that has no revision yet.
    Open,
    /// Taken at the call. `None`: whatever is there when the log accepts it, for rows that are not followed.
    At(Option<Revision>),
}

impl Context {
    /// As a delta says it.
    pub(super) const fn as_of(self) -> Option<Revision> {
        match self {
            Self::Open => Some(Revision::ZERO),
            Self::At(as_of) => as_of,
        }
    }

    /// Whether this context speaks of a history that can be lost.
    pub(super) const fn names_history(self) -> bool {
        !matches!(self, Self::At(None))
    }
}

/// What is left of a push's bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

impl Room {
    /// A push holds at most 1,024 rows, and its encoding stays below 1 MiB.
    pub(super) const PUSH: Self = Self {
        rows: 1_024,
        bytes: 1_000_000,
    };

    /// Takes one row's share, if there is that much. The first row of a push always fits.
    pub(super) fn take(&mut self, rows: usize, bytes: usize) -> bool {
        let fits = self.rows >= rows && self.bytes >= bytes;
        if fits {
            self.rows -= rows;
            self.bytes -= bytes;
        }
        fits
    }
}

/// What each type knows of its own ops.
pub(super) trait Intent: Clone + PartialEq {
    /// Its type.
    const KIND: Type;

    /// That of this type in an entry.
    fn of(any: &AnyIntent) -> Option<&Self>;
    /// As an entry holds it.
    fn any(self) -> AnyIntent;
    /// Rows that it touches.
    fn rows(&self) -> usize;
    /// An upper bound of its encoding, its names left out.
    fn bytes(&self) -> usize;
    /// By how much saying `later` too makes it larger.
    fn growth(&self, later: &Self) -> usize;
    /// Says `later` too.
    fn then(&mut self, later: Self);
    /// Takes out what fits into one push.
    fn split(&mut self, room: &mut Room) -> Option<Self>;
    /// Nothing is left to say.
    fn is_empty(&self) -> bool;
    /// Takes the contexts that were left open.
    fn resolve(&mut self, path: &Path, held: &HeldRows);
    /// The delta's change; `None`: there is nothing to say.
    fn change(&self) -> Option<Change>;
    /// The history of its contexts was lost (C8): takes out and returns what makes no sense without.
    fn without_history(&mut self) -> Option<Change>;
    /// It was refused as STALE (C5): takes out and returns what cannot be said without a context.
    fn without_context(&mut self) -> Option<Change>;
    /// It was refused for lack of room: takes out and returns what needs some.
    fn without_growth(&mut self) -> Option<Change>;
    /// It says the same however often it is applied.
    fn is_idempotent(&self) -> bool;
}

/// An intent of any type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum AnyIntent {
    Counter(CounterIntent),
    Set(SetIntent),
    Register(RegisterIntent),
}

/// Runs `$body` with the intent inside, whatever its type.
macro_rules! each {
    ($any:expr, $intent:ident => $body:expr) => {
        match $any {
            $crate::replica::intent::AnyIntent::Counter($intent) => $body,
            $crate::replica::intent::AnyIntent::Set($intent) => $body,
            $crate::replica::intent::AnyIntent::Register($intent) => $body,
        }
    };
}
pub(super) use each;

impl AnyIntent {
    pub(super) const fn kind(&self) -> Type {
        match self {
            Self::Counter(_) => Type::Counter,
            Self::Set(_) => Type::Set,
            Self::Register(_) => Type::Register,
        }
    }

    pub(super) fn growth(&self, later: &Self) -> usize {
        match (self, later) {
            (Self::Counter(this), Self::Counter(later)) => this.growth(later),
            (Self::Set(this), Self::Set(later)) => this.growth(later),
            (Self::Register(this), Self::Register(later)) => this.growth(later),
            _ => 0,
        }
    }

    /// Says `later`, which is of the same type, too.
    pub(super) fn then(&mut self, later: Self) {
        match (self, later) {
            (Self::Counter(this), Self::Counter(later)) => this.then(later),
            (Self::Set(this), Self::Set(later)) => this.then(later),
            (Self::Register(this), Self::Register(later)) => this.then(later),
            _ => debug_assert!(false, "an entry holds one type"),
        }
    }

    pub(super) fn split(&mut self, room: &mut Room) -> Option<Self> {
        match self {
            Self::Counter(this) => this.split(room).map(Self::Counter),
            Self::Set(this) => this.split(room).map(Self::Set),
            Self::Register(this) => this.split(room).map(Self::Register),
        }
    }
}

/// The change that an intent of any type asks for.
pub(super) fn change_of(any: &AnyIntent) -> Option<Change> {
    each!(any, it => it.change())
}
