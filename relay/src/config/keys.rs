//! The names of the settings, and what each does with its text.

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use dormouse_proto::{
    convert::bounds,
    ids::{Group, Namespace},
    lattice::EventsDelta,
    record::Policy,
};
use toml::{Table, Value};

use super::{
    Config, ConfigError, ConnectionSettings, Durability, LogFormat, connections::CONNECTIONS, floors::FLOORS,
};
use crate::liveness::{LeaseSettings, Millis, UndeclaredFreeze};

/// What the names of the environment begin with.
pub(super) const PREFIX: &str = "DORMOUSE_";
/// The variable that names the file.
pub(super) const FILE: &str = "DORMOUSE_CONFIG";
/// The table of the file that holds a table for each group that differs.
const GROUPS: &str = "group";
/// Likewise for each namespace that differs.
const NAMESPACES: &str = "namespace";

/// What the text must be instead.
pub(super) type Rule = String;
pub(super) type Setter<T> = fn(&mut T, &str) -> Result<(), Rule>;

/// The settings of the whole relay.
pub(super) const RELAY: &[(&str, Setter<Config>)] = &[
    ("listen", |config, text| put(&mut config.listen, address(text))),
    ("insecure", |config, text| put(&mut config.insecure, switch(text))),
    ("admin_listen", |config, text| put(&mut config.admin_listen, address(text))),
    ("tls_cert", |config, text| put(&mut config.tls_cert, Ok(file(text)))),
    ("tls_key", |config, text| put(&mut config.tls_key, Ok(file(text)))),
    ("tls_client_ca", |config, text| put(&mut config.tls_client_ca, Ok(file(text)))),
    ("tokens_file", |config, text| put(&mut config.tokens_file, Ok(file(text)))),
    ("broker", |config, text| put(&mut config.broker, text.parse())),
    ("data_dir", |config, text| put(&mut config.data_dir, folder(text))),
    ("durability", |config, text| put(&mut config.durability, durability(text))),
    ("log", |config, text| put(&mut config.log, Ok(text.to_owned()))),
    ("log_format", |config, text| put(&mut config.log_format, log_format(text))),
    ("otlp_endpoint", |config, text| {
        put(&mut config.otlp_endpoint, Ok((!text.is_empty()).then(|| text.to_owned())))
    }),
    ("queue_max", |config, text| put(&mut config.queue_max, count(text, 1..=1 << 20))),
    ("queue_bytes_max", |config, text| {
        let one_push = u64::try_from(bounds::PUSH_BYTES).unwrap_or(u64::MAX);
        put(&mut config.queue_bytes_max, number(text, one_push..=16 << 30))
    }),
    ("joins_max", |config, text| put(&mut config.joins_max, count(text, 1..=1 << 20))),
    ("watchers_max", |config, text| put(&mut config.watchers_max, count(text, 0..=65_536))),
    ("watch_patience_ms", |config, text| put(&mut config.watch_patience_ms, number(text, 100..=3_600_000))),
    ("snapshot_every_bytes", |config, text| {
        put(&mut config.snapshot_every_bytes, number(text, 1 << 20..=1 << 40))
    }),
];

/// The settings that a group may have of its own.
pub(super) const LEASES: &[(&str, Setter<LeaseSettings>)] = &[
    ("awake_lease_ms", |leases, text| put(&mut leases.awake, length(text))),
    ("asleep_lease_ms", |leases, text| put(&mut leases.asleep, length(text))),
    ("asleep_lease_min_ms", |leases, text| put(&mut leases.asleep_min, length(text))),
    ("asleep_lease_max_ms", |leases, text| put(&mut leases.asleep_max, length(text))),
    ("lease_margin_ms", |leases, text| put(&mut leases.margin, length(text))),
    ("suspect_grace_ms", |leases, text| put(&mut leases.suspect_grace, length(text))),
    ("undeclared_freeze", |leases, text| put(&mut leases.undeclared_freeze, freeze(text))),
];

