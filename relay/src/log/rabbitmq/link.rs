//! The connection to the broker, and a new one whenever anything is wrong with it.
//!
//! The client library can recover a connection by itself; its channels have been seen to stay closed for good when a
//! broker answered before its queues did, and its stream consumers start again where they were declared. So that is
//! left off: one task watches the connection, and at the first doubt drops it with all that is on it and makes another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind, Event};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt as _;

use super::OpenError;
use super::address::Address;
use crate::log::LogError;

/// How long one request may take. Longer than a slow disk under load needs; a connection that breaks is noticed at once.
pub(super) const REQUEST: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(5);
const CLOSE: Duration = Duration::from_secs(1);
/// Pause before another try to connect; doubled up to the second one behind a connection that was of no use.
const RECONNECT: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_millis(800);
/// A connection that was given up sooner was of no use: a broker answers before its queues do.
const OF_USE: Duration = Duration::from_secs(1);
/// Looks at a connection that says nothing of itself.
const LOOK: Duration = Duration::from_millis(250);
/// What AMQP calls a wrong user or password.
const ACCESS_REFUSED: u16 = 403;

/// The connections to one server. A broker without room stops reading from connections that publish, so there is one to
/// ask and to read, and one to publish.
pub(super) struct Wire {
    pub(super) number: u64,
    /// To ask and to read.
    pub(super) connection: Connection,
    publishing: Connection,
    /// In confirm mode.
    pub(super) publisher: Channel,
    /// What was published on that channel. Only the appender counts here.
    published: AtomicU64,
}

impl Wire {
    /// Another channel in confirm mode.
    pub(super) async fn confirming(&self) -> lapin::Result<Channel> {
        confirming(&self.publishing).await
    }

    fn events(&self) -> Events {
        let (one, other) = (self.connection.events_listener(), self.publishing.events_listener());
        Box::pin(Box::pin(one).merge(Box::pin(other)))
    }

    fn is_well(&self) -> bool {
        self.connection.status().connected() && self.publishing.status().connected()
    }

    /// The number of the next frame on the publishing channel.
    pub(super) fn next_number(&self) -> u64 {
        self.published.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// What is known of the connection. Each change of it breaks what was waiting for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkState {
    wire: u64,
    pub(super) up: bool,
}

struct Inner {
    address: Address,
    wire: RwLock<Arc<Wire>>,
    state: watch::Sender<LinkState>,
    /// Connections below this number are to be replaced.
    worn: watch::Sender<u64>,
    /// Why there is no connection.
    why: RwLock<String>,
    /// Why the broker takes no messages.
    blocked: watch::Sender<Option<String>>,
}

pub(super) struct Link {
    inner: Arc<Inner>,
    supervisor: AbortHandle,
}

impl Link {
    pub(super) async fn open(address: Address) -> Result<Self, OpenError> {
        let first = connect(&address, 0).await.map_err(|fault| fault.refusal(&address))?;
        let events = first.events();
        let wire = Arc::new(first);
        let inner = Arc::new(Inner {
            address,
            wire: RwLock::new(Arc::clone(&wire)),
            state: watch::Sender::new(LinkState { wire: 0, up: true }),
            worn: watch::Sender::new(0),
            why: RwLock::default(),
            blocked: watch::Sender::default(),
        });
        let supervisor = tokio::spawn(supervise(Arc::clone(&inner), wire, events)).abort_handle();
        Ok(Self { inner, supervisor })
    }

    pub(super) fn wire(&self) -> Arc<Wire> {
        Arc::clone(&self.inner.wire.read())
    }

    pub(super) fn watch(&self) -> watch::Receiver<LinkState> {
        self.inner.state.subscribe()
    }

    /// Why there is no connection, if there is none.
    pub(super) fn down(&self) -> Option<String> {
        (!self.inner.state.borrow().up).then(|| self.inner.why.read().clone())
    }

    /// Why the broker takes no messages, if it does not.
    pub(super) fn blocked(&self) -> Option<String> {
        self.inner.blocked.borrow().clone()
    }

    /// Waits until the broker takes messages, at most as long as for an answer. Answers whether it does.
    pub(super) async fn unblocked(&self) -> bool {
        let mut blocked = self.inner.blocked.subscribe();
        let unblocked = blocked.wait_for(Option::is_none);
        matches!(timeout(REQUEST, unblocked).await, Ok(Ok(_)))
    }

    /// Waits for a connection, at most as long as for an answer.
    pub(super) async fn ready(&self) -> Result<Arc<Wire>, LogError> {
        let mut state = self.watch();
        let up = state.wait_for(|state| state.up);
        match timeout(REQUEST, up).await {
            Ok(Ok(_)) => Ok(self.wire()),
            _ => Err(LogError::Failed(format!("there is no connection: {}", self.inner.why.read()))),
        }
    }

