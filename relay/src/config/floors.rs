//! The floors of the file: one table `[floor.NAME]` each. The environment has none, because a floor has a name.

use std::collections::BTreeSet;

use axum::http::Uri;
use dormouse_proto::{
    convert::bounds,
    ids::{Group, Namespace},
};
use toml::Value;

use super::{
    Config, ConfigError,
    keys::{File, Rule, Setter, find, nearest, number, put, shown},
};
use crate::{
    liveness::{FloorRule, Millis},
    selector::Selector,
};

/// The table of the file that holds a table for each floor.
pub(super) const FLOORS: &str = "floor";
/// The one setting of a floor that is a list.
const VALUES: &str = "values";
/// Floors of one relay. Each keeps the members that it counts.
const MOST: usize = 64;

/// How many members with a tag must be alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloorSettings {
    /// Whose members.
    pub namespace: Namespace,
    /// Which of them, by their tags; by default all.
    pub selector: Selector,
    /// Which of them, by what they run; `None`: all.
    pub group: Option<Group>,
    /// The tag whose values are counted apart; a member without it does not count. `None`: all count together.
    pub by: Option<String>,
    /// The values that must be there, and no others are looked at; none: each that was seen since the relay started.
    /// At most [`FloorRule::VALUES`].
    pub values: BTreeSet<String>,
    /// Fewer live members than this are too few. From 1; 0 only until it was read.
    pub minimum: u64,
    /// How long a count must have been too low, or high enough again, before that is told; virtual time, at most 1 h.
    pub settle: Millis,
    /// Where each event is posted to: an `http` address.
    pub webhook: Option<Uri>,
}

impl Default for FloorSettings {
    fn default() -> Self {
        Self {
            namespace: Namespace::default(),
            selector: Selector::default(),
            group: None,
            by: None,
            values: BTreeSet::new(),
            minimum: 0,
            settle: Millis::from_secs(2),
            webhook: None,
        }
    }
}

/// The settings of a floor that are one value.
const SETTINGS: &[(&str, Setter<FloorSettings>)] = &[
    ("namespace", |floor, text| put(&mut floor.namespace, text.parse().map_err(name_rule))),
    ("selector", |floor, text| put(&mut floor.selector, Selector::parse(text).map_err(selector_rule))),
    ("group", |floor, text| put(&mut floor.group, text.parse().map(Some).map_err(name_rule))),
    ("by", |floor, text| put(&mut floor.by, tag(text))),
    ("minimum", |floor, text| put(&mut floor.minimum, number(text, 1..=1 << 32))),
    ("settle_ms", |floor, text| put(&mut floor.settle, number(text, 0..=3_600_000).map(Millis))),
    ("webhook", |floor, text| put(&mut floor.webhook, address(text).map(Some))),
];

/// `a group must be 1-64 bytes of ...` stands behind `must be` here.
fn name_rule(error: impl ToString) -> Rule {
    let error = error.to_string();
    error.split_once(" must be ").map_or(error.clone(), |(_, rule)| rule.to_owned())
}

fn selector_rule(error: String) -> Rule {
    format!("a label selector, like \"zone in (a,b),!old\": {error}")
}

/// As for the tags of a node: another name would never be there.
fn tag(text: &str) -> Result<Option<String>, Rule> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
    match text {
        "" => Ok(None),
        _ if text.len() <= bounds::TAG_BYTES && text.bytes().all(allowed) => Ok(Some(text.to_owned())),
        _ => Err(format!("the name of a tag, at most {} bytes of [A-Za-z0-9._/-]", bounds::TAG_BYTES)),
    }
}

fn address(text: &str) -> Result<Uri, Rule> {
    if text.starts_with("https://") {
        return Err(
            "an address that begins with http://, because events are posted without TLS; let something on this \
                    machine carry it on"
                .to_owned(),
        );
    }
    let address: Option<Uri> = text.parse().ok();
    let is_whole = |address: &Uri| {
        let named = address.authority().is_some_and(|it| !it.host().is_empty() && !it.as_str().contains('@'));
        address.scheme_str() == Some("http") && named
    };
    address.filter(is_whole).ok_or_else(|| {
        "an address like http://127.0.0.1:8080/refill, without a user or a password".to_owned()
    })
}

impl File<'_> {
    /// The floors, each of which is whole in itself.
    pub(super) fn apply_floors(&self, config: &mut Config) -> Result<(), ConfigError> {
        let Some(floors) = self.table(FLOORS) else {
            return Ok(());
        };
        for (name, settings) in self.subtable(FLOORS, floors)? {
            config.floors.insert(name.clone(), self.floor(name, settings)?);
        }
        if config.floors.len() > MOST {
            let message = format!(
                "{}: there are {}, but at most {MOST} may be",
                self.name(FLOORS),
                config.floors.len()
            );
            return Err(ConfigError::Refused(message));
        }
        Ok(())
    }

    fn floor(&self, name: &str, settings: &Value) -> Result<FloorSettings, ConfigError> {
        let at = format!("{FLOORS}.{name}");
        let refused = |why: &str| ConfigError::Refused(format!("{}: {why}", self.name(&at)));
        // It is a label of the metrics, and stands in logs.
        if name.parse::<Group>().is_err() {
            return Err(refused("the name of a floor must be 1-64 bytes of [A-Za-z0-9._-]"));
        }
        let mut floor = FloorSettings::default();
        for (key, value) in self.subtable(&at, settings)? {
            let path = format!("{at}.{key}");
            if key == VALUES {
                floor.values = self.tag_values(&path, value)?;
                continue;
            }
            let place = &mut floor;
            let setting = find(SETTINGS, key).map(|set| move |text: &str| set(place, text));
            let known = SETTINGS.iter().map(|it| it.0).chain([VALUES]);
            self.set(&path, value, setting, || nearest(key, known).map(str::to_owned))?;
        }
        if floor.minimum == 0 {
            return Err(refused("a floor needs a minimum"));
        }
        if floor.by.is_none() && !floor.values.is_empty() {
            return Err(refused("values are those of the tag that `by` names, and `by` is empty"));
        }
        Ok(floor)
    }

    fn tag_values(&self, path: &str, value: &Value) -> Result<BTreeSet<String>, ConfigError> {
        let texts = value.as_array().and_then(|list| {
            let texts = list.iter().map(|it| it.as_str().map(str::to_owned));
            texts.collect::<Option<BTreeSet<String>>>()
        });
        let fits = |it: &String| it.len() <= bounds::TAG_BYTES && !it.chars().any(char::is_control);
        let texts = texts.filter(|texts| texts.len() <= FloorRule::VALUES && texts.iter().all(fits));
        texts.ok_or_else(|| ConfigError::Invalid {
            name: self.name(path),
            value: value.as_str().map_or_else(|| value.type_str().to_owned(), shown),
            rule: format!(
                "a list like [\"a\", \"b\"], of at most {} texts without control characters, each of at most {} bytes",
                FloorRule::VALUES,
                bounds::TAG_BYTES
            ),
        })
    }
}
