//! What a program said about one key and the relay has not yet confirmed.
//!
//! One op per row: saying something twice replaces or adds up, so the outbox grows with the rows touched, not with the
//! calls made. Each type is one file that implements [`Intent`].

use dormouse_proto::{
    ids::Revision,
    lattice::{Change, Type},
};

use super::{
    Path, counter::CounterIntent, disable_wins_flag::DisableWinsFlagIntent, events::EventsIntent,
    flag::FlagIntent, grow_only_set::GrowOnlySetIntent, held::HeldRows, max::MaxIntent, min::MinIntent,
    presence::PresenceIntent, register::RegisterIntent, remove_wins_set::RemoveWinsSetIntent, set::SetIntent,
    siblings::SiblingsIntent,
};

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

    /// Forgets what was seen of a history that is lost.
    pub(super) fn lose_history(&mut self) {
        if let Self::At(Some(as_of)) = self {
            *as_of = Revision::ZERO;
        }
    }
}

/// What was said of an element or a flag: that it is to be there, or on, or that it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) on: bool,
    /// What the author had seen, if that matters on this side.
    pub(super) context: Option<Context>,
}

/// Which of two concurrent words counts. The side that loses says what its author had seen.
pub(super) trait Winner: 'static {
    /// The losing side; `None`: there is only one.
    const LOSES: Option<bool>;
}

/// An add, or an on, wins.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct AddWins;

/// A remove, or an off, wins.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RemoveWins;

/// Nothing is ever removed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OnlyGrows;

impl Winner for AddWins {
    const LOSES: Option<bool> = Some(false);
}

impl Winner for RemoveWins {
    const LOSES: Option<bool> = Some(true);
}

impl Winner for OnlyGrows {
    const LOSES: Option<bool> = None;
}

impl Said {
    /// Whether it makes no sense once the history that its author had seen is lost. What takes something away named what
    /// was there; what puts something there is still wanted.
    pub(super) fn falls_with_history(self) -> bool {
        !self.on && self.context.is_some_and(Context::names_history)
    }

    /// Takes a context that was left open.
    pub(super) fn resolve(&mut self, seen: impl FnOnce() -> Option<Revision>) {
        if self.context == Some(Context::Open) {
            self.context = Some(Context::At(seen()));
        }
    }

    /// As a delta says it.
    pub(super) fn as_of(self) -> Option<Revision> {
        self.context.and_then(Context::as_of)
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
    pub(super) const PUSH: Self = Self { rows: 1_024, bytes: 1_000_000 };

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

/// How an intent stands in an entry of any type.
pub(super) trait Entry: Sized {
    /// Its type.
    const KIND: Type;

    /// That of this type in an entry.
    fn of(any: &AnyIntent) -> Option<&Self>;
    /// As an entry holds it.
    fn any(self) -> AnyIntent;
}

/// What each type knows of its own ops.
pub(super) trait Intent: Entry + Clone + Default + PartialEq {
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
    /// It may or may not have been applied (C6): takes out and returns what must not be said twice.
    fn without_repeats(&mut self) -> Option<Change>;

    /// Takes everything out and returns it.
    fn whole(&mut self) -> Option<Change> {
        std::mem::take(self).change()
    }
}

/// The types of the lattice, each with its intent.
macro_rules! entries {
    ($($kind:ident($intent:ty),)*) => {
        /// An intent of any type.
        #[derive(Clone, Debug, PartialEq)]
        pub(super) enum AnyIntent {
            $($kind($intent),)*
        }

        $(impl Entry for $intent {
            const KIND: Type = Type::$kind;

            fn of(any: &AnyIntent) -> Option<&Self> {
                match any {
                    AnyIntent::$kind(this) => Some(this),
                    _ => None,
                }
            }

            fn any(self) -> AnyIntent {
                AnyIntent::$kind(self)
            }
        })*

        impl AnyIntent {
            pub(super) const fn kind(&self) -> Type {
                match self {
                    $(Self::$kind(_) => Type::$kind,)*
                }
            }

            pub(super) fn growth(&self, later: &Self) -> usize {
                match (self, later) {
                    $((Self::$kind(this), Self::$kind(later)) => this.growth(later),)*
                    _ => 0,
                }
            }

            /// Says `later`, which is of the same type, too.
            pub(super) fn then(&mut self, later: Self) {
                match (self, later) {
                    $((Self::$kind(this), Self::$kind(later)) => this.then(later),)*
                    _ => debug_assert!(false, "an entry holds one type"),
                }
            }

            pub(super) fn split(&mut self, room: &mut Room) -> Option<Self> {
                match self {
                    $(Self::$kind(this) => this.split(room).map(Self::$kind),)*
                }
            }
        }
    };
}

entries! {
    Counter(CounterIntent),
    Set(SetIntent),
    Register(RegisterIntent),
    Flag(FlagIntent),
    Max(MaxIntent),
    Min(MinIntent),
    Events(EventsIntent),
    Presence(PresenceIntent),
    Siblings(SiblingsIntent),
    GrowOnlySet(GrowOnlySetIntent),
    RemoveWinsSet(RemoveWinsSetIntent),
    DisableWinsFlag(DisableWinsFlagIntent),
}

/// Runs `$body` with the intent inside, whatever its type.
macro_rules! each {
    ($any:expr, $intent:ident => $body:expr) => {
        match $any {
            $crate::replica::intent::AnyIntent::Counter($intent) => $body,
            $crate::replica::intent::AnyIntent::Set($intent) => $body,
            $crate::replica::intent::AnyIntent::Register($intent) => $body,
            $crate::replica::intent::AnyIntent::Flag($intent) => $body,
            $crate::replica::intent::AnyIntent::Max($intent) => $body,
            $crate::replica::intent::AnyIntent::Min($intent) => $body,
            $crate::replica::intent::AnyIntent::Events($intent) => $body,
            $crate::replica::intent::AnyIntent::Presence($intent) => $body,
            $crate::replica::intent::AnyIntent::Siblings($intent) => $body,
            $crate::replica::intent::AnyIntent::GrowOnlySet($intent) => $body,
            $crate::replica::intent::AnyIntent::RemoveWinsSet($intent) => $body,
            $crate::replica::intent::AnyIntent::DisableWinsFlag($intent) => $body,
        }
    };
}
pub(super) use each;

/// The change that an intent of any type asks for.
pub(super) fn change_of(any: &AnyIntent) -> Option<Change> {
    each!(any, it => it.change())
}
