//! What older releases have written still opens, and what this one writes in the same format is the same to the byte.
//!
//! Each folder below `tests/golden` is of one release; its README says how the files were made. A test that fails here says
//! that a format has changed: raise its version, keep reading the old one, and add a folder.
//! `DORMOUSE_REGENERATE=1 cargo test -p dormouse-tests --test operations golden` writes the folder of this release if there is
//! none; a folder that is there is never written again.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use dormouse::{Append, MemberFilter, Node, Relay as Client, Slept, Value, delta};
use dormouse_proto::{
    backup::{PIECE_BYTES, Writer},
    record::Frame,
    wire::log_v1,
};
use dormouse_relay::{
    config::Config,
    log::{
        Log, Position, SnapshotId,
        embedded::{Embedded, Options},
    },
    relay::Relay,
    restore,
    sequencer::Reading,
    state::{Fold, Restore},
};
use prost::Message as _;
use tempfile::TempDir;

use crate::{
    files::{read, take},
    harness::Served,
    relay::Outcome,
};

/// The folder of this release's formats.
const THIS: &str = "0.1";
/// The database of an embedded log, without its empty blocks.
const DATABASE: &str = "dormouse.redb.blocks";
const BACKUP: &str = "backup.dormouse";
const LISTING: &str = "listing.txt";
/// Of a database, in bytes.
const BLOCK: usize = 512;
/// All of them together.
const BYTES_MAX: u64 = 100_000;

fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// The releases whose files are kept.
fn releases() -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(place())? {
        let path = entry?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    assert!(found.contains(&place().join(THIS)), "every format has its files");
    Ok(found)
}

/// An almost empty file: its length, and every block that is not all zero behind its number.
fn pack(file: &[u8]) -> Vec<u8> {
    let mut packed = (file.len() as u64).to_le_bytes().to_vec();
    for (number, block) in (0_u32..).zip(file.chunks(BLOCK)) {
        if block.iter().any(|byte| *byte != 0) {
            packed.extend(number.to_le_bytes());
            packed.extend(block);
        }
    }
    packed
}

fn unpack(packed: &[u8]) -> Outcome<Vec<u8>> {
    let (length, blocks) = packed.split_at_checked(8).ok_or("no length")?;
    let mut file = vec![0; usize::try_from(u64::from_le_bytes(length.try_into()?))?];
    for entry in blocks.chunks(4 + BLOCK) {
        let (number, block) = entry.split_at_checked(4).ok_or("no number")?;
        let at = u32::from_le_bytes(number.try_into()?) as usize * BLOCK;
        file.get_mut(at..at + block.len()).ok_or("a block behind the end")?.copy_from_slice(block);
    }
    Ok(file)
}

/// The data folder of that release, as it was.
fn unpacked(release: &Path) -> Outcome<TempDir> {
    let dir = tempfile::tempdir()?;
    for entry in fs::read_dir(release)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("snapshot-") {
            fs::copy(entry.path(), dir.path().join(name))?;
        }
    }
    fs::write(dir.path().join("dormouse.redb"), unpack(&fs::read(release.join(DATABASE))?)?)?;
    Ok(dir)
}

fn open(dir: &Path) -> Outcome<Arc<dyn Log>> {
    Ok(Arc::new(Embedded::open(dir, Options { cache_bytes: 1 << 20, ..Options::default() })?))
}

/// The state of a snapshot and of the frames behind it; and how many those were.
async fn replayed(log: &dyn Log, snapshot: SnapshotId) -> Outcome<(Fold, u64)> {
    let (mut chunks, mut restore) = (log.load_snapshot(snapshot).await?, Restore::new());
    while let Some(chunk) = chunks.next_chunk().await? {
        restore.take(&chunk)?;
    }
    let (mut fold, mut frames) = (restore.finish()?, 0);
    let mut reader = log.read(snapshot.position.next());
    loop {
        let batch = reader.next_batch().await?;
        for stored in &batch.frames {
            fold.apply_frame(&Frame::decode(&stored.frame)?, |_, _, _, _| ());
            frames += 1;
        }
        if batch.at_tail {
            return Ok((fold, frames));
        }
    }
}

/// What callers see on a relay that starts there, and the hash of the state before it did.
async fn listing(log: Arc<dyn Log>) -> Outcome<String> {
    let newest = log.newest_snapshots().await?.first().ok_or("no snapshot")?.id;
    let mut text = format!("state {}\n", replayed(&*log, newest).await?.0.hash());
    let served = Served::new(Config::default(), log).await?;
    for namespace in ["default", "shop"] {
        let client = Client::builder().url(&served.url).namespace(namespace).build()?;
        for key in client.read(&["stock/*", "here/*"]).await?.keys {
            writeln!(text, "{namespace} {}/{} {:?}", key.collection, key.key, key.rows)?;
        }
        for member in client.members(&MemberFilter::default()).await? {
            let (id, incarnation, group) = (member.node_id, member.incarnation, member.group);
            writeln!(text, "{namespace} member {id} {incarnation} {group} {:?}", member.tags)?;
        }
    }
    served.stop().await;
    Ok(text)
}

