//! Logs of events, over real connections.

use std::sync::Arc;

use dormouse::{NewEvent, Relay, Value};
use dormouse_proto::{
    record::Policy,
    wire::v1::{self, key_state::State},
};
use dormouse_relay::{
    config::Config,
    log::{LogId, memory::Memory},
};

use crate::harness::{Caller, Outcome, Served, chunk, delta, pushed, reason};

fn append(payloads: &[&str]) -> v1::Delta {
    let event = |text: &&str| v1::events_delta::Append {
        payload: Some(v1::Value { kind: Some(v1::value::Kind::Text((*text).to_owned())) }),
        id: String::new(),
    };
    let append = payloads.iter().map(event).collect();
    delta("orders", "clicks", v1::delta::Change::Events(v1::EventsDelta { append, trim_upto: 0 }))
}

fn events(keys: &[v1::KeyState]) -> Vec<v1::Event> {
    let of = |it: &v1::KeyState| match &it.state {
        Some(State::Events(state)) => state.events.clone(),
        _ => Vec::new(),
    };
    keys.iter().flat_map(of).collect()
}

fn click(n: usize) -> NewEvent {
    NewEvent { payload: Value::Text(n.to_string()), id: None }
}

async fn with_limits(limits: Policy) -> Result<Served, Box<dyn std::error::Error>> {
    Served::new(Config { limits, ..Config::default() }, Arc::new(Memory::new(LogId(7)))).await
}

#[tokio::test]
async fn an_acknowledgement_names_the_events_that_were_appended() -> Outcome {
    let served = Served::default().await?;
    let (mut a, mut b) = (Caller::new(&served, 1).await, Caller::new(&served, 2).await);
    let answer = a.sync(vec![append(&["x", "y"])]).await?;
    let named = events(&pushed(&answer).keys);
    assert_eq!(named.iter().map(|it| it.index).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(named[0].node_id, a.identity.node_id);
    assert_eq!(events(&chunk(&b.sync(Vec::new()).await?).keys), named, "and everybody else gets the same");
    Ok(())
}

#[tokio::test]
async fn a_consumer_takes_batches_and_what_it_did_not_finish_comes_again_elsewhere() -> Outcome {
    let served = Served::default().await?;
    let relay = Relay::builder().url(&served.url).build()?;
    for first in (0..1_200).step_by(400) {
        relay.append("orders/clicks", (first..first + 400).map(click).collect()).await?;
    }
    let mut one = relay.consumer("orders/clicks", "billing");
    let batch = one.next_batch().await?.expect("something is there");
    assert_eq!(batch.events.len(), 400, "two revisions are more than 500");
    batch.done().await?;
    let unfinished = one.next_batch().await?.expect("more is there").events;

    let mut other = relay.consumer("orders/clicks", "billing");
    let mut taken = Vec::new();
    while let Some(batch) = other.next_batch().await? {
        taken.extend(batch.events.clone());
        batch.done().await?;
    }
    assert_eq!(taken[..400], unfinished, "what the first did not finish");
    assert_eq!(taken.len(), 800);
    assert!(one.next_batch().await?.is_some(), "it learns of that with the next call only");

    let mut audit = relay.consumer("orders/clicks", "audit");
    assert!(audit.next_batch().await?.is_some(), "another name has a place of its own");
    Ok(())
}

#[tokio::test]
async fn a_consumer_that_was_too_slow_is_told_what_it_missed() -> Outcome {
    let served = with_limits(Policy { events_max: Some(600), ..Policy::default() }).await?;
    let relay = Relay::builder().url(&served.url).build()?;
    relay.append("orders/clicks", vec![click(0)]).await?;
    let mut slow = relay.consumer("orders/clicks", "slow");
    let first = slow.next_batch().await?.expect("something is there");
    assert!(first.missed.is_none());
    let upto = first.upto;
    first.done().await?;
    for _ in 0..4 {
        relay.append("orders/clicks", (0..300).map(click).collect()).await?;
    }
    let missed = slow.next_batch().await?.expect("more is there").missed.expect("some is gone");
    assert_eq!(missed.after, upto);
    assert!(missed.upto > upto);
    Ok(())
}

#[tokio::test]
async fn an_event_that_breaks_a_rule_is_named_and_nothing_is_appended() -> Outcome {
    let served = Served::default().await?;
    let mut mailbox = served.mailbox().await;
    let mut wrong = append(&["fine", "empty"]);
    if let Some(v1::delta::Change::Events(events)) = &mut wrong.change {
        events.append[1].payload = None;
    }
    let write = |deltas| v1::WriteRequest { request_id: "w".into(), deltas, ..Default::default() };
    let refused = mailbox.write(write(vec![wrong])).await.expect_err("the second has no payload");
    let details = tonic_types::StatusExt::get_error_details(&refused);
    let field = details.bad_request().map(|it| it.field_violations[0].field.clone());
    assert_eq!(field.as_deref(), Some("deltas[0].events.append[1].payload"));
    let many = append(&["x"; 501]);
    let refused = mailbox.write(write(vec![many])).await.expect_err("one too many");
    assert_eq!(reason(&refused), "TOO_LARGE");
    let read = v1::ReadRequest { keys: vec!["orders/*".into()], ..Default::default() };
    assert!(mailbox.read(read).await?.into_inner().keys.is_empty());
    Ok(())
}
