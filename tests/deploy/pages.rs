//! The pages of the admin port, from the server that the relay has.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use dormouse_relay::{
    admin::{self, Readiness},
    metrics::{FloorGauge, Gauges, GroupGauge, Metrics, NamespaceGauge, Syncs},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A relay that is well and has one floor.
struct Well;

impl Readiness for Well {
    fn unmet(&self) -> Vec<String> {
        Vec::new()
    }

    fn gauges(&self) -> Gauges {
        let live = vec![("a".to_owned(), 1)];
        let floor = FloorGauge { floor: "workers".to_owned(), minimum: 2, live, passed_over: 0 };
        let group =
            GroupGauge { namespace: "shop".to_owned(), group: "demo".to_owned(), ..GroupGauge::default() };
        let namespace = NamespaceGauge { namespace: "shop".to_owned(), ..NamespaceGauge::default() };
        let syncs = Syncs { seconds: 0.001, buckets: vec![(f64::INFINITY, 1)] };
        Gauges {
            floors: vec![floor],
            groups: vec![group],
            namespaces: vec![namespace],
            syncs: Some(syncs),
            ..Gauges::default()
        }
    }
}

async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// What the admin port answers at that path, from the status line on.
pub(crate) fn page(path: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let answer = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let metrics = Metrics::default();
        metrics.floor_known("workers");
        // A histogram has no buckets to show before it was used.
        metrics.appended(1, Duration::from_millis(1));
        metrics.looked_late(Duration::ZERO);
        metrics.caught_up(&"shop".parse().expect("a valid name"), Some(Duration::ZERO));
        tokio::spawn(admin::serve(listener, Arc::new(metrics), Arc::new(Well), std::future::pending()));
        get(address, path).await
    });
    answer.unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether somebody who asks for that path is told that all is well.
pub(crate) fn is_well(path: &str) -> bool {
    page(path).starts_with("HTTP/1.1 200 OK\r\n")
}

#[test]
fn a_path_that_is_not_there_is_not_well() {
    assert!(is_well("/readyz") && !is_well("/healthz"));
}
