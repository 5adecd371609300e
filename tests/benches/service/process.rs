//! The servers under load, each a process of its own: this program, started again with another role.
//!
//! A relay of its own process has its own runtime and allocator, as in production, and its processor time can be told
//! from that of the load.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    pin::Pin,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use dormouse_proto::{
    ids::{Beat, BootId, Incarnation, Namespace, NodeId},
    record::{Contact, Join, Policy, Record},
    wire::{
        encoded,
        services::mailbox_server::{Mailbox, MailboxServer},
        v1,
    },
};
use dormouse_relay::{
    config::Config,
    grpc,
    log::embedded::{Embedded, Options},
    relay::Relay,
    sequencer::Sequencer,
};
use prost::Message as _;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

use crate::usage;

const ROLE: &str = "DORMOUSE_BENCH_ROLE";
const DIR: &str = "DORMOUSE_BENCH_DIR";
const SLEEPERS: &str = "DORMOUSE_BENCH_SLEEPERS";
/// In the directory: what the echo answers.
const ANSWER: &str = "answer";
/// Likewise: what a relay under TLS has its certificate and its tokens from.
const CERT: &str = "cert";
const KEY: &str = "key";
const TOKENS: &str = "tokens";
/// The token, and its line: the hash is the standard's own example.
pub(crate) const TOKEN: &str = "abc";
const TOKEN_LINE: &str =
    "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad default node\n";

/// A server; it ends with this value.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
    _dir: TempDir,
}

impl Process {
    /// A relay on an embedded log in a temporary directory, with so many sleeping members.
    pub(crate) fn relay(sleepers: u32) -> Self {
        Self::start("relay", sleepers, &[])
    }

    /// A relay under TLS that asks for [`TOKEN`], and the certificate to trust it by.
    pub(crate) fn relay_under_tls() -> (Self, String) {
        let certified =
            rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
        let pem = certified.cert.pem();
        let key = certified.signing_key.serialize_pem();
        let files = [(CERT, pem.as_bytes()), (KEY, key.as_bytes()), (TOKENS, TOKEN_LINE.as_bytes())];
        let mut process = Self::start_with("tls", 0, &files);
        process.url = process.url.replace("http://", "https://");
        (process, pem)
    }

    /// A relay whose logs of events, and idempotency ids, are as full as they get within a moment.
    pub(crate) fn relay_for_events() -> Self {
        Self::start("events", 0, &[])
    }

    /// A server that gives every Sync the same answer, with nothing behind it.
    pub(crate) fn echo(answer: &[u8]) -> Self {
        Self::start("echo", 0, answer)
    }

    fn start(role: &str, sleepers: u32, answer: &[u8]) -> Self {
        Self::start_with(role, sleepers, &[(ANSWER, answer)])
    }

    fn start_with(role: &str, sleepers: u32, files: &[(&str, &[u8])]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, content) in files {
            fs::write(dir.path().join(name), content).expect("written");
        }
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .env(ROLE, role)
            .env(DIR, dir.path())
            .env(SLEEPERS, sleepers.to_string())
            // Nothing is written into it: it ends when this process does, and the child with it.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child process");
        let mut url = String::new();
        let output = child.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut url).expect("it says where it listens");
        Self { child, url: url.trim().to_owned(), _dir: dir }
    }

    /// What it has in memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> f64 {
        usage::resident_bytes(self.child.id())
    }

    /// Processor time of all its threads so far, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        usage::cpu_us(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs as a server if this process was started as one; answers whether it was.
pub(crate) fn serve_if_asked() -> bool {
    let Ok(role) = std::env::var(ROLE) else { return false };
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    match role.as_str() {
        "echo" => runtime.block_on(serve_echo()),
        "events" => runtime.block_on(serve_relay(Config { limits: limits_of_events(), ..Config::default() })),
        "tls" => runtime.block_on(serve_relay(guarded())),
        _ => runtime.block_on(serve_relay(Config::default())),
    }
    true
}

fn directory() -> PathBuf {
    std::env::var_os(DIR).expect("a directory").into()
}

async fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("http://{}", listener.local_addr().expect("an address"));
    listener
}

fn guarded() -> Config {
    let file = |name| Some(directory().join(name));
    Config { tls_cert: file(CERT), tls_key: file(KEY), tokens_file: file(TOKENS), ..Config::default() }
}

fn limits_of_events() -> Policy {
    Policy { events_max: Some(20_000), once_max: Some(10_000), ..Policy::default() }
}

/// As the relay's own program does it, without the admin port.
async fn serve_relay(config: Config) {
    let sleepers = std::env::var(SLEEPERS).ok().and_then(|it| it.parse().ok()).unwrap_or(0);
    let options = Options { max_frame_bytes: 2 << 20, ..Options::default() };
    let log = Embedded::open(directory(), options).expect("the log opens");
    let started = Relay::start(config, Arc::new(log)).await.expect("the relay starts");
    put_to_sleep(&started.relay.sequencer, sleepers).await;
    let listener = listen().await;
    grpc::serve(started.relay.clone(), listener, std::future::pending()).await.expect("it serves");
}

/// Registers members that do nothing.
async fn put_to_sleep(sequencer: &Sequencer, sleepers: u32) {
    const LEASE_MS: u64 = 30 * 60 * 1000;
    const AT_ONCE: u64 = 1_000;
    let sleepers = u64::from(sleepers);
    for first in (0..sleepers).step_by(1_000) {
        let join = |node: u64| Join {
            namespace: Namespace::default(),
            // Spread over the whole range, as the ids of real nodes are.
            node: NodeId(node.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            incarnation: Incarnation(1),
            previous: None,
            boot_id: BootId([1; 16]),
            group: "sleepers".parse().expect("valid"),
            tags: std::collections::BTreeMap::new(),
            contact: Some(Contact { beat: Beat(1), asleep: true, lease_ms: LEASE_MS, awake_ms: 0 }),
        };
        let answers: Vec<_> = (first..sleepers.min(first + AT_ONCE))
            .map(|node| sequencer.submit(Record::Join(join(node + 1)), 512, None).expect("room"))
            .collect();
        for answer in answers {
            answer.await.expect("answered").expect("written");
        }
    }
}

async fn serve_echo() {
    let answer = fs::read(directory().join(ANSWER)).expect("the answer");
    let answer = encoded::SyncResponse::decode(answer.as_slice()).expect("an answer");
    let incoming = TcpIncoming::from(listen().await).with_nodelay(Some(true));
    tonic::transport::Server::builder()
        .max_concurrent_streams(1_024)
        .add_service(MailboxServer::new(Echo(answer)))
        .serve_with_incoming(incoming)
        .await
        .expect("it serves");
}

/// What the transport and the codec cost on their own.
struct Echo(encoded::SyncResponse);

fn unasked<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("only Sync"))
}

#[tonic::async_trait]
impl Mailbox for Echo {
    type WatchStream =
        Pin<Box<dyn tokio_stream::Stream<Item = Result<encoded::WatchResponse, Status>> + Send>>;

    async fn sync(&self, _: Request<v1::SyncRequest>) -> Result<Response<encoded::SyncResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }

    async fn read(&self, _: Request<v1::ReadRequest>) -> Result<Response<v1::ReadResponse>, Status> {
        unasked()
    }

    async fn write(&self, _: Request<v1::WriteRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        unasked()
    }

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        unasked()
    }

    async fn send(&self, _: Request<v1::SendRequest>) -> Result<Response<v1::SendResponse>, Status> {
        unasked()
    }
}
