//! Why a command did not do what it was asked for, and who has to act.

use std::{io, process::ExitCode};

use dormouse::{ConfigError, Reason};

#[derive(Debug)]
pub(crate) enum Failure {
    /// The command or a setting is wrong: code 2.
    Usage(String),
    /// The relay said no: code 1.
    Refused(String),
    /// No relay answered: code 3.
    NotReached(String),
    /// Nobody reads the output any more, which is how `head` ends a program. Nothing is wrong.
    Closed,
}

impl Failure {
    pub(crate) fn code(&self) -> ExitCode {
        match self {
            Self::Closed => ExitCode::SUCCESS,
            Self::Refused(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
            Self::NotReached(_) => ExitCode::from(3),
        }
    }

    /// One line: what was wrong, and what to do.
    pub(crate) fn advice(&self, url: &str) -> String {
        match self {
            Self::Usage(message) | Self::Refused(message) => message.clone(),
            Self::NotReached(why) => format!(
                "no relay was reached at {url} ({why}): start one with dormouse-relay, or say where it is \
                 with --url or DORMOUSE_URL"
            ),
            Self::Closed => String::new(),
        }
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::NotReached(why) => Self::NotReached(why),
            Reason::NoAnswerYet => Self::NotReached("no answer yet".to_owned()),
            Reason::Malformed(message) => Self::Usage(message),
            Reason::Refused { word, message } => Self::Refused(match remedy(&word) {
                "" => format!("{word}: {message}"),
                remedy => format!("{word}: {message}; {remedy}"),
            }),
            other => Self::Refused(other.to_string()),
        }
    }
}

/// What the caller can do, where the relay's own message does not say it.
fn remedy(word: &str) -> &'static str {
    match word {
        "TOKEN_MISSING" => "set DORMOUSE_TOKEN or --token",
        "TOKEN_UNKNOWN" => "check DORMOUSE_TOKEN or --token",
        "NAMESPACE_DENIED" => "check DORMOUSE_NAMESPACE or --namespace",
        "ROLE_DENIED" => "use a token with a higher role",
        "BUSY" | "STARTING" | "BEHIND" | "LOG_UNREACHABLE" => "try again in a moment",
        "STORE_FULL" => "make room on the relay's disk",
        "QUOTA" => "remove something first",
        // The words of gRPC itself, which a web server earns with a 404.
        "Operation is not implemented or not supported" => {
            "what answers there is no relay, or another version: check --url or DORMOUSE_URL"
        }
        _ => "",
    }
}

impl From<ConfigError> for Failure {
    fn from(wrong: ConfigError) -> Self {
        Self::Usage(wrong.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Refused(format!("the output cannot be written: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let reason = Reason::Refused { word: "TOKEN_MISSING".to_owned(), message: "no token".to_owned() };
        let advice = Failure::from(reason).advice("http://relay");
        assert_eq!(advice, "TOKEN_MISSING: no token; set DORMOUSE_TOKEN or --token");
    }

    #[test]
    fn a_reader_that_goes_away_is_no_failure() {
        assert!(matches!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)), Failure::Closed));
        assert!(matches!(Failure::from(io::Error::from(io::ErrorKind::StorageFull)), Failure::Refused(_)));
    }
}
