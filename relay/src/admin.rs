//! The port of operators: whether the process runs, whether it serves, and its numbers.
//!
//! `/livez` says only that the process answers: a relay that cannot reach its log must not be restarted for that,
//! because it goes on serving what it holds. `/readyz` is what a load balancer asks.

use std::{io, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::oneshot};

use crate::metrics::{self, Gauges, Metrics};

/// How long open connections may hold up the end of the process.
const LAST_WORDS: Duration = Duration::from_secs(1);

const INDEX: &str = "dormouse-relay

/livez    200 while the process runs
/readyz   200 while it serves, and what its log promises; else 503 and a line for each reason
/metrics  OpenMetrics, for Prometheus
";

/// What the relay knows of itself. Asked for at every request; must not block.
pub trait Readiness: Send + Sync + 'static {
    /// A line for each thing that keeps the relay from serving; none: it serves.
    fn unmet(&self) -> Vec<String>;
    /// What it promises while it serves, a line each.
    fn promises(&self) -> Vec<String> {
        Vec::new()
    }
    /// The numbers of its state.
    fn gauges(&self) -> Gauges;
}

#[derive(Clone)]
struct Admin {
    metrics: Arc<Metrics>,
    readiness: Arc<dyn Readiness>,
}

/// Answers until `shutdown` comes to its end, and then for at most a second, so that a caller that never finishes its
/// request cannot keep the relay running.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    readiness: Arc<dyn Readiness>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/", get(async || INDEX))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(numbers))
        .with_state(Admin { metrics, readiness });
    let (ending, ended) = oneshot::channel::<()>();
    let graceful = axum::serve(listener, router).with_graceful_shutdown(async move {
        shutdown.await;
        drop(ending);
    });
    tokio::select! {
        served = graceful.into_future() => served,
        () = async { let _ = ended.await; tokio::time::sleep(LAST_WORDS).await } => Ok(()),
    }
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let unmet = admin.readiness.unmet();
    if unmet.is_empty() {
        let lines: Vec<String> = std::iter::once("ok".to_owned()).chain(admin.readiness.promises()).collect();
        return (lines.join("\n") + "\n").into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, unmet.join("\n") + "\n").into_response()
}

async fn numbers(State(admin): State<Admin>) -> Response {
    match admin.metrics.encode(&admin.readiness.gauges()) {
        Ok(page) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error, net::SocketAddr};

    use parking_lot::Mutex;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        task::JoinHandle,
    };

    use super::*;

    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);

    impl Readiness for Told {
        fn unmet(&self) -> Vec<String> {
            self.0.lock().clone()
        }

        fn promises(&self) -> Vec<String> {
            vec!["log: memory".to_owned()]
        }

        fn gauges(&self) -> Gauges {
            Gauges { rows: 5, ..Gauges::default() }
        }
    }

    struct Running {
        address: SocketAddr,
        told: Arc<Told>,
        stop: oneshot::Sender<()>,
        served: JoinHandle<io::Result<()>>,
    }

    async fn start() -> io::Result<Running> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let told = Arc::new(Told::default());
        let (stop, stopped) = oneshot::channel();
        let stopped = async { stopped.await.unwrap_or_default() };
        let served = tokio::spawn(serve(listener, Arc::default(), told.clone(), stopped));
        Ok(Running { address, told, stop, served })
    }

    impl Running {
        async fn get(&self, path: &str) -> io::Result<String> {
            let mut stream = TcpStream::connect(self.address).await?;
            let request = format!("GET {path} HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok(answer)
        }
    }

    #[tokio::test]
    async fn every_page_answers() -> Result<(), Box<dyn Error>> {
        let relay = start().await?;
        for (path, status, content) in [
            ("/livez", "200 OK", "ok\n"),
            ("/readyz", "200 OK", "\r\n\r\nok\nlog: memory\n"),
            ("/", "200 OK", "/readyz"),
            ("/metrics", "200 OK", "\ndormouse_rows 5\n"),
            (
                "/metrics",
                "200 OK",
                "\r\ncontent-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n",
            ),
            ("/state", "404 Not Found", ""),
        ] {
            let answer = relay.get(path).await?;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{path}: {answer}");
            assert!(answer.contains(content), "{path}: {answer}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_relay_that_does_not_serve_says_why_and_lives() -> Result<(), Box<dyn Error>> {
        let relay = start().await?;
        relay.told.0.lock().extend(["log unreachable".to_owned(), "reading the log".to_owned()]);
        let answer = relay.get("/readyz").await?;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\nlog unreachable\nreading the log\n"), "{answer}");
        assert!(relay.get("/livez").await?.starts_with("HTTP/1.1 200 "));
        Ok(())
    }

    #[tokio::test]
    async fn a_caller_that_never_finishes_does_not_hold_up_the_end() -> Result<(), Box<dyn Error>> {
        let relay = start().await?;
        let mut slow = TcpStream::connect(relay.address).await?;
        slow.write_all(b"GET /livez HTTP/1.1\r\n").await?;
        // The second connection is answered after the first was accepted.
        relay.get("/livez").await?;
        assert_eq!(relay.stop.send(()), Ok(()));
        tokio::time::timeout(LAST_WORDS * 10, relay.served).await???;
        Ok(())
    }
}
