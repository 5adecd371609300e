//! The port: accepts connections and, with TLS, shakes hands, before any of their bytes means anything.
//!
//! Whoever can reach the port can hold a connection, so every one has a place in the crowd, a time in which it has to
//! say what it wants, and a conduct that is watched while it stays. Handshakes run beside each other and beside the
//! accepting, because a caller may take as long as it likes for its part; they begin at a pace, because one costs as
//! much processor time as fifty calls. Accepting never waits: what cannot be kept is closed, the oldest first.

mod conduct;
mod connection;
mod crowd;
mod farewell;
mod member;
mod open_files;
mod pace;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, rustls};
use tracing::{debug, warn};

use crate::{
    clock::Clock,
    config::ConnectionSettings,
    doors::{Doors, Tls},
    metrics::{Handshake, Metrics, Visit},
};

pub(crate) use conduct::{Ended, Millis, Patience, Verdict, Why};
pub(crate) use connection::Connection;
use connection::Stream;
use crowd::{Crowd, Room, TurnedAway};
pub(crate) use member::Member;
use pace::Pace;

/// After a failure to accept, most often for want of file descriptors, which somebody has to give back first.
const BREATH: Duration = Duration::from_millis(50);
/// Connections that are ready and not yet taken.
const READY: usize = 64;
/// Who is told at once why he is turned away; the next ones are just closed.
const FAREWELLS: usize = 64;
/// Between two lines in the log about connections that were turned away.
const LINES: Duration = Duration::from_secs(10);

