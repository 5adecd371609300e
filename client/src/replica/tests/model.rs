//! Two nodes and a relay in thirty lines that loses requests and answers, cuts the backlog into small chunks and
//! collects dead rows. The whole simulation, with the real fold, is in the workspace's `tests`.

use std::collections::BTreeMap;

use dormouse_proto::lattice::{Register, SetElement};
use proptest::prelude::*;

use super::*;

const ELEMENTS: [&str; 4] = ["w", "x", "y", "z"];

#[derive(Clone, Debug)]
enum State {
    Counter(i64),
    Element(SetElement),
    Register(Register<Value>),
}

#[derive(Default)]
struct Relay {
    revision: u64,
    floor: u64,
    /// By the name of the element, or of the key where there is none.
    rows: BTreeMap<String, (u64, State)>,
    last: [(PushNo, u64); 2],
    /// Amounts that each node's pushes have brought.
    counted: [i64; 2],
}

impl Relay {
    fn push(&mut self, node: usize, push_no: PushNo, deltas: &[Delta]) -> Ack {
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
            other => panic!("{other:?} is not of this model"),
        }
    }

    fn change(&mut self, name: &str, new: State, change: impl FnOnce(&mut State)) {
        let at = self.revision;
        let row = self.rows.entry(name.to_owned()).or_insert((at, new));
        change(&mut row.1);
        row.0 = at;
    }

    fn bind(&mut self, delta: &Delta) {
        let at = Revision(self.revision);
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
                            row.remove(remove.as_of.expect("followed"));
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
                    let stamp = row.lifted(write.as_of.expect("followed"), write.stamp_ms);
                    row.offer(stamp, at, write.value.clone());
                }
            }),
            other => panic!("{other:?} is not of this model"),
        }
    }

    fn collect(&mut self) {
        let dead = |state: &State| matches!(state, State::Element(row) if !row.is_present());
        let gone = self.rows.values().filter(|(_, state)| dead(state)).map(|(chg, _)| *chg).max();
        self.floor = self.floor.max(gone.unwrap_or(0));
        self.rows.retain(|_, (_, state)| !dead(state));
    }

    /// The token is the cursor, and the start of the first or fresh pull while that lasts.
    fn pull(&self, outgoing: &OutgoingPull<'_>, most: usize) -> Chunk {
        let word = |nth: usize| {
            outgoing.token.get(nth * 8..nth * 8 + 8).map(|b| u64::from_be_bytes(b.try_into().expect("8")))
        };
        let (mut cursor, mut boot) = (word(0).unwrap_or(0), word(1).unwrap_or(u64::MAX));
        if outgoing.token.is_empty() {
            boot = outgoing.held_since.map_or(self.revision, |at| at.0);
        }
        let restart = (if boot < u64::MAX { boot } else { cursor }) < self.floor;
        if restart {
            (cursor, boot) = (0, self.revision);
        }
        let skipped = |chg: u64, state: &State| {
            let dead = matches!(state, State::Element(row) if !row.is_present());
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
            token: if caught_up { token.to_vec() } else { [token, boot.to_be_bytes()].concat() },
            restart: restart.then_some(Restart::Compacted),
            keys: owed[..cut].iter().map(|(name, (_, state))| shown(name, state)).collect(),
            ..Chunk::default()
        }
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
    }
}

#[derive(Clone, Debug)]
enum Step {
    Add(usize),
    Remove(usize),
    Count(i64),
    Write(u64),
    /// Whether request and answer arrive.
    Push(bool, bool),
    Pull(bool, usize),
    Collect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4_usize).prop_map(Step::Add),
        3 => (0..4_usize).prop_map(Step::Remove),
        1 => (-3..9_i64).prop_map(Step::Count),
        2 => (0..5_u64).prop_map(Step::Write),
        3 => (any::<bool>(), any::<bool>()).prop_map(|(there, back)| Step::Push(there, back)),
        4 => (any::<bool>(), 1..4_usize).prop_map(|(back, most)| Step::Pull(back, most)),
        1 => Just(Step::Collect),
    ]
}

