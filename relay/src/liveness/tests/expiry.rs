//! What silence leads to, and what holds it up.

use std::time::Duration;

use super::*;
use crate::liveness::guard::VirtualClock;

#[test]
fn an_awake_node_that_falls_silent_is_suspect_and_gone_after_its_grace() {
    let world = world();
    assert_eq!(world.due(2_999), []);
    assert_eq!(world.table.next_deadline(), Some(Timestamp(3_000)));
    assert_eq!(world.due(3_000), [suspect(1)]);
    assert_eq!(world.view(3_500).left, Millis(0));
    assert_eq!(world.due(7_999), []);
    assert_eq!(world.due(8_000), [gone(1)]);
    assert!(world.table.ended(Timestamp(0), KEY, FIRST, Ended::Told));
    assert_eq!(world.table.view(KEY, Timestamp(8_000)), None);
    assert_eq!(world.due(1_000_000), []);
}

#[test]
fn an_undeclared_freeze_that_is_allowed_lives_for_its_asleep_lease_as_well() {
    let world = world_with(LeaseSettings {
        undeclared_freeze: UndeclaredFreeze::Allow,
        asleep: Millis::from_secs(600),
        ..LeaseSettings::default()
    });
    world.admit(0, KEY);
    assert_eq!(world.due(3_000), [suspect(1)]);
    assert_eq!(world.due(602_900), []);
    assert_eq!(world.due(603_000), [gone(1)]);
}

#[test]
fn a_sleeper_is_gone_as_soon_as_its_lease_is_over() {
    let world = world();
    world.sleep(1_000, 2);
    assert_eq!(world.due(600_999), []);
    assert_eq!(world.due(601_000), [suspect(2), gone(2)]);
}

#[test]
fn a_declared_sleep_that_the_log_never_told_is_not_taken_for_death() {
    let world = world();
    world.hear(1_000, 2, Activity::Asleep);
    assert_eq!(world.due(4_000), [suspect(1)]);
    assert_eq!(world.due(603_900), []);
    assert_eq!(world.due(604_000), [gone(1)], "and a late sleep in the log makes it void");
}

#[test]
fn a_node_without_a_second_call_is_awake_and_then_asleep() {
    let world = world();
    let once = Activity::Awake { remaining: Some(Millis(10_000)), then_asleep: true };
    assert_eq!(world.hear(1_000, 2, once), granted(3_000, 610_000, LeaseState::Awake));
    world.confirm(1_100, 2, once, 610_000);
    assert_eq!(world.due(10_900), []);
    assert_eq!(world.state(), LeaseState::Awake);
    assert_eq!(world.due(11_000), []);
    assert_eq!(world.state(), LeaseState::Asleep);
    assert_eq!(world.due(610_999), []);
    assert_eq!(world.due(611_000), [suspect(2), gone(2)]);
}

#[test]
fn a_gone_is_proposed_once_and_a_request_waits_for_its_verdict() {
    let world = world();
    world.due(3_000);
    assert_eq!(world.due(8_000), [gone(1)]);
    assert_eq!(world.hear(8_100, 2, AWAKE), Heard::Ending);
    assert_eq!(world.due(9_500), []);
    world.table.gone_rejected(Timestamp(9_500), KEY, FIRST, Beat(1));
    assert_eq!(world.due(10_499), []);
    assert_eq!(world.due(10_500), [gone(1)], "still silent");
    world.table.gone_rejected(Timestamp(10_600), KEY, FIRST, Beat(1));
    assert_eq!(world.hear(10_700, 2, AWAKE), granted(3_000, 3_000, LeaseState::Suspect));
}

#[test]
fn a_gone_without_a_verdict_is_proposed_again() {
    let world = world();
    world.due(3_000);
    assert_eq!(world.due(8_000), [gone(1)]);
    assert_eq!(world.due(37_999), []);
    assert_eq!(world.due(38_000), [gone(1)]);
}

#[test]
fn a_gone_names_the_newest_beat_that_the_log_has_told() {
    let world = world();
    world.hear(1_000, 9, AWAKE);
    world.confirm(1_500, 4, AWAKE, 3_000);
    assert_eq!(world.due(4_000), [suspect(4)]);
    assert_eq!(world.due(9_000), [gone(4)]);
    assert_eq!(world.view(9_000).beat, Beat(9));
}

#[test]
fn a_pause_of_the_relay_kills_nobody() {
    let world = world();
    let clock = VirtualClock::starting(Duration::ZERO, Millis(3_000));
    let at = Duration::from_millis;
    for tick in (0..=2_980).step_by(20) {
        clock.tick(at(tick));
    }
    clock.drained(clock.hold());
    clock.log_read_to_head(clock.hold());
    // A handler is the first to run after an hour of standstill, the ticking thread the second.
    let now = clock.now(at(3_600_000));
    let held = clock.expiry_held(now);
    assert_eq!(held, Some(HoldReason::Paused));
    assert_eq!(world.due_when(now.0, held), [suspect(1)]);
    clock.tick(at(3_600_000));
    let now = clock.now(at(3_600_000));
    assert_eq!(world.due_when(now.0, clock.expiry_held(now)), []);
    // The beat that had waited in the socket is heard now.
    assert!(matches!(world.hear(now.0, 2, AWAKE), Heard::Granted { was: LeaseState::Suspect, .. }));
    assert_eq!(world.table.counts(1), MemberCounts { awake: 1, asleep: 0, suspect: 0 });
}

#[test]
fn nobody_is_gone_while_expiry_is_held_and_all_are_afterwards() {
    let world = world();
    let hold = Some(HoldReason::LogLost);
    assert_eq!(world.due_when(3_000, hold), [suspect(1)]);
    assert_eq!(world.due_when(8_000, hold), []);
    assert_eq!(world.due_when(100_000, hold), []);
    assert_eq!(world.due(101_000), [gone(1)]);
}

#[test]
fn a_restarted_relay_listens_for_one_awake_lease_before_anybody_is_suspect() {
    let world = world_with(LeaseSettings::default());
    let other = LeaseKey { node: NodeId(8), ..KEY };
    let restored = |key, activity, left| Restored {
        key,
        group: world.group.clone(),
        evidence: evidence(4, activity, left),
        holder: HERE,
    };
    world.table.restored(Timestamp(0), [restored(KEY, AWAKE, 0), restored(other, Activity::Asleep, 200_000)]);
    assert_eq!(world.table.counts(1), MemberCounts { awake: 1, asleep: 1, suspect: 0 });
    assert_eq!(world.due(2_999), []);
    assert_eq!(world.due(3_000), [suspect(4)]);
    assert_eq!(world.table.view(other, Timestamp(3_000)).map(|view| view.left), Some(Millis(197_000)));
}
