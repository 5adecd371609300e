//! The load: nodes that say every field by hand, each with at most one call under way, and watchers.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use dormouse_proto::wire::v1::{
    self, mailbox_client::MailboxClient, member_event::Kind, membership_client::MembershipClient,
    sync_request::Next,
};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval_at},
};
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

/// Connections that the nodes of one load share.
const CONNECTIONS: usize = 4;
/// Joins under way; a relay lets 256 wait.
const JOINS: usize = 200;

/// The settings of a relay, as its environment names them.
pub(crate) type Settings = [(&'static str, &'static str)];

/// What a node says that it does next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Says {
    Awake,
    Asleep,
}

impl Says {
    fn next(self) -> Next {
        match self {
            Self::Awake => Next::Awake(v1::Awake::default()),
            Self::Asleep => Next::Asleep(v1::Asleep::default()),
        }
    }
}

/// One function instance.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    client: MailboxClient<Channel>,
    boot_id: Bytes,
    pub(crate) id: String,
    incarnation: u64,
    beat: u64,
}

impl Node {
    /// A node that has not joined yet.
    pub(crate) fn new(channel: Channel) -> Self {
        let boot_id = fastrand::u128(..).to_be_bytes().to_vec().into();
        let client = MailboxClient::new(channel);
        Self { client, boot_id, id: String::new(), incarnation: 0, beat: 0 }
    }

    /// A beat; the first one joins.
    pub(crate) async fn beat(&mut self, says: Says) -> Result<v1::SyncResponse, Status> {
        self.beat += 1;
        let request = v1::SyncRequest {
            node: Some(v1::NodeIdentity {
                boot_id: self.boot_id.clone(),
                node_id: self.id.clone(),
                incarnation: self.incarnation,
                group: "bench".to_owned(),
                ..v1::NodeIdentity::default()
            }),
            beat: self.beat,
            call_id: fastrand::u64(..).to_be_bytes().to_vec().into(),
            next: Some(says.next()),
            ..v1::SyncRequest::default()
        };
        let answer = self.client.sync(request).await?.into_inner();
        if let Some(lease) = &answer.lease
            && (lease.node_id != self.id || lease.incarnation != self.incarnation)
        {
            self.id.clone_from(&lease.node_id);
            self.incarnation = lease.incarnation;
        }
        Ok(answer)
    }

    /// The same node on another connection.
    pub(crate) fn moved_to(mut self, channel: Channel) -> Self {
        self.client = MailboxClient::new(channel);
        self
    }
}

pub(crate) async fn channel(url: &str) -> Channel {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL").tcp_nodelay(true);
    endpoint.connect().await.expect("a connection")
}

/// A few new connections.
pub(crate) async fn channels(url: &str) -> Vec<Channel> {
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS {
        channels.push(channel(url).await);
    }
    channels
}

/// So many nodes that have joined.
pub(crate) async fn joined(channels: &[Channel], count: usize, says: Says) -> Vec<Node> {
    let mut tasks = JoinSet::new();
    for nth in 0..JOINS.min(count) {
        let channel = channels[nth % channels.len()].clone();
        tasks.spawn(async move {
            let mut nodes = Vec::new();
            for _ in (nth..count).step_by(JOINS) {
                let mut node = Node::new(channel.clone());
                node.beat(says).await.expect("admitted");
                nodes.push(node);
            }
            nodes
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

/// When calls were answered, and how long they took.
pub(crate) type Times = Arc<Mutex<Vec<(Instant, Duration)>>>;

/// Nodes that renew their leases each second, spread over it, until this is dropped.
pub(crate) struct Renewing {
    _tasks: JoinSet<()>,
    times: Times,
    failed: Arc<AtomicU64>,
}

impl Renewing {
    pub(crate) fn start(nodes: Vec<Node>) -> Self {
        let (times, failed, mut tasks) = (Times::default(), Arc::default(), JoinSet::new());
        for node in nodes {
            tasks.spawn(renew(node, Arc::clone(&times), Arc::clone(&failed)));
        }
        Self { _tasks: tasks, times, failed }
    }

    /// Calls that brought no answer; each was made again.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// How long the renewals took that were answered in this time.
    pub(crate) fn took(&self, from: Instant, to: Instant) -> Vec<Duration> {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.iter().filter(|(at, _)| (from..=to).contains(at)).map(|(_, took)| *took).collect()
    }
}

async fn renew(mut node: Node, times: Times, failed: Arc<AtomicU64>) {
    const PERIOD: Duration = Duration::from_secs(1);
    const RETRY: Duration = Duration::from_millis(100);
    let phase = PERIOD.mul_f64(fastrand::f64());
    let mut beats = interval_at(tokio::time::Instant::now() + phase, PERIOD);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        let called = Instant::now();
        while node.beat(Says::Awake).await.is_err() {
            failed.fetch_add(1, Relaxed);
            tokio::time::sleep(RETRY).await;
        }
        let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
        times.push((Instant::now(), called.elapsed()));
    }
}

/// Changes of the membership from now on.
pub(crate) async fn watch_members(channel: Channel) -> Streaming<v1::WatchMembersResponse> {
    let mut client = MembershipClient::new(channel);
    let count = client.count_members(v1::CountMembersRequest::default()).await.expect("counted");
    let after_revision = Some(count.into_inner().revision);
    let request = v1::WatchMembersRequest { after_revision, ..Default::default() };
    client.watch_members(request).await.expect("watched").into_inner()
}

/// Each change with the node that it is of.
pub(crate) fn changes(message: v1::WatchMembersResponse) -> impl Iterator<Item = (Kind, String)> {
    let named = |event: v1::MemberEvent| Some((event.kind(), event.member?.node_id));
    message.events.into_iter().filter_map(named)
}
