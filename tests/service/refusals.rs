//! Every refusal of the contract that this release can give, over a real connection.

use std::sync::Arc;

use crate::harness::{
    Caller, Outcome, Served, add, awake, chunk, counter, pull_refused, push_refused, pushed, reason,
    register, set_add, set_remove,
};
use dormouse_proto::{
    record::{Policy, Record},
    wire::v1,
};
use dormouse_relay::{
    config::Config,
    log::{
        LogId,
        faults::{AppendFault, Faulty},
        memory::Memory,
    },
};
use tonic::Code;
use tonic_types::StatusExt as _;

/// Limits that are reached soon.
async fn with_policy(served: &Served, policy: Policy) {
    let outcome = served
        .relay()
        .sequencer
        .write(Record::Policy(policy), 64, None, std::time::Duration::from_secs(5))
        .await;
    outcome.expect("a policy is a record like any other");
}

#[tokio::test]
async fn field_invalid_fails_a_sync_without_an_identity() -> Outcome {
    let served = Served::default().await?;
    let refused = served.mailbox().await.sync(v1::SyncRequest::default()).await.expect_err("no node");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "FIELD_INVALID"));
    let details = refused.get_error_details();
    assert_eq!(details.bad_request().expect("named").field_violations[0].field, "node");
    Ok(())
}

#[tokio::test]
async fn field_invalid_costs_a_push_but_neither_lease_nor_backlog() -> Outcome {
    let served = Served::default().await?;
    let mut a = Caller::new(&served, 1).await;
    a.sync(vec![add("shown", 1)]).await?;
    let bad = crate::harness::delta(
        "Ads",
        "shown",
        v1::delta::Change::Counter(v1::CounterDelta { add: 1, ..Default::default() }),
    );
    let answer = a.sync(vec![add("shown", 1), bad]).await?;
    let refusal = push_refused(&answer);
    assert_eq!(
        (refusal.reason.as_str(), refusal.violations[0].field.as_str()),
        ("FIELD_INVALID", "push.deltas[1].collection")
    );
    assert!(answer.lease.expect("a lease").ttl_ms > 0);
    let mut b = Caller::new(&served, 2).await;
    assert_eq!(
        counter(&chunk(&b.sync(Vec::new()).await?).keys, "shown"),
        Some(1),
        "nothing of it was applied"
    );
    Ok(())
}

