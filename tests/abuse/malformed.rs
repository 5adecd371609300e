//! HTTP/2 that breaks its rules, or keeps to them without sense.

use std::time::Duration;

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    relay::Outcome,
    siege::Siege,
    wire::{
        self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, call, frame, goodbye, open, rest,
    },
};

/// What HTTP/2 calls too many of something.
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// As often as the relay takes it, until it closes; answers what it said last.
async fn flood(mut stream: TcpStream, bytes: Vec<u8>, at_most: usize) -> Option<(u32, String)> {
    for _ in 0..at_most {
        if stream.write_all(&bytes).await.is_err() {
            break;
        }
    }
    let (said, closed) = rest(&mut stream, wire::PATIENCE).await;
    assert!(closed, "it is still open");
    goodbye(&said)
}

#[tokio::test]
async fn garbage_is_the_end_of_its_connection_and_is_counted() -> Outcome {
    let siege = Siege::begin(&[]).await?;
    let broken: Vec<Vec<u8>> = vec![
        frame(DATA, 0, 0, b"data of no call"),
        frame(SETTINGS, 0, 0, &[1, 2, 3]),
        frame(SETTINGS, 0, 7, &[]),
        frame(PING, 0, 0, &[1]),
        frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
        frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
        frame(HEADERS, END_HEADERS, 2, &call("/")),
        frame(HEADERS, END_HEADERS, 1, &[0x80; 10]),
        frame(CONTINUATION, END_HEADERS, 1, &call("/")),
        frame(RST_STREAM, 0, 9, &[0; 4]),
        // A frame that says to be longer than any may be.
        vec![0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1],
    ];
    let (mut named, count) = (0, broken.len() as u64);
    for bytes in broken {
        let mut stream = open(2, siege.to).await?;
        stream.write_all(&bytes).await?;
        let (said, closed) = rest(&mut stream, wire::PATIENCE).await;
        assert!(closed, "{bytes:?}");
        named += u64::from(goodbye(&said).is_some_and(|(reason, _)| reason != 0));
    }
    assert_eq!(named, count, "each hears which rule it broke");
    siege.closes("malformed", count).await?;
    // What is no HTTP at all is told so in HTTP/1.1.
    let mut stream = wire::connect_from(2, siege.to).await?;
    stream.write_all(b"\x00\x01\x02 this is no HTTP\r\n\r\n").await?;
    let (said, closed) = rest(&mut stream, wire::PATIENCE).await;
    assert!(closed && said.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&said));
    siege.closes("malformed", count + 1).await?;
    siege.end().await
}

#[tokio::test]
async fn a_flood_of_pings_or_settings_ends() -> Outcome {
    let siege = Siege::begin(&[]).await?;
    for bytes in [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9])] {
        // Nothing is read meanwhile in one case, and everything in the other.
        flood(open(2, siege.to).await?, bytes.repeat(1_000), 2_000).await;
        let (mut reader, mut writer) = open(2, siege.to).await?.into_split();
        let written = tokio::spawn(async move {
            for _ in 0..2_000 {
                if writer.write_all(&bytes.repeat(1_000)).await.is_err() {
                    return true;
                }
            }
            false
        });
        tokio::io::copy(&mut reader, &mut tokio::io::sink()).await.ok();
        assert!(written.await?, "two million were taken");
    }
    siege.closes("flood", 4).await?;
    siege.end().await
}

#[tokio::test]
async fn calls_that_are_reset_at_once_end_their_connection() -> Outcome {
    let siege = Siege::begin(&[]).await?;
    for _ in 0..5 {
        let mut stream = open(2, siege.to).await?;
        let pairs = (1..20_000).step_by(2).flat_map(|id| {
            let header = frame(HEADERS, END_HEADERS, id, &call("/dormouse.v1.Mailbox/Sync"));
            [header, frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
        });
        let _ = stream.write_all(&pairs.collect::<Vec<_>>()).await;
        let (said, closed) = rest(&mut stream, wire::PATIENCE).await;
        assert!(closed);
        if let Some((reason, _)) = goodbye(&said) {
            assert_eq!(reason, ENHANCE_YOUR_CALM);
        }
    }
    siege.closes("flood", 5).await?;
    siege.end().await
}

#[tokio::test]
async fn calls_that_are_given_up_one_by_one_end_their_connection() -> Outcome {
    let siege = Siege::begin(&[]).await?;
    let mut stream = open(2, siege.to).await?;
    let mut given_up = 0;
    for id in (1..4_000_u32).step_by(2) {
        let header = frame(HEADERS, END_HEADERS, id, &call("/dormouse.v1.Mailbox/Sync"));
        if stream.write_all(&header).await.is_err() {
            break;
        }
        // By then the relay has taken the call, so that only its own count notices.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let _ = stream.write_all(&frame(RST_STREAM, 0, id, &[0, 0, 0, 8])).await;
        given_up += 1;
    }
    assert!(wire::is_closed(&mut stream).await);
    assert!((512..1_900).contains(&given_up), "{given_up}");
    siege.closes("flood", 1).await?;
    siege.end().await
}

#[tokio::test]
async fn a_header_that_goes_on_and_on_ends_its_connection() -> Outcome {
    let siege = Siege::begin(&[]).await?;
    for part in [wire::field("x-a", &"a".repeat(8_000)), Vec::new(), vec![0x82; 10]] {
        let mut stream = open(2, siege.to).await?;
        stream.write_all(&frame(HEADERS, END_STREAM, 1, &call("/dormouse.v1.Mailbox/Sync"))).await?;
        let (reason, _) = flood(stream, frame(CONTINUATION, 0, 1, &part), 50_000).await.unwrap_or_default();
        assert!([0, ENHANCE_YOUR_CALM, 1].contains(&reason), "{reason}");
    }
    assert_eq!(siege.closed("flood")? + siege.closed("malformed")?, 3);
    siege.end().await
}
