//! What every log promises, as one suite of checks. A log that passes may carry a relay.
//!
//! Each check gets an empty log of its own and panics with the promise that was broken. Logs differ in what they
//! *can* promise (`exact_truncate`, `appends_in_flight`, a position in the answer); the checks ask `info` for that
//! and hold each log to its own word.

mod snapshots;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::faults::{AppendFault, Faulty};
use super::{Appended, Health, Log, LogReader, Position, ReadError, RecordId, Rejection, StoredFrame};

use snapshots::{body_for, body_of, snapshot_at};

/// A log that has not answered by then does not answer. Generous, because a broker may be electing a leader.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a reader is watched to see that it waits.
const A_MOMENT: Duration = Duration::from_millis(50);

/// Runs every check, each on an empty log that `make` opens for it.
///
/// # Panics
/// When a promise is broken.
pub async fn check_all(make: impl AsyncFn() -> Arc<dyn Log>) {
    an_empty_log_says_that_its_reader_is_at_the_tail(&*make().await).await;
    frames_come_back_in_order_and_without_a_gap(&*make().await).await;
    concurrent_appends_keep_the_order_of_their_calls(&*make().await).await;
    a_reader_at_the_tail_wakes_when_a_frame_is_appended(make().await).await;
    a_read_that_was_dropped_loses_nothing(&*make().await).await;
    reading_behind_the_tail_is_a_regression(&*make().await).await;
    a_barrier_covers_what_was_committed(&*make().await).await;
    a_frame_that_is_too_large_is_rejected_with_the_limit(&*make().await).await;
    a_retry_after_a_lost_answer_has_the_same_record_id(make().await).await;
    snapshots::a_snapshot_is_visible_only_when_it_is_whole(&*make().await).await;
    snapshots::two_snapshots_are_kept_newest_first(&*make().await).await;
    snapshots::a_snapshot_of_a_frame_that_is_not_in_the_log_is_not_held(&*make().await).await;
    snapshots::truncation_needs_two_snapshots_that_are_held(&*make().await).await;
    snapshots::truncation_keeps_what_the_older_snapshot_needs(&*make().await).await;
    a_closed_log_refuses(&*make().await).await;
}

/// Checks that a log keeps everything while it is closed: `open` is called several times and must open the same,
/// at first empty, log.
///
/// # Panics
/// When a promise is broken.
pub async fn check_reopen(open: impl AsyncFn() -> Arc<dyn Log>) {
    let log = open().await;
    let log_id = log.info().await.expect("info").log_id;
    append_many(&*log, 1..=20).await;
    let (older, newer) = (snapshot_at(&*log, 5).await, snapshot_at(&*log, 9).await);
    log.truncate(Position(4)).await.expect("truncation is granted");
    let first = log.info().await.expect("info").first;
    log.close().await;
    drop(log);

    let log = open().await;
    let info = log.info().await.expect("info");
    assert_eq!(info.log_id, log_id, "a log that is opened again is the same log");
    assert_eq!(info.first, first, "truncation is remembered");
    append_many(&*log, 21..=30).await;
    let frames = read_frames(&*log, 5, 26).await;
    assert_eq!(frames.last(), Some(&expected(30)), "new frames come behind the old ones");
    let ids: Vec<_> = log.newest_snapshots().await.expect("snapshots").iter().map(|it| it.id).collect();
    assert_eq!(ids, [newer, older], "snapshots are remembered");
    assert_eq!(body_of(&*log, newer).await.expect("it is whole"), body_for(9));
    log.close().await;
}

async fn an_empty_log_says_that_its_reader_is_at_the_tail(log: &dyn Log) {
    let info = log.info().await.expect("info");
    assert_eq!((info.first, info.tail), (None, None), "the log must be empty to begin with");
    let mut reader = log.read(Position::FIRST);
    let batch = next(&mut *reader).await.expect("an empty log can be read");
    assert!(batch.at_tail && batch.frames.is_empty(), "a starting relay must learn that replay is done");
    assert!(timeout(A_MOMENT, reader.next_batch()).await.is_err(), "then the reader waits");
    assert_eq!(log.barrier().await, Ok(None));
}

