//! What is said and what is made of the answer.

use std::time::Duration;

use dormouse::{Durability, Freshness, Reason, Relay, Slept};
use dormouse_proto::wire::v1;
use tonic::{Code, Status};

use crate::{
    TIME, builder,
    fake::{Act, Fake, accepted},
    next, node,
};

#[tokio::test]
async fn wakes_share_one_connection_and_one_identity() {
    let fake = Fake::start().await;
    let node = builder(&fake).token("secret").build().expect("valid");
    for _ in 0..3 {
        let awake = node.wake(TIME).await;
        assert_eq!(awake.freshness(), Freshness::Current);
        assert_eq!(awake.members().awake, 1);
        assert_eq!(awake.sleep().await, Slept::Nothing);
    }
    assert_eq!(fake.connections(), 1);
    let seen = fake.seen();
    assert_eq!(seen.len(), 6);
    let identity = |request: &v1::SyncRequest| request.node.clone().expect("named");
    assert_eq!(identity(&seen[0]).node_id, "");
    assert_eq!(identity(&seen[0]).tags.len(), 1);
    assert_eq!(identity(&seen[0]).boot_id.len(), 16);
    assert_eq!(identity(&seen[5]).node_id, "0000000000001");
    assert!(identity(&seen[5]).tags.is_empty(), "sent once");
    assert_eq!(identity(&seen[0]).boot_id, identity(&seen[5]).boot_id);
    assert!(fake.tokens().iter().all(|token| token.as_deref() == Some("Bearer secret")));
    assert!(seen.windows(2).all(|two| two[0].beat < two[1].beat && two[0].call_id != two[1].call_id));
}

#[tokio::test]
async fn what_was_written_is_saved_when_the_node_sleeps() {
    let fake = Fake::start().await;
    let awake = node(&fake).wake(TIME).await;
    awake.counter("ads/shown").add(2).expect("fits");
    awake.set("ads/seen").add("a").expect("fits");
    awake.register::<Vec<u32>>("ads/list").set(&vec![1, 2]).expect("fits");
    assert_eq!(awake.register::<Vec<u32>>("ads/list").get(), Ok(Some(vec![1, 2])));
    assert!(awake.counter("malformed").add(1).is_err());
    let saved = Slept::Saved { revision: 2, durability: Durability::Fsync };
    assert_eq!(awake.sleep().await, saved);
    let seen = fake.seen();
    assert!(matches!(next(&seen[0]), v1::sync_request::Next::Awake(awake) if awake.remaining_ms > 25_000));
    assert!(matches!(next(&seen[1]), v1::sync_request::Next::Asleep(_)));
    assert_eq!(seen[1].push.as_ref().map(|push| push.deltas.len()), Some(3));
    assert_eq!(seen[1].head, 1);
}

#[tokio::test]
async fn chunk_after_chunk_is_pulled_until_the_view_is_complete() {
    let fake = Fake::start().await;
    let piece = |rows_left: u64| {
        let mut answer = accepted(&v1::SyncRequest::default(), 1);
        if let Some(v1::sync_response::PullResult::Chunk(chunk)) = &mut answer.pull_result {
            chunk.caught_up = false;
            chunk.rows_left = rows_left;
            chunk.token = rows_left.to_be_bytes().to_vec().into();
        }
        Act::Say(Box::new(answer))
    };
    fake.then([piece(2), piece(1)]);
    let node = node(&fake);
    let awake = node.wake(TIME).await;
    assert_eq!(awake.freshness(), Freshness::Current);
    let tokens: Vec<_> = fake.seen().into_iter().map(|it| it.pull.expect("a pull").token.len()).collect();
    assert_eq!(tokens, [0, 8, 8]);
    fake.then([piece(9), Act::Hang]);
    let short = node.wake(Duration::from_secs(1)).await;
    assert_eq!(short.freshness(), Freshness::CatchingUp { rows_left: 9 });
    assert!(short.require(TIME).is_ok(), "it was complete a moment ago");
    fake.then([piece(9), Act::Fail(Status::invalid_argument("no"))]);
    assert!(matches!(node.wake(TIME).await.freshness(), Freshness::Stale { .. }));
}

