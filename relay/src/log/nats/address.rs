//! Where the broker is and how the log is called there: `nats://[user:password@]host[:port][,host...][/stream][?...]`.
//!
//! Invariant: what is shown of an address never holds its credentials.

use std::{fmt, str::FromStr};

use crate::log::address::{decoded, host_and_port, is_stream_name};

const DEFAULT_STREAM: &str = "dormouse";
const DEFAULT_PORT: u16 = 4222;
const RULE: &str = "nats://[user:password@]host[:port][,host...][/stream][?replicas=1|3|5&monitor=host:port,...], \
                    or the same with tls://";

/// The address of a log on NATS.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    pub(super) servers: Vec<String>,
    pub(super) credentials: Option<Credentials>,
    pub(super) tls: bool,
    /// The stream's name: 1 to 64 of `A-Za-z0-9_-`.
    pub(super) stream: String,
    /// How many servers keep the log if it has to be made: 1, 3 or 5. One that is there already keeps its own number.
    pub(super) replicas: usize,
    /// The monitoring ports, `host:port`, of the servers that keep the log. Only there does a server tell whether it syncs.
    pub(super) monitors: Vec<String>,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    Password { user: String, password: String },
    Token(String),
}

impl Address {
    fn scheme(&self) -> &'static str {
        if self.tls { "tls" } else { "nats" }
    }

    /// The servers, as the client library wants them.
    pub(super) fn urls(&self) -> Vec<String> {
        self.servers.iter().map(|server| format!("{}://{server}", self.scheme())).collect()
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
        write!(f, "{}://{}/{}", self.scheme(), self.servers.join(","), self.stream)
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
        "nats" => false,
        "tls" => true,
        _ => return None,
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    // A password may hold a slash as it is, and hosts hold no @.
    let (credentials, rest) = match rest.rsplit_once('@') {
        Some((credentials, rest)) => (Some(parse_credentials(credentials)?), rest),
        None => (None, rest),
    };
    let (hosts, stream) = rest.split_once('/').unwrap_or((rest, ""));
    let stream = if stream.is_empty() { DEFAULT_STREAM } else { stream };
    let servers = hosts.split(',').map(parse_server).collect::<Option<Vec<_>>>()?;
    let mut address =
        Address { servers, credentials, tls, stream: stream.to_owned(), replicas: 1, monitors: Vec::new() };
    for option in query.split('&').filter(|it| !it.is_empty()) {
        match option.split_once('=')? {
            ("replicas", number @ ("1" | "3" | "5")) => address.replicas = number.parse().ok()?,
            ("monitor", hosts) => {
                address.monitors = hosts.split(',').map(parse_monitor).collect::<Option<_>>()?;
            }
            _ => return None,
        }
    }
    is_stream_name(stream).then_some(address)
}

fn parse_credentials(text: &str) -> Option<Credentials> {
    Some(match text.split_once(':') {
        Some((user, password)) => {
            Credentials::Password { user: decoded(user)?, password: decoded(password)? }
        }
        None => Credentials::Token(decoded(text)?),
    })
}

fn parse_server(text: &str) -> Option<String> {
    let (host, port) = host_and_port(text)?;
    Some(format!("{host}:{}", port.unwrap_or(DEFAULT_PORT)))
}

/// Which port that is depends on the server.
fn parse_monitor(text: &str) -> Option<String> {
    host_and_port(text)?.1.map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<Address>().expect("an address").to_string()
    }

    #[test]
    fn an_address_says_where_the_log_is() {
        assert_eq!(shown("nats://broker"), "nats://broker:4222/dormouse");
        assert_eq!(shown("nats://a:4333,b,[::1]/fleet_7"), "nats://a:4333,b:4222,[::1]:4222/fleet_7");
        let address: Address = "nats://a?replicas=3&monitor=a:8222,b:8222".parse().expect("an address");
        assert_eq!((address.replicas, address.monitors.len()), (3, 2));
    }

    #[test]
    fn credentials_are_understood_and_never_shown() {
        let address: Address = "tls://us%40er:pa/s%3As@broker/fleet".parse().expect("an address");
        let (user, password) = ("us@er".to_owned(), "pa/s:s".to_owned());
        assert!(address.credentials == Some(Credentials::Password { user, password }));
        assert_eq!(format!("{address} {address:?}"), "tls://broker:4222/fleet tls://broker:4222/fleet");
        let token: Address = "nats://s3cret@broker".parse().expect("an address");
        assert!(token.credentials == Some(Credentials::Token("s3cret".to_owned())));
        assert!(!format!("{token:?}").contains("s3cret"));
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_rule() {
        for text in [
            "nats://",
            "http://a",
            "nats://a:port",
            "nats://a b",
            "nats://a/with.dot",
            "nats://a/x/y",
            "nats://a?replicas=2",
            "nats://a?monitor=a",
            "nats://a?replica=3",
            "nats://%zz:p@a",
        ] {
            assert_eq!(text.parse::<Address>(), Err(RULE.to_owned()), "{text}");
        }
    }
}
