//! What happened, line by line, for whoever must understand a seed.

use std::fmt::Write as _;

use dormouse::Report;
use dormouse_proto::wire::v1::{self, sync_response as response};

use crate::told;

/// Lines, or nothing at all when nobody reads them.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    text: Option<String>,
}

impl Trace {
    /// A trace that is kept.
    pub fn kept() -> Self {
        Self { text: Some(String::new()) }
    }

    /// Adds a line; it is made only if it is kept.
    pub fn say(&mut self, now: u64, line: impl FnOnce() -> String) {
        if let Some(text) = &mut self.text {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{now:>5} {}", line());
        }
    }

    /// Everything so far.
    pub fn into_text(self) -> String {
        self.text.unwrap_or_default()
    }
}

/// An answer, for traces.
pub(crate) fn tell(answer: &v1::SyncResponse, reports: &[Report]) -> String {
    let rows = |keys: &[v1::KeyState]| -> String {
        let told = told::told(keys).unwrap_or_default();
        told.iter().map(told::tell).collect::<Vec<_>>().join("; ")
    };
    let lease = answer.lease.as_ref().map(|it| (it.node_id.as_str(), it.incarnation, it.admission()));
    let push = match &answer.push_result {
        None => String::new(),
        Some(response::PushResult::Pushed(ack)) => {
            format!(", acknowledged {} as of {}: {}", ack.revision, ack.as_of, rows(&ack.keys))
        }
        Some(response::PushResult::PushRefused(it)) => format!(", refused {}", it.reason),
    };
    let pull = match &answer.pull_result {
        None => String::new(),
        Some(response::PullResult::PullRefused(it)) => format!(", no chunk: {}", it.reason),
        Some(response::PullResult::Chunk(it)) => format!(
            ", chunk as of {}, {} messages, {:?} {:?}, at the end of {:?}: {}",
            it.as_of,
            it.inbox.len(),
            it.restart(),
            it.restarted,
            it.caught_up_in,
            rows(&it.keys)
        ),
    };
    let settled = answer.settled.as_ref().map(|it| (it.push_no, it.revision, it.refused.as_str()));
    format!("   answer: {lease:?}, settled {settled:?}{push}{pull}, reports {reports:?}")
}
