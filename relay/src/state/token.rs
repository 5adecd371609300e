//! What a reader has seen, in the opaque form that it keeps and sends back.
//!
//! Collections are named by their numbers, which are the log's and so alike on every relay. Neighbours in the same
//! place share a run, so a token has some dozens of bytes however many collections are followed.

use dormouse_proto::ids::{Namespace, Revision};
use prost::encoding::{decode_varint, encode_varint};
use xxhash_rust::xxh3::xxh3_64;

/// How far a reader is in one collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// It has seen every row that changed up to here.
    pub(super) cursor: Revision,
    /// In a first or fresh pull: the revision at which that began. Rows that were dead by then are skipped.
    pub(super) boot_start: Option<Revision>,
}

/// Some neighbouring collections in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: usize,
    pub(super) last: usize,
    pub(super) place: Place,
}

/// What a reader has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    log: u64,
    namespace: u64,
    /// The revision that the newest chunk was built at.
    pub(super) seen: Revision,
    /// How many collections there were; later ones hold nothing older than `seen`.
    pub(super) known: usize,
    /// The reader has every message to it up to here.
    pub(super) inbox: Revision,
    runs: Vec<Run>,
}

/// The bytes are no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenError;

const VERSION: u8 = 2;
/// More collections than a namespace can have by far; a bound for what is read.
const NUMBER_MAX: u64 = 1 << 24;

impl Token {
    /// The most bytes that a token has.
    pub const MAX_BYTES: usize = 1024;

    pub(super) fn new(log: u64, namespace: &Namespace, seen: Revision, known: usize) -> Self {
        Self { log, namespace: fingerprint(namespace), seen, known, inbox: Revision::ZERO, runs: Vec::new() }
    }

    /// Up to where the reader of that encoded token has its messages; `None`: it has none, or the token is not of this log.
    pub fn received(token: &[u8], log: u64, namespace: &Namespace) -> Option<Revision> {
        let token = Self::decode(token).ok()?;
        token.is_for(log, namespace).ok()?;
        (token.inbox > Revision::ZERO).then_some(token.inbox)
    }

    pub(super) fn is_for(&self, log: u64, namespace: &Namespace) -> Result<(), Mismatch> {
        if self.namespace != fingerprint(namespace) {
            return Err(Mismatch::Namespace);
        }
        if self.log == log { Ok(()) } else { Err(Mismatch::Log) }
    }

    /// Every revision that this token speaks of.
    pub(super) fn revisions(&self) -> impl Iterator<Item = Revision> {
        let places = self.runs.iter().flat_map(|run| [Some(run.place.cursor), run.place.boot_start]);
        places.flatten().chain([self.seen, self.inbox])
    }

    /// Notes the place in a collection; numbers rise.
    pub(super) fn push(&mut self, number: usize, place: Place) {
        match self.runs.last_mut() {
            Some(run) if run.last + 1 == number && run.place == place => run.last = number,
            _ => self.runs.push(Run { first: number, last: number, place }),
        }
    }

    /// The place in a collection; `None`: it was not followed.
    pub(super) fn place(&self, number: usize) -> Option<Place> {
        if number >= self.known {
            return Some(Place { cursor: self.seen, boot_start: None });
        }
        let after = self.runs.partition_point(|run| run.first <= number);
        let run = self.runs.get(after.checked_sub(1)?)?;
        (number <= run.last).then_some(run.place)
    }

