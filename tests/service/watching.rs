//! Readers of streams that stop reading, and what they and the others get.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use dormouse_proto::wire::v1::{
    self, mailbox_client::MailboxClient, member_event::Kind, membership_client::MembershipClient,
};
use dormouse_relay::{
    config::Config,
    log::{LogId, memory::Memory},
    metrics::Gauges,
};
use tokio_stream::StreamExt as _;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::harness::{Caller, Outcome, Served, reason, register};

/// What a reader takes before it is behind: nothing is read ahead by its transport but this.
const WINDOW: u32 = 4_096;
/// Large against the window, small against a chunk.
const ROW: usize = 100 << 10;
/// What may still come after the cut: what the transport held already. Far fewer than what was written.
const HELD: usize = 2;

async fn served(watch_patience_ms: u64) -> Result<Served, Box<dyn std::error::Error>> {
    let config = Config { watch_patience_ms, ..Config::default() };
    Served::new(config, Arc::new(Memory::new(LogId(7)))).await
}

/// A connection of its own that takes no more than its reader does.
async fn narrow(served: &Served) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(served.url.clone())?;
    endpoint.initial_stream_window_size(WINDOW).initial_connection_window_size(1 << 20).connect().await
}

async fn watch(channel: Channel, token: &[u8]) -> Result<Streaming<v1::WatchResponse>, Status> {
    let request = v1::WatchRequest {
        collections: vec!["*".into()],
        token: token.to_vec().into(),
        ..Default::default()
    };
    Ok(MailboxClient::new(channel).watch(request).await?.into_inner())
}

async fn write_rows(served: &Served, numbers: std::ops::Range<usize>) -> Result<(), Status> {
    let mut writer = served.mailbox().await;
    for nth in numbers {
        let deltas = vec![register(&format!("row{nth}"), &"x".repeat(ROW), None)];
        let request_id = format!("w{nth}");
        writer.write(v1::WriteRequest { request_id, deltas, ..Default::default() }).await?;
    }
    Ok(())
}

/// The chunk of the next message.
async fn next(stream: &mut Streaming<v1::WatchResponse>) -> Result<v1::Chunk, Status> {
    let message = stream.next().await.unwrap_or_else(|| Err(Status::cancelled("the stream ended")))?;
    Ok(message.chunk.expect("a chunk"))
}

fn keys(chunk: &v1::Chunk) -> impl Iterator<Item = String> {
    chunk.keys.iter().map(|it| it.key.clone())
}

fn cut_off(served: &Served) -> bool {
    let page = served.relay().metrics.encode(&Gauges::default()).expect("a page");
    page.contains("dormouse_refusals_total{reason=\"SLOW_READER\"} 1")
}

/// Everything that is still to be had, and how the stream ended.
async fn rest<T>(stream: &mut Streaming<T>) -> (Vec<T>, Option<Status>) {
    let mut got = Vec::new();
    while let Some(message) = stream.next().await {
        match message {
            Ok(message) => got.push(message),
            Err(status) => return (got, Some(status)),
        }
    }
    (got, None)
}

/// Writes row after row, and another reader sees each, until the one that takes nothing is cut off: how many rows.
async fn write_until_cut_off(
    served: &Served,
    other: &mut Streaming<v1::WatchResponse>,
) -> Result<usize, Status> {
    let (mut seen, mut written) = (BTreeSet::new(), 0);
    while !cut_off(served) {
        assert!(written < 500, "nobody was cut off");
        write_rows(served, written..written + 1).await?;
        written += 1;
        while seen.len() < written {
            seen.extend(keys(&next(other).await?));
        }
    }
    Ok(written)
}