/// What all connections have in common.
#[derive(Debug)]
pub(crate) struct Host {
    settings: ConnectionSettings,
    patience: Patience,
    crowd: Crowd,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Host {
    fn new(settings: ConnectionSettings, clock: Clock, metrics: Arc<Metrics>) -> Self {
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let room = Room {
            all: open_files::connections(settings.connections_max),
            per_address: count(settings.connections_per_address_max),
            newcomers: count(settings.handshakes_max),
        };
        let patience = Patience {
            greeting: Duration::from_millis(settings.handshake_ms),
            idle: Duration::from_millis(settings.idle_ms),
            answer: Duration::from_millis(settings.answer_ms),
        };
        Self { settings, patience, crowd: Crowd::new(room), clock, metrics }
    }

    /// By the time in which a relay that stood still finds no call late.
    pub(crate) fn now(&self) -> Millis {
        self.clock.now().0
    }

    /// When that is at the earliest.
    pub(crate) fn instant(&self, at: Millis) -> Option<Instant> {
        Instant::now().checked_add(Duration::from_millis(at.saturating_sub(self.now())))
    }

    pub(crate) fn verdict(&self, member: &Member) -> Verdict {
        member.verdict(&self.patience, self.now())
    }

    fn left(&self, member: &Member) {
        self.crowd.leave(member);
        self.metrics.visitor_left();
    }

    /// What somebody hears who finds no room.
    fn refusal(&self, why: TurnedAway) -> String {
        let ConnectionSettings { connections_max, connections_per_address_max, .. } = self.settings;
        match why {
            TurnedAway::Full => {
                format!(
                    "all connections of this relay are busy (connections_max = {connections_max}), come back later"
                )
            }
            TurnedAway::AddressFull => format!(
                "all connections of your address are busy (connections_per_address_max = \
                 {connections_per_address_max}), come back later"
            ),
        }
    }
}

/// Accepts until the receiver is dropped; handshakes that are under way then are given up.
pub(crate) fn connections(
    listener: TcpListener,
    settings: ConnectionSettings,
    doors: &Doors,
    clock: Clock,
    metrics: Arc<Metrics>,
) -> (Arc<Host>, mpsc::Receiver<Connection>) {
    let (ready, incoming) = mpsc::channel(READY);
    let host = Arc::new(Host::new(settings, clock, metrics));
    let port = Port {
        host: Arc::clone(&host),
        tls: doors.tls.clone(),
        pace: Pace::per_second(settings.handshakes_per_second_max),
        farewells: Arc::new(Semaphore::new(FAREWELLS)),
        quiet_until: None,
        under_way: JoinSet::new(),
        ready: ready.clone(),
    };
    tokio::spawn(async move {
        tokio::select! {
            () = ready.closed() => {}
            () = port.accept(&listener) => {}
        }
    });
    (host, incoming)
}

/// The accepting side.
struct Port {
    host: Arc<Host>,
    tls: Option<Arc<Tls>>,
    pace: Pace,
    farewells: Arc<Semaphore>,
    quiet_until: Option<Instant>,
    under_way: JoinSet<()>,
    ready: mpsc::Sender<Connection>,
}

impl Port {
    async fn accept(mut self, listener: &TcpListener) {
        loop {
            while self.under_way.try_join_next().is_some() {}
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "a connection was not accepted");
                    sleep(BREATH).await;
                    continue;
                }
            };
            // Without TCP_NODELAY every cold connection waits 40 ms for a delayed acknowledgement.
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%error, "TCP_NODELAY is not set");
            }
            match self.host.crowd.admit(address.ip(), self.host.now()) {
                Ok(member) => {
                    self.host.metrics.visitor_came();
                    if !self.take_in(stream, member).await {
                        return;
                    }
                }
                Err(why) => self.turn_away(stream, address, why),
            }
        }
    }

    /// Answers whether anybody still takes connections.
    async fn take_in(&mut self, stream: TcpStream, member: Arc<Member>) -> bool {
        let host = Arc::clone(&self.host);
        let Some(tls) = &self.tls else {
            let connection = Connection::new(Stream::Plain(stream), member, host);
            return self.ready.send(connection).await.is_ok();
        };
        let Some(turn) = self.pace.turn(host.now(), host.settings.handshake_ms) else {
            host.metrics.visited(Visit::Hurried);
            host.left(&member);
            return true;
        };
        let acceptor = TlsAcceptor::from(tls.current());
        let ready = self.ready.clone();
        self.under_way.spawn(async move {
            if turn > 0 {
                sleep(Duration::from_millis(turn)).await;
            }
            shake_hands(acceptor, stream, member, host, ready).await;
        });
        true
    }

    fn turn_away(&mut self, stream: TcpStream, address: SocketAddr, why: TurnedAway) {
        self.host.metrics.visited(match why {
            TurnedAway::Full => Visit::Full,
            TurnedAway::AddressFull => Visit::AddressFull,
        });
        let now = Instant::now();
        if self.quiet_until.is_none_or(|until| now >= until) {
            self.quiet_until = Some(now + LINES);
            warn!(%address, "a connection was turned away, and maybe others since: {}", self.host.refusal(why));
        }
        // Under TLS words take a handshake, which costs more than they are worth.
        let Ok(place) = Arc::clone(&self.farewells).try_acquire_owned() else { return };
        if self.tls.is_none() {
            let words = self.host.refusal(why);
            tokio::spawn(async move {
                farewell::say(stream, &words).await;
                drop(place);
            });
        }
    }
}

async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    member: Arc<Member>,
    host: Arc<Host>,
    ready: mpsc::Sender<Connection>,
) {
    let time = host.patience.greeting;
    let shaken = tokio::select! {
        shaken = timeout(time, acceptor.accept(stream)) => shaken,
        // Somebody newer has its place.
        () = member.changed() => {
            host.metrics.visited(Visit::MadeRoom);
            host.left(&member);
            return;
        }
    };
    let outcome = match shaken {
        Ok(Ok(stream)) => {
            host.metrics.shook_hands(Handshake::Done);
            member.shook_hands(host.now());
            // Nobody takes it any more when the relay stops.
            let _ = ready.send(Connection::new(Stream::Tls(Box::new(stream)), member, host)).await;
            return;
        }
        Ok(Err(error)) => {
            debug!(%error, "a handshake failed");
            outcome(&error)
        }
        Err(_) => {
            debug!("a handshake took too long");
            Handshake::TimedOut
        }
    };
    host.metrics.shook_hands(outcome);
    host.left(&member);
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
