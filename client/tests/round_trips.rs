//! The client against a relay that says what a test wants.

mod fake;

use std::time::{Duration, Instant};

use dormouse::{Durability, Freshness, Node, NodeBuilder, Reason, Relay, Slept};
use dormouse_proto::wire::v1;
use fake::{Act, Fake, accepted};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

const TIME: Duration = Duration::from_secs(30);

fn builder(fake: &Fake) -> NodeBuilder {
    Node::builder().url(&fake.url).group("test").tag("zone", "a")
}

fn node(fake: &Fake) -> Node {
    builder(fake).build().expect("valid")
}

fn next(request: &v1::SyncRequest) -> &v1::sync_request::Next {
    request.next.as_ref().expect("something is said")
}

#[tokio::test]
async fn building_a_node_contacts_nobody() {
    let fake = Fake::start().await;
    let _node = node(&fake);
    tokio::task::yield_now().await;
    assert_eq!(fake.connections(), 0);
}

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
    assert!(
        fake.tokens()
            .iter()
            .all(|token| token.as_deref() == Some("Bearer secret"))
    );
    assert!(
        seen.windows(2)
            .all(|two| two[0].beat < two[1].beat && two[0].call_id != two[1].call_id)
    );
}

#[tokio::test]
async fn what_was_written_is_saved_when_the_node_sleeps() {
    let fake = Fake::start().await;
    let awake = node(&fake).wake(TIME).await;
    awake.counter("ads/shown").add(2).expect("fits");
    awake.set("ads/seen").add("a").expect("fits");
    awake
        .register::<Vec<u32>>("ads/list")
        .set(&vec![1, 2])
        .expect("fits");
    assert_eq!(awake.register::<Vec<u32>>("ads/list").get(), Ok(Some(vec![1, 2])));
    assert!(awake.counter("malformed").add(1).is_err());
    let saved = Slept::Saved {
        revision: 2,
        durability: Durability::Fsync,
    };
    assert_eq!(awake.sleep().await, saved);
    let seen = fake.seen();
    assert!(matches!(next(&seen[0]), v1::sync_request::Next::Awake(awake) if awake.remaining_ms > 25_000));
    assert!(matches!(next(&seen[1]), v1::sync_request::Next::Asleep(_)));
    assert_eq!(seen[1].push.as_ref().map(|push| push.deltas.len()), Some(3));
    assert_eq!(seen[1].head, 1);
}

#[tokio::test]
async fn a_connection_that_broke_is_replaced_within_the_call() {
    let fake = Fake::start().await;
    let node = node(&fake);
    drop(node.wake(TIME).await);
    fake.cut();
    let awake = node.wake(TIME).await;
    assert_eq!(awake.freshness(), Freshness::Current);
    assert_eq!(fake.connections(), 2);
}

#[tokio::test]
async fn a_connection_that_swallows_everything_costs_one_short_attempt() {
    let fake = Fake::start().await;
    let node = node(&fake);
    drop(node.wake(TIME).await);
    fake.swallow();
    let started = Instant::now();
    let awake = node.wake(TIME).await;
    assert_eq!(awake.freshness(), Freshness::Current);
    let took = started.elapsed();
    assert!((100..450).contains(&took.as_millis()), "{took:?}");
    assert_eq!(fake.connections(), 2);
}

#[tokio::test]
async fn a_transmission_that_is_repeated_raises_the_beat_and_changes_nothing_else() {
    let fake = Fake::start().await;
    let node = node(&fake);
    let awake = node.wake(TIME).await;
    awake.counter("ads/shown").add(1).expect("fits");
    fake.then([Act::Hang]);
    assert!(matches!(awake.sleep().await, Slept::Saved { .. }));
    let seen = fake.seen();
    let [_, first, second] = &seen[..] else {
        panic!("{} requests", seen.len())
    };
    assert!(second.beat > first.beat);
    assert_eq!(second.call_id, first.call_id);
    let push = |request: &v1::SyncRequest| request.push.clone().expect("a push");
    assert_eq!((push(first).retried, push(second).retried), (false, true));
    assert_eq!(
        v1::Push {
            retried: true,
            ..push(first)
        },
        push(second)
    );
    assert_eq!(fake.connections(), 2);
}

