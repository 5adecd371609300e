//! What a contact and its evidence do.

use super::*;

#[test]
fn a_stale_beat_changes_nothing() {
    let world = world();
    assert_eq!(world.hear(1_000, 5, AWAKE), granted(3_000, 3_000, LeaseState::Awake));
    let before = world.view(1_500);
    assert_eq!(world.hear(1_500, 4, Activity::Asleep), Heard::NotNewer { left: Millis(2_500) });
    assert_eq!(world.hear(1_500, 5, AWAKE), Heard::NotNewer { left: Millis(2_500) }, "the same transmission");
    assert_eq!(world.view(1_500), before);
    assert!(world.confirm(1_500, 4, Activity::Asleep, 600_000), "the fold knew less, so for it this counts");
    assert_eq!(world.view(1_500), before, "a sleep that was overtaken promises nothing");
}

#[test]
fn the_same_beat_from_another_call_is_a_clone() {
    let world = world();
    let contact = |call| Contact {
        incarnation: FIRST,
        beat: Beat(2),
        call_id: CallId(call),
        activity: AWAKE,
        head: Revision::ZERO,
    };
    assert!(matches!(world.table.heard(Timestamp(10), KEY, &contact(1)), Heard::Granted { .. }));
    assert!(matches!(world.table.heard(Timestamp(20), KEY, &contact(1)), Heard::NotNewer { .. }));
    assert_eq!(world.table.heard(Timestamp(20), KEY, &contact(2)), Heard::Forked);
    assert_eq!(world.view(20).silent, Millis(10));
}

#[test]
fn a_clone_is_also_found_at_the_beat_that_only_the_log_has_told() {
    let world = world();
    let contact = |call| Contact {
        incarnation: FIRST,
        beat: Beat(1),
        call_id: CallId(call),
        activity: AWAKE,
        head: Revision::ZERO,
    };
    assert!(matches!(world.table.heard(Timestamp(10), KEY, &contact(1)), Heard::NotNewer { .. }));
    assert_eq!(world.table.heard(Timestamp(20), KEY, &contact(2)), Heard::Forked);
}

#[test]
fn another_incarnation_is_not_heard() {
    let world = world();
    let contact = Contact {
        incarnation: Incarnation(2),
        beat: Beat(9),
        call_id: CallId(9),
        activity: AWAKE,
        head: Revision::ZERO,
    };
    assert_eq!(
        world.table.heard(Timestamp(1), KEY, &contact),
        Heard::OtherIncarnation { current: Incarnation(1) }
    );
    let stranger = LeaseKey { namespace: 2, ..KEY };
    assert_eq!(world.table.heard(Timestamp(1), stranger, &contact), Heard::Unknown);
    let late = Evidence { incarnation: Incarnation(2), ..evidence(9, AWAKE, 3_000) };
    assert!(!world.table.evidence_applied(Timestamp(1), KEY, &late, HERE));
    assert!(!world.table.ended(Timestamp(0), KEY, Incarnation(2), Ended::Told));
    assert_eq!(world.view(1).beat, Beat(1));
}

#[test]
fn a_long_lease_is_granted_only_when_its_evidence_is_applied() {
    let world = world();
    assert_eq!(world.hear(1_000, 2, Activity::Asleep), granted(3_000, 600_000, LeaseState::Awake));
    assert_eq!(world.view(1_000).left, Millis(3_000));
    assert_eq!(world.state(), LeaseState::Asleep);
    world.confirm(1_400, 2, Activity::Asleep, 600_000);
    assert_eq!(world.view(1_400).left, Millis(599_600), "counted from the contact");
}

#[test]
fn a_wake_gives_up_the_longer_lease_of_sleep() {
    let world = world();
    world.sleep(1_000, 2);
    assert_eq!(world.due(50_000), []);
    assert_eq!(world.hear(50_000, 3, AWAKE), granted(3_000, 3_000, LeaseState::Asleep));
    assert_eq!(world.state(), LeaseState::Awake);
    assert_eq!(world.due(52_999), []);
    assert_eq!(world.due(53_000), [suspect(2)]);
}

#[test]
fn the_evidence_of_a_sleep_does_not_undo_a_later_wake() {
    let world = world();
    world.hear(1_000, 2, Activity::Asleep);
    world.hear(1_200, 3, AWAKE);
    world.confirm(1_400, 2, Activity::Asleep, 600_000);
    assert_eq!((world.state(), world.view(1_400).left), (LeaseState::Awake, Millis(2_800)));
}

#[test]
fn a_suspect_that_is_heard_lives_on() {
    let world = world();
    assert_eq!(world.due(3_000), [suspect(1)]);
    assert_eq!(world.hear(7_900, 2, AWAKE), granted(3_000, 3_000, LeaseState::Suspect));
    assert_eq!(world.due(10_800), []);
    assert_eq!(world.due(10_900), [suspect(1)]);
}

#[test]
fn newer_evidence_of_another_relay_takes_the_lease_over_at_once() {
    let world = world();
    world.sleep(1_000, 2);
    let woken = evidence(3, AWAKE, 3_000);
    assert!(world.table.evidence_applied(Timestamp(20_000), KEY, &woken, ELSEWHERE));
    let view = world.view(20_000);
    assert_eq!((view.state, view.left, view.holder), (LeaseState::Awake, Millis(3_000), ELSEWHERE));
    assert_eq!(world.due(23_000), [suspect(3)]);
    assert_eq!(world.due(60_000), [], "its end is for the other relay to propose");
    assert!(!world.table.evidence_applied(Timestamp(60_000), KEY, &evidence(2, AWAKE, 3_000), HERE));
}

#[test]
fn newer_evidence_frees_a_node_whose_gone_is_under_way() {
    let world = world();
    world.due(3_000);
    assert_eq!(world.due(8_000), [gone(1)]);
    assert!(world.confirm(8_100, 1, AWAKE, 3_000));
    assert_eq!(world.hear(8_100, 3, AWAKE), Heard::Ending, "a copy of what was known frees nobody");
    assert!(world.table.evidence_applied(Timestamp(8_200), KEY, &evidence(2, AWAKE, 3_000), ELSEWHERE));
    assert_eq!(world.hear(8_300, 3, AWAKE), granted(3_000, 3_000, LeaseState::Awake));
    world.table.gone_rejected(Timestamp(8_400), KEY, FIRST, Beat(1));
    assert_eq!(world.view(8_400).left, Millis(2_900), "its verdict changes nothing any more");
}

#[test]
fn a_readmitted_node_starts_afresh_and_a_copy_of_a_join_does_not() {
    let world = world();
    world.hear(1_000, 5, AWAKE);
    world.admit(2_000, KEY);
    assert_eq!(world.view(2_000).beat, Beat(5));
    world.due(4_000);
    let again = Evidence { incarnation: Incarnation(2), ..evidence(1, AWAKE, 3_000) };
    world.table.admitted(Timestamp(5_000), KEY, &world.group, &again, HERE);
    let view = world.view(5_000);
    assert_eq!((view.incarnation, view.beat, view.left), (Incarnation(2), Beat(1), Millis(3_000)));
    assert_eq!(world.table.counts(1), MemberCounts { awake: 1, asleep: 0, suspect: 0 });
    assert_eq!(world.due(8_000).len(), 1, "and its lease is watched");
}