async fn frames_come_back_in_order_and_without_a_gap(log: &dyn Log) {
    append_many(log, 1..=300).await;
    read_frames(log, 1, 300).await;
    read_frames(log, 123, 178).await;
    let empty = RecordId { session: 7, counter: 301 };
    assert_committed(log.append(empty, Bytes::new()).await, 301);
    let stored = StoredFrame { position: Position(301), record_id: empty, frame: Bytes::new() };
    assert_eq!(log.frame_at(Position(301)).await, Ok(Some(stored)), "an empty frame is a frame");
    assert_eq!(log.frame_at(Position(302)).await, Ok(None));
}

async fn concurrent_appends_keep_the_order_of_their_calls(log: &dyn Log) {
    let in_flight = log.info().await.expect("info").appends_in_flight.min(64) as u64;
    for round in 0..4 {
        let numbers = round * in_flight + 1..=(round + 1) * in_flight;
        // Awaited last to first, so that only the calls can have made the order.
        let answers: Vec<_> = numbers.clone().map(|n| (n, log.append(id_of(n), frame_of(n)))).collect();
        for (number, answer) in answers.into_iter().rev() {
            assert_committed(answer.await, number);
        }
    }
    read_frames(log, 1, 4 * in_flight).await;
}

async fn a_reader_at_the_tail_wakes_when_a_frame_is_appended(log: Arc<dyn Log>) {
    append_many(&*log, 1..=3).await;
    let mut reader = log.read(Position(1));
    while !next(&mut *reader).await.expect("frames").at_tail {}
    let waiting = tokio::spawn(async move { next(&mut *reader).await });
    tokio::time::sleep(A_MOMENT).await;
    assert!(!waiting.is_finished(), "a reader at the tail waits");
    append_many(&*log, 4..=4).await;
    let batch = waiting.await.expect("the reader did not panic").expect("a frame");
    assert_eq!(batch.frames, [expected(4)]);
}

async fn a_read_that_was_dropped_loses_nothing(log: &dyn Log) {
    append_many(log, 1..=2).await;
    let mut reader = log.read(Position(1));
    let mut seen = Vec::new();
    for number in 3..=40 {
        // Dropped at whatever point it has reached; what it returned counts, what it had not is still to come.
        if let Ok(batch) = timeout(Duration::from_micros(number * 20), reader.next_batch()).await {
            seen.extend(batch.expect("frames").frames);
        }
        append_many(log, number..=number).await;
    }
    while seen.len() < 40 {
        seen.extend(next(&mut *reader).await.expect("frames").frames);
    }
    assert_eq!(seen, (1..=40).map(expected).collect::<Vec<_>>());
}

async fn reading_behind_the_tail_is_a_regression(log: &dyn Log) {
    append_many(log, 1..=2).await;
    let regressed = next(&mut *log.read(Position(4))).await;
    assert_eq!(regressed, Err(ReadError::Regressed { tail: Some(Position(2)) }), "frame 3 was never there");
    let batch = next(&mut *log.read(Position(3))).await.expect("right behind the tail one can wait");
    assert!(batch.at_tail && batch.frames.is_empty());
}

async fn a_barrier_covers_what_was_committed(log: &dyn Log) {
    append_many(log, 1..=5).await;
    let tail = log.barrier().await.expect("a barrier");
    assert!(tail >= Some(Position(5)), "five frames were committed, the barrier is at {tail:?}");
}

async fn a_frame_that_is_too_large_is_rejected_with_the_limit(log: &dyn Log) {
    let limit = log.info().await.expect("info").max_frame_bytes;
    let too_large = log.append(id_of(1), vec![1; limit + 1].into()).await;
    assert_eq!(too_large, Appended::Rejected(Rejection::TooLarge { limit }));
    let largest = Bytes::from(vec![2; limit]);
    assert_committed(log.append(id_of(1), largest.clone()).await, 1);
    let stored = log.frame_at(Position(1)).await.expect("readable").expect("stored");
    assert!(stored.frame == largest, "a frame of exactly the limit is stored, and the refused one is not");
}

