//! The same calls as JSON over HTTP/1.1, said byte by byte.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::harness::{Caller, Outcome, Served, add, chunk, counter, get, pushed, reason};
use dormouse_proto::wire::v1;

const SYNC: &str = "/dormouse.v1.Mailbox/Sync";
const WRITE: &str = "/dormouse.v1.Mailbox/Write";
const READ: &str = "/dormouse.v1.Mailbox/Read";

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// What an error says under that type.
    fn detail(&self, name: &str) -> Value {
        let details = self.json()["details"].as_array().cloned().unwrap_or_default();
        details.into_iter().find(|it| it["type"] == name).unwrap_or_default()["debug"].take()
    }

    /// The word that an error carries in its `ErrorInfo`.
    fn reason(&self) -> String {
        self.detail("google.rpc.ErrorInfo")["reason"].as_str().unwrap_or_default().to_owned()
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{}", self.head, String::from_utf8_lossy(&self.body))
    }
}

/// A connection that is kept.
struct Http(TcpStream);

impl Http {
    async fn connect(served: &Served) -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Self(TcpStream::connect(served.url.trim_start_matches("http://")).await?))
    }

    async fn send(&mut self, head: &str, body: &[u8]) -> Result<Answer, Box<dyn std::error::Error>> {
        let length = body.len();
        let head = format!("{head}\r\nhost: relay\r\ncontent-length: {length}\r\n\r\n");
        self.0.write_all(head.as_bytes()).await?;
        self.0.write_all(body).await?;
        tokio::time::timeout(Duration::from_secs(10), self.answer()).await?
    }

    async fn post(&mut self, path: &str, body: &Value) -> Result<Answer, Box<dyn std::error::Error>> {
        let head = format!("POST {path} HTTP/1.1\r\ncontent-type: application/json");
        self.send(&head, body.to_string().as_bytes()).await
    }

    async fn answer(&mut self) -> Result<Answer, Box<dyn std::error::Error>> {
        let mut read = Vec::new();
        let end = loop {
            if let Some(at) = read.windows(4).position(|it| it == b"\r\n\r\n") {
                break at;
            }
            if self.0.read_buf(&mut read).await? == 0 {
                return Err("the connection ended before the answer".into());
            }
        };
        let head = String::from_utf8(read[..end].to_vec())?.to_ascii_lowercase();
        let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.ok_or("no length")?.parse()?;
        let mut body = read.split_off(end + 4);
        while body.len() < length {
            if self.0.read_buf(&mut body).await? == 0 {
                return Err("the connection ended within the answer".into());
            }
        }
        Ok(Answer { status, head, body })
    }
}

fn add_two() -> Value {
    json!({"requestId": "one", "deltas": [{"collection": "ads", "key": "shown", "counter": {"add": "2"}}]})
}

#[tokio::test]
async fn what_is_written_as_json_is_read_over_grpc_and_the_other_way_round() -> Outcome {
    let served = Served::default().await?;
    let mut http = Http::connect(&served).await?;
    let written = http.post(WRITE, &add_two()).await?;
    assert_eq!(written.status, 200, "{written}");
    assert!(written.head.contains("content-type: application/json"), "{written}");
    let revision = written.json()["revision"].as_str().ok_or("64 bits are a text")?.parse::<u64>()?;
    let mut node = Caller::new(&served, 1).await;
    let answer = node.sync(vec![add("shown", 40)]).await?;
    let seen = counter(&chunk(&answer).keys, "shown");
    assert_eq!(seen.or(counter(&pushed(&answer).keys, "shown")), Some(42));
    let read = http.post(READ, &json!({"keys": ["ads/*"]})).await?.json();
    assert_eq!(read["keys"][0]["counter"], json!({"value": "42", "total": "42"}));
    assert!(read["asOf"].as_str().ok_or("a text")?.parse::<u64>()? > revision);
    // The same request again, on the same connection: remembered, as over gRPC.
    let again = http.post(WRITE, &add_two()).await?.json();
    assert_eq!(again["revision"], revision.to_string());
    Ok(())
}

