//! probe
use dormouse_tests::{history::History, faults::Faults};
use dormouse_proto::traps::Trap;

fn report(n: u64, make: impl Fn(u64) -> History) {
    let start = std::time::Instant::now();
    let mut total = dormouse_tests::world::Stats::default();
    let mut found = std::collections::BTreeMap::<String, Vec<u64>>::new();
    for seed in 0..n {
        let history = make(seed);
        let outcome = history.run();
        total.add(&outcome.stats);
        if let Some(violation) = outcome.violation {
            let mut key: String = violation.0.chars().filter(|c| !c.is_ascii_digit()).take(150).collect();
            key += if history.faults.regress { " REGRESS" } else { "" };
            found.entry(key).or_default().push(seed);
        }
    }
    let all: usize = found.values().map(Vec::len).sum();
    println!("{n} in {:?}, {all} violating: {total:?}", start.elapsed());
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(|it| std::cmp::Reverse(it.1.len()));
    for (key, seeds) in found.into_iter().take(6) {
        println!("   {key}: {} {:?}", seeds.len(), &seeds[..seeds.len().min(5)]);
    }
}

#[test]
fn probe() {
    if let Ok(seed) = std::env::var("SEED") {
        let outcome = History::of_seed(seed.parse().unwrap()).tell();
        println!("{}", outcome.trace);
        return;
    }
    let n: u64 = std::env::var("N").ok().and_then(|it| it.parse().ok()).unwrap_or(200);
    report(n, History::of_seed);
    for trap in [Trap::NoHead, Trap::GcBlind, Trap::CallContext, Trap::BootSkip, Trap::CursorSettle, Trap::RedundantByValue, Trap::NoSettled, Trap::Resend, Trap::VoidFree, Trap::NoClone, Trap::NoOpen, Trap::FrameCounter, Trap::SnapshotBlind] {
        println!("{trap:?}");
        std::panic::set_hook(Box::new(|_| {}));
        report(1000, |seed| History { seed, faults: Faults::for_trap(trap), trap: Some(trap) });
    }
}
