//! What callers may take of a relay before it knows them: connections, handshakes, time, bytes.

use super::keys::{Setter, number, put};

/// The bounds of connections and of what comes over them. Each is a setting of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// Connections at once; 16 to 1,048,576. Each takes a file descriptor and 20 to 45 KiB, so a relay that may open fewer
    /// files has fewer connections. Above it the idlest one is closed for the new one.
    pub connections_max: u64,
    /// Likewise of one address (of IPv6: of one /64). Whole fleets come from the address of one gateway, so this only keeps
    /// one address from having all; 1 to 1,048,576.
    pub connections_per_address_max: u64,
    /// Connections that have not yet said what they want: under a TLS handshake, or before the first complete header. Above
    /// it the oldest of these is closed; 16 to 1,048,576.
    pub handshakes_max: u64,
    /// TLS handshakes begun in a second; the next ones wait for their turn, at most as long as a handshake may take. A
    /// handshake costs as much as fifty calls; 1 to 1,000,000.
    pub handshakes_per_second_max: u64,
    /// What a new connection has for its TLS handshake, and again for its first bytes: the preface of HTTP/2, or a complete
    /// header of HTTP/1.1. 100 ms to 10 min.
    pub handshake_ms: u64,
    /// How long a connection without a call is kept. Longer than clients keep one, or they would meet closed ones: ours do
    /// for a minute. 1 s to 24 h.
    pub idle_ms: u64,
    /// What a request has to arrive in whole after its header, and HTTP/1.1 for its next header. 100 ms to 1 h.
    pub request_ms: u64,
    /// What a call has until its caller has taken the whole answer; streams have `watch_patience_ms`. Longer than
    /// `request_ms`, and 30 s more for the log; 1 s to 24 h.
    pub answer_ms: u64,
    /// Calls under way on one connection; more wait with the caller. 1 to 65,536.
    pub streams_max: u32,
    /// Bytes of a request's header, with 32 for each field, as HTTP/2 counts. 4 KiB to 1 MiB.
    pub header_bytes_max: u32,
    /// Bytes of all requests that are arriving or waiting to be read; the next one is told to come back. A fraction of the
    /// memory that the relay may use; 8 MiB to 16 GiB.
    pub requests_bytes_max: u64,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            connections_per_address_max: 10_000,
            handshakes_max: 1_024,
            handshakes_per_second_max: 1_000,
            handshake_ms: 5_000,
            idle_ms: 300_000,
            request_ms: 30_000,
            answer_ms: 120_000,
            streams_max: 256,
            header_bytes_max: 16 << 10,
            requests_bytes_max: 256 << 20,
        }
    }
}

/// The names, and what each does with its text.
pub(super) const CONNECTIONS: &[(&str, Setter<ConnectionSettings>)] = &[
    ("connections_max", |it, text| put(&mut it.connections_max, number(text, 16..=1 << 20))),
    ("connections_per_address_max", |it, text| {
        put(&mut it.connections_per_address_max, number(text, 1..=1 << 20))
    }),
    ("handshakes_max", |it, text| put(&mut it.handshakes_max, number(text, 16..=1 << 20))),
    ("handshakes_per_second_max", |it, text| {
        put(&mut it.handshakes_per_second_max, number(text, 1..=1_000_000))
    }),
    ("handshake_ms", |it, text| put(&mut it.handshake_ms, number(text, 100..=600_000))),
    ("idle_ms", |it, text| put(&mut it.idle_ms, number(text, 1_000..=86_400_000))),
    ("request_ms", |it, text| put(&mut it.request_ms, number(text, 100..=3_600_000))),
    ("answer_ms", |it, text| put(&mut it.answer_ms, number(text, 1_000..=86_400_000))),
    ("streams_max", |it, text| put(&mut it.streams_max, small(text, 1..=65_536))),
    ("header_bytes_max", |it, text| put(&mut it.header_bytes_max, small(text, 4 << 10..=1 << 20))),
    ("requests_bytes_max", |it, text| put(&mut it.requests_bytes_max, number(text, 8 << 20..=16 << 30))),
];

fn small(text: &str, limits: std::ops::RangeInclusive<u32>) -> Result<u32, String> {
    let number = number(text, u64::from(*limits.start())..=u64::from(*limits.end()))?;
    u32::try_from(number).map_err(|_| "less".to_owned())
}

impl ConnectionSettings {
    /// What `GetRelay` tells of them.
    pub(super) fn limits(&self) -> [(&'static str, u64); 11] {
        [
            ("connections_max", self.connections_max),
            ("connections_per_address_max", self.connections_per_address_max),
            ("handshakes_max", self.handshakes_max),
            ("handshakes_per_second_max", self.handshakes_per_second_max),
            ("handshake_ms", self.handshake_ms),
            ("idle_ms", self.idle_ms),
            ("request_ms", self.request_ms),
            ("answer_ms", self.answer_ms),
            ("streams_max", u64::from(self.streams_max)),
            ("header_bytes_max", u64::from(self.header_bytes_max)),
            ("requests_bytes_max", self.requests_bytes_max),
        ]
    }
}
