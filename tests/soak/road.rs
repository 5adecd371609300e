//! The way of one relay to the broker, which can be cut: nothing gets through, nobody is told, and what was on its way comes
//! when it is mended, as in a network that loses packets for a while.

use std::io;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

pub(crate) struct Road {
    /// Where it begins.
    pub(crate) port: u16,
    is_open: watch::Sender<bool>,
}

impl Road {
    /// To that port. Lasts as long as the runtime in which it was built.
    pub(crate) async fn to(broker: u16) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (is_open, looks) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((relay, _)) = listener.accept().await {
                tokio::spawn(carry(relay, broker, looks.clone()));
            }
        });
        Ok(Self { port, is_open })
    }

    pub(crate) fn cut(&self) {
        self.is_open.send_replace(false);
    }

    pub(crate) fn mend(&self) {
        self.is_open.send_replace(true);
    }
}

/// Whoever connects to a road that is cut gets as far as the kernel.
async fn carry(relay: TcpStream, broker: u16, mut looks: watch::Receiver<bool>) -> io::Result<()> {
    open(&mut looks).await;
    let broker = TcpStream::connect(("127.0.0.1", broker)).await?;
    relay.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let ((from_relay, to_relay), (from_broker, to_broker)) = (relay.into_split(), broker.into_split());
    // One that ends takes the other with it: a broker that is killed is found out at once.
    tokio::select! {
        ended = go(from_relay, to_broker, looks.clone()) => ended,
        ended = go(from_broker, to_relay, looks) => ended,
    }
}

async fn go(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut looks: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        open(&mut looks).await;
        if length == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..length]).await?;
    }
}

async fn open(looks: &mut watch::Receiver<bool>) {
    let _ = looks.wait_for(|is_open| *is_open).await;
}
