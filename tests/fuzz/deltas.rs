//! Arbitrary deltas of every type, as a relay would admit them.

use dormouse_proto::{
    ids::{Element, Revision},
    lattice::{
        Append, Change, CounterDelta, Delta, EventsDelta, FlagDelta, GrowOnlySetDelta, GuardedAdd, Once,
        PresenceDelta, RegisterDelta, Remove, RemoveWinsSetDelta, Reset, SetDelta, SiblingsDelta,
    },
};

use crate::{
    choices::Choices,
    history::{name, request_id, value},
};

/// Writes deltas for a log whose newest revision is this.
#[derive(Clone, Copy)]
pub(crate) struct Deltas(pub(crate) u64);

impl Deltas {
    /// At most one for each collection, key and type, as in every record that a relay writes.
    pub(crate) fn some(self, choices: &mut Choices<'_>) -> Vec<Delta> {
        let mut deltas: Vec<Delta> = choices.list(4, |it| self.one(it));
        deltas.sort_by(|a, b| place(a).cmp(&place(b)));
        deltas.dedup_by(|a, b| place(a) == place(b));
        deltas
    }

    fn one(self, choices: &mut Choices<'_>) -> Delta {
        let change = self.change(choices);
        Delta {
            collection: name(choices, &["ads", "carts", "flags"]),
            key: name(choices, &["a", "b/c"]),
            change,
        }
    }

    fn change(self, choices: &mut Choices<'_>) -> Change {
        match choices.below(16) {
            0..=1 => self.counter(choices),
            2..=3 => self.set(choices),
            4..=5 => Change::Register(RegisterDelta {
                value: choices.perhaps(value),
                stamp_ms: choices.number(),
                as_of: self.as_of(choices),
            }),
            // Only the side that loses has a context.
            6 => {
                let on = choices.sometimes();
                let as_of = if on { None } else { self.as_of(choices) };
                Change::Flag(FlagDelta { on, as_of })
            }
            7 => {
                let on = !choices.sometimes();
                let as_of = if on { self.as_of(choices) } else { None };
                Change::DisableWinsFlag(FlagDelta { on, as_of })
            }
            8 => Change::Max(choices.signed()),
            9 => Change::Min(choices.signed()),
            10 => {
                Change::Siblings(SiblingsDelta { value: choices.perhaps(value), as_of: self.as_of(choices) })
            }
            11 | 12 => self.events(choices),
            13 => Change::Presence(PresenceDelta { value: choices.perhaps(value) }),
            14 => Change::GrowOnlySet(GrowOnlySetDelta { add: elements(choices) }),
            _ => self.remove_wins_set(choices),
        }
    }

    fn counter(self, choices: &mut Choices<'_>) -> Change {
        Change::Counter(CounterDelta {
            reset: choices.sometimes().then(|| Reset { as_of: self.as_of(choices), total: choices.signed() }),
            amount: choices.signed(),
            once: choices.list(1, |it| Once { id: request_id(it), amount: it.signed() }),
        })
    }

    /// Every element at most once.
    fn set(self, choices: &mut Choices<'_>) -> Change {
        let (mut add, mut remove) = (Vec::new(), Vec::new());
        for element in ["", "e", "f"] {
            let element = element.parse().expect("a good element");
            match choices.below(3) {
                0 => add.push(element),
                1 => remove.push(Remove { elements: vec![element], as_of: self.as_of(choices) }),
                _ => {}
            }
        }
        Change::Set(SetDelta { add, remove })
    }

    fn remove_wins_set(self, choices: &mut Choices<'_>) -> Change {
        let (mut add, mut remove) = (Vec::new(), Vec::new());
        for element in ["", "e", "f"] {
            let element = element.parse().expect("a good element");
            match choices.below(3) {
                0 => add.push(GuardedAdd { elements: vec![element], as_of: self.as_of(choices) }),
                1 => remove.push(element),
                _ => {}
            }
        }
        Change::RemoveWinsSet(RemoveWinsSetDelta { add, remove })
    }

    fn events(self, choices: &mut Choices<'_>) -> Change {
        let append =
            choices.list(4, |it| Append { payload: value(it), id: it.sometimes().then(|| request_id(it)) });
        let trim_upto = if choices.sometimes() { self.as_of(choices) } else { None };
        Change::Events(EventsDelta { append, trim_upto: trim_upto.unwrap_or_default() })
    }

    /// What an author may have seen: nothing, something of late, or what it cannot have.
    fn as_of(self, choices: &mut Choices<'_>) -> Option<Revision> {
        match choices.below(64) {
            0..=31 => None,
            63 => Some(Revision(choices.number())),
            late => Some(Revision(self.0.saturating_sub(late as u64 - 31))),
        }
    }
}

fn elements(choices: &mut Choices<'_>) -> Vec<Element> {
    let all = ["", "e", "f"].into_iter().filter(|_| choices.below(2) == 0);
    all.map(|element| element.parse().expect("a good element")).collect()
}

fn place(delta: &Delta) -> (&str, &str, u8) {
    (delta.collection.as_str(), delta.key.as_str(), delta.change.kind().number())
}
