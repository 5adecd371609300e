//! A watcher of the membership, and a relay that is killed and started again on its log: the watcher goes on from the
//! revision that it has, and in the end it knows what a listing says.
#![expect(clippy::disallowed_methods, reason = "real processes are waited for in real time")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use dormouse_proto::wire::v1::{
    self, mailbox_client::MailboxClient, member::State, membership_client::MembershipClient,
    sync_request::Next,
};
use fastrand::Rng;
use tonic::{Status, transport::Endpoint};

use crate::relay::{Outcome, PATIENCE, RelayProcess};

const SEED: &str = "DORMOUSE_LIVES_SEED";
const NODES: u64 = 32;
const KILLS: u64 = 6;
/// Joins and ends between two kills, at least.
const CHANGES: u64 = 80;
/// The longest that one answer is waited for.
const ANSWER: Duration = Duration::from_secs(2);
/// Nobody ends but by its own word, however long the relay is away.
const LEASES: &[(&str, &str)] = &[("DORMOUSE_AWAKE_LEASE_MS", "600000")];

/// A member as a row shows it: its incarnation, whether it is one, and the revision of its last change.
type Shown = (u64, bool, u64);

fn shown(member: &v1::Member) -> Shown {
    (member.incarnation, member.state() != State::Gone, member.revision)
}

// ---- the nodes ----

