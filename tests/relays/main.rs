//! Several relays on one log: what any of them promised, none of them breaks.
//!
//! The project's own leases, company and fold on two to five relays; nodes that call any of them; a log, a network and
//! processes that do whatever such things do. Only the waiting of the shells is told again here. A history follows from
//! its seed.

mod calls;
mod faults;
mod ledger;
mod network;
mod node;
mod relay;
mod trail;
mod world;

use dormouse_proto::traps::Trap;
use world::{Stats, World};

fn play(seed: u64, trap: Option<Trap>, total: &mut Stats) -> Option<String> {
    let mut world = World::new(seed, trap);
    world.run();
    total.add(world.stats);
    world.broken
}

#[test]
fn explore() {
    let n = std::env::var("N").ok().and_then(|it| it.parse().ok()).unwrap_or(100);
    let from = std::env::var("SEED").ok().and_then(|it| it.parse().ok()).unwrap_or(0);
    let trap = match std::env::var("TRAP").as_deref() {
        Ok("a") => Some(Trap::Boastful),
        Ok("b") => Some(Trap::Unasked),
        Ok("c") => Some(Trap::Doubtless),
        Ok("d") => Some(Trap::HastyTakeover),
        Ok("d2") => Some(Trap::EagerTakeover),
        Ok("e") => Some(Trap::HeaderTells),
        Ok("f") => Some(Trap::BoldNewcomer),
        _ => None,
    };
    let mut total = Stats::default();
    let (mut bad, mut shown) = (0, 0);
    for seed in from..from + n {
        if let Some(what) = play(seed, trap, &mut total) {
            bad += 1;
            if shown < 4 {
                shown += 1;
                println!("seed {seed}: {what}");
            } else if bad < 30 {
                println!("seed {seed}: {}", what.lines().last().unwrap_or_default());
            }
        }
    }
    total.delays.sort_unstable();
    let d = std::mem::take(&mut total.delays);
    let p = |q: usize| d.get(d.len() * q / 100).copied().unwrap_or_default();
    println!("{n} seeds, {bad} bad, {total:?} p50 {} p90 {} p99 {}", p(50), p(90), p(99));
}
