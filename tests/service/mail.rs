//! Messages to one node, over real connections.

use std::sync::Arc;

use dormouse_proto::{
    record::Policy,
    wire::v1::{self, member::State},
};
use dormouse_relay::{
    config::Config,
    log::{LogId, memory::Memory},
};
use tonic::{Code, Status};

use crate::harness::{Caller, Outcome, Served, add, asleep, chunk, delta, get, reason};

fn message(node_id: &str, id: &str, text: &str) -> v1::SendRequest {
    v1::SendRequest {
        node_id: node_id.to_owned(),
        message_id: id.to_owned(),
        payload: Some(v1::Value { kind: Some(v1::value::Kind::Text(text.to_owned())) }),
        sender: "tests".to_owned(),
        ..Default::default()
    }
}

async fn send(served: &Served, request: v1::SendRequest) -> Result<v1::SendResponse, Status> {
    served.mailbox().await.send(request).await.map(tonic::Response::into_inner)
}

fn ids(answer: &v1::SyncResponse) -> Vec<&str> {
    chunk(answer).inbox.iter().map(|it| it.message_id.as_str()).collect()
}

#[tokio::test]
async fn a_sleeping_node_finds_its_messages_in_order_at_its_next_wake_and_once() -> Outcome {
    let served = Served::default().await?;
    let (mut a, mut b) = (Caller::new(&served, 1).await, Caller::new(&served, 2).await);
    a.sync(vec![add("n", 1)]).await?;
    b.sync(Vec::new()).await?;
    let request = a.request(asleep());
    a.send(request).await?;

    let node = a.identity.node_id.clone();
    let first = send(&served, message(&node, "one", "hello")).await?;
    assert_eq!(
        send(&served, message(&node, "one", "hello")).await?.revision,
        first.revision,
        "a repeat is one message"
    );
    send(&served, message(&node, "two", "hello again")).await?;

    let answer = a.sync(Vec::new()).await?;
    assert_eq!(ids(&answer), ["one", "two"]);
    assert_eq!(chunk(&answer).inbox[0].sender, "tests");
    assert!(ids(&b.sync(Vec::new()).await?).is_empty(), "they are not for everybody");
    assert!(ids(&a.sync(Vec::new()).await?).is_empty(), "its token says that it has them");
    Ok(())
}

#[tokio::test]
async fn an_answer_that_was_lost_brings_the_messages_again() -> Outcome {
    let served = Served::default().await?;
    let mut a = Caller::new(&served, 1).await;
    a.sync(Vec::new()).await?;
    send(&served, message(&a.identity.node_id.clone(), "one", "hello")).await?;
    let token = a.token.clone();
    assert_eq!(ids(&a.sync(Vec::new()).await?), ["one"]);
    a.token = token; // that answer never arrived
    assert_eq!(ids(&a.sync(Vec::new()).await?), ["one"]);
    Ok(())
}

#[tokio::test]
async fn what_arrived_in_a_history_that_is_lost_is_not_received() -> Outcome {
    let served = Served::default().await?;
    let mut a = Caller::new(&served, 1).await;
    a.sync(Vec::new()).await?;
    send(&served, message(&a.identity.node_id.clone(), "one", "hello")).await?;
    assert_eq!(ids(&a.sync(Vec::new()).await?), ["one"]);
    // The token says that it has arrived, and the head that this was in a history that the log has lost since.
    let (token, head) = (a.token.clone(), a.head + 1_000_000);
    for _ in 0..10 {
        (a.token, a.head) = (token.clone(), head);
        let answer = a.sync(vec![add("n", 1)]).await?;
        assert_eq!(chunk(&answer).restart(), v1::chunk::Restart::Lost);
        assert_eq!(ids(&answer), ["one"], "it waits until it has arrived in this history");
    }
    Ok(())
}

#[tokio::test]
async fn what_was_received_waits_no_more_and_is_counted() -> Outcome {
    let served = Served::default().await?;
    let mut a = Caller::new(&served, 1).await;
    a.sync(Vec::new()).await?;
    let node = a.identity.node_id.clone();
    send(&served, message(&node, "one", "hello")).await?;
    let waiting = |it: v1::GetMemberResponse| it.member.map_or(0, |member| member.inbox_waiting);
    let asked = v1::GetMemberRequest { node_id: node.clone(), ..Default::default() };
    let mut membership = served.membership().await;
    assert_eq!(waiting(membership.get_member(asked.clone()).await?.into_inner()), 1);
    a.sync(Vec::new()).await?;
    // The next pull carries the token of that chunk; what it says becomes a record of its own, which nobody waits for.
    for _ in 0..100 {
        a.sync(vec![add("n", 1)]).await?;
        if waiting(membership.get_member(asked.clone()).await?.into_inner()) == 0 {
            break;
        }
    }
    let page = get(&served.admin_url, "/metrics").await?;
    for line in ["dormouse_mail_total{outcome=\"sent\"} 1", "dormouse_mail_total{outcome=\"received\"} 1"] {
        assert!(page.lines().any(|it| it == line), "{line} is not in\n{page}");
    }
    Ok(())
}