/// A row of every type, a removed one of some, a member, a message, and names of writes.
async fn write_some(url: &str, round: i64) -> Outcome {
    let (path, text) = (|name: &str| format!("stock/{name}").parse(), |it: &str| Value::Text(it.to_owned()));
    for namespace in ["default", "shop"] {
        let client = Client::builder().url(url).namespace(namespace).build()?;
        let elements =
            || Ok::<_, Box<dyn std::error::Error>>([format!("e{round}").parse()?, "common".parse()?]);
        let append = Append { payload: text("\"sold\""), id: Some(format!("once-{round}").parse()?) };
        let deltas = vec![
            delta::counter_add(&path("sold")?, 40 + round),
            delta::set_add(&path("seen")?, elements()?),
            delta::register_set(&path("note")?, Some(text(&format!("\"round {round}\"")))),
            delta::flag_set(&path("open")?, true),
            delta::disable_wins_flag_set(&path("cheap")?, round == 0),
            delta::max_offer(&path("best")?, round),
            delta::min_offer(&path("worst")?, -round),
            delta::events_append(&path("log")?, [append]),
            delta::siblings_set(&path("draft")?, Some(text(&format!("\"draft {round}\"")))),
            delta::grow_only_set_add(&path("ever")?, elements()?),
            delta::remove_wins_set_add(&path("allowed")?, elements()?),
        ];
        client.write(Some(&format!("round-{round}")), deltas).await?;
        let removed = vec![
            delta::set_remove(&path("seen")?, ["common".parse()?]),
            delta::remove_wins_set_remove(&path("allowed")?, ["common".parse()?]),
            delta::register_set(&path("gone")?, None),
        ];
        client.write(Some(&format!("removed-{round}")), removed).await?;
    }
    let node = Node::builder().url(url).group("till").follow("here").build()?;
    let awake = node.wake(Duration::from_secs(60)).await;
    awake.presence("here/tills").hold_up(&format!("till {round}"))?;
    awake.counter("here/visits").add(1)?;
    assert!(!matches!(awake.sleep().await, Slept::Unsaved { .. }));
    let client = Client::builder().url(url).build()?;
    let member = client.members(&MemberFilter::default()).await?.pop().ok_or("no member")?;
    let options = dormouse::SendOptions { ttl: Some(Duration::from_secs(86_400)), ..Default::default() };
    client.send(&member.node_id, Some(&format!("m{round}")), text("\"hello\""), options).await?;
    Ok(())
}

