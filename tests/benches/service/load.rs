//! The load: many nodes, each with its own identity and at most one call under way, on a few connections.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dormouse_proto::wire::v1::{self, mailbox_client::MailboxClient, sync_request::Next};
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

/// Connections that the nodes of one load share.
const CONNECTIONS: usize = 4;
/// Keys that are pushed to, a counter and a set each.
const KEYS: usize = 1_000;
/// Elements that each of those sets may come to have.
const ELEMENTS: u64 = 1_000;

/// One function instance, by hand: what the client crate would send, without its replica.
pub(crate) struct Node {
    client: MailboxClient<Channel>,
    boot_id: Bytes,
    id: String,
    incarnation: u64,
    beat: u64,
    push_no: u64,
    bearer: Option<MetadataValue<Ascii>>,
    pub(crate) random: fastrand::Rng,
}

impl Node {
    /// A node that has not joined yet.
    pub(crate) fn new(channel: Channel) -> Self {
        let mut random = fastrand::Rng::new();
        Self {
            client: MailboxClient::new(channel).max_decoding_message_size(16 << 20),
            boot_id: random.u128(..).to_be_bytes().to_vec().into(),
            id: String::new(),
            incarnation: 0,
            beat: 0,
            push_no: 0,
            bearer: None,
            random,
        }
    }

    /// A beat; the first one joins.
    pub(crate) async fn beat(&mut self) -> v1::SyncResponse {
        self.sync(None, None).await
    }

    /// The call before a sleep: pushes and says so.
    pub(crate) async fn push(&mut self, deltas: Vec<v1::Delta>) -> v1::SyncResponse {
        self.push_no += 1;
        let push_id = self.random.u64(..).to_be_bytes().to_vec().into();
        let push = v1::Push { push_no: self.push_no, deltas, push_id, retried: false };
        self.sync(Some(push), None).await
    }

    /// The call after a wake.
    pub(crate) async fn pull(&mut self, token: Bytes, collection: &str) -> v1::SyncResponse {
        let pull = v1::Pull { token, collections: vec![collection.to_owned()], ..v1::Pull::default() };
        self.sync(None, Some(pull)).await
    }

    async fn sync(&mut self, push: Option<v1::Push>, pull: Option<v1::Pull>) -> v1::SyncResponse {
        self.beat += 1;
        // Who only pushes sleeps afterwards; a lease of seconds would run out between two parts of the bench.
        let next = match &pull {
            Some(_) => Next::Awake(v1::Awake { remaining_ms: 0, then_asleep: false }),
            None => Next::Asleep(v1::Asleep { expected_ms: 0 }),
        };
        let request = v1::SyncRequest {
            node: Some(v1::NodeIdentity {
                boot_id: self.boot_id.clone(),
                node_id: self.id.clone(),
                incarnation: self.incarnation,
                group: "bench".to_owned(),
                ..v1::NodeIdentity::default()
            }),
            push,
            pull,
            beat: self.beat,
            call_id: self.random.u64(..).to_be_bytes().to_vec().into(),
            next: Some(next),
            ..v1::SyncRequest::default()
        };
        let mut request = Request::new(request);
        if let Some(bearer) = &self.bearer {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        let answer = self.client.sync(request).await.expect("an answer").into_inner();
        if let Some(lease) = &answer.lease
            && (lease.node_id != self.id || lease.incarnation != self.incarnation)
        {
            self.id.clone_from(&lease.node_id);
            self.incarnation = lease.incarnation;
        }
        answer
    }
}

/// What a load came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) per_s: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) longest: Duration,
    pub(crate) calls: usize,
}

/// So many nodes on a few new connections.
pub(crate) async fn nodes(url: &str, count: usize) -> Vec<Node> {
    nodes_by(&Endpoint::from_shared(url.to_owned()).expect("a URL"), count).await
}

async fn nodes_by(endpoint: &Endpoint, count: usize) -> Vec<Node> {
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS.min(count) {
        channels.push(endpoint.connect().await.expect("a connection"));
    }
    (0..count).map(|nth| Node::new(channels[nth % channels.len()].clone())).collect()
}

/// So many nodes that have joined, under TLS and with a token.
pub(crate) async fn members_under_tls(url: &str, ca: &str, token: &str, count: usize) -> Vec<Node> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL").tls_config(tls).expect("TLS");
    let mut members = nodes_by(&endpoint, count).await;
    for node in &mut members {
        node.bearer = Some(format!("Bearer {token}").parse().expect("ASCII"));
        node.beat().await;
    }
    members
}

/// So many nodes that have joined.
pub(crate) async fn members(url: &str, count: usize) -> Vec<Node> {
    let mut members = nodes(url, count).await;
    for node in &mut members {
        node.beat().await;
    }
    members
}

/// What each call of a load does.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// Pushes so many deltas.
    Push(usize),
    /// Pulls what came after this token.
    Pull(Bytes),
}

impl Work {
    pub(crate) async fn call(&self, node: &mut Node) {
        match self {
            Self::Push(count) => {
                let deltas = deltas(&mut node.random, *count);
                let answer = node.push(deltas).await;
                let bound = matches!(answer.push_result, Some(v1::sync_response::PushResult::Pushed(_)));
                assert!(bound, "{answer:?}");
            }
            Self::Pull(token) => {
                let answer = node.pull(token.clone(), "*").await;
                let pulled = matches!(answer.pull_result, Some(v1::sync_response::PullResult::Chunk(_)));
                assert!(pulled, "{answer:?}");
            }
        }
    }
}

/// Additions to counters and to sets, half and half, at most one for each key.
fn deltas(random: &mut fastrand::Rng, count: usize) -> Vec<v1::Delta> {
    let from = random.usize(..KEYS);
    (0..count)
        .map(|nth| {
            let key = (from + nth / 2) % KEYS;
            let is_counter = if count == 1 { random.bool() } else { nth % 2 == 0 };
            let change = if is_counter {
                v1::delta::Change::Counter(v1::CounterDelta { add: 1, ..v1::CounterDelta::default() })
            } else {
                let add = vec![element(random.u64(..ELEMENTS))];
                v1::delta::Change::Set(v1::SetDelta { add, remove: Vec::new() })
            };
            v1::Delta { collection: "bench".to_owned(), key: format!("key{key}"), change: Some(change) }
        })
        .collect()
}

/// A name of 16 bytes.
pub(crate) fn element(n: u64) -> String {
    format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Lets every node make one call after the other for `period`.
pub(crate) async fn drive(nodes: Vec<Node>, period: Duration, work: &Work) -> (Vec<Node>, Figures) {
    let started = Instant::now();
    let tasks: Vec<_> = nodes
        .into_iter()
        .map(|mut node| {
            let work = work.clone();
            tokio::spawn(async move {
                let mut took = Vec::new();
                while started.elapsed() < period {
                    let called = Instant::now();
                    work.call(&mut node).await;
                    took.push(called.elapsed());
                }
                (node, took)
            })
        })
        .collect();
    let (mut nodes, mut took) = (Vec::new(), Vec::new());
    for task in tasks {
        let (node, times) = task.await.expect("a node");
        nodes.push(node);
        took.extend(times);
    }
    (nodes, Figures::of(took, started.elapsed()))
}

impl Figures {
    fn of(mut took: Vec<Duration>, period: Duration) -> Self {
        took.sort_unstable();
        let calls = took.len();
        Self {
            per_s: calls as f64 / period.as_secs_f64(),
            p50: took[calls / 2],
            p99: took[calls * 99 / 100],
            longest: took[calls - 1],
            calls,
        }
    }
}
