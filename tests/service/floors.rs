//! Floors: who is told that too few are alive, how often, and that there are enough again.

use std::{error::Error, path::Path, sync::Arc, time::Duration};

use dormouse_proto::wire::v1;
use dormouse_relay::{
    config::{Config, FloorSettings},
    liveness::{LeaseSettings, Millis},
    log::{
        LogId,
        embedded::{Embedded, Options},
        memory::Memory,
    },
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_stream::StreamExt as _;
use tonic::{Status, Streaming};

use crate::harness::{Caller, Outcome, Served, asleep, get};

/// Far more than anything here takes, and never waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A floor called `workers`, and leases that are short, so that a start does not hold expiry for long.
fn config(floor: FloorSettings) -> Config {
    let leases = LeaseSettings {
        awake: Millis(300),
        suspect_grace: Millis::from_secs(600),
        ..LeaseSettings::default()
    };
    Config { leases, floors: [("workers".to_owned(), floor)].into(), ..Config::default() }
}

async fn sleeper(served: &Served, name: u8, zone: &str) -> Result<Caller, Status> {
    let mut caller = Caller::new(served, name).await;
    caller.identity.tags = [("zone".to_owned(), zone.to_owned())].into();
    sleep(&mut caller).await?;
    Ok(caller)
}

async fn sleep(caller: &mut Caller) -> Result<(), Status> {
    let request = caller.request(asleep());
    caller.send(request).await.map(drop)
}

type Watch = Streaming<v1::WatchMembersResponse>;

/// A watch, and what its first messages say of floors.
async fn watch(served: &Served, filter: &str) -> Result<(Watch, Vec<v1::FloorEvent>), Status> {
    let filter = v1::MemberFilter { tags: filter.to_owned(), ..Default::default() };
    let request = v1::WatchMembersRequest { filter: Some(filter), ..Default::default() };
    let mut watch = served.membership().await.watch_members(request).await?.into_inner();
    let mut floors = Vec::new();
    loop {
        let message = next(&mut watch).await?;
        floors.extend(message.floors);
        if message.caught_up {
            return Ok((watch, floors));
        }
    }
}

async fn next(watch: &mut Watch) -> Result<v1::WatchMembersResponse, Status> {
    let message = timeout(PATIENCE, watch.next()).await.map_err(|_| Status::cancelled("nothing is told"))?;
    message.unwrap_or_else(|| Err(Status::cancelled("the stream ended")))
}

/// The next floors that are told of.
async fn next_floors(watch: &mut Watch) -> Result<Vec<v1::FloorEvent>, Status> {
    loop {
        let message = next(watch).await?;
        if !message.floors.is_empty() {
            return Ok(message.floors);
        }
    }
}

fn event(value: &str, live: u64, minimum: u64, below: bool) -> v1::FloorEvent {
    v1::FloorEvent { floor: "workers".into(), value: value.into(), live, minimum, below }
}

/// Waits until the page of metrics has all of these lines.
async fn counted(served: &Served, lines: &[&str]) -> Outcome {
    let all = async {
        loop {
            let page = get(&served.admin_url, "/metrics").await?;
            if lines.iter().all(|line| page.lines().any(|it| it == *line)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, all).await.unwrap_or_else(|_| Err(format!("never counted: {lines:?}").into()))
}

/// What was posted.
#[derive(Debug)]
struct Posted {
    /// Line by line, in lower case.
    head: Vec<String>,
    body: Value,
}

impl Posted {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// An owner that answers 500 to the first request and 200 to all others.
async fn owner() -> std::io::Result<(String, mpsc::UnboundedReceiver<Posted>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}/refill?by=zone", listener.local_addr()?);
    let (heard, posted) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut answer = "500 Internal Server Error";
        while !heard.is_closed() {
            let Ok((stream, _)) = listener.accept().await else { return };
            let Ok(request) = serve_once(stream, answer).await else { return };
            let _ = heard.send(request);
            answer = "200 OK";
        }
    });
    Ok((address, posted))
}

async fn serve_once(mut stream: TcpStream, answer: &str) -> Result<Posted, Box<dyn Error + Send + Sync>> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8(bytes.clone())?;
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head: Vec<String> = head.lines().map(str::to_ascii_lowercase).collect();
            let length =
                head.iter().find_map(|line| line.strip_prefix("content-length: ")).ok_or("a length")?;
            if body.len() == length.parse::<usize>()? {
                stream
                    .write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes())
                    .await?;
                return Ok(Posted { head, body: serde_json::from_str(body)? });
            }
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err("half a request".into());
        }
    }
}

async fn next_posted(posted: &mut mpsc::UnboundedReceiver<Posted>) -> Result<Posted, Box<dyn Error>> {
    timeout(PATIENCE, posted.recv()).await?.ok_or_else(|| "the owner ended".into())
}

