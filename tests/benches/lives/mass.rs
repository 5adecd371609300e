//! A hundred thousand leases that run out within seconds.
//!
//! So many beats in one second are more than a small machine can send. But a relay that starts gives every member that
//! it finds one awake lease at the least, and the rest of its own and five seconds if that is more: so the nodes join, the
//! relay is killed and started again, and all of them stay silent. Their leases run out over about as long as their joining
//! took (`mass_expiry_due_spread_ms`), so what is told of their expiry is measured from the last of them. Some others renew
//! their leases all the while. The relay takes so much silence for a loss of the network, and keeps all of them for two awake
//! leases; what follows is measured from where it lets go.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use dormouse_proto::wire::v1::{self, member_event::Kind, membership_client::MembershipClient};
use tokio::task::JoinSet;
use tonic::{Streaming, transport::Channel};

use crate::{
    load::{Node, Renewing, Says, Settings, changes, channels, joined, watch_members},
    millis, p99,
    relay::RelayProcess,
    report,
};

const SILENT: usize = 100_000;
const OTHERS: usize = 500;
/// Overrides the number of watchers.
const WATCHERS: &str = "DORMOUSE_BENCH_WATCHERS";
/// Long enough to join all, to start again and to open all the streams.
const LEASE: &str = "60000";
const GRACE: Duration = Duration::from_secs(3);
const LEASES: &Settings = &[("DORMOUSE_AWAKE_LEASE_MS", LEASE), ("DORMOUSE_SUSPECT_GRACE_MS", "3000")];
/// The longest that all the ends are waited for.
const PATIENCE: Duration = Duration::from_secs(180);

fn watchers_wanted() -> usize {
    std::env::var(WATCHERS).ok().and_then(|it| it.parse().ok()).unwrap_or(100)
}

pub(crate) async fn expiry() {
    let mut relay = RelayProcess::start(LEASES).expect("a relay");
    let before = channels(&relay.url()).await;
    let began = Instant::now();
    let silent = joined(&before, SILENT, Says::Awake).await;
    report("mass_joins_per_s", SILENT as f64 / began.elapsed().as_secs_f64(), "1/s");
    let mut others = joined(&before, OTHERS + 1, Says::Awake).await;
    relay.kill().expect("killed");
    let began = Instant::now();
    relay.restart().expect("started again");
    report("mass_restart_ms", millis(began.elapsed()), "ms");

    // The watchers have their own, so that streams that nobody reads for a moment do not hold up the renewals.
    let (streams, channels) = (channels(&relay.url()).await, channels(&relay.url()).await);
    let mut others = others.drain(..).enumerate();
    let mut moved = |(nth, node): (usize, Node)| node.moved_to(channels[nth % channels.len()].clone());
    let mut observer = others.next().map(&mut moved).expect("one more than the others");
    let renewing = Renewing::start(others.map(moved).collect());
    let mut watchers = JoinSet::new();
    for nth in 0..watchers_wanted() {
        let stream = watch_members(streams[nth % streams.len()].clone()).await;
        watchers.spawn(watch(stream));
    }

    let ready = Instant::now();
    let (last, spread) = last_due(channels[0].clone(), &silent).await;
    report("mass_expiry_due_spread_ms", millis(spread), "ms");
    let due = moment_before(channels[0].clone(), &last).await;
    let suspect = counted(&mut observer, |counts| counts.awake).await;
    report("mass_expiry_100k_ms", millis(suspect.saturating_duration_since(due)), "ms");
    assert_eq!(awake_members(channels[0].clone()).await, OTHERS as u64 + 1, "the others are as they were");
    let ending = let_go(&mut observer).await.max(due + GRACE);
    report("mass_expiry_held_s", ending.saturating_duration_since(due + GRACE).as_secs_f64(), "s");
    let gone = counted(&mut observer, |counts| counts.awake + counts.suspect).await;
    report("mass_expiry_gone_s", gone.saturating_duration_since(ending).as_secs_f64(), "s");
    let last = gone.max(report_of_watchers(&watchers.join_all().await, ending));
    report("mass_expiry_renew_p99_ms", millis(p99(renewing.took(ending, last))), "ms");
    report("mass_expiry_renewals", renewing.took(ending, last).len() as f64, "count");
    report("mass_expiry_renew_p99_before_ms", millis(p99(renewing.took(ready, due))), "ms");
    report("mass_expiry_renew_p99_held_ms", millis(p99(renewing.took(due, ending))), "ms");
    let false_deaths = relay.metric("dormouse_false_deaths_total").expect("a metric");
    report("mass_expiry_false_deaths", false_deaths as f64, "count");
}

