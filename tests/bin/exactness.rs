//! The model check as a tool: as many histories as asked for, on as many threads as there are cores.
//!
//! `cargo run --release -p dormouse-tests --bin exactness -- --histories 1000000 --seed 0`
//!
//! The seeds that ever showed a defect run first. A failure prints its seed, what was found and the command that replays
//! it, and the exit code is 1.

use std::{
    io::Write as _,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use dormouse_tests::{
    history::{History, old_seeds},
    violation::Violation,
    world::Stats,
};

/// A third of the time would be spent in the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: exactness --histories N [--seed S] [--threads T] [--findings F]
       exactness --tell SEED
  --histories N  how many histories, beside the seeds that ever showed a defect
  --seed S       the first seed, 0 if it is not given
  --threads T    as many as there are cores, if it is not given
  --findings F   stops after so many, 1 if it is not given
  --tell SEED    tells one history in full";

/// How often progress is told.
const EVERY: Duration = Duration::from_secs(5);
/// How many seeds a thread takes at once.
const TAKES: u64 = 16;

struct Wanted {
    histories: u64,
    seed: u64,
    threads: usize,
    findings: usize,
    tell: Option<u64>,
}

fn wanted(args: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let (mut histories, mut seed, mut threads, mut findings, mut tell) = (None, 0, None, 1, None);
    let mut args = args;
    while let Some(name) = args.next() {
        let number = args.next().and_then(|it| it.parse::<u64>().ok());
        let number = number.ok_or_else(|| format!("{name} needs a number"))?;
        match name.as_str() {
            "--histories" => histories = Some(number),
            "--seed" => seed = number,
            "--tell" => tell = Some(number),
            "--findings" => findings = usize::try_from(number).unwrap_or(usize::MAX),
            "--threads" if number > 0 => threads = usize::try_from(number).ok(),
            _ => return Err(format!("{name} {number} is not understood")),
        }
    }
    let histories = histories.or(tell.map(|_| 0)).ok_or("--histories is missing")?;
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    Ok(Wanted { histories, seed, threads: threads.unwrap_or_else(cores), findings, tell })
}

/// What all threads share.
struct Run {
    old: Vec<u64>,
    wanted: Wanted,
    next: AtomicU64,
    done: AtomicU64,
    over: AtomicBool,
    total: Mutex<Stats>,
    found: Mutex<Vec<(History, Violation)>>,
}

impl Run {
    /// The seed of that turn: the old ones come first.
    fn seed(&self, turn: u64) -> Option<u64> {
        let old = self.old.len() as u64;
        match turn.checked_sub(old) {
            None => self.old.get(usize::try_from(turn).ok()?).copied(),
            Some(nth) => (nth < self.wanted.histories).then(|| self.wanted.seed.wrapping_add(nth)),
        }
    }

    /// One thread's work.
    fn work(&self) {
        let mut stats = Stats::default();
        while !self.over.load(Ordering::Relaxed) {
            let first = self.next.fetch_add(TAKES, Ordering::Relaxed);
            let seeds: Vec<u64> = (first..first + TAKES).map_while(|turn| self.seed(turn)).collect();
            if seeds.is_empty() {
                break;
            }
            for seed in seeds {
                let history = History::of_seed(seed);
                let outcome = history.run_caught();
                stats.add(&outcome.stats);
                self.done.fetch_add(1, Ordering::Relaxed);
                if let Some(violation) = outcome.violation {
                    self.note(history, violation);
                }
            }
        }
        if let Ok(mut total) = self.total.lock() {
            total.add(&stats);
        }
    }

    fn note(&self, history: History, violation: Violation) {
        if let Ok(mut found) = self.found.lock() {
            found.push((history, violation));
            self.over.fetch_or(found.len() >= self.wanted.findings, Ordering::Relaxed);
        }
    }

    fn all(&self) -> u64 {
        self.old.len() as u64 + self.wanted.histories
    }
}

#[expect(clippy::disallowed_methods, reason = "how long it takes is told and decides nothing")]
fn run(run: &Run) -> f64 {
    let started = Instant::now();
    let (ended, end) = mpsc::channel::<()>();
    thread::scope(|scope| {
        for _ in 0..run.wanted.threads {
            let ended = ended.clone();
            scope.spawn(move || {
                run.work();
                drop(ended);
            });
        }
        drop(ended);
        while end.recv_timeout(EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
            let (done, seconds) = (run.done.load(Ordering::Relaxed), started.elapsed().as_secs_f64());
            eprintln!("{done} of {} histories, {:.0} each second", run.all(), done as f64 / seconds);
        }
    });
    started.elapsed().as_secs_f64()
}

/// The figures, one on each line.
fn report(run: &Run, seconds: f64) -> std::io::Result<()> {
    let total = run.total.lock().map(|total| *total).unwrap_or_default();
    let divergences = run.found.lock().map_or(0, |found| found.len());
    let per_row = total.quiet_sent as f64 / total.quiet_changed.max(1) as f64;
    let done = run.done.load(Ordering::Relaxed);
    let mut out = std::io::stdout().lock();
    writeln!(out, "histories: {done}, {} of them old seeds, from seed {}", run.old.len(), run.wanted.seed)?;
    writeln!(out, "pushes: {}", total.pushes)?;
    writeln!(out, "rows sent: {}", total.rows)?;
    writeln!(out, "chunks: {}", total.chunks)?;
    writeln!(out, "barriers: {}", total.barriers)?;
    writeln!(out, "messages delivered: {}", total.letters)?;
    writeln!(out, "divergences: {divergences}")?;
    writeln!(out, "rows sent per distinct foreign row changed: {per_row}")?;
    writeln!(out, "seconds: {seconds:.1}, {:.0} histories each second", done as f64 / seconds)
}

fn main() -> ExitCode {
    let wanted = match wanted(std::env::args().skip(1)) {
        Ok(wanted) => wanted,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Some(seed) = wanted.tell {
        return tell(seed);
    }
    // A panic in the code under test is a finding, and is told as such.
    std::panic::set_hook(Box::new(|_| {}));
    let all = Run {
        old: old_seeds(),
        wanted,
        next: AtomicU64::new(0),
        done: AtomicU64::new(0),
        over: AtomicBool::new(false),
        total: Mutex::default(),
        found: Mutex::default(),
    };
    let seconds = run(&all);
    let told = report(&all, seconds);
    let found = all.found.lock().map(|it| it.clone()).unwrap_or_default();
    for (history, violation) in &found {
        eprintln!("seed {}, {:?}: {}\n{}", history.seed, history.faults, violation.0, history.command());
    }
    if found.is_empty() && told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One history in full.
fn tell(seed: u64) -> ExitCode {
    let history = History::of_seed(seed);
    let outcome = history.tell();
    let found = outcome.violation.map_or_else(|| "clean".to_owned(), |violation| violation.0.clone());
    println!("{}\nseed {seed}, {:?}: {found}", outcome.trace, history.faults);
    if found == "clean" { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