#[tokio::test]
async fn field_invalid_names_what_was_wrong() -> Outcome {
    let served = Served::default().await?;
    let once = |id: &str| v1::counter_delta::Once { id: id.into(), amount: 1 };
    let count = |delta| vec![crate::harness::delta("ads", "shown", v1::delta::Change::Counter(delta))];
    let cases: Vec<(Vec<v1::Delta>, &str)> = vec![
        (vec![add("", 1)], "push.deltas[0].key"),
        (vec![add("a\nb", 1)], "push.deltas[0].key"),
        (vec![add("a", 1), add("a", 2)], "push.deltas[1]"),
        (vec![add("a", 1 << 49)], "push.deltas[0].counter.add"),
        (
            count(v1::CounterDelta { once: vec![once("")], ..Default::default() }),
            "push.deltas[0].counter.once[0].id",
        ),
        (vec![set_add("s", &["x", "x"])], "push.deltas[0].set"),
        (
            vec![crate::harness::delta(
                "ads",
                "g",
                v1::delta::Change::GrowOnlySet(v1::GrowOnlySetDelta { add: vec!["x".into(), "x".into()] }),
            )],
            "push.deltas[0].grow_only_set",
        ),
        (
            vec![v1::Delta { collection: "ads".into(), key: "x".into(), change: None }],
            "push.deltas[0].change",
        ),
        (
            vec![crate::harness::delta(
                "@members",
                "x",
                v1::delta::Change::Max(v1::NumberDelta { value: 1 }),
            )],
            "push.deltas[0].collection",
        ),
    ];
    for (nth, (deltas, field)) in (1..).zip(cases) {
        let mut a = Caller::new(&served, nth).await;
        let answer = a.sync(deltas).await?;
        let refusal = push_refused(&answer);
        assert_eq!((refusal.reason.as_str(), refusal.violations[0].field.as_str()), ("FIELD_INVALID", field));
        assert!(!refusal.violations[0].description.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn field_invalid_when_a_counter_would_leave_its_range() -> Outcome {
    let served = Served::default().await?;
    let mut mailbox = served.mailbox().await;
    // 2^48 at a time would take 2^15 pushes; a thousand ids in a delta take 33.
    let mut refused = None;
    for nth in 0..40 {
        let once = (0..1_000)
            .map(|id| v1::counter_delta::Once { id: format!("{nth}-{id}"), amount: 1 << 48 })
            .collect();
        let change = v1::delta::Change::Counter(v1::CounterDelta { once, ..Default::default() });
        let write = v1::WriteRequest {
            request_id: format!("w{nth}"),
            deltas: vec![crate::harness::delta("ads", "n", change)],
            ..Default::default()
        };
        if let Err(status) = mailbox.write(write).await {
            refused = Some(status);
            break;
        }
    }
    let refused = refused.expect("2^63 is the end");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "FIELD_INVALID"));
    assert!(refused.message().contains("64 bits"), "{}", refused.message());
    Ok(())
}

#[tokio::test]
async fn too_large_says_the_limit() -> Outcome {
    let served = Served::default().await?;
    let mut a = Caller::new(&served, 1).await;
    let many = (0..1_025).map(|n| add(&format!("k{n}"), 1)).collect();
    let refusal = push_refused(&a.sync(many).await?).clone();
    assert_eq!(
        (refusal.reason.as_str(), refusal.violations[0].description.as_str()),
        ("TOO_LARGE", "1025 deltas, the limit is 1024")
    );

    let big = register("r", &"x".repeat(256 * 1024 + 1), None);
    let refusal = push_refused(&a.sync(vec![big]).await?).clone();
    assert_eq!(
        (refusal.reason.as_str(), refusal.violations[0].field.as_str()),
        ("TOO_LARGE", "push.deltas[0].register.value")
    );

    let elements: Vec<String> = (0..1_025).map(|n| n.to_string()).collect();
    let elements: Vec<&str> = elements.iter().map(String::as_str).collect();
    let refusal = push_refused(&a.sync(vec![set_add("s", &elements)]).await?).clone();
    assert_eq!(
        (refusal.reason.as_str(), refusal.violations[0].description.as_str()),
        ("TOO_LARGE", "1025 rows, the limit is 1024")
    );

    let mut request = a.request(awake(5_000));
    request.pull =
        Some(v1::Pull { collections: (0..65).map(|n| format!("c{n}")).collect(), ..Default::default() });
    let answer = a.send(request).await?;
    assert_eq!(pull_refused(&answer).reason, "TOO_LARGE");
    Ok(())
}

#[tokio::test]
async fn page_token_invalid() -> Outcome {
    let served = Served::default().await?;
    let list = v1::ListMembersRequest { page_token: "nonsense".into(), ..Default::default() };
    let refused = served.membership().await.list_members(list).await.expect_err("no such token");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "PAGE_TOKEN_INVALID"));
    let read = v1::ReadRequest { page_token: "7/x".into(), keys: vec!["ads/a".into()], ..Default::default() };
    let refused = served.mailbox().await.read(read).await.expect_err("no such token");
    assert_eq!(reason(&refused), "PAGE_TOKEN_INVALID");
    Ok(())
}

#[tokio::test]
async fn context_invalid_when_an_as_of_lies_in_the_future() -> Outcome {
    let served = Served::default().await?;
    let mut a = Caller::new(&served, 1).await;
    let answer = a.sync(vec![add("other", 1), set_remove("seen", &["x"], Some(u64::MAX - 1))]).await?;
    let refusal = push_refused(&answer);
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument as i32, "CONTEXT_INVALID"));
    assert_eq!(refusal.violations[0].field, "push.deltas[1]");
    let settled = answer.settled.expect("always said");
    assert_eq!((settled.push_no, settled.refused.as_str()), (1, "CONTEXT_INVALID"), "its number is used up");
    Ok(())
}

