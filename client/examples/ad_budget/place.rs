//! Where the relay is: one that answers already, or one of our own, in this process and on a log that vanishes.

use std::{collections::BTreeMap, error::Error, io, net::SocketAddr, sync::Arc, time::Duration};

use dormouse::{MemberFilter, MemberState, Relay, delta, replica::message::Rows};
use dormouse_relay::{
    admin,
    config::Config,
    grpc,
    liveness::{LeaseSettings, Millis},
    log::embedded::{Embedded, Options},
    relay::Relay as OwnRelay,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{function::SHOWN, process::Process};

/// Before somebody counts as not there.
const PATIENCE: Duration = Duration::from_millis(500);

pub(crate) struct Place {
    url: String,
    namespace: String,
    admin: String,
    relay: Relay,
    own_log: Option<TempDir>,
}

impl Place {
    pub(crate) async fn find_or_start() -> Result<Self, Box<dyn Error>> {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let url = var("DORMOUSE_URL").unwrap_or_else(|| "http://127.0.0.1:7400".to_owned());
        // A namespace of its own, because it sets the counter back.
        let namespace = var("DORMOUSE_NAMESPACE").unwrap_or_else(|| "ad-budget".to_owned());
        let connect = |url: &str| Relay::builder().url(url).namespace(&namespace).build();
        let is_there = Relay::builder().url(&url).timeout(PATIENCE).build()?.info().await.is_ok();
        if is_there {
            let relay = connect(&url)?;
            let admin = var("DORMOUSE_ADMIN_LISTEN").unwrap_or_else(|| "127.0.0.1:7401".to_owned());
            return Ok(Self { url, namespace, admin, relay, own_log: None });
        }
        let folder = tempfile::tempdir()?;
        let (grpc, admin) = start_own(&folder).await?;
        let url = format!("http://{grpc}");
        let relay = connect(&url)?;
        Ok(Self { url, namespace, admin: admin.to_string(), relay, own_log: Some(folder) })
    }

    pub(crate) fn introduction(&self) -> String {
        let Self { url, namespace, .. } = self;
        let whose =
            if self.own_log.is_some() { "no relay is running, so this is one of our own:" } else { "relay:" };
        format!(
            "{whose} {url}\nlook on with: DORMOUSE_URL={url} DORMOUSE_NAMESPACE={namespace} dormouse watch --activity"
        )
    }

    pub(crate) fn start_function(&self) -> io::Result<Process> {
        Process::start(&self.url, &self.namespace)
    }

    /// An earlier run may have spent something.
    pub(crate) async fn clear_counter(&self) -> Result<(), Box<dyn Error>> {
        self.relay.write(None, vec![delta::counter_reset(&SHOWN.parse()?)]).await?;
        Ok(())
    }

    pub(crate) async fn spent(&self) -> Result<i64, Box<dyn Error>> {
        let keys = self.relay.read(&[SHOWN]).await?.keys;
        let mut counters = keys.iter().filter_map(|key| match key.rows {
            Rows::Counter { value, .. } => Some(value),
            _ => None,
        });
        counters.next().ok_or_else(|| format!("{SHOWN} is not there").into())
    }

    pub(crate) async fn members_by_state(&self) -> Result<BTreeMap<String, u64>, Box<dyn Error>> {
        use MemberState::{Asleep, Awake, Gone, Suspect};
        let states = vec![Awake, Asleep, Suspect, Gone];
        let filter = MemberFilter { states, groups: vec!["ads".to_owned()], ..MemberFilter::default() };
        let counts = self.relay.count(&filter, &["state"]).await?;
        let named = |count: dormouse::MemberCount| {
            (count.by.get("state").cloned().unwrap_or_default().to_lowercase(), count.members)
        };
        Ok(counts.into_iter().map(named).collect())
    }

    /// The relay's own counters, if its admin port can be reached from here.
    pub(crate) async fn numbers(&self) -> Option<Numbers> {
        let page = timeout(PATIENCE, fetch(&self.admin)).await.ok()?.ok()?;
        Some(Numbers(page.lines().filter_map(number).collect()))
    }
}

/// What the relay counts, by name.
pub(crate) struct Numbers(BTreeMap<String, u64>);

impl Numbers {
    pub(crate) fn since(&self, before: &Self, name: &str) -> u64 {
        let of = |numbers: &Self| numbers.0.get(name).copied().unwrap_or(0);
        of(self).saturating_sub(of(before))
    }
}

/// A line of the text format of `OpenMetrics`.
fn number(line: &str) -> Option<(String, u64)> {
    let (name, value) = line.strip_prefix("dormouse_")?.rsplit_once(' ')?;
    Some((name.to_owned(), value.parse().ok()?))
}

async fn fetch(admin: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n").await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}

/// Started as its own program would, but for two things: it ends with this process, and a function that sleeps for ten
/// seconds is given up, so that those that were killed are seen to end within the run.
async fn start_own(folder: &TempDir) -> Result<(SocketAddr, SocketAddr), Box<dyn Error>> {
    let leases = LeaseSettings { asleep: Millis::from_secs(10), ..LeaseSettings::default() };
    let config = Config { data_dir: folder.path().to_owned(), leases, ..Config::default() };
    let options = Options { max_frame_bytes: 2 << 20, ..Options::default() };
    let log = Embedded::open(folder.path(), options)?;
    let started = OwnRelay::start(config, Arc::new(log)).await?;
    let (grpc_port, admin_port) =
        (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    let addresses = (grpc_port.local_addr()?, admin_port.local_addr()?);
    let relay = started.relay.clone();
    let numbers = Arc::clone(&relay.metrics);
    tokio::spawn(admin::serve(admin_port, numbers, Arc::new(relay.clone()), std::future::pending()));
    tokio::spawn(async move {
        let served = grpc::serve(relay, grpc_port, std::future::pending()).await;
        drop((served, started));
    });
    Ok(addresses)
}