fn run(relay: &mut Relay, nodes: &mut [Replica; 2], node: usize, step: &Step) {
    let it = &mut nodes[node];
    match step {
        Step::Add(nth) => it.set_add(&path("a/s"), element(ELEMENTS[*nth])).expect("fits"),
        Step::Remove(nth) => it.set_remove(&path("a/s"), element(ELEMENTS[*nth])).expect("fits"),
        Step::Count(amount) => it.counter_add(&path("a/c"), *amount).expect("fits"),
        Step::Write(stamp) => {
            it.register_set(&path("a/r"), Some(text(&format!("{node}:{stamp}"))), *stamp).expect("fits");
        }
        Step::Push(there, back) => {
            it.seal(PushId(7));
            let Some(push) = it.outgoing().push.filter(|_| *there) else {
                return;
            };
            let ack = relay.push(node, push.push_no, push.deltas);
            if *back {
                it.absorb_ack(ack);
            }
        }
        Step::Pull(back, most) => {
            let chunk = relay.pull(&it.outgoing().pull, *most);
            if *back {
                let (push_no, at) = relay.last[node];
                it.absorb_settled(settled(push_no, Some(at)));
                it.absorb_chunk(chunk);
            }
        }
        Step::Collect => relay.collect(),
    }
}

/// What the relay holds and what a node shows of it.
fn views(relay: &Relay, node: &Replica) -> [(i64, Vec<String>, Option<Value>); 2] {
    let held = |name: &str| relay.rows.get(name).map(|(_, state)| state.clone());
    let there = |name: &&str| matches!(held(name), Some(State::Element(row)) if row.is_present());
    let truth = (
        if let Some(State::Counter(value)) = held("c") { value } else { 0 },
        ELEMENTS.iter().filter(|name| there(name)).map(ToString::to_string).collect(),
        if let Some(State::Register(row)) = held("r") { row.value } else { None },
    );
    let elements = node.set(&path("a/s")).expect("caught up").into_iter().map(str::to_owned);
    let shown = (
        node.counter(&path("a/c")).expect("caught up"),
        elements.collect(),
        node.register(&path("a/r")).expect("caught up").cloned(),
    );
    [truth, shown]
}

fn world(traps: Traps) -> (Relay, [Replica; 2]) {
    let relay = Relay { revision: 1, ..Relay::default() };
    (relay, [replica().with_traps(traps), replica().with_traps(traps)])
}

/// Runs a history; whenever a node is caught up it must show what the relay holds, and its own counts on top.
fn converges(traps: Traps, steps: &[(usize, Step)]) -> Result<(), TestCaseError> {
    let (mut relay, mut nodes) = world(traps);
    let mut said = [0; 2];
    let settle = [Step::Push(true, true), Step::Pull(true, 99)];
    let end = (0..16).map(|nth| (nth / 2 % 2, settle[nth % 2].clone()));
    for (node, step) in steps.iter().cloned().chain(end) {
        if let Step::Count(amount) = step {
            said[node] += amount;
        }
        run(&mut relay, &mut nodes, node, &step);
        let it = &nodes[node];
        if it.barrier("a") == Revision(relay.revision) {
            let [truth, shown] = views(&relay, it);
            prop_assert_eq!(truth.0 + said[node] - relay.counted[node], shown.0, "the counter");
            if it.pending().deltas == 0 {
                prop_assert_eq!(truth, shown);
            }
        }
    }
    for it in &nodes {
        let [truth, shown] = views(&relay, it);
        prop_assert_eq!(&truth, &shown);
        prop_assert_eq!(truth.0, said[0] + said[1], "every amount counts once");
        prop_assert_eq!(it.pending(), Pending::default());
    }
    Ok(())
}

/// A node removes what it added itself; the answer to the add may be lost.
fn removes_its_own(traps: Traps, nth: usize, lost: bool) -> Result<(), TestCaseError> {
    let (mut relay, mut nodes) = world(traps);
    let both = Step::Push(true, true);
    for step in
        [Step::Add(nth), Step::Push(true, !lost), Step::Remove(nth), both.clone(), both, Step::Pull(true, 9)]
    {
        run(&mut relay, &mut nodes, 0, &step);
    }
    let [truth, shown] = views(&relay, &nodes[0]);
    prop_assert!(truth.1.is_empty() && shown.1.is_empty());
    Ok(())
}

fn histories() -> impl Strategy<Value = Vec<(usize, Step)>> {
    prop::collection::vec((0..2_usize, step()), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nodes_that_are_caught_up_show_what_the_relay_holds(steps in histories()) {
        converges(Traps::default(), &steps)?;
    }

    #[test]
    fn an_own_removal_removes_whatever_answer_was_lost(nth in 0..4_usize, lost in any::<bool>()) {
        removes_its_own(Traps::default(), nth, lost)?;
    }
}

#[cfg(feature = "traps")]
#[test]
fn the_model_notices_rules_that_are_left_out() {
    let seen = |traps| {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        runner.run(&histories(), |steps| converges(traps, &steps)).is_err()
    };
    assert!(!seen(Traps::default()));
    assert!(seen(Traps::only(Trap::NoSettled)));
    assert!(removes_its_own(Traps::only(Trap::CallContext), 0, true).is_err());
}