#[tokio::test]
async fn a_node_joins_pushes_pulls_and_sleeps_in_json() -> Outcome {
    let served = Served::default().await?;
    let mut http = Http::connect(&served).await?;
    let push = json!({"pushNo": "1", "pushId": "AQIDBAUGBwg=", "deltas": [
        {"collection": "carts", "key": "42", "set": {"add": ["apple"]}}]});
    let mut request = json!({
        "node": {"bootId": "AAAAAAAAAAAAAAAAAAAAAQ==", "group": "web"}, "awake": {"remainingMs": 5_000},
        "beat": "1", "callId": "AQEBAQEBAQE=", "push": push, "pull": {"collections": ["*"]}});
    let answer = http.post(SYNC, &request).await?.json();
    assert_eq!(
        (&answer["lease"]["admission"], &answer["chunk"]["caughtUp"]),
        (&json!("JOINED"), &json!(true))
    );
    assert_eq!(answer["pushed"]["pushNo"], "1");
    assert_eq!(answer["settled"]["pushId"], "AQIDBAUGBwg=");
    let as_of = answer["chunk"]["asOf"].clone();
    let mut asleep =
        json!({"node": answer["lease"], "asleep": {}, "beat": "2", "callId": "AgICAgICAgI=", "head": as_of});
    // A lease has the two fields that the next call repeats, and others that are skipped.
    asleep["node"]["bootId"] = request["node"]["bootId"].take();
    asleep["node"]["group"] = json!("web");
    let answer = http.post(SYNC, &asleep).await?;
    assert_eq!(answer.status, 200, "{answer}");
    let counted =
        http.post("/dormouse.v1.Membership/CountMembers", &json!({"groupBy": ["state"]})).await?.json();
    assert_eq!(counted["counts"][0]["by"], json!({"state": "ASLEEP"}));
    Ok(())
}

#[tokio::test]
async fn a_refusal_is_the_same_in_json() -> Outcome {
    let served = Served::default().await?;
    let over_grpc = served.mailbox().await.sync(v1::SyncRequest::default()).await.expect_err("no node");
    let mut http = Http::connect(&served).await?;
    let refused = http.post(SYNC, &json!({})).await?;
    assert_eq!((refused.status, refused.reason()), (400, reason(&over_grpc)));
    let body = refused.json();
    assert_eq!((&body["code"], &body["message"]), (&json!("invalid_argument"), &json!(over_grpc.message())));
    assert_eq!(refused.detail("google.rpc.BadRequest")["fieldViolations"][0]["field"], "node");
    let unknown = http.post("/dormouse.v1.Membership/GetMember", &json!({"nodeId": "adhwbg4p6km99"})).await?;
    assert_eq!((unknown.status, unknown.reason().as_str()), (404, "NODE_UNKNOWN"));
    Ok(())
}

