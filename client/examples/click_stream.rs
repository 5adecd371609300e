//! Events: browsers post clicks, a consumer takes them in batches, and what it fails at comes again.
//!
//! ```sh
//! cargo run --release --example click_stream
//! ```
//!
//! Uses a running relay (`cargo run --release`), or one of its own when none answers.

#[path = "relay_here/mod.rs"]
mod relay_here;

use std::error::Error;

use dormouse::{NewEvent, Relay, Value};
use dormouse_relay::liveness::LeaseSettings;
use relay_here::RelayHere;
use tokio::time::Instant;

/// The log of events; each run has its own.
fn log_of_this_run() -> String {
    format!("clicks/run-{}", std::process::id())
}

const BROWSERS: u32 = 8;
const CLICKS_EACH: u32 = 1_250;
const CLICKS_PER_POST: u32 = 125;
/// The batch that the consumer's own work fails at, once.
const UNLUCKY: u32 = 7;

fn click(browser: u32, nth: u32) -> NewEvent {
    NewEvent {
        payload: Value::Text(format!("{{\"browser\":{browser},\"click\":{nth}}}")),
        // A browser that got no answer posts again; with an id that is harmless.
        id: format!("{browser}-{nth}").parse().ok(),
    }
}

async fn browse(relay: &Relay, log: &str, browser: u32) -> Result<(), dormouse::Reason> {
    for first in (0..CLICKS_EACH).step_by(CLICKS_PER_POST as usize) {
        let clicks: Vec<NewEvent> = (first..first + CLICKS_PER_POST).map(|nth| click(browser, nth)).collect();
        relay.append(log, clicks.clone()).await?;
        if first == 0 {
            relay.append(log, clicks).await?; // the answer was lost, so to say
        }
    }
    Ok(())
}

/// Takes everything that is there; the work on one batch fails, and that batch comes again.
async fn bill(relay: &Relay, log: &str) -> Result<(usize, u32), Box<dyn Error>> {
    let mut billing = relay.consumer(log, "billing");
    let (mut billed, mut batches, mut unlucky) = (0, 0, true);
    while let Some(batch) = billing.next_batch().await? {
        batches += 1;
        let events = batch.events.len();
        if batches == UNLUCKY && std::mem::take(&mut unlucky) {
            println!("batch {batches}: {events} clicks up to revision {}: the work failed", batch.upto);
            continue; // not done, so it comes again
        }
        billed += events;
        if batches == UNLUCKY + 1 {
            println!(
                "batch {batches}: {events} clicks up to revision {}: the same again, billed",
                batch.upto
            );
        }
        batch.done().await?;
    }
    Ok((billed, batches))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let here = RelayHere::find_or_start(LeaseSettings::default()).await?;
    println!("{}", here.introduction());
    let relay = Relay::builder().url(&here.url).namespace("click-stream").build()?;
    let log = log_of_this_run();

    let too_large = NewEvent { payload: Value::Text("x".repeat(300_000)), id: None };
    if let Err(refused) = relay.append(&log, vec![click(0, 0), too_large]).await {
        println!("a bad click: {refused}");
    }

    let started = Instant::now();
    let (log_name, relay) = (log.as_str(), &relay);
    let mut posted = Vec::new();
    for browser in 0..BROWSERS {
        posted.push(async move { browse(relay, log_name, browser).await });
    }
    for post in posted {
        post.await?;
    }
    let clicks = (BROWSERS * CLICKS_EACH) as usize;
    println!("{BROWSERS} browsers posted {clicks} clicks in {:.2} s", started.elapsed().as_secs_f64());

    let (billed, batches) = bill(relay, &log).await?;
    println!("billed {billed} clicks in {batches} batches");
    let (again, _) = bill(relay, &log).await?;
    println!("a second process of the same consumer finds {again} left");
    if (billed, again) == (clicks, 0) { Ok(()) } else { Err("not every click was billed once".into()) }
}
