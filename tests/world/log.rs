//! The simulated log: frames in order, each under a record id. It can lose its tail, and it can hold a frame twice.

use std::rc::Rc;

use dormouse_proto::record::Frame;
use dormouse_relay::log::RecordId;

/// One place of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The frame's name.
    pub id: RecordId,
    /// The frame, as it reads back from its stored bytes.
    pub frame: Rc<Frame>,
}

/// Frames in order. The position of a frame is its index plus one.
#[derive(Clone, Debug, Default)]
pub struct Log {
    entries: Vec<Entry>,
    kept: usize,
}

impl Log {
    /// How many frames there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The frames.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Stores a frame: it is encoded and read back, as in every real log.
    pub fn append(&mut self, frame: Frame) -> Entry {
        let id = RecordId { session: frame.header.session, counter: frame.header.counter };
        let frame = Frame::decode(&frame.encode()).expect("a frame that was encoded decodes");
        let entry = Entry { id, frame: Rc::new(frame) };
        self.entries.push(entry.clone());
        entry
    }

    /// A retry whose first try had arrived: the same frame again.
    pub fn append_copy(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// No loss takes what is there by now: it holds the policy, without which nothing would be collected.
    pub fn keep(&mut self) {
        self.kept = self.entries.len();
    }

    /// Loses some frames at the end; returns how many.
    pub fn lose_tail(&mut self, frames: usize) -> usize {
        let left = self.entries.len().saturating_sub(frames).max(self.kept);
        let lost = self.entries.len() - left;
        self.entries.truncate(left);
        lost
    }
}
