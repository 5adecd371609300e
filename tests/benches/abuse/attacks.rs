//! Attacks at a pace, and what somebody who only beats notices of them.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use dormouse_proto::wire::v1::{self, mailbox_client::MailboxClient, sync_request::Next};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};
use tonic::{Request, transport::Channel};

use crate::{
    guarded::Target,
    median, percentile,
    regular::{Answer, Regulars, connect},
    report,
    usage::cpu_us,
    wire::{self, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, call, frame, open},
};

/// Callers whose beats are measured: with a beat each 4 ms about as many calls as a thousand functions make.
const CALLERS: usize = 8;
/// Calm and attack take turns, and the median of the ratios of two neighbours counts, so that what else the machine does for a
/// moment makes no difference.
const TURNS: usize = 7;
const TURN: Duration = Duration::from_millis(1_500);
/// For what an attack has left behind to end.
const REST: Duration = Duration::from_millis(500);
/// Connections that are opened in a second, for attacks by connections: more than a fleet of ten thousand makes.
const CONNECTIONS: u32 = 500;

/// All attacks.
pub(crate) async fn all() {
    let mut worst = (0.0_f64, 0.0_f64);
    let mut note = |(ratio, share): (f64, f64)| worst = (worst.0.max(ratio), worst.1.max(share));
    let plain = Target::plain();
    let to = plain.to;
    note(under("slow_header", &plain, CONNECTIONS, move || dribble(to, b"POST /dormouse.v1.Mai")).await);
    note(under("slow_preface", &plain, CONNECTIONS, move || dribble(to, &wire::PREFACE[..20])).await);
    note(under("slow_body", &plain, CONNECTIONS, move || endless_body(to)).await);
    note(under("idle_connections", &plain, CONNECTIONS, move || hold(to)).await);
    // Ten megabytes a second of frames of 17 bytes: 600,000 pings.
    note(under("pings", &plain, 20, move || floods(to, frame(PING, 0, 0, &[7; 8]).repeat(30_000))).await);
    note(under("rapid_reset", &plain, 50, move || floods(to, resets())).await);
    note(under("continuation", &plain, 50, move || floods(to, continuations())).await);
    note(under("garbage", &plain, CONNECTIONS, move || floods(to, vec![0x80; 400])).await);
    // A window of one megabyte is on its way before each refusal.
    note(under("oversize_messages", &plain, 20, move || oversize(to)).await);
    let channel = connect(&plain.url, None).await.expect("a connection");
    note(under("joins", &plain, 1_000, move || join(channel.clone())).await);

    let asking = Target::with_token();
    let channel = connect(&asking.url, None).await.expect("a connection");
    note(under("guessed_tokens", &asking, 2_000, move || guess(channel.clone())).await);

    let tls = Target::under_tls();
    let to = tls.to;
    let hello = hello(tls.ca.as_deref()).await;
    // Each makes the relay sign and agree on a key, and costs its sender nothing.
    note(under("handshakes", &tls, 300, move || hold_after(to, Arc::clone(&hello))).await);
    note(under("slow_handshake", &tls, CONNECTIONS, move || dribble(to, &[22, 3, 1, 2, 0, 1, 0, 1])).await);
    report("attack_p99_ratio_max", worst.0, "ratio");
    report("attack_load_share", worst.1, "cores");
}

/// The median ratio of the callers' 99th percentiles, and the processor time of relay and attackers in a second.
async fn under<A, F>(name: &str, target: &Target, per_second: u32, one: A) -> (f64, f64)
where
    A: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let callers = callers(target);
    tokio::time::sleep(REST).await;
    let (mut calm, mut busy, mut used) = (Vec::new(), Vec::new(), 0.0);
    for _ in 0..TURNS {
        let from = Instant::now();
        tokio::time::sleep(TURN).await;
        calm.push((from, Instant::now()));
        let before = cpu_us(target.pid()) + cpu_us(std::process::id());
        let attacking = tokio::spawn(each(per_second, one.clone()));
        let from = Instant::now();
        tokio::time::sleep(TURN).await;
        busy.push((from, Instant::now()));
        attacking.abort();
        used += cpu_us(target.pid()) + cpu_us(std::process::id()) - before;
        tokio::time::sleep(REST).await;
    }
    let answers = callers.finish();
    let p99 = |(from, to): &(Instant, Instant)| {
        let within = answers.iter().filter(|(at, _)| from <= at && at < to);
        percentile(within.map(|(_, it)| *it.as_ref().expect("nobody is refused")).collect(), 99)
    };
    let (calm, busy): (Vec<_>, Vec<_>) = (calm.iter().map(p99).collect(), busy.iter().map(p99).collect());
    let ratio = median(calm.iter().zip(&busy).map(|(calm, busy)| busy / calm).collect());
    let share = used / 1e6 / (TURN * u32::try_from(TURNS).expect("few")).as_secs_f64();
    println!(
        "# {name}: p99 {:.2} ms calm, {:.2} ms under attack, {share:.2} cores",
        median(calm),
        median(busy)
    );
    report(&format!("attack_p99_ratio_{name}"), ratio, "ratio");
    (ratio, share)
}

/// Callers on a thread of their own, so that attackers do not hold them up.
struct Callers {
    stop: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<Vec<Answer>>,
}

