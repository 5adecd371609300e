//! The words of the log: what its operations take and return.

use std::fmt;

use bytes::Bytes;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

/// The place of a frame in the log: 1, 2, 3, ... without a gap, except for those that a broker uses itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// The place of the first frame ever appended to a log.
    pub const FIRST: Self = Self(1);

    /// The place right behind this one: where the next frame is, or before it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name that the writer of a frame gave it: its session, and a counter that it never uses twice in a session
/// except to retry the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// The session of the relay that wrote the frame.
    pub session: u64,
    /// The number of the frame within that session.
    pub counter: u64,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}/{}", self.session, self.counter)
    }
}

/// The random incarnation of a log. Every stored frame carries it, so that frames of a log that was deleted and
/// made anew, or restored from elsewhere, are not taken for its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId(pub u128);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogId({self})")
    }
}

/// What survives when `append` has answered `Committed`, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// The death of the process. A machine that loses power may lose the tail.
    PageCache,
    /// The loss of a minority of machines; the rest may hold the frame in the page cache only.
    Majority,
    /// Loss of power: the frame was on the disk before the answer.
    Fsync,
}

/// What a log is and what it can honestly promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogInfo {
    /// The random incarnation of this log.
    pub log_id: LogId,
    /// The oldest frame still held, `None` if there never was one.
    pub first: Option<Position>,
    /// The newest frame, `None` if there never was one.
    pub tail: Option<Position>,
    /// What `Committed` survives.
    pub durability: Durability,
    /// Whether `truncate` drops exactly what it was permitted to.
    pub exact_truncate: bool,
    /// Which implementation this is, in one word, for people.
    pub kind: &'static str,
    /// The largest frame that `append` takes, in bytes.
    pub max_frame_bytes: usize,
    /// How many appends may be unanswered at once.
    pub appends_in_flight: usize,
    /// The room that is left where the log is kept, in bytes, if that is this machine's to know.
    pub free_bytes: Option<u64>,
}

/// The answer to an append. [`crate::log::Log::append`] has the promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The frame is in the log.
    Committed {
        /// Its place, from a log that tells; on the others the writer learns it by reading its own frame back.
        position: Option<Position>,
    },
    /// The frame is not in the log and never will be.
    Rejected(Rejection),
    /// The frame may be in the log; retry it with the same id and bytes.
    Unknown,
}

/// Why an append was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Rejection {
    /// There is no room; reading goes on, and appends succeed again once there is.
    #[error("the log's store is full")]
    StoreFull,
    /// The frame can never be stored.
    #[error("the frame is larger than {limit} bytes")]
    TooLarge {
        /// The largest frame that this log takes, in bytes.
        limit: usize,
    },
    /// The caller did not wait for its earlier appends.
    #[error("too many appends wait for an answer: at most {frames} frames with {bytes} bytes may")]
    TooManyInFlight {
        /// How many appends may be unanswered.
        frames: usize,
        /// How many bytes they may hold.
        bytes: usize,
    },
    /// The log had an I/O error that leaves its state in doubt; it must be opened again.
    #[error("the log has failed and must be opened again")]
    Failed,
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

/// Whether a log takes appends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Serving,
    /// There is no room; reading goes on.
    StoreFull,
    /// It cannot be reached. That may pass by itself, and appends wait for it meanwhile; the text says why.
    Unreachable(String),
    /// It does not until it is opened again; the text says why. What was committed may still be readable.
    Failed(String),
    /// It was closed.
    Closed,
}

/// A frame as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFrame {
    /// Its place in the log.
    pub position: Position,
    /// The name its writer gave it.
    pub record_id: RecordId,
    /// What was appended, byte for byte.
    pub frame: Bytes,
}

/// Some consecutive frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The frames, in order, with no other frame between two of them.
    pub frames: Vec<StoredFrame>,
    /// Whether nothing lay behind them when they were read: the reader has caught up.
    pub at_tail: bool,
}

/// The checksum by which a snapshot names the bytes of the last frame that it covers.
pub fn frame_crc(frame: &[u8]) -> u64 {
    xxh3_64(frame)
}

/// A snapshot is named by the last frame that it covers, so that it can be told from one of a lost tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotId {
    /// Where that frame is.
    pub position: Position,
    /// Its record id.
    pub record_id: RecordId,
    /// [`frame_crc`] of its bytes.
    pub crc: u64,
}

impl SnapshotId {
    /// The name of a snapshot whose last covered frame is `frame`.
    pub fn of(frame: &StoredFrame) -> Self {
        Self { position: frame.position, record_id: frame.record_id, crc: frame_crc(&frame.frame) }
    }
}

/// A stored snapshot, without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// What it covers.
    pub id: SnapshotId,
    /// How much the log stores for it, in bytes.
    pub stored_bytes: u64,
}

/// Why a reader could not deliver.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The wanted frame was truncated; start from a snapshot.
    #[error("the frame was truncated, the log starts at {first}")]
    Truncated {
        /// The oldest frame still held.
        first: Position,
    },
    /// The log ends before the wanted frame: it has lost what the caller had seen.
    #[error("the log has lost frames: it ends at {}", .tail.map_or(0, |tail| tail.0))]
    Regressed {
        /// The newest frame, `None` if the log is empty.
        tail: Option<Position>,
    },
    /// Nothing arrives although the log is not at its end; make a new reader, then a new connection.
    #[error("the log does not deliver")]
    Stalled,
    /// What is stored at `position` is not what was appended there.
    #[error("the log is damaged at {position}: {detail}")]
    Damaged {
        /// Where.
        position: Position,
        /// What is wrong with it.
        detail: String,
    },
    /// The log cannot be read until it is opened again.
    #[error("the log cannot be read: {0}")]
    Failed(String),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

/// Why an operation other than appending and reading failed. None of them leaves half a result behind.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LogError {
    /// There is no room for it.
    #[error("the log's store is full")]
    StoreFull,
    /// Truncating so far would lose what the second-newest snapshot needs.
    #[error("truncating below {upto} refused: {}", match .limit {
        Some(limit) => format!("the second-newest snapshot is at {limit}"),
        None => "there are no two snapshots that the log still holds the frames of".to_owned(),
    })]
    TruncateRefused {
        /// What was asked for.
        upto: Position,
        /// What would have been granted, if anything.
        limit: Option<Position>,
    },
    /// No such snapshot is stored (any more).
    #[error("there is no snapshot at {}", .0.position)]
    SnapshotNotFound(SnapshotId),
    /// The stored snapshot is not what was put there; use the older one.
    #[error("the snapshot at {} is damaged: {detail}", .id.position)]
    SnapshotDamaged {
        /// Which.
        id: SnapshotId,
        /// What is wrong with it.
        detail: String,
    },
    /// The producer of the snapshot gave it up.
    #[error("the snapshot was given up by its producer: {0}")]
    SnapshotAbandoned(String),
    /// A frame on the way is not what was appended.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store failed or cannot be reached.
    #[error("the log failed: {0}")]
    Failed(String),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}
