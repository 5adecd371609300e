//! Where the relay of an example is: one that answers already, or one of its own, in this process and on a log that
//! vanishes with it.

use std::{error::Error, sync::Arc, time::Duration};

use dormouse::Relay;
use dormouse_relay::{
    admin,
    config::Config,
    grpc,
    liveness::LeaseSettings,
    log::embedded::{Embedded, Options},
    relay::Relay as OwnRelay,
};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// Before somebody counts as not there.
const PATIENCE: Duration = Duration::from_millis(500);

/// A relay that answers.
pub(crate) struct RelayHere {
    /// Where functions call.
    pub(crate) url: String,
    /// Where its numbers are.
    pub(crate) admin: String,
    own_log: Option<TempDir>,
}

impl RelayHere {
    /// The one that the environment names or that is usual, if it answers; otherwise one of our own with these leases.
    pub(crate) async fn find_or_start(leases: LeaseSettings) -> Result<Self, Box<dyn Error>> {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let url = var("DORMOUSE_URL").unwrap_or_else(|| "http://127.0.0.1:7400".to_owned());
        if Relay::builder().url(&url).timeout(PATIENCE).build()?.info().await.is_ok() {
            let admin = var("DORMOUSE_ADMIN_LISTEN").unwrap_or_else(|| "127.0.0.1:7401".to_owned());
            return Ok(Self { url, admin, own_log: None });
        }
        Self::start(leases).await
    }

    /// One line that says where it is.
    pub(crate) fn introduction(&self) -> String {
        let whose = match self.own_log {
            Some(_) => "no relay is running, so this is one of our own:",
            None => "relay:",
        };
        format!("{whose} {}, numbers: http://{}/metrics", self.url, self.admin)
    }

    /// As its own program would start it, but that it ends with this process.
    async fn start(leases: LeaseSettings) -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let config = Config { data_dir: folder.path().to_owned(), leases, ..Config::default() };
        let options = Options { max_frame_bytes: 2 << 20, ..Options::default() };
        let log = Embedded::open(folder.path(), options)?;
        let started = OwnRelay::start(config, Arc::new(log)).await?;
        let (grpc_port, admin_port) =
            (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
        let (grpc_at, admin_at) = (grpc_port.local_addr()?, admin_port.local_addr()?);
        let relay = started.relay.clone();
        let numbers = Arc::clone(&relay.metrics);
        tokio::spawn(admin::serve(admin_port, numbers, Arc::new(relay.clone()), std::future::pending()));
        tokio::spawn(async move {
            let served = grpc::serve(relay, grpc_port, std::future::pending()).await;
            drop((served, started));
        });
        Ok(Self { url: format!("http://{grpc_at}"), admin: admin_at.to_string(), own_log: Some(folder) })
    }
}