/// What the fold enforces, and a namespace may have of its own.
pub(super) const LIMITS: &[(&str, Setter<Policy>)] = &[
    ("rows_max", |limits, text| limit(&mut limits.rows_max, text, 1..=1 << 32)),
    ("bytes_max", |limits, text| limit(&mut limits.bytes_max, text, 1 << 20..=1 << 44)),
    ("nodes_max", |limits, text| limit(&mut limits.nodes_max, text, 1..=1 << 32)),
    ("collections_max", |limits, text| limit(&mut limits.collections_max, text, 1..=1 << 20)),
    ("events_max", |limits, text| limit(&mut limits.events_max, text, EventsDelta::MAX as u64..=1 << 32)),
    ("events_bytes_max", |limits, text| limit(&mut limits.events_bytes_max, text, 1 << 20..=1 << 44)),
    ("events_age_ms", |limits, text| limit(&mut limits.events_age_ms, text, 1_000..=1 << 44)),
    ("inbox_max", |limits, text| limit(&mut limits.inbox_max, text, 1..=1 << 20)),
    ("inbox_bytes_max", |limits, text| {
        let one_message = bounds::MAIL_BYTES as u64;
        limit(&mut limits.inbox_bytes_max, text, one_message..=1 << 30)
    }),
    ("dead_rows_min", |limits, text| limit(&mut limits.dead_rows_min, text, 1..=1 << 32)),
    ("tombstones_max", |limits, text| limit(&mut limits.tombstones_max, text, 1..=1 << 32)),
    ("tombstone_ms", |limits, text| limit(&mut limits.tombstone_ms, text, 1_000..=1 << 44)),
    ("once_max", |limits, text| limit(&mut limits.once_max, text, 1..=1 << 32)),
    ("once_ms", |limits, text| limit(&mut limits.once_ms, text, 1_000..=1 << 44)),
    ("stamp_skew_ms", |limits, text| limit(&mut limits.stamp_skew_ms, text, 1..=1 << 44)),
];

/// The client's names. Both programs may run in one environment.
const CLIENT: &[&str] = &[
    "url",
    "token",
    "ca",
    "client_cert",
    "client_key",
    "namespace",
    "group",
    "tags",
    "collections",
    "budget_ms",
];

pub(super) fn put<T>(place: &mut T, value: Result<T, Rule>) -> Result<(), Rule> {
    *place = value?;
    Ok(())
}

fn address(text: &str) -> Result<SocketAddr, Rule> {
    text.parse().map_err(|_| "an IP address and a port, like 127.0.0.1:7400 or [::1]:7400".to_owned())
}

fn switch(text: &str) -> Result<bool, Rule> {
    match text {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err("1 or 0, true or false".to_owned()),
    }
}

fn folder(text: &str) -> Result<PathBuf, Rule> {
    if text.is_empty() {
        return Err("the path of a folder".to_owned());
    }
    Ok(PathBuf::from(text))
}

fn file(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn log_format(text: &str) -> Result<LogFormat, Rule> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("text or json".to_owned()),
    }
}

fn durability(text: &str) -> Result<Option<Durability>, Rule> {
    match text {
        "any" => Ok(None),
        "page_cache" => Ok(Some(Durability::PageCache)),
        "majority" => Ok(Some(Durability::Majority)),
        "fsync" => Ok(Some(Durability::Fsync)),
        _ => Err("any, page_cache, majority or fsync".to_owned()),
    }
}

fn freeze(text: &str) -> Result<UndeclaredFreeze, Rule> {
    match text {
        "deny" => Ok(UndeclaredFreeze::Deny),
        "allow" => Ok(UndeclaredFreeze::Allow),
        _ => Err("deny or allow".to_owned()),
    }
}

pub(super) fn number(text: &str, limits: RangeInclusive<u64>) -> Result<u64, Rule> {
    let number = text.parse().ok().filter(|it| limits.contains(it));
    number.ok_or_else(|| format!("a whole number from {} to {}", limits.start(), limits.end()))
}

fn limit(place: &mut Option<u64>, text: &str, limits: RangeInclusive<u64>) -> Result<(), Rule> {
    *place = Some(number(text, limits)?);
    Ok(())
}

fn count(text: &str, limits: RangeInclusive<u32>) -> Result<usize, Rule> {
    let number = number(text, u64::from(*limits.start())..=u64::from(*limits.end()))?;
    usize::try_from(number).map_err(|_| "less on this machine".to_owned())
}

/// The limits of a lease depend on the others and are the lease policy's.
fn length(text: &str) -> Result<Millis, Rule> {
    let length = text.parse().map(Millis);
    length.map_err(|_| "a whole number of milliseconds".to_owned())
}

