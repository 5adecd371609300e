//! A relay that folds what is pushed and tells what has changed.

use std::collections::BTreeMap;

use dormouse_proto::lattice::{Flag, Register, RemoveWins, SetElement, Siblings};

use super::*;

#[derive(Clone, Debug)]
pub(super) enum State {
    Counter(i64),
    Element(SetElement),
    Register(Register<Value>),
    /// One element of the set in which a remove wins; its name begins with `!`.
    Guarded(RemoveWins),
    Flag(Flag),
    DisableWinsFlag(RemoveWins),
    Siblings(Siblings<Value>),
    Max(i64),
}

impl State {
    fn is_dead(&self) -> bool {
        match self {
            Self::Element(row) => !row.is_present(),
            Self::Guarded(row) | Self::DisableWinsFlag(row) => !row.is_present(),
            Self::Flag(row) => !row.is_on(),
            Self::Siblings(row) => row.is_dead(),
            Self::Counter(_) | Self::Register(_) | Self::Max(_) => false,
        }
    }
}

#[derive(Default)]
pub(super) struct Relay {
    pub(super) revision: u64,
    floor: u64,
    /// An element that was removed up to here has left nothing else behind.
    mark: Revision,
    /// By the name of the element, or of the key where there is none.
    rows: BTreeMap<String, (u64, State)>,
    pub(super) last: [(PushNo, u64); 2],
    /// Amounts that each node's pushes have brought.
    pub(super) counted: [i64; 2],
}

impl Relay {
    pub(super) fn new() -> Self {
        Self { revision: 1, ..Self::default() }
    }

    pub(super) fn push(&mut self, node: usize, push_no: PushNo, deltas: &[Delta]) -> Ack {
        self.revision += 1;
        if self.last[node].0 < push_no {
            self.last[node] = (push_no, self.revision);
            for delta in deltas {
                if let Change::Counter(counter) = &delta.change {
                    self.counted[node] += counter.amount;
                }
                self.bind(delta);
            }
        }
        Ack {
            push_no,
            revision: Revision(self.last[node].1),
            as_of: Revision(self.revision),
            keys: deltas.iter().flat_map(|delta| self.unlike_asked(delta)).collect(),
        }
    }

    /// The rows that a delta touched, unless they are exactly what it asked for.
    fn unlike_asked(&self, delta: &Delta) -> Vec<KeyRows> {
        let row = |name: &str| self.rows.get(name).map(|(_, state)| state);
        let there = |name: &str| matches!(row(name), Some(State::Element(row)) if row.is_present());
        match &delta.change {
            Change::Counter(_) => row("c").map(|state| shown("c", state)).into_iter().collect(),
            Change::Register(asked) => match row("r") {
                Some(State::Register(row))
                    if (row.stamp_ms, &row.value) == (asked.stamp_ms, &asked.value) =>
                {
                    vec![]
                }
                Some(state) => vec![shown("r", state)],
                None => vec![],
            },
            Change::Set(asked) => {
                let removed = asked.remove.iter().flat_map(|it| &it.elements);
                let survived =
                    removed.filter(|it| there(it.as_str())).map(|it| set("a/s", &[it.as_str()], &[]));
                let gone = asked.add.iter().filter(|it| !there(it.as_str()));
                survived.chain(gone.map(|it| set("a/s", &[], &[it.as_str()]))).collect()
            }
            Change::Siblings(_) => vec![shown("v", row("v").unwrap_or(&nothing("v")))],
            Change::Flag(asked) => self.unlike("f", asked.on),
            Change::DisableWinsFlag(asked) => self.unlike("d", asked.on),
            Change::Max(asked) => row("m")
                .filter(|row| !matches!(row, State::Max(is) if is == asked))
                .map(|row| shown("m", row))
                .into_iter()
                .collect(),
            Change::RemoveWinsSet(asked) => {
                let added = asked.add.iter().flat_map(|it| &it.elements).map(|it| (it, true));
                let all = added.chain(asked.remove.iter().map(|it| (it, false)));
                all.flat_map(|(it, on)| self.unlike(&format!("!{it}"), on)).collect()
            }
            other => panic!("{other:?} is not of this model"),
        }
    }

    /// What is there, unless it is what was asked for. A row that was dropped is named too.
    fn unlike(&self, name: &str, on: bool) -> Vec<KeyRows> {
        let row = self.rows.get(name).map_or_else(|| nothing(name), |(_, state)| state.clone());
        if row.is_dead() == on { vec![shown(name, &row)] } else { vec![] }
    }

