//! Whoever begins something and never ends it.

use std::{net::SocketAddr, time::Duration};

use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinSet};

use crate::{
    relay::Outcome,
    siege::Siege,
    wire::{self, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, call, frame, goodbye, json, open, rest},
};

/// A byte of these now and then, for as long as anybody listens; answers whether the other side has closed.
async fn dribble(mut stream: TcpStream, bytes: &'static [u8]) -> bool {
    for byte in bytes {
        if stream.write_all(&[*byte]).await.is_err() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    wire::is_closed(&mut stream).await
}

/// So many at once; answers how many of them were closed by the relay.
async fn dribbles(to: SocketAddr, count: usize, bytes: &'static [u8]) -> Outcome<usize> {
    let mut all = JoinSet::new();
    for _ in 0..count {
        all.spawn(dribble(wire::connect_from(2, to).await?, bytes));
    }
    Ok(all.join_all().await.into_iter().filter(|closed| *closed).count())
}

#[tokio::test]
async fn a_header_that_comes_byte_by_byte_has_the_time_of_a_handshake() -> Outcome {
    let siege = Siege::begin(&[("DORMOUSE_HANDSHAKE_MS", "400")]).await?;
    assert_eq!(dribbles(siege.to, 200, b"POST /dormouse.v1.Mailbox/Sync HTTP/1.1\r\nx-a: ").await?, 200);
    assert_eq!(dribbles(siege.to, 200, &PREFACE[..23]).await?, 200);
    assert_eq!(dribbles(siege.to, 50, b"").await?, 50, "who says nothing at all");
    siege.closes("silent", 450).await?;
    siege.end().await
}

#[tokio::test]
async fn a_second_header_over_http_1_has_the_time_of_a_request() -> Outcome {
    let siege = Siege::begin(&[("DORMOUSE_REQUEST_MS", "300")]).await?;
    let mut stream = wire::connect_from(2, siege.to).await?;
    stream.write_all(json("/dormouse.v1.Membership/GetRelay", "", 2, "{}").as_bytes()).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    stream.write_all(b"POST /dormouse.v1").await?;
    let (said, closed) = rest(&mut stream, wire::PATIENCE).await;
    assert!(closed && said.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&said));
    siege.closes("slow", 1).await?;
    siege.end().await
}

#[tokio::test]
async fn a_body_that_never_ends_is_refused_with_the_time_that_it_had() -> Outcome {
    let siege = Siege::begin(&[("DORMOUSE_REQUEST_MS", "400")]).await?;
    let mut stream = wire::connect_from(2, siege.to).await?;
    stream.write_all(json("/dormouse.v1.Mailbox/Write", "", 100, "{").as_bytes()).await?;
    let mut all = JoinSet::new();
    for _ in 0..20 {
        let mut stream = open(2, siege.to).await?;
        all.spawn(async move {
            for id in (1..40).step_by(2) {
                let begun = [
                    frame(HEADERS, END_HEADERS, id, &call("/dormouse.v1.Mailbox/Write")),
                    frame(DATA, 0, id, &[0; 4]),
                ];
                stream.write_all(&begun.concat()).await.expect("it listens");
            }
            // Held open, until all have their answers.
            tokio::time::sleep(Duration::from_secs(2)).await;
        });
    }
    let (said, _) = rest(&mut stream, Duration::from_secs(2)).await;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("did not arrive within 400 ms"), "{said}");
    assert!(said.contains("request_ms") && said.contains("deadline_exceeded"), "{said}");
    all.join_all().await;
    assert_eq!(siege.refused("SLOW_SENDER")?, 401);
    siege.end().await
}

#[tokio::test]
async fn an_answer_that_nobody_takes_ends_the_connection() -> Outcome {
    /// In a frame of settings: how much of an answer may come unasked.
    const INITIAL_WINDOW: u16 = 4;
    let env = [("DORMOUSE_ANSWER_MS", "1000"), ("DORMOUSE_REQUEST_MS", "1000")];
    let siege = Siege::begin(&env).await?;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = wire::connect_from(2, siege.to).await?;
        stream.write_all(&wire::opening(&[(INITIAL_WINDOW, 0)])).await?;
        for id in (1..80).step_by(2) {
            let header = frame(HEADERS, END_HEADERS, id, &call("/dormouse.v1.Membership/GetRelay"));
            stream.write_all(&[header, frame(DATA, END_STREAM, id, &[0; 5])].concat()).await?;
        }
        streams.push(stream);
    }
    for stream in &mut streams {
        assert!(wire::is_closed(stream).await);
    }
    siege.closes("slow", 20).await?;
    siege.end().await
}

#[tokio::test]
async fn a_handshake_that_never_ends_gives_its_place_to_whoever_comes_next() -> Outcome {
    let env = [("DORMOUSE_HANDSHAKE_MS", "3000"), ("DORMOUSE_HANDSHAKES_MAX", "32")];
    let siege = Siege::begin_under_tls(&env).await?;
    let mut streams = Vec::new();
    for _ in 0..200 {
        let mut stream = wire::connect_from(2, siege.to).await?;
        // The beginning of a first record that says to be longer.
        stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await?;
        streams.push(stream);
    }
    siege.closes("made_room", 160).await?;
    // With all places taken by those who never end, whoever means it is let in at once.
    for _ in 0..5 {
        let channel = crate::regular::connect(&siege.url, siege.ca.as_deref()).await?;
        crate::regular::Beating::new(channel, None).beat().await?;
    }
    for stream in &mut streams {
        assert!(wire::is_closed(stream).await);
    }
    // Each is counted just after it was closed.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let timed_out = siege.counted("dormouse_tls_handshakes_total{outcome=\"timed_out\"}")?;
    let made_room = siege.closed("made_room")?;
    assert_eq!(timed_out + made_room, 200, "{timed_out} had their time");
    siege.end().await
}

#[tokio::test]
async fn handshakes_beyond_the_pace_wait_and_those_beyond_all_patience_are_closed() -> Outcome {
    let env = [("DORMOUSE_HANDSHAKES_PER_SECOND_MAX", "20"), ("DORMOUSE_HANDSHAKE_MS", "1000")];
    let siege = Siege::begin_under_tls(&env).await?;
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(wire::connect_from(2, siege.to).await?);
    }
    siege.closes("hurried", 60).await?;
    assert!(siege.closed("hurried")? <= 85, "a second's worth may wait");
    siege.end().await
}

#[tokio::test]
async fn a_connection_without_calls_is_ended_in_words() -> Outcome {
    let siege = Siege::begin(&[("DORMOUSE_IDLE_MS", "1000")]).await?;
    let mut streams = Vec::new();
    for _ in 0..50 {
        streams.push(open(2, siege.to).await?);
    }
    for stream in &mut streams {
        let (said, closed) = rest(stream, wire::PATIENCE).await;
        let (reason, _) = goodbye(&said[said.len().saturating_sub(400)..]).unwrap_or((99, String::new()));
        assert!(closed);
        assert_eq!(reason, 0, "no error: {said:?}");
    }
    siege.closes("idle", 50).await?;
    siege.end().await
}
