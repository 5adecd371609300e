//! The connection to the broker: whether it is up, and a new one when the old one is lost or past saving.
//!
//! A client of the library has one connection here and never another. The library would reconnect by itself and send what
//! was still queued, before the relay could open its session anew; it also keeps an entry for each reply that never came,
//! and has been seen to stay deaf after an outage. So a client that lost its connection is dropped with all it had queued,
//! and [`keep_up`] puts a new one in its place.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::jetstream::context::{Context, ContextBuilder};
use async_nats::{
    Auth, AuthError, Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerAddr,
};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::OpenError;
use super::address::{Address, Credentials};
use super::shared::Shared;

/// How long one request may take. Longer than a slow disk under load needs; a connection that breaks is noticed at once.
pub(super) const REQUEST: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(5);
/// A frozen machine at the other end is found out by a ping.
const PING: Duration = Duration::from_secs(5);
/// Between two attempts to get a connection.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// Attempts of one client of the library, more than there are servers in a cluster: one that has lost its connection
/// is not let in again, gives up after these, and is gone.
const ATTEMPTS_MAX: usize = 16;
/// Replies that never came, after which the client is replaced for what it keeps of them.
const LOST_REPLIES_MAX: u32 = 16;

/// One client of the library.
pub(super) struct Wire {
    number: u64,
    pub(super) client: Client,
    pub(super) context: Context,
}

impl Wire {
    /// Which connection it is, counted from 0.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

/// What is known of the connection. Each change of it breaks what was waiting for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkState {
    wire: u64,
    changes: u64,
    pub(super) up: bool,
}

pub(super) struct Link {
    address: Address,
    wire: RwLock<Arc<Wire>>,
    state: watch::Sender<LinkState>,
    replacing: tokio::sync::Mutex<()>,
    lost_replies: AtomicU32,
    /// Whether it was said that the broker cannot be reached.
    told: AtomicBool,
}

impl Link {
    pub(super) async fn open(address: Address) -> Result<Self, OpenError> {
        let state = watch::Sender::new(LinkState { wire: 0, changes: 0, up: true });
        let wire = connect(&address, 0, state.clone()).await.map_err(|error| refusal(&address, &error))?;
        Ok(Self {
            address,
            wire: RwLock::new(Arc::new(wire)),
            state,
            replacing: tokio::sync::Mutex::default(),
            lost_replies: AtomicU32::new(0),
            told: AtomicBool::new(false),
        })
    }

    pub(super) fn wire(&self) -> Arc<Wire> {
        Arc::clone(&self.wire.read())
    }

    pub(super) fn context(&self) -> Context {
        self.wire().context.clone()
    }

