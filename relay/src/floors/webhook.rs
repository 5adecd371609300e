//! Posts events to the owners of floors. Each owner has a queue and a task of its own, so that one that does not answer
//! delays its own events alone; what finds no room is dropped and counted.
//!
//! An owner may get an event twice: a try that it took and did not answer in time is repeated. All tries of one event
//! carry the same `Idempotency-Key`.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error as _,
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    http::{Request, StatusCode, Uri, header::CONTENT_TYPE},
};
use dormouse_proto::ids::{Namespace, Revision};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use tracing::{debug, warn};

use crate::{
    config::FloorSettings,
    liveness::FloorEvent,
    metrics::{Metrics, WebhookOutcome},
};

/// Events that may wait for one owner.
const WAITING: usize = 64;
/// How long one try may take, connecting included.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is waited after each try but the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

type Poster = Client<HttpConnector, Body>;

/// An event on its way to its owner.
struct Posting {
    /// The same for all tries.
    id: String,
    body: String,
}

/// The queues of those who want to be told.
pub(super) struct Owners {
    queues: HashMap<String, mpsc::Sender<Posting>>,
    metrics: Arc<Metrics>,
    relay: Arc<str>,
    posted: u64,
    /// Ends with its holder: what still waits then is not posted.
    _tasks: JoinSet<()>,
}

impl Owners {
    pub(super) fn of(
        floors: &BTreeMap<String, FloorSettings>,
        metrics: &Arc<Metrics>,
        relay: &Arc<str>,
    ) -> Self {
        // An event is rare, and by the next one the other side will have closed a connection that was kept.
        let poster: Poster = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        let (mut queues, mut tasks) = (HashMap::new(), JoinSet::new());
        for (floor, settings) in floors {
            if let Some(address) = settings.webhook.clone() {
                let (queue, waiting) = mpsc::channel(WAITING);
                queues.insert(floor.clone(), queue);
                let (floor, poster, metrics) = (floor.clone(), poster.clone(), Arc::clone(metrics));
                let owner = Owner { floor, address, poster, metrics };
                tasks.spawn(owner.serve(waiting));
            }
        }
        let (metrics, relay) = (Arc::clone(metrics), Arc::clone(relay));
        Self { queues, metrics, relay, posted: 0, _tasks: tasks }
    }

    /// Puts an event in line, if its floor has somebody to be told.
    pub(super) fn post(&mut self, event: &FloorEvent, namespace: &Namespace, revision: Revision) {
        let FloorEvent { floor, value, live, minimum, below } = event;
        let Some(queue) = self.queues.get(floor.as_ref()) else {
            return;
        };
        self.posted += 1;
        let id = format!("{}-{}", self.relay, self.posted);
        let body = json!({
            "floor": **floor,
            "value": **value,
            "live": live,
            "minimum": minimum,
            "below": below,
            "namespace": namespace.as_str(),
            "revision": revision.0,
        });
        if queue.try_send(Posting { id, body: body.to_string() }).is_err() {
            self.metrics.posted(WebhookOutcome::Dropped);
            warn!(%floor, %value, below, "{WAITING} events wait for the floor's webhook already: this one is dropped");
        }
    }
}

/// Why a try failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no request can be made of it: {0}")]
    Request(#[from] axum::http::Error),
    #[error("no answer: {}", with_cause(.0))]
    Unanswered(#[from] legacy::Error),
    #[error("answered {0}")]
    Answered(StatusCode),
    #[error("no answer within {PATIENCE:?}")]
    TooLate,
}

/// The error itself says no more than in which step it happened.
fn with_cause(error: &legacy::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

struct Owner {
    floor: String,
    address: Uri,
    poster: Poster,
    metrics: Arc<Metrics>,
}

impl Owner {
    async fn serve(self, mut waiting: mpsc::Receiver<Posting>) {
        while let Some(posting) = waiting.recv().await {
            self.deliver(&posting).await;
        }
    }

    async fn deliver(&self, posting: &Posting) {
        for pause in PAUSES {
            match self.try_once(posting).await {
                Ok(()) => return self.metrics.posted(WebhookOutcome::Delivered),
                Err(failure) => debug!(floor = self.floor, %failure, "the webhook is tried again"),
            }
            self.metrics.posted(WebhookOutcome::TriedAgain);
            sleep(pause).await;
        }
        match self.try_once(posting).await {
            Ok(()) => self.metrics.posted(WebhookOutcome::Delivered),
            Err(failure) => {
                self.metrics.posted(WebhookOutcome::Failed);
                warn!(floor = self.floor, %failure, event = posting.body, "the webhook did not take an event");
            }
        }
    }

    async fn try_once(&self, posting: &Posting) -> Result<(), Failure> {
        let request = Request::post(self.address.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", posting.id.as_str())
            .body(Body::from(posting.body.clone()))?;
        let answer = tokio::time::timeout(PATIENCE, self.poster.request(request)).await;
        let status = answer.map_err(|_| Failure::TooLate)??.status();
        if status.is_success() { Ok(()) } else { Err(Failure::Answered(status)) }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::metrics::Gauges;

    /// One floor, and an owner that takes every call and answers none.
    async fn silent() -> std::io::Result<(Owners, Arc<Metrics>, TcpListener)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let webhook = format!("http://{address}/refill").parse().ok();
        let floors = [("workers".to_owned(), FloorSettings { webhook, ..FloorSettings::default() })].into();
        let metrics = Arc::new(Metrics::default());
        Ok((Owners::of(&floors, &metrics, &"relay".into()), metrics, listener))
    }

    fn post(owners: &mut Owners, floor: &str) {
        let event = FloorEvent { floor: floor.into(), value: "a".into(), live: 1, minimum: 2, below: true };
        owners.post(&event, &Namespace::default(), Revision(7));
    }

    fn counted(metrics: &Metrics, outcome: &str) -> Option<u64> {
        let page = metrics.encode(&Gauges::default()).ok()?;
        let name = format!("dormouse_webhooks_total{{outcome=\"{outcome}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok())
    }

    #[tokio::test]
    async fn what_finds_no_room_is_dropped_and_counted() -> std::io::Result<()> {
        let (mut owners, metrics, _listener) = silent().await?;
        (0..WAITING + 3).for_each(|_| post(&mut owners, "workers"));
        post(&mut owners, "another");
        assert_eq!(counted(&metrics, "dropped"), Some(3), "a floor without an owner has nothing to drop");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_that_does_not_answer_is_tried_three_times() -> std::io::Result<()> {
        let (mut owners, metrics, _listener) = silent().await?;
        post(&mut owners, "workers");
        for _ in 0..1_000 {
            if counted(&metrics, "failed") == Some(1) {
                assert_eq!(counted(&metrics, "tried_again"), Some(2));
                assert_eq!(counted(&metrics, "delivered"), Some(0));
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("the event was never given up");
    }
}
