//! What may be asked.

mod change;

use std::{path::PathBuf, time::Duration};

use clap::{Args as Options, Parser, Subcommand};
use dormouse::{MemberState, Path, Relay, RelayBuilder};
use dormouse_proto::ids::{Collection, Group, NodeId, OnceId};

pub(crate) use change::{Change, CounterChange, EventsChange, GrowOnlySetChange, RegisterChange, SetChange};

use crate::{failure::Failure, token};

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
#[derive(Clone, Debug, Options)]
pub(crate) struct Target {
    /// Where the relay is; `http://127.0.0.1:7400` unless said otherwise
    #[arg(long, global = true, env = "DORMOUSE_URL", value_name = "URL")]
    url: Option<String>,
    /// Sent as `authorization: Bearer`
    #[arg(long, global = true, env = "DORMOUSE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<Secret>,
    /// The authority of an `https://` relay: a path, or the PEM text itself; bundled roots unless said otherwise
    #[arg(long, global = true, env = "DORMOUSE_CA", hide_env_values = true, value_name = "PEM")]
    ca: Option<String>,
    /// The certificate to show where the relay asks for one: a path, or the PEM text itself
    #[arg(long, global = true, env = "DORMOUSE_CLIENT_CERT", hide_env_values = true, value_name = "PEM")]
    client_cert: Option<String>,
    /// Its key: a path, or the PEM text itself
    #[arg(long, global = true, env = "DORMOUSE_CLIENT_KEY", hide_env_values = true, value_name = "PEM")]
    client_key: Option<Secret>,
    /// Lets the token travel to another machine in the clear
    #[arg(long, global = true, env = "DORMOUSE_INSECURE", value_parser = clap::builder::FalseyValueParser::new())]
    insecure: bool,
    /// The application; the token's own, or `default`, unless said otherwise
    #[arg(long, global = true, env = "DORMOUSE_NAMESPACE", value_name = "NAME")]
    namespace: Option<String>,
}

/// What is never printed.
#[derive(Clone)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("...")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// An empty variable counts as not set, as for every other program of Dormouse.
fn set(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|it| !it.is_empty())
}

impl Target {
    pub(crate) fn url(&self) -> &str {
        set(self.url.as_ref()).unwrap_or("http://127.0.0.1:7400")
    }

    /// Somebody without a token or a certificate, at another place.
    pub(crate) fn stranger_at(&self, url: String) -> Self {
        Self { url: Some(url), token: None, ca: None, client_cert: None, client_key: None, ..self.clone() }
    }

    /// Empty: the token's own, or `default`.
    pub(crate) fn namespace(&self) -> &str {
        set(self.namespace.as_ref()).unwrap_or_default()
    }

    /// Whether the relay may ask who we are.
    pub(crate) fn shows_a_certificate(&self) -> bool {
        set(self.client_cert.as_ref()).is_some()
    }

    /// Whether others may see the token on its way.
    pub(crate) fn token_is_exposed(&self) -> bool {
        self.token.is_some() && self.insecure && self.url().starts_with("http://")
    }

