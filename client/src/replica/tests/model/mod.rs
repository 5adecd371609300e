//! Two nodes and a small relay. Requests and answers are lost, the backlog comes in small chunks, dead rows are
//! collected. The whole simulation, with the real fold, is in the workspace's `tests`.

mod relay;

use proptest::prelude::*;
use relay::{Relay, View, truth};

use super::*;

const ELEMENTS: [&str; 4] = ["w", "x", "y", "z"];

#[derive(Clone, Debug)]
enum Step {
    Add(usize),
    Remove(usize),
    Count(i64),
    Write(u64),
    /// An element of the set in which a remove wins: whether it is added.
    Guard(usize, bool),
    /// Both flags.
    Switch(bool),
    /// One value more, or none.
    Beside(Option<u64>),
    Offer(i64),
    /// Whether request and answer arrive.
    Push(bool, bool),
    Pull(bool, usize),
    /// Follows the collection, or gives it up; perhaps while a pull is under way.
    Turn(Option<usize>),
    Collect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4_usize).prop_map(Step::Add),
        3 => (0..4_usize).prop_map(Step::Remove),
        1 => (-3..9_i64).prop_map(Step::Count),
        2 => (0..5_u64).prop_map(Step::Write),
        3 => (0..4_usize, any::<bool>()).prop_map(|(nth, on)| Step::Guard(nth, on)),
        2 => any::<bool>().prop_map(Step::Switch),
        2 => prop::option::weighted(0.8, 0..5_u64).prop_map(Step::Beside),
        1 => (-3..9_i64).prop_map(Step::Offer),
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
        Step::Guard(nth, true) => {
            it.remove_wins_set_add(&path("a/g"), element(ELEMENTS[*nth])).expect("fits");
        }
        Step::Guard(nth, false) => {
            it.remove_wins_set_remove(&path("a/g"), element(ELEMENTS[*nth])).expect("fits");
        }
        Step::Switch(on) => {
            it.flag_set(&path("a/f"), *on).expect("fits");
            it.disable_wins_flag_set(&path("a/d"), *on).expect("fits");
        }
        Step::Beside(value) => {
            let value = value.map(|value| text(&format!("{node}:{value}")));
            it.siblings_set(&path("a/v"), value).expect("fits");
        }
        Step::Offer(number) => it.max_offer(&path("a/m"), *number).expect("fits"),
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
        Step::Turn(None) => turn(it),
        Step::Turn(Some(most)) => {
            let chunk = relay.pull(&it.outgoing().pull, *most);
            turn(it);
            let (push_no, at) = relay.last[node];
            it.absorb_settled(settled(push_no, Some(at)));
            it.absorb_chunk(chunk);
        }
        Step::Collect => relay.collect(),
    }
}

fn turn(node: &mut Replica) {
    if !node.unfollow("a") {
        node.follow("a").expect("a name");
    }
}

/// What a node that was caught up shows of it.
fn shown_by(node: &Replica) -> View {
    let owned = |elements: Option<Vec<&str>>| -> Vec<String> {
        elements.expect("caught up").into_iter().map(str::to_owned).collect()
    };
    let siblings = node.siblings(&path("a/v")).expect("caught up");
    let on = |flag: Option<bool>| flag.expect("caught up");
    View {
        counter: node.counter(&path("a/c")).expect("caught up"),
        set: owned(node.set(&path("a/s"))),
        register: node.register(&path("a/r")).expect("caught up").cloned(),
        guarded: owned(node.remove_wins_set(&path("a/g"))),
        flags: (on(node.flag(&path("a/f"))), on(node.disable_wins_flag(&path("a/d")))),
        siblings: siblings.into_iter().cloned().collect(),
        max: node.max(&path("a/m")).expect("caught up"),
    }
}

fn world(traps: Traps) -> (Relay, [Replica; 2]) {
    let relay = Relay::new();
    (relay, [replica().with_traps(traps), replica().with_traps(traps)])
}

/// Nodes that follow the collection by its name, and another one in which nothing happens.
fn turning_world() -> (Relay, [Replica; 2]) {
    let node = || Replica::new(Follow::new(["a".to_owned(), "b".to_owned()]).expect("names"), 1 << 20);
    (Relay::new(), [node(), node()])
}

