//! Budgets that are too short for what a node would like to have at once.

use std::time::Duration;

use dormouse::{Freshness, Node};

use crate::{TIME, builder, fake::Fake};

const DEFAULT: u32 = 1 << 20;

fn asked(fake: &Fake) -> Vec<u32> {
    fake.seen().into_iter().map(|it| it.pull.expect("a pull").max_bytes).collect()
}

/// What is left of the backlog after one wake.
async fn left_after_a_wake(node: &Node) -> u64 {
    match node.wake(TIME).await.freshness() {
        Freshness::CatchingUp { rows_left } => rows_left,
        Freshness::Current => 0,
        other => panic!("no progress: {other:?}"),
    }
}

#[tokio::test]
async fn every_wake_makes_progress_over_a_link_that_is_too_slow_for_a_default_chunk() {
    let (passes, backlog) = (128 << 10, 2 << 20);
    let fake = Fake::start().await;
    fake.narrow(passes, backlog);
    let node = builder(&fake).budget(Duration::from_millis(300)).build().expect("valid");
    let mut left = backlog;
    // Even a wake that gets only the least takes its part of the backlog.
    for _ in 0..backlog / (16 << 10) {
        let now = left_after_a_wake(&node).await;
        assert!(now < left, "{now} are left, {left} were before");
        left = now;
        if left == 0 {
            break;
        }
    }
    assert_eq!(left, 0);
    assert_eq!(
        asked(&fake)[..2],
        [DEFAULT, 16 << 10],
        "whoever has lost half of its time asks for the least"
    );
    assert!(asked(&fake).iter().skip(1).all(|bytes| *bytes <= 2 * passes), "{:?}", asked(&fake));
}

#[tokio::test]
async fn a_link_that_has_become_fast_is_used_again() {
    let fake = Fake::start().await;
    fake.narrow(0, 64 << 20);
    let node = builder(&fake).budget(Duration::from_millis(300)).build().expect("valid");
    assert!(matches!(node.wake(TIME).await.freshness(), Freshness::Never { .. }), "nothing arrives at all");
    fake.narrow(u32::MAX, 64 << 20);
    let before = asked(&fake).len();
    for _ in 0..8 {
        node.wake(TIME).await.beat().await.expect("the relay answers");
    }
    let asked = asked(&fake);
    assert_eq!(asked[before], 16 << 10);
    assert_eq!(asked.iter().max(), asked.last(), "it grows: {asked:?}");
    assert_eq!(asked.last(), Some(&DEFAULT));
}

#[tokio::test]
async fn a_relay_that_is_down_does_not_make_chunks_small() {
    let fake = Fake::start().await;
    let node = builder(&fake).build().expect("valid");
    drop(node.wake(TIME).await);
    fake.then((0..2).map(|_| crate::fake::Act::Fail(tonic::Status::internal("not now"))));
    assert!(matches!(node.wake(TIME).await.freshness(), Freshness::Stale { .. }));
    drop(node.wake(TIME).await);
    assert!(asked(&fake).iter().all(|bytes| *bytes == DEFAULT), "{:?}", asked(&fake));
}
