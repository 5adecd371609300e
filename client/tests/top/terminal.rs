//! A terminal of a test's own.

use std::{fs::File, io::Read as _, process::Stdio, time::Duration};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::PATIENCE;

/// The side where a person would sit.
pub(crate) struct Terminal {
    screen: File,
    written: UnboundedReceiver<Vec<u8>>,
    /// Everything that was written so far.
    pub(crate) text: String,
}

impl Terminal {
    /// A terminal of so many columns and rows, and the side that a program takes for its output.
    pub(crate) fn open(columns: u16, rows: u16) -> (Self, Stdio) {
        let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&screen).expect("it is ours");
        unlockpt(&screen).expect("it is ours");
        let name = ptsname(&screen, Vec::new()).expect("a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let program = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).expect("the other side");
        let screen = File::from(screen);
        let (tell, written) = unbounded_channel();
        let mut reader = screen.try_clone().expect("a second handle");
        std::thread::spawn(move || {
            let mut buffer = [0; 4_096];
            // When no program holds the other side any more, reading fails.
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                if tell.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        let terminal = Self { screen, written, text: String::new() };
        terminal.resize(columns, rows);
        (terminal, program.into())
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.screen, size).expect("a size");
    }

    /// Reads on until the text is as wanted.
    pub(crate) async fn until(&mut self, is_there: impl Fn(&str) -> bool) {
        while !is_there(&self.text) {
            assert!(self.read().await, "the program has ended: {:?}", self.text);
        }
    }

    /// Reads to the end of the program.
    pub(crate) async fn read_to_end(&mut self) {
        while self.read().await {}
    }

    /// Asks for something over and over, a tenth of a second apart, until the text is as wanted.
    pub(crate) async fn until_asked(&mut self, ask: impl Fn(), is_there: impl Fn(&str) -> bool) {
        for _ in 0..200 {
            ask();
            let read = tokio::time::timeout(Duration::from_millis(100), self.until(&is_there)).await;
            if read.is_ok() {
                return;
            }
        }
        panic!("it did not happen: {:?}", self.text);
    }

    async fn read(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.written.recv()).await;
        let read = read.unwrap_or_else(|_| panic!("nothing more came: {:?}", self.text));
        let Some(bytes) = read else { return false };
        self.text.push_str(&String::from_utf8_lossy(&bytes));
        true
    }
}
