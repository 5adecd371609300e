//! What may be asked.

use clap::{Args as Group, Parser, Subcommand};
use dormouse::{MemberState, Path, Relay, RelayBuilder};
use dormouse_proto::ids::{Collection, Element};

use crate::failure::Failure;

/// The most that one write may add to a counter.
const AMOUNT_MAX: i64 = 1 << 48;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 refused, 2 usage, 3 relay not reached.";

/// Who is alive, what is written, and whether the relay is well.
#[derive(Debug, Parser)]
#[command(name = "dormouse", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Prints one JSON object per line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Which relay, and which application on it.
#[derive(Clone, Debug, Group)]
pub(crate) struct Target {
    /// Where the relay is; `http://127.0.0.1:7400` unless said otherwise
    #[arg(long, global = true, env = "DORMOUSE_URL", value_name = "URL")]
    url: Option<String>,
    /// Sent as `authorization: Bearer`
    #[arg(long, global = true, env = "DORMOUSE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// The application; the token's own, or `default`, unless said otherwise
    #[arg(long, global = true, env = "DORMOUSE_NAMESPACE", value_name = "NAME")]
    namespace: Option<String>,
}

/// An empty variable counts as not set, as for every other program of Dormouse.
fn set(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|it| !it.is_empty())
}

impl Target {
    pub(crate) fn url(&self) -> &str {
        set(self.url.as_ref()).unwrap_or("http://127.0.0.1:7400")
    }

    /// The same application at another place.
    pub(crate) fn at(&self, url: String) -> Self {
        Self { url: Some(url), ..self.clone() }
    }

    pub(crate) fn builder(&self) -> RelayBuilder {
        let mut builder = Relay::builder().url(self.url());
        if let Some(token) = set(self.token.as_ref()) {
            builder = builder.token(token);
        }
        if let Some(namespace) = set(self.namespace.as_ref()) {
            builder = builder.namespace(namespace);
        }
        builder
    }

    /// No I/O happens.
    pub(crate) fn relay(&self) -> Result<Relay, Failure> {
        Ok(self.builder().build()?)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Lists the members
    Members {
        #[command(flatten)]
        filter: Who,
        /// Only in this state: awake, asleep, suspect, gone (repeatable); all but gone unless said otherwise
        #[arg(long, value_name = "STATE", value_parser = state)]
        state: Vec<MemberState>,
        /// Incarnation, revision and time of joining as well
        #[arg(long)]
        full: bool,
    },
    /// Reads keys: `collection/key` or `collection/prefix*`
    Get {
        #[arg(required = true, value_name = "PATH", value_parser = pattern)]
        paths: Vec<String>,
    },
    /// Writes a key
    Push {
        /// `collection/key`
        path: Path,
        #[command(subcommand)]
        change: Change,
    },
    /// Follows changes of the membership until interrupted
    Watch {
        #[command(flatten)]
        filter: Who,
        /// Wakes and sleeps too
        #[arg(long)]
        activity: bool,
        /// Names at first who is there already
        #[arg(long)]
        all: bool,
    },
    /// Follows changes in a collection until interrupted
    Tail {
        collection: Collection,
        /// Shows at first what is there already
        #[arg(long)]
        all: bool,
    },
    /// Examines the relay, and says what to do about what it finds
    Doctor,
}

/// Which members.
#[derive(Debug, Group)]
pub(crate) struct Who {
    /// Only of this group (repeatable)
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Vec<String>,
    /// Only with these tags, like `kubectl -l`: 'zone in (a,b),stage!=test'
    #[arg(long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    pub(crate) tags: String,
}

/// What is written.
#[derive(Debug, Subcommand)]
pub(crate) enum Change {
    /// A number that many may change at once
    Counter {
        #[command(subcommand)]
        change: CounterChange,
    },
    /// A set of texts
    Set {
        #[command(subcommand)]
        change: SetChange,
    },
    /// One value
    Register {
        #[command(subcommand)]
        change: RegisterChange,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CounterChange {
    /// Adds N, at most 2^48
    Add {
        #[arg(value_parser = clap::value_parser!(i64).range(0..=AMOUNT_MAX))]
        n: i64,
    },
    /// Subtracts N, at most 2^48
    Subtract {
        #[arg(value_parser = clap::value_parser!(i64).range(0..=AMOUNT_MAX))]
        n: i64,
    },
    /// Takes away what is there when the relay accepts it, and leaves N
    Reset {
        #[arg(default_value_t = 0, allow_negative_numbers = true,
              value_parser = clap::value_parser!(i64).range(-AMOUNT_MAX..=AMOUNT_MAX))]
        n: i64,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SetChange {
    /// Adds elements
    Add {
        #[arg(required = true, value_name = "ELEMENT")]
        elements: Vec<Element>,
    },
    /// Removes elements
    Remove {
        #[arg(required = true, value_name = "ELEMENT")]
        elements: Vec<Element>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RegisterChange {
    /// Writes a value: JSON, so a text has quotes of its own
    Set {
        #[arg(value_name = "JSON", value_parser = json, allow_negative_numbers = true)]
        value: String,
    },
    /// Deletes the value
    Delete,
}

fn state(text: &str) -> Result<MemberState, String> {
    match text.to_ascii_lowercase().as_str() {
        "awake" => Ok(MemberState::Awake),
        "asleep" => Ok(MemberState::Asleep),
        "suspect" => Ok(MemberState::Suspect),
        "gone" => Ok(MemberState::Gone),
        _ => Err("a state is awake, asleep, suspect or gone".to_owned()),
    }
}

/// A path, or all that begin with one.
fn pattern(text: &str) -> Result<String, String> {
    let all_of = text.strip_suffix("/*").is_some_and(|collection| collection.parse::<Collection>().is_ok());
    if !all_of {
        text.parse::<Path>().map_err(|wrong| wrong.to_string())?;
    }
    Ok(text.to_owned())
}

fn json(text: &str) -> Result<String, String> {
    let parsed: Result<serde_json::Value, _> = serde_json::from_str(text);
    parsed.map(|value| value.to_string()).map_err(|wrong| {
        let quoted = serde_json::Value::from(text);
        format!("{wrong}; a text is written with quotes of its own: '{quoted}'")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Result<Verb, clap::error::ErrorKind> {
        let line = ["dormouse"].iter().chain(line);
        Args::try_parse_from(line).map(|args| args.verb).map_err(|error| error.kind())
    }

    #[test]
    fn the_grammar_is_consistent() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn what_can_never_be_accepted_is_a_usage_error() {
        for wrong in [
            &["get"][..],
            &["get", "shown"],
            &["get", "Ads/*"],
            &["members", "--state", "dead"],
            &["push", "ads/shown", "counter", "add"],
            &["push", "ads/shown", "counter", "add", "many"],
            &["push", "ads/shown", "counter", "add", "--", "-1"],
            &["push", "ads/shown", "register", "set", "plain"],
            &["push", "shown", "counter", "reset"],
            &["push", "ads/seen", "set", "add"],
            &["tail", "ads/shown"],
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn switches_stand_anywhere() {
        let args = Args::try_parse_from(["dormouse", "get", "ads/*", "--json", "--url", "http://relay:1"]);
        let args = args.expect("valid");
        assert_eq!((args.json, args.target.url()), (true, "http://relay:1"));
    }

    #[test]
    fn a_register_takes_any_json() {
        for value in ["-5", "null", "{\"a\": [1]}", "\"text\""] {
            assert!(parsed(&["push", "flags/a", "register", "set", value]).is_ok(), "{value}");
        }
    }
}
