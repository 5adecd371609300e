//! Tokens, as whoever runs a relay makes them. No relay is asked: it holds the hash alone.

use std::fmt::Write as _;

use dormouse_proto::ids::Namespace;
use ring::digest;
use serde_json::json;

use crate::{failure::Failure, screen::Screen};

/// What tokens begin with, so that those who search for leaked secrets know one when they see it.
const PREFIX: &str = "dm_";

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Role {
    /// Reads and watches
    Reader,
    /// Also writes, and may be a member
    Node,
    /// Also evicts members
    Admin,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Node => "node",
            Self::Admin => "admin",
        }
    }
}

/// Where a token is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    One(Namespace),
    All,
}

pub(crate) fn scope(text: &str) -> Result<Scope, String> {
    match text {
        "*" => Ok(Scope::All),
        name => {
            name.parse().map(Scope::One).map_err(|wrong: dormouse_proto::ids::InvalidName| wrong.to_string())
        }
    }
}

/// Prints a token that nobody has seen before, and its line for the relay's file.
pub(crate) fn new(screen: Screen, scope: &Scope, role: Role) -> Result<(), Failure> {
    let namespace = match scope {
        Scope::One(namespace) => namespace.as_str(),
        Scope::All if role == Role::Admin => "*",
        Scope::All => {
            return Err(Failure::Usage("only an admin's token may be good in every namespace".to_owned()));
        }
    };
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::Refused(format!("the system has no random bytes: {error}")))?;
    let token = format!("{PREFIX}{}", hex(&random));
    let line = line(&token, namespace, role);
    let text = format!(
        "{token}\n\nfor whoever calls (DORMOUSE_TOKEN); it is shown once. For the file that DORMOUSE_TOKENS_FILE names:\n\n{line}"
    );
    screen.show(&text, &json!({ "token": token, "line": line }))
}

fn line(token: &str, namespace: &str, role: Role) -> String {
    let hash = digest::digest(&digest::SHA256, token.as_bytes());
    format!("sha256:{} {namespace} {}", hex(hash.as_ref()), role.name())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a text cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_the_hash_of_its_token() {
        // The standard's own example.
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(line("abc", "shop", Role::Node), format!("{abc} shop node"));
    }

    #[test]
    fn every_namespace_is_for_admins() {
        let screen = Screen { json: false };
        assert!(matches!(new(screen, &Scope::All, Role::Node), Err(Failure::Usage(_))));
    }
}
