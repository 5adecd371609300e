//! One function instance as a process of its own: it wakes, adds one to a counter, sleeps, over and over. Small enough
//! for hundreds of them on a machine with two cores.
//!
//! `function URL NAME --gap MS --invocation MS [--beat MS]`
//!
//! It says each of its steps on standard output before it takes the next one, a line each: its name, the step, and the
//! number of the invocation. So whoever freezes it knows where.

use std::{env::Args, io::Write as _, process::ExitCode, time::Duration};

use dormouse::{Awake, Node, Slept};
use tokio::time::{Instant, sleep};

const USAGE: &str = "usage: function URL NAME --gap MS --invocation MS [--beat MS]
  NAME             what it calls itself, in its lines and in the tag `name`
  --gap MS         between the end of an invocation and the next one
  --invocation MS  how long an invocation works
  --beat MS        how often it renews its lease meanwhile; never, if it is not given";

/// The counter that every invocation adds one to.
const COUNTER: &str = "lives/invocations";
/// Far more than a round trip takes, so that a busy machine costs time and not writes.
const BUDGET: Duration = Duration::from_secs(5);

struct Told {
    url: String,
    name: String,
    gap: Duration,
    invocation: Duration,
    beat: Option<Duration>,
}

impl Told {
    fn by(mut args: Args) -> Option<Self> {
        let (_, url, name) = (args.next(), args.next()?, args.next()?);
        let (mut gap, mut invocation, mut beat) = (None, None, None);
        while let Some(option) = args.next() {
            let length = Some(Duration::from_millis(args.next()?.parse().ok()?));
            match option.as_str() {
                "--gap" => gap = length,
                "--invocation" => invocation = length,
                "--beat" => beat = length,
                _ => return None,
            }
        }
        Some(Self { url, name, gap: gap?, invocation: invocation?, beat })
    }

    /// One write, so that the lines of many functions may share a pipe.
    fn say(&self, step: &str, nth: u64) -> std::io::Result<()> {
        std::io::stdout().lock().write_all(format!("{} {step} {nth}\n", self.name).as_bytes())
    }
}

fn main() -> ExitCode {
    let Some(told) = Told::by(std::env::args()) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match live(&told) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", told.name);
            ExitCode::FAILURE
        }
    }
}

/// Until somebody ends it, or nobody listens any more.
fn live(told: &Told) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let node = Node::builder().url(&told.url).group("lives").tag("name", &told.name).follow("lives");
    let node = node.budget(BUDGET).build()?;
    runtime.block_on(async {
        for nth in 1.. {
            told.say("wakes", nth)?;
            let awake = node.wake(Duration::ZERO).await;
            awake.counter(COUNTER).add(1)?;
            told.say("awake", nth)?;
            work(told, &awake).await;
            told.say("sleeps", nth)?;
            let slept = awake.sleep().await;
            told.say(if matches!(slept, Slept::Unsaved { .. }) { "unsaved" } else { "asleep" }, nth)?;
            sleep(told.gap).await;
        }
        Ok(())
    })
}

async fn work(told: &Told, awake: &Awake) {
    let ends_at = Instant::now() + told.invocation;
    loop {
        let left = ends_at.saturating_duration_since(Instant::now());
        let Some(beat) = told.beat.filter(|beat| *beat < left) else { return sleep(left).await };
        sleep(beat).await;
        // A beat that was not heard is made up for by the next one, or by the end of the invocation.
        let _ = awake.beat().await;
    }
}
