//! Where a part of the stream ends, and each of its rows. Rows are nearly all of a snapshot: decoding all rows of a part
//! at once allocates their strings, moves them about and frees them again.

use prost::encoding::decode_varint;

use super::RestoreError;

/// Field numbers of `Part.rows` and `Rows.rows`.
const ROWS: u8 = 4;
const ROW: u8 = 1;

/// The next whole part, and its length with its prefix.
pub(super) fn split_part(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, RestoreError> {
    const LARGEST: usize = 1 << 28;
    let mut rest = bytes;
    let Ok(len) = decode_varint(&mut rest) else {
        return if bytes.len() < 10 { Ok(None) } else { Err(RestoreError::Damaged("a part of no length")) };
    };
    let too_long = RestoreError::Damaged("a part of impossible length");
    let len = usize::try_from(len).ok().filter(|it| *it <= LARGEST).ok_or(too_long)?;
    let prefix = bytes.len() - rest.len();
    Ok(rest.get(..len).map(|part| (part, prefix + len)))
}

/// The rows of a part that is nothing else.
pub(super) fn rows_of(part: &[u8]) -> Option<&[u8]> {
    split_field(part, ROWS).and_then(|(rows, rest)| rest.is_empty().then_some(rows))
}

/// The first of these rows, and those behind it.
pub(super) fn row_of(rows: &[u8]) -> Option<(&[u8], &[u8])> {
    split_field(rows, ROW)
}

/// The content of the field of bytes that stands first, if it has that number, and what follows it.
fn split_field(bytes: &[u8], number: u8) -> Option<(&[u8], &[u8])> {
    const LENGTH_DELIMITED: u8 = 2;
    let mut rest = bytes.strip_prefix(&[(number << 3) | LENGTH_DELIMITED])?;
    let len = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
    rest.split_at_checked(len)
}
