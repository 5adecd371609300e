//! What `Committed` survives on this broker: asked of the servers, never taken on trust.
//!
//! A server acknowledges from its page cache unless it runs with `sync_interval: always`. It says so only on its
//! monitoring port (from 2.10 on), so without one nothing more than the page cache can be promised.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::stream::Info;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::time::timeout;

use super::OpenError;
use crate::log::Durability;

const PATIENCE: Duration = Duration::from_secs(5);
const PAGE_BYTES_MAX: usize = 1 << 20;

/// The names of the servers that keep the stream; on a server that is no cluster its own name.
fn keepers(info: &Info, connected_to: &str) -> BTreeSet<String> {
    let cluster = info.cluster.iter();
    let named: BTreeSet<_> = cluster
        .flat_map(|it| it.leader.iter().chain(it.replicas.iter().map(|peer| &peer.name)))
        .cloned()
        .collect();
    if named.is_empty() { BTreeSet::from([connected_to.to_owned()]) } else { named }
}

/// The class of a stream, when the servers called `synced` sync each message before they acknowledge it.
fn class(info: &Info, connected_to: &str, synced: &BTreeSet<String>) -> Durability {
    let keepers = keepers(info, connected_to);
    let complete = keepers.len() >= info.config.num_replicas;
    if complete && keepers.is_subset(synced) {
        Durability::Fsync
    } else if info.config.num_replicas >= 3 {
        Durability::Majority
    } else {
        Durability::PageCache
    }
}

/// Asks the monitoring ports and says what can be promised.
pub(super) async fn find_out(
    info: &Info,
    connected_to: &str,
    monitors: &[String],
) -> Result<Durability, OpenError> {
    let mut synced = BTreeSet::new();
    for monitor in monitors {
        let page = timeout(PATIENCE, fetch(monitor)).await.unwrap_or_else(|_| Err("no answer".to_owned()));
        let page = page.map_err(|detail| OpenError::Monitor { monitor: monitor.clone(), detail })?;
        synced.extend(synced_server(&page));
    }
    Ok(class(info, connected_to, &synced))
}

/// The server's name, if the page says that it syncs always.
fn synced_server(page: &Value) -> Option<String> {
    let always = page.pointer("/jetstream/config/sync_always").and_then(Value::as_bool);
    let name = page.get("server_name").and_then(Value::as_str);
    name.filter(|_| always == Some(true)).map(str::to_owned)
}

async fn fetch(monitor: &str) -> Result<Value, String> {
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::get(format!("http://{monitor}/varz")).body(Body::empty());
    let request = request.map_err(|error| error.to_string())?;
    let answer = client.request(request).await.map_err(|error| error.to_string())?;
    if answer.status() != StatusCode::OK {
        return Err(format!("it answers {}", answer.status()));
    }
    let page =
        to_bytes(Body::new(answer.into_body()), PAGE_BYTES_MAX).await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&page).map_err(|error| format!("what it says is no JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(replicas: usize, cluster: &Value) -> Info {
        let config = serde_json::json!({
            "name": "s", "retention": "limits", "discard": "new", "storage": "file", "num_replicas": replicas,
        });
        let state = serde_json::json!({
            "messages": 0, "bytes": 0, "first_seq": 0, "first_ts": "0001-01-01T00:00:00Z", "last_seq": 0,
            "last_ts": "0001-01-01T00:00:00Z", "consumer_count": 0,
        });
        let info = serde_json::json!({
            "config": config, "created": "2026-01-01T00:00:00Z", "state": state, "cluster": cluster,
        });
        serde_json::from_value(info).expect("stream info")
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|it| (*it).to_owned()).collect()
    }

    #[test]
    fn one_server_promises_its_disk_only_if_it_says_so_itself() {
        let alone = info(1, &Value::Null);
        assert_eq!(class(&alone, "a", &names(&[])), Durability::PageCache);
        assert_eq!(class(&alone, "a", &names(&["b"])), Durability::PageCache);
        assert_eq!(class(&alone, "a", &names(&["a"])), Durability::Fsync);
    }

    #[test]
    fn replicas_promise_the_disk_only_if_all_of_them_sync() {
        let peer = |name| serde_json::json!({"name": name, "current": true, "active": 0});
        let three = info(3, &serde_json::json!({"leader": "a", "replicas": [peer("b"), peer("c")]}));
        assert_eq!(class(&three, "c", &names(&["a", "b"])), Durability::Majority);
        assert_eq!(class(&three, "c", &names(&["a", "b", "c"])), Durability::Fsync);
        let electing = info(3, &serde_json::json!({"replicas": [peer("b"), peer("c")]}));
        assert_eq!(class(&electing, "c", &names(&["a", "b", "c"])), Durability::Majority);
    }

    #[test]
    fn a_server_syncs_always_or_not_at_all() {
        let page = |config| serde_json::json!({"server_name": "a", "jetstream": {"config": config}});
        assert_eq!(synced_server(&page(serde_json::json!({"sync_always": true}))).as_deref(), Some("a"));
        assert_eq!(synced_server(&page(serde_json::json!({"sync_interval": 120}))), None);
        assert_eq!(synced_server(&serde_json::json!({"server_name": "a"})), None);
    }
}