pub(super) fn find<T>(settings: &[(&str, Setter<T>)], key: &str) -> Option<Setter<T>> {
    settings.iter().find(|(known, _)| *known == key).map(|(_, set)| *set)
}

/// A setting that may stand outside of a group.
enum Setting {
    Relay(Setter<Config>),
    Connections(Setter<ConnectionSettings>),
    Leases(Setter<LeaseSettings>),
    Limits(Setter<Policy>),
}

impl Setting {
    fn named(key: &str) -> Option<Self> {
        let relay = find(RELAY, key).map(Self::Relay);
        relay
            .or_else(|| find(CONNECTIONS, key).map(Self::Connections))
            .or_else(|| find(LEASES, key).map(Self::Leases))
            .or_else(|| find(LIMITS, key).map(Self::Limits))
    }

    fn set(self, config: &mut Config, text: &str) -> Result<(), Rule> {
        match self {
            Self::Relay(set) => set(config, text),
            Self::Connections(set) => set(&mut config.connections, text),
            Self::Leases(set) => set(&mut config.leases, text),
            Self::Limits(set) => set(&mut config.limits, text),
        }
    }
}

/// One variable of the environment.
pub(super) fn apply_variable(config: &mut Config, name: &str, text: &str) -> Result<(), ConfigError> {
    let Some(bare) = name.strip_prefix(PREFIX) else {
        return Ok(());
    };
    let key = bare.to_ascii_lowercase();
    if name == FILE || CLIENT.contains(&key.as_str()) || is_service_link(bare, text) {
        return Ok(());
    }
    let variable = |key: &str| format!("{PREFIX}{}", key.to_ascii_uppercase());
    // Names of the environment are in capitals: `DORMOUSE_Listen` is another variable.
    let setting = Setting::named(&key).filter(|_| variable(&key) == name);
    if text.is_empty() && setting.is_some() {
        return Ok(());
    }
    let outcome = setting.map(|setting| setting.set(config, text));
    judge(outcome, name.to_owned(), text, || nearest(&key, everywhere()).map(variable))
}

/// Whether Kubernetes (or Docker) has put the variable there because some service is called `dormouse` or
/// `dormouse-something`: `DORMOUSE_SERVICE_HOST`, `DORMOUSE_PORT_7400_TCP_ADDR`. Nobody has written those, and
/// refusing them would keep a relay from starting for the name of its own service.
fn is_service_link(bare: &str, text: &str) -> bool {
    let with_number = |(_, rest): (&str, &str)| {
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| rest.starts_with(protocol))
    };
    bare.ends_with("SERVICE_HOST")
        || bare.contains("SERVICE_PORT")
        || bare.ends_with("PORT") && text.contains("://")
        || bare.split_once("PORT_").is_some_and(with_number)
}

/// Turns what became of a setting into an error that names it.
fn judge(
    outcome: Option<Result<(), Rule>>,
    name: String,
    text: &str,
    nearest: impl FnOnce() -> Option<String>,
) -> Result<(), ConfigError> {
    match outcome {
        Some(Ok(())) => Ok(()),
        Some(Err(rule)) => Err(ConfigError::Invalid { name, value: shown(text), rule }),
        None => Err(ConfigError::Unknown { name, nearest: nearest() }),
    }
}

/// The address of a broker may hold a password, and what is printed here ends up in logs.
pub(super) fn shown(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://..."),
        None => format!("{text:?}"),
    }
}

/// The names that may stand outside of a group.
fn everywhere() -> impl Iterator<Item = &'static str> {
    let connections = CONNECTIONS.iter().map(|it| it.0);
    RELAY.iter().map(|it| it.0).chain(connections).chain(in_group()).chain(in_namespace())
}

/// The names that may stand in a group.
fn in_group() -> impl Iterator<Item = &'static str> {
    LEASES.iter().map(|it| it.0)
}

/// The names that may stand in a namespace.
fn in_namespace() -> impl Iterator<Item = &'static str> {
    LIMITS.iter().map(|it| it.0)
}

pub(super) fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.map(|it| (distance(key, it), it)).min()?;
    (near.0 <= 2.max(key.len() / 3)).then_some(near.1)
}

/// How many characters to insert, drop or replace to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

/// The configuration file.
pub(super) struct File<'a> {
    path: &'a Path,
    table: Table,
}

