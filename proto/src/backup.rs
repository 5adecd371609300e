//! The file that a backup is: the state at one revision, which can be checked without a relay.
//!
//! ```text
//! "dormouse-backup\n", 16 | format, 4 | length of the header, 4 | header | checksum of all before it, 8
//! each piece: length, 4 | checksum, 8 | bytes of the snapshot
//! end: zero, 4 | checksum, 8 | pieces, 8 | bytes, 8
//! ```
//!
//! Little-endian. The checksum of the header seeds those behind it, each with its place: a piece of another backup, or at
//! another place, is not taken for it. The header is a [`BackupHeader`], the bytes in the pieces are those of a snapshot, which
//! states its own format and its own hash.

use prost::Message as _;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub use crate::wire::log_v1::BackupHeader;

/// The format that this build writes, and the newest that it reads.
pub const BACKUP_FORMAT: u32 = 1;
/// Bytes of a piece at the most: with what stands before it, it fits 1 MiB.
pub const PIECE_BYTES: usize = (1 << 20) - ENTRY_BYTES;

const MAGIC: &[u8; 16] = b"dormouse-backup\n";
/// Magic, format and length of the header.
const FIRST_BYTES: usize = 16 + 4 + 4;
/// Nothing that this build or a later one says of a backup is longer.
const HEADER_MAX: usize = 64 << 10;
const CHECKSUM_BYTES: usize = 8;
/// Length and checksum.
const ENTRY_BYTES: usize = 4 + CHECKSUM_BYTES;
const END_BYTES: usize = 16;

/// A file is no backup, or no whole one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBackup {
    /// It does not begin like one.
    #[error("it is no backup of Dormouse")]
    Foreign,
    /// A newer release wrote it.
    #[error(
        "it is a backup of format {0}, and this release reads up to format {BACKUP_FORMAT}: a newer one wrote it"
    )]
    Format(u32),
    /// It ends before its end.
    #[error("it is cut short: {0} bytes are there, and its end is not among them")]
    Short(u64),
    /// Its header is not what was written.
    #[error("its header is damaged")]
    Header,
    /// A piece is not what was written.
    #[error("it is damaged: piece {piece}, which begins at byte {at}, does not match its checksum")]
    Piece {
        /// Counted from 1.
        piece: u64,
        /// Counted from 0.
        at: u64,
    },
    /// Pieces are missing, or there is something behind the last one.
    #[error("it is damaged: it has not as many pieces and bytes as it says")]
    Count,
}

/// Writes a backup, part after part, to be put one behind the other.
#[derive(Clone, Debug)]
pub struct Writer {
    seed: u64,
    pieces: u64,
    bytes: u64,
}

impl Writer {
    /// The writer, and the beginning of the file. The header names as many pieces and bytes as will follow.
    pub fn new(header: &BackupHeader) -> (Self, Vec<u8>) {
        let header = header.encode_to_vec();
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&BACKUP_FORMAT.to_le_bytes());
        out.extend_from_slice(&u32::try_from(header.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&header);
        let seed = xxh3_64(&out);
        out.extend_from_slice(&seed.to_le_bytes());
        (Self { seed, pieces: 0, bytes: 0 }, out)
    }

    /// The next piece, of at most [`PIECE_BYTES`] and not empty.
    pub fn piece(&mut self, piece: &[u8]) -> Vec<u8> {
        let entry = self.entry(piece.len(), piece);
        self.pieces += 1;
        self.bytes += piece.len() as u64;
        entry
    }

    /// The end of the file.
    pub fn end(self) -> Vec<u8> {
        self.entry(0, &end(self.pieces, self.bytes))
    }

    fn entry(&self, len: usize, content: &[u8]) -> Vec<u8> {
        let mut entry = Vec::with_capacity(ENTRY_BYTES + content.len());
        entry.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        entry.extend_from_slice(&checksum(self.seed, self.pieces, content).to_le_bytes());
        entry.extend_from_slice(content);
        entry
    }
}

fn checksum(seed: u64, place: u64, content: &[u8]) -> u64 {
    xxh3_64_with_seed(content, seed.wrapping_add(place))
}

fn end(pieces: u64, bytes: u64) -> [u8; END_BYTES] {
    let mut end = [0; END_BYTES];
    end[..8].copy_from_slice(&pieces.to_le_bytes());
    end[8..].copy_from_slice(&bytes.to_le_bytes());
    end
}

fn word<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|it| it.try_into().ok()).unwrap_or([0; N])
}

/// Reads a backup, whatever pieces it comes in, and gives out only what is known to be what was written. Holds one piece.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    header: Option<BackupHeader>,
    seed: u64,
    pending: Vec<u8>,
    /// Of the file, before `pending`.
    taken: u64,
    pieces: u64,
    bytes: u64,
    ended: bool,
}