    fn change(&mut self, name: &str, new: State, change: impl FnOnce(&mut State)) {
        let at = self.revision;
        let row = self.rows.entry(name.to_owned()).or_insert((at, new));
        change(&mut row.1);
        row.0 = at;
    }

    fn bind(&mut self, delta: &Delta) {
        let at = Revision(self.revision);
        // Whoever does not follow means what is there now.
        let seen = |as_of: Option<Revision>| as_of.unwrap_or(Revision(at.0 - 1));
        match &delta.change {
            Change::Counter(counter) => self.change("c", State::Counter(0), |state| {
                if let State::Counter(value) = state {
                    *value += counter.amount;
                }
            }),
            Change::Set(set) => {
                for (remove, element) in
                    set.remove.iter().flat_map(|it| it.elements.iter().map(move |e| (it, e)))
                {
                    self.change(element.as_str(), State::Element(SetElement::default()), |state| {
                        if let State::Element(row) = state {
                            row.remove(seen(remove.as_of));
                        }
                    });
                }
                for element in &set.add {
                    self.change(element.as_str(), State::Element(SetElement::default()), |state| {
                        if let State::Element(row) = state {
                            row.add(at);
                        }
                    });
                }
            }
            Change::Register(write) => self.change("r", State::Register(Register::default()), |state| {
                if let State::Register(row) = state {
                    let stamp = row.lifted(seen(write.as_of), write.stamp_ms);
                    row.offer(stamp, at, write.value.clone());
                }
            }),
            Change::RemoveWinsSet(set) => {
                for (as_of, element) in
                    set.add.iter().flat_map(|it| it.elements.iter().map(|e| (it.as_of, e)))
                {
                    self.guard(&format!("!{element}"), State::Guarded, |row| {
                        row.add(seen(as_of));
                    });
                }
                for element in &set.remove {
                    self.guard(&format!("!{element}"), State::Guarded, |row| row.remove(at));
                }
            }
            Change::DisableWinsFlag(flag) => self.guard("d", State::DisableWinsFlag, |row| {
                if flag.on { row.add(seen(flag.as_of)) } else { row.remove(at) }
            }),
            Change::Flag(flag) => self.change("f", State::Flag(Flag::default()), |state| {
                if let State::Flag(row) = state {
                    if flag.on { row.switch_on(at) } else { row.switch_off(seen(flag.as_of)) }
                }
            }),
            Change::Siblings(write) => self.change("v", State::Siblings(Siblings::default()), |state| {
                if let State::Siblings(row) = state {
                    let as_of = seen(write.as_of);
                    match &write.value {
                        Some(value) => drop(row.write(as_of, at, value.clone(), Value::len)),
                        None => row.remove(as_of),
                    }
                }
            }),
            Change::Max(offer) => self.change("m", State::Max(*offer), |state| {
                if let State::Max(max) = state {
                    *max = *offer.max(max);
                }
            }),
            other => panic!("{other:?} is not of this model"),
        }
    }

    /// Changes a row in which a remove wins. One that was dropped may have been removed up to the mark.
    fn guard(&mut self, name: &str, state: fn(RemoveWins) -> State, change: impl FnOnce(&mut RemoveWins)) {
        let new = RemoveWins { seen: None, removed: self.mark };
        self.change(name, state(new), |state| {
            if let State::Guarded(row) | State::DisableWinsFlag(row) = state {
                change(row);
            }
        });
    }

    pub(super) fn collect(&mut self) {
        for (chg, state) in self.rows.values().filter(|(_, state)| state.is_dead()) {
            self.floor = self.floor.max(*chg);
            if let State::Guarded(row) | State::DisableWinsFlag(row) = state {
                self.mark = self.mark.max(row.removed);
            }
        }
        self.rows.retain(|_, (_, state)| !state.is_dead());
    }