impl<'a> File<'a> {
    pub(super) fn parse(path: &'a Path, text: &str) -> Result<Self, ConfigError> {
        match text.parse() {
            Ok(table) => Ok(Self { path, table }),
            Err(error) => Err(ConfigError::Syntax {
                path: path.to_owned(),
                error: toml::de::Error::to_string(&error).trim_end().to_owned(),
            }),
        }
    }

    /// All but the groups, the namespaces and the floors.
    pub(super) fn apply(&self, config: &mut Config) -> Result<(), ConfigError> {
        let apart = |key: &str| [GROUPS, NAMESPACES, FLOORS].contains(&key);
        for (key, value) in self.table.iter().filter(|(key, _)| !apart(key)) {
            let setting = Setting::named(key).map(|setting| |text: &str| setting.set(config, text));
            let hint = || nearest(key, everywhere()).map(str::to_owned);
            self.set(key, value, setting, hint)?;
        }
        Ok(())
    }

    /// The groups that differ from the defaults, as those are now.
    pub(super) fn apply_groups(&self, config: &mut Config) -> Result<(), ConfigError> {
        let Some(groups) = self.table.get(GROUPS) else {
            return Ok(());
        };
        for (name, settings) in self.subtable(GROUPS, groups)? {
            let at = format!("{GROUPS}.{name}");
            let group: Group =
                name.parse().map_err(|error| ConfigError::Refused(format!("{}: {error}", self.name(&at))))?;
            let mut leases = config.leases;
            for (key, value) in self.subtable(&at, settings)? {
                let place = &mut leases;
                let setting = find(LEASES, key).map(|set| move |text: &str| set(place, text));
                let hint = || nearest(key, in_group()).map(str::to_owned);
                self.set(&format!("{at}.{key}"), value, setting, hint)?;
            }
            config.groups.insert(group, leases);
        }
        Ok(())
    }

    /// The namespaces that have limits of their own.
    pub(super) fn apply_namespaces(&self, config: &mut Config) -> Result<(), ConfigError> {
        let Some(namespaces) = self.table.get(NAMESPACES) else {
            return Ok(());
        };
        for (name, settings) in self.subtable(NAMESPACES, namespaces)? {
            let at = format!("{NAMESPACES}.{name}");
            let namespace: Namespace =
                name.parse().map_err(|error| ConfigError::Refused(format!("{}: {error}", self.name(&at))))?;
            let mut limits = Policy { namespace: Some(namespace.clone()), ..Policy::default() };
            for (key, value) in self.subtable(&at, settings)? {
                let place = &mut limits;
                let setting = find(LIMITS, key).map(|set| move |text: &str| set(place, text));
                let hint = || nearest(key, in_namespace()).map(str::to_owned);
                self.set(&format!("{at}.{key}"), value, setting, hint)?;
            }
            config.namespaces.insert(namespace, limits);
        }
        Ok(())
    }

    /// Hands a value to its setting; `None`: no setting is called so.
    pub(super) fn set(
        &self,
        path: &str,
        value: &Value,
        setting: Option<impl FnOnce(&str) -> Result<(), Rule>>,
        nearest: impl FnOnce() -> Option<String>,
    ) -> Result<(), ConfigError> {
        let text = match value {
            Value::String(text) => Some(text.clone()),
            Value::Integer(number) => Some(number.to_string()),
            Value::Boolean(switch) => Some(switch.to_string()),
            _ => None,
        };
        let outcome = setting.map(|set| match &text {
            Some(text) => set(text),
            None => Err("a text, a whole number, true or false".to_owned()),
        });
        let text = text.unwrap_or_else(|| value.type_str().to_owned());
        judge(outcome, self.name(path), &text, nearest)
    }

    /// The value that stands there in the file itself.
    pub(super) fn table(&self, key: &str) -> Option<&Value> {
        self.table.get(key)
    }

    /// A name together with where it stands.
    pub(super) fn name(&self, key: &str) -> String {
        format!("{key} in {}", self.path.display())
    }

    pub(super) fn subtable<'v>(&self, key: &str, value: &'v Value) -> Result<&'v Table, ConfigError> {
        value.as_table().ok_or_else(|| ConfigError::Invalid {
            name: self.name(key),
            value: value.type_str().to_owned(),
            rule: format!("a table, like [{}.NAME]", key.split('.').next().unwrap_or(key)),
        })
    }
}