    pub(crate) fn builder(&self) -> RelayBuilder {
        let mut builder = Relay::builder().url(self.url());
        if let Some(token) = set(self.token.as_ref().map(|it| &it.0)) {
            builder = builder.token(token);
        }
        if let Some(ca) = set(self.ca.as_ref()) {
            builder = builder.ca(ca);
        }
        let key = set(self.client_key.as_ref().map(|it| &it.0));
        if let (Some(cert), Some(key)) = (set(self.client_cert.as_ref()), key) {
            builder = builder.client_cert(cert, key);
        }
        if self.insecure {
            builder = builder.insecure();
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
    /// Shows the fleet, and redraws it until interrupted; one snapshot if the output is no terminal
    Top {
        #[command(flatten)]
        filter: Who,
        /// How often: 2s, 1m; each second unless said otherwise
        #[arg(long, value_name = "TIME", value_parser = length)]
        every: Option<Duration>,
        /// One snapshot, on a terminal too
        #[arg(long, conflicts_with = "every")]
        once: bool,
    },
    /// Tells why a member is believed to be in its state
    Explain {
        /// As `dormouse members` names it
        node: NodeId,
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
    /// Sends a message into the inbox of one node
    Send {
        /// As `dormouse members` names it
        node: NodeId,
        /// JSON, so a text has quotes of its own
        #[arg(value_name = "JSON", value_parser = json, allow_negative_numbers = true)]
        payload: String,
        /// Names the message, 1-64 bytes: whoever repeats it, it is delivered once
        #[arg(long, value_name = "ID")]
        id: Option<OnceId>,
        /// How long it waits to be received, at most seven days: 90s, 30m, 1h, 2d; a day unless said otherwise
        #[arg(long, value_name = "TIME", value_parser = length)]
        ttl: Option<Duration>,
        /// Who sends it, in your own words
        #[arg(long, value_name = "NAME")]
        sender: Option<String>,
    },
    /// Prints the entries of a log of events that its consumer has not had yet, one per line, and moves on behind them
    Consume {
        /// `collection/key`
        path: Path,
        /// The consumer's name: 1-64 of [A-Za-z0-9._-]
        #[arg(long = "as", value_name = "NAME")]
        name: Group,
        /// Waits for more until interrupted
        #[arg(long)]
        follow: bool,
    },
    /// Makes tokens for the file that `DORMOUSE_TOKENS_FILE` names; no relay is asked
    Token {
        #[command(subcommand)]
        verb: TokenVerb,
    },
    /// Takes a backup while the relay serves: everything in every namespace, as of one revision
    Backup {
        /// Where it goes, where nothing is yet; `-`: standard output
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Begins an empty log with a backup: hands it to `dormouse-relay restore`, whose settings say which log
    Restore {
        /// As `dormouse backup` wrote it
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Only reads it, and says whether it is whole and what is in it
        #[arg(long)]
        check: bool,
    },
    /// Examines the relay, and says what to do about what it finds
    Doctor,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Prints a new token and its line for the file
    New {
        /// Where it is good; `*`, for admins alone: everywhere
        #[arg(value_name = "NAMESPACE", value_parser = token::scope)]
        scope: token::Scope,
        /// What it may do
        role: token::Role,
    },
}

/// Which members.
#[derive(Debug, Options)]
pub(crate) struct Who {
    /// Only of this group (repeatable)
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Vec<String>,
    /// Only with these tags, like `kubectl -l`: 'zone in (a,b),stage!=test'
    #[arg(long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    pub(crate) tags: String,
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("a flag is on or off".to_owned()),
    }
}

/// A number and a unit: `90s`.
fn length(text: &str) -> Result<Duration, String> {
    let rule = || format!("{text:?} is no length of time such as 90s, 30m, 1h or 2d");
    let digits = text.find(|it: char| !it.is_ascii_digit()).ok_or_else(rule)?;
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(rule()),
    };
    let number: u64 = number.parse().map_err(|_| rule())?;
    let length = number.checked_mul(seconds).map(Duration::from_secs).filter(|it| !it.is_zero());
    length.ok_or_else(rule)
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
            &["push", "ads/on", "flag", "yes"],
            &["push", "ads/best", "max", "1.5"],
            &["push", "ads/log", "events", "append"],
            &["push", "ads/log", "events", "append", "plain"],
            &["push", "ads/log", "events", "trim", "-1"],
            &["push", "ads/seen", "grow-only-set", "remove", "a"],
            &["push", "ads/here", "presence", "set", "1"],
            &["send", "me", "1"],
            &["send", "0000000000001", "plain"],
            &["send", "0000000000001", "1", "--ttl", "1"],
            &["consume", "ads/log"],
            &["explain"],
            &["backup"],
            &["restore", "--check"],
            &["explain", "me"],
            &["top", "ads"],
            &["top", "--every", "2"],
            &["top", "--every", "0s"],
            &["top", "--every", "2s", "--once"],
            &["consume", "ads/log", "--as", "a@b"],
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
    fn a_top_is_filtered_as_the_members_are() {
        let top = parsed(&["top", "--group", "ads", "--tags", "zone in (a,b)", "--every", "2s"]);
        let Ok(Verb::Top { filter, every, once }) = top else { panic!("{top:?}") };
        assert_eq!((filter.group, filter.tags.as_str()), (vec!["ads".to_owned()], "zone in (a,b)"));
        assert_eq!((every, once), (Some(Duration::from_secs(2)), false));
        assert!(matches!(parsed(&["explain", "00fgzf2qz84tw"]), Ok(Verb::Explain { .. })));
    }

    #[test]
    fn a_register_takes_any_json() {
        for value in ["-5", "null", "{\"a\": [1]}", "\"text\""] {
            assert!(parsed(&["push", "flags/a", "register", "set", value]).is_ok(), "{value}");
        }
    }

    #[test]
    fn every_type_can_be_pushed() {
        for line in [
            &["flag", "on"][..],
            &["disable-wins-flag", "off"],
            &["max", "-3"],
            &["min", "7"],
            &["events", "append", "1", "{\"a\":2}"],
            &["events", "trim", "12"],
            &["siblings", "set", "-5"],
            &["siblings", "delete"],
            &["grow-only-set", "add", "a", "b"],
            &["remove-wins-set", "add", "a"],
            &["remove-wins-set", "remove", "a"],
        ] {
            assert!(parsed(&[&["push", "ads/it"], line].concat()).is_ok(), "{line:?}");
        }
    }

    #[test]
    fn a_length_of_time_has_a_unit() {
        let all = ["90s", "30m", "1h", "2d"].map(|text| length(text).map(|it| it.as_secs()));
        assert_eq!(all, [Ok(90), Ok(1_800), Ok(3_600), Ok(172_800)]);
        for wrong in ["", "h", "0s", "1w", "-1s", "99999999999999999999s"] {
            assert!(length(wrong).is_err(), "{wrong}");
        }
    }
}