#[tokio::test]
async fn a_reader_of_rows_that_takes_nothing_is_cut_off_and_goes_on_from_its_token() -> Outcome {
    let served = served(300).await?;
    let mut slow = watch(narrow(&served).await?, &[]).await?;
    let mut token = next(&mut slow).await?.token;
    let mut other = watch(narrow(&served).await?, &[]).await?;

    let written = write_until_cut_off(&served, &mut other).await?;
    assert!(written > 2 * HELD, "{written} rows were written: too few to show a bound");
    assert_eq!(served.relay().watchers.available_permits() + 1, served.relay().config.watchers_max);

    let (messages, ended) = rest(&mut slow).await;
    assert!(messages.len() <= HELD, "{} messages had waited", messages.len());
    let status = ended.expect("the last word");
    assert_eq!(reason(&status), "SLOW_READER");
    assert!(status.message().contains("300 ms") && status.message().contains("token"), "{status:?}");

    let mut seen = BTreeSet::new();
    for chunk in messages.into_iter().filter_map(|it| it.chunk) {
        seen.extend(keys(&chunk));
        token = chunk.token;
    }
    assert!(seen.len() < written);
    let mut resumed = watch(narrow(&served).await?, &token).await?;
    while seen.len() < written {
        let chunk = next(&mut resumed).await?;
        assert_eq!(chunk.restart, 0, "the token is good");
        for key in keys(&chunk) {
            assert!(seen.insert(key), "what was read is not sent again");
        }
    }
    Ok(())
}

async fn watch_members(
    channel: Channel,
    after_revision: Option<u64>,
) -> Result<Streaming<v1::WatchMembersResponse>, Status> {
    let request = v1::WatchMembersRequest { after_revision, ..Default::default() };
    Ok(MembershipClient::new(channel).watch_members(request).await?.into_inner())
}

fn joined(message: &v1::WatchMembersResponse) -> impl Iterator<Item = String> {
    let members = message.events.iter().filter(|it| it.kind() == Kind::Joined).map(|it| it.member.as_ref());
    members.map(|it| it.expect("named").node_id.clone())
}

/// Joins with as many tags as a node may have.
async fn join(served: &Served, name: u8) -> Outcome {
    let mut caller = Caller::new(served, name).await;
    caller.identity.tags = (0..4).map(|nth| (format!("tag{nth}"), "t".repeat(200))).collect();
    caller.wake().await?;
    Ok(())
}

#[tokio::test]
async fn a_reader_of_members_that_takes_nothing_is_cut_off_and_goes_on_from_its_revision() -> Outcome {
    let served = served(300).await?;
    let mut slow = watch_members(narrow(&served).await?, None).await?;
    let mut revision = slow.next().await.expect("an answer")?.revision;
    let mut other = watch_members(narrow(&served).await?, None).await?;

    let (mut seen_by_other, mut count) = (BTreeSet::new(), 0_u8);
    while !cut_off(&served) {
        assert!(count < u8::MAX, "nobody was cut off");
        count += 1;
        join(&served, count).await?;
        while seen_by_other.len() < usize::from(count) {
            seen_by_other.extend(joined(&other.next().await.expect("an answer")?));
        }
    }
    let (messages, ended) = rest(&mut slow).await;
    assert_eq!(reason(&ended.expect("the last word")), "SLOW_READER");
    let mut seen: BTreeSet<String> = messages.iter().flat_map(joined).collect();
    assert!(seen.len() < usize::from(count), "some were dropped");
    revision = messages.last().map_or(revision, |it| it.revision);
    let mut resumed = watch_members(narrow(&served).await?, Some(revision)).await?;
    while seen.len() < usize::from(count) {
        let message = resumed.next().await.expect("an answer")?;
        assert!(!message.restart);
        for node in joined(&message) {
            assert!(seen.insert(node), "what was read is not told again");
        }
    }
    assert_eq!(seen, seen_by_other);
    Ok(())
}

#[tokio::test]
async fn a_reader_that_is_only_late_is_not_cut_off() -> Outcome {
    let served = served(1_500).await?;
    let mut late = watch(narrow(&served).await?, &[]).await?;
    next(&mut late).await?;
    let mut seen = BTreeSet::new();
    // Each pause is a fifth of the patience, all of them together are longer.
    for round in 0..8 {
        write_rows(&served, 4 * round..4 * (round + 1)).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        seen.extend(keys(&next(&mut late).await?));
    }
    while seen.len() < 32 {
        seen.extend(keys(&next(&mut late).await?));
    }
    assert!(!cut_off(&served));
    Ok(())
}
