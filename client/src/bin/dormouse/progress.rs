//! How far something is: a bar that is redrawn in place where somebody looks on, plain lines elsewhere, both on the standard
//! error. What is over within a moment is not told of.

use std::{
    env,
    io::{self, IsTerminal as _},
    time::Duration,
};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

const MOMENT: Duration = Duration::from_millis(400);
/// Between two lines.
const LINES: Duration = Duration::from_secs(5);

/// Dropped, it takes its bar away.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    began: Instant,
    told: Instant,
    bar: Option<ProgressBar>,
    is_terminal: bool,
}

impl Progress {
    pub(crate) fn new(what: &'static str) -> Self {
        let now = Instant::now();
        // What is not said to be one that can be drawn upon gets lines.
        let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { what, began: now, told: now, bar: None, is_terminal: io::stderr().is_terminal() && !is_dumb }
    }

    /// So many bytes of so many, if that is known.
    pub(crate) fn reach(&mut self, done: u64, total: Option<u64>) {
        if self.is_terminal {
            if self.bar.is_none() && total.is_some() && self.began.elapsed() >= MOMENT {
                self.bar = Some(bar(self.what));
            }
            if let Some(bar) = &self.bar {
                bar.set_length(total.unwrap_or(done));
                bar.set_position(done);
            }
        } else if self.told.elapsed() >= LINES {
            self.told = Instant::now();
            eprintln!("{}", line(self.what, done, total));
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

fn bar(what: &'static str) -> ProgressBar {
    let template = "{msg} [{bar:24}] {percent} %, {bytes} of {total_bytes}, {eta} left";
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.with_message(what)
}

fn line(what: &str, done: u64, total: Option<u64>) -> String {
    match total {
        Some(total) => {
            let percent = done.saturating_mul(100) / total.max(1);
            format!("{what}: {percent} %, {} of {}", HumanBytes(done), HumanBytes(total))
        }
        None => format!("{what}: {}", HumanBytes(done)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_much_is_done() {
        assert_eq!(line("backup", 1 << 20, Some(4 << 20)), "backup: 25 %, 1.00 MiB of 4.00 MiB");
        assert_eq!(line("backup", 3, None), "backup: 3 B");
    }

    #[test]
    fn only_a_terminal_gets_a_bar() {
        let mut progress = Progress::new("backup");
        progress.began -= MOMENT * 2;
        progress.is_terminal = false;
        progress.reach(1, Some(2));
        assert!(progress.bar.is_none());
        progress.is_terminal = true;
        progress.reach(1, Some(2));
        assert!(progress.bar.is_some());
    }
}
