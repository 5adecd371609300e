use proptest::prelude::*;

use super::*;

const SETTLE: u64 = 2_000;

fn floor(values: &[&str], minimum: u64) -> Floor {
    Floor::new(FloorRule {
        name: "workers".into(),
        values: values.iter().map(ToString::to_string).collect(),
        minimum,
        settle: Millis(SETTLE),
    })
}

fn counts(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    counts.iter().map(|(value, live)| ((*value).to_owned(), *live)).collect()
}

/// Value, live, below.
fn said(events: &[FloorEvent]) -> Vec<(&str, u64, bool)> {
    events.iter().map(|it| (it.value.as_ref(), it.live, it.below)).collect()
}

fn look(floor: &mut Floor, now: u64, live: &[(&str, u64)]) -> Vec<FloorEvent> {
    floor.observe(Timestamp(now), None, &counts(live))
}

#[test]
fn one_event_when_it_falls_below_and_one_when_it_is_back() {
    let mut floor = floor(&[], 2);
    assert_eq!(look(&mut floor, 0, &[("a", 2), ("b", 3)]), []);
    assert_eq!(look(&mut floor, 500, &[("a", 1), ("b", 3)]), []);
    assert_eq!(look(&mut floor, 2_499, &[("a", 1), ("b", 3)]), []);
    let fell = look(&mut floor, 2_500, &[("a", 1), ("b", 3)]);
    let event = FloorEvent { floor: "workers".into(), value: "a".into(), live: 1, minimum: 2, below: true };
    assert_eq!(fell, [event]);
    assert_eq!(look(&mut floor, 60_000, &[("b", 3)]), [], "it is below already");
    assert_eq!(said(&floor.below().collect::<Vec<_>>()), [("a", 0, true)], "with the count of now");
    assert_eq!(look(&mut floor, 60_500, &[("a", 2), ("b", 3)]), []);
    assert_eq!(said(&look(&mut floor, 62_500, &[("a", 4), ("b", 3)])), [("a", 4, false)]);
    assert_eq!(floor.below().count(), 0);
    assert_eq!(said(&floor.told().collect::<Vec<_>>()), [("a", 4, false)]);
}

#[test]
fn a_dip_that_is_shorter_than_the_settling_time_is_no_event() {
    let mut floor = floor(&["a"], 1);
    for round in 0..1_000 {
        let at = round * SETTLE;
        assert_eq!(look(&mut floor, at, &[]), []);
        assert_eq!(look(&mut floor, at + SETTLE - 1, &[("a", 1)]), []);
    }
}

#[test]
fn a_listed_value_counts_zero_without_anybody_and_others_are_not_looked_at() {
    let mut floor = floor(&["a", "b"], 1);
    assert_eq!(look(&mut floor, 0, &[("a", 1), ("c", 0)]), []);
    assert_eq!(said(&look(&mut floor, SETTLE, &[("a", 1), ("c", 0)])), [("b", 0, true)]);
    assert_eq!(floor.live().collect::<Vec<_>>(), [("a", 1), ("b", 0)]);
    assert_eq!(floor.passed_over(), 0);
}

#[test]
fn nothing_is_said_while_expiry_is_held_and_the_time_of_a_hold_does_not_settle_anything() {
    let mut floor = floor(&["a"], 1);
    let held = Some(HoldReason::Started);
    for now in (0..20_000).step_by(500) {
        assert_eq!(floor.observe(Timestamp(now), held, &counts(&[])), []);
    }
    assert_eq!(look(&mut floor, 20_000, &[]), []);
    assert_eq!(floor.observe(Timestamp(21_000), Some(HoldReason::Paused), &counts(&[])), []);
    assert_eq!(look(&mut floor, 22_000, &[]), []);
    assert_eq!(said(&look(&mut floor, 24_000, &[])), [("a", 0, true)]);
    assert_eq!(floor.observe(Timestamp(90_000), held, &counts(&[("a", 1)])), []);
    assert_eq!(floor.live().collect::<Vec<_>>(), [("a", 1)], "counts are shown all the same");
}

#[test]
fn values_above_the_bound_are_passed_over_and_counted() {
    let mut floor = floor(&[], 1);
    let many: BTreeMap<String, u64> =
        (0..FloorRule::VALUES + 7).map(|nth| (format!("{nth:05}"), 0)).collect();
    floor.observe(Timestamp(0), None, &many);
    assert_eq!((floor.live().count(), floor.passed_over()), (FloorRule::VALUES, 7));
    assert_eq!(floor.observe(Timestamp(SETTLE), None, &many).len(), FloorRule::VALUES);
    floor.observe(Timestamp(SETTLE), None, &counts(&[("00001", 1)]));
    assert_eq!((floor.live().count(), floor.passed_over()), (FloorRule::VALUES, 0));
}

/// One look: how much later, the counts of `a` and `b`, and whether expiry is held.
fn looks() -> impl Strategy<Value = Vec<(u64, u64, u64, bool)>> {
    prop::collection::vec((0..1_500_u64, 0..4_u64, 0..4_u64, prop::bool::weighted(0.2)), 1..60)
}

/// Whether `value` has been on that side of the minimum, and expiry not held, in all looks of a whole settling time.
fn settled(seen: &[(u64, [u64; 2], bool)], value: usize, minimum: u64, below: bool) -> bool {
    let now = seen.last().map_or(0, |it| it.0);
    let run = seen.iter().rev().take_while(|(_, live, held)| !held && (live[value] < minimum) == below);
    run.last().is_some_and(|(at, ..)| now - at >= SETTLE)
}

proptest! {
    #[test]
    fn events_alternate_and_each_was_settled(looks in looks(), minimum in 1..4_u64) {
        let mut floor = floor(&["a", "b"], minimum);
        let (mut now, mut seen, mut below) = (0, Vec::new(), [false; 2]);
        for (later, a, b, held) in looks {
            now += later;
            seen.push((now, [a, b], held));
            let hold = held.then_some(HoldReason::Paused);
            let events = floor.observe(Timestamp(now), hold, &counts(&[("a", a), ("b", b)]));
            for (place, name) in ["a", "b"].into_iter().enumerate() {
                let of: Vec<_> = events.iter().filter(|it| it.value.as_ref() == name).collect();
                let due = settled(&seen, place, minimum, !below[place]);
                prop_assert_eq!(of.len(), usize::from(due), "{} at {}", name, now);
                if let Some(event) = of.first() {
                    prop_assert_eq!(event.below, !below[place], "never two equal ones in a row");
                    prop_assert_eq!(event.live, [a, b][place]);
                    prop_assert_eq!(event.below, event.live < minimum);
                    below[place] = event.below;
                }
            }
        }
        let still: Vec<_> = floor.below().map(|it| it.value.to_string()).collect();
        let expected = ["a", "b"].into_iter().zip(below).filter(|it| it.1).map(|it| it.0.to_owned());
        prop_assert_eq!(still, expected.collect::<Vec<_>>());
    }
}