#[tokio::test]
async fn an_answer_that_refuses_is_not_asked_for_again() {
    for code in [
        Code::Unauthenticated,
        Code::PermissionDenied,
        Code::InvalidArgument,
        Code::NotFound,
        Code::FailedPrecondition,
    ] {
        let fake = Fake::start().await;
        let details =
            ErrorDetails::with_error_info("TOKEN_UNKNOWN", "dormouse", std::collections::HashMap::new());
        fake.then([Act::Fail(Status::with_error_details(
            code,
            "who are you",
            details,
        ))]);
        let awake = node(&fake).wake(TIME).await;
        assert_eq!(fake.seen().len(), 1, "{code:?}");
        let reason = Reason::Refused {
            word: "TOKEN_UNKNOWN".into(),
            message: "who are you".into(),
        };
        assert_eq!(awake.freshness(), Freshness::Never { reason });
        let stale = awake.require(TIME).expect_err("nothing was ever seen");
        assert!(stale.to_string().contains("TOKEN_UNKNOWN"), "{stale}");
    }
}

#[tokio::test]
async fn a_relay_that_is_busy_is_asked_again_if_the_budget_allows() {
    let busy = |after: u64| {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(after)));
        Act::Fail(Status::with_error_details(
            Code::ResourceExhausted,
            "busy",
            details,
        ))
    };
    let fake = Fake::start().await;
    let node = node(&fake);
    fake.then([busy(20)]);
    assert_eq!(node.wake(TIME).await.freshness(), Freshness::Current);
    assert_eq!(
        (fake.seen().len(), fake.connections()),
        (2, 1),
        "the channel is well"
    );
    fake.then([busy(10_000)]);
    let started = Instant::now();
    assert!(matches!(
        node.wake(TIME).await.freshness(),
        Freshness::Stale { .. }
    ));
    assert!(started.elapsed() < Duration::from_millis(300));
    assert_eq!(fake.seen().len(), 3);
}

#[tokio::test]
async fn without_a_relay_a_wake_ends_within_its_budget_and_writes_wait() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let url = format!("http://{}", nobody.local_addr().expect("an address"));
    drop(nobody);
    let node = Node::builder().url(url).group("test").build().expect("valid");
    let started = Instant::now();
    let awake = node.wake(Duration::from_secs(1)).await;
    assert!(
        started.elapsed() < Duration::from_millis(300),
        "a fifth of what is left"
    );
    assert!(matches!(
        awake.freshness(),
        Freshness::Never {
            reason: Reason::NotReached(_)
        }
    ));
    awake.counter("ads/shown").add(1).expect("fits");
    assert_eq!(awake.counter("ads/shown").value(), 1);
    assert!(matches!(awake.sleep().await, Slept::Unsaved { deltas: 1, .. }));
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
    let tokens: Vec<_> = fake
        .seen()
        .into_iter()
        .map(|it| it.pull.expect("a pull").token.len())
        .collect();
    assert_eq!(tokens, [0, 8, 8]);
    fake.then([piece(9), Act::Hang]);
    let short = node.wake(Duration::from_secs(1)).await;
    assert_eq!(short.freshness(), Freshness::CatchingUp { rows_left: 9 });
    assert!(short.require(TIME).is_ok(), "it was complete a moment ago");
    fake.then([piece(9), Act::Fail(Status::invalid_argument("no"))]);
    assert!(matches!(
        node.wake(TIME).await.freshness(),
        Freshness::Stale { .. }
    ));
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
    assert!(matches!(
        awake.sleep().await,
        Slept::Unsaved {
            deltas: 1,
            reason: Reason::Refused { .. }
        }
    ));
    let seen = fake.seen();
    assert_eq!(
        seen[2]
            .push
            .as_ref()
            .map(|push| (push.push_no, push.deltas.len())),
        Some((2, 1))
    );
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
    let awake = builder(&fake)
        .follow("flags")
        .build()
        .expect("valid")
        .wake(TIME)
        .await;
    assert_eq!(awake.counter("big/a").known(), None);
    awake.fetch(&["big/a", "big/b"]).await.expect("read");
    assert_eq!(awake.counter("big/b").known(), Some(7));
    assert!(awake.fetch(&["malformed"]).await.is_err());
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
    let written = relay
        .write(None, vec![dormouse::delta::counter_add(&path, 3)])
        .await;
    assert_eq!(written.map(|it| it.revision), Ok(9), "an id was drawn");
    let mut watch = relay.watch(&["ads"], &[]).await.expect("watching");
    assert_eq!(
        watch.next().await.expect("a chunk").map(|chunk| chunk.as_of.0),
        Some(5)
    );
    assert_eq!(watch.token(), b"t");
    assert_eq!(watch.next().await, Ok(None));
    let refused = relay
        .info()
        .await
        .expect_err("this relay has no membership service");
    assert!(matches!(refused, Reason::Refused { .. }), "{refused}");
}
