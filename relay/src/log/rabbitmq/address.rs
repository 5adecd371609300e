//! Where the broker is and how the log is called there: `amqp://[user:password@]host[:port][,host...][/vhost][?...]`.
//!
//! Invariant: what is shown of an address never holds its credentials.

use std::{fmt, str::FromStr};

use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};

use crate::log::address::{decoded, host_and_port, is_stream_name};

const DEFAULT_STREAM: &str = "dormouse";
const DEFAULT_PORT: u16 = 5672;
const DEFAULT_TLS_PORT: u16 = 5671;
const DEFAULT_VHOST: &str = "/";
/// What a new broker has, for its own machine only.
const DEFAULT_USER: &str = "guest";
const DEFAULT_RETENTION_MB: u64 = 4_096;
/// Less would hold up appends between any two snapshots.
const RETENTION_MB_MIN: u64 = 16;
const RETENTION_MB_MAX: u64 = 1 << 20;
/// The broker keeps at least so many times what is written between two snapshots.
const SNAPSHOTS_KEPT: u64 = 4;
/// A connection that says nothing for twice as long is dead.
const HEARTBEAT_S: u16 = 10;
const RULE: &str = "amqp://[user:password@]host[:port][,host...][/vhost]\
                    [?stream=NAME&replicas=1|3|5&retention_mb=16..1048576], or the same with amqps://";

/// The address of a log on `RabbitMQ`.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    servers: Vec<(String, u16)>,
    user: String,
    password: String,
    tls: bool,
    vhost: String,
    /// The stream's name: 1 to 64 of `A-Za-z0-9_-`.
    pub(super) stream: String,
    /// How many servers keep the log, by the word of whoever wrote the address: AMQP does not tell. 1, 3 or 5.
    pub(super) replicas: usize,
    /// What the broker keeps of the log at least, in bytes, if the stream has to be made.
    pub(super) retention_bytes: u64,
}

impl Address {
    /// Whether the broker keeps enough of the log when a snapshot is taken after each `snapshot_every_bytes`: two of them
    /// have to lie behind what it drops, with room for what is written while one is stored.
    ///
    /// # Errors
    /// What to set instead.
    pub fn fits(&self, snapshot_every_bytes: u64) -> Result<(), String> {
        let needed = snapshot_every_bytes.saturating_mul(SNAPSHOTS_KEPT);
        if needed <= self.retention_bytes {
            return Ok(());
        }
        let (has, needed) = (self.retention_bytes >> 20, needed.div_ceil(1 << 20));
        Err(format!(
            "retention_mb={has} in DORMOUSE_BROKER is too small for snapshot_every_bytes = {snapshot_every_bytes}: \
             at least {needed} is needed, or more frequent snapshots"
        ))
    }

    /// What a connection is made with, one for each server.
    pub(super) fn uris(&self) -> impl Iterator<Item = AMQPUri> + '_ {
        self.servers.iter().map(|(host, port)| AMQPUri {
            scheme: if self.tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username: self.user.clone(), password: self.password.clone() },
                // A literal IPv6 address stands in brackets only in an address.
                host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
                port: *port,
            },
            vhost: self.vhost.clone(),
            query: AMQPQueryString { heartbeat: Some(HEARTBEAT_S), ..AMQPQueryString::default() },
        })
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text).ok_or_else(|| RULE.to_owned())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "amqps://" } else { "amqp://" })?;
        for (nth, (host, port)) in self.servers.iter().enumerate() {
            write!(f, "{}{host}:{port}", if nth == 0 { "" } else { "," })?;
        }
        if self.vhost != DEFAULT_VHOST {
            write!(f, "/{}", self.vhost)?;
        }
        write!(f, "?stream={}", self.stream)
    }
}

