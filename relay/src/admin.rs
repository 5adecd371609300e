//! The port of operators: whether the process runs, whether it serves, and its numbers.
//!
//! `/livez` says only that the process answers: a relay that cannot reach its log must not be restarted for that,
//! because it goes on serving what it holds. `/readyz` is what a load balancer asks. `/` is a page for people (`page`),
//! which asks for `/state.json` once a second (`state`). All of it is for reading: nothing here changes the relay.

mod page;
mod state;
#[cfg(test)]
mod tests;

use std::{io, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::oneshot};

use crate::{
    history::Recent,
    metrics::{self, Gauges, Metrics},
};

/// How long open connections may hold up the end of the process.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Who the relay is. No address of the log: those carry passwords.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Its name: that of its session.
    pub relay: String,
    /// Which log it is on.
    pub log: &'static str,
    /// What an acknowledgement of that survives, in a word.
    pub durability: &'static str,
    /// Where an acknowledged write is.
    pub acknowledged: &'static str,
    /// Relays on that log, this one included.
    pub relays: u64,
    /// Since it started, without its own pauses.
    pub uptime_ms: u64,
}

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
    /// Who it is.
    fn about(&self) -> About {
        About::default()
    }
    /// Its figures of the last minutes, from that sample on.
    fn recent(&self, from: u64) -> Recent {
        let _ = from;
        Recent::default()
    }
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
        .route("/", get(page::html))
        .route("/page.css", get(page::css))
        .route("/page.js", get(page::js))
        .route("/state.json", get(state::json))
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

/// `OpenMetrics`, unless the caller asks for nothing but the older format.
async fn numbers(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let accepted = headers.get(ACCEPT).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let wants_plain = accepted.contains("text/plain") && !accepted.contains("openmetrics");
    match admin.metrics.encode(&admin.readiness.gauges()) {
        Ok(page) if wants_plain => {
            ([(CONTENT_TYPE, metrics::PLAIN_CONTENT_TYPE)], metrics::plain(&page)).into_response()
        }
        Ok(page) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
