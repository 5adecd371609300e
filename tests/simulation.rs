//! The model check: random histories of a whole world, compared with a reference that forgets nothing.
//!
//! A history follows from its seed, so a finding is a number. Replay one with
//! `DORMOUSE_SEED=n cargo test -p dormouse-tests --release --test simulation replay -- --nocapture`.

use std::{panic::catch_unwind, time::Instant};

use dormouse_proto::{lattice::Type, traps::Trap};
use dormouse_tests::{
    faults::{Faults, Types},
    history::{History, Outcome, old_seeds},
    world::Stats,
};

/// A third of the time would be spent in the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many random histories are run. A debug build is much slower and runs fewer; `DORMOUSE_HISTORIES` asks for more.
const HISTORIES: u64 = if cfg!(debug_assertions) { 500 } else { 20_000 };

/// Tells a finding in full and gives up.
fn tell(history: History, outcome: &Outcome) -> ! {
    let seed = history.seed;
    let trace = catch_unwind(|| history.tell().trace).unwrap_or_default();
    let found = outcome.violation.as_ref().map_or("nothing", |violation| violation.0.as_str());
    panic!("{trace}\nseed {seed}, {:?}: {found}\n{}", history.faults, history.command());
}

fn run_clean(seed: u64, total: &mut Stats) {
    let history = History::of_seed(seed);
    let outcome = history.run_caught();
    if outcome.violation.is_some() {
        tell(history, &outcome);
    }
    total.add(&outcome.stats);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long it takes is printed and decides nothing")]
fn at_least_20000_histories_of_nodes_relays_and_a_log_break_no_invariant() {
    let (started, mut total) = (Instant::now(), Stats::default());
    let old = old_seeds();
    for seed in &old {
        run_clean(*seed, &mut total);
    }
    let more = std::env::var("DORMOUSE_HISTORIES").ok().and_then(|it| it.parse().ok());
    let histories = HISTORIES.max(more.unwrap_or(0));
    for seed in 0..histories {
        run_clean(seed, &mut total);
    }
    if cfg!(debug_assertions) {
        println!("a debug build runs {HISTORIES} histories, a release build 20000");
    }
    println!(
        "{} old seeds and {histories} histories, seeds 0..{histories}, {} pushes, {} rows, {} chunks, {} barriers, \
         {} messages, 0 divergences, {} rows sent per distinct foreign row changed, {:.0} s",
        old.len(),
        total.pushes,
        total.rows,
        total.chunks,
        total.barriers,
        total.letters,
        total.quiet_sent as f64 / total.quiet_changed.max(1) as f64,
        started.elapsed().as_secs_f64()
    );
    println!("{total:#?}");
    assert!(total.lost > 0 && total.compacted > 0 && total.refused > 0, "the faults have happened");
    assert!(total.readmitted > 0 && total.forked > 0 && total.forgotten > 0, "the faults have happened");
    assert!(total.healed > 0 && total.voided > 0, "tails were given back, and some too late");
    assert!(total.letters > 0 && total.reads > 0 && total.quiet_changed > 0, "all of it has happened");
    assert!(total.restored > 0 && total.behind > 0 && total.at_risk > 0, "the faults have happened");
}

#[test]
fn one_seed_run_twice_gives_the_same_trace() {
    for seed in [1, 2, 63, 127] {
        let (first, second) = (History::of_seed(seed).tell(), History::of_seed(seed).tell());
        assert!(first.trace.len() > 1_000, "there is something to compare");
        assert_eq!(first.trace, second.trace);
        assert_eq!(first.stats, second.stats);
    }
}

#[test]
fn replay() {
    let Ok(seed) = std::env::var("DORMOUSE_SEED") else {
        println!("set DORMOUSE_SEED to see a history");
        return;
    };
    let history = History::of_seed(seed.parse().expect("DORMOUSE_SEED is a number"));
    let outcome = history.run_caught();
    if outcome.violation.is_some() {
        tell(history, &outcome);
    }
    println!("{}\nseed {seed}, {:?}: clean\n{:#?}", history.tell().trace, history.faults, outcome.stats);
}

/// Leaves one rule out and asserts that some of the first seeds goes wrong for it, and not without.
fn assert_noticed(trap: Trap, types: Types, within: u64) {
    let faults = Faults { types, ..Faults::for_trap(trap) };
    let violated = |trap: Option<Trap>, seed: u64| History { seed, faults, trap }.run_caught().violation;
    let first = (0..within).find_map(|seed| Some((seed, violated(Some(trap), seed)?)));
    let Some((seed, found)) = first else {
        panic!("{trap:?} was not noticed in {within} histories with {faults:?}");
    };
    println!("{trap:?}: seed {seed}: {}", found.0);
    for clean in 0..=seed {
        let found = violated(None, clean);
        assert_eq!(found, None, "seed {clean} with {faults:?} and every rule in force");
    }
}

macro_rules! every_rule_is_needed {
    ($($(#[$doc:meta])* $test:ident: $trap:ident within $within:literal;)*) => {
        $($(#[$doc])* #[test]
        fn $test() {
            assert_noticed(Trap::$trap, Types::default(), $within);
        })*
    };
}

// The bounds are twenty times the mean distance between seeds that notice, or more. Of 1,000 histories went wrong:
// GcBlind 88, CallContext 446, BootSkip 453, CursorSettle 47, RedundantByValue 33, NoSettled 100, Resend 504,
// VoidFree 5, NoClone 344, NoOpen 602, NoHead 73, FrameCounter 967, SnapshotBlind 286.
every_rule_is_needed! {
    a_token_must_be_checked_against_the_highest_revision_shown: NoHead within 300;
    dropped_dead_rows_must_leave_marks: GcBlind within 300;
    a_context_must_wait_for_the_own_push_under_way: CallContext within 100;
    rows_that_died_after_the_start_of_a_bootstrap_must_be_sent: BootSkip within 100;
    a_cursor_beyond_a_push_must_not_settle_it: CursorSettle within 500;
    a_counters_total_must_move_its_row: RedundantByValue within 600;
    a_chunk_must_say_which_push_is_settled: NoSettled within 200;
    a_node_that_comes_back_must_keep_its_memory: Resend within 100;
    a_refused_push_must_use_up_its_number: VoidFree within 4000;
    a_push_must_be_known_by_its_id: NoClone within 100;
    an_open_must_jump: NoOpen within 100;
    frames_must_not_be_deduplicated: FrameCounter within 50;
    a_snapshot_must_be_compared_with_the_log: SnapshotBlind within 100;
    a_reseed_must_undo_nothing: LateReseed within 1000;
    rows_of_a_lost_tail_must_have_numbers_that_are_valid: NoRestamp within 1000;
}

macro_rules! rules_are_needed_by_a_type {
    ($($(#[$doc:meta])* $test:ident: $trap:ident by $kind:ident within $within:literal;)*) => {
        $($(#[$doc])* #[test]
        fn $test() {
            assert_noticed(Trap::$trap, [Type::$kind].into_iter().collect(), $within);
        })*
    };
}

// Histories of one type alone. Of 1,000 went wrong: GcBlind 880 and 778, CallContext 598, 667, 596 and 862, BootSkip 161.
rules_are_needed_by_a_type! {
    a_dropped_remove_must_leave_a_mark: GcBlind by RemoveWinsSet within 300;
    a_dropped_off_must_leave_a_mark: GcBlind by DisableWinsFlag within 300;
    an_add_to_a_remove_wins_set_must_wait_for_the_own_push_under_way: CallContext by RemoveWinsSet within 100;
    an_on_of_a_disable_wins_flag_must_wait_for_the_own_push_under_way: CallContext by DisableWinsFlag within 100;
    an_off_must_wait_for_the_own_push_under_way: CallContext by Flag within 100;
    siblings_must_wait_for_the_own_push_under_way: CallContext by Siblings within 100;
    presence_that_ended_after_the_start_of_a_bootstrap_must_be_told: BootSkip by Presence within 100;
}
