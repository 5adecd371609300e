//! Kill -9 at random moments: every frame that was acknowledged is there afterwards.
//!
//! The test starts its own binary as a child that appends and prints what was acknowledged. This shows what the
//! death of a process does; what a loss of power does to the disk below cannot be shown this way.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;

use super::{Embedded, Options};
use crate::log::{Appended, Log, Position, RecordId};

const CHILD: &str = "log::embedded::kill_tests::child_that_is_killed";
const DIR: &str = "DORMOUSE_KILL_TEST_DIR";
const SEED: &str = "DORMOUSE_KILL_TEST_SEED";
const ROUNDS: u64 = 15;

/// Several at once, of sizes between nothing and two pages, each derived from its number.
fn frame_of(number: u64) -> Bytes {
    let size = usize::try_from(number * 7_919 % 9_000).unwrap_or_default();
    let mut frame = number.to_le_bytes().to_vec();
    frame.extend((0..size).map(|at| u8::try_from((at as u64 + number) % 253).unwrap_or_default()));
    frame.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn child_that_is_killed() {
    // The test below starts it, as a process of its own; in the run of all tests it has nothing to do.
    let Ok(dir) = std::env::var(DIR) else { return };
    let log = Embedded::open(dir, Options::default()).expect("the log opens");
    let mut number = log.barrier().await.expect("a barrier").map_or(1, |tail| tail.0 + 1);
    loop {
        let group: Vec<_> = (0..=number % 7)
            .map(|more| log.append(RecordId { session: 1, counter: number + more }, frame_of(number + more)))
            .collect();
        for answer in group {
            assert_eq!(answer.await, Appended::Committed { position: Some(Position(number)) });
            println!("ack {number}");
            number += 1;
        }
        std::io::stdout().flush().expect("the parent listens");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9() {
    let seed = std::env::var(SEED).ok().and_then(|it| it.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("replay with {SEED}={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().expect("a directory");
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let delay = Duration::from_micros(random.u64(1_000..150_000));
        acknowledged = acknowledged.max(run_and_kill(dir.path(), delay));
        let stored = check(dir.path()).await;
        assert!(stored >= acknowledged, "round {round}: {acknowledged} acknowledged, {stored} stored");
    }
    println!("{acknowledged} frames acknowledged over {ROUNDS} kills");
    assert!(acknowledged > 100, "the child hardly ran");
}

/// Starts the child, kills it `delay` after its first acknowledgement, and says which was the last.
fn run_and_kill(dir: &Path, delay: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().expect("a test has an executable"))
        .args(["--exact", CHILD, "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    // The test harness speaks first.
    let first = lines.by_ref().map_while(Result::ok).find_map(|line| acknowledged(&line)).expect("one ack");
    let killer = std::thread::spawn(move || kill_after(child, delay));
    // A line that the kill has cut off is no acknowledgement that anyone has read: its number only is smaller.
    let last = lines.map_while(Result::ok).filter_map(|line| acknowledged(&line)).last();
    killer.join().expect("the killer did not panic");
    last.unwrap_or(first).max(first)
}

fn kill_after(mut child: Child, delay: Duration) {
    std::thread::sleep(delay);
    child.kill().expect("the child was alive");
    child.wait().expect("the child is gone");
}

fn acknowledged(line: &str) -> Option<u64> {
    line.rsplit_once("ack ")?.1.parse().ok()
}

/// Opens the log, reads all of it, and says how many frames there are.
async fn check(dir: &Path) -> u64 {
    let log = Embedded::open(dir, Options::default()).expect("the log opens after a kill");
    let mut reader = log.read(Position::FIRST);
    let mut count = 0;
    loop {
        let batch = reader.next_batch().await.expect("every frame is whole");
        for frame in batch.frames {
            count += 1;
            assert_eq!((frame.position.0, frame.record_id.counter), (count, count));
            assert!(frame.frame == frame_of(count), "frame {count} is not what was appended");
        }
        if batch.at_tail {
            return count;
        }
    }
}
