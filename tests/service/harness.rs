//! A real relay in this process, on a port of its own, and a caller that says every field by hand.

use std::{error::Error, sync::Arc, time::Duration};

use dormouse_proto::wire::v1::{
    self, mailbox_client::MailboxClient, membership_client::MembershipClient, sync_request::Next,
    sync_response::PullResult, sync_response::PushResult,
};
use dormouse_relay::{
    admin,
    config::Config,
    doors::Doors,
    grpc,
    log::{Log, LogId, memory::Memory},
    relay::{Relay, Started},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tonic::{Status, transport::Channel};
use tonic_types::StatusExt as _;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// A relay that is served on loopback until it is dropped or stopped.
pub(crate) struct Served {
    pub(crate) started: Option<Started>,
    /// Certificate and tokens, for tests that change them.
    #[allow(dead_code, reason = "only the tests of access do")]
    pub(crate) doors: Doors,
    pub(crate) url: String,
    pub(crate) admin_url: String,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

impl Served {
    /// On a log in memory, with the settings of an empty configuration.
    pub(crate) async fn default() -> Result<Self, Box<dyn Error>> {
        Self::new(Config::default(), Arc::new(Memory::new(LogId(7)))).await
    }

    pub(crate) async fn new(config: Config, log: Arc<dyn Log>) -> Result<Self, Box<dyn Error>> {
        let doors = Doors::open(&config)?;
        let started = Relay::start(config, log).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let admin_listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let admin_url = format!("http://{}", admin_listener.local_addr()?);
        let (stop, stopping) = watch::channel(false);
        let until = |mut stopping: watch::Receiver<bool>| async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let metrics = Arc::clone(&started.relay.metrics);
        tokio::spawn(admin::serve(
            admin_listener,
            metrics,
            Arc::new(started.relay.clone()),
            until(stopping.clone()),
        ));
        let (relay, behind) = (started.relay.clone(), doors.clone());
        let server = tokio::spawn(async move {
            grpc::serve_behind(behind, relay, listener, until(stopping)).await.expect("the server runs");
        });
        Ok(Self { started: Some(started), doors, url, admin_url, stop, server })
    }

    pub(crate) fn relay(&self) -> &Relay {
        &self.started.as_ref().expect("not stopped").relay
    }

    pub(crate) async fn mailbox(&self) -> MailboxClient<Channel> {
        MailboxClient::connect(self.url.clone()).await.expect("the relay listens")
    }

    pub(crate) async fn membership(&self) -> MembershipClient<Channel> {
        MembershipClient::connect(self.url.clone()).await.expect("the relay listens")
    }

    pub(crate) async fn stop(mut self) {
        let started = self.started.take().expect("stopped once");
        started.announce();
        self.stop.send_replace(true);
        let _ = (&mut self.server).await;
        started.stop().await;
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.server.abort();
    }
}

/// A node that says every field by hand.
pub(crate) struct Caller {
    pub(crate) mailbox: MailboxClient<Channel>,
    pub(crate) identity: v1::NodeIdentity,
    pub(crate) beat: u64,
    pub(crate) head: u64,
    pub(crate) token: Vec<u8>,
    pub(crate) acked: Vec<u64>,
    pub(crate) push_no: u64,
}

impl Caller {
    pub(crate) async fn new(served: &Served, name: u8) -> Self {
        let identity = v1::NodeIdentity {
            boot_id: vec![name; 16].into(),
            group: "callers".into(),
            ..Default::default()
        };
        let mailbox = served.mailbox().await;
        Self { mailbox, identity, beat: 0, head: 0, token: Vec::new(), acked: Vec::new(), push_no: 0 }
    }

    pub(crate) fn request(&mut self, next: Next) -> v1::SyncRequest {
        self.beat += 1;
        v1::SyncRequest {
            node: Some(self.identity.clone()),
            next: Some(next),
            beat: self.beat,
            call_id: self.beat.to_be_bytes().to_vec().into(),
            head: self.head,
            ..Default::default()
        }
    }

    pub(crate) fn pull(&self, collections: &[&str]) -> v1::Pull {
        v1::Pull {
            token: self.token.clone().into(),
            collections: collections.iter().map(ToString::to_string).collect(),
            acked: self.acked.clone(),
            ..Default::default()
        }
    }

    pub(crate) fn push(&mut self, deltas: Vec<v1::Delta>) -> v1::Push {
        self.push_no += 1;
        v1::Push {
            push_no: self.push_no,
            push_id: vec![1, 2, 3, 4, 5, 6, 7, 8].into(),
            deltas,
            retried: false,
        }
    }

    /// Sends, and keeps what a client keeps.
    pub(crate) async fn send(&mut self, request: v1::SyncRequest) -> Result<v1::SyncResponse, Status> {
        let answer = self.mailbox.sync(request).await?.into_inner();
        if let Some(lease) = &answer.lease {
            self.identity.node_id.clone_from(&lease.node_id);
            self.identity.incarnation = lease.incarnation;
        }
        if let Some(PushResult::Pushed(ack)) = &answer.push_result {
            self.acked.push(ack.revision);
            self.head = self.head.max(ack.as_of);
        }
        if let Some(PullResult::Chunk(chunk)) = &answer.pull_result {
            self.token = chunk.token.to_vec();
            self.head = self.head.max(chunk.as_of);
            self.acked.clear();
        }
        Ok(answer)
    }

    pub(crate) async fn wake(&mut self) -> Result<v1::SyncResponse, Status> {
        let request = self.request(awake(5_000));
        self.send(request).await
    }

    /// One round trip with these deltas and a pull of everything.
    pub(crate) async fn sync(&mut self, deltas: Vec<v1::Delta>) -> Result<v1::SyncResponse, Status> {
        let mut request = self.request(awake(5_000));
        if !deltas.is_empty() {
            request.push = Some(self.push(deltas));
        }
        request.pull = Some(self.pull(&["*"]));
        self.send(request).await
    }
}

pub(crate) fn awake(remaining_ms: u32) -> Next {
    Next::Awake(v1::Awake { remaining_ms, then_asleep: false })
}

pub(crate) fn asleep() -> Next {
    Next::Asleep(v1::Asleep { expected_ms: 0 })
}

pub(crate) fn delta(collection: &str, key: &str, change: v1::delta::Change) -> v1::Delta {
    v1::Delta { collection: collection.into(), key: key.into(), change: Some(change) }
}

pub(crate) fn add(key: &str, n: u64) -> v1::Delta {
    delta("ads", key, v1::delta::Change::Counter(v1::CounterDelta { add: n, ..Default::default() }))
}

pub(crate) fn set_add(key: &str, elements: &[&str]) -> v1::Delta {
    let add = elements.iter().map(ToString::to_string).collect();
    delta("ads", key, v1::delta::Change::Set(v1::SetDelta { add, remove: Vec::new() }))
}

pub(crate) fn set_remove(key: &str, elements: &[&str], as_of: Option<u64>) -> v1::Delta {
    let elements = elements.iter().map(ToString::to_string).collect();
    let remove = vec![v1::set_delta::Remove { elements, as_of }];
    delta("ads", key, v1::delta::Change::Set(v1::SetDelta { add: Vec::new(), remove }))
}

pub(crate) fn register(key: &str, text: &str, as_of: Option<u64>) -> v1::Delta {
    let value = v1::Value { kind: Some(v1::value::Kind::Text(text.into())) };
    let change = v1::RegisterDelta { value: Some(value), stamp_ms: 0, as_of };
    delta("ads", key, v1::delta::Change::Register(change))
}

pub(crate) fn pushed(answer: &v1::SyncResponse) -> &v1::PushAck {
    match &answer.push_result {
        Some(PushResult::Pushed(ack)) => ack,
        other => panic!("not pushed: {other:?}"),
    }
}

pub(crate) fn push_refused(answer: &v1::SyncResponse) -> &v1::Refusal {
    match &answer.push_result {
        Some(PushResult::PushRefused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

pub(crate) fn chunk(answer: &v1::SyncResponse) -> &v1::Chunk {
    match &answer.pull_result {
        Some(PullResult::Chunk(chunk)) => chunk,
        other => panic!("no chunk: {other:?}"),
    }
}

pub(crate) fn pull_refused(answer: &v1::SyncResponse) -> &v1::Refusal {
    match &answer.pull_result {
        Some(PullResult::PullRefused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

pub(crate) fn counter(keys: &[v1::KeyState], key: &str) -> Option<i64> {
    keys.iter().find(|it| it.key == key).and_then(|it| match &it.state {
        Some(v1::key_state::State::Counter(state)) => Some(state.value),
        _ => None,
    })
}

/// The word that a status carries in its `ErrorInfo`.
pub(crate) fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map_or_else(String::new, |info| info.reason.clone())
}

/// What the admin port answers there, headers and all.
pub(crate) async fn get(url: &str, path: &str) -> Result<String, Box<dyn std::error::Error>> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = url.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await??;
    Ok(answer)
}
