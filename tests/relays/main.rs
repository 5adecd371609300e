//! Several relays on one log: what any of them promised, none of them breaks.
//!
//! The project's own leases, company and fold on two to five relays; nodes that call any of them; a log, a network and
//! processes that do whatever such things do. Only the waiting of the shells is told again here. A history follows from
//! its seed, so a finding is a number. Replay one with
//! `DORMOUSE_SEED=n cargo test -p dormouse-tests --test relays what_one_relay -- --nocapture`.

mod calls;
mod faults;
mod keeper;
mod ledger;
mod network;
mod node;
mod reader;
mod relay;
mod stats;
mod trail;
mod world;

use dormouse_proto::traps::Trap;
use faults::Faults;
use stats::Stats;
use world::World;

/// How many histories are run. A debug build is much slower and runs fewer; `DORMOUSE_HISTORIES` asks for more.
const HISTORIES: u64 = if cfg!(debug_assertions) { 100 } else { 5_000 };

/// Seeds that ever showed a defect. They stay.
const OLD_SEEDS: [u64; 10] = [1_323, 1_815, 4_927, 5_855, 6_552, 8_153, 15_576, 17_135, 42_197, 48_310];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Plays a history. Answers what went wrong.
fn play(
    seed: u64,
    trap: Option<Trap>,
    change: impl FnOnce(Faults) -> Faults,
    total: &mut Stats,
) -> Option<String> {
    let mut world = World::new(seed, trap, change);
    world.run();
    total.add(world.stats);
    world.broken
}

#[test]
fn what_one_relay_promises_no_other_breaks_and_whoever_is_dead_is_gone() {
    let mut total = Stats::default();
    let histories = HISTORIES.max(number("DORMOUSE_HISTORIES").unwrap_or(0));
    let replay = number("DORMOUSE_SEED");
    let seeds = replay.map_or(0..histories, |seed| seed..seed + 1);
    for seed in OLD_SEEDS.into_iter().filter(|_| replay.is_none()).chain(seeds) {
        if let Some(broken) = play(seed, None, |faults| faults, &mut total) {
            panic!(
                "seed {seed}: {broken}\nagain with: DORMOUSE_SEED={seed} cargo test -p dormouse-tests --test relays \
                 what_one_relay"
            );
        }
    }
    println!("{total}");
    let enough = total.gone > total.histories * 10 && total.marks > total.gone && total.void > 0;
    assert!(replay.is_some() || enough, "nothing was tested: {total}");
}

#[test]
fn a_node_that_died_asleep_is_gone_within_half_a_second_of_its_lease_if_nothing_goes_wrong() {
    let mut total = Stats::default();
    for seed in 0..HISTORIES / 10 {
        assert_eq!(play(seed, None, Faults::none, &mut total), None, "seed {seed}");
    }
    println!("{total}");
    assert!(total.delay(50) < 500, "{total}");
}

/// Leaves one rule out and asserts that some of the first seeds goes wrong for it, and not without.
fn assert_noticed(trap: Trap, within: u64) {
    let mut total = Stats::default();
    let mut broken = |left_out, seed| play(seed, left_out, |faults| faults.for_trap(trap), &mut total);
    let first = (0..within).find_map(|seed| Some((seed, broken(Some(trap), seed)?)));
    let Some((seed, found)) = first else { panic!("{trap:?} was not noticed in {within} histories") };
    println!("{trap:?}: seed {seed}: {}", found.lines().last().unwrap_or_default());
    assert!(found.contains("was GONE at"), "{found}");
    assert_eq!(broken(None, seed), None, "seed {seed} with every rule in force");
}

macro_rules! every_rule_is_needed {
    ($($test:ident: $trap:ident within $within:literal;)*) => {
        $(#[test]
        fn $test() {
            assert_noticed(Trap::$trap, $within);
        })*
    };
}

// Of 1,000 histories went wrong: Boastful 310, Unasked 538, Doubtless 219, HastyTakeover 295, HeaderTells 50,
// ToldWhenSent 34, Forgetful 4.
every_rule_is_needed! {
    a_relay_that_is_not_heard_must_not_promise: Boastful within 100;
    the_others_must_be_asked_before_an_end: Unasked within 100;
    a_node_that_is_asked_about_must_not_be_promised_anything: Doubtless within 100;
    a_relay_must_be_silent_for_long_before_it_is_taken_for_gone: HastyTakeover within 100;
    how_far_a_relay_has_told_must_be_what_it_says: HeaderTells within 1000;
    a_contact_must_be_told_until_a_digest_has_come_back: ToldWhenSent within 1000;
    a_relay_that_starts_must_know_that_there_were_questions: Forgetful within 1000;
}
