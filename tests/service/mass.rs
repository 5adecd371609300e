//! Masses that come and go, and many who watch: what each is told, and how often it is encoded.

use std::{collections::BTreeSet, sync::Arc};

use dormouse_proto::{
    ids::{Beat, BootId, Incarnation, Namespace, NodeId},
    record::{Cause, Contact, Gone, Join, Record},
    wire::v1::{self, member_event::Kind, membership_client::MembershipClient},
};
use dormouse_relay::{
    config::Config,
    log::{LogId, memory::Memory},
};
use tokio_stream::StreamExt as _;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

use crate::harness::{Outcome, Served};

/// More than twice the rows of ended members that are kept for those who have not heard of them.
const MASS: u64 = 20_000;
/// What a reader's transport takes before the reader does: far less than a message of a mass.
const WINDOW: u32 = 4_096;

async fn served() -> Result<Served, Box<dyn std::error::Error>> {
    let config = Config { queue_max: 1 << 16, ..Config::default() };
    Served::new(config, Arc::new(Memory::new(LogId(7)))).await
}

fn join(node: u64) -> Record {
    Record::Join(Join {
        namespace: Namespace::default(),
        node: NodeId(node),
        incarnation: Incarnation(1),
        previous: None,
        boot_id: BootId([1; 16]),
        group: if node.is_multiple_of(4) { "ads" } else { "mail" }.parse().expect("a group"),
        tags: [("zone".to_owned(), "a".to_owned())].into(),
        contact: Some(Contact { beat: Beat(1), asleep: true, lease_ms: 3_600_000, awake_ms: 0 }),
    })
}

fn end(node: u64) -> Record {
    Record::Gone(Gone {
        namespace: Namespace::default(),
        node: NodeId(node),
        incarnation: Incarnation(1),
        cause: Cause::Left,
        beat: Beat(1),
        reason: String::new(),
    })
}

/// Writes records, and waits until all of them are applied.
async fn write(served: &Served, records: impl Iterator<Item = Record>) -> Outcome {
    let mut answers = Vec::new();
    for record in records {
        answers.push(served.relay().sequencer.submit(record, 64, None)?);
    }
    for answer in answers {
        answer.await??;
    }
    Ok(())
}

/// A connection of its own that takes no more than its reader does.
async fn narrow(served: &Served) -> Result<MembershipClient<Channel>, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(served.url.clone())?;
    let endpoint = endpoint.initial_stream_window_size(WINDOW).initial_connection_window_size(1 << 20);
    Ok(MembershipClient::new(endpoint.connect().await?))
}

/// A reader, and whom it knows.
struct Reader {
    stream: Streaming<v1::WatchMembersResponse>,
    known: BTreeSet<String>,
    restarts: usize,
    /// The most events that a message had.
    most: usize,
    caught_up: bool,
}

impl Reader {
    /// Reads from a revision on, or everybody.
    async fn open(served: &Served, after_revision: Option<u64>, groups: &[&str]) -> Outcome<Self> {
        let groups = groups.iter().map(ToString::to_string).collect();
        let filter = Some(v1::MemberFilter { groups, ..Default::default() });
        let request = v1::WatchMembersRequest { after_revision, filter, ..Default::default() };
        let stream = narrow(served).await?.watch_members(request).await?.into_inner();
        Ok(Self { stream, known: BTreeSet::new(), restarts: 0, most: 0, caught_up: false })
    }

    /// Takes one message; nobody joins twice or ends without having been there.
    async fn read(&mut self) -> Outcome {
        let message = self.stream.next().await.ok_or("the stream ended")??;
        self.restarts += usize::from(message.restart);
        self.caught_up |= message.caught_up;
        self.most = self.most.max(message.events.len());
        for event in message.events {
            let (kind, member) = (event.kind(), event.member.ok_or("nobody")?);
            assert_eq!(member.tags.len(), 1, "{member:?}");
            match kind {
                Kind::Joined => assert!(self.known.insert(member.node_id), "told twice"),
                Kind::Ended => assert!(self.known.remove(&member.node_id), "not known"),
                other => panic!("{other:?}"),
            }
        }
        Ok(())
    }

