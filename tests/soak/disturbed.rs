//! The soak: nodes that push, and somebody who disturbs everything that can be disturbed.
#![expect(clippy::disallowed_methods, reason = "real processes are waited for in real time")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    caller::{NODES, Tally, counters, run_node},
    relay::{Outcome, PATIENCE, RelayProcess},
    road::Road,
};

const KILLS: &str = "DORMOUSE_SOAK_KILLS";
pub(crate) const SEED: &str = "DORMOUSE_SOAK_SEED";

/// A broker that can be ended in two ways.
pub(crate) trait Broker: Send + 'static {
    /// In the names of figures.
    const NAME: &'static str;

    fn port(&self) -> u16;
    /// What `DORMOUSE_BROKER` is to say to a relay that reaches it at this port.
    fn url_at(port: u16) -> String;
    /// SIGKILL.
    fn kill(&mut self);
    /// SIGTERM, and waits for its end.
    fn stop(&mut self);
    /// Starts it again where it was; returns when it accepts connections.
    fn run(&mut self);
}

/// What is to be done.
pub(crate) struct Soak<B> {
    pub(crate) broker: B,
    pub(crate) relays: usize,
    /// How often the broker is ended.
    pub(crate) kills: u32,
}

/// What came of it.
pub(crate) struct Told {
    /// For each end of the broker: from when it accepts connections to the next acknowledged push.
    pub(crate) back_after: Vec<Duration>,
}

#[derive(Default)]
struct Disturbed {
    back_after: Vec<Duration>,
    relays_killed: u32,
    relays_frozen: u32,
    relays_cut_off: u32,
}

/// A relay and its way to the broker.
struct Station {
    relay: RelayProcess,
    road: Road,
}

/// Whatever becomes of the one who disturbs, the nodes come to an end.
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

impl Soak<()> {
    /// As many as a build may take, a hundred, or as many as are asked for.
    pub(crate) fn kills_of_this_run(few: u32) -> u32 {
        let asked = std::env::var(KILLS).ok().and_then(|it| it.parse().ok());
        asked.unwrap_or(if Self::is_long() { 100 } else { few })
    }

    pub(crate) fn is_long() -> bool {
        std::env::var("DORMOUSE_LONG").as_deref() == Ok("1")
    }
}

/// The one that was asked for, or a new one.
pub(crate) fn seed() -> u64 {
    std::env::var(SEED).ok().and_then(|it| it.parse().ok()).unwrap_or_else(|| fastrand::u64(..))
}

impl<B: Broker> Soak<B> {
    pub(crate) fn run(mut self) -> Outcome<Told> {
        let seed = seed();
        println!("replay with {SEED}={seed} cargo test -p dormouse-tests --test soak {}", B::NAME);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let mut stations: Vec<_> =
            (0..self.relays).map(|_| self.station(&runtime)).collect::<Outcome<Vec<_>>>()?;
        let urls: Arc<[String]> = stations.iter().map(|it| it.relay.url()).collect();
        let (tally, over) = (Tally::new(), Arc::new(AtomicBool::new(false)));
        let disturber = {
            let (tally, over, rng) = (Arc::clone(&tally), Arc::clone(&over), Rng::with_seed(seed));
            thread::spawn(move || {
                let _over = Over(over);
                let disturbed = disturb(&mut self, &mut stations, rng, &tally);
                // All are still there for what is under way.
                (self, stations, disturbed)
            })
        };
        // A push at a time each, until the last disturbance is over.
        let nodes: Vec<_> = (0..NODES)
            .map(|number| {
                let (urls, tally, over) = (Arc::clone(&urls), Arc::clone(&tally), Arc::clone(&over));
                runtime.spawn(async move {
                    let mut round = 0;
                    while !over.load(Relaxed) {
                        let seed = seed ^ (round << 32);
                        let rounds = run_node(Arc::clone(&urls), number, seed, 8, Arc::clone(&tally));
                        Box::pin(rounds).await;
                        round += 1;
                    }
                })
            })
            .collect();
        let ended: Result<Vec<()>, _> = nodes.into_iter().map(|node| runtime.block_on(node)).collect();
        let (_broker, stations, disturbed) = disturber.join().map_err(|_| "the disturber panicked")?;
        let disturbed = disturbed?;
        ended?;
        let shown = stations.iter().map(|it| shown(&runtime, &it.relay)).collect::<Outcome<Vec<_>>>()?;
        report::<B>(&tally, &disturbed, &shown);
        for Station { relay, .. } in &stations {
            assert_eq!(
                relay.metric("dormouse_false_deaths_total")?,
                0,
                "nobody who called is taken for dead"
            );
        }
        Ok(Told { back_after: disturbed.back_after })
    }