#[tokio::test]
async fn stale_when_the_history_that_a_reset_needs_was_collected() -> Outcome {
    let served = Served::default().await?;
    with_policy(&served, Policy { dead_rows_min: Some(1), ..Policy::default() }).await;
    let mut a = Caller::new(&served, 1).await;
    let seen = pushed(&a.sync(vec![add("n", 5)]).await?).revision;
    let subtract = |key: &str, n| {
        crate::harness::delta(
            "ads",
            key,
            v1::delta::Change::Counter(v1::CounterDelta { subtract: n, ..Default::default() }),
        )
    };
    a.sync(vec![subtract("n", 5), add("m", 1), add("o", 1)]).await?;
    a.sync(vec![subtract("m", 1), subtract("o", 1)]).await?;
    let reset = v1::counter_delta::Reset { as_of: Some(seen), total: 5 };
    let change = v1::delta::Change::Counter(v1::CounterDelta { reset: Some(reset), ..Default::default() });
    let answer = a.sync(vec![crate::harness::delta("ads", "n", change)]).await?;
    let refusal = push_refused(&answer);
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::FailedPrecondition as i32, "STALE"));
    assert_eq!(refusal.violations[0].field, "push.deltas[0]");
    Ok(())
}

#[tokio::test]
async fn quota_of_rows_lets_removals_pass() -> Outcome {
    let served = Served::default().await?;
    with_policy(&served, Policy { rows_max: Some(2), ..Policy::default() }).await;
    let mut a = Caller::new(&served, 1).await;
    a.sync(vec![set_add("s", &["x", "y"])]).await?;
    let answer = a.sync(vec![set_add("s", &["z"])]).await?;
    let refusal = push_refused(&answer);
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::ResourceExhausted as i32, "QUOTA"));
    pushed(&a.sync(vec![set_add("s", &["x"])]).await?);
    pushed(&a.sync(vec![set_remove("s", &["x"], None)]).await?);

    let write = v1::WriteRequest { request_id: "w".into(), deltas: vec![add("n", 1)], ..Default::default() };
    let refused = served.mailbox().await.write(write).await.expect_err("no room");
    assert_eq!(reason(&refused), "QUOTA");
    assert!(refused.get_error_details().quota_failure().is_some());
    Ok(())
}

#[tokio::test]
async fn quota_of_nodes_fails_a_join_and_no_renewal() -> Outcome {
    let served = Served::default().await?;
    with_policy(&served, Policy { nodes_max: Some(1), ..Policy::default() }).await;
    let mut a = Caller::new(&served, 1).await;
    a.wake().await?;
    let refused = Caller::new(&served, 2).await.wake().await.expect_err("one is enough");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "QUOTA"));
    a.wake().await?;
    Ok(())
}

#[tokio::test]
async fn node_unknown() -> Outcome {
    let served = Served::default().await?;
    let request = v1::GetMemberRequest { node_id: "0000000000000".into(), ..Default::default() };
    let refused = served.membership().await.get_member(request).await.expect_err("nobody");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "NODE_UNKNOWN"));
    assert_eq!(refused.get_error_details().resource_info().expect("named").resource_name, "0000000000000");
    Ok(())
}

#[tokio::test]
async fn outcome_unknown_after_a_tombstone_was_dropped() -> Outcome {
    let served = Served::default().await?;
    with_policy(&served, Policy { tombstones_max: Some(1), ..Policy::default() }).await;
    let mut a = Caller::new(&served, 1).await;
    a.sync(vec![add("n", 1)]).await?;
    let was = a.identity.node_id.clone();
    for name in [1, 2] {
        let mut leaver = Caller::new(&served, name).await;
        leaver.wake().await?;
        let request = leaver.request(v1::sync_request::Next::Leaving(v1::Leaving::default()));
        leaver.send(request).await?;
    }
    let answer = a.sync(vec![add("n", 1)]).await?;
    assert_eq!(push_refused(&answer).reason, "OUTCOME_UNKNOWN");
    let lease = answer.lease.as_ref().expect("a lease");
    assert_eq!(lease.admission(), v1::lease::Admission::Forgotten);
    assert_ne!(lease.node_id, was);
    pushed(&a.sync(vec![add("n", 1)]).await?);
    Ok(())
}

