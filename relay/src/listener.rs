//! The port: accepts connections and, with TLS, shakes hands, before any of their bytes means anything.
//!
//! Handshakes run beside each other and beside the accepting, because a caller may take as long as it likes for its part.
//! So each has a time, and there are so many places for them; who finds none waits in the kernel's queue.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use crate::{
    doors::{Doors, Tls},
    metrics::{Handshake, Metrics},
};

/// What a caller has for its handshake. A cold function over a bad line needs one second.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes under way at once.
const HANDSHAKES: usize = 1_024;
/// After a failure to accept, most often for want of file descriptors, which somebody has to give back first.
const BREATH: Duration = Duration::from_millis(50);
/// Connections that are ready and not yet taken.
const READY: usize = 64;

/// An accepted connection, plain or with its handshake behind it.
#[derive(Debug)]
pub struct Connection(Kind);

#[derive(Debug)]
enum Kind {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Accepts until the stream is dropped; handshakes that are under way then are given up.
pub fn connections(
    listener: TcpListener,
    doors: &Doors,
    metrics: Arc<Metrics>,
) -> ReceiverStream<io::Result<Connection>> {
    let (ready, incoming) = mpsc::channel(READY);
    let tls = doors.tls.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = ready.closed() => {}
            () = accept(&listener, tls.as_ref(), &metrics, &ready) => {}
        }
    });
    ReceiverStream::new(incoming)
}

type Ready = mpsc::Sender<io::Result<Connection>>;

async fn accept(listener: &TcpListener, tls: Option<&Arc<Tls>>, metrics: &Arc<Metrics>, ready: &Ready) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    let mut under_way = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        while under_way.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "a connection was not accepted");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        // Without TCP_NODELAY every cold connection waits 40 ms for a delayed acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "TCP_NODELAY is not set");
        }
        let Some(tls) = tls else {
            if ready.send(Ok(Connection(Kind::Plain(stream)))).await.is_err() {
                return;
            }
            continue;
        };
        let acceptor = TlsAcceptor::from(tls.current());
        under_way.spawn(shake_hands(acceptor, stream, place, Arc::clone(metrics), ready.clone()));
    }
}

async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
    ready: Ready,
) {
    match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            metrics.shook_hands(Handshake::Done);
            drop(place);
            // Nobody takes it any more when the relay stops.
            let _ = ready.send(Ok(Connection(Kind::Tls(Box::new(stream))))).await;
        }
        Ok(Err(error)) => {
            metrics.shook_hands(outcome(&error));
            debug!(%error, "a handshake failed");
        }
        Err(_) => {
            metrics.shook_hands(Handshake::TimedOut);
            debug!("a handshake took too long");
        }
    }
}

/// That somebody speaks plaintext is a configuration to be mended, and not the noise of the internet.
fn outcome(error: &io::Error) -> Handshake {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            Handshake::Plaintext
        }
        _ => Handshake::Failed,
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Kind::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Kind::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Kind::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Kind::Plain(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
            Kind::Tls(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Kind::Plain(stream) => stream.is_write_vectored(),
            Kind::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Plain(stream) => Pin::new(stream).poll_flush(context),
            Kind::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Kind::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
