//! The pages, asked for over a socket.

use std::{error::Error, net::SocketAddr};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};

use super::*;
use crate::{
    history::Samples,
    metrics::{Condition, FIGURES, GroupGauge},
};

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Readiness for Told {
    fn unmet(&self) -> Vec<String> {
        self.0.lock().clone()
    }

    fn promises(&self) -> Vec<String> {
        vec!["log: memory".to_owned()]
    }

    fn gauges(&self) -> Gauges {
        let group = |name: &str, awake, asleep, expected_alive| {
            let (namespace, group) = ("shop".to_owned(), name.to_owned());
            GroupGauge { namespace, group, awake, asleep, expected_alive, ..GroupGauge::default() }
        };
        let groups = vec![group("small", 1, 0, 1.0), group("large", 2, 7, 8.5)];
        Gauges { rows: 5, conditions: vec![Condition::MassLoss], groups, ..Gauges::default() }
    }

    fn about(&self) -> About {
        About { relay: "r1".to_owned(), ..About::default() }
    }

    fn recent(&self, from: u64) -> Recent {
        let mut samples = Samples::default();
        (0..3).for_each(|second| samples.take(second * 1_000, [0; FIGURES.len()], &[]));
        samples.from(from)
    }
}

struct Running {
    address: SocketAddr,
    told: Arc<Told>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
}

async fn start() -> io::Result<Running> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let told = Arc::new(Told::default());
    let (stop, stopped) = oneshot::channel();
    let stopped = async { stopped.await.unwrap_or_default() };
    let metrics = Arc::<Metrics>::default();
    metrics.refused("BUSY");
    let served = tokio::spawn(serve(listener, metrics, told.clone(), stopped));
    Ok(Running { address, told, stop, served })
}

impl Running {
    async fn get(&self, path: &str) -> io::Result<String> {
        self.get_with(path, "").await
    }