    async fn read_until(&mut self, known: usize) -> Outcome {
        while self.known.len() != known || !self.caught_up {
            self.read().await?;
        }
        Ok(())
    }
}

fn head(served: &Served) -> u64 {
    served.relay().sequencer.read().fold.revision().0
}

fn rows(served: &Served) -> usize {
    let applied = served.relay().sequencer.read();
    applied.fold.namespace(&Namespace::default()).map_or(0, |view| view.roster_entries().count())
}

/// A mass ends while so many watch and none of them reads; answers how many changes were encoded.
async fn encoded_with(watchers: usize) -> Outcome<u64> {
    let served = served().await?;
    write(&served, (1..=MASS).map(join)).await?;
    let everybody: BTreeSet<String> = (1..=MASS).map(|node| NodeId(node).to_string()).collect();
    let mut readers = Vec::new();
    for _ in 0..watchers {
        let mut reader = Reader::open(&served, Some(head(&served)), &[]).await?;
        reader.read().await?;
        reader.known.clone_from(&everybody);
        readers.push(reader);
    }
    let mut filtered = Reader::open(&served, Some(head(&served)), &["ads"]).await?;
    filtered.read().await?;
    filtered.known = (4..=MASS).step_by(4).map(|node| NodeId(node).to_string()).collect();

    write(&served, (1..=MASS).map(end)).await?;
    assert!(2 * u64::try_from(rows(&served))? < MASS, "the rows cannot tell of all of them any more");
    for reader in readers.iter_mut().chain([&mut filtered]) {
        reader.read_until(0).await?;
        assert_eq!(reader.restarts, 0, "a live watcher is not told everybody anew");
        assert!(reader.most <= 1_000, "{} events in a message", reader.most);
    }
    Ok(served.relay().chronicle.written())
}

#[tokio::test]
async fn a_mass_of_ends_is_encoded_once_however_many_watch_and_restarts_none_of_them() -> Outcome {
    assert_eq!(encoded_with(1).await?, MASS);
    assert_eq!(encoded_with(8).await?, MASS);
    Ok(())
}

#[tokio::test]
async fn nothing_is_encoded_or_kept_for_watchers_while_nobody_watches() -> Outcome {
    let served = served().await?;
    write(&served, (1..=100).map(join)).await?;
    let mut reader = Reader::open(&served, None, &[]).await?;
    reader.read_until(100).await?;
    assert_eq!(served.relay().chronicle.written(), 0, "whom it was told of at first is its own");
    write(&served, (1..=10).map(end)).await?;
    reader.read_until(90).await?;
    assert_eq!(served.relay().chronicle.written(), 10);
    let free = served.relay().config.watchers_max;
    drop(reader);
    while served.relay().watchers.available_permits() < free {
        tokio::task::yield_now().await;
    }
    write(&served, (11..=50).map(end)).await?;
    let mut late = Reader::open(&served, None, &[]).await?;
    late.read_until(50).await?;
    assert_eq!(served.relay().chronicle.written(), 10);
    Ok(())
}

#[tokio::test]
async fn whoever_is_told_of_everybody_while_many_come_and_go_is_told_of_each_once() -> Outcome {
    let served = served().await?;
    write(&served, (1..=5_000).map(join)).await?;
    let mut reader = Reader::open(&served, None, &[]).await?;
    reader.read().await?;
    // Members of every stretch, told or not, end; others come.
    write(&served, (1..=5_000).step_by(2).map(end)).await?;
    write(&served, (5_001..=6_000).map(join)).await?;
    assert!(!reader.caught_up, "it is still told of everybody");
    reader.read_until(3_500).await?;
    let there = (2..=5_000).step_by(2).chain(5_001..=6_000).map(|node| NodeId(node).to_string());
    assert_eq!(reader.known, there.collect());
    assert!(reader.most <= 1_000, "{} events in a message", reader.most);
    assert_eq!(reader.restarts, 0);
    Ok(())
}
