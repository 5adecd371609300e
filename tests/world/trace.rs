//! What happened, line by line, for whoever must understand a seed.

use std::fmt::Write as _;

/// Lines, or nothing at all when nobody reads them.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    text: Option<String>,
}

impl Trace {
    /// A trace that is kept.
    pub fn kept() -> Self {
        Self { text: Some(String::new()) }
    }

    /// Adds a line; it is made only if it is kept.
    pub fn say(&mut self, now: u64, line: impl FnOnce() -> String) {
        if let Some(text) = &mut self.text {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{now:>5} {}", line());
        }
    }

    /// Everything so far.
    pub fn into_text(self) -> String {
        self.text.unwrap_or_default()
    }
}
