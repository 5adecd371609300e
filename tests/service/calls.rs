//! The services of one relay, over real connections.

use crate::harness::{
    Caller, Outcome, Served, add, asleep, awake, chunk, counter, get, pushed, register, set_add, set_remove,
};
use dormouse_proto::wire::v1::{
    self,
    lease::Admission,
    member::{GoneReason, State},
    member_event::Kind,
};
use tokio_stream::StreamExt as _;

#[tokio::test]
async fn a_push_is_seen_by_its_own_pull_and_not_sent_twice() -> Outcome {
    let served = Served::default().await?;
    let mut a = Caller::new(&served, 1).await;
    let answer = a.sync(vec![add("shown", 3), set_add("seen", &["x", "y"])]).await?;
    let ack = pushed(&answer);
    assert_eq!(counter(&ack.keys, "shown"), Some(3));
    assert_eq!(ack.keys.len(), 1, "set rows that are what was asked for are left out");
    assert!(chunk(&answer).caught_up);

    let again = a.sync(Vec::new()).await?;
    assert!(chunk(&again).keys.is_empty(), "nothing has changed since");

    let mut b = Caller::new(&served, 2).await;
    let first = b.sync(vec![add("shown", 1)]).await?;
    assert_eq!(counter(&chunk(&first).keys, "shown"), Some(4));
    let missed = a.sync(Vec::new()).await?;
    assert_eq!(chunk(&missed).keys.len(), 1, "one row changed: {:?}", chunk(&missed).keys);
    assert_eq!(counter(&chunk(&missed).keys, "shown"), Some(4));
    Ok(())
}

#[tokio::test]
async fn what_an_acknowledgement_carried_is_not_pulled_again() -> Outcome {
    let served = Served::default().await?;
    let mut a = Caller::new(&served, 1).await;
    a.sync(Vec::new()).await?;
    let mut request = a.request(awake(5_000));
    request.push = Some(a.push(vec![add("shown", 1)]));
    a.send(request).await?;
    assert_eq!(a.acked.len(), 1);
    let next = a.sync(Vec::new()).await?;
    assert!(chunk(&next).keys.is_empty(), "the acknowledgement had that row: {:?}", chunk(&next).keys);
    Ok(())
}

#[tokio::test]
async fn a_retried_push_binds_once_and_is_answered_alike() -> Outcome {
    let served = Served::default().await?;
    let mut a = Caller::new(&served, 1).await;
    a.wake().await?;
    let mut request = a.request(awake(5_000));
    let push = a.push(vec![add("shown", 1)]);
    request.push = Some(push.clone());
    let first = a.send(request).await?;
    let mut retry = a.request(awake(5_000));
    retry.push = Some(v1::Push { retried: true, ..push });
    let second = a.send(retry).await?;
    assert_eq!(pushed(&first).revision, pushed(&second).revision);
    assert_eq!(counter(&pushed(&second).keys, "shown"), Some(1));
    let settled = second.settled.expect("said with every answer");
    assert_eq!(
        (settled.push_no, settled.revision, settled.refused.as_str()),
        (1, pushed(&first).revision, "")
    );
    Ok(())
}

#[tokio::test]
async fn a_retried_first_wake_joins_once() -> Outcome {
    let served = Served::default().await?;
    let mut a = Caller::new(&served, 1).await;
    let first = a.wake().await?.lease.expect("a lease");
    let mut lost = Caller::new(&served, 1).await;
    let second = lost.wake().await?.lease.expect("a lease");
    assert_eq!((&first.node_id, first.incarnation), (&second.node_id, second.incarnation));
    assert_eq!(first.admission(), Admission::Joined);
    let count =
        served.membership().await.count_members(v1::CountMembersRequest::default()).await?.into_inner();
    assert_eq!(count.counts[0].members, 1);
    Ok(())
}

