//! A terminal that is drawn upon in place, and is afterwards as it was.
//!
//! Plain control sequences that every terminal of the last decades knows, so it works over ssh and inside of others.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{self, SignalKind};

use crate::{
    failure::Failure,
    show::fleet::lines::{Line, Size, Tone},
};

/// The other page, without a cursor; what is longer than a line is cut instead of pushing the rest down.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// The size of the terminal behind standard output; `None`: there is none, or none that can be drawn upon.
pub(crate) fn size() -> Option<Size> {
    let stdout = io::stdout();
    let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    if is_dumb || !stdout.is_terminal() {
        return None;
    }
    let told = rustix::termios::tcgetwinsize(&stdout).ok().filter(|it| it.ws_col > 0 && it.ws_row > 0);
    // A serial line does not know its size.
    let (columns, rows) = told.map_or((80, 24), |it| (it.ws_col.into(), it.ws_row.into()));
    Some(Size { columns, rows })
}

/// Standard output while it is drawn upon. Dropped, whatever the reason, it gives back what was there before.
#[derive(Debug)]
pub(crate) struct Canvas {
    colour: bool,
    /// Ctrl-Z.
    stops: unix::Signal,
}

impl Canvas {
    pub(crate) fn open() -> Result<Self, Failure> {
        let colour = env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
        let stops = unix::signal(SignalKind::from_raw(Signal::TSTP.as_raw()))?;
        let canvas = Self { colour, stops };
        write(ENTER)?;
        Ok(canvas)
    }

    /// Waits until the next picture is due. Whoever stops the program meanwhile has the terminal back until it goes on.
    pub(crate) async fn wait(&mut self, length: Duration) -> Result<(), Failure> {
        tokio::select! {
            () = tokio::time::sleep(length) => Ok(()),
            _ = self.stops.recv() => {
                write(LEAVE)?;
                // It comes back from here when somebody lets the program go on.
                kill_process(getpid(), Signal::STOP).map_err(io::Error::from)?;
                write(ENTER)
            }
        }
    }

    /// Shows these lines and nothing else.
    pub(crate) fn draw(&self, lines: &[Line], size: Size) -> Result<(), Failure> {
        write(&frame(lines, size.rows, self.colour))
    }
}

impl Drop for Canvas {
    fn drop(&mut self) {
        // Whoever has closed the terminal does not need it back.
        let _ = write(LEAVE);
    }
}

fn write(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// One picture, of at most `rows` lines. A line is cleared before it is written: behind a full one the cursor still
/// stands on its last letter. Below the last row nothing is begun, or everything would move up.
fn frame(lines: &[Line], rows: usize, colour: bool) -> String {
    let mut frame = HOME.to_owned();
    for (number, line) in lines.iter().take(rows).enumerate() {
        if number > 0 {
            frame.push_str("\r\n");
        }
        frame.push_str(CLEAR_LINE);
        match style(line.tone).filter(|_| colour) {
            Some(style) => frame.extend([style, &line.text, PLAIN]),
            None => frame.push_str(&line.text),
        }
    }
    if lines.len() < rows {
        frame.push_str("\r\n");
        frame.push_str(CLEAR_BELOW);
    }
    frame
}

const PLAIN: &str = "\x1b[0m";

const fn style(tone: Tone) -> Option<&'static str> {
    match tone {
        Tone::Plain => None,
        Tone::Heading => Some("\x1b[7m"),
        Tone::Warning => Some("\x1b[33m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> [Line; 2] {
        [
            Line { text: "GROUP".to_owned(), tone: Tone::Heading },
            Line { text: "ads".to_owned(), tone: Tone::Plain },
        ]
    }

    #[test]
    fn a_picture_clears_what_it_does_not_cover() {
        let frame = frame(&picture(), 3, false);
        assert_eq!(frame, "\x1b[H\x1b[KGROUP\r\n\x1b[Kads\r\n\x1b[J");
    }

    #[test]
    fn a_picture_as_high_as_the_terminal_moves_nothing_up() {
        assert_eq!(frame(&picture(), 2, false), "\x1b[H\x1b[KGROUP\r\n\x1b[Kads");
        assert_eq!(frame(&picture(), 1, false), "\x1b[H\x1b[KGROUP");
    }

    #[test]
    fn colour_says_nothing_that_is_not_written_and_may_be_off() {
        let coloured = frame(&picture(), 2, true);
        assert_eq!(coloured, "\x1b[H\x1b[K\x1b[7mGROUP\x1b[0m\r\n\x1b[Kads");
        assert!(!frame(&picture(), 2, false).contains('m'));
    }
}
