//! How far something is that may take long: a bar that is redrawn in place where a person looks on, plain lines elsewhere.
//!
//! What is over within a moment is not told of at all.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;
use tracing::info;

use crate::sequencer::Reading;

/// What is done within this needs no bar.
const MOMENT: Duration = Duration::from_millis(400);
/// Between two lines.
const LINES: Duration = Duration::from_secs(5);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Frames of the log.
    Frames,
}

/// Tells how far something is, on the standard error. Dropped, it takes its bar away.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    unit: Unit,
    total: Option<u64>,
    began: Instant,
    told: Instant,
    bar: Option<ProgressBar>,
    is_terminal: bool,
}

impl Progress {
    /// Begins. `what`: what is being done; `total`: how much of it there is, if that is known.
    pub fn new(what: &'static str, unit: Unit, total: Option<u64>) -> Self {
        let now = Instant::now();
        // What is not said to be one that can be drawn upon gets lines.
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let is_terminal = io::stderr().is_terminal() && !is_dumb;
        Self { what, unit, total, began: now, told: now, bar: None, is_terminal }
    }

    /// So much is done by now.
    pub fn reach(&mut self, done: u64) {
        if self.is_terminal {
            if self.bar.is_none() && self.began.elapsed() >= MOMENT {
                self.bar = Some(bar(self.what, self.unit, self.total));
            }
            if let Some(bar) = &self.bar {
                bar.set_position(done);
            }
        } else if self.told.elapsed() >= LINES {
            self.told = Instant::now();
            info!("{}", line(self.what, self.unit, done, self.total, self.began.elapsed()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// How far a start is.
#[derive(Debug, Default)]
pub struct Starting(Option<(Phase, Progress)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Snapshot,
    Log,
}

impl Starting {
    /// So much has been read by now.
    pub fn reach(&mut self, reading: Reading) {
        let (phase, done) = match reading {
            Reading::Snapshot { bytes, .. } => (Phase::Snapshot, bytes),
            Reading::Log { frames, .. } => (Phase::Log, frames),
        };
        let (now, mut progress) = match self.0.take() {
            Some(it) if it.0 == phase => it,
            // The bar of what is over goes away before another one comes.
            over => {
                drop(over);
                (phase, begin(reading))
            }
        };
        progress.reach(done);
        self.0 = Some((now, progress));
    }
}

fn begin(reading: Reading) -> Progress {
    match reading {
        Reading::Snapshot { of, .. } => Progress::new("loading the snapshot", Unit::Bytes, Some(of)),
        Reading::Log { frames, at, tail } => {
            let left = tail.map(|tail| tail.0.saturating_sub(at.0));
            Progress::new("reading the log", Unit::Frames, left.map(|left| left + frames))
        }
    }
}

fn bar(what: &'static str, unit: Unit, total: Option<u64>) -> ProgressBar {
    let (counts, all) = match unit {
        Unit::Bytes => ("{bytes}", "{total_bytes}"),
        Unit::Frames => ("{human_pos} frames", "{human_len}"),
    };
    let template = match total {
        Some(_) => format!("{{msg}} [{{bar:24}}] {{percent}} %, {counts} of {all}, {{eta}} left"),
        None => format!("{{msg}} {{spinner}} {counts}"),
    };
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    // The template is written above; the default one says less.
    bar.set_style(ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.with_message(what)
}

/// One plain line.
fn line(what: &str, unit: Unit, done: u64, total: Option<u64>, since: Duration) -> String {
    let count = |number: u64| match unit {
        Unit::Bytes => HumanBytes(number).to_string(),
        Unit::Frames => format!("{} frames", HumanCount(number)),
    };
    let Some(total) = total.filter(|total| *total > 0) else {
        return format!("{what}: {}", count(done));
    };
    let percent = done.saturating_mul(100) / total;
    let left = since.mul_f64(total.saturating_sub(done) as f64 / done.max(1) as f64);
    format!("{what}: {percent} %, {} of {}, {} left", count(done), count(total), HumanDuration(left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Position;

    #[test]
    fn a_line_says_how_much_is_done_and_how_long_it_will_take() {
        let since = Duration::from_secs(10);
        assert_eq!(
            line("reading the log", Unit::Frames, 2_500, Some(10_000), since),
            "reading the log: 25 %, 2,500 frames of 10,000 frames, 30 seconds left"
        );
        assert_eq!(line("checking", Unit::Bytes, 2 << 20, None, since), "checking: 2.00 MiB");
        assert_eq!(line("checking", Unit::Bytes, 0, Some(0), since), "checking: 0 B");
    }

    #[test]
    fn a_start_reads_the_snapshot_and_then_the_frames_that_are_left() {
        let mut starting = Starting::default();
        let total = |starting: &Starting| starting.0.as_ref().map(|it| (it.0, it.1.total));
        starting.reach(Reading::Snapshot { bytes: 5, of: 10 });
        assert_eq!(total(&starting), Some((Phase::Snapshot, Some(10))));
        let (at, tail) = (Position(41), Some(Position(50)));
        starting.reach(Reading::Log { frames: 1, at, tail });
        assert_eq!(total(&starting), Some((Phase::Log, Some(10))));
        starting.reach(Reading::Log { frames: 2, at: Position(42), tail });
        assert_eq!(total(&starting), Some((Phase::Log, Some(10))));
    }

    #[test]
    fn what_is_no_terminal_gets_no_bar() {
        let mut progress = Progress::new("reading", Unit::Bytes, Some(10));
        progress.is_terminal = false;
        progress.began -= MOMENT * 2;
        progress.reach(5);
        assert!(progress.bar.is_none());
        progress.is_terminal = true;
        progress.reach(6);
        assert_eq!(progress.bar.as_ref().map(ProgressBar::position), Some(6));
    }
}
