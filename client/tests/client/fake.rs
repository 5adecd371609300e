//! A relay that says what a test wants, and a network in front of it that fails as a test wants. Loopback only.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use dormouse_proto::wire::{encoded, services::mailbox_server, v1};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tonic::{Request, Response, Status};

/// What the relay does with one request.
pub(crate) enum Act {
    /// Answers with this.
    Say(Box<v1::SyncResponse>),
    /// Fails.
    Fail(Status),
    /// Takes effect, and its answer is lost: it never comes.
    Hang,
}

#[derive(Default)]
struct Script {
    acts: VecDeque<Act>,
    seen: Vec<v1::SyncRequest>,
    tokens: Vec<Option<String>>,
    revision: u64,
    link: Option<Link>,
}

/// A way to the reader that is too slow for what is large, and a backlog at the other end of it.
#[derive(Clone, Copy)]
struct Link {
    /// A chunk of more bytes never arrives in time.
    passes: u32,
    backlog: u64,
}

/// The relay and the network in front of it.
#[derive(Clone)]
pub(crate) struct Fake {
    script: Arc<Mutex<Script>>,
    pub(crate) url: String,
    connections: Arc<AtomicUsize>,
    /// Raised to end what is open.
    cut: watch::Sender<usize>,
    /// Connections that are open now swallow everything from now on.
    hole: Arc<Mutex<Arc<AtomicBool>>>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let script = Arc::new(Mutex::new(Script::default()));
        let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let behind = server.local_addr().expect("an address");
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(server);
        let service = mailbox_server::MailboxServer::new(Service(Arc::clone(&script)));
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        let front = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let fake = Self {
            script,
            url: format!("http://{}", front.local_addr().expect("an address")),
            connections: Arc::default(),
            cut: watch::channel(0).0,
            hole: Arc::default(),
        };
        tokio::spawn(fake.clone().accept(front, behind));
        fake
    }

    async fn accept(self, front: TcpListener, behind: SocketAddr) {
        while let Ok((client, _)) = front.accept().await {
            self.connections.fetch_add(1, Ordering::SeqCst);
            let (hole, mut cut) = (Arc::clone(&self.hole.lock()), self.cut.subscribe());
            tokio::spawn(async move {
                let server = TcpStream::connect(behind).await.expect("the relay listens");
                let (client_in, client_out) = client.into_split();
                let (server_in, server_out) = server.into_split();
                tokio::select! {
                    () = forward(client_in, server_out, Arc::clone(&hole)) => {}
                    () = forward(server_in, client_out, hole) => {}
                    _ = cut.changed() => {}
                }
            });
        }
    }

    /// What the next requests get; afterwards everything is accepted again.
    pub(crate) fn then(&self, acts: impl IntoIterator<Item = Act>) {
        self.script.lock().acts.extend(acts);
    }

    /// From now on there is a backlog of so many bytes, and what asks for more than `passes` of it waits for ever.
    pub(crate) fn narrow(&self, passes: u32, backlog: u64) {
        self.script.lock().link = Some(Link { passes, backlog });
    }

    /// Every request that has arrived.
    pub(crate) fn seen(&self) -> Vec<v1::SyncRequest> {
        self.script.lock().seen.clone()
    }

    pub(crate) fn tokens(&self) -> Vec<Option<String>> {
        self.script.lock().tokens.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Closes what is open, as a relay that restarts does.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    /// What is open swallows everything, as a load balancer does that forgot a connection. New ones are well.
    pub(crate) fn swallow(&self) {
        let fresh = Arc::default();
        std::mem::replace(&mut *self.hole.lock(), fresh).store(true, Ordering::SeqCst);
    }
}

async fn forward(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    hole: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 1 << 14];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if !hole.load(Ordering::SeqCst) && to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

