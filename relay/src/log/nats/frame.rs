//! What one message of the stream holds: a header with the log's incarnation, then the frame.
//!
//! ```text
//! "DML1" | checksum of all that follows, 8 | incarnation, 16 | session, 8 | counter, 8 | the frame
//! ```
//!
//! Little-endian. The checksum is ours because a broker that found a bit flipped has been seen to serve the message.

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

use crate::log::{LogId, Position, ReadError, RecordId, StoredFrame};

const MAGIC: &[u8; 4] = b"DML1";
/// What every format of it begins with; the format follows.
const NAME: &[u8] = b"DML";
const CHECKED_FROM: usize = 4 + 8;
/// Bytes before the frame.
pub(super) const HEADER_BYTES: usize = CHECKED_FROM + 16 + 8 + 8;

pub(super) fn encode(log_id: LogId, record_id: RecordId, frame: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(HEADER_BYTES + frame.len());
    message.put_slice(MAGIC);
    message.put_u64_le(0);
    message.put_u128_le(log_id.0);
    message.put_u64_le(record_id.session);
    message.put_u64_le(record_id.counter);
    message.put_slice(frame);
    let checksum = xxh3_64(&message[CHECKED_FROM..]);
    message[MAGIC.len()..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
    message.freeze()
}

pub(super) fn decode(log_id: LogId, position: Position, message: &Bytes) -> Result<StoredFrame, ReadError> {
    let damaged = |detail: &str| ReadError::Damaged { position, detail: detail.to_owned() };
    if message.starts_with(NAME) && !message.starts_with(MAGIC) {
        let format = char::from(message.get(NAME.len()).copied().unwrap_or(b'?'));
        return Err(damaged(&format!(
            "it has format {format}, and this release reads format 1: a newer relay wrote it"
        )));
    }
    if message.len() < HEADER_BYTES || !message.starts_with(MAGIC) {
        return Err(damaged("it is no frame of a Dormouse log"));
    }
    let word = |from: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&message[from..from + 8]);
        u64::from_le_bytes(word)
    };
    if word(MAGIC.len()) != xxh3_64(&message[CHECKED_FROM..]) {
        return Err(damaged("its checksum does not match"));
    }
    let id = u128::from(word(CHECKED_FROM)) | (u128::from(word(CHECKED_FROM + 8)) << 64);
    if id != log_id.0 {
        return Err(damaged("it belongs to another incarnation of the log"));
    }
    let record_id = RecordId { session: word(CHECKED_FROM + 16), counter: word(CHECKED_FROM + 24) };
    Ok(StoredFrame { position, record_id, frame: message.slice(HEADER_BYTES..) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId(0x0123_4567_89ab_cdef_1122_3344_5566_7788);
    const RECORD: RecordId = RecordId { session: 7, counter: u64::MAX };

    #[test]
    fn a_frame_comes_back_and_no_byte_of_it_can_change_unseen() {
        let frame = Bytes::from_static(b"some records");
        let message = encode(LOG, RECORD, &frame);
        let stored = StoredFrame { position: Position(3), record_id: RECORD, frame };
        assert_eq!(decode(LOG, Position(3), &message), Ok(stored));
        for at in 0..message.len() {
            let mut flipped = message.to_vec();
            flipped[at] ^= 4;
            let read = decode(LOG, Position(3), &flipped.into());
            assert!(matches!(read, Err(ReadError::Damaged { position: Position(3), .. })), "byte {at}");
        }
        assert!(decode(LOG, Position(3), &message.slice(..HEADER_BYTES - 1)).is_err());
    }

    #[test]
    fn a_newer_format_is_refused_by_its_name() {
        let mut message = encode(LOG, RECORD, b"").to_vec();
        message[3] = b'2';
        let read = decode(LOG, Position(1), &message.into()).expect_err("it is newer");
        assert!(read.to_string().contains("it has format 2"), "{read}");
    }

    #[test]
    fn a_frame_of_another_incarnation_is_not_taken_for_ours() {
        let message = encode(LogId(5), RECORD, b"");
        let read = decode(LOG, Position(1), &message).expect_err("it is another log's");
        assert!(read.to_string().contains("another incarnation"), "{read}");
    }
}
