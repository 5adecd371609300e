//! The whole state at one revision, copied while the relay goes on.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dormouse_proto::ids::Revision;
use tokio::time::Instant;
use tracing::info;

use super::{Sequencer, reader::pieces};
use crate::{
    log::{SnapshotBody, SnapshotId},
    state::{Fold, StateHash},
};

/// The state as it was at one revision.
#[derive(Clone, Debug)]
pub struct Copied {
    /// The last frame whose records are in it.
    pub last: SnapshotId,
    /// The revision.
    pub revision: Revision,
    /// The hash of the state.
    pub hash: StateHash,
    /// The snapshot, in pieces of about 1 MiB; one may have a few MiB.
    pub pieces: Vec<Bytes>,
    /// What is in it.
    pub counts: Counts,
}

/// How much there is in a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Namespaces that were ever written to.
    pub namespaces: u64,
    /// Live rows of all of them.
    pub rows: u64,
    /// Members of all of them.
    pub members: u64,
}

impl Counts {
    /// Of that state.
    pub fn of(fold: &Fold) -> Self {
        fold.namespaces().fold(Self::default(), |sum, (_, view)| Self {
            namespaces: sum.namespaces + 1,
            rows: sum.rows + view.rows(),
            members: sum.members + view.members().len() as u64,
        })
    }
}

/// The body of a snapshot that somebody waits for: tells every few seconds how much of it is stored.
pub(super) fn telling(pieces: Vec<Bytes>) -> SnapshotBody {
    const LINES: Duration = Duration::from_secs(5);
    let of: usize = pieces.iter().map(Bytes::len).sum();
    let (mut stored, mut told) = (0, Instant::now());
    Box::new(pieces.into_iter().map(move |piece| {
        if told.elapsed() >= LINES {
            told = Instant::now();
            info!("storing the state: {} %, {stored} of {of} bytes", stored * 100 / of.max(1));
        }
        stored += piece.len();
        Ok(piece)
    }))
}

impl Sequencer {
    /// A copy of the whole state, which takes as much memory as a snapshot has bytes. Nothing is applied while it is made;
    /// a snapshot and another copy wait, because each takes that memory. `None`: nothing was applied yet.
    pub async fn copy(&self) -> Option<Copied> {
        let _one = self.shared.snapshotting.lock().await;
        let shared = Arc::clone(&self.shared);
        let copied = tokio::task::spawn_blocking(move || {
            let applied = shared.applied.read();
            let fold = &applied.fold;
            let last = applied.last?;
            let (hash, pieces) = pieces(fold);
            Some(Copied { last, revision: fold.revision(), hash, pieces, counts: Counts::of(fold) })
        });
        copied.await.ok().flatten()
    }
}