async fn a_retry_after_a_lost_answer_has_the_same_record_id(log: Arc<dyn Log>) {
    let faulty = Faulty::by_hand(Arc::clone(&log));
    for fault in [AppendFault::Drop, AppendFault::LoseAnswer] {
        faulty.fail_next(fault);
        assert_eq!(faulty.append(id_of(1), frame_of(1)).await, Appended::Unknown);
    }
    let retried = faulty.append(id_of(1), frame_of(1)).await;
    assert!(matches!(retried, Appended::Committed { .. }), "{retried:?}");
    append_until_committed(&faulty, 2).await;
    let mut copies = 0;
    for frame in read_through(&*log, id_of(2)).await {
        assert_eq!((frame.record_id, frame.frame), (id_of(1), frame_of(1)), "only copies come before 2");
        copies += 1;
    }
    assert!((1..=2).contains(&copies), "stored once (a log may deduplicate) or twice, not {copies} times");
}

async fn a_closed_log_refuses(log: &dyn Log) {
    append_many(log, 1..=2).await;
    log.close().await;
    log.close().await;
    assert_eq!(log.append(id_of(3), frame_of(3)).await, Appended::Rejected(Rejection::Closed));
    assert_eq!(next(&mut *log.read(Position(1))).await, Err(ReadError::Closed));
    assert_eq!(log.health(), Health::Closed);
}

fn id_of(number: u64) -> RecordId {
    RecordId { session: 7, counter: number }
}

/// Frames of different sizes, told apart by their first bytes.
fn frame_of(number: u64) -> Bytes {
    let mut frame = number.to_le_bytes().to_vec();
    let size = usize::try_from(number * 37 % 700).unwrap_or_default();
    frame.resize(8 + size, 0xd0);
    frame.into()
}

fn expected(number: u64) -> StoredFrame {
    StoredFrame { position: Position(number), record_id: id_of(number), frame: frame_of(number) }
}

fn assert_committed(answer: Appended, number: u64) {
    match answer {
        Appended::Committed { position } => {
            assert!(position.is_none_or(|it| it.0 == number), "{position:?} is not {number}");
        }
        other => panic!("append {number} was not committed: {other:?}"),
    }
}

async fn append_many(log: &dyn Log, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let answer = timeout(PATIENCE, log.append(id_of(number), frame_of(number))).await;
        assert_committed(answer.expect("an append is answered"), number);
    }
}

async fn append_until_committed(log: &dyn Log, number: u64) {
    let answer = log.append(id_of(number), frame_of(number)).await;
    assert!(matches!(answer, Appended::Committed { .. }), "{answer:?}");
}

async fn next(reader: &mut dyn LogReader) -> Result<super::Batch, ReadError> {
    timeout(PATIENCE, reader.next_batch()).await.unwrap_or(Err(ReadError::Stalled))
}

/// Reads `count` frames from `from` on, which must be those that `append_many` has put there.
async fn read_frames(log: &dyn Log, from: u64, count: u64) -> Vec<StoredFrame> {
    let mut reader = log.read(Position(from));
    let mut frames = Vec::new();
    let mut at_tail = false;
    while (frames.len() as u64) < count {
        assert!(!at_tail, "the tail was reached after {} of {count} frames", frames.len());
        let batch = next(&mut *reader).await.expect("frames");
        at_tail = batch.at_tail;
        frames.extend(batch.frames);
    }
    assert!(at_tail, "the last batch reached the tail and said so");
    assert_eq!(frames, (from..from + count).map(expected).collect::<Vec<_>>());
    frames
}

/// The frames before the one that is called `last`.
async fn read_through(log: &dyn Log, last: RecordId) -> Vec<StoredFrame> {
    let mut reader = log.read(Position::FIRST);
    let mut frames: Vec<StoredFrame> = Vec::new();
    loop {
        for frame in next(&mut *reader).await.expect("frames").frames {
            if frame.record_id == last {
                return frames;
            }
            frames.push(frame);
        }
    }
}