    async fn get_with(&self, path: &str, headers: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}

#[tokio::test]
async fn every_page_answers() -> Result<(), Box<dyn Error>> {
    let relay = start().await?;
    for (path, status, content) in [
        ("/livez", "200 OK", "ok\n"),
        ("/readyz", "200 OK", "\r\n\r\nok\nlog: memory\n"),
        ("/", "200 OK", "/readyz"),
        ("/page.css", "200 OK", "\r\ncontent-type: text/css; charset=utf-8\r\n"),
        ("/page.js", "200 OK", "\r\ncontent-type: text/javascript; charset=utf-8\r\n"),
        ("/state.json", "200 OK", "\r\ncontent-type: application/json\r\n"),
        ("/metrics", "200 OK", "\ndormouse_rows 5\n"),
        (
            "/metrics",
            "200 OK",
            "\r\ncontent-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n",
        ),
        ("/state", "404 Not Found", ""),
    ] {
        let answer = relay.get(path).await?;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{path}: {answer}");
        assert!(answer.contains(content), "{path}: {answer}");
    }
    Ok(())
}

#[tokio::test]
async fn a_relay_that_does_not_serve_says_why_and_lives() -> Result<(), Box<dyn Error>> {
    let relay = start().await?;
    relay.told.0.lock().extend(["log unreachable".to_owned(), "reading the log".to_owned()]);
    let answer = relay.get("/readyz").await?;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nlog unreachable\nreading the log\n"), "{answer}");
    assert!(relay.get("/livez").await?.starts_with("HTTP/1.1 200 "));
    Ok(())
}

#[tokio::test]
async fn a_caller_that_never_finishes_does_not_hold_up_the_end() -> Result<(), Box<dyn Error>> {
    let relay = start().await?;
    let mut slow = TcpStream::connect(relay.address).await?;
    slow.write_all(b"GET /livez HTTP/1.1\r\n").await?;
    // The second connection is answered after the first was accepted.
    relay.get("/livez").await?;
    assert_eq!(relay.stop.send(()), Ok(()));
    tokio::time::timeout(LAST_WORDS * 10, relay.served).await???;
    Ok(())
}

#[tokio::test]
async fn the_page_asks_nobody_but_the_relay_and_no_frame_holds_it() -> Result<(), Box<dyn Error>> {
    let relay = start().await?;
    for path in ["/", "/page.css", "/page.js", "/state.json"] {
        let answer = relay.get(path).await?;
        assert!(answer.contains(&format!("\r\ncontent-security-policy: {}\r\n", page::POLICY)), "{answer}");
        assert!(answer.contains("\r\ncache-control: no-store\r\n"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
        let outside = body.split("http").skip(1).filter(|it| it.starts_with("://") || it.starts_with("s://"));
        // The name of a format is no address.
        let asked = outside.filter(|it| !it.starts_with("://www.w3.org/2000/svg"));
        assert_eq!(asked.count(), 0, "{path} names another host");
    }
    let html = relay.get("/").await?;
    assert!(
        !html.contains(" style=") && !html.contains("<style") && !html.contains(" onclick="),
        "the policy forbids it"
    );
    Ok(())
}

#[tokio::test]
async fn the_state_has_what_the_page_shows_and_the_samples_that_are_asked_for() -> Result<(), Box<dyn Error>>
{
    let relay = start().await?;
    let state = |answer: String| -> Result<serde_json::Value, Box<dyn Error>> {
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
        Ok(serde_json::from_str(body)?)
    };
    let whole = state(relay.get("/state.json").await?)?;
    assert_eq!(whole["about"]["relay"], "r1");
    assert_eq!(whole["unmet"], serde_json::json!([]));
    assert_eq!(whole["conditions"], serde_json::json!(["MASS_LOSS"]));
    assert_eq!(whole["now"]["rows"], 5);
    assert_eq!(
        whole["groups"][0],
        serde_json::json!({
            "namespace": "shop", "group": "large", "awake": 2, "asleep": 7, "suspect": 0, "expected_alive": 8.5,
            "expired": 0, "back": 0,
        })
    );
    assert_eq!((&whole["groups"][1]["group"], &whole["groups_known"]), (&"small".into(), &2.into()));
    assert_eq!(whole["since_start"]["refusals"], serde_json::json!({ "BUSY": 1 }));
    let numbers = |it: &serde_json::Value| -> Vec<u64> {
        let samples = it["history"]["samples"].as_array();
        samples.into_iter().flatten().filter_map(|it| it["at"].as_u64()).collect()
    };
    assert_eq!(numbers(&whole), [0, 1_000, 2_000]);
    let figures = whole["history"]["figures"].as_array().map(Vec::len);
    assert_eq!(figures, whole["history"]["samples"][0]["figures"].as_array().map(Vec::len));
    let rest = state(relay.get("/state.json?from=2").await?)?;
    assert_eq!((numbers(&rest), &rest["history"]["first"]), (vec![2_000], &2.into()));
    for query in ["?from=", "?from=-1", "?from=99999999999999999999", "?since=1"] {
        assert_eq!(
            numbers(&state(relay.get(&format!("/state.json{query}")).await?)?),
            [0, 1_000, 2_000],
            "{query}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn whoever_knows_the_older_format_alone_is_given_that() -> Result<(), Box<dyn Error>> {
    let relay = start().await?;
    for (accept, wanted) in [
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4"),
        (
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
            "application/openmetrics-text",
        ),
        ("*/*", "application/openmetrics-text"),
    ] {
        let answer = relay.get_with("/metrics", &format!("accept: {accept}\r\n")).await?;
        assert!(answer.contains(&format!("\r\ncontent-type: {wanted}")), "{accept}: {answer}");
        assert_eq!(
            answer.contains("# TYPE dormouse_pulls_total counter\n"),
            wanted.starts_with("text/plain"),
            "{accept}"
        );
    }
    Ok(())
}
