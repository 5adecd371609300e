//! A line between a function and its relay that can go dead: from then on nothing is read and nothing is written, and
//! neither end is told. A process that is killed behind it is found out by its silence alone, as in a network that
//! drops packets; on a plain connection the kernel would say good-bye in its name.

use std::{future::pending, io};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Carries what is said to an address of its own on to the relay.
pub(crate) struct Line {
    pub(crate) url: String,
    dead: watch::Sender<bool>,
}

impl Line {
    /// Lasts as long as the runtime in which it was opened.
    pub(crate) async fn open(relay: &str) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (dead, dies) = watch::channel(false);
        tokio::spawn(accept(listener, relay.trim_start_matches("http://").to_owned(), dies));
        Ok(Self { url, dead })
    }

    pub(crate) fn die(&self) {
        self.dead.send_replace(true);
    }
}

/// Whoever connects to a dead line gets as far as the kernel.
async fn accept(listener: TcpListener, relay: String, mut dies: watch::Receiver<bool>) {
    loop {
        let connection = tokio::select! {
            accepted = listener.accept() => accepted,
            () = death(&mut dies) => break,
        };
        if let Ok((function, _)) = connection {
            tokio::spawn(carry(function, relay.clone(), dies.clone()));
        }
    }
    pending::<()>().await;
}

async fn carry(mut function: TcpStream, relay: String, mut dies: watch::Receiver<bool>) -> io::Result<()> {
    let mut relay = TcpStream::connect(relay).await?;
    function.set_nodelay(true)?;
    relay.set_nodelay(true)?;
    tokio::select! {
        carried = copy_bidirectional(&mut function, &mut relay) => return carried.map(drop),
        () = death(&mut dies) => {}
    }
    // Both ends stay open here.
    pending().await
}

async fn death(dies: &mut watch::Receiver<bool>) {
    let _ = dies.wait_for(|dead| *dead).await;
}