#[tokio::test]
async fn an_unknown_change_is_refused_and_not_skipped() -> Outcome {
    let served = Served::default().await?;
    let write = json!({"requestId": "one", "deltas": [{"collection": "ads", "key": "a", "chain": {}}]});
    let refused = Http::connect(&served).await?.post(WRITE, &write).await?;
    assert_eq!((refused.status, refused.reason().as_str()), (400, "FIELD_INVALID"), "{refused}");
    let page = get(&served.admin_url, "/metrics").await?;
    assert!(page.contains("dormouse_refusals_total{reason=\"FIELD_INVALID\"} 1"), "{page}");
    let malformed = json!({"requestId": 7});
    let refused = Http::connect(&served).await?.post(WRITE, &malformed).await?;
    assert_eq!((refused.status, refused.reason().as_str()), (400, "FIELD_INVALID"), "{refused}");
    let page = get(&served.admin_url, "/metrics").await?;
    assert!(page.contains("dormouse_refusals_total{reason=\"FIELD_INVALID\"} 2"), "{page}");
    Ok(())
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_before_it_is_read() -> Outcome {
    let served = Served::default().await?;
    let mut http = Http::connect(&served).await?;
    let head = format!("POST {WRITE} HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json");
    http.0.write_all(format!("{head}\r\ncontent-length: 4194305\r\n\r\n").as_bytes()).await?;
    // Not a byte of it was sent.
    let refused = tokio::time::timeout(Duration::from_secs(10), http.answer()).await??;
    assert_eq!((refused.status, refused.reason().as_str()), (400, "TOO_LARGE"), "{refused}");
    assert!(refused.to_string().contains("the limit is 4194304"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_push_that_is_too_large_is_refused_as_over_grpc() -> Outcome {
    let served = Served::default().await?;
    let value = json!({"text": "x".repeat(200 << 10)});
    let deltas: Vec<_> = (0..6)
        .map(|nth| json!({"collection": "ads", "key": nth.to_string(), "register": {"value": value}}))
        .collect();
    let write = json!({"requestId": "one", "deltas": deltas});
    let refused = Http::connect(&served).await?.post(WRITE, &write).await?;
    assert_eq!((refused.status, refused.reason().as_str()), (400, "TOO_LARGE"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn an_answer_of_many_rows_comes_whole() -> Outcome {
    let served = Served::default().await?;
    let mut http = Http::connect(&served).await?;
    let names: Vec<_> = (0..1_000).map(|nth| format!("{nth}-{}", "x".repeat(200))).collect();
    let write =
        json!({"requestId": "one", "deltas": [{"collection": "ads", "key": "a", "set": {"add": names}}]});
    assert_eq!(http.post(WRITE, &write).await?.status, 200);
    let read = http.post(READ, &json!({"keys": ["ads/a"]})).await?;
    assert!(read.body.len() > 200_000);
    let mut present: Vec<String> = serde_json::from_value(read.json()["keys"][0]["set"]["present"].clone())?;
    let mut names = names;
    present.sort_unstable();
    names.sort_unstable();
    assert_eq!(present, names);
    Ok(())
}

#[tokio::test]
async fn what_is_no_unary_call_says_what_is() -> Outcome {
    let served = Served::default().await?;
    let nowhere = Http::connect(&served).await?.send("GET / HTTP/1.1", b"").await?;
    assert_eq!(nowhere.status, 404);
    let calls = nowhere.json()["calls"].as_array().ok_or("a list")?.clone();
    assert!(calls.contains(&json!(format!("POST {SYNC}"))), "{calls:?}");
    assert!(!calls.iter().any(|it| it.as_str().is_some_and(|it| it.contains("Watch"))), "{calls:?}");
    let got = Http::connect(&served).await?.send(&format!("GET {SYNC} HTTP/1.1"), b"").await?;
    assert_eq!(got.status, 405);
    assert!(got.head.contains("allow: post") && got.to_string().contains("curl -d"), "{got}");
    let form = Http::connect(&served)
        .await?
        .send(&format!("POST {SYNC} HTTP/1.1\r\ncontent-type: text/plain"), b"{}")
        .await?;
    assert_eq!(form.status, 415, "{form}");
    let stream = Http::connect(&served).await?.post("/dormouse.v1.Mailbox/Watch", &json!({})).await?;
    assert_eq!((stream.status, &stream.json()["code"]), (501, &json!("unimplemented")));
    assert!(stream.to_string().contains("gRPC"), "{stream}");
    let zipped = format!("POST {SYNC} HTTP/1.1\r\ncontent-type: application/json\r\ncontent-encoding: gzip");
    assert_eq!(Http::connect(&served).await?.send(&zipped, b"{}").await?.status, 501);
    Ok(())
}

#[tokio::test]
async fn protobuf_without_grpc_around_it_is_answered_too() -> Outcome {
    use prost::Message as _;
    let served = Served::default().await?;
    let head = "POST /dormouse.v1.Membership/GetRelay HTTP/1.1\r\ncontent-type: application/proto";
    let answer = Http::connect(&served).await?.send(head, b"").await?;
    assert!(answer.head.contains("content-type: application/proto"), "{answer}");
    let relay = v1::GetRelayResponse::decode(&answer.body[..])?.relay.ok_or("a relay")?;
    assert_eq!(relay.relay_id, served.relay().id.to_string());
    Ok(())
}

#[tokio::test]
async fn the_time_of_a_call_is_kept() -> Outcome {
    let served = Served::default().await?;
    let head =
        format!("POST {READ} HTTP/1.1\r\ncontent-type: application/json\r\nconnect-protocol-version: 1");
    let body = json!({"keys": ["ads/a"], "minRevision": "9000000000000000"}).to_string();
    // Half of it is waited for a revision that does not come.
    let late = Http::connect(&served)
        .await?
        .send(&format!("{head}\r\nconnect-timeout-ms: 200"), body.as_bytes())
        .await?;
    assert_eq!((late.status, late.reason().as_str()), (503, "BEHIND"), "{late}");
    // A body that does not come.
    let mut waiting = Http::connect(&served).await?;
    let promised = format!("{head}\r\nhost: relay\r\ncontent-length: 2\r\nconnect-timeout-ms: 100\r\n\r\n");
    waiting.0.write_all(promised.as_bytes()).await?;
    let none = tokio::time::timeout(Duration::from_secs(10), waiting.answer()).await??;
    assert_eq!((none.status, &none.json()["code"]), (504, &json!("deadline_exceeded")), "{none}");
    let wrong = Http::connect(&served)
        .await?
        .send(&format!("{head}\r\nconnect-timeout-ms: soon"), body.as_bytes())
        .await?;
    assert_eq!(wrong.status, 400, "{wrong}");
    Ok(())
}

#[tokio::test]
async fn the_health_service_answers_too() -> Outcome {
    let served = Served::default().await?;
    let mailbox = json!({"service": "dormouse.v1.Mailbox"});
    let health = Http::connect(&served).await?.post("/grpc.health.v1.Health/Check", &mailbox).await?;
    assert_eq!(health.json(), json!({"status": "SERVING"}));
    Ok(())
}
