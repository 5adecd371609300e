//! Standard output: lines for people, objects for programs, and the end of whoever reads them.

use std::io::{self, Write as _};

use rustix::event::{PollFd, PollFlags, poll};

use crate::failure::Failure;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    pub(crate) json: bool,
}

impl Screen {
    /// One result, in the form that was asked for.
    pub(crate) fn show(self, text: &str, json: &serde_json::Value) -> Result<(), Failure> {
        if self.json { line(&json.to_string()) } else { line(text) }
    }

    /// Lines that only people need.
    pub(crate) fn text(self, text: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { line(text) }
    }
}

/// `println!` would panic when the reader of a pipe has gone.
fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Ends when nobody reads the output any more. Without it a quiet stream would notice only at its next line, and
/// `dormouse watch | head -1` would wait for an event that nobody sees.
pub(crate) async fn closed() {
    let (tell, told) = tokio::sync::oneshot::channel();
    // A thread of its own and not the runtime's: it may never end, and the process must not wait for it.
    std::thread::spawn(move || {
        let stdout = io::stdout();
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        loop {
            match poll(&mut watched, None) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) if watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => break,
                // What cannot be polled tells its end by an error at the next line.
                Ok(_) | Err(_) => return std::mem::forget(tell),
            }
        }
        let _ = tell.send(());
    });
    // A forgotten sender never wakes this up.
    let _ = told.await;
}