#[tokio::test]
async fn a_message_to_nobody_is_refused() -> Outcome {
    let served = Served::default().await?;
    let unknown = send(&served, message("0000000000001", "one", "hello")).await.expect_err("nobody");
    assert_eq!((unknown.code(), reason(&unknown).as_str()), (Code::NotFound, "NODE_UNKNOWN"));
    let mut a = Caller::new(&served, 1).await;
    a.sync(Vec::new()).await?;
    let leaving = v1::sync_request::Next::Leaving(v1::Leaving { reason: "over".into() });
    let request = a.request(leaving);
    a.mailbox.sync(request).await?;
    let gone = send(&served, message(&a.identity.node_id, "one", "hello")).await.expect_err("it has left");
    assert_eq!((gone.code(), reason(&gone).as_str()), (Code::NotFound, "NODE_GONE"));
    Ok(())
}

#[tokio::test]
async fn a_full_inbox_tells_the_sender_and_has_room_again_once_it_was_read() -> Outcome {
    let limits = Policy { inbox_max: Some(2), ..Policy::default() };
    let config = Config { limits, ..Config::default() };
    let served = Served::new(config, Arc::new(Memory::new(LogId(7)))).await?;
    let mut a = Caller::new(&served, 1).await;
    a.sync(Vec::new()).await?;
    let node = a.identity.node_id.clone();
    send(&served, message(&node, "one", "hello")).await?;
    send(&served, message(&node, "two", "hello")).await?;
    let full = send(&served, message(&node, "three", "hello")).await.expect_err("two wait already");
    assert_eq!((full.code(), reason(&full).as_str()), (Code::ResourceExhausted, "QUOTA"));
    assert!(full.message().contains("at most 2 messages"), "{}", full.message());
    a.sync(Vec::new()).await?;
    let mut accepted = false;
    for _ in 0..100 {
        a.sync(vec![add("n", 1)]).await?;
        accepted = send(&served, message(&node, "three", "hello")).await.is_ok();
        if accepted {
            break;
        }
    }
    assert!(accepted, "nothing was remembered of the refusal");
    Ok(())
}

#[tokio::test]
async fn a_message_that_breaks_a_rule_is_refused_with_it() -> Outcome {
    let served = Served::default().await?;
    let wrong = v1::SendRequest {
        node_id: "nobody".to_owned(),
        message_id: String::new(),
        payload: Some(v1::Value { kind: Some(v1::value::Kind::Data(vec![0; (64 << 10) + 1].into())) }),
        ttl_ms: u32::MAX,
        sender: "x".repeat(65),
        ..Default::default()
    };
    let refused = send(&served, wrong).await.expect_err("everything is wrong with it");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "FIELD_INVALID"));
    let details = tonic_types::StatusExt::get_error_details(&refused);
    let fields: Vec<_> = details
        .bad_request()
        .map(|it| it.field_violations.iter().map(|it| it.field.clone()).collect())
        .unwrap_or_default();
    assert_eq!(fields, ["node_id", "message_id", "payload", "sender", "ttl_ms"]);
    Ok(())
}

#[tokio::test]
async fn a_member_that_sleeps_keeps_what_it_holds_up_and_one_that_leaves_does_not() -> Outcome {
    let served = Served::default().await?;
    let (mut a, mut b) = (Caller::new(&served, 1).await, Caller::new(&served, 2).await);
    let value = Some(v1::Value { kind: Some(v1::value::Kind::Text("here".into())) });
    let here = v1::delta::Change::Presence(v1::PresenceDelta { value });
    a.sync(vec![delta("rooms", "lobby", here.clone())]).await?;
    let request = a.request(asleep());
    a.send(request).await?;
    let holders = |answer: &v1::SyncResponse| -> Vec<bool> {
        let states = chunk(answer).keys.iter().filter_map(|it| it.state.clone());
        let held = states.filter_map(|state| match state {
            v1::key_state::State::Presence(it) => Some(it.holders),
            _ => None,
        });
        held.flatten().map(|it| it.value.is_some()).collect()
    };
    assert_eq!(holders(&b.sync(Vec::new()).await?), [true]);
    let request = a.request(v1::sync_request::Next::Leaving(v1::Leaving::default()));
    a.mailbox.sync(request).await?;
    assert_eq!(holders(&b.sync(Vec::new()).await?), [false]);

    let write = v1::WriteRequest {
        request_id: "w".into(),
        deltas: vec![delta("rooms", "lobby", here)],
        ..Default::default()
    };
    let refused = served.mailbox().await.write(write).await.expect_err("a back end is no node");
    assert_eq!(reason(&refused), "FIELD_INVALID");
    let members = v1::ListMembersRequest { filter: None, ..Default::default() };
    let listed = served.membership().await.list_members(members).await?.into_inner();
    assert!(listed.members.iter().all(|it| it.state() == State::Awake), "{:?}", listed.members);
    Ok(())
}
