//! A stage that shows the pages of a relay, and its state only so often: from then on whoever asks for it is hung up on.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::relay::{Outcome, RelayProcess};

/// It ends when it is dropped.
pub(crate) struct Stage {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    showing: Option<JoinHandle<()>>,
}

impl Stage {
    pub(crate) fn of(relay: &RelayProcess, states: usize) -> Outcome<Self> {
        let pages = ["/", "/page.css", "/page.js", "/state.json"];
        let pages: Result<BTreeMap<&str, String>, _> =
            pages.into_iter().map(|path| relay.get(path).map(|page| (path, page))).collect();
        let (pages, listener) = (pages?, TcpListener::bind("127.0.0.1:0")?);
        let (address, is_over) = (listener.local_addr()?, Arc::new(AtomicBool::new(false)));
        let over = Arc::clone(&is_over);
        let showing = thread::spawn(move || {
            let mut left = states;
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                // A caller that went away is no concern of the stage.
                let _ = show(stream, &pages, &mut left);
            }
        });
        Ok(Self { address, is_over, showing: Some(showing) })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

fn show(mut stream: TcpStream, pages: &BTreeMap<&str, String>, left: &mut usize) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let (mut asked, mut part) = (Vec::new(), [0; 4_096]);
    while !asked.windows(4).any(|it| it == b"\r\n\r\n") {
        match stream.read(&mut part)? {
            0 => return Ok(()),
            length => asked.extend_from_slice(&part[..length]),
        }
    }
    let asked = String::from_utf8_lossy(&asked);
    let path = asked.split([' ', '?']).nth(1).unwrap_or_default();
    if path == "/state.json" {
        let Some(fewer) = left.checked_sub(1) else { return Ok(()) };
        *left = fewer;
    }
    pages.get(path).map_or(Ok(()), |page| stream.write_all(page.as_bytes()))
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Wakes it, so that it sees that.
        drop(TcpStream::connect(self.address));
        if let Some(showing) = self.showing.take() {
            let _ = showing.join();
        }
    }
}