#[tokio::test]
async fn a_clone_of_a_process_gets_an_identity_of_its_own() -> Outcome {
    let served = Served::default().await?;
    let mut a = Caller::new(&served, 1).await;
    a.sync(vec![add("shown", 1)]).await?;
    let mut clone = Caller::new(&served, 1).await;
    clone.identity = a.identity.clone();
    (clone.beat, clone.push_no, clone.head) = (a.beat, a.push_no, a.head);

    a.sync(vec![add("shown", 1)]).await?;
    let mut request = clone.request(awake(5_000));
    request.call_id = vec![9; 8].into();
    request.push = Some(v1::Push { push_id: vec![9; 8].into(), ..clone.push(vec![add("shown", 1)]) });
    let forked = clone.send(request).await?;
    let lease = forked.lease.expect("a lease");
    assert_eq!(lease.admission(), Admission::Forked);
    assert_ne!(lease.node_id, a.identity.node_id);
    assert!(forked.push_result.is_none(), "the push was certainly not bound: it is sealed anew");

    clone.push_no = 0;
    let bound = clone.sync(vec![add("shown", 1)]).await?;
    assert_eq!(counter(&pushed(&bound).keys, "shown"), Some(3));
    Ok(())
}

#[tokio::test]
async fn a_sleeper_is_told_the_longer_lease_and_counted_asleep() -> Outcome {
    let served = Served::default().await?;
    let mut a = Caller::new(&served, 1).await;
    let woken = a.wake().await?;
    assert!(woken.lease.expect("a lease").ttl_ms <= 3_000);
    let request = a.request(asleep());
    let slept = a.send(request).await?;
    assert_eq!(slept.lease.expect("a lease").ttl_ms, 1_800_000);
    let counts = slept.members.expect("always said");
    assert_eq!((counts.awake, counts.asleep, counts.suspect), (0, 1, 0));
    Ok(())
}

#[tokio::test]
async fn an_add_wins_over_a_remove_that_had_not_seen_it() -> Outcome {
    let served = Served::default().await?;
    let mut a = Caller::new(&served, 1).await;
    let seen = pushed(&a.sync(vec![set_add("seen", &["x"])]).await?).revision;
    let mut b = Caller::new(&served, 2).await;
    b.sync(vec![set_add("seen", &["x"])]).await?;
    let stale = a.sync(vec![set_remove("seen", &["x"], Some(seen))]).await?;
    let state = &pushed(&stale).keys[0].state;
    let Some(v1::key_state::State::Set(set)) = state else { panic!("not a set: {state:?}") };
    assert_eq!(set.present, ["x"], "the acknowledgement says that it is still there");
    Ok(())
}

#[tokio::test]
async fn a_write_takes_effect_once_and_a_read_shows_it() -> Outcome {
    let served = Served::default().await?;
    let mut mailbox = served.mailbox().await;
    let write = v1::WriteRequest {
        request_id: "deploy-1".into(),
        deltas: vec![add("shown", 5), register("mode", "\"on\"", None)],
        ..Default::default()
    };
    let first = mailbox.write(write.clone()).await?.into_inner();
    let second = mailbox.write(write).await?.into_inner();
    assert_eq!(first.revision, second.revision);
    assert_eq!(counter(&second.keys, "shown"), Some(5));

    let read =
        v1::ReadRequest { keys: vec!["ads/*".into()], min_revision: first.revision, ..Default::default() };
    let read = mailbox.read(read).await?.into_inner();
    let names: Vec<&str> = read.keys.iter().map(|it| it.key.as_str()).collect();
    assert_eq!(names, ["mode", "shown"]);
    assert_eq!(counter(&read.keys, "shown"), Some(5));
    Ok(())
}

