//! Snapshots and what they permit to truncate.

use bytes::Bytes;

use super::{append_many, expected, id_of, next, read_frames};
use crate::log::{Log, LogError, Position, ReadError, SnapshotId};

pub(super) async fn a_snapshot_is_visible_only_when_it_is_whole(log: &dyn Log) {
    append_many(log, 1..=3).await;
    let id = SnapshotId::of(&expected(2));
    let chunks = [Ok(Bytes::from_static(b"half of it")), Err(std::io::Error::other("the state went away"))];
    let abandoned = log.put_snapshot(id, Box::new(chunks.into_iter())).await;
    assert!(matches!(abandoned, Err(LogError::SnapshotAbandoned(_))), "{abandoned:?}");
    assert_eq!(log.newest_snapshots().await, Ok(Vec::new()));
    assert!(matches!(body_of(log, id).await, Err(LogError::SnapshotNotFound(missing)) if missing == id));
    snapshot_at(log, 2).await;
    assert_eq!(body_of(log, id).await, Ok(body_for(2)));
    snapshot_at(log, 2).await;
    assert_eq!(log.newest_snapshots().await.expect("snapshots").len(), 1, "putting it again is harmless");
}

pub(super) async fn two_snapshots_are_kept_newest_first(log: &dyn Log) {
    append_many(log, 1..=9).await;
    for position in [2, 5, 7, 9] {
        snapshot_at(log, position).await;
    }
    let kept: Vec<_> = log.newest_snapshots().await.expect("snapshots").iter().map(|it| it.id).collect();
    assert_eq!(kept, [SnapshotId::of(&expected(9)), SnapshotId::of(&expected(7))]);
    for position in [9, 7] {
        let body = body_of(log, SnapshotId::of(&expected(position))).await;
        assert_eq!(body, Ok(body_for(position)), "both can be loaded");
    }
}

pub(super) async fn a_snapshot_of_a_frame_that_is_not_in_the_log_is_not_held(log: &dyn Log) {
    append_many(log, 1..=4).await;
    let id = SnapshotId::of(&expected(3));
    assert_eq!(log.holds(id).await, Ok(true));
    assert_eq!(log.holds(SnapshotId { record_id: id_of(99), ..id }).await, Ok(false));
    assert_eq!(log.holds(SnapshotId { crc: id.crc ^ 1, ..id }).await, Ok(false));
    assert_eq!(log.holds(SnapshotId { position: Position(44), ..id }).await, Ok(false));
}

pub(super) async fn truncation_needs_two_snapshots_that_are_held(log: &dyn Log) {
    append_many(log, 1..=9).await;
    let refused = |upto, limit: Option<u64>| {
        Err(LogError::TruncateRefused { upto: Position(upto), limit: limit.map(Position) })
    };
    assert_eq!(log.truncate(Position(2)).await, refused(2, None));
    snapshot_at(log, 4).await;
    assert_eq!(log.truncate(Position(2)).await, refused(2, None), "one snapshot may turn out to be damaged");
    // A snapshot of a lost tail is no fallback, however new it is.
    let lost = SnapshotId { record_id: id_of(99), ..SnapshotId::of(&expected(8)) };
    log.put_snapshot(lost, Box::new(std::iter::empty())).await.expect("stored");
    assert_eq!(log.truncate(Position(2)).await, refused(2, None));
    snapshot_at(log, 7).await;
    assert_eq!(log.truncate(Position(5)).await, refused(5, Some(4)));
    read_frames(log, 1, 9).await;
}

pub(super) async fn truncation_keeps_what_the_older_snapshot_needs(log: &dyn Log) {
    append_many(log, 1..=9).await;
    let older = snapshot_at(log, 6).await;
    snapshot_at(log, 9).await;
    let first = log.truncate(Position(6)).await.expect("truncation is granted");
    let info = log.info().await.expect("info");
    assert!(first <= Position(6), "frame 6 must stay, the log starts at {first}");
    assert_eq!((info.first, info.tail), (Some(first), Some(Position(9))));
    if info.exact_truncate {
        assert_eq!(first, Position(6));
        let truncated = next(&mut *log.read(Position(5))).await;
        assert_eq!(truncated, Err(ReadError::Truncated { first }), "never silently the next best frame");
        assert_eq!(log.frame_at(Position(5)).await, Ok(None));
    }
    assert_eq!(log.holds(older).await, Ok(true));
    assert_eq!(log.truncate(Position(3)).await, Ok(first), "what is gone already need not be dropped again");
    append_many(log, 10..=10).await;
    read_frames(log, 6, 5).await;
}

pub(super) fn body_for(position: u64) -> Vec<u8> {
    (0..3_000_000_u64).map(|at| u8::try_from((at / 7 + position) % 251).unwrap_or_default()).collect()
}

pub(super) async fn snapshot_at(log: &dyn Log, position: u64) -> SnapshotId {
    let id = SnapshotId::of(&expected(position));
    let body = Bytes::from(body_for(position));
    // One chunk that a log has to split, one that is empty, and the rest.
    let chunks = [body.slice(..2_500_000), Bytes::new(), body.slice(2_500_000..)];
    log.put_snapshot(id, Box::new(chunks.into_iter().map(Ok))).await.expect("a snapshot is stored");
    id
}

pub(super) async fn body_of(log: &dyn Log, id: SnapshotId) -> Result<Vec<u8>, LogError> {
    let mut reader = log.load_snapshot(id).await?;
    let mut body = Vec::new();
    while let Some(chunk) = reader.next_chunk().await? {
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