/// Two sleepers in each of two zones, in a log; and the relay that is started on it, so that none of them is still on its
/// way when it begins to count.
async fn two_zones(dir: &Path, floor: FloorSettings) -> Result<(Served, Vec<Caller>), Box<dyn Error>> {
    let open = || Embedded::open(dir, Options::default()).map(Arc::new);
    let before = Served::new(Config::default(), open()?).await?;
    let mut callers = Vec::new();
    for (name, zone) in [(1, "a"), (2, "a"), (3, "b"), (4, "b")] {
        callers.push(sleeper(&before, name, zone).await?);
    }
    before.stop().await;
    let served = Served::new(config(floor), open()?).await?;
    for caller in &mut callers {
        caller.mailbox = served.mailbox().await;
    }
    Ok((served, callers))
}

#[tokio::test]
async fn a_zone_that_falls_below_its_floor_is_told_of_once_and_so_is_its_return() -> Outcome {
    let (address, mut posted) = owner().await?;
    let floor = FloorSettings {
        by: Some("zone".into()),
        minimum: 2,
        settle: Millis(200),
        webhook: Some(address.parse()?),
        ..FloorSettings::default()
    };
    let dir = tempfile::tempdir()?;
    let (served, mut callers) = two_zones(dir.path(), floor).await?;
    let (mut watching, below) = watch(&served, "zone=nowhere").await?;
    assert_eq!(below, []);
    let both = [
        r#"dormouse_floor_live{floor="workers",value="a"} 2"#,
        r#"dormouse_floor_live{floor="workers",value="b"} 2"#,
        r#"dormouse_floor_minimum{floor="workers"} 2"#,
        r#"dormouse_floor_events_total{floor="workers",below="true"} 0"#,
    ];
    counted(&served, &both).await?;

    let leaving = v1::sync_request::Next::Leaving(v1::Leaving { reason: "done".into() });
    let request = callers[0].request(leaving);
    callers[0].send(request).await?;
    assert_eq!(next_floors(&mut watching).await?, [event("a", 1, 2, true)]);
    let (mut late, below) = watch(&served, "").await?;
    assert_eq!(below, [event("a", 1, 2, true)], "who comes later is told at first");
    counted(&served, &[r#"dormouse_floor_live{floor="workers",value="a"} 1"#, both[1]]).await?;
    let first = next_posted(&mut posted).await?;
    let again = next_posted(&mut posted).await?;
    assert_eq!(first.head.first().map(String::as_str), Some("post /refill?by=zone http/1.1"));
    assert_eq!(first.header("content-type"), Some("application/json"));
    assert!(first.header("idempotency-key").is_some_and(|key| !key.is_empty()));
    assert_eq!(first.header("idempotency-key"), again.header("idempotency-key"));
    let revision = first.body["revision"].as_u64().ok_or("a revision")?;
    assert!(revision > 0 && revision <= served.relay().sequencer.read().fold.revision().0);
    let said = |live: u64, below: bool, revision: u64| {
        json!({"floor": "workers", "value": "a", "live": live, "minimum": 2, "below": below,
               "namespace": "default", "revision": revision})
    };
    assert_eq!(first.body, said(1, true, revision));
    assert_eq!(again.body, first.body);

    sleeper(&served, 5, "a").await?;
    for watch in [&mut watching, &mut late] {
        assert_eq!(next_floors(watch).await?, [event("a", 2, 2, false)]);
    }
    let back = next_posted(&mut posted).await?;
    assert_eq!(back.body, said(2, false, back.body["revision"].as_u64().ok_or("a revision")?));
    assert_ne!(back.header("idempotency-key"), first.header("idempotency-key"));
    let all = [
        r#"dormouse_floor_events_total{floor="workers",below="true"} 1"#,
        r#"dormouse_floor_events_total{floor="workers",below="false"} 1"#,
        r#"dormouse_webhooks_total{outcome="delivered"} 2"#,
        r#"dormouse_webhooks_total{outcome="tried_again"} 1"#,
        r#"dormouse_webhooks_total{outcome="failed"} 0"#,
        r#"dormouse_webhooks_total{outcome="dropped"} 0"#,
    ];
    counted(&served, &all).await?;
    assert_eq!(watch(&served, "").await?.1, []);
    served.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_member_that_is_suspect_does_not_count() -> Outcome {
    let floor = FloorSettings {
        group: Some("callers".parse()?),
        minimum: 1,
        settle: Millis(100),
        ..FloorSettings::default()
    };
    let served = Served::new(config(floor), Arc::new(Memory::new(LogId(7)))).await?;
    let (mut watching, _) = watch(&served, "").await?;
    assert_eq!(next_floors(&mut watching).await?, [event("", 0, 1, true)], "nobody is there to begin with");

    let mut caller = sleeper(&served, 1, "a").await?;
    assert_eq!(next_floors(&mut watching).await?, [event("", 1, 1, false)]);
    // It says nothing more for longer than its awake lease, and stays a member.
    caller.wake().await?;
    assert_eq!(next_floors(&mut watching).await?, [event("", 0, 1, true)]);
    counted(&served, &[r#"dormouse_members{state="suspect"} 1"#]).await?;
    sleep(&mut caller).await?;
    assert_eq!(next_floors(&mut watching).await?, [event("", 1, 1, false)]);
    served.stop().await;
    Ok(())
}