    fn station(&self, runtime: &tokio::runtime::Runtime) -> Outcome<Station> {
        let road = runtime.block_on(Road::to(self.broker.port()))?;
        let url = B::url_at(road.port);
        let env = [("DORMOUSE_BROKER", url.as_str()), ("DORMOUSE_SNAPSHOT_EVERY_BYTES", "4194304")];
        Ok(Station { relay: RelayProcess::start(&env)?, road })
    }
}

/// What a relay shows when it has all that any has.
fn shown(runtime: &tokio::runtime::Runtime, relay: &RelayProcess) -> Outcome<Vec<i64>> {
    let began = Instant::now();
    loop {
        match runtime.block_on(counters(relay.url(), 0)) {
            Ok((values, _)) if began.elapsed() > Duration::from_secs(2) => return Ok(values),
            Err(error) if began.elapsed() > PATIENCE => return Err(error),
            _ => thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Ends the broker so often, and now and then kills or freezes a relay, or cuts it off from the broker.
fn disturb<B: Broker>(
    soak: &mut Soak<B>,
    stations: &mut [Station],
    mut rng: Rng,
    tally: &Tally,
) -> Result<Disturbed, String> {
    let mut disturbed = Disturbed::default();
    for nth in 0..soak.kills {
        thread::sleep(Duration::from_millis(rng.u64(200..700)));
        let victim = rng.usize(..stations.len());
        let Station { relay, road } = &mut stations[victim];
        match rng.u32(..5) {
            0 => {
                relay.kill().map_err(|error| error.to_string())?;
                relay.restart().map_err(|error| error.to_string())?;
                disturbed.relays_killed += 1;
            }
            1 => {
                freeze(relay, Duration::from_millis(rng.u64(300..4_000)))?;
                disturbed.relays_frozen += 1;
            }
            2 => {
                road.cut();
                // Sometimes for so long that the others take it for gone, and itself finds its connection dead.
                thread::sleep(Duration::from_millis(rng.u64(300..9_000)));
                road.mend();
                disturbed.relays_cut_off += 1;
            }
            _ => {}
        }
        if nth % 2 == 0 {
            soak.broker.kill();
        } else {
            soak.broker.stop();
        }
        thread::sleep(Duration::from_millis(rng.u64(0..300)));
        soak.broker.run();
        disturbed.back_after.push(back_after(tally)?);
    }
    Ok(disturbed)
}

fn freeze(relay: &RelayProcess, length: Duration) -> Result<(), String> {
    let pid = relay.pid().and_then(|pid| Pid::from_raw(pid.cast_signed())).ok_or("it runs")?;
    kill_process(pid, Signal::STOP).map_err(|error| error.to_string())?;
    thread::sleep(length);
    kill_process(pid, Signal::CONT).map_err(|error| error.to_string())
}

/// How long until the next push is acknowledged.
fn back_after(tally: &Tally) -> Result<Duration, String> {
    let (began, before) = (Instant::now(), tally.pushes.load(Relaxed));
    while tally.pushes.load(Relaxed) == before {
        if began.elapsed() > 2 * PATIENCE {
            return Err("nothing is acknowledged any more".to_owned());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(began.elapsed())
}

fn report<B: Broker>(tally: &Tally, disturbed: &Disturbed, shown: &[Vec<i64>]) {
    let mut back_after = disturbed.back_after.clone();
    back_after.sort_unstable();
    let middle = back_after.get(back_after.len() / 2).copied().unwrap_or_default();
    let longest = back_after.last().copied().unwrap_or_default();
    println!("soak_{}_broker_kills {} count", B::NAME, disturbed.back_after.len());
    println!("soak_{}_relay_kills {} count", B::NAME, disturbed.relays_killed);
    println!("soak_{}_relay_freezes {} count", B::NAME, disturbed.relays_frozen);
    println!("soak_{}_relay_cuts {} count", B::NAME, disturbed.relays_cut_off);
    println!("soak_{}_pushes {} count", B::NAME, tally.pushes.load(Relaxed));
    println!("soak_{}_increments {} count", B::NAME, tally.increments.load(Relaxed));
    println!("soak_{}_lost_answers {} count", B::NAME, tally.lost_answers.load(Relaxed));
    println!("soak_{}_failed_calls {} count", B::NAME, tally.failures.load(Relaxed));
    println!(
        "back_after_{}_s {:.2} s (median; longest {:.2})",
        B::NAME,
        middle.as_secs_f64(),
        longest.as_secs_f64()
    );
    for values in shown {
        let (lost, doubled) = tally.differs(values);
        println!("soak_{}_acked_lost {lost} count\nsoak_{}_applied_twice {doubled} count", B::NAME, B::NAME);
        assert_eq!((lost, doubled), (0, 0), "{values:?}");
    }
}