#[tokio::test]
async fn behind_when_a_revision_is_asked_for_that_this_relay_does_not_have() -> Outcome {
    let served = Served::default().await?;
    let ahead = served.relay().sequencer.read().fold.revision().0 + 1_000_000;
    let read = v1::ReadRequest { keys: vec!["ads/a".into()], min_revision: ahead, ..Default::default() };
    let refused = served.mailbox().await.read(read).await.expect_err("not there yet");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "BEHIND"));
    assert!(refused.get_error_details().retry_info().is_some());

    let mut a = Caller::new(&served, 1).await;
    let mut request = a.request(awake(5_000));
    request.pull = Some(v1::Pull { min_revision: ahead, ..a.pull(&["*"]) });
    let answer = a.send(request).await?;
    assert_eq!(pull_refused(&answer).reason, "BEHIND");
    assert!(answer.lease.is_some(), "the lease is renewed all the same");
    Ok(())
}

#[tokio::test]
async fn a_reader_of_another_history_starts_over() -> Outcome {
    let served = Served::default().await?;
    let mut a = Caller::new(&served, 1).await;
    a.sync(vec![add("n", 1)]).await?;
    a.head += 1_000_000;
    let answer = a.sync(Vec::new()).await?;
    assert_eq!(chunk(&answer).restart(), v1::chunk::Restart::Lost);
    assert_eq!(counter(&chunk(&answer).keys, "n"), Some(1));
    a.head = chunk(&answer).as_of;
    a.token = b"nonsense".to_vec();
    let answer = a.sync(Vec::new()).await?;
    assert_eq!(chunk(&answer).restart(), v1::chunk::Restart::BadToken);
    Ok(())
}

#[tokio::test]
async fn busy_says_when_to_come_back() -> Outcome {
    let served =
        Served::new(Config { joins_max: 1, ..Config::default() }, Arc::new(Memory::new(LogId(1)))).await?;
    let _all = Arc::clone(&served.relay().joins).try_acquire_many_owned(1)?;
    let refused = Caller::new(&served, 1).await.wake().await.expect_err("a storm of joins");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "BUSY"));
    assert!(refused.get_error_details().retry_info().and_then(|it| it.retry_delay).is_some());
    Ok(())
}

#[tokio::test]
async fn log_unreachable_refuses_the_push_and_serves_the_rest() -> Outcome {
    let log = Arc::new(Faulty::by_hand(Memory::new(LogId(1))));
    let served = Served::new(Config::default(), Arc::clone(&log) as _).await?;
    let mut a = Caller::new(&served, 1).await;
    a.sync(vec![add("n", 1)]).await?;
    // Every answer is lost for a while: the relay cannot know, and keeps trying.
    for _ in 0..100 {
        log.fail_next(AppendFault::Drop);
    }
    let mut request = a.request(awake(5_000));
    let push = a.push(vec![add("n", 1)]);
    request.push = Some(push.clone());
    request.pull = Some(a.pull(&["*"]));
    let mut request = tonic::Request::new(request);
    request.set_timeout(std::time::Duration::from_millis(400));
    let answer = a.mailbox.sync(request).await?.into_inner();
    assert_eq!(push_refused(&answer).reason, "LOG_UNREACHABLE");
    assert!(chunk(&answer).caught_up, "what is here is still served");
    assert!(answer.conditions.contains(&(v1::relay_info::Condition::LogUnreachable as i32)));
    assert!(served.relay().sequencer.trouble().is_some());

    // The push was not given up: the retry finds it bound, once, as soon as the log answers again.
    let mut retry = a.request(awake(60_000));
    retry.push = Some(v1::Push { retried: true, ..push });
    let mut retry = tonic::Request::new(retry);
    retry.set_timeout(std::time::Duration::from_secs(60));
    let answer = a.mailbox.sync(retry).await?.into_inner();
    assert_eq!(counter(&pushed(&answer).keys, "n"), Some(2));
    Ok(())
}