/// Without the credentials: settings are printed for debugging, and end up in logs.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn parse(text: &str) -> Option<Address> {
    let (scheme, rest) = text.split_once("://")?;
    let tls = match scheme {
        "amqp" => false,
        "amqps" => true,
        _ => return None,
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    // A password may hold a slash as it is, and hosts hold no @.
    let (credentials, rest) = match rest.rsplit_once('@') {
        Some((credentials, rest)) => (credentials.split_once(':')?, rest),
        None => ((DEFAULT_USER, DEFAULT_USER), rest),
    };
    let (hosts, vhost) = rest.split_once('/').unwrap_or((rest, ""));
    let port = if tls { DEFAULT_TLS_PORT } else { DEFAULT_PORT };
    let mut address = Address {
        servers: hosts.split(',').map(|server| parse_server(server, port)).collect::<Option<_>>()?,
        user: decoded(credentials.0)?,
        password: decoded(credentials.1)?,
        tls,
        vhost: if vhost.is_empty() { DEFAULT_VHOST.to_owned() } else { parse_vhost(vhost)? },
        stream: DEFAULT_STREAM.to_owned(),
        replicas: 1,
        retention_bytes: DEFAULT_RETENTION_MB << 20,
    };
    for option in query.split('&').filter(|it| !it.is_empty()) {
        match option.split_once('=')? {
            ("stream", name) if is_stream_name(name) => name.clone_into(&mut address.stream),
            ("replicas", number @ ("1" | "3" | "5")) => address.replicas = number.parse().ok()?,
            ("retention_mb", number) => {
                let megabytes = number.parse().ok()?;
                let fits = (RETENTION_MB_MIN..=RETENTION_MB_MAX).contains(&megabytes);
                address.retention_bytes = fits.then_some(megabytes << 20)?;
            }
            _ => return None,
        }
    }
    Some(address)
}

/// A virtual host may be called by nearly anything, but a slash in it must be written as `%2F`.
fn parse_vhost(text: &str) -> Option<String> {
    if text.contains('/') { None } else { decoded(text) }
}

fn parse_server(text: &str, usual_port: u16) -> Option<(String, u16)> {
    let (host, port) = host_and_port(text)?;
    Some((host.to_owned(), port.unwrap_or(usual_port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<Address>().expect("an address").to_string()
    }

    #[test]
    fn an_address_says_where_the_log_is() {
        assert_eq!(shown("amqp://broker"), "amqp://broker:5672?stream=dormouse");
        assert_eq!(shown("amqps://broker/"), "amqps://broker:5671?stream=dormouse");
        let three = "amqp://a:5673,b,[::1]/fleets?stream=fleet_7&replicas=3&retention_mb=64";
        assert_eq!(shown(three), "amqp://a:5673,b:5672,[::1]:5672/fleets?stream=fleet_7");
        let address: Address = three.parse().expect("an address");
        assert_eq!((address.replicas, address.retention_bytes), (3, 64 << 20));
        let hosts: Vec<_> = address.uris().map(|uri| uri.authority.host).collect();
        assert_eq!(hosts, ["a", "b", "::1"]);
    }

    #[test]
    fn credentials_are_understood_and_never_shown() {
        let address: Address = "amqp://us%40er:pa/s%3As@broker/%2Fv".parse().expect("an address");
        assert_eq!((address.user.as_str(), address.password.as_str()), ("us@er", "pa/s:s"));
        assert_eq!(address.vhost, "/v");
        assert_eq!(format!("{address}"), "amqp://broker:5672//v?stream=dormouse");
        assert!(!format!("{address} {address:?}").contains("us@er"));
    }

    #[test]
    fn the_broker_has_to_keep_four_times_what_lies_between_two_snapshots() {
        let address: Address = "amqp://a?retention_mb=256".parse().expect("an address");
        assert_eq!(address.fits(64 << 20), Ok(()));
        let refused = address.fits((64 << 20) + 1).expect_err("too small");
        assert!(refused.contains("retention_mb=256") && refused.contains("at least 257"), "{refused}");
        assert!(address.fits(u64::MAX).is_err());
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_rule() {
        for text in [
            "amqp://",
            "http://a",
            "amqp://a:port",
            "amqp://a b",
            "amqp://a/x/y",
            "amqp://user@a",
            "amqp://a?stream=with.dot",
            "amqp://a?replicas=2",
            "amqp://a?retention_mb=15",
            "amqp://a?replica=3",
            "amqp://%zz:p@a",
        ] {
            assert_eq!(text.parse::<Address>(), Err(RULE.to_owned()), "{text}");
        }
    }
}
