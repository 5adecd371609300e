//! `send` and `consume`: messages to one node, and logs of events for whoever works through them.

use std::time::Duration;

use dormouse::{Event, Path, Relay, SendOptions, Value};
use dormouse_proto::ids::{Group, NodeId, OnceId};

use crate::{
    failure::Failure,
    screen::Screen,
    show::{durability, json, rows},
};

/// How long a consumer that waits for more sleeps before it asks again.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) async fn send(
    screen: Screen,
    relay: &Relay,
    node: NodeId,
    payload: String,
    id: Option<&OnceId>,
    options: SendOptions,
) -> Result<(), Failure> {
    let id = id.map(OnceId::as_str);
    let sent = relay.send(&node.to_string(), id, Value::Text(payload), options).await?;
    let kept = durability(sent.durability);
    let object =
        serde_json::json!({ "nodeId": node.to_string(), "revision": sent.revision, "durability": kept });
    screen.show(&format!("{node}   revision {}, {kept}", sent.revision), &object)
}

/// The position moves only after a batch was printed: what is killed in between is printed again.
pub(crate) async fn consume(
    screen: Screen,
    relay: &Relay,
    path: &Path,
    name: &Group,
    follow: bool,
) -> Result<(), Failure> {
    let mut consumer = relay.consumer(&path.to_string(), name.as_str());
    loop {
        let Some(batch) = consumer.next_batch().await? else {
            if !follow {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        if let Some(missed) = batch.missed {
            let upto = missed.upto;
            eprintln!("dormouse: entries up to revision {upto} were dropped before they were consumed");
        }
        for event in &batch.events {
            show(screen, event)?;
        }
        batch.done().await?;
    }
}

fn show(screen: Screen, event: &Event) -> Result<(), Failure> {
    let revision = event.revision.map_or(0, u64::from);
    let mut object = json::content(&event.payload);
    object.insert("revision".to_owned(), revision.into());
    object.insert("index".to_owned(), event.index.into());
    object.extend(event.node_id.as_ref().map(|node| ("nodeId".to_owned(), node.as_str().into())));
    screen.show(&format!("{revision}.{} {}", event.index, rows::content(&event.payload)), &object.into())
}
