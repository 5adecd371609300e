//! Serves connections: HTTP/2 and HTTP/1.1 within bounds that are all set here, and an end for each that is due.
//!
//! The libraries below bound much by themselves, but each by its own idea of a server. What is set here is what this relay
//! needs; the reason stands with each. It is not tonic's own server because that one keeps every connection for as long as
//! its caller likes, and tells nobody why one ended.

use std::{
    convert::Infallible,
    error::Error,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use axum::http::{Request, Response};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tonic::body::Body;
use tower::Service;
use tracing::debug;

use super::guarded::{Guarded, Inflow};
use crate::{
    config::ConnectionSettings,
    listener::{Connection, Host, Member, Verdict, Why},
    metrics::{Metrics, Visit},
};

/// What a connection has to end by itself when it is asked to.
const GRACE: Duration = Duration::from_secs(1);
/// Calls may come and hang between two looks, so a look comes at least so often, as a part of the time of an answer.
const LOOKS: u64 = 8;

/// What all connections share.
struct Serving<S> {
    service: S,
    builder: Builder<TokioExecutor>,
    host: Arc<Host>,
    metrics: Arc<Metrics>,
    inflow: Arc<Inflow>,
    settings: ConnectionSettings,
}

/// Serves until `stop`, then asks every connection to end and waits for all.
pub(super) async fn serve<S>(
    (host, mut incoming): (Arc<Host>, mpsc::Receiver<Connection>),
    service: S,
    settings: ConnectionSettings,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()>,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let inflow = Arc::new(Inflow::new(settings.requests_bytes_max));
    let serving = Arc::new(Serving { service, builder: builder(&settings), host, metrics, inflow, settings });
    let (stopping, stopped) = watch::channel(false);
    {
        let mut stop = pin!(stop);
        loop {
            let connection = tokio::select! {
                () = &mut stop => break,
                connection = incoming.recv() => connection,
            };
            let Some(connection) = connection else { break };
            tokio::spawn(attend(Arc::clone(&serving), connection, stopped.clone()));
        }
    }
    // Nobody connects any more: the port is closed with the last that could take a connection from it.
    drop((incoming, stopped));
    stopping.send_replace(true);
    stopping.closed().await;
}

fn builder(settings: &ConnectionSettings) -> Builder<TokioExecutor> {
    /// Several frames of several calls; larger ones gain nothing where a push is at most 1 MiB.
    const WINDOW: u32 = 1 << 20;
    const FRAME: u32 = 16 << 10;
    /// Answers wait as they are, uncopied; this only bounds what of one call is handed to the connection at once.
    const SEND: usize = 256 << 10;
    /// Resets of calls that were not looked at yet (CVE-2023-44487). A caller gives up one or two.
    const RESETS: usize = 20;
    /// Resets for which the caller broke a rule within a call.
    const BROKEN: usize = 128;
    /// Ours sends eight, proxies add a dozen.
    const FIELDS: usize = 100;
    /// What a header may have at the most to be refused in words, with its limit; beyond it the connection ends.
    const WORDS: u32 = 4;
    let mut builder = Builder::new(TokioExecutor::new());
    let header = settings.header_bytes_max.saturating_mul(WORDS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .adaptive_window(false)
        .max_concurrent_streams(settings.streams_max)
        .max_frame_size(FRAME)
        .max_send_buf_size(SEND)
        .max_header_list_size(header)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(BROKEN)
        // No pings: a frozen function does not answer them, and must find its connection when it thaws.
        .keep_alive_interval(None);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(settings.request_ms))
        .max_headers(FIELDS)
        .max_buf_size(usize::try_from(header).unwrap_or(usize::MAX).max(64 << 10))
        .half_close(false);
    builder
}

/// One connection, from its first byte to its last.
async fn attend<S>(serving: Arc<Serving<S>>, connection: Connection, mut stopped: watch::Receiver<bool>)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let member = connection.member();
    let service = Guarded::new(
        serving.service.clone(),
        Arc::clone(&member),
        Arc::clone(&serving.host),
        Arc::clone(&serving.inflow),
        Arc::clone(&serving.metrics),
        Duration::from_millis(serving.settings.request_ms),
    );
    let served =
        serving.builder.serve_connection(TokioIo::new(connection), TowerToHyperService::new(service));
    let mut served = pin!(served);
    let mut stopping = false;
    let why = loop {
        let look = match serving.next_look(&member) {
            Ok(look) => look,
            Err(why) => break why,
        };
        tokio::select! {
            ended = &mut served => {
                if let Err(error) = ended {
                    serving.ended(&*error);
                }
                return;
            }
            () = member.changed() => {}
            () = sleep_until(look) => {}
            _ = stopped.changed(), if !stopping => {
                stopping = true;
                served.as_mut().graceful_shutdown();
            }
        }
    };
    debug!(?why, "a connection is closed");
    serving.metrics.visited(visit(why));
    match why {
        Why::Idle | Why::SentAway => {
            served.as_mut().graceful_shutdown();
            // Whether it says goodbye or not, it ends.
            let _ = timeout(GRACE, served).await;
        }
        Why::MadeRoom => {
            served.as_mut().graceful_shutdown();
            say_once(served).await;
        }
        Why::Silent | Why::Slow | Why::Flood => {}
    }
}

/// Writes what can be written at once, and waits for nothing: its place is taken already.
async fn say_once(mut served: Pin<&mut impl Future>) {
    poll_fn(|context| {
        let _ = served.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
}

impl<S> Serving<S> {
    /// When the connection is to be looked at again, or why it ends.
    fn next_look(&self, member: &Member) -> Result<Instant, Why> {
        let at_least = Duration::from_millis((self.settings.answer_ms / LOOKS).max(100));
        let soon = Instant::now() + at_least;
        match self.host.verdict(member) {
            Verdict::Stay(until) => Ok(self.host.instant(until).map_or(soon, |until| until.min(soon))),
            Verdict::End(why) => Err(why),
        }
    }

    /// A connection has ended with an error: of the caller's, or because he is gone.
    fn ended(&self, error: &(dyn Error + 'static)) {
        debug!(error = %Chain(error), "a connection ended");
        if let Some(why) = fault(error) {
            self.metrics.visited(why);
        }
    }
}

fn visit(why: Why) -> Visit {
    match why {
        Why::Silent => Visit::Silent,
        Why::Idle => Visit::Idle,
        Why::Slow => Visit::Slow,
        Why::Flood => Visit::Flood,
        Why::SentAway => Visit::SentAway,
        Why::MadeRoom => Visit::MadeRoom,
    }
}

/// What the caller did; `None`: nothing but going away.
fn fault(error: &(dyn Error + 'static)) -> Option<Visit> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            if error.is_parse_too_large() {
                return Some(Visit::HeaderTooLarge);
            }
            if error.is_timeout() {
                return Some(Visit::Slow);
            }
            if error.is_parse() {
                return Some(Visit::Malformed);
            }
        }
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return match error.reason() {
                Some(_) if error.is_remote() => None,
                Some(h2::Reason::ENHANCE_YOUR_CALM) => Some(Visit::Flood),
                Some(h2::Reason::NO_ERROR | h2::Reason::CANCEL) | None => None,
                Some(_) => Some(Visit::Malformed),
            };
        }
        cause = error.source();
    }
    None
}

/// An error and what it came from, on one line.
struct Chain<'a>(&'a (dyn Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
