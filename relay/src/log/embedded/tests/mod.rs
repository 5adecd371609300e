//! What the contract does not ask: foreign and damaged files, full disks, failing disks, one relay a directory.

mod files;

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::{Embedded, Options};
use crate::log::{Appended, Health, Log, Position, RecordId, Rejection, SnapshotId, contract};

fn open(dir: &Path) -> Embedded {
    Embedded::open(dir, Options::default()).expect("the log opens")
}

fn id(counter: u64) -> RecordId {
    RecordId { session: 1, counter }
}

async fn append(log: &Embedded, counter: u64) -> Appended {
    log.append(id(counter), vec![0xa5; 1_000].into()).await
}

async fn append_all(log: &Embedded, counters: std::ops::RangeInclusive<u64>) {
    for counter in counters {
        assert!(matches!(append(log, counter).await, Appended::Committed { .. }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_log_keeps_the_contract() {
    let dirs = parking_lot::Mutex::new(Vec::new());
    contract::check_all(async || {
        let dir = tempfile::tempdir().expect("a directory");
        let log = open(dir.path());
        dirs.lock().push(dir);
        Arc::new(log) as Arc<dyn Log>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_without_recent_frames_in_memory() {
    let dirs = parking_lot::Mutex::new(Vec::new());
    contract::check_all(async || {
        let dir = tempfile::tempdir().expect("a directory");
        let options = Options { recent_bytes: 0, quick_repair: true, ..Options::default() };
        let log = Embedded::open(dir.path(), options).expect("the log opens");
        dirs.lock().push(dir);
        Arc::new(log) as Arc<dyn Log>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reopening_keeps_everything() {
    let dir = tempfile::tempdir().expect("a directory");
    let deep = dir.path().join("made/when/missing");
    contract::check_reopen(async || Arc::new(open(&deep)) as Arc<dyn Log>).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_rejects_appends_and_keeps_reading() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options { full_pause: Duration::ZERO, recent_bytes: 0, ..Options::default() };
    let log = Embedded::open(dir.path(), options).expect("the log opens");
    append_all(&log, 1..=10).await;
    log.shared.store.faults().disk_full.store(true, Ordering::Relaxed);
    assert_eq!(append(&log, 11).await, Appended::Rejected(Rejection::StoreFull));
    assert_eq!(log.health(), Health::StoreFull);
    assert!(log.read(Position(1)).next_batch().await.is_ok_and(|batch| batch.frames.len() == 10));
    // There is room again: the place of the rejected frame is free.
    assert_eq!(append(&log, 12).await, Appended::Committed { position: Some(Position(11)) });
    assert_eq!(log.health(), Health::Serving);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_at_its_bound_rejects_appends_until_truncation_makes_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options {
        full_pause: Duration::ZERO,
        recent_bytes: 0,
        max_file_bytes: Some(4 << 20),
        ..Options::default()
    };
    let log = Embedded::open(dir.path(), options).expect("the log opens");
    let frame = Bytes::from(vec![7; 60_000]);
    let mut stored = 0;
    while matches!(log.append(id(stored + 1), frame.clone()).await, Appended::Committed { .. }) {
        stored += 1;
    }
    assert!(stored > 10, "only {stored} frames fitted");
    let full = Appended::Rejected(Rejection::StoreFull);
    assert_eq!(log.append(id(stored + 1), frame.clone()).await, full, "it stays full");
    assert_eq!(log.health(), Health::StoreFull);
    assert_eq!(log.barrier().await, Ok(Some(Position(stored))), "what was rejected is not there");
    assert!(log.read(Position(1)).next_batch().await.is_ok(), "reading goes on");

    for position in [stored - 1, stored] {
        let frame = log.frame_at(Position(position)).await.expect("readable").expect("there");
        log.put_snapshot(SnapshotId::of(&frame), Box::new(std::iter::empty())).await.expect("stored");
    }
    assert_eq!(log.truncate(Position(stored - 1)).await, Ok(Position(stored - 1)));
    let again = log.append(id(stored + 1), frame.clone()).await;
    assert_eq!(again, Appended::Committed { position: Some(Position(stored + 1)) });
    assert_eq!(log.health(), Health::Serving);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_really_full_rejects_appends_until_there_is_room() {
    let Ok(disk) = std::env::var("DORMOUSE_SMALL_DISK") else {
        // Not through print!, which the harness keeps to itself when a test passes.
        let how = "mount -t tmpfs -o size=16m none DIR, then set DORMOUSE_SMALL_DISK=DIR";
        writeln!(std::io::stderr(), "SKIPPED: no small disk to fill; {how}").expect("stderr is open");
        return;
    };
    let dir = tempfile::tempdir_in(&disk).expect("a directory");
    let ballast = dir.path().join("ballast");
    std::fs::write(&ballast, vec![0; 2 << 20]).expect("written");
    let options = Options { full_pause: Duration::ZERO, recent_bytes: 0, ..Options::default() };
    let log = Embedded::open(dir.path().join("log"), options).expect("the log opens");
    let mut stored = 0;
    let last = loop {
        match log.append(id(stored + 1), vec![7; 30_000].into()).await {
            Appended::Committed { .. } => stored += 1,
            other => break other,
        }
    };
    assert_eq!(last, Appended::Rejected(Rejection::StoreFull), "after {stored} frames: {:?}", log.health());
    assert!(log.read(Position(1)).next_batch().await.is_ok(), "reading goes on");
    std::fs::remove_file(&ballast).expect("removed");
    assert_eq!(append(&log, stored + 1).await, Appended::Committed { position: Some(Position(stored + 1)) });
    drop(log);
    assert_eq!(open(&dir.path().join("log")).barrier().await, Ok(Some(Position(stored + 1))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_io_error_leaves_appends_unknown_and_refuses_more_until_reopened() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = open(dir.path());
    append_all(&log, 1..=3).await;
    log.shared.store.faults().writes_fail.store(true, Ordering::Relaxed);
    assert_eq!(append(&log, 4).await, Appended::Unknown);
    assert_eq!(append(&log, 5).await, Appended::Rejected(Rejection::Failed));
    assert!(matches!(log.health(), Health::Failed(why) if why.contains("injected")));
    assert!(log.read(Position(1)).next_batch().await.is_ok_and(|batch| batch.frames.len() == 3));
    drop(log);
    let log = open(dir.path());
    let tail = log.barrier().await.expect("a barrier").expect("not empty");
    assert!(tail == Position(3) || tail == Position(4), "an unknown append is there or not: {tail}");
    append_all(&log, 6..=6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_that_wait_together_share_a_commit() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = open(dir.path());
    let answers: Vec<_> =
        (1..=500).map(|counter| log.append(id(counter), Bytes::from_static(b"x"))).collect();
    for answer in answers {
        assert!(matches!(answer.await, Appended::Committed { .. }));
    }
    let stats = log.commit_stats();
    assert_eq!(stats.frames, 500);
    assert!(stats.commits < 100, "{} commits", stats.commits);
    let timed = log.syncs().map(|it| it.buckets().map(|(_, count)| count).sum::<u64>());
    assert_eq!(timed, Some(stats.commits));
    assert!(stats.mean() > Duration::ZERO && stats.last > Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_appends_than_may_be_in_flight_are_rejected() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options { appends_in_flight: 4, bytes_in_flight: 1 << 20, ..Options::default() };
    let log = Embedded::open(dir.path(), options).expect("the log opens");
    let flood: Vec<_> = (1..=1_000).map(|counter| log.append(id(counter), Bytes::new())).collect();
    let mut committed = 0;
    for answer in flood {
        match answer.await {
            Appended::Committed { .. } => committed += 1,
            answer => {
                assert_eq!(
                    answer,
                    Appended::Rejected(Rejection::TooManyInFlight { frames: 4, bytes: 1 << 20 })
                );
            }
        }
    }
    assert_eq!(log.barrier().await, Ok(Some(Position(committed))));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_commits_what_waits() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = open(dir.path());
    let answers: Vec<_> = (1..=100).map(|counter| log.append(id(counter), Bytes::new())).collect();
    log.close().await;
    for answer in answers {
        assert!(matches!(answer.await, Appended::Committed { .. }));
    }
    assert_eq!(open(dir.path()).barrier().await, Ok(Some(Position(100))), "others may open it now");
}
