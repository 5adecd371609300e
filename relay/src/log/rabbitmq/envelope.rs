//! What one message of the log's stream holds: a header with the log's incarnation, then the frame.
//!
//! ```text
//! "DMR1" | checksum of all that follows, 8 | incarnation, 16 | kind, 1
//!   origin: nothing more; the first record of a stream says which log it is
//!   frame:  process, 8 | channel, 8 | number, 8 | log bytes, 8 | session, 8 | counter, 8 | the frame
//! ```
//!
//! Little-endian. The checksum is ours because the broker does not check what it serves from its disk.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

use crate::log::{LogId, RecordId};

const MAGIC: &[u8; 4] = b"DMR1";
/// What every format of it begins with; the format follows.
const NAME: &[u8] = b"DMR";
const CHECKED_FROM: usize = 4 + 8;
const KIND_FROM: usize = CHECKED_FROM + 16;
const ORIGIN_BYTES: usize = KIND_FROM + 1;
/// Bytes before the frame.
pub(super) const HEADER_BYTES: usize = ORIGIN_BYTES + 6 * 8;
const ORIGIN: u8 = 0;
const FRAME: u8 = 1;

/// One channel of one process. What it publishes is stored in its order, without a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Writer {
    /// Drawn when a log is opened.
    pub(super) process: u64,
    /// Which of that process's channels.
    pub(super) channel: u64,
}

/// A message, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Which log this is. Every relay that finds an empty stream writes one; the first of them holds.
    Origin,
    Frame(Framed),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Framed {
    pub(super) writer: Writer,
    /// 1, 2, 3, ... of that writer.
    pub(super) number: u64,
    /// What the log had taken before this frame since it was made, in bytes, as far as its writer knew.
    pub(super) log_bytes: u64,
    pub(super) record_id: RecordId,
    pub(super) frame: Bytes,
}

/// A message and the log that it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) log_id: LogId,
    pub(super) content: Content,
}

pub(super) fn encode(message: &Message) -> Vec<u8> {
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES);
    bytes.put_slice(MAGIC);
    bytes.put_u64_le(0);
    bytes.put_u128_le(message.log_id.0);
    match &message.content {
        Content::Origin => bytes.put_u8(ORIGIN),
        Content::Frame(Framed { writer, number, log_bytes, record_id, frame }) => {
            bytes.reserve(HEADER_BYTES + frame.len());
            bytes.put_u8(FRAME);
            for word in
                [writer.process, writer.channel, *number, *log_bytes, record_id.session, record_id.counter]
            {
                bytes.put_u64_le(word);
            }
            bytes.put_slice(frame);
        }
    }
    let checksum = xxh3_64(&bytes[CHECKED_FROM..]);
    bytes[MAGIC.len()..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
    bytes.into()
}

/// The message, or what is wrong with it.
pub(super) fn decode(mut bytes: Bytes) -> Result<Message, &'static str> {
    if bytes.starts_with(NAME) && !bytes.starts_with(MAGIC) {
        return Err("it has another format than 1, which this release reads: a newer relay wrote it");
    }
    if bytes.len() < ORIGIN_BYTES || !bytes.starts_with(MAGIC) {
        return Err("it is no record of a Dormouse log");
    }
    let checksum = xxh3_64(&bytes[CHECKED_FROM..]);
    bytes.advance(MAGIC.len());
    if bytes.get_u64_le() != checksum {
        return Err("its checksum does not match");
    }
    let log_id = LogId(bytes.get_u128_le());
    let content = match bytes.get_u8() {
        ORIGIN if bytes.is_empty() => Content::Origin,
        FRAME if bytes.len() >= HEADER_BYTES - ORIGIN_BYTES => Content::Frame(Framed {
            writer: Writer { process: bytes.get_u64_le(), channel: bytes.get_u64_le() },
            number: bytes.get_u64_le(),
            log_bytes: bytes.get_u64_le(),
            record_id: RecordId { session: bytes.get_u64_le(), counter: bytes.get_u64_le() },
            frame: bytes,
        }),
        _ => return Err("it is a record of another version"),
    };
    Ok(Message { log_id, content })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId(0x0123_4567_89ab_cdef_1122_3344_5566_7788);

    #[test]
    fn a_frame_comes_back_and_no_byte_of_it_can_change_unseen() {
        let framed = Framed {
            writer: Writer { process: 3, channel: 4 },
            number: 5,
            log_bytes: 6,
            record_id: RecordId { session: 7, counter: u64::MAX },
            frame: Bytes::from_static(b"some records"),
        };
        for content in [Content::Frame(framed), Content::Origin] {
            let message = Message { log_id: LOG, content };
            let bytes = encode(&message);
            assert_eq!(decode(bytes.clone().into()), Ok(message));
            for at in 0..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[at] ^= 4;
                assert!(decode(flipped.into()).is_err(), "byte {at}");
            }
            assert!(decode(bytes[..bytes.len() - 1].to_vec().into()).is_err());
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_its_name() {
        let mut bytes = encode(&Message { log_id: LOG, content: Content::Origin });
        bytes[3] = b'2';
        let wrong = decode(bytes.into()).expect_err("it is newer");
        assert!(wrong.contains("another format than 1"), "{wrong}");
    }

    #[test]
    fn an_empty_frame_has_exactly_the_header() {
        let framed = Framed {
            writer: Writer { process: 1, channel: 1 },
            number: 1,
            log_bytes: 0,
            record_id: RecordId { session: 1, counter: 1 },
            frame: Bytes::new(),
        };
        let bytes = encode(&Message { log_id: LOG, content: Content::Frame(framed) });
        assert_eq!(bytes.len(), HEADER_BYTES);
    }
}
