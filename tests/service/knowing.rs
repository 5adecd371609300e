//! What anybody can ask of who is alive, and the numbers behind the answers.

use std::{collections::BTreeSet, error::Error, sync::Arc, time::Duration};

use dormouse_proto::wire::v1::{self, relay_info::Condition};
use dormouse_relay::{
    config::Config,
    liveness::{LeaseSettings, Millis},
    log::{LogId, memory::Memory},
};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::harness::{Caller, Outcome, Served, add, asleep, get, reason};

/// Far more than anything here takes, and never waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Leases that are as short as a relay allows.
async fn served(suspect_grace: u64) -> Result<Served, Box<dyn Error>> {
    let leases = LeaseSettings {
        awake: Millis(300),
        asleep: Millis::from_secs(2),
        asleep_min: Millis::from_secs(1),
        asleep_max: Millis::from_secs(2),
        suspect_grace: Millis(suspect_grace),
        ..LeaseSettings::default()
    };
    Served::new(Config { leases, ..Config::default() }, Arc::new(Memory::new(LogId(7)))).await
}

async fn explain(served: &Served, node_id: &str) -> Result<v1::ExplainMemberResponse, tonic::Status> {
    let request = v1::ExplainMemberRequest { node_id: node_id.to_owned(), ..Default::default() };
    Ok(served.membership().await.explain_member(request).await?.into_inner())
}

