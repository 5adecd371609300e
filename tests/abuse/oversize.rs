//! Messages and headers that are larger than they may be, and too many that are just as large as they may be.

use std::time::Duration;

use dormouse_proto::wire::v1::{self, mailbox_client::MailboxClient};
use tokio::io::AsyncWriteExt as _;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::{
    regular::connect,
    relay::Outcome,
    siege::Siege,
    wire::{self, DATA, END_HEADERS, HEADERS, call, field, frame, json, open, rest},
};

/// The word of a refusal, and the first thing that it names with its limit.
pub(crate) fn words(status: &Status) -> (String, String) {
    let details = status.get_error_details();
    let word = details.error_info().map_or_else(String::new, |info| info.reason.clone());
    let named = details.bad_request().and_then(|it| it.field_violations.first());
    (word, named.map_or_else(String::new, |it| format!("{}: {}", it.field, it.description)))
}

fn register(bytes: usize) -> v1::WriteRequest {
    let value = v1::Value { kind: Some(v1::value::Kind::Text("a".repeat(bytes))) };
    let change = v1::RegisterDelta { value: Some(value), ..Default::default() };
    let delta = v1::Delta {
        collection: "ads".into(),
        key: "large".into(),
        change: Some(v1::delta::Change::Register(change)),
    };
    v1::WriteRequest { request_id: "1".into(), deltas: vec![delta], ..Default::default() }
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_with_its_size_and_the_limit() -> Outcome {
    let siege = Siege::begin(&[]).await?;
    let mut mailbox = MailboxClient::new(connect(&siege.url, None).await?);
    for _ in 0..20 {
        let refused = mailbox.write(register(3 << 20)).await.expect_err("3 MiB");
        let (word, named) = words(&refused);
        assert_eq!((refused.code(), word.as_str()), (Code::InvalidArgument, "TOO_LARGE"), "{refused:?}");
        assert!(named.starts_with("message: ") && named.ends_with("2097152"), "{named}");
    }
    assert_eq!(siege.refused("TOO_LARGE")?, 20);
    // The same connection goes on.
    mailbox.write(register(60_000)).await?;
    siege.end().await
}

#[tokio::test]
async fn a_header_that_is_too_large_is_refused_with_its_size_and_the_limit() -> Outcome {
    let siege = Siege::begin(&[]).await?;
    let mut mailbox = MailboxClient::new(connect(&siege.url, None).await?);
    let mut request = Request::new(v1::ReadRequest::default());
    request.metadata_mut().insert("x-long", "a".repeat(20_000).parse()?);
    let refused = mailbox.read(request).await.expect_err("20 kB");
    let (word, named) = words(&refused);
    assert_eq!((refused.code(), word.as_str()), (Code::InvalidArgument, "TOO_LARGE"));
    assert!(named.starts_with("headers: ") && named.ends_with("16384"), "{named}");

    let long = format!("x-long: {}\r\n", "a".repeat(20_000));
    let mut stream = wire::connect_from(2, siege.to).await?;
    stream.write_all(json("/dormouse.v1.Membership/GetRelay", &long, 2, "{}").as_bytes()).await?;
    let (said, _) = rest(&mut stream, Duration::from_millis(500)).await;
    let said = String::from_utf8_lossy(&said);
    assert!(
        said.starts_with("HTTP/1.1 400 ") && said.contains("TOO_LARGE") && said.contains("16384"),
        "{said}"
    );
    assert_eq!(siege.refused("TOO_LARGE")?, 2);
    siege.end().await
}

#[tokio::test]
async fn a_header_that_is_larger_than_what_is_read_at_all_ends_in_a_status() -> Outcome {
    let siege = Siege::begin(&[]).await?;
    for fields in [1, 200] {
        let long = format!("x-long: {}\r\n", "a".repeat(200_000 / fields)).repeat(fields);
        let mut stream = wire::connect_from(2, siege.to).await?;
        let _ = stream.write_all(json("/dormouse.v1.Membership/GetRelay", &long, 2, "{}").as_bytes()).await;
        let (said, closed) = rest(&mut stream, wire::PATIENCE).await;
        let said = String::from_utf8_lossy(&said);
        assert!(closed && (said.is_empty() || said.starts_with("HTTP/1.1 431 ")), "{said}");
    }
    siege.closes("header_too_large", 2).await?;
    // Over HTTP/2 it takes several frames, and the call is answered so that the others of its connection go on.
    let mut stream = open(2, siege.to).await?;
    let header = [call("/dormouse.v1.Membership/GetRelay"), field("x-long", &"a".repeat(70_000))].concat();
    for (nth, part) in header.chunks(16_000).enumerate() {
        let last = (nth + 1) * 16_000 >= header.len();
        let kind = if nth == 0 { HEADERS } else { wire::CONTINUATION };
        stream.write_all(&frame(kind, if last { END_HEADERS } else { 0 }, 1, part)).await?;
    }
    let (said, _) = rest(&mut stream, Duration::from_millis(500)).await;
    // The status is the first field of the answer, in the table of all fields or as its digits.
    assert!(said.windows(4).any(|it| it[0] == HEADERS || it == b"431\0"), "{said:?}");
    siege.end().await
}

#[tokio::test]
async fn requests_share_their_room_and_the_next_one_is_told_to_come_back() -> Outcome {
    let siege = Siege::begin(&[("DORMOUSE_REQUESTS_BYTES_MAX", "8388608")]).await?;
    let mut streams = Vec::new();
    for _ in 0..60 {
        let mut stream = open(2, siege.to).await?;
        let mut begun = frame(HEADERS, END_HEADERS, 1, &call("/dormouse.v1.Mailbox/Write"));
        // A message of two megabytes, of which nine tenths of one are sent: what fits into the window.
        begun.extend(frame(DATA, 0, 1, &[0, 0, 0x1f, 0xff, 0xff]));
        for _ in 0..56 {
            begun.extend(frame(DATA, 0, 1, &[0; 16_000]));
        }
        stream.write_all(&begun).await?;
        streams.push(stream);
    }
    let mut busy = 0;
    for _ in 0..100 {
        busy = siege.refused("BUSY")?;
        if busy >= 50 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!((50..60).contains(&busy), "nine of them have room: {busy}");
    // With the first nine gone there is room again.
    drop(streams);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut mailbox = MailboxClient::new(connect(&siege.url, None).await?);
    mailbox.write(register(60_000)).await?;
    siege.end().await
}
