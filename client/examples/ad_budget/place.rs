//! What the crowd does with its relay.

use std::{collections::BTreeMap, error::Error, io, time::Duration};

use dormouse::{MemberFilter, MemberState, Relay, delta, replica::message::Rows};
use dormouse_relay::liveness::{LeaseSettings, Millis};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{function::SHOWN, process::Process, relay_here::RelayHere};

/// Before somebody counts as not there.
const PATIENCE: Duration = Duration::from_millis(500);

pub(crate) struct Place {
    namespace: String,
    here: RelayHere,
    relay: Relay,
}

impl Place {
    /// A relay that is started here gives up a function that sleeps for ten seconds, so that those that were killed are
    /// seen to end within the run.
    pub(crate) async fn find_or_start() -> Result<Self, Box<dyn Error>> {
        let leases = LeaseSettings { asleep: Millis::from_secs(10), ..LeaseSettings::default() };
        let here = RelayHere::find_or_start(leases).await?;
        // A namespace of its own, because it sets the counter back.
        let named = std::env::var("DORMOUSE_NAMESPACE").ok().filter(|name| !name.is_empty());
        let namespace = named.unwrap_or_else(|| "ad-budget".to_owned());
        let relay = Relay::builder().url(&here.url).namespace(&namespace).build()?;
        Ok(Self { namespace, here, relay })
    }

    pub(crate) fn introduction(&self) -> String {
        let Self { namespace, here, .. } = self;
        format!(
            "{}\nlook on with: DORMOUSE_URL={} DORMOUSE_NAMESPACE={namespace} dormouse watch --activity",
            here.introduction(),
            here.url
        )
    }

    pub(crate) fn start_function(&self) -> io::Result<Process> {
        Process::start(&self.here.url, &self.namespace)
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
        let page = timeout(PATIENCE, fetch(&self.here.admin)).await.ok()?.ok()?;
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