#[tokio::test]
async fn a_quiet_node_that_wrote_nothing_makes_one_call() {
    let fake = Fake::start().await;
    let node = builder(&fake).quiet().build().expect("valid");
    assert_eq!(node.wake(TIME).await.sleep().await, Slept::Nothing);
    assert_eq!(fake.seen().len(), 1);
    let announced =
        matches!(next(&fake.seen()[0]), v1::sync_request::Next::Awake(awake) if awake.then_asleep);
    assert!(announced);
    let awake = node.wake(TIME).await;
    awake.counter("ads/shown").add(1).expect("fits");
    assert!(matches!(awake.sleep().await, Slept::Saved { .. }));
    assert_eq!(fake.seen().len(), 3);
}

#[tokio::test]
async fn the_last_of_overlapping_invocations_declares_sleep() {
    let fake = Fake::start().await;
    let node = node(&fake);
    let (first, second) = tokio::join!(node.wake(TIME), node.wake(TIME));
    first.counter("ads/shown").add(1).expect("fits");
    assert_eq!(second.counter("ads/shown").value(), 1, "one view");
    assert!(matches!(first.sleep().await, Slept::Saved { .. }));
    assert!(matches!(next(&fake.seen()[2]), v1::sync_request::Next::Awake(_)));
    assert_eq!(second.sleep().await, Slept::Nothing);
    assert!(matches!(next(&fake.seen()[3]), v1::sync_request::Next::Asleep(_)));
}

#[tokio::test]
async fn an_invocation_that_is_dropped_leaves_its_writes_to_the_next_wake() {
    let fake = Fake::start().await;
    let node = node(&fake);
    node.wake(TIME).await.counter("ads/shown").add(1).expect("fits");
    let awake = node.wake(TIME).await;
    assert!(fake.seen()[1].push.is_some());
    assert_eq!(awake.pending().deltas, 0);
}

#[tokio::test]
async fn writes_that_are_refused_are_reported_and_the_rest_is_saved() {
    let fake = Fake::start().await;
    let node = node(&fake);
    let awake = node.wake(TIME).await;
    awake.counter("ads/bad").add(1).expect("fits");
    awake.counter("ads/good").add(1).expect("fits");
    let mut answer = accepted(&v1::SyncRequest::default(), 2);
    answer.push_result = Some(v1::sync_response::PushResult::PushRefused(v1::Refusal {
        code: Code::InvalidArgument as i32,
        reason: "FIELD_INVALID".into(),
        violations: vec![v1::refusal::Violation {
            field: "push.deltas[0].counter.add".into(),
            description: "no".into(),
        }],
        ..Default::default()
    }));
    fake.then([Act::Say(Box::new(answer))]);
    assert!(matches!(awake.sleep().await, Slept::Unsaved { deltas: 1, reason: Reason::Refused { .. } }));
    let seen = fake.seen();
    assert_eq!(seen[2].push.as_ref().map(|push| (push.push_no, push.deltas.len())), Some((2, 1)));
    let awake = node.wake(TIME).await;
    assert_eq!(awake.reports().len(), 1);
    assert_eq!(awake.pending().deltas, 0);
}