    /// The opaque form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.log.to_le_bytes());
        out.extend_from_slice(&self.namespace.to_le_bytes());
        encode_varint(self.seen.0, &mut out);
        encode_varint(self.known as u64, &mut out);
        encode_varint(self.inbox.0, &mut out);
        let mut next = 0;
        for run in &self.runs {
            encode_varint((run.first - next) as u64, &mut out);
            encode_varint((run.last - run.first) as u64, &mut out);
            encode_varint(self.seen.0.saturating_sub(run.place.cursor.0), &mut out);
            encode_varint(
                run.place.boot_start.map_or(0, |it| self.seen.0.saturating_sub(it.0) + 1),
                &mut out,
            );
            next = run.last + 1;
        }
        out
    }

    /// Reads the opaque form.
    ///
    /// # Errors
    /// [`TokenError`] for bytes that [`Token::encode`] never wrote; they are nobody's fault but restart the pull.
    pub fn decode(bytes: &[u8]) -> Result<Self, TokenError> {
        let (head, mut rest) = bytes.split_at_checked(17).ok_or(TokenError)?;
        if head[0] != VERSION || bytes.len() > Self::MAX_BYTES {
            return Err(TokenError);
        }
        let word =
            |from: usize| head[from..from + 8].try_into().map(u64::from_le_bytes).map_err(|_| TokenError);
        let (log, namespace) = (word(1)?, word(9)?);
        let mut number = || decode_varint(&mut rest).map_err(|_| TokenError);
        let seen = number()?;
        let known = number()?;
        let inbox = Revision(number()?);
        if known > NUMBER_MAX {
            return Err(TokenError);
        }
        let known = index(known)?;
        let mut token = Self { log, namespace, seen: Revision(seen), known, inbox, runs: Vec::new() };
        token.read_runs(rest)?;
        Ok(token)
    }

    fn read_runs(&mut self, mut rest: &[u8]) -> Result<(), TokenError> {
        let mut next: u64 = 0;
        while !rest.is_empty() {
            let mut number = || decode_varint(&mut rest).map_err(|_| TokenError);
            let (skip, more, behind, boot) = (number()?, number()?, number()?, number()?);
            let first = next.checked_add(skip).filter(|it| *it <= NUMBER_MAX).ok_or(TokenError)?;
            let last = first.checked_add(more).filter(|it| *it < self.known as u64).ok_or(TokenError)?;
            let cursor = self.seen.0.checked_sub(behind).map(Revision).ok_or(TokenError)?;
            let boot_start = match boot.checked_sub(1) {
                None => None,
                Some(behind) => Some(self.seen.0.checked_sub(behind).map(Revision).ok_or(TokenError)?),
            };
            let place = Place { cursor, boot_start };
            self.runs.push(Run { first: index(first)?, last: index(last)?, place });
            next = last + 1;
        }
        Ok(())
    }
}

/// Whose token it is instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    Log,
    Namespace,
}

fn index(number: u64) -> Result<usize, TokenError> {
    usize::try_from(number).map_err(|_| TokenError)
}

fn fingerprint(namespace: &Namespace) -> u64 {
    xxh3_64(namespace.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_reads_back_as_it_was_written(
            seen in 1000..u64::MAX / 2, gaps in prop::collection::vec((1..9_usize, 0..1000_u64, prop::option::of(0..1000_u64)), 0..64),
        ) {
            let namespace = Namespace::default();
            let mut token = Token::new(7, &namespace, Revision(seen), 1 + gaps.iter().map(|gap| gap.0).sum::<usize>());
            let mut number = 0;
            for (gap, cursor, boot) in gaps {
                number += gap;
                token.push(number, Place { cursor: Revision(seen - cursor), boot_start: boot.map(|it| Revision(seen - it)) });
            }
            token.inbox = Revision(seen / 3);
            let bytes = token.encode();
            prop_assert!(bytes.len() <= Token::MAX_BYTES);
            prop_assert_eq!(Token::decode(&bytes), Ok(token));
        }

        #[test]
        fn arbitrary_bytes_are_no_token_or_a_harmless_one(bytes in prop::collection::vec(any::<u8>(), 0..200), version in any::<bool>()) {
            let mut bytes = bytes;
            if version && !bytes.is_empty() { bytes[0] = VERSION; }
            if let Ok(token) = Token::decode(&bytes) {
                prop_assert!(token.runs.windows(2).all(|pair| pair[0].last < pair[1].first));
            }
        }
    }

    #[test]
    fn a_collection_made_since_holds_nothing_older() {
        let mut token = Token::new(1, &Namespace::default(), Revision(50), 3);
        token.push(1, Place { cursor: Revision(40), boot_start: None });
        assert_eq!(token.place(1).map(|it| it.cursor), Some(Revision(40)));
        assert_eq!(token.place(2), None, "it was there and not followed");
        assert_eq!(token.place(3).map(|it| it.cursor), Some(Revision(50)));
    }
}