/// A lease, an acknowledgement of what was pushed, and a chunk that is caught up.
pub(crate) fn accepted(request: &v1::SyncRequest, revision: u64) -> v1::SyncResponse {
    use v1::sync_response::{PullResult, PushResult};
    let pushed = request.push.as_ref().map(|push| {
        PushResult::Pushed(v1::PushAck {
            push_no: push.push_no,
            revision,
            as_of: revision,
            durability: v1::push_ack::Durability::Fsync.into(),
            keys: Vec::new(),
        })
    });
    v1::SyncResponse {
        lease: Some(v1::Lease {
            node_id: "0000000000001".into(),
            incarnation: 1,
            ttl_ms: 3_000,
            admission: v1::lease::Admission::Renewed.into(),
            send_tags: false,
        }),
        push_result: pushed,
        pull_result: Some(PullResult::Chunk(v1::Chunk {
            as_of: revision,
            caught_up: true,
            token: revision.to_be_bytes().to_vec().into(),
            ..Default::default()
        })),
        members: Some(v1::MemberCounts { awake: 1, ..Default::default() }),
        ..Default::default()
    }
}

/// The next piece of the backlog, whose token is what is left behind it; `None`: it does not arrive in time.
fn over(link: Link, request: &v1::SyncRequest, revision: u64) -> Option<v1::SyncResponse> {
    let pull = request.pull.as_ref().expect("a pull");
    let before = pull.token[..].try_into().map_or(link.backlog, u64::from_be_bytes);
    let left = before.saturating_sub(pull.max_bytes.into());
    let mut answer = accepted(request, revision);
    if let Some(v1::sync_response::PullResult::Chunk(chunk)) = &mut answer.pull_result {
        chunk.caught_up = left == 0;
        chunk.rows_left = left;
        chunk.token = left.to_be_bytes().to_vec().into();
    }
    (pull.max_bytes <= link.passes).then_some(answer)
}

struct Service(Arc<Mutex<Script>>);

type Chunks = Pin<Box<dyn tokio_stream::Stream<Item = Result<encoded::WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl mailbox_server::Mailbox for Service {
    type WatchStream = Chunks;

    async fn sync(
        &self,
        request: Request<v1::SyncRequest>,
    ) -> Result<Response<encoded::SyncResponse>, Status> {
        let token = request.metadata().get("authorization");
        let token = token.map(|token| token.to_str().expect("ASCII").to_owned());
        let request = request.into_inner();
        let (act, revision, link) = {
            let mut script = self.0.lock();
            script.seen.push(request.clone());
            script.tokens.push(token);
            script.revision += 1;
            (script.acts.pop_front(), script.revision, script.link)
        };
        let act = act.or_else(|| {
            let answer = over(link?, &request, revision);
            Some(answer.map_or(Act::Hang, |answer| Act::Say(Box::new(answer))))
        });
        let answer = match act {
            None => accepted(&request, revision),
            Some(Act::Say(answer)) => *answer,
            Some(Act::Fail(status)) => return Err(status),
            Some(Act::Hang) => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                return Err(Status::internal("nobody waits any more"));
            }
        };
        let encoded = encoded::SyncResponse::decode(&answer.encode_to_vec()[..]);
        Ok(Response::new(encoded.expect("the same wire")))
    }

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<v1::ReadResponse>, Status> {
        let request = request.into_inner();
        let key = |name: &String| {
            let (collection, key) = name.split_once('/').expect("a path");
            let state = v1::key_state::State::Counter(v1::CounterState { value: 7, total: 7 });
            v1::KeyState { collection: collection.into(), key: key.into(), state: Some(state) }
        };
        // One key a page.
        let nth = request.page_token.parse::<usize>().unwrap_or(0);
        let more = nth + 1 < request.keys.len();
        Ok(Response::new(v1::ReadResponse {
            as_of: 50,
            keys: request.keys.iter().skip(nth).take(1).map(key).collect(),
            next_page_token: if more { (nth + 1).to_string() } else { String::new() },
            ..Default::default()
        }))
    }

    async fn write(&self, request: Request<v1::WriteRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        if request.into_inner().request_id.is_empty() {
            return Err(Status::invalid_argument("request_id is required"));
        }
        Ok(Response::new(v1::WriteResponse { revision: 9, as_of: 9, ..Default::default() }))
    }

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Chunks>, Status> {
        let chunk = v1::Chunk { as_of: 5, token: b"t".to_vec().into(), ..Default::default() };
        let message =
            encoded::WatchResponse { chunk: Some(chunk.encode_to_vec().into()), ..Default::default() };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(message)))))
    }

    async fn send(&self, _: Request<v1::SendRequest>) -> Result<Response<v1::SendResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}