async fn write_this_release() -> Outcome {
    let (dir, release) = (tempfile::tempdir()?, place().join(THIS));
    let mut backup = Vec::new();
    // Each end of a relay stores a snapshot; the frames behind the last but one stay.
    for round in 0..3 {
        let served = Served::new(Config::default(), open(dir.path())?).await?;
        write_some(&served.url, round).await?;
        backup = take(&Client::builder().url(&served.url).build()?).await?;
        served.stop().await;
    }
    fs::create_dir_all(&release)?;
    for entry in fs::read_dir(dir.path())? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("snapshot-") {
            fs::copy(entry.path(), release.join(name))?;
        }
    }
    fs::write(release.join(DATABASE), pack(&fs::read(dir.path().join("dormouse.redb"))?))?;
    fs::write(release.join(BACKUP), backup)?;
    let dir = unpacked(&release)?;
    fs::write(release.join(LISTING), listing(open(dir.path())?).await?)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_what_a_release_has_written_opens_as_what_it_was() -> Outcome {
    if std::env::var_os("DORMOUSE_REGENERATE").is_some() && !place().join(THIS).exists() {
        write_this_release().await?;
    }
    for release in releases()? {
        let dir = unpacked(&release)?;
        let (log, kept) = (open(dir.path())?, fs::read_to_string(release.join(LISTING))?);
        let snapshots = log.newest_snapshots().await?;
        assert_eq!(snapshots.len(), 2, "{}", release.display());
        let mut behind = 0;
        for snapshot in snapshots {
            let (fold, frames) = replayed(&*log, snapshot.id).await?;
            assert!(
                kept.starts_with(&format!("state {}\n", fold.hash())),
                "{}: {snapshot:?}",
                release.display()
            );
            behind += frames;
        }
        assert!(behind > 5, "the older snapshot has frames behind it");
        assert_eq!(listing(log).await?, kept, "{}", release.display());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_a_backup_of_a_release_begins_an_empty_log() -> Outcome {
    for release in releases()? {
        let (_, fold) = read(&fs::read(release.join(BACKUP))?)?;
        let checked = restore::check(&release.join(BACKUP)).await?;
        let dir = tempfile::tempdir()?;
        let log = open(dir.path())?;
        let restored = restore::restore(&checked, &*log).await?;
        assert_eq!(restored.counts, dormouse_relay::sequencer::Counts::of(&fold));
        assert!(restored.counts.rows > 20 && restored.counts.members > 0, "{restored:?}");
        // Rows and members are those of the folder, which was left right after the backup was taken.
        let (kept, now) = (fs::read_to_string(release.join(LISTING))?, listing(log).await?);
        let lines = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        let without_events = |text: &str| -> Vec<String> {
            lines(text).into_iter().filter(|line| !line.contains("stock/log")).collect()
        };
        assert_eq!(without_events(&now), without_events(&kept), "{}", release.display());
        assert_eq!(lines(&now).len(), lines(&kept).len(), "events are told under new revisions");
    }
    Ok(())
}

/// The first part of a snapshot says its format.
fn format_of(snapshot: &[u8]) -> Outcome<u32> {
    match log_v1::Part::decode_length_delimited(snapshot)?.kind {
        Some(log_v1::part::Kind::Begin(begin)) => Ok(begin.format),
        _ => Err("it does not begin with its format".into()),
    }
}

fn written(fold: &Fold) -> Vec<u8> {
    let mut bytes = Vec::new();
    fold.write_snapshot(|piece| bytes.extend_from_slice(piece));
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn golden_the_same_is_written_in_the_same_bytes_as_long_as_the_format_is_the_same() -> Outcome {
    let mut compared = 0;
    for release in releases()? {
        let dir = unpacked(&release)?;
        let log = open(dir.path())?;
        for snapshot in log.newest_snapshots().await? {
            let (mut chunks, mut bytes) = (log.load_snapshot(snapshot.id).await?, Vec::new());
            while let Some(chunk) = chunks.next_chunk().await? {
                bytes.extend_from_slice(&chunk);
            }
            let again = written(&Fold::restore([&bytes])?);
            if format_of(&bytes)? == format_of(&again)? {
                assert!(bytes == again, "{}: a snapshot changed, and its format did not", release.display());
                compared += 1;
            }
        }
        let first = log.info().await?.first.unwrap_or(Position::FIRST);
        let batch = log.read(first).next_batch().await?;
        for stored in batch.frames {
            let (frame, format) = (Frame::decode(&stored.frame)?, log_v1::Frame::decode(&stored.frame[..])?);
            let again = frame.encode();
            let now = log_v1::Frame::decode(&again[..])?;
            if format.header.map(|it| it.format) == now.header.map(|it| it.format) {
                assert_eq!(
                    Bytes::from(again),
                    stored.frame,
                    "position {}: its format did not change",
                    stored.position
                );
                compared += 1;
            }
        }
        compared += u64::from(backup_is_written_alike(&release)?);
    }
    assert!(compared > 8, "{compared}");
    Ok(())
}

fn backup_is_written_alike(release: &Path) -> Outcome<bool> {
    let file = fs::read(release.join(BACKUP))?;
    let (header, fold) = read(&file)?;
    let (mut writer, mut again) = Writer::new(&header);
    for piece in written(&fold).chunks(PIECE_BYTES) {
        again.extend(writer.piece(piece));
    }
    again.extend(writer.end());
    let same_format = again.get(16..20) == file.get(16..20);
    assert!(!same_format || again == file, "{}: a backup changed, and its format did not", release.display());
    Ok(same_format)
}

/// What a bar or a line is drawn of: the snapshot to its end, then each frame behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_tells_how_far_it_has_read() -> Outcome {
    let dir = unpacked(&place().join(THIS))?;
    let newest = open(dir.path())?.newest_snapshots().await?[0].id.position;
    let is_newest = |name: &str| name.starts_with(&format!("snapshot-{:020}-", newest.0));
    for entry in fs::read_dir(dir.path())? {
        let entry = entry?;
        if is_newest(&entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path())?;
        }
    }
    let (log, mut told) = (open(dir.path())?, Vec::new());
    let older = log.newest_snapshots().await?[0];
    let started = Relay::start_telling(Config::default(), log, &mut |it| told.push(it)).await?;
    started.stop().await;
    let Some(Reading::Snapshot { bytes, of }) = told.first() else { return Err("no snapshot".into()) };
    assert!(*bytes > 0 && bytes <= of && *of == older.stored_bytes, "{bytes} of {of}");
    let frames: Vec<Reading> = (older.id.position.0 + 1..=newest.0)
        .map(|at| Reading::Log { frames: at - older.id.position.0, at: Position(at), tail: Some(newest) })
        .collect();
    assert!(frames.len() > 5);
    assert_eq!(told[1..], frames, "each frame is told of");
    Ok(())
}

#[test]
fn golden_files_are_small() -> Outcome {
    let mut bytes = 0;
    for release in releases()? {
        for entry in fs::read_dir(release)? {
            bytes += entry?.metadata()?.len();
        }
    }
    assert!((1_000..BYTES_MAX).contains(&bytes), "{bytes} bytes");
    Ok(())
}