    pub(super) fn watch(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// The number of the connection, counted from 0.
    pub(super) fn number(&self) -> u64 {
        self.wire.read().number
    }

    pub(super) fn is_up(&self) -> bool {
        self.state.borrow().up
    }

    /// Waits for a connection, at most as long as for a reply. Answers whether there is one.
    pub(super) async fn ready(&self) -> bool {
        let mut state = self.watch();
        let up = state.wait_for(|state| state.up);
        matches!(timeout(REQUEST, up).await, Ok(Ok(_)))
    }

    /// Notes that a reply never came.
    pub(super) fn lost_reply(&self) {
        self.lost_replies.fetch_add(1, Ordering::Relaxed);
    }

    /// Replaces the client if too many replies to it were lost.
    pub(super) async fn replace_if_worn(&self) {
        if self.lost_replies.load(Ordering::Relaxed) >= LOST_REPLIES_MAX {
            self.replace(&self.wire()).await;
        }
    }

    /// Puts a new client in the place of `worn`, unless somebody has done so already.
    pub(super) async fn replace(&self, worn: &Wire) {
        let _one = self.replacing.lock().await;
        if self.wire.read().number != worn.number {
            return;
        }
        let number = worn.number + 1;
        match connect(&self.address, number, self.state.clone()).await {
            Ok(wire) => {
                tracing::info!(address = %self.address, "a new connection to the broker");
                *self.wire.write() = Arc::new(wire);
                self.lost_replies.store(0, Ordering::Relaxed);
                self.told.store(false, Ordering::Relaxed);
                self.state.send_modify(|state| {
                    *state = LinkState { wire: number, changes: state.changes + 1, up: true };
                });
            }
            // Said once for each outage, not at every attempt.
            Err(error) if !self.told.swap(true, Ordering::Relaxed) => {
                tracing::warn!(address = %self.address, %error, "the broker cannot be reached");
            }
            Err(error) => tracing::debug!(address = %self.address, %error, "the broker cannot be reached"),
        }
    }
}

async fn connect(
    address: &Address,
    number: u64,
    state: watch::Sender<LinkState>,
) -> Result<Wire, ConnectError> {
    let servers = address.urls().iter().map(|url| url.parse()).collect::<Result<Vec<ServerAddr>, _>>();
    let servers = servers.map_err(|error| ConnectError::with_source(ConnectErrorKind::ServerParse, error))?;
    let (opened, credentials) = (Arc::new(AtomicBool::new(false)), address.credentials.clone());
    let has_opened = Arc::clone(&opened);
    // Asked before every connection. The library has no other way to say that there shall be one only.
    let options = ConnectOptions::with_auth_callback(move |_| {
        let may = !has_opened.load(Ordering::Acquire);
        let auth = if may { Ok(auth(credentials.as_ref())) } else { Err(AuthError::new("connected once")) };
        std::future::ready(auth)
    });
    let client = options
        .name("dormouse-relay")
        .require_tls(address.tls)
        .connection_timeout(CONNECT)
        .request_timeout(Some(REQUEST))
        .ping_interval(PING)
        .reconnect_delay_callback(|attempt| PAUSE_MIN * u32::try_from(attempt.min(25)).unwrap_or(1))
        .max_reconnects(ATTEMPTS_MAX)
        .event_callback(move |event| {
            note(&state, number, &event);
            std::future::ready(())
        })
        .connect(servers);
    let timed_out = |_| ConnectError::new(ConnectErrorKind::TimedOut);
    let client = timeout(2 * CONNECT, client).await.map_err(timed_out)??;
    opened.store(true, Ordering::Release);
    let context = ContextBuilder::new().timeout(REQUEST).build(client.clone());
    Ok(Wire { number, client, context })
}

fn auth(credentials: Option<&Credentials>) -> Auth {
    let mut auth = Auth::new();
    match credentials {
        Some(Credentials::Password { user, password }) => {
            (auth.username, auth.password) = (Some(user.clone()), Some(password.clone()));
        }
        Some(Credentials::Token(token)) => auth.token = Some(token.clone()),
        None => {}
    }
    auth
}

/// Puts a new connection in the place of one that was lost, until the log is gone.
pub(super) async fn keep_up(log: Weak<Shared>, mut state: watch::Receiver<LinkState>) {
    let mut pause = PAUSE_MIN;
    while state.wait_for(|state| !state.up).await.is_ok() {
        let Some(log) = log.upgrade().filter(|log| !log.standing.has_ended()) else { return };
        log.link.replace(&log.link.wire()).await;
        if log.link.is_up() {
            pause = PAUSE_MIN;
        } else {
            drop(log);
            sleep(pause).await;
            pause = PAUSE_MAX.min(2 * pause);
        }
    }
}

/// Events of a client that was replaced mean nothing any more.
fn note(state: &watch::Sender<LinkState>, number: u64, event: &Event) {
    let up = match event {
        Event::Connected => true,
        Event::Disconnected => false,
        other => return tracing::debug!(event = %other, "the broker's client"),
    };
    state.send_if_modified(|state| {
        let news = state.wire == number && state.up != up;
        if news {
            *state = LinkState { changes: state.changes + 1, up, ..*state };
            tracing::warn!(up, "the connection to the broker");
        }
        news
    });
}

fn refusal(address: &Address, error: &ConnectError) -> OpenError {
    let address = address.to_string();
    match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            OpenError::Credentials { address }
        }
        _ => OpenError::Unreachable { address, detail: error.to_string() },
    }
}
