//! Increments that are pushed again and again, to a relay that is killed over and over, count once each.
//!
//! The relay is its own binary on its own log. The nodes say every field by hand, so that they can do what a client
//! does under bad luck: send a push twice at once, late, or after its answer; lose an answer; meet a relay that has
//! just been killed. `DORMOUSE_LONG=1` makes ten million increments of it.

#[path = "processes/caller.rs"]
mod caller;
#[path = "processes/relay.rs"]
mod relay;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    thread,
    time::Duration,
};

use caller::{DELTAS, NODES, Tally, counters, run_node};
use fastrand::Rng;
use relay::{Outcome, RelayProcess};

const SEED: &str = "DORMOUSE_EXACTLY_ONCE_SEED";

/// How much of it there is.
#[derive(Clone, Copy)]
struct Size {
    increments: u64,
    /// Milliseconds between a start of the relay and its next end.
    lives: (u64, u64),
    kills_min: u64,
}

impl Size {
    fn of_this_run() -> Self {
        match std::env::var("DORMOUSE_LONG").as_deref() {
            Ok("1") => Self { increments: 10_000_000, lives: (2_000, 5_000), kills_min: 5 },
            _ => Self { increments: 300_000, lives: (500, 1_500), kills_min: 1 },
        }
    }
}

/// Kills the relay and starts it again until it is told to stop; gives it back, and how often it was killed.
fn kill_over_and_over(
    mut relay: RelayProcess,
    size: Size,
    mut rng: Rng,
    stop: mpsc::Receiver<()>,
) -> Result<(RelayProcess, u64), String> {
    let mut kills = 0;
    loop {
        let life = Duration::from_millis(rng.u64(size.lives.0..size.lives.1));
        // A sender that is gone says the same as a word.
        if !matches!(stop.recv_timeout(life), Err(mpsc::RecvTimeoutError::Timeout)) {
            return Ok((relay, kills));
        }
        relay.kill().map_err(|error| error.to_string())?;
        relay.restart().map_err(|error| error.to_string())?;
        kills += 1;
    }
}

fn report(tally: &Tally, kills: u64, error: u64) {
    let lines = [
        ("increments", &tally.increments),
        ("pushes", &tally.pushes),
        ("duplicates", &tally.duplicates),
        ("repeated_ids", &tally.repeated_ids),
        ("lost_answers", &tally.lost_answers),
        ("failed_calls", &tally.failures),
    ];
    for (name, count) in lines {
        println!("exactly_once_{name} {} count", count.load(Relaxed));
    }
    println!("exactly_once_kills {kills} count");
    println!("exactly_once_error {error} count");
}

#[test]
fn every_increment_counts_once_through_kills_duplicates_and_lost_answers() -> Outcome {
    let seed = std::env::var(SEED).ok().and_then(|it| it.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("replay with {SEED}={seed} cargo test -p dormouse-tests --test exactly_once");
    let size = Size::of_this_run();
    // Small, so that most lives begin with a snapshot and some log behind it.
    let relay = RelayProcess::start(&[("DORMOUSE_SNAPSHOT_EVERY_BYTES", "4194304")])?;
    let url = relay.url();
    let relays: Arc<[String]> = [url].into();
    let tally = Tally::new();
    let (stop, stopped) = mpsc::channel();
    let killer = thread::spawn(move || kill_over_and_over(relay, size, Rng::with_seed(seed), stopped));

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let pushes = size.increments / DELTAS as u64;
    let nodes = (0..NODES).map(|number| {
        let of_this_one = pushes / NODES + u64::from(number < pushes % NODES);
        runtime.spawn(run_node(Arc::clone(&relays), number, seed, of_this_one, Arc::clone(&tally)))
    });
    let nodes: Vec<_> = nodes.collect();
    let ended: Result<Vec<()>, _> = nodes.into_iter().map(|node| runtime.block_on(node)).collect();
    // Whatever became of the nodes, the relay is not left behind.
    drop(stop);
    let (relay, kills) = killer.join().map_err(|_| "the killer panicked")??;
    ended?;

    let (values, _) = runtime.block_on(counters(relay.url(), 0))?;
    let (lost, doubled) = tally.differs(&values);
    let error = lost + doubled;
    report(&tally, kills, error);
    assert_eq!(error, 0, "{values:?}");
    assert_eq!(values.iter().sum::<i64>(), size.increments.cast_signed());
    assert_eq!(relay.metric("dormouse_false_deaths_total")?, 0, "no relay blames a node for its own absence");
    assert!(kills >= size.kills_min, "{kills} kills show little");
    Ok(())
}