    /// The token is the revision, and the place in the one collection, if it was asked for: the cursor, and the start of
    /// the first or fresh pull while that lasts.
    pub(super) fn pull(&self, outgoing: &OutgoingPull<'_>, most: usize) -> Chunk {
        let word = |nth: usize| {
            outgoing.token.get(nth * 8..nth * 8 + 8).map(|b| u64::from_be_bytes(b.try_into().expect("8")))
        };
        let revision = self.revision.to_be_bytes();
        if !outgoing.collections.iter().any(|name| name == "a" || name == "*") {
            return chunk(self.revision, true, vec![]);
        }
        let (mut cursor, mut boot) = (word(1).unwrap_or(0), word(2).unwrap_or(u64::MAX));
        if word(1).is_none() {
            boot = outgoing.held_since.map_or(self.revision, |at| at.0);
        }
        let restart = (if boot < u64::MAX { boot } else { cursor }) < self.floor;
        if restart {
            (cursor, boot) = (0, self.revision);
        }
        let skipped = |chg: u64, state: &State| {
            let dead = state.is_dead();
            (boot < u64::MAX && dead && chg <= boot) || outgoing.acked.contains(&Revision(chg))
        };
        let mut owed: Vec<_> =
            self.rows.iter().filter(|(_, (chg, state))| *chg > cursor && !skipped(*chg, state)).collect();
        owed.sort_by_key(|(_, (chg, _))| *chg);
        let mut cut = most.min(owed.len());
        while cut > 0 && cut < owed.len() && owed[cut].1.0 == owed[cut - 1].1.0 {
            cut += 1;
        }
        let caught_up = cut == owed.len();
        let token = if caught_up { self.revision } else { owed[cut - 1].1.0 }.to_be_bytes();
        Chunk {
            as_of: Revision(self.revision),
            caught_up,
            token: if caught_up {
                [revision, token].concat()
            } else {
                [revision, token, boot.to_be_bytes()].concat()
            },
            restart: restart.then_some(Restart::Compacted),
            keys: owed[..cut].iter().map(|(name, (_, state))| shown(name, state)).collect(),
            ..Chunk::default()
        }
    }
}

/// The row of that name before anything was said.
fn nothing(name: &str) -> State {
    match name {
        "f" => State::Flag(Flag::default()),
        "d" => State::DisableWinsFlag(RemoveWins::default()),
        "v" => State::Siblings(Siblings::default()),
        _ => State::Guarded(RemoveWins::default()),
    }
}

fn shown(name: &str, state: &State) -> KeyRows {
    match state {
        State::Counter(value) => counter("a/c", *value, *value),
        State::Element(row) if row.is_present() => set("a/s", &[name], &[]),
        State::Element(_) => set("a/s", &[], &[name]),
        State::Register(row) => {
            rows("a/r", Rows::Register { value: row.value.clone(), stamp_ms: row.stamp_ms })
        }
        State::Guarded(row) => {
            let named = || vec![name.trim_start_matches('!').to_owned()];
            let (present, removed) = if row.is_present() { (named(), vec![]) } else { (vec![], named()) };
            rows("a/g", Rows::RemoveWinsSet { present, removed })
        }
        State::Flag(row) => rows("a/f", Rows::Flag { on: row.is_on() }),
        State::DisableWinsFlag(row) => rows("a/d", Rows::DisableWinsFlag { on: row.is_present() }),
        State::Siblings(row) => {
            let values = row.iter().map(|(at, value)| (at, value.clone())).collect();
            rows("a/v", Rows::Siblings { values })
        }
        State::Max(value) => rows("a/m", Rows::Max { value: Some(*value) }),
    }
}

/// What is seen of everything.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    pub(super) counter: i64,
    pub(super) set: Vec<String>,
    pub(super) register: Option<Value>,
    pub(super) guarded: Vec<String>,
    pub(super) flags: (bool, bool),
    pub(super) siblings: Vec<Value>,
    pub(super) max: Option<i64>,
}

/// What the relay holds.
pub(super) fn truth(relay: &Relay) -> View {
    let held = |name: &str| relay.rows.get(name).map(|(_, state)| state);
    let there = |name: &str| held(name).is_some_and(|state| !state.is_dead());
    let names = |sign: &str| {
        let named = ELEMENTS.iter().filter(|name| there(&format!("{sign}{name}")));
        named.map(ToString::to_string).collect()
    };
    View {
        counter: if let Some(State::Counter(value)) = held("c") { *value } else { 0 },
        set: names(""),
        register: if let Some(State::Register(row)) = held("r") { row.value.clone() } else { None },
        guarded: names("!"),
        flags: (there("f"), there("d")),
        siblings: match held("v") {
            Some(State::Siblings(row)) => row.iter().map(|(_, value)| value.clone()).collect(),
            _ => Vec::new(),
        },
        max: if let Some(State::Max(value)) = held("m") { Some(*value) } else { None },
    }
}
