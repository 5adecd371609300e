//! How much of the log lies behind its second-newest snapshot, against what the broker keeps.
//!
//! The broker drops the oldest segments by size alone and asks nobody. So an append is refused before what it adds
//! could push out a frame that the second-newest snapshot needs: of `retention` bytes, [`SPARE_SEGMENTS`] segments
//! are spared for what the broker rounds and for what other relays have on their way.

use super::envelope::HEADER_BYTES;

/// Segments that are left free: the broker drops whole ones, and counts its own index as well.
const SPARE_SEGMENTS: u64 = 4;
/// What the broker adds to a message: its properties, and the header of the chunk that it is stored in.
const ADDED_BYTES: u64 = 192;

/// What a frame of `len` bytes takes in the stream.
pub(super) fn size_of(len: usize) -> u64 {
    len as u64 + HEADER_BYTES as u64 + ADDED_BYTES
}

#[derive(Debug)]
pub(super) struct Room {
    limit: u64,
    /// Bytes that the log had taken, since it was made, up to the newest frame that this process knows of.
    bytes: u64,
    /// The offset up to which the frames of others are in `bytes`.
    counted: u64,
    /// `bytes` at the frame from which on everything has to be kept.
    floor: u64,
}

impl Room {
    /// `bytes` are those up to the frame at the offset `counted`.
    pub(super) fn new(retention: u64, segment: u64, bytes: u64, counted: u64) -> Self {
        Self { limit: retention.saturating_sub(SPARE_SEGMENTS * segment), bytes, counted, floor: 0 }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether another frame of `len` bytes pushes nothing out that is needed.
    pub(super) fn takes(&self, len: usize) -> bool {
        self.bytes.saturating_sub(self.floor) + size_of(len) <= self.limit
    }

    /// A frame of this process was acknowledged.
    pub(super) fn appended(&mut self, len: usize) {
        self.bytes += size_of(len);
    }

    /// A frame was read. Every reader reads it, and it counts once; own frames count when they are acknowledged.
    pub(super) fn read(&mut self, offset: u64, len: usize, is_own: bool) {
        if offset > self.counted {
            self.counted = offset;
            self.bytes += if is_own { 0 } else { size_of(len) };
        }
    }

    /// Nothing before the frame at which the log had `floor` bytes is needed any more.
    pub(super) fn release(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_stop_before_the_broker_drops_what_is_needed_and_go_on_when_less_is() {
        let (retention, segment) = (1 << 20, 1 << 14);
        let mut room = Room::new(retention, segment, 0, 0);
        let mut frames = 0;
        while room.takes(1_000) {
            room.appended(1_000);
            frames += 1;
        }
        assert!(room.bytes() <= retention - SPARE_SEGMENTS * segment, "{}", room.bytes());
        assert!(frames * size_of(1_000) > retention / 2, "most of it can be used: {frames} frames");
        room.release(size_of(1_000));
        assert!(room.takes(1_000) && !room.takes(3_000));
    }

    #[test]
    fn a_frame_counts_once_however_often_it_is_read() {
        let mut room = Room::new(1 << 20, 1 << 14, 500, 10);
        room.read(10, 100, false);
        assert_eq!(room.bytes(), 500, "it was there at the start");
        for _ in 0..3 {
            room.read(11, 100, false);
        }
        assert_eq!(room.bytes(), 500 + size_of(100));
        room.appended(100);
        room.read(12, 100, true);
        assert_eq!(room.bytes(), 500 + 2 * size_of(100));
    }
}
