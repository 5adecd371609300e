//! More connections than there are places.

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    relay::Outcome,
    siege::Siege,
    wire::{self, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, call, frame, goodbye, open, rest},
};

/// A stream that goes on for as long as both like: a place that nobody else can have.
async fn watch(stream: &mut TcpStream) -> Outcome {
    let header = frame(HEADERS, END_HEADERS, 1, &call("/dormouse.v1.Membership/WatchMembers"));
    stream.write_all(&[header, frame(DATA, END_STREAM, 1, &[0; 5])].concat()).await?;
    // The answer has begun when there is some of it.
    stream.readable().await?;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    Ok(())
}

#[tokio::test]
async fn idle_connections_make_room_the_idlest_first() -> Outcome {
    let siege = Siege::begin(&[("DORMOUSE_CONNECTIONS_MAX", "40")]).await?;
    let mut streams = Vec::new();
    for _ in 0..400 {
        streams.push(open(2, siege.to).await?);
    }
    let (last, first) = streams.split_last_mut().ok_or("some")?;
    // Two places are those of the regulars.
    for stream in &mut first[..362] {
        let (said, closed) = rest(stream, wire::PATIENCE).await;
        assert!(closed);
        assert_eq!(goodbye(&said).map(|(reason, _)| reason), Some(0), "{said:?}");
    }
    watch(last).await?;
    siege.closes("made_room", 362).await?;
    assert!(siege.counted("dormouse_connections_open")? <= 40);
    siege.end().await
}

#[tokio::test]
async fn an_address_whose_places_are_all_busy_is_told_so_and_others_are_served() -> Outcome {
    let siege = Siege::begin(&[("DORMOUSE_CONNECTIONS_PER_ADDRESS_MAX", "8")]).await?;
    let mut busy = Vec::new();
    for _ in 0..8 {
        let mut stream = open(2, siege.to).await?;
        watch(&mut stream).await?;
        busy.push(stream);
    }
    let words = "all connections of your address are busy (connections_per_address_max = 8), come back later";
    let mut stream = wire::connect_from(2, siege.to).await?;
    stream.write_all(&[PREFACE, &frame(wire::SETTINGS, 0, 0, &[])].concat()).await?;
    let (said, closed) = rest(&mut stream, wire::PATIENCE).await;
    assert!(closed);
    assert_eq!(goodbye(&said), Some((0xb, words.to_owned())));

    let mut stream = wire::connect_from(2, siege.to).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: relay\r\n\r\n").await?;
    let (said, closed) = rest(&mut stream, wire::PATIENCE).await;
    let said = String::from_utf8_lossy(&said);
    assert!(closed && said.starts_with("HTTP/1.1 429 ") && said.contains("retry-after: 1"), "{said}");
    assert!(said.contains(words), "{said}");

    for _ in 0..300 {
        let _ = wire::connect_from(2, siege.to).await?;
    }
    siege.closes("address_full", 302).await?;
    siege.end().await
}

#[tokio::test]
async fn a_relay_whose_places_are_all_busy_says_so() -> Outcome {
    let siege = Siege::begin(&[("DORMOUSE_CONNECTIONS_MAX", "16")]).await?;
    let mut busy = Vec::new();
    for _ in 0..14 {
        let mut stream = open(2, siege.to).await?;
        watch(&mut stream).await?;
        busy.push(stream);
    }
    // The regulars have the last two, and lose them to nobody, though they are between two calls most of the time.
    let mut told = 0;
    for _ in 0..50 {
        let mut stream = wire::connect_from(3, siege.to).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: relay\r\n\r\n").await?;
        let (said, _) = rest(&mut stream, wire::PATIENCE).await;
        told += u32::from(String::from_utf8_lossy(&said).contains("connections_max = 16"));
    }
    let refused = siege.closed("full")?;
    assert_eq!((told, refused), (50, 50));
    siege.end().await
}