/// Asks until the sentence begins so.
async fn explained_as(
    served: &Served,
    node_id: &str,
    beginning: &str,
) -> Result<v1::ExplainMemberResponse, Box<dyn Error>> {
    let ask = async {
        loop {
            let answer = explain(served, node_id).await?;
            if answer.summary.starts_with(beginning) {
                return Ok::<_, tonic::Status>(answer);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    Ok(timeout(PATIENCE, ask).await??)
}

fn fact<'a>(answer: &'a v1::ExplainMemberResponse, name: &str) -> &'a str {
    let fact = answer.facts.iter().find(|fact| fact.name == name);
    &fact.unwrap_or_else(|| panic!("{name} is not in {answer:?}")).value
}

#[tokio::test]
async fn a_state_is_explained_by_the_numbers_behind_it() -> Outcome {
    let served = served(1_000).await?;
    let mut caller = Caller::new(&served, 1).await;
    caller.wake().await?;
    let node = caller.identity.node_id.clone();
    let awake = explained_as(&served, &node, "AWAKE: heard of 0.").await?;
    assert_eq!(fact(&awake, "awake_lease_ms"), "300");
    assert_eq!(fact(&awake, "undeclared_freeze"), "deny");
    assert_eq!(fact(&awake, "p_alive"), "1.0000");

    let suspect = explained_as(&served, &node, "SUSPECT: silent for ").await?;
    assert!(suspect.summary.contains("lease 0.3 s, GONE after a grace of 1.0 s"), "{}", suspect.summary);
    assert_eq!(fact(&suspect, "p_alive"), "0.5000", "nothing is known of such lapses");
    let gone = explained_as(&served, &node, "GONE, EXPIRED: silent for ").await?;
    assert_eq!(gone.member.map(|it| it.state()), Some(v1::member::State::Gone));

    let request = caller.request(asleep());
    caller.send(request).await?;
    let asleep = explained_as(&served, &node, "ASLEEP for 0.").await?;
    assert!(asleep.summary.contains("as far as the 0 wakes of group callers tell"), "{}", asleep.summary);
    assert_eq!(asleep.member.map(|it| it.incarnation), Some(2), "it thawed late and is the same node");
    let learn = async {
        // Two of three, with one of each assumed; about once a second the relay draws its conclusions.
        while fact(&explain(&served, &node).await?, "group_lapses_heard_of_again") != "0.667" {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok::<_, tonic::Status>(())
    };
    timeout(PATIENCE, learn).await??;

    let unknown = explain(&served, "0000000000001").await.expect_err("nobody");
    assert_eq!((unknown.code(), reason(&unknown).as_str()), (Code::NotFound, "NODE_UNKNOWN"));
    let wrong = explain(&served, "me").await.expect_err("no name");
    assert_eq!((wrong.code(), reason(&wrong).as_str()), (Code::InvalidArgument, "FIELD_INVALID"));
    Ok(())
}

#[tokio::test]
async fn a_group_that_has_woken_often_tells_its_gaps_and_its_lease() -> Outcome {
    let served = served(600_000).await?;
    let mut caller = Caller::new(&served, 1).await;
    for _ in 0..150 {
        let request = caller.request(asleep());
        caller.send(request).await?;
        caller.wake().await?;
    }
    let by_group = || v1::CountMembersRequest { group_by: vec!["group".into()], ..Default::default() };
    let ask = async {
        loop {
            let answer = served.membership().await.count_members(by_group()).await?.into_inner();
            if answer.counts.first().is_some_and(|it| it.asleep_lease_ms == 1_000) {
                return Ok::<_, tonic::Status>(answer.counts);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let counts = timeout(PATIENCE, ask).await??;
    // While it had woken less often, what is assumed of every group made it longer.
    let [count] = &counts[..] else { panic!("one group: {counts:?}") };
    assert_eq!((count.members, count.asleep_lease_ms), (1, 1_000), "the shortest that is learned");
    assert!(count.wake_gap_p50_ms < 500, "woken at once, and not {count:?}");
    let request = caller.request(asleep());
    let lease = caller.send(request).await?.lease.expect("a lease");
    assert!((1_000..=1_100).contains(&lease.ttl_ms), "that is granted, but for the jitter: {lease:?}");
    // Counted by anything else, nothing is known of single groups.
    let by_both = vec!["group".into(), "state".into()];
    let by_both = v1::CountMembersRequest { group_by: by_both, ..Default::default() };
    let counts = served.membership().await.count_members(by_both).await?.into_inner().counts;
    assert!(counts.iter().all(|it| it.asleep_lease_ms == 0));
    Ok(())
}

#[tokio::test]
async fn how_far_a_member_is_behind_and_how_often_it_has_pushed_is_told() -> Outcome {
    let served = Served::default().await?;
    let mut reader = Caller::new(&served, 1).await;
    reader.sync(Vec::new()).await?;
    reader.wake().await?;
    let request = v1::GetMemberRequest { node_id: reader.identity.node_id.clone(), ..Default::default() };
    let before =
        served.membership().await.get_member(request.clone()).await?.into_inner().member.expect("there");
    let mut writer = Caller::new(&served, 2).await;
    for _ in 0..20 {
        writer.sync(vec![add("shown", 1)]).await?;
    }
    let after = served.membership().await.get_member(request).await?.into_inner().member.expect("there");
    assert!(after.behind >= before.behind + 20, "{} and then {}", before.behind, after.behind);
    let request = v1::GetMemberRequest { node_id: writer.identity.node_id.clone(), ..Default::default() };
    let writer = served.membership().await.get_member(request).await?.into_inner().member.expect("there");
    assert_eq!((after.pushes, writer.pushes), (0, 20));
    let relay = served.membership().await.get_relay(v1::GetRelayRequest {}).await?.into_inner().relay;
    let counters = relay.expect("a relay").counters;
    assert_eq!((counters["joins"], counters["pushes"], counters["false_deaths"]), (2, 20, 0));
    Ok(())
}

#[tokio::test]
async fn when_very_many_fall_silent_at_once_watchers_hear_of_it_once_and_nobody_is_gone() -> Outcome {
    let served = served(0).await?;
    let mut watch =
        served.membership().await.watch_members(v1::WatchMembersRequest::default()).await?.into_inner();
    let mut callers = Vec::new();
    for name in 0..60 {
        callers.push(Caller::new(&served, name).await);
    }
    // Joined one after the other, they would lapse so too.
    for _ in 0..2 {
        for caller in &mut callers {
            caller.wake().await?;
        }
    }
    let mass_loss = Condition::MassLoss as i32;
    let (mut ended, mut lost) = (0, 0);
    let listen = async {
        let mut held = false;
        while ended < callers.len() {
            let message = watch.next().await.expect("the stream goes on")?;
            let holds = message.conditions.contains(&mass_loss);
            lost += u32::from(holds && !held);
            held = holds;
            let ends = message.events.iter().filter(|it| it.kind() == v1::member_event::Kind::Ended).count();
            assert!(ends == 0 || !holds, "nobody is declared gone while it holds");
            ended += ends;
        }
        Ok::<_, tonic::Status>(())
    };
    timeout(PATIENCE, listen).await??;
    assert_eq!(lost, 1);
    let page = get(&served.admin_url, "/metrics").await?;
    assert!(page.contains("dormouse_mass_losses_total 1\n"), "{page}");
    Ok(())
}

#[tokio::test]
async fn a_watch_from_a_revision_that_this_log_never_gave_out_begins_with_everybody() -> Outcome {
    let served = Served::default().await?;
    let mut there = BTreeSet::new();
    for name in 1..4 {
        let mut caller = Caller::new(&served, name).await;
        caller.wake().await?;
        there.insert(caller.identity.node_id);
    }
    let request = v1::WatchMembersRequest { after_revision: Some(5), ..Default::default() };
    let mut watch = served.membership().await.watch_members(request).await?.into_inner();
    let first = timeout(PATIENCE, watch.next()).await?.expect("the stream goes on")?;
    assert!(first.restart && first.caught_up, "{first:?}");
    let joined = first.events.into_iter().map(|it| (it.kind(), it.member.expect("a member").node_id));
    let expected = there.into_iter().map(|node| (v1::member_event::Kind::Joined, node));
    assert_eq!(joined.collect::<BTreeSet<_>>(), expected.collect());
    // From the revision that it was told, it goes on without a restart.
    let request = v1::WatchMembersRequest { after_revision: Some(first.revision), ..Default::default() };
    let mut watch = served.membership().await.watch_members(request).await?.into_inner();
    let next = timeout(PATIENCE, watch.next()).await?.expect("the stream goes on")?;
    assert!(!next.restart && next.events.is_empty(), "{next:?}");
    Ok(())
}
