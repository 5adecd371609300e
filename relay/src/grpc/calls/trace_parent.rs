//! Which trace a call belongs to: the `traceparent` header of W3C Trace Context.

use std::fmt;

/// A span of the caller, below which the call is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent {
    /// Never zero.
    pub(crate) trace_id: [u8; 16],
    /// Never zero.
    pub(crate) span_id: [u8; 8],
    /// Whether the caller records its own spans.
    pub(crate) is_sampled: bool,
}

impl TraceParent {
    /// `None` for whatever is no such header: a call with a bad one is a call without one, as its standard says. A
    /// version after 00 may say more behind what is read here.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let version = hex::<1>(parts.next()?)?;
        let trace_id = hex::<16>(parts.next()?)?;
        let span_id = hex::<8>(parts.next()?)?;
        let flags = hex::<1>(parts.next()?)?;
        let is_whole = parts.next().is_none() || version != [0];
        let is_valid = version != [0xff] && trace_id != [0; 16] && span_id != [0; 8];
        (is_whole && is_valid).then_some(Self { trace_id, span_id, is_sampled: flags[0] & 1 == 1 })
    }
}

/// The trace alone, as it is looked for in a log.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.trace_id))
    }
}

/// So many bytes in lower case, as the standard demands.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_header_names_trace_span_and_whether_it_is_recorded() {
        let parent = TraceParent::parse(OURS).expect("valid");
        assert_eq!(parent.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(u64::from_be_bytes(parent.span_id), 0x00f0_67aa_0ba9_02b7);
        assert!(parent.is_sampled);
        let silent = OURS.replace("-01", "-00");
        assert!(!TraceParent::parse(&silent).expect("valid").is_sampled);
    }

    #[test]
    fn a_later_version_may_say_more_and_this_one_may_not() {
        let more = format!("{OURS}-more");
        assert_eq!(TraceParent::parse(&more), None);
        assert!(TraceParent::parse(&more.replacen("00-", "01-", 1)).is_some());
    }

    #[test]
    fn what_is_no_such_header_is_none() {
        let zero_trace = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let zero_span = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        let upper = OURS.to_uppercase();
        let version = OURS.replacen("00-", "ff-", 1);
        for bad in ["", "-", "00", zero_trace, zero_span, &upper, &version, &OURS[1..], &OURS[..54]] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }
}