    /// Has `worn` replaced, unless it was already. What waits on it is told at once that the connection has changed, and
    /// nobody is given it any more.
    pub(super) fn replace(&self, worn: &Wire) {
        self.inner.state.send_if_modified(|state| {
            let news = state.wire == worn.number && state.up;
            state.up &= !news;
            news
        });
        self.inner.worn.send_if_modified(|number| {
            let news = *number <= worn.number;
            *number = (*number).max(worn.number + 1);
            news
        });
    }

    /// Closes the connection for good.
    pub(super) async fn close(&self) {
        self.supervisor.abort();
        "the log is closed".clone_into(&mut self.inner.why.write());
        self.inner.state.send_modify(|state| state.up = false);
        discard(&self.wire()).await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

type Events = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Event> + Send>>;

async fn supervise(inner: Arc<Inner>, mut wire: Arc<Wire>, mut events: Events) {
    let mut pause = RECONNECT;
    loop {
        let made = Instant::now();
        let why = broken(&inner, &wire, &mut events).await;
        pause = if made.elapsed() < OF_USE { RECONNECT_MAX.min(2 * pause) } else { RECONNECT };
        tracing::warn!(address = %inner.address, why, "the connection to the broker is given up");
        *inner.why.write() = why;
        inner.blocked.send_replace(None);
        inner.state.send_modify(|state| state.up = false);
        // Not awaited for its own sake: a broker that hangs would hold up the next connection.
        tokio::spawn(async move { discard(&wire).await });
        let number = inner.state.borrow().wire + 1;
        let connected = reconnect(&inner, number, pause).await;
        events = connected.events();
        wire = Arc::new(connected);
        *inner.wire.write() = Arc::clone(&wire);
        inner.state.send_replace(LinkState { wire: number, up: true });
        tracing::info!(address = %inner.address, "a new connection to the broker");
    }
}

/// Waits until a connection is of no use any more, and says why.
async fn broken(inner: &Inner, wire: &Wire, events: &mut Events) -> String {
    let mut worn = inner.worn.subscribe();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = worn.wait_for(|number| *number > wire.number) => return "it did not answer".to_owned(),
            () = sleep(LOOK) => None,
        };
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                tracing::warn!(reason, "the broker takes no messages");
                inner.blocked.send_replace(Some(reason));
            }
            Some(Event::ConnectionUnblocked) => {
                inner.blocked.send_replace(None);
            }
            _ if wire.is_well() => {}
            // The errors of single channels come here as well, and are their users' business.
            Some(Event::Error(error)) => return error.to_string(),
            _ => return "the broker has closed it".to_owned(),
        }
    }
}

async fn reconnect(inner: &Inner, number: u64, mut pause: Duration) -> Wire {
    loop {
        sleep(pause).await;
        pause = RECONNECT;
        match connect(&inner.address, number).await {
            Ok(wire) => return wire,
            Err(fault) => {
                tracing::debug!(address = %inner.address, why = fault.text, "the broker cannot be reached");
                *inner.why.write() = fault.text;
            }
        }
    }
}

async fn discard(wire: &Wire) {
    // A connection that is down already has nothing to say.
    for connection in [&wire.connection, &wire.publishing] {
        let _ = timeout(CLOSE, connection.close(200, "it is replaced".into())).await;
    }
}

struct Fault {
    is_refusal: bool,
    text: String,
}

impl Fault {
    fn silence() -> Self {
        Self { is_refusal: false, text: "it does not answer".to_owned() }
    }

    fn refusal(self, address: &Address) -> OpenError {
        let address = address.to_string();
        if self.is_refusal {
            OpenError::Credentials { address }
        } else {
            OpenError::Unreachable { address, detail: self.text }
        }
    }
}

impl From<lapin::Error> for Fault {
    fn from(error: lapin::Error) -> Self {
        let is_refusal =
            matches!(error.kind(), ErrorKind::ProtocolError(error) if error.get_id() == ACCESS_REFUSED);
        Self { is_refusal, text: error.to_string() }
    }
}

/// A connection to the first server that answers.
async fn connect(address: &Address, number: u64) -> Result<Wire, Fault> {
    let mut fault = Fault::silence();
    for uri in address.uris() {
        let called = |name: &str| ConnectionProperties::default().with_connection_name(name.into());
        let connected = timeout(CONNECT, async {
            let connection = Connection::connect_uri(uri.clone(), called("dormouse-relay")).await?;
            let publishing = Connection::connect_uri(uri, called("dormouse-relay publishing")).await?;
            let publisher = confirming(&publishing).await?;
            let published = AtomicU64::new(0);
            Ok::<_, lapin::Error>(Wire { number, connection, publishing, publisher, published })
        });
        fault = match connected.await {
            Ok(Ok(wire)) => return Ok(wire),
            Ok(Err(error)) => error.into(),
            Err(_) => Fault::silence(),
        };
    }
    Err(fault)
}

async fn confirming(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}