#[tokio::test]
async fn a_long_read_goes_page_by_page() -> Outcome {
    let served = Served::default().await?;
    let mut mailbox = served.mailbox().await;
    let big = "x".repeat(12_000);
    for nth in 0..8 {
        let deltas = vec![register(&format!("key{nth}"), &big, None)];
        mailbox
            .write(v1::WriteRequest { request_id: format!("w{nth}"), deltas, ..Default::default() })
            .await?;
    }
    let (mut names, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let keys = vec!["ads/key3".into(), "ads/key*".into()];
        let request = v1::ReadRequest { keys, page_token, max_bytes: 16_384, ..Default::default() };
        let page = mailbox.read(request).await?.into_inner();
        names.extend(page.keys.into_iter().map(|it| it.key));
        pages += 1;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["key3", "key0", "key1", "key2", "key3", "key4", "key5", "key6", "key7"]);
    assert!(pages >= 4, "{pages} pages");
    Ok(())
}

#[tokio::test]
async fn a_backlog_comes_in_bounded_chunks_and_each_row_once() -> Outcome {
    let served = Served::default().await?;
    let mut mailbox = served.mailbox().await;
    let value = "v".repeat(2_000);
    for nth in 0..60 {
        let deltas = vec![register(&format!("key{}", nth % 30), &format!("{nth}{value}"), None)];
        mailbox
            .write(v1::WriteRequest { request_id: format!("w{nth}"), deltas, ..Default::default() })
            .await?;
    }
    let mut a = Caller::new(&served, 1).await;
    let (mut rows, mut chunks) = (0, 0);
    loop {
        let mut request = a.request(awake(5_000));
        request.pull = Some(v1::Pull { max_bytes: 16_384, ..a.pull(&["*"]) });
        let answer = a.send(request).await?;
        let chunk = chunk(&answer);
        rows += chunk.keys.len();
        chunks += 1;
        assert!(chunk.keys.iter().map(|it| it.key.len()).sum::<usize>() < 16_384);
        if chunk.caught_up {
            break;
        }
        assert!(chunk.rows_left > 0);
    }
    assert_eq!(rows, 30, "60 updates of 30 rows are 30 rows");
    assert!(chunks >= 4, "{chunks} chunks");
    Ok(())
}

#[tokio::test]
async fn a_watch_shows_changes_as_they_happen() -> Outcome {
    let served = Served::default().await?;
    let mut mailbox = served.mailbox().await;
    let request = v1::WatchRequest { collections: vec!["ads".into()], ..Default::default() };
    let mut stream = mailbox.watch(request).await?.into_inner();
    let first = stream.next().await.expect("an answer")?.chunk.expect("a chunk");
    assert!(first.caught_up && first.keys.is_empty());
    let mut writer = served.mailbox().await;
    writer
        .write(v1::WriteRequest {
            request_id: "w".into(),
            deltas: vec![add("shown", 2)],
            ..Default::default()
        })
        .await?;
    let next = stream.next().await.expect("an answer")?.chunk.expect("a chunk");
    assert_eq!(counter(&next.keys, "shown"), Some(2));
    Ok(())
}