#[tokio::test]
async fn store_full_refuses_writes_and_serves_reads() -> Outcome {
    use dormouse_relay::log::embedded::{Embedded, Options};
    let dir = tempfile::tempdir()?;
    let options = Options { max_file_bytes: Some(2 << 20), max_frame_bytes: 2 << 20, ..Options::default() };
    let log = Arc::new(Embedded::open(dir.path(), options)?);
    let served = Served::new(Config::default(), log).await?;
    let mut mailbox = served.mailbox().await;
    let mut refused = None;
    for nth in 0..100 {
        let deltas = vec![register(&format!("r{nth}"), &"x".repeat(200_000), None)];
        if let Err(status) = mailbox
            .write(v1::WriteRequest { request_id: format!("w{nth}"), deltas, ..Default::default() })
            .await
        {
            refused = Some(status);
            break;
        }
    }
    let refused = refused.expect("two MiB are soon full");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "STORE_FULL"));
    let read = v1::ReadRequest { keys: vec!["ads/r0".into()], ..Default::default() };
    let read = mailbox.read(read).await?.into_inner();
    assert_eq!(read.keys.len(), 1);
    assert!(read.conditions.contains(&(v1::relay_info::Condition::StoreFull as i32)));
    Ok(())
}

#[tokio::test]
async fn quota_of_collections_holds_for_everything_that_would_make_one() -> Outcome {
    let served = Served::default().await?;
    with_policy(&served, Policy { collections_max: Some(1), ..Policy::default() }).await;
    let mut a = Caller::new(&served, 1).await;
    pushed(&a.sync(vec![add("n", 1)]).await?);
    let elsewhere = |delta: v1::Delta| v1::Delta { collection: "other".into(), ..delta };
    assert_eq!(push_refused(&a.sync(vec![elsewhere(add("n", 1))]).await?).reason, "QUOTA");
    // What only removes makes nothing, and passes.
    pushed(&a.sync(vec![elsewhere(set_remove("s", &["x"], None))]).await?);
    let applied = served.relay().sequencer.read();
    let view = applied.fold.namespace(&dormouse_proto::ids::Namespace::default()).expect("written to");
    assert_eq!(view.collections().count(), 1);
    Ok(())
}

#[tokio::test]
async fn field_invalid_for_a_watch_by_state_without_activity() -> Outcome {
    let served = Served::default().await?;
    let filter = v1::MemberFilter { states: vec![v1::member::State::Awake as i32], ..Default::default() };
    let request = v1::WatchMembersRequest { filter: Some(filter), ..Default::default() };
    let refused = served.membership().await.watch_members(request).await.expect_err("it would miss most");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "FIELD_INVALID"));
    Ok(())
}

#[tokio::test]
async fn busy_when_the_queue_before_the_log_is_full() -> Outcome {
    let log = Arc::new(Faulty::by_hand(Memory::new(LogId(1))));
    let config = Config { queue_max: 1, ..Config::default() };
    let served = Served::new(config, Arc::clone(&log) as _).await?;
    // The log swallows frames for a while, so one write is on its way, one waits, and the rest find no room.
    for _ in 0..20 {
        log.fail_next(AppendFault::Drop);
    }
    let mut calls = tokio::task::JoinSet::new();
    for nth in 0..8 {
        let mut mailbox = served.mailbox().await;
        let deltas = vec![add("n", 1)];
        let write = v1::WriteRequest { request_id: format!("w{nth}"), deltas, ..Default::default() };
        calls.spawn(async move { mailbox.write(write).await });
    }
    let (mut bound, mut busy) = (0, 0);
    while let Some(answer) = calls.join_next().await {
        match answer? {
            Ok(_) => bound += 1,
            Err(status) => {
                assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "BUSY"));
                assert!(status.get_error_details().retry_info().is_some(), "it says when to come back");
                busy += 1;
            }
        }
    }
    assert!(bound > 0 && busy > 0, "{bound} bound, {busy} refused");
    let read = v1::ReadRequest { keys: vec!["ads/n".into()], ..Default::default() };
    let read = served.mailbox().await.read(read).await?.into_inner();
    assert_eq!(counter(&read.keys, "n"), Some(bound), "what was refused was not written");
    Ok(())
}