impl Reader {
    /// Takes the next bytes of the file. `each` gets the bytes of the snapshot, in order.
    ///
    /// # Errors
    /// [`BadBackup`]; what was given out until then is no whole snapshot, and nothing can be made of the rest.
    pub fn take(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), BadBackup> {
        self.pending.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.pending);
        let mut rest = pending.as_slice();
        while let Some(taken) = self.step(rest, &mut each)? {
            self.taken += taken as u64;
            rest = &rest[taken..];
        }
        self.pending = rest.to_vec();
        Ok(())
    }

    /// What the backup says of itself, as soon as that has been read.
    pub fn header(&self) -> Option<&BackupHeader> {
        self.header.as_ref()
    }

    /// Bytes of the snapshot that were given out.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the backup says of itself, if it was whole.
    ///
    /// # Errors
    /// [`BadBackup`], if it was not.
    pub fn finish(self) -> Result<BackupHeader, BadBackup> {
        let is_foreign =
            self.header.is_none() && !MAGIC.starts_with(&self.pending[..self.pending.len().min(16)]);
        match self.header {
            Some(header) if self.ended => Ok(header),
            _ if is_foreign => Err(BadBackup::Foreign),
            _ => Err(BadBackup::Short(self.taken + self.pending.len() as u64)),
        }
    }

    /// Takes one entry off the front; `None`: it is not all there yet.
    fn step(&mut self, rest: &[u8], each: &mut impl FnMut(&[u8])) -> Result<Option<usize>, BadBackup> {
        match (&self.header, self.ended) {
            (None, _) => self.begin(rest),
            (Some(_), true) if rest.is_empty() => Ok(None),
            (Some(_), true) => Err(BadBackup::Count),
            (Some(_), false) => self.piece(rest, each),
        }
    }

    fn begin(&mut self, rest: &[u8]) -> Result<Option<usize>, BadBackup> {
        if rest.len() >= MAGIC.len() && !rest.starts_with(MAGIC) {
            return Err(BadBackup::Foreign);
        }
        if rest.len() < FIRST_BYTES {
            return Ok(None);
        }
        let format = u32::from_le_bytes(word(rest, 16));
        if format != BACKUP_FORMAT {
            return Err(BadBackup::Format(format));
        }
        let length = u32::from_le_bytes(word(rest, 20)) as usize;
        if length > HEADER_MAX {
            return Err(BadBackup::Header);
        }
        let checked = FIRST_BYTES + length;
        if rest.len() < checked + CHECKSUM_BYTES {
            return Ok(None);
        }
        self.seed = xxh3_64(&rest[..checked]);
        if self.seed != u64::from_le_bytes(word(rest, checked)) {
            return Err(BadBackup::Header);
        }
        let header = BackupHeader::decode(&rest[FIRST_BYTES..checked]).map_err(|_| BadBackup::Header)?;
        self.header = Some(header);
        Ok(Some(checked + CHECKSUM_BYTES))
    }

    fn piece(&mut self, rest: &[u8], each: &mut impl FnMut(&[u8])) -> Result<Option<usize>, BadBackup> {
        if rest.len() < ENTRY_BYTES {
            return Ok(None);
        }
        let length = u32::from_le_bytes(word(rest, 0)) as usize;
        let damaged = BadBackup::Piece { piece: self.pieces + 1, at: self.taken };
        if length > PIECE_BYTES {
            return Err(damaged);
        }
        let whole = ENTRY_BYTES + if length == 0 { END_BYTES } else { length };
        let Some(content) = rest.get(ENTRY_BYTES..whole) else { return Ok(None) };
        if checksum(self.seed, self.pieces, content) != u64::from_le_bytes(word(rest, 4)) {
            return Err(damaged);
        }
        if length == 0 {
            let says = self.header.as_ref().map(|it| (it.pieces, it.bytes));
            if content != end(self.pieces, self.bytes) || says != Some((self.pieces, self.bytes)) {
                return Err(BadBackup::Count);
            }
            self.ended = true;
        } else {
            each(content);
            self.pieces += 1;
            self.bytes += length as u64;
        }
        Ok(Some(whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> BackupHeader {
        BackupHeader { revision: 7, pieces: 2, bytes: 9, hash: vec![5; 16].into(), ..BackupHeader::default() }
    }

    fn file() -> Vec<u8> {
        let (mut writer, mut file) = Writer::new(&header());
        file.extend(writer.piece(b"first"));
        file.extend(writer.piece(b"last"));
        file.extend(writer.end());
        file
    }

    fn read(file: &[u8], by: usize) -> Result<(BackupHeader, Vec<u8>), BadBackup> {
        let (mut reader, mut content) = (Reader::default(), Vec::new());
        for some in file.chunks(by) {
            reader.take(some, |it| content.extend_from_slice(it))?;
        }
        reader.finish().map(|header| (header, content))
    }

    #[test]
    fn it_comes_back_however_it_is_cut_into_pieces() {
        for by in 1..file().len() {
            assert_eq!(read(&file(), by), Ok((header(), b"firstlast".to_vec())), "by {by}");
        }
    }

    #[test]
    fn no_bit_can_change_unseen() {
        for at in 0..file().len() {
            for bit in 0..8 {
                let mut flipped = file();
                flipped[at] ^= 1 << bit;
                assert!(read(&flipped, 64).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn what_is_cut_or_has_something_behind_it_is_refused() {
        for len in 0..file().len() {
            assert_eq!(read(&file()[..len], 7), Err(BadBackup::Short(len as u64)), "{len}");
        }
        assert_eq!(read(&[file(), vec![0]].concat(), 999), Err(BadBackup::Count));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |at: usize, byte: u8| {
            let mut file = file();
            file[at] = byte;
            read(&file, 10).expect_err("refused")
        };
        assert_eq!(with(0, b'D'), BadBackup::Foreign);
        assert_eq!(with(16, 2), BadBackup::Format(2));
        assert_eq!(with(30, 0xff), BadBackup::Header);
        let first = file().len() - (ENTRY_BYTES + END_BYTES) - (ENTRY_BYTES + 4) - (ENTRY_BYTES + 5);
        assert_eq!(with(first + ENTRY_BYTES, b'F'), BadBackup::Piece { piece: 1, at: first as u64 });
        assert_eq!(read(b"hello", 5), Err(BadBackup::Foreign));
        assert_eq!(read(b"", 5), Err(BadBackup::Short(0)));
    }

    #[test]
    fn pieces_that_are_missing_as_a_whole_are_missed() {
        let (mut writer, mut file) = Writer::new(&header());
        file.extend(writer.piece(b"first"));
        file.extend(writer.end());
        assert_eq!(read(&file, 999), Err(BadBackup::Count));
    }
}