/// Runs a history; whenever a node is caught up it must show what the relay holds, and its own counts on top.
fn converges(
    (mut relay, mut nodes): (Relay, [Replica; 2]),
    steps: &[(usize, Step)],
) -> Result<(), TestCaseError> {
    let mut said = [0; 2];
    let settle = [Step::Push(true, true), Step::Pull(true, 99)];
    let end = (0..16).map(|nth| (nth / 2 % 2, settle[nth % 2].clone()));
    for (nth, (node, step)) in steps.iter().cloned().chain(end).enumerate() {
        if nth == steps.len() {
            for node in &mut nodes {
                node.follow("a").expect("a name");
            }
        }
        if let Step::Count(amount) = step {
            said[node] += amount;
        }
        run(&mut relay, &mut nodes, node, &step);
        let it = &nodes[node];
        if it.barrier("a") == Revision(relay.revision) {
            let (truth, shown) = (truth(&relay), shown_by(it));
            prop_assert_eq!(truth.counter + said[node] - relay.counted[node], shown.counter, "the counter");
            if it.pending().deltas == 0 {
                prop_assert_eq!(truth, shown);
            }
        }
    }
    for it in &nodes {
        let (truth, shown) = (truth(&relay), shown_by(it));
        prop_assert_eq!(&truth, &shown);
        prop_assert_eq!(truth.counter, said[0] + said[1], "every amount counts once");
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
    prop_assert!(truth(&relay).set.is_empty() && shown_by(&nodes[0]).set.is_empty());
    Ok(())
}

/// A node says a word and then its opposite, of everything whose last own word is to stand; the answer to the first may
/// be lost.
fn has_its_last_word(traps: Traps, nth: usize, lost: bool) -> Result<(), TestCaseError> {
    let (mut relay, mut nodes) = world(traps);
    let both = Step::Push(true, true);
    let before = [Step::Guard(nth, true), Step::Switch(true), both.clone(), Step::Pull(true, 99)];
    let opposite =
        [Step::Guard(nth, false), Step::Switch(false), Step::Beside(Some(1)), Step::Push(true, !lost)];
    let again = [Step::Guard(nth, true), Step::Switch(true), Step::Beside(Some(2)), both.clone(), both];
    for step in before.into_iter().chain(opposite).chain(again).chain([Step::Pull(true, 99)]) {
        run(&mut relay, &mut nodes, 0, &step);
    }
    for view in [truth(&relay), shown_by(&nodes[0])] {
        prop_assert_eq!((view.guarded.len(), view.flags, view.siblings.len()), (1, (true, true), 1));
    }
    Ok(())
}

fn histories() -> impl Strategy<Value = Vec<(usize, Step)>> {
    prop::collection::vec((0..2_usize, step()), 1..120)
}

fn turning_histories() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let turn = prop::option::of(1..4_usize).prop_map(Step::Turn);
    prop::collection::vec((0..2_usize, prop_oneof![1 => turn, 4 => step()]), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nodes_that_are_caught_up_show_what_the_relay_holds(steps in histories()) {
        converges(world(Traps::default()), &steps)?;
    }

    #[test]
    fn so_do_nodes_that_follow_and_give_up_at_any_time(steps in turning_histories()) {
        converges(turning_world(), &steps)?;
    }

    #[test]
    fn an_own_removal_removes_whatever_answer_was_lost(nth in 0..4_usize, lost in any::<bool>()) {
        removes_its_own(Traps::default(), nth, lost)?;
        has_its_last_word(Traps::default(), nth, lost)?;
    }
}

#[cfg(feature = "traps")]
#[test]
fn the_model_notices_rules_that_are_left_out() {
    let seen = |traps| {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        runner.run(&histories(), |steps| converges(world(traps), &steps)).is_err()
    };
    assert!(!seen(Traps::default()));
    assert!(seen(Traps::only(Trap::NoSettled)));
    assert!(removes_its_own(Traps::only(Trap::CallContext), 0, true).is_err());
    assert!(has_its_last_word(Traps::only(Trap::CallContext), 0, true).is_err());
}
