//! When a connection is kept, when it is replaced, and when an answer is an answer.

use std::time::{Duration, Instant};

use dormouse::{Freshness, Node, Reason, Slept};
use dormouse_proto::wire::v1;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    TIME,
    fake::{Act, Fake},
    node,
};

#[tokio::test]
async fn building_a_node_contacts_nobody() {
    let fake = Fake::start().await;
    let _node = node(&fake);
    tokio::task::yield_now().await;
    assert_eq!(fake.connections(), 0);
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
