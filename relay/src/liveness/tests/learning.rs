use super::*;

/// Names are hashes.
fn spread(node: u64) -> NodeId {
    NodeId(node.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// A group of sleepers that wake after as many seconds as `gap` says, for some rounds.
fn taught(settings: LeaseSettings, nodes: u64, rounds: u64, gap: impl Fn(u64, u64) -> u64) -> (World, u64) {
    let world = world_with(settings);
    let mut end = 0;
    for node in 0..nodes {
        let key = LeaseKey { namespace: 1, node: spread(node) };
        let mut now = node * 10;
        world.admit(now, key);
        for round in 0..rounds {
            world.sleep_of(now, key, 2 * round + 2);
            now += gap(node, round) * 1_000;
            world.wake_of(now, key, 2 * round + 3);
        }
        end = end.max(now);
    }
    world.table.refit(Timestamp(end));
    (world, end)
}

impl World {
    fn contact_of(&self, now: u64, key: LeaseKey, beat: u64, activity: Activity) -> Millis {
        let head = Revision(beat);
        let contact = Contact { incarnation: FIRST, beat: Beat(beat), call_id: CallId(beat), activity, head };
        let Heard::Granted { ttl_applied, .. } = self.table.heard(Timestamp(now), key, &contact) else {
            panic!("a contact is newer than the one before");
        };
        let evidence = Evidence { incarnation: FIRST, beat: Beat(beat), activity, ttl: ttl_applied };
        self.table.evidence_applied(Timestamp(now), key, &evidence, HERE);
        ttl_applied
    }

    fn sleep_of(&self, now: u64, key: LeaseKey, beat: u64) -> Millis {
        self.contact_of(now, key, beat, Activity::Asleep)
    }

    fn wake_of(&self, now: u64, key: LeaseKey, beat: u64) {
        self.contact_of(now, key, beat, AWAKE);
    }

    fn learned(&self) -> Learned {
        self.table.learned(1, &self.group).expect("members of the group were seen")
    }
}

#[test]
fn a_group_that_wakes_each_minute_is_granted_little_more_than_that() {
    let (world, end) = taught(LeaseSettings::default(), 20, 40, |node, round| 55 + (node + round) % 10);
    let learned = world.learned();
    assert!((50_000..70_000).contains(&learned.gap_p50.0), "{learned:?}");
    let lease = learned.asleep_lease.expect("eight hundred wakes are enough");
    assert!((80_000..120_000).contains(&lease.0), "{lease:?}");
    let one = world.sleep_of(end + 1, LeaseKey { namespace: 1, node: spread(0) }, 1_000);
    let other = world.sleep_of(end + 1, LeaseKey { namespace: 1, node: spread(19) }, 1_000);
    assert_ne!(one, other, "what falls asleep together must not lapse together");
    for granted in [one, other] {
        assert!((lease.0 * 9 / 10 - 1..=lease.0 * 11 / 10).contains(&granted.0), "{granted:?} of {lease:?}");
    }
}

#[test]
fn the_learned_lease_stays_within_its_bounds() {
    let bounds = LeaseSettings {
        asleep: Millis::from_secs(45),
        asleep_min: Millis::from_secs(40),
        asleep_max: Millis::from_secs(50),
        ..Default::default()
    };
    let (quick, _) = taught(bounds, 10, 60, |_, _| 1);
    assert_eq!(quick.learned().asleep_lease, Some(Millis::from_secs(40)));
    let (slow, _) = taught(bounds, 10, 10, |_, _| 500);
    assert_eq!(slow.learned().asleep_lease, Some(Millis::from_secs(50)));
}

#[test]
fn a_group_that_has_not_been_watched_for_long_is_granted_no_less_for_it() {
    // Most of them wake within a minute, but those that sleep for long are not back yet.
    let settings = LeaseSettings::default();
    let (world, end) = taught(settings, 20, 10, |node, _| if node < 18 { 5 } else { 120 });
    assert!(end < settings.asleep_max.0);
    assert_eq!(world.learned().asleep_lease, Some(settings.asleep));
    let (world, _) = taught(settings, 20, 400, |_, _| 5);
    assert!(world.learned().asleep_lease < Some(Millis::from_secs(60)), "{:?}", world.learned());
}

#[test]
fn gaps_that_are_not_told_apart_any_more_earn_the_longest_lease() {
    let day = Millis::from_secs(86_400);
    let daily = LeaseSettings { asleep: day, asleep_max: day, ..LeaseSettings::default() };
    let (world, _) = taught(daily, 3_000, 2, |_, _| 80_000);
    assert!(world.learned().wakes > 30.0, "{:?}", world.learned());
    assert_eq!(world.learned().asleep_lease, Some(day));
}

#[test]
fn some_wakes_teach_nothing_yet() {
    let (world, end) = taught(LeaseSettings::default(), 2, 5, |_, _| 5);
    assert_eq!(world.learned().asleep_lease, None);
    assert_eq!(world.sleep_of(end + 1, LeaseKey { namespace: 1, node: spread(0) }, 100), Millis(1_800_000));
}

#[test]
fn who_sleeps_longer_than_others_is_less_likely_to_live_and_the_sum_says_how_many_do() {
    let (world, end) =
        taught(LeaseSettings::default(), 50, 10, |node, round| 20 + (node * 7 + round * 3) % 20);
    let key = LeaseKey { namespace: 1, node: spread(0) };
    world.sleep_of(end + 1, key, 1_000);
    let likely = |after: u64| world.table.view(key, Timestamp(end + after)).expect("a member").p_alive;
    assert!(likely(10_000) > 0.99 && likely(300_000) < 0.05, "{} {}", likely(10_000), likely(300_000));
    // Forty-nine are AWAKE since their last wake, and one is late.
    for after in [10_000, 300_000] {
        world.table.refit(Timestamp(end + after));
        let alive = world.table.expected_alive(1);
        assert!((alive - 49.0 - likely(after)).abs() < 0.01, "{alive}");
    }
}

#[test]
fn a_node_that_comes_back_after_it_was_declared_gone_teaches_the_true_gap() {
    let settings = LeaseSettings { asleep: Millis(30_000), ..Default::default() };
    let world = world_with(settings);
    let mut now = 0;
    let (mut incarnation, mut beat) = (1, 1);
    let told = |incarnation, beat, activity, ttl| Evidence {
        incarnation: Incarnation(incarnation),
        beat: Beat(beat),
        activity,
        ttl: Millis(ttl),
    };
    for _ in 0..40 {
        world.table.admitted(Timestamp(now), KEY, &world.group, &told(incarnation, beat, AWAKE, 3_000), HERE);
        beat += 1;
        let contact = Contact {
            incarnation: Incarnation(incarnation),
            beat: Beat(beat),
            call_id: CallId(beat),
            activity: Activity::Asleep,
            head: Revision::ZERO,
        };
        world.table.heard(Timestamp(now), KEY, &contact);
        let asleep = told(incarnation, beat, Activity::Asleep, 30_000);
        world.table.evidence_applied(Timestamp(now), KEY, &asleep, HERE);
        // Silent for 30 s, so GONE; but it comes back after five minutes.
        world.due(now + 30_100);
        assert!(world.table.ended(Timestamp(now + 30_100), KEY, Incarnation(incarnation), Ended::Silent));
        now += 300_000;
        incarnation += 1;
    }
    world.table.admitted(Timestamp(now), KEY, &world.group, &told(incarnation, beat, AWAKE, 3_000), HERE);
    world.table.refit(Timestamp(now));
    let lease = world.learned().asleep_lease.expect("forty wakes are enough");
    assert!((400_000..600_000).contains(&lease.0), "{lease:?}");
    assert!(world.learned().deaths < 0.01, "{:?}", world.learned());
}

#[test]
fn a_lapse_inside_an_invocation_is_as_hopeful_as_those_before_it() {
    let world = world();
    assert!((world.learned().lapses_back - 0.5).abs() < 1e-9, "nothing is known");
    for nth in 0..100 {
        let key = LeaseKey { namespace: 1, node: NodeId(1_000 + nth) };
        let joined = 10_000 * (nth + 1);
        world.admit(joined, key);
        world.due(joined + 3_000);
        world.table.ended(Timestamp(joined + 8_100), key, FIRST, Ended::Silent);
    }
    let now = 2_000_000;
    world.table.refit(Timestamp(now));
    assert_eq!(world.view(now).state, LeaseState::Suspect);
    assert!(world.view(now).p_alive < 0.02, "{:?}", world.view(now));
}

#[test]
fn half_of_the_awake_at_once_are_kept_for_two_leases_and_no_longer() {
    let world = world_with(LeaseSettings { suspect_grace: Millis(0), ..Default::default() });
    let key = |node| LeaseKey { namespace: 1, node: NodeId(node) };
    for node in 0..1_000 {
        world.admit(node % 2 * 1_500, key(node));
    }
    let mut out = Vec::new();
    assert!(world.table.due(Timestamp(3_000), None, |_| true, &mut out), "500 at once");
    assert_eq!(out.len(), 500);
    assert!(world.table.mass_loss_held(Timestamp(3_000)));
    out.clear();
    assert!(!world.table.due(Timestamp(4_400), None, |_| true, &mut out));
    assert_eq!(out, [], "nobody is gone");
    world.table.due(Timestamp(9_100), None, |_| true, &mut out);
    let gone = out.iter().filter(|due| matches!(due, Due::Gone { .. })).count();
    assert!(gone >= 500, "{gone} are gone when the hold is over");
    assert!(!world.table.mass_loss_held(Timestamp(9_100)));
}

#[test]
fn a_late_relay_grants_longer_awake_leases_and_no_longer_ones_to_sleepers() {
    let world = world();
    for _ in 0..100 {
        world.table.looked_late(Millis(500));
    }
    assert_eq!(world.table.percent(), 156);
    assert_eq!(world.hear(10, 2, AWAKE), granted(4_680, 4_680, LeaseState::Awake));
    assert_eq!(world.hear(20, 3, Activity::Asleep), granted(4_680, 600_000, LeaseState::Awake));
    for _ in 0..500 {
        world.table.looked_late(Millis(0));
    }
    assert_eq!(world.hear(30, 4, AWAKE), granted(3_000, 3_000, LeaseState::Asleep));
}