/// Joins and leaves until it is told to stop; answers who it is, and whether it is a member.
async fn come_and_go(
    url: String,
    seed: u64,
    changes: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> (String, bool) {
    let mut rng = Rng::with_seed(seed);
    let boot_id = rng.u128(..).to_be_bytes().to_vec().into();
    let mut identity = v1::NodeIdentity { boot_id, group: "watched".into(), ..Default::default() };
    let (mut beat, mut is_member) = (0, false);
    while !stop.load(Relaxed) {
        let next =
            if is_member { Next::Leaving(v1::Leaving::default()) } else { Next::Awake(v1::Awake::default()) };
        let call_id = rng.u64(..).to_be_bytes().to_vec().into();
        let request = v1::SyncRequest { call_id, next: Some(next), ..Default::default() };
        let lease = insist(&url, &identity, &mut beat, request).await;
        (identity.node_id, identity.incarnation) = (lease.node_id, lease.incarnation);
        is_member = !is_member;
        changes.fetch_add(1, Relaxed);
        tokio::time::sleep(Duration::from_millis(rng.u64(..50))).await;
    }
    (identity.node_id, is_member)
}

/// Says it until it is answered, however often the relay dies meanwhile.
async fn insist(
    url: &str,
    identity: &v1::NodeIdentity,
    beat: &mut u64,
    mut request: v1::SyncRequest,
) -> v1::Lease {
    const TRIES: u32 = 1_000;
    request.node = Some(identity.clone());
    for _ in 0..TRIES {
        *beat += 1;
        request.beat = *beat;
        match say(url, request.clone()).await {
            Ok(lease) => return lease,
            Err(_) => tokio::time::sleep(Duration::from_millis(30)).await,
        }
    }
    panic!("no answer to {request:?}");
}

async fn say(url: &str, request: v1::SyncRequest) -> Result<v1::Lease, Status> {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL").timeout(ANSWER);
    let channel = endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let answer = MailboxClient::new(channel).sync(request).await?.into_inner();
    answer.lease.ok_or_else(|| Status::internal("no lease"))
}

// ---- the watcher ----

#[derive(Debug, Default)]
struct View {
    members: BTreeMap<String, Shown>,
    /// What it was told, so that it is noticed when the same is told again.
    told: BTreeSet<(String, Shown)>,
    doubled: Vec<(String, Shown)>,
    /// It was made to begin again from nothing.
    restarts: u64,
    streams: u64,
    after: Option<u64>,
}

impl View {
    fn take(&mut self, message: v1::WatchMembersResponse) {
        self.restarts += u64::from(message.restart);
        for member in message.events.into_iter().filter_map(|event| event.member) {
            let row = shown(&member);
            if !self.told.insert((member.node_id.clone(), row)) {
                self.doubled.push((member.node_id.clone(), row));
            }
            self.members.insert(member.node_id, row);
        }
        // 0: there is more of the same, and who stops here resumes from before it.
        if message.revision > 0 {
            self.after = Some(message.revision);
        }
    }
}

/// One stream after the other, each from where the one before it broke.
async fn watch(url: String, view: Arc<Mutex<View>>) {
    loop {
        // However it ends, the next stream goes on.
        let _ = follow(&url, &view).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn follow(url: &str, view: &Mutex<View>) -> Outcome {
    let locked = || view.lock().unwrap_or_else(PoisonError::into_inner);
    let after_revision = locked().after;
    let request = v1::WatchMembersRequest { after_revision, ..Default::default() };
    let mut client = MembershipClient::connect(url.to_owned()).await?;
    let mut stream = client.watch_members(request).await?.into_inner();
    locked().streams += 1;
    while let Some(message) = stream.message().await? {
        locked().take(message);
    }
    Ok(())
}

async fn listed(url: String) -> Outcome<BTreeMap<String, Shown>> {
    let states = [State::Awake, State::Asleep, State::Suspect, State::Gone].map(Into::into).to_vec();
    let filter = Some(v1::MemberFilter { states, ..Default::default() });
    let request = v1::ListMembersRequest { filter, page_size: 1_000, ..Default::default() };
    let page = MembershipClient::connect(url).await?.list_members(request).await?.into_inner();
    assert!(page.next_page_token.is_empty(), "so few members fit into one page");
    Ok(page.members.into_iter().map(|member| (member.node_id.clone(), shown(&member))).collect())
}

/// Kills the relay in the middle of it all, again and again.
fn kill_over_and_over(relay: &mut RelayProcess, changes: &AtomicU64, rng: &mut Rng) -> Outcome {
    for _ in 0..KILLS {
        let (before, began) = (changes.load(Relaxed), Instant::now());
        let enough = before + CHANGES + rng.u64(..CHANGES);
        while changes.load(Relaxed) < enough {
            assert!(began.elapsed() < PATIENCE, "{} changes", changes.load(Relaxed) - before);
            thread::sleep(Duration::from_millis(1));
        }
        relay.kill()?;
        thread::sleep(Duration::from_millis(rng.u64(..200)));
        relay.restart()?;
    }
    Ok(())
}

#[test]
fn a_watcher_misses_no_join_and_no_end_when_the_relay_is_killed_and_is_told_none_twice() -> Outcome {
    let seed = std::env::var(SEED).ok().and_then(|it| it.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("replay with {SEED}={seed} cargo test -p dormouse-tests --test lives a_watcher");
    let mut relay = RelayProcess::start(LEASES)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (changes, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let view = Arc::new(Mutex::new(View::default()));
    runtime.spawn(watch(relay.url(), Arc::clone(&view)));
    let nodes: Vec<_> = (0..NODES)
        .map(|nth| come_and_go(relay.url(), seed ^ nth, Arc::clone(&changes), Arc::clone(&stop)))
        .map(|node| runtime.spawn(node))
        .collect();
    kill_over_and_over(&mut relay, &changes, &mut Rng::with_seed(seed))?;
    stop.store(true, Relaxed);
    let said: Vec<(String, bool)> =
        nodes.into_iter().map(|node| runtime.block_on(node)).collect::<Result<_, _>>()?;

    let listed = runtime.block_on(listed(relay.url()))?;
    let is_listed = |(node_id, is_member): &(String, bool)| listed[node_id].1 == *is_member;
    assert!(said.iter().all(is_listed), "each is what it was told to be: {said:?}, {listed:?}");
    let began = Instant::now();
    let locked = || view.lock().unwrap_or_else(PoisonError::into_inner);
    while locked().members != listed && began.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(10));
    }
    let view = locked();
    assert_eq!(view.members, listed, "what it was told in the end is what is so");
    assert!(view.doubled.is_empty(), "told twice: {:?}", view.doubled);
    assert_eq!(view.restarts, 0, "every revision that it was told is in the log");
    assert!(view.streams > KILLS, "{} streams", view.streams);
    Ok(())
}