#[tokio::test]
async fn a_push_that_is_to_come_later_is_kept_and_not_hammered() {
    let fake = Fake::start().await;
    let awake = node(&fake).wake(TIME).await;
    awake.counter("ads/shown").add(1).expect("fits");
    let mut answer = accepted(&v1::SyncRequest::default(), 2);
    answer.push_result = Some(v1::sync_response::PushResult::PushRefused(v1::Refusal {
        code: Code::Unavailable as i32,
        reason: "LOG_UNREACHABLE".into(),
        ..Default::default()
    }));
    fake.then([Act::Say(Box::new(answer))]);
    assert!(matches!(awake.sleep().await, Slept::Unsaved { deltas: 1, .. }));
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn keys_that_are_not_followed_are_known_once_they_are_fetched() {
    let fake = Fake::start().await;
    let awake = builder(&fake).follow("flags").build().expect("valid").wake(TIME).await;
    assert_eq!(awake.counter("big/a").known(), None);
    awake.fetch(&["big/a", "big/b"]).await.expect("read");
    assert_eq!(awake.counter("big/b").known(), Some(7));
    assert!(awake.fetch(&["malformed"]).await.is_err());
}

#[tokio::test]
async fn a_presence_that_was_taken_away_by_mistake_is_said_again_within_the_wake() {
    let fake = Fake::start().await;
    let node = node(&fake);
    let awake = node.wake(TIME).await;
    awake.presence("ads/here").hold_up(&1_u32).expect("fits");
    assert!(matches!(awake.sleep().await, Slept::Saved { .. }));
    let mut answer = accepted(&v1::SyncRequest::default(), 9);
    let lease = answer.lease.as_mut().expect("a lease");
    (lease.incarnation, lease.admission) = (2, v1::lease::Admission::Readmitted.into());
    fake.then([Act::Say(Box::new(answer))]);
    let awake = node.wake(TIME).await;
    let seen = fake.seen();
    let pushed = |nth: usize| seen[nth].push.as_ref().map_or(0, |push| push.deltas.len());
    assert_eq!((seen.len(), pushed(2), pushed(3)), (4, 0, 1));
    assert_eq!(awake.pending().deltas, 0);
}

#[tokio::test]
async fn messages_are_shown_to_the_invocation_that_can_see_them() {
    let fake = Fake::start().await;
    let node = node(&fake);
    let with = |id: &str, revision: u64| {
        let mut answer = accepted(&v1::SyncRequest::default(), revision);
        let message = v1::InboxMessage {
            revision,
            message_id: id.into(),
            sender: "me".into(),
            payload: Some(v1::Value { kind: Some(v1::value::Kind::Text("1".into())) }),
        };
        if let Some(v1::sync_response::PullResult::Chunk(chunk)) = &mut answer.pull_result {
            chunk.inbox.push(message);
        }
        Act::Say(Box::new(answer))
    };
    let ids =
        |inbox: Vec<dormouse::InboxMessage>| inbox.into_iter().map(|it| it.message_id).collect::<Vec<_>>();
    fake.then([with("woke", 5), with("beat", 6), with("beat", 6), with("late", 7)]);
    let awake = node.wake(TIME).await;
    assert_eq!(ids(awake.take_inbox()), ["woke"]);
    awake.beat().await.expect("reached");
    awake.beat().await.expect("reached");
    assert_eq!(
        (ids(awake.take_inbox()), ids(awake.inbox())),
        (vec!["beat".into()], vec!["woke".into(), "beat".into()])
    );
    let _ = awake.sleep().await;
    let awake = node.wake(TIME).await;
    assert_eq!((ids(awake.inbox()), ids(awake.take_inbox())), (vec!["late".into()], vec!["late".into()]));
    let _ = awake.sleep().await;
    assert!(node.wake(TIME).await.inbox().is_empty());
}

#[tokio::test]
async fn a_node_that_leaves_says_so_and_one_that_never_woke_says_nothing() {
    let fake = Fake::start().await;
    let node = node(&fake);
    node.leave("stop").await;
    assert_eq!(fake.seen().len(), 0);
    drop(node.wake(TIME).await);
    node.leave("stop").await;
    let said =
        matches!(next(&fake.seen()[1]), v1::sync_request::Next::Leaving(leaving) if leaving.reason == "stop");
    assert!(said);
}

#[tokio::test]
async fn a_back_end_reads_writes_and_watches_without_being_a_member() {
    let fake = Fake::start().await;
    let relay = Relay::builder().url(&fake.url).build().expect("valid");
    let reading = relay.read(&["ads/a", "ads/b"]).await.expect("read");
    assert_eq!((reading.as_of, reading.keys.len()), (50, 2), "page after page");
    let path = "ads/shown".parse().expect("a path");
    let written = relay.write(None, vec![dormouse::delta::counter_add(&path, 3)]).await;
    assert_eq!(written.map(|it| it.revision), Ok(9), "an id was drawn");
    let mut watch = relay.watch(&["ads"], &[]).await.expect("watching");
    assert_eq!(watch.next().await.expect("a chunk").map(|chunk| chunk.as_of.0), Some(5));
    assert_eq!(watch.token(), b"t");
    assert_eq!(watch.next().await, Ok(None));
    let refused = relay.info().await.expect_err("this relay has no membership service");
    assert!(matches!(refused, Reason::Refused { .. }), "{refused}");
}
