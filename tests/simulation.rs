//! probe
use dormouse_tests::history::History;

#[test]
fn probe() {
    let n: u64 = std::env::var("N").ok().and_then(|it| it.parse().ok()).unwrap_or(200);
    let start = std::time::Instant::now();
    let mut total = dormouse_tests::world::Stats::default();
    let mut found = std::collections::BTreeMap::<String, Vec<u64>>::new();
    for seed in 0..n {
        let outcome = History::of_seed(seed).run();
        total.add(&outcome.stats);
        if let Some(violation) = outcome.violation {
            let key: String = violation.0.chars().take(60).collect();
            found.entry(key).or_default().push(seed);
        }
    }
    println!("{n} in {:?}: {total:?}", start.elapsed());
    for (key, seeds) in found {
        println!("{key}: {} {:?}", seeds.len(), &seeds[..seeds.len().min(5)]);
    }
}
