//! Fifty functions share an advertising budget. Each is a real process that a platform would run: woken for an
//! invocation, frozen (SIGSTOP) as soon as it has answered, thawed (SIGCONT) for the next one, and now and then killed
//! (SIGKILL) without a word, in its sleep or in the middle of an invocation. None of them can be called by another.
//!
//! ```sh
//! cargo run --release --example ad_budget
//! ```
//!
//! A relay that answers at `DORMOUSE_URL` is used; otherwise one is started in this process, on a log that vanishes.
//! What one function does is in `function.rs`; everything else here plays the platform, on a seeded schedule.
//!
//! At the end every process that is left is invoked once more. It fails unless all of them, and the relay, say the same,
//! and unless every ad that was reported as saved is counted.

mod crowd;
mod function;
mod place;
mod process;
#[path = "../relay_here/mod.rs"]
mod relay_here;
mod report;
mod verdict;

use std::{error::Error, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use place::Place;
use report::Tally;

/// Fifty functions, frozen and killed like in production, share a budget of ads.
#[derive(Clone, Debug, Parser)]
struct Plan {
    /// Functions that live at once
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    processes: u16,
    /// Ads that may be shown
    #[arg(long, default_value_t = 1_000)]
    budget: u32,
    /// How long they are invoked
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
    /// Of the schedule: who is invoked, frozen and killed when
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if std::env::var_os(function::ROLE).is_some() {
        return function::run();
    }
    let plan = Plan::parse();
    tokio::runtime::Runtime::new()?.block_on(play(plan))
}

async fn play(plan: Plan) -> Result<ExitCode, Box<dyn Error>> {
    let place = Arc::new(Place::find_or_start().await?);
    println!("{}", place.introduction());
    place.clear_counter().await?;
    println!(
        "{} processes, a budget of {} ads, {} s, seed {}",
        plan.processes, plan.budget, plan.seconds, plan.seed
    );
    let before = place.numbers().await;
    let tally = Arc::new(Tally::default());
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(interrupted(stop));
    let progress = tokio::spawn(report::progress(plan.clone(), Arc::clone(&tally)));
    let outcome = crowd::invoke_for_a_while(&plan, &place, &tally, &stopped).await;
    progress.abort();
    report::end_progress();
    let mut processes = outcome?;
    if *stopped.borrow() {
        process::finish(processes).await;
        eprintln!("interrupted: all processes have ended");
        return Ok(ExitCode::from(130));
    }
    let verdict = verdict::judge(&plan, &place, &tally, &mut processes).await;
    let members = place.members_by_state().await;
    let after = place.numbers().await;
    process::finish(processes).await;
    let verdict = verdict?;
    report::summary(&plan, &tally, &verdict, &members?, before.zip(after));
    Ok(if verdict.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Ctrl-C, or whoever ends this program politely.
async fn interrupted(stop: watch::Sender<bool>) {
    let Ok(mut terminated) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
    stop.send_replace(true);
}

/// Waits, unless the end comes first.
async fn pause(length: Duration, stopped: &watch::Receiver<bool>) {
    let mut stopped = stopped.clone();
    tokio::select! {
        () = tokio::time::sleep(length) => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}
