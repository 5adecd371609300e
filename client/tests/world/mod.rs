//! A relay on a port of its own, with a log that vanishes.

use std::sync::Arc;

use dormouse::{Node, NodeBuilder};
use dormouse_relay::{
    config::Config,
    grpc,
    log::embedded::{Embedded, Options},
    relay::Relay,
};
use tempfile::TempDir;
use tokio::net::TcpListener;

pub(crate) struct World {
    pub(crate) url: String,
    _folder: TempDir,
}

impl World {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options { max_frame_bytes: 2 << 20, ..Options::default() };
        let log = Embedded::open(folder.path(), options).expect("a log");
        let config = Config { data_dir: folder.path().to_owned(), ..Config::default() };
        let started = Relay::start(config, Arc::new(log)).await.expect("a relay");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            let served = grpc::serve(started.relay.clone(), listener, std::future::pending()).await;
            drop((served, started));
        });
        Self { url, _folder: folder }
    }

    pub(crate) fn builder(&self, group: &str) -> NodeBuilder {
        Node::builder()
            .url(&self.url)
            .group(group)
            .tag("zone", "a")
            .budget(std::time::Duration::from_secs(10))
    }

    pub(crate) fn node(&self, group: &str) -> Node {
        self.builder(group).build().expect("valid")
    }
}
