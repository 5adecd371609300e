//! The names of things, checked when they are made: whoever holds a [`Key`] holds a valid one.
//!
//! Bounds are those of the contract. Numbers that mean different things are different types, so a push number
//! cannot stand where a revision is asked for.

use std::{fmt, str::FromStr};

/// What was wrong with a name, and what the limit is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidName {
    what: &'static str,
    rule: &'static str,
}

impl InvalidName {
    const fn new(what: &'static str, rule: &'static str) -> Self {
        Self { what, rule }
    }
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be {}", self.what, self.rule)
    }
}

impl std::error::Error for InvalidName {}

fn all_bytes(text: &str, longest: usize, allowed: impl Fn(u8) -> bool) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(allowed)
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) { Ok(Self(text)) } else { Err(InvalidName::new($what, $rule)) }
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::try_from(text.to_owned())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// One application: its members and its state; the unit of access and of quota.
    Namespace,
    "a namespace",
    "1-64 bytes of [a-z0-9._-]",
    |text| all_bytes(text, 64, |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
);

name!(
    /// A named set of keys, the unit of interest. Those of the relay begin with `@` and are never written by a client.
    Collection,
    "a collection",
    "1-64 bytes of [a-z0-9._-]; names that begin with '@' belong to the relay",
    |text| all_bytes(text, 64, |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
);

name!(
    /// A key of a collection. `/` is an ordinary character in it.
    Key,
    "a key",
    "1-512 bytes of UTF-8 without control characters",
    |text| (1..=512).contains(&text.len()) && !text.chars().any(char::is_control)
);

name!(
    /// What a node runs: the function's name without its version. Wake gaps are learned per group.
    Group,
    "a group",
    "1-64 bytes of [A-Za-z0-9._-]",
    |text| all_bytes(text, 64, |b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
);

name!(
    /// An element of a set. Two elements are equal if and only if their bytes are.
    Element,
    "an element",
    "at most 1 KiB of UTF-8",
    |text| text.len() <= 1024
);

name!(
    /// Names one effect, whoever repeats it: `CounterDelta.once.id`, `WriteRequest.request_id`.
    OnceId,
    "an idempotency id",
    "1-64 bytes of UTF-8",
    |text| (1..=64).contains(&text.len())
);

impl Default for Namespace {
    /// The namespace of a deployment without tokens.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$name> for u64 {
            fn from(number: $name) -> u64 {
                number.0
            }
        }
    };
}

number!(
    /// Ordinal of a record in the log, void ones included; 0 is "before everything". An Open record jumps it.
    Revision
);
number!(
    /// Rises each time a node is re-admitted; 0 before the first join.
    Incarnation
);
number!(
    /// Number of a node's push; rises over its whole life, with one push in flight until it is settled.
    PushNo
);
number!(
    /// Drawn when a push is sealed: the same number with another id is a clone's.
    PushId
);
number!(
    /// Of a client, raised at every transmission: contact order is not log order.
    Beat
);
number!(
    /// Drawn for every call: the same beat with another call id is a clone's.
    CallId
);

impl Revision {
    /// Before the first record.
    pub const ZERO: Self = Self(0);

    /// The revision after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Incarnation {
    /// The incarnation after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Drawn at a process's first wake, so after any snapshot of it was restored. Makes joining idempotent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(pub [u8; 16]);

/// One function instance. The relay gives it at the first wake; it stays over freeze, thaw and re-admission.
///
/// As text it is 13 characters of the alphabet `0-9a-z` without `i`, `l`, `o` and `u`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

const NODE_ID_ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const NODE_ID_LEN: usize = 13;

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [b'0'; NODE_ID_LEN];
        let mut rest = self.0;
        for digit in text.iter_mut().rev() {
            *digit = NODE_ID_ALPHABET[(rest & 31) as usize];
            rest >>= 5;
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for NodeId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = InvalidName::new("a node_id", "the 13 characters that a Lease named");
        if text.len() != NODE_ID_LEN {
            return Err(invalid);
        }
        let mut number: u64 = 0;
        for (place, byte) in text.bytes().enumerate() {
            let digit = NODE_ID_ALPHABET.iter().position(|&b| b == byte).ok_or_else(|| invalid.clone())?;
            // 13 digits of 5 bits hold 65 bits: the first one may only be 0-15.
            if place == 0 && digit > 15 {
                return Err(invalid);
            }
            number = (number << 5) | digit as u64;
        }
        Ok(Self(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_reads_back_as_it_was_written() {
        for number in [0, 1, 31, 32, u64::MAX, 0x0123_4567_89ab_cdef] {
            assert_eq!(NodeId(number).to_string().parse(), Ok(NodeId(number)));
        }
    }

    #[test]
    fn a_node_id_of_another_shape_is_refused() {
        for text in ["", "0", "000000000000i", "zzzzzzzzzzzzz", "00000000000000", "00000000000é"] {
            assert!(text.parse::<NodeId>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_checked_when_they_are_made() {
        assert!("ads".parse::<Collection>().is_ok());
        for text in ["", "Ads", "@members", "a/b", &"x".repeat(65)] {
            assert!(text.parse::<Collection>().is_err(), "{text}");
        }
        assert!("cart/42 – é".parse::<Key>().is_ok());
        for text in ["", "a\nb", &"x".repeat(513)] {
            assert!(text.parse::<Key>().is_err(), "{text}");
        }
        assert!("".parse::<Element>().is_ok(), "an empty element is an element");
        assert!("My_Function-1".parse::<Group>().is_ok());
        assert_eq!(
            "x y".parse::<Group>().map_err(|e| e.to_string()),
            Err("a group must be 1-64 bytes of [A-Za-z0-9._-]".into())
        );
    }
}
