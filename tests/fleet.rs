//! What the simulated fleet shows, at a size that a test can afford: counts and ratios, never how long it takes.
//!
//! `cargo run --release -p dormouse-tests --bin fleet` prints the figures of the full size.

use dormouse_relay::liveness::LeaseSettings;
use dormouse_tests::fleet::{
    best_ttl::{Equal, FleetGaps},
    detector::{Dormouse, FixedTtl, Phi, ScaledTtl, Swim},
    figures::{SHORT_TTL_MS, Scale, awake_death, declared_sleep, patient_leases, quantile_s},
    schedules::{Defect, Stats, schedule, search},
    trial::{self, Outcome, Window, mean},
    workload::Workload,
};

type Tested = Result<(), Box<dyn std::error::Error>>;

const SCALE: Scale = Scale { nodes: 1_000, seed: 7 };

#[test]
fn a_declared_sleep_kills_nobody_and_a_short_lease_kills_many() -> Tested {
    let cycles = 10_000;
    // A lease that is set, and learned ones: from the first minute on, and once an hour has taught them.
    for (leases, warm_up) in
        [(patient_leases(), 0), (LeaseSettings::default(), 0), (LeaseSettings::default(), 60)]
    {
        let mut dormouse = Dormouse::new(leases, 1)?;
        let outcome = declared_sleep(SCALE, cycles, warm_up, &mut dormouse);
        assert!(outcome.total().freezes >= 10_000, "{:?}", outcome.total());
        assert_eq!((outcome.total().false_deaths, dormouse.unexpected()), (0, 0));
    }
    // Half of all gaps between 1 s and 15 min, uniformly in the logarithm, are above 30 s.
    let fixed = declared_sleep(SCALE, cycles, 0, &mut FixedTtl::new(SHORT_TTL_MS)).total();
    assert!((4_800..=5_200).contains(&fixed.false_deaths), "{fixed:?}");
    for total in [
        declared_sleep(SCALE, cycles, 0, &mut Phi::new(8.0)).total(),
        declared_sleep(SCALE, cycles, 0, &mut Swim::new(7)).total(),
        declared_sleep(SCALE, cycles, 0, &mut ScaledTtl::new(7)).total(),
    ] {
        assert!(total.false_deaths > 4_000, "{total:?}");
    }
    Ok(())
}

#[test]
fn a_death_awake_is_found_as_fast_in_a_large_fleet_as_in_a_small_one() -> Tested {
    let outcome = |nodes| -> Result<Outcome, Box<dyn std::error::Error>> {
        let mut dormouse = Dormouse::new(LeaseSettings::default(), 1)?;
        let outcome = awake_death(Scale { nodes, ..SCALE }, &mut dormouse, 20_000);
        assert_eq!((outcome.total().false_deaths, dormouse.unexpected()), (0, 0));
        assert_eq!(outcome.gone_after_ms.len() as u64, outcome.died_awake, "each is found");
        Ok(outcome)
    };
    let (small, large) = (outcome(300)?, outcome(3_000)?);
    for share in [0.5, 0.99] {
        let suspected = [&small, &large].map(|it| quantile_s(&it.suspected_after_ms, share).expect("deaths"));
        let gone = [&small, &large].map(|it| quantile_s(&it.gone_after_ms, share).expect("deaths"));
        for [few, many] in [suspected, gone] {
            assert!((few / many - 1.0).abs() < 0.1, "{few} s of 300 nodes, {many} s of 3,000");
        }
        // A lease of 3 s, the last beat up to 1 s before the death, and one look each 100 ms; then 5 s of grace.
        assert!(suspected.iter().all(|it| (2.0..=3.2).contains(it)), "{suspected:?}");
        assert!(gone.iter().all(|it| (7.0..=8.4).contains(it)), "{gone:?}");
    }
    Ok(())
}

#[test]
fn ghosts_and_false_deaths_are_those_of_the_lease() -> Tested {
    let (workload, window) = (Workload::w(SCALE.nodes), Window::minutes(60, 60));
    let mut dormouse = Dormouse::new(LeaseSettings::default(), 1)?;
    let outcome = trial::run(workload.fleet(SCALE.seed), &mut dormouse, window);
    assert_eq!(dormouse.unexpected(), 0);
    assert!(outcome.total().freezes > 40_000, "{:?}", outcome.total());
    assert!(outcome.ghost_ratio() < 0.05, "{}", outcome.ghost_ratio());
    assert!(outcome.false_deaths_per_freeze() < 0.005, "{}", outcome.false_deaths_per_freeze());
    assert!(outcome.calibration_error() < 0.03, "{:?}", outcome.tenths);
    let error = mean(&outcome.errors_of_members).ok_or("nobody is counted")?;
    assert!(error < 0.02, "{error}");
    // A fixed ttl that is as patient is found, and does what the gaps said of it.
    let gaps = FleetGaps::of(&workload, SCALE.seed, window);
    let ttl_ms = gaps.best_ttl_ms(outcome.false_deaths_per_freeze(), Equal::PerFreeze);
    let fixed = trial::run(workload.fleet(SCALE.seed), &mut FixedTtl::new(ttl_ms), window);
    let (ours, its) = (outcome.false_deaths_per_freeze(), fixed.false_deaths_per_freeze());
    assert!((ours / its - 1.0).abs() < 0.25, "{ours} and {its}");
    let short = trial::run(workload.fleet(SCALE.seed), &mut FixedTtl::new(SHORT_TTL_MS), window);
    assert!(short.false_deaths_per_freeze() > 0.45 && short.ghost_ratio() < outcome.ghost_ratio());
    Ok(())
}

#[test]
fn one_seed_is_one_fleet() {
    let first: Vec<_> = Workload::mix(100).fleet(3).take(10_000).collect();
    assert!(first.is_sorted_by_key(|happening| happening.at_ms));
    assert_eq!(first, Workload::mix(100).fleet(3).take(10_000).collect::<Vec<_>>());
    assert_ne!(first, Workload::mix(100).fleet(4).take(10_000).collect::<Vec<_>>());
}

#[test]
fn twenty_thousand_schedules_break_no_law_of_the_lease_table() {
    let found = search(0, 20_000, 2);
    assert_eq!(found.findings, []);
    let Stats { schedules, steps, granted, not_newer, forked, other_incarnation, .. } = found.stats;
    assert_eq!(schedules, 20_000);
    assert!(steps > 400_000 && granted > 40_000, "the contacts have happened: {:?}", found.stats);
    let least = [not_newer, forked, other_incarnation];
    assert!(least.iter().all(|count| *count > 4_000), "the contacts have happened: {:?}", found.stats);
    let Stats { evidence, evidence_refused, proposed, ended, rejected, restarts, held, .. } = found.stats;
    let least = [evidence, evidence_refused, proposed, ended, rejected, restarts, held];
    assert!(least.iter().all(|count| *count > 500), "the rest has happened: {:?}", found.stats);
}

#[test]
fn a_table_with_a_defect_is_found_by_the_schedules() {
    for defect in [Defect::Hasty, Defect::HoldForgotten, Defect::IncarnationIgnored] {
        let first = (0..2_000).find(|seed| schedule(*seed, defect, &mut Stats::default()).is_err());
        let seed = first.unwrap_or_else(|| panic!("{defect:?} goes unnoticed"));
        assert_eq!(schedule(seed, Defect::Sound, &mut Stats::default()), Ok(()), "{defect:?}");
    }
}
