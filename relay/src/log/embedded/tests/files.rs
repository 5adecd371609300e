//! Foreign, damaged and unfinished files.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use redb::{Database, TableDefinition};

use super::{append_all, id, open};
use crate::log::embedded::{Embedded, OpenError, Options};
use crate::log::{Log, LogError, Position, ReadError, SnapshotId};

const FILE: &str = "dormouse.redb";

fn refused(dir: &Path) -> OpenError {
    Embedded::open(dir, Options::default()).err().expect("the log must not open")
}

/// The log refuses the file with a message that names the file, and leaves it as it is.
fn assert_left_alone(dir: &Path, is_expected: impl Fn(&OpenError) -> bool) {
    let path = dir.join(FILE);
    let before = fs::read(&path).expect("the file is there");
    let error = refused(dir);
    assert!(is_expected(&error), "{error:?}");
    assert!(error.to_string().contains(&*path.to_string_lossy()), "{error} must name the file");
    assert!(before == fs::read(&path).expect("the file is there"), "the file was touched");
}

#[test]
fn a_second_relay_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = open(dir.path());
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    drop(first);
    open(dir.path());
}

#[test]
fn a_file_of_random_bytes_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(100_000).collect();
    fs::write(dir.path().join(FILE), noise).expect("written");
    assert_left_alone(dir.path(), |error| matches!(error, OpenError::NotALog { .. }));
}

#[test]
fn an_empty_file_is_a_lost_log_and_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join(FILE), b"").expect("written");
    assert_left_alone(dir.path(), |error| matches!(error, OpenError::Damaged { .. }));
}

#[test]
fn a_crash_at_creation_leaves_nothing_in_the_way() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("dormouse.redb.unfinished"), b"half a database").expect("written");
    fs::write(dir.path().join("snapshot.unfinished"), b"half a snapshot").expect("written");
    drop(open(dir.path()));
    assert!(!dir.path().join("snapshot.unfinished").exists());
}

#[test]
fn a_database_of_another_program_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let database = Database::create(dir.path().join(FILE)).expect("created");
    let transaction = database.begin_write().expect("begun");
    let theirs: TableDefinition<&str, u64> = TableDefinition::new("theirs");
    transaction.open_table(theirs).expect("opened").insert("answer", 42).expect("inserted");
    transaction.commit().expect("committed");
    drop(database);
    assert_left_alone(dir.path(), |error| matches!(error, OpenError::NotALog { .. }));
}

#[test]
fn a_newer_format_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(dir.path()));
    let database = Database::open(dir.path().join(FILE)).expect("opened");
    let transaction = database.begin_write().expect("begun");
    let meta: TableDefinition<&str, u128> = TableDefinition::new("dormouse-log");
    transaction.open_table(meta).expect("opened").insert("format", 2).expect("inserted");
    transaction.commit().expect("committed");
    drop(database);
    assert_left_alone(dir.path(), |error| {
        matches!(error, OpenError::NewerFormat { found: 2, supported: 1, .. })
    });
}

#[test]
fn a_file_that_was_cut_short_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(dir.path()));
    let path = dir.path().join(FILE);
    let whole = fs::read(&path).expect("read");
    for kept in [8, 300, 5_000, whole.len() / 2] {
        fs::write(&path, &whole[..kept]).expect("written");
        assert_left_alone(dir.path(), |error| {
            matches!(error, OpenError::NotALog { .. } | OpenError::Damaged { .. })
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_a_frame_is_reported_with_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = open(dir.path());
    append_all(&log, 1..=2).await;
    let marked = Bytes::from_static(b"this very frame will be hit, the ones around it will not");
    log.append(id(3), marked.clone()).await;
    append_all(&log, 4..=5).await;
    drop(log);
    flip_a_byte(&dir.path().join(FILE), &marked);

    let log = open(dir.path());
    let read = log.read(Position(1)).next_batch().await;
    assert!(
        matches!(&read, Err(ReadError::Damaged { position: Position(3), .. })),
        "a damaged frame is never delivered: {read:?}"
    );
    assert!(matches!(log.frame_at(Position(3)).await, Err(LogError::Read(ReadError::Damaged { .. }))));
    assert!(log.read(Position(4)).next_batch().await.is_ok_and(|batch| batch.frames.len() == 2));
}

/// Flips a byte in every copy of `pattern`: the database may hold an older page with it, too.
fn flip_a_byte(path: &Path, pattern: &[u8]) {
    let mut bytes = fs::read(path).expect("read");
    let places: Vec<_> =
        (0..bytes.len() - pattern.len()).filter(|at| bytes[*at..].starts_with(pattern)).collect();
    assert!(!places.is_empty(), "the frame is in the file");
    for place in places {
        bytes[place + pattern.len() / 2] ^= 0x20;
    }
    fs::write(path, bytes).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_reported_and_the_older_one_is_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = open(dir.path());
    append_all(&log, 1..=2).await;
    let mut ids = Vec::new();
    for position in [1, 2] {
        let frame = log.frame_at(Position(position)).await.expect("readable").expect("there");
        ids.push(SnapshotId::of(&frame));
        let chunks = (0..3).map(|_| Ok(Bytes::from_static(b"all that the relay knows")));
        log.put_snapshot(SnapshotId::of(&frame), Box::new(chunks)).await.expect("stored");
    }
    let newest = fs::read_dir(dir.path()).expect("listed").filter_map(|entry| Some(entry.ok()?.path()));
    let newest = newest.filter(|path| path.to_string_lossy().contains("snapshot-")).max().expect("there");
    let whole = fs::read(&newest).expect("read");
    for damage in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[damage] ^= 1;
        fs::write(&newest, &damaged).expect("written");
        assert!(load(&log, ids[1]).await.is_err_and(|it| matches!(it, LogError::SnapshotDamaged { .. })));
        fs::write(&newest, &whole[..damage]).expect("written");
        assert!(load(&log, ids[1]).await.is_err_and(|it| matches!(it, LogError::SnapshotDamaged { .. })));
    }
    let newer = [b"dormouse-snap-02", &whole[16..]].concat();
    fs::write(&newest, newer).expect("written");
    let refused = load(&log, ids[1]).await.expect_err("a newer relay wrote it");
    assert!(refused.to_string().contains("it has format 02"), "{refused}");
    assert_eq!(load(&log, ids[0]).await, Ok(3 * 24));
}

async fn load(log: &Embedded, id: SnapshotId) -> Result<usize, LogError> {
    let mut reader = log.load_snapshot(id).await?;
    let mut bytes = 0;
    while let Some(chunk) = reader.next_chunk().await? {
        bytes += chunk.len();
    }
    Ok(bytes)
}
