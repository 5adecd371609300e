//! The relay: reads its configuration, starts, waits, stops.

use std::{env, error::Error, path::Path, process::ExitCode, sync::Arc, time::Duration};

use dormouse_relay::{
    admin,
    config::{Broker, Config, is_on_this_machine},
    doors::Doors,
    grpc,
    log::{
        Log,
        embedded::{self, Embedded},
        nats::{self, Nats},
        rabbitmq::{self, RabbitMq},
    },
    metrics::Metrics,
    progress::Starting,
    relay::{Relay, Started},
    restore, telemetry,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::{info, warn};

// Many small buffers are made by one thread and freed by another, which the system allocator does not like.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A frame holds a push of 1 MiB with what is around it, behind a group that was nearly full.
const FRAME_MAX: usize = 2 << 20;

const USAGE: &str = "usage: dormouse-relay, which serves, or dormouse-relay restore FILE, which begins an empty log with a \
                     backup; the settings of both are in the environment (DORMOUSE_...) and in dormouse.toml";

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<_> = env::args_os().skip(1).collect();
    let done = match words.as_slice() {
        [] => run().await,
        [verb, file] if verb == "restore" => restore_from(Path::new(file)).await,
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dormouse-relay: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("  because: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

/// Begins the log that the settings name with a backup, and ends.
async fn restore_from(file: &Path) -> Result<(), Box<dyn Error>> {
    let config = Config::load()?;
    let _telemetry = telemetry::start(&config)?;
    // Before the log is opened, which makes one where there is none.
    let checked = restore::check(file).await?;
    let log = open_log(&config).await?;
    let restored = restore::restore(&checked, &*log).await;
    let place = where_the_log_is(&config, &*log).await?;
    log.close().await;
    let (restored, taken) = (restored?, checked.header());
    println!(
        "restored revision {} into the {place}: {} rows, {} members, {} namespaces. It goes on at revision {}; start the relay now",
        taken.revision,
        restored.counts.rows,
        restored.counts.members,
        restored.counts.namespaces,
        restored.revision
    );
    Ok(())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let config = Config::load()?;
    let _telemetry = telemetry::start(&config)?;
    let doors = Doors::open(&config)?;
    warn_of_what_is_open(&config);
    let log = open_log(&config).await?;
    let listener = bind(config.listen, "DORMOUSE_LISTEN").await?;
    let admin_listener = bind(config.admin_listen, "DORMOUSE_ADMIN_LISTEN").await?;
    println!("dormouse-relay {}: {}", env!("CARGO_PKG_VERSION"), where_the_log_is(&config, &*log).await?);
    println!("serving on {}, admin on http://{}", listener.local_addr()?, admin_listener.local_addr()?);

    let is_shared = !log.is_exclusive();
    let mut starting = Starting::default();
    let started = Relay::start_telling(config, log, &mut |reading| starting.reach(reading)).await?;
    drop(starting);
    let (stop, stopping) = watch::channel(false);
    let admin = tokio::spawn(admin::serve(
        admin_listener,
        Arc::clone(&started.relay.metrics),
        Arc::new(started.relay.clone()),
        stopped(stopping.clone()),
    ));
    let reread = tokio::spawn(reread_when_told(doors.clone(), Arc::clone(&started.relay.metrics)));
    let relay = started.relay.clone();
    let server = tokio::spawn(grpc::serve_behind(doors, relay, listener, stopped(stopping)));
    info!(relay = %started.relay.id, revision = %started.relay.sequencer.read().fold.revision(), "ready");

    let mut server = server;
    let followed = started.relay.sequencer.clone();
    tokio::select! {
        ended = terminated() => ended?,
        // Other relays go on with what the log has now, and so must this one, from the beginning.
        why = followed.lost(), if is_shared => {
            return Err(format!("{why}; started again, the relay goes on with what the log has").into());
        }
        result = &mut server => return Err(format!("the server ended: {result:?}").into()),
    }
    reread.abort();
    // What waits to be written is written when nobody can hand in more, and this could.
    drop(followed);
    finish(started, stop, server, admin).await
}

/// At every start, because what was meant for a day stays for years.
fn warn_of_what_is_open(config: &Config) {
    let exposed = config.exposed();
    if !exposed.is_empty() {
        warn!(listen = %config.listen, "DORMOUSE_INSECURE: other machines reach this relay, and {exposed}");
    }
    if !is_on_this_machine(config.admin_listen) {
        warn!(
            admin_listen = %config.admin_listen,
            "other machines reach the admin port, which asks nobody who they are and shows numbers of every namespace"
        );
    }
}

/// SIGHUP: certificate and tokens at once, for whoever has just written them.
async fn reread_when_told(doors: Doors, metrics: Arc<Metrics>) -> std::io::Result<()> {
    let mut hangups = signal(SignalKind::hangup())?;
    while hangups.recv().await.is_some() {
        info!("SIGHUP: looking at certificate and tokens");
        doors.refresh_aside(&metrics).await;
    }
    Ok(())
}

/// Ends the streams, finishes the calls that are under way, writes what waits, stores a snapshot.
async fn finish<A, B>(
    started: Started,
    stop: watch::Sender<bool>,
    server: tokio::task::JoinHandle<A>,
    admin: tokio::task::JoinHandle<B>,
) -> Result<(), Box<dyn Error>> {
    const PATIENCE: Duration = Duration::from_secs(5);
    /// For so long whoever calls is told when to come back, before connections go away.
    const LAST_WORDS: Duration = Duration::from_millis(100);
    info!("stopping: finishing the calls that are under way");
    started.announce();
    tokio::time::sleep(LAST_WORDS).await;
    stop.send_replace(true);
    let abort = (server.abort_handle(), admin.abort_handle());
    let _ = tokio::time::timeout(PATIENCE, server).await;
    let _ = tokio::time::timeout(PATIENCE, admin).await;
    // Whoever still holds a call open by now is cut off: the handles that they keep must go.
    abort.0.abort();
    abort.1.abort();
    started.stop().await;
    info!("stopped");
    Ok(())
}

async fn open_log(config: &Config) -> Result<Arc<dyn Log>, Box<dyn Error>> {
    let log: Arc<dyn Log> = match &config.broker {
        Broker::Embedded => {
            let dir = config.data_dir.clone();
            let options = embedded::Options { max_frame_bytes: FRAME_MAX, ..embedded::Options::default() };
            Arc::new(tokio::task::spawn_blocking(move || Embedded::open(dir, options)).await??)
        }
        Broker::Nats(address) => {
            let options = nats::Options { max_frame_bytes: FRAME_MAX, ..nats::Options::default() };
            Arc::new(Nats::open(address.clone(), options).await?)
        }
        Broker::RabbitMq(address) => {
            address.fits(config.snapshot_every_bytes)?;
            let options = rabbitmq::Options { max_frame_bytes: FRAME_MAX };
            Arc::new(RabbitMq::open(address.clone(), options).await?)
        }
    };
    let has = log.info().await?.durability;
    if let Some(wanted) = config.durability.filter(|wanted| has < *wanted) {
        let way = match &config.broker {
            Broker::Embedded => "",
            Broker::RabbitMq(_) => {
                "; RabbitMQ never syncs a stream before it acknowledges, so use the embedded log or NATS for that"
            }
            Broker::Nats(_) => {
                "; a NATS server syncs with `sync_interval: always` (from 2.10 on) and says so on its monitoring port, \
                 to be named in DORMOUSE_BROKER as ?monitor=HOST:PORT"
            }
        };
        return Err(format!("DORMOUSE_DURABILITY asks for {wanted:?}, this log gives {has:?}{way}").into());
    }
    Ok(log)
}

/// What the first line of output says.
async fn where_the_log_is(config: &Config, log: &dyn Log) -> Result<String, Box<dyn Error>> {
    Ok(match &config.broker {
        Broker::Embedded => format!("embedded log in {}", config.data_dir.display()),
        Broker::Nats(_) | Broker::RabbitMq(_) => {
            let info = log.info().await?;
            format!("log {} on {}, durability {:?}", info.log_id, config.broker, info.durability)
        }
    })
}

async fn bind(address: std::net::SocketAddr, key: &str) -> Result<TcpListener, Box<dyn Error>> {
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("{key}: cannot listen on {address}: {error}").into())
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn terminated() -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}
