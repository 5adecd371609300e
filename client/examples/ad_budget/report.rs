//! What is counted here, and how it is told.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{Plan, function::Answer, place::Numbers, verdict::Verdict};

#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the platform knows. The relay is asked for nothing of it.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) invocations: Count,
    pub(crate) shown_and_saved: Count,
    pub(crate) unsaved: Count,
    pub(crate) not_current: Count,
    pub(crate) killed_asleep: Count,
    pub(crate) killed_awake: Count,
    pub(crate) invoked_again: Count,
    pub(crate) failed: Count,
    pub(crate) frozen: Count,
    /// The most that any function has seen.
    seen: AtomicU64,
}

impl Tally {
    pub(crate) fn answered(&self, answer: &Answer) {
        self.invocations.up();
        self.seen.fetch_max(u64::try_from(answer.value).unwrap_or(0), Ordering::Relaxed);
        match (answer.shown, answer.saved) {
            (true, true) => self.shown_and_saved.up(),
            (_, false) => self.unsaved.up(),
            (false, true) => {}
        }
        if !answer.is_current {
            self.not_current.up();
        }
    }

    fn kills(&self) -> u64 {
        self.killed_asleep.get() + self.killed_awake.get()
    }
}

/// One line that is redrawn on a terminal; elsewhere a line now and then.
pub(crate) async fn progress(plan: Plan, tally: Arc<Tally>) {
    let redrawn = io::stdout().is_terminal();
    let every = Duration::from_millis(if redrawn { 200 } else { 4_000 });
    let started = Instant::now();
    loop {
        tokio::time::sleep(every).await;
        let line = format!(
            "{:>3} s   {:>5} of {} ads seen   {:>6} invocations   {:>3} of {} frozen   {:>3} killed",
            started.elapsed().as_secs(),
            tally.seen.load(Ordering::Relaxed),
            plan.budget,
            tally.invocations.get(),
            tally.frozen.get(),
            plan.processes,
            tally.kills(),
        );
        let (before, after) = if redrawn { ("\r\x1b[K", "") } else { ("", "\n") };
        let mut out = io::stdout().lock();
        // Whoever does not look on any more misses nothing.
        let _ = write!(out, "{before}{line}{after}").and_then(|()| out.flush());
    }
}

pub(crate) fn end_progress() {
    if io::stdout().is_terminal() {
        println!();
    }
}

pub(crate) fn summary(
    plan: &Plan,
    tally: &Tally,
    verdict: &Verdict,
    members: &BTreeMap<String, u64>,
    numbers: Option<(Numbers, Numbers)>,
) {
    let spent = verdict.spent;
    let beyond = (spent - i64::from(plan.budget)).max(0);
    println!("\nspent         {spent} of {} ads, {beyond} beyond the budget", plan.budget);
    println!(
        "invocations   {}, {} of them with an old view, {} with something unsaved, {} without an answer",
        tally.invocations.get(),
        tally.not_current.get(),
        tally.unsaved.get(),
        tally.failed.get(),
    );
    println!(
        "kills         {}: {} asleep, {} in an invocation; {} invocations were repeated by another process",
        tally.kills(),
        tally.killed_asleep.get(),
        tally.killed_awake.get(),
        tally.invoked_again.get(),
    );
    let members: Vec<String> = members.iter().map(|(state, count)| format!("{count} {state}")).collect();
    println!("members       {}", members.join(", "));
    match numbers {
        Some((before, after)) => traffic(plan, &before, &after),
        None => println!("traffic       unknown: the relay's admin port cannot be reached from here"),
    }
    agreement(verdict);
}

/// What the functions pulled, against what would have to be sent if everybody were told of every update.
fn traffic(plan: &Plan, before: &Numbers, after: &Numbers) {
    let of = |name: &str| after.since(before, name);
    let (updates, rows, bytes) = (of("deltas_total"), of("rows_sent_total"), of("chunk_bytes_total"));
    println!("false deaths  {}", of("false_deaths_total"));
    println!(
        "traffic       {updates} updates; {rows} rows and {} KB pulled in {} pulls, where telling everybody of \
         every update takes {} rows",
        bytes / 1_000,
        of("pulls_total"),
        updates * u64::from(plan.processes),
    );
}

fn agreement(verdict: &Verdict) {
    let Verdict { spent, asked, dissent, lost } = verdict;
    if dissent.is_empty() {
        println!("agreement     all {asked} processes that are left say {spent}, and so does the relay");
    } else {
        println!("DISAGREEMENT  the relay says {spent}, but of {asked} processes {} do not:", dissent.len());
        for answer in dissent {
            println!("              {answer}");
        }
    }
    if *lost > 0 {
        println!("LOST          {lost} ads were reported as saved and are not counted");
    }
}