/// Answers when the last of them was complete; `ending` is when all the ends were due.
fn report_of_watchers(watched: &[Watched], ending: Instant) -> Instant {
    let complete = || watched.iter().map(|it| it.complete);
    let (first, last) = (complete().min().unwrap_or(ending), complete().max().unwrap_or(ending));
    let after = |at: Instant| at.saturating_duration_since(ending).as_secs_f64();
    report("mass_expiry_first_watcher_s", after(first), "s");
    report("mass_expiry_watch_s", after(last), "s");
    let restarts: u64 = watched.iter().map(|it| it.restarts).sum();
    report("mass_expiry_watch_restarts", restarts as f64, "count");
    last
}

/// Whose lease runs out last, and how long after the first.
async fn last_due(channel: Channel, silent: &[Node]) -> (String, Duration) {
    let silent: HashSet<&str> = silent.iter().map(|it| it.id.as_str()).collect();
    let mut client = MembershipClient::new(channel);
    let view = v1::list_members_request::View::Full.into();
    let (mut page_token, mut found) = (String::new(), Vec::new());
    loop {
        let request = v1::ListMembersRequest { page_size: 1_000, page_token, view, ..Default::default() };
        let page = client.list_members(request).await.expect("a page").into_inner();
        let now = Instant::now();
        let due = |it: &v1::Member| now + Duration::from_millis(it.lease_left_ms.into());
        let members = page.members.into_iter().filter(|it| silent.contains(it.node_id.as_str()));
        found.extend(members.map(|it| (due(&it), it.node_id)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(found.len(), silent.len(), "all are members");
    found.sort_unstable();
    let [(first, _), .., (last, node_id)] = found.as_slice() else { panic!("there are many") };
    (node_id.clone(), last.saturating_duration_since(*first))
}

/// When the lease of that member runs out.
async fn due_of(channel: Channel, node_id: &str) -> Instant {
    let mut client = MembershipClient::new(channel);
    let request = v1::GetMemberRequest { node_id: node_id.to_owned(), ..Default::default() };
    let member = client.get_member(request).await.expect("an answer").into_inner().member;
    let left = Duration::from_millis(member.expect("a member").lease_left_ms.into());
    assert!(!left.is_zero(), "the lease ran out before everything was ready");
    Instant::now() + left
}

/// Waits until a moment before that, and asks again: a pause of the relay meanwhile would have moved it.
async fn moment_before(channel: Channel, node_id: &str) -> Instant {
    const EARLY: Duration = Duration::from_millis(500);
    let wait = due_of(channel.clone(), node_id).await.saturating_duration_since(Instant::now());
    tokio::time::sleep(wait.saturating_sub(EARLY)).await;
    due_of(channel, node_id).await
}

/// When only the others are left in a count of members.
async fn counted(observer: &mut Node, count: fn(&v1::MemberCounts) -> u32) -> Instant {
    const POLL: Duration = Duration::from_millis(5);
    let began = Instant::now();
    loop {
        let counts = observer.beat(Says::Awake).await.expect("renewed").members.expect("always said");
        if count(&counts) as usize == OTHERS + 1 {
            return Instant::now();
        }
        assert!(began.elapsed() < PATIENCE, "{counts:?}");
        tokio::time::sleep(POLL).await;
    }
}

/// When those that fell silent with very many others are kept no more.
async fn let_go(observer: &mut Node) -> Instant {
    const POLL: Duration = Duration::from_millis(20);
    let began = Instant::now();
    let mass_loss = v1::relay_info::Condition::MassLoss as i32;
    while observer.beat(Says::Awake).await.expect("renewed").conditions.contains(&mass_loss) {
        assert!(began.elapsed() < PATIENCE, "they are kept for ever");
        tokio::time::sleep(POLL).await;
    }
    Instant::now()
}

async fn awake_members(channel: Channel) -> u64 {
    let states = vec![v1::member::State::Awake.into()];
    let filter = Some(v1::MemberFilter { states, ..Default::default() });
    let request = v1::CountMembersRequest { filter, ..Default::default() };
    let counts = MembershipClient::new(channel).count_members(request).await.expect("counted");
    counts.into_inner().counts.first().map_or(0, |count| count.members)
}

/// How a watcher fared.
#[derive(Clone, Copy, Debug)]
struct Watched {
    /// When it knew that nobody is left but the others.
    complete: Instant,
    /// How often it was so far behind that it was named everybody again.
    restarts: u64,
}

/// Counts the members that it was told of until only the others are left.
async fn watch(mut stream: Streaming<v1::WatchMembersResponse>) -> Watched {
    let (mut members, mut restarts, mut is_whole) = (SILENT + OTHERS + 1, 0, true);
    loop {
        let message = tokio::time::timeout(PATIENCE, stream.message()).await.expect("in time");
        let message = message.expect("told").expect("not the end of it");
        if message.restart {
            (members, restarts, is_whole) = (0, restarts + 1, false);
        }
        is_whole |= message.caught_up;
        for (kind, _) in changes(message) {
            match kind {
                Kind::Joined => members += 1,
                Kind::Ended => members -= 1,
                _ => {}
            }
        }
        if is_whole && members == OTHERS + 1 {
            return Watched { complete: Instant::now(), restarts };
        }
    }
}