#[tokio::test]
async fn members_are_listed_counted_and_watched() -> Outcome {
    let served = Served::default().await?;
    let mut membership = served.membership().await;
    let mut events = membership.watch_members(v1::WatchMembersRequest::default()).await?.into_inner();
    let start = events.next().await.expect("an answer")?;
    assert!(start.caught_up && start.events.is_empty());

    for name in 1..=5 {
        let mut caller = Caller::new(&served, name).await;
        caller.identity.tags.insert("zone".into(), if name % 2 == 0 { "a".into() } else { "b".into() });
        caller.wake().await?;
    }
    let mut joined = 0;
    while joined < 5 {
        let message = events.next().await.expect("an answer")?;
        joined += message.events.iter().filter(|it| it.kind() == Kind::Joined).count();
    }

    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListMembersRequest { page_size: 2, page_token, ..Default::default() };
        let page = membership.list_members(request).await?.into_inner();
        names.extend(page.members.into_iter().map(|it| it.node_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let mut sorted = names.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!((names.len(), &names), (5, &sorted), "ordered, each once");

    let filter = v1::MemberFilter { tags: "zone in (a)".into(), ..Default::default() };
    let request = v1::CountMembersRequest {
        filter: Some(filter),
        group_by: vec!["state".into(), "tags.zone".into()],
        ..Default::default()
    };
    let counts = membership.count_members(request).await?.into_inner().counts;
    assert_eq!(counts.len(), 1);
    assert_eq!(
        (counts[0].members, counts[0].by["tags.zone"].as_str(), counts[0].by["state"].as_str()),
        (2, "a", "AWAKE")
    );
    Ok(())
}

#[tokio::test]
async fn a_watch_of_members_resumes_without_losing_an_end() -> Outcome {
    let served = Served::default().await?;
    let mut membership = served.membership().await;
    let mut leaver = Caller::new(&served, 1).await;
    leaver.wake().await?;
    let mut events = membership.watch_members(v1::WatchMembersRequest::default()).await?.into_inner();
    let seen = events.next().await.expect("an answer")?;
    assert_eq!((seen.events.len(), seen.caught_up), (1, true));
    drop(events);

    let request = leaver.request(v1::sync_request::Next::Leaving(v1::Leaving { reason: "done".into() }));
    leaver.send(request).await?;
    let resume = v1::WatchMembersRequest { after_revision: Some(seen.revision), ..Default::default() };
    let mut events = membership.watch_members(resume).await?.into_inner();
    let missed = events.next().await.expect("an answer")?;
    let member = missed.events[0].member.as_ref().expect("named");
    assert!(!missed.restart);
    assert_eq!((missed.events[0].kind(), member.gone_reason()), (Kind::Ended, GoneReason::Left));

    let elsewhere = v1::WatchMembersRequest { after_revision: Some(3), ..Default::default() };
    let mut events = membership.watch_members(elsewhere).await?.into_inner();
    assert!(events.next().await.expect("an answer")?.restart, "that revision is of no history of this log");
    Ok(())
}

#[tokio::test]
async fn an_evicted_member_is_gone_and_stays_out() -> Outcome {
    let served = Served::default().await?;
    let mut a = Caller::new(&served, 1).await;
    a.wake().await?;
    let node_id = a.identity.node_id.clone();
    let mut membership = served.membership().await;
    let evicted = membership
        .evict_member(v1::EvictMemberRequest {
            node_id: node_id.clone(),
            reason: "test".into(),
            ..Default::default()
        })
        .await?;
    let member = evicted.into_inner().member.expect("named");
    assert_eq!((member.state(), member.gone_reason()), (State::Gone, GoneReason::Evicted));
    let refused = a.wake().await.expect_err("it was evicted");
    assert_eq!(crate::harness::reason(&refused), "NODE_GONE");
    let still =
        membership.get_member(v1::GetMemberRequest { node_id, ..Default::default() }).await?.into_inner();
    assert_eq!(still.member.expect("named").state(), State::Gone);
    Ok(())
}

#[tokio::test]
async fn members_are_rows_for_who_follows_them() -> Outcome {
    let served = Served::default().await?;
    let mut a = Caller::new(&served, 1).await;
    let mut b = Caller::new(&served, 2).await;
    b.wake().await?;
    let mut request = a.request(awake(5_000));
    request.pull = Some(a.pull(&["@members"]));
    let answer = a.send(request).await?;
    assert_eq!(chunk(&answer).members.len(), 2);
    let request = b.request(v1::sync_request::Next::Leaving(v1::Leaving::default()));
    b.send(request).await?;
    let mut request = a.request(awake(5_000));
    request.pull = Some(a.pull(&["@members"]));
    let answer = a.send(request).await?;
    let told: Vec<_> =
        chunk(&answer).members.iter().map(|it| (it.node_id.as_str(), it.state(), it.gone_reason())).collect();
    assert_eq!(told, [(b.identity.node_id.as_str(), State::Gone, GoneReason::Left)]);
    Ok(())
}

#[tokio::test]
async fn health_reflection_and_the_relay_itself_answer() -> Outcome {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };

    let served = Served::default().await?;
    let channel = tonic::transport::Endpoint::from_shared(served.url.clone())?.connect().await?;
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
    let request = tonic_health::pb::HealthCheckRequest { service: "dormouse.v1.Mailbox".into() };
    let status = health.check(request).await?.into_inner().status();
    assert_eq!(status, tonic_health::pb::health_check_response::ServingStatus::Serving);

    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::iter([request]))
        .await?
        .into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        answers.next().await.expect("an answer")?.message_response
    else {
        panic!("no list of services")
    };
    let names: Vec<String> = list.service.into_iter().map(|it| it.name).collect();
    assert!(
        names.contains(&"dormouse.v1.Mailbox".to_owned())
            && names.contains(&"dormouse.v1.Membership".to_owned()),
        "{names:?}"
    );

    let relay = served
        .membership()
        .await
        .get_relay(v1::GetRelayRequest {})
        .await?
        .into_inner()
        .relay
        .expect("always");
    assert_eq!(relay.broker, "memory");
    assert!(relay.limits["rows_max"] > 0 && relay.revision > 0, "{relay:?}");
    Ok(())
}

