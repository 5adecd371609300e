//! What the table does for its own speed and size.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use super::*;

#[test]
fn counts_follow_every_change() {
    let world = world();
    let counts = |awake, asleep, suspect| MemberCounts { awake, asleep, suspect };
    world.admit(0, LeaseKey { node: NodeId(8), ..KEY });
    assert_eq!(world.table.counts(1), counts(2, 0, 0));
    world.sleep(100, 2);
    assert_eq!(world.table.counts(1), counts(1, 1, 0));
    world.due(3_000);
    assert_eq!(world.table.counts(1), counts(0, 1, 1));
    world.hear(4_000, 3, AWAKE);
    assert_eq!(world.table.counts(1), counts(1, 0, 1));
    assert!(world.table.ended(Timestamp(0), KEY, FIRST, Ended::Told));
    assert!(!world.table.ended(Timestamp(0), KEY, FIRST, Ended::Told));
    assert_eq!(world.table.counts(1), counts(0, 0, 1));
    assert_eq!(world.table.counts(2), counts(0, 0, 0));
}

#[test]
fn the_groups_have_what_their_namespace_has() {
    let world = world();
    let counts = |awake, asleep, suspect| MemberCounts { awake, asleep, suspect };
    let shown = || -> Vec<(String, MemberCounts)> {
        let groups = world.table.groups();
        let all = groups.iter().map(|it| it.members.all()).sum::<u64>();
        assert_eq!(world.table.counts(1).all(), all);
        groups.into_iter().map(|it| (it.group.to_string(), it.members)).collect()
    };
    let shop: Group = "shop".parse().expect("a valid name");
    let other = LeaseKey { node: NodeId(8), ..KEY };
    world.table.admitted(Timestamp(5), other, &shop, &evidence(1, AWAKE, 3_000), HERE);
    assert_eq!(shown(), [("ads".to_owned(), counts(1, 0, 0)), ("shop".to_owned(), counts(1, 0, 0))]);
    world.sleep(100, 2);
    world.due(3_100);
    assert_eq!(shown(), [("ads".to_owned(), counts(0, 1, 0)), ("shop".to_owned(), counts(0, 0, 1))]);
    world.table.refit(Timestamp(3_100));
    let sum: f64 = world.table.groups().iter().map(|it| it.expected_alive).sum();
    assert!((sum - world.table.expected_alive(1)).abs() < 1e-9, "{sum}");
    // A new incarnation of a node may run something else.
    let again = Evidence { incarnation: Incarnation(2), ..evidence(1, AWAKE, 3_000) };
    world.table.admitted(Timestamp(4_000), other, &world.group, &again, HERE);
    assert_eq!(shown(), [("ads".to_owned(), counts(1, 1, 0))], "a group without members is not shown");
    assert!(world.table.ended(Timestamp(4_000), KEY, FIRST, Ended::Told));
    assert_eq!(shown(), [("ads".to_owned(), counts(1, 0, 0))]);
}

#[test]
fn a_group_counts_its_false_deaths() {
    let world = world();
    world.admit(0, LeaseKey { node: NodeId(8), ..KEY });
    let told = |table: &LeaseTable| -> Vec<(u64, u64)> {
        table.groups().into_iter().map(|it| (it.expired, it.back)).collect()
    };
    assert!(world.table.ended(Timestamp(9_000), KEY, FIRST, Ended::Silent));
    assert_eq!(told(&world.table), [(1, 0)]);
    world.admit(9_500, KEY);
    assert_eq!(told(&world.table), [(1, 1)]);
    assert!(world.table.ended(Timestamp(9_600), KEY, FIRST, Ended::Told));
    world.admit(9_700, KEY);
    assert_eq!(told(&world.table), [(1, 1)], "it had left by itself");
}

#[test]
fn renewing_does_not_touch_the_wheel() {
    let world = world();
    let (done, renewed) = mpsc::channel();
    let table = Arc::new(world.table);
    let held = table.wheel.lock();
    std::thread::spawn({
        let table = Arc::clone(&table);
        move || {
            for beat in 2..1_000 {
                let contact = Contact {
                    incarnation: FIRST,
                    beat: Beat(beat),
                    call_id: CallId(1),
                    activity: AWAKE,
                    head: Revision::ZERO,
                };
                table.heard(Timestamp(beat), KEY, &contact);
                table.evidence_applied(Timestamp(beat), KEY, &evidence(beat, AWAKE, 3_000), HERE);
            }
            done.send(()).ok();
        }
    });
    assert_eq!(renewed.recv_timeout(Duration::from_secs(10)), Ok(()), "a renewal waited for the wheel");
    drop(held);
    assert_eq!(table.wheel.lock().len(), 1);
}

#[test]
fn a_node_that_wakes_and_sleeps_all_day_does_not_fill_the_wheel() {
    let world = world();
    for cycle in 0..200 {
        let now = cycle * 20_000;
        assert_eq!(world.due(now), []);
        assert!(matches!(world.hear(now, 2 * cycle + 2, AWAKE), Heard::Granted { .. }));
        world.sleep(now + 500, 2 * cycle + 3);
        assert_eq!(world.due(now + 10_000), []);
        assert!(world.table.wheel.lock().len() <= 2, "in cycle {cycle}");
    }
}

#[test]
fn a_place_that_is_out_of_date_is_dropped_when_it_fires() {
    let world = world();
    let left = |millis| Activity::Awake { remaining: Some(Millis(millis)), then_asleep: false };
    world.hear(100, 2, left(1_500));
    world.hear(200, 3, left(100));
    assert_eq!(world.table.wheel.lock().len(), 3, "a lease that became shorter twice");
    world.hear(300, 4, AWAKE);
    assert_eq!(world.due(800), []);
    assert_eq!(world.due(2_100), []);
    assert_eq!(world.table.wheel.lock().len(), 1);
    assert_eq!(world.due(3_299), []);
    assert_eq!(world.due(3_300), [suspect(1)]);
}

#[test]
fn a_hundred_thousand_leases_that_run_out_together_are_all_told_in_one_tick() {
    let world = world_with(LeaseSettings::default());
    for node in 0..100_000 {
        world.admit(0, LeaseKey { namespace: 1, node: NodeId(node) });
    }
    assert_eq!(world.due(3_000).len(), 100_000);
    assert_eq!(world.table.counts(1), MemberCounts { awake: 0, asleep: 0, suspect: 100_000 });
    assert_eq!(world.due(8_000), [], "the network may be to blame, for two awake leases");
    assert_eq!(world.due(9_000).len(), 100_000);
}