fn callers(target: &Target) -> Callers {
    let (url, ca, token) = (target.url.clone(), target.ca.clone(), target.token);
    let (stop, stopped) = std::sync::mpsc::channel();
    let (begun, begins) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let regulars = Regulars::start(&url, ca.as_deref(), token, CALLERS).await;
            let _ = begun.send(());
            while stopped.try_recv().is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            regulars.finish().await
        })
    });
    begins.recv().expect("they call");
    Callers { stop, thread }
}

impl Callers {
    fn finish(self) -> Vec<Answer> {
        let _ = self.stop.send(());
        self.thread.join().expect("they called")
    }
}

/// So many in a second, for ever; all end when this is dropped.
async fn each<A, F>(per_second: u32, one: A)
where
    A: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    const STEP: Duration = Duration::from_millis(10);
    let (mut all, mut due, mut begun) = (JoinSet::new(), 0.0, 0_u32);
    let mut steps = tokio::time::interval(STEP);
    loop {
        steps.tick().await;
        due += f64::from(per_second) * STEP.as_secs_f64();
        while f64::from(begun) < due {
            all.spawn(one());
            begun += 1;
        }
        while all.try_join_next().is_some() {}
    }
}

async fn until_closed(mut stream: TcpStream) -> std::io::Result<()> {
    let mut rest = [0; 4_096];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

async fn dribble(to: SocketAddr, bytes: &'static [u8]) -> std::io::Result<()> {
    let mut stream = wire::connect_from(2, to).await?;
    for byte in bytes {
        stream.write_all(&[*byte]).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    until_closed(stream).await
}

async fn endless_body(to: SocketAddr) -> std::io::Result<()> {
    let mut stream = open(2, to).await?;
    let begun =
        [frame(HEADERS, END_HEADERS, 1, &call("/dormouse.v1.Mailbox/Write")), frame(DATA, 0, 1, &[0; 5])];
    stream.write_all(&begun.concat()).await?;
    loop {
        stream.write_all(&frame(DATA, 0, 1, &[0])).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn hold(to: SocketAddr) -> std::io::Result<()> {
    until_closed(open(2, to).await?).await
}

async fn hold_after(to: SocketAddr, hello: Arc<[u8]>) -> std::io::Result<()> {
    let mut stream = wire::connect_from(2, to).await?;
    stream.write_all(&hello).await?;
    until_closed(stream).await
}

async fn floods(to: SocketAddr, bytes: Vec<u8>) -> std::io::Result<()> {
    let (mut reader, mut writer) = open(2, to).await?.into_split();
    let read = tokio::spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
    writer.write_all(&bytes).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    read.abort();
    Ok(())
}

fn resets() -> Vec<u8> {
    let pair = |id| {
        let header = frame(HEADERS, END_HEADERS, id, &call("/dormouse.v1.Mailbox/Sync"));
        [header, frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
    };
    (1..1_000).step_by(2).flat_map(pair).collect()
}

fn continuations() -> Vec<u8> {
    let header = frame(HEADERS, END_STREAM, 1, &call("/dormouse.v1.Mailbox/Sync"));
    [header, frame(wire::CONTINUATION, 0, 1, &wire::field("x-a", &"a".repeat(1_000))).repeat(500)].concat()
}

async fn oversize(to: SocketAddr) -> std::io::Result<()> {
    let mut bytes = frame(HEADERS, END_HEADERS, 1, &call("/dormouse.v1.Mailbox/Write"));
    bytes.extend(frame(DATA, 0, 1, &[0, 0xff, 0xff, 0xff, 0xff]));
    bytes.extend(frame(DATA, 0, 1, &[0; 16_000]).repeat(60));
    floods(to, bytes).await
}

async fn join(channel: Channel) -> std::io::Result<()> {
    let boot_id = fastrand::u128(..).to_be_bytes().to_vec();
    let call_id = boot_id[..8].to_vec().into();
    let identity = v1::NodeIdentity { boot_id: boot_id.into(), group: "flood".into(), ..Default::default() };
    let request = v1::SyncRequest {
        node: Some(identity),
        beat: 1,
        call_id,
        next: Some(Next::Awake(v1::Awake { remaining_ms: 1_000, then_asleep: false })),
        ..Default::default()
    };
    // It joins, or is told to come back.
    let _ = MailboxClient::new(channel).sync(request).await;
    Ok(())
}

async fn guess(channel: Channel) -> std::io::Result<()> {
    let mut request = Request::new(v1::ReadRequest::default());
    let guessed = format!("Bearer dm_{:032x}", fastrand::u128(..));
    request.metadata_mut().insert("authorization", guessed.parse().expect("ASCII"));
    assert!(MailboxClient::new(channel).read(request).await.is_err(), "a guess");
    Ok(())
}

/// The first message of a handshake, as a client says it to somebody who does not answer.
async fn hello(ca: Option<&str>) -> Arc<[u8]> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    let ca = ca.map(str::to_owned);
    let client = tokio::spawn(async move { connect(&url, ca.as_deref()).await.map(drop) });
    let (mut stream, _) = listener.accept().await.expect("somebody");
    let mut head = [0; 5];
    stream.read_exact(&mut head).await.expect("a record");
    let mut rest = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    stream.read_exact(&mut rest).await.expect("a message");
    client.abort();
    [head.to_vec(), rest].concat().into()
}