#[tokio::test]
async fn a_stopped_relay_keeps_everything_for_the_next_one() -> Outcome {
    use dormouse_relay::{
        config::Config,
        log::embedded::{Embedded, Options},
    };
    let dir = tempfile::tempdir()?;
    let open = || -> Result<std::sync::Arc<dyn dormouse_relay::log::Log>, Box<dyn std::error::Error>> {
        Ok(std::sync::Arc::new(Embedded::open(dir.path(), Options::default())?))
    };
    let served = Served::new(Config::default(), open()?).await?;
    let mut a = Caller::new(&served, 1).await;
    a.sync(vec![add("shown", 3), set_add("seen", &["x"]), register("mode", "1", None)]).await?;
    let node_id = a.identity.node_id.clone();
    served.stop().await;

    let served = Served::new(Config::default(), open()?).await?;
    a.mailbox = served.mailbox().await;
    let answer = a.sync(vec![add("shown", 1)]).await?;
    let lease = answer.lease.as_ref().expect("a lease");
    assert_eq!((&lease.node_id, lease.admission()), (&node_id, Admission::Renewed));
    assert_eq!(counter(&pushed(&answer).keys, "shown"), Some(4));
    assert!(
        chunk(&answer).keys.len() <= 1 && chunk(&answer).restart == 0,
        "the token is good at the next session"
    );
    served.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_admin_port_tells_life_readiness_and_numbers() -> Outcome {
    let served = Served::default().await?;
    let mut a = Caller::new(&served, 1).await;
    a.sync(vec![add("shown", 3)]).await?;
    let page = get(&served.admin_url, "/metrics").await?;
    for line in [
        "dormouse_pushes_total{result=\"bound\"} 1",
        "dormouse_members{state=\"awake\"} 1",
        "dormouse_rows 1",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    assert!(get(&served.admin_url, "/livez").await?.ends_with("ok\n"));
    let ready = get(&served.admin_url, "/readyz").await?;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    // What it promises stands there in the words that GetRelay has.
    let relay = served.membership().await.get_relay(v1::GetRelayRequest {}).await?.into_inner().relay;
    let relay = relay.ok_or("a relay")?;
    let names: Vec<&str> = relay.claims.keys().map(String::as_str).collect();
    assert_eq!(names, ["acknowledged", "log_wiped", "machine_lost", "process_killed"]);
    for (name, claim) in &relay.claims {
        assert!(ready.contains(&format!("\n{name}: {claim}\n")), "{name} is not in\n{ready}");
    }
    let log = format!("\nlog: {}, ", relay.broker);
    assert!(ready.contains(&log), "{log} is not in\n{ready}");
    Ok(())
}

#[tokio::test]
async fn a_node_that_leaves_pushes_what_waits() -> Outcome {
    let served = Served::default().await?;
    let mut a = Caller::new(&served, 1).await;
    a.wake().await?;
    let mut request = a.request(v1::sync_request::Next::Leaving(v1::Leaving::default()));
    request.push = Some(a.push(vec![add("shown", 2)]));
    let answer = a.send(request).await?;
    assert_eq!(counter(&pushed(&answer).keys, "shown"), Some(2));
    assert_eq!(answer.lease.expect("a lease").ttl_ms, 0);
    let count =
        served.membership().await.count_members(v1::CountMembersRequest::default()).await?.into_inner();
    assert_eq!(count.counts[0].members, 0);
    Ok(())
}

#[tokio::test]
async fn a_readmitted_node_keeps_its_tags() -> Outcome {
    let served = Served::default().await?;
    let mut a = Caller::new(&served, 1).await;
    a.identity.tags.insert("zone".into(), "a".into());
    a.wake().await?;
    let request = a.request(v1::sync_request::Next::Leaving(v1::Leaving::default()));
    a.send(request).await?;
    a.identity.tags.clear();
    let lease = a.wake().await?.lease.expect("a lease");
    assert_eq!(lease.admission(), Admission::Readmitted);
    let filter = v1::MemberFilter { tags: "zone=a".into(), ..Default::default() };
    let request = v1::CountMembersRequest { filter: Some(filter), ..Default::default() };
    let counts = served.membership().await.count_members(request).await?.into_inner().counts;
    assert_eq!(counts[0].members, 1);
    Ok(())
}

#[tokio::test]
async fn a_node_of_a_log_that_was_wiped_is_told_so_and_served() -> Outcome {
    use dormouse_relay::{
        config::Config,
        log::embedded::{Embedded, Options},
    };
    let dir = tempfile::tempdir()?;
    let log = std::sync::Arc::new(Embedded::open(dir.path(), Options::default())?);
    let served = Served::new(Config::default(), log).await?;
    let mut a = Caller::new(&served, 1).await;
    (a.identity.node_id, a.identity.incarnation) = ("0000000000007".into(), 3);
    a.head = 1 << 50;
    let answer = a.sync(vec![add("shown", 1)]).await?;
    assert_eq!(answer.lease.as_ref().expect("a lease").admission(), Admission::Forgotten);
    assert_eq!(chunk(&answer).restart(), v1::chunk::Restart::Lost);
    a.head = chunk(&answer).as_of;
    assert_eq!(counter(&pushed(&a.sync(vec![add("shown", 1)]).await?).keys, "shown"), Some(1));
    Ok(())
}

#[tokio::test]
async fn a_watch_is_quiet_about_what_it_does_not_follow() -> Outcome {
    let served = Served::default().await?;
    let mut mailbox = served.mailbox().await;
    let request = v1::WatchRequest { collections: vec!["flags".into()], ..Default::default() };
    let mut stream = mailbox.watch(request).await?.into_inner();
    assert!(stream.next().await.expect("an answer")?.chunk.expect("a chunk").caught_up);
    let mut writer = served.mailbox().await;
    let write = |id: &str, delta| v1::WriteRequest {
        request_id: id.into(),
        deltas: vec![delta],
        ..Default::default()
    };
    for nth in 0..5 {
        writer.write(write(&format!("w{nth}"), add("shown", 1))).await?;
    }
    let flag = v1::Delta { collection: "flags".into(), ..register("checkout", "1", None) };
    writer.write(write("flag", flag)).await?;
    let next = stream.next().await.expect("an answer")?.chunk.expect("a chunk");
    assert_eq!(next.keys.len(), 1, "the next message is the first that concerns it");
    Ok(())
}
