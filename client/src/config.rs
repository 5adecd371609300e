//! Settings: read once, refused if wrong, no I/O.

use std::{collections::BTreeMap, time::Duration};

use dormouse_proto::{
    convert::bounds,
    ids::{Group, InvalidName},
};

use crate::{
    connection::Connection,
    error::ConfigError,
    node::Node,
    replica::Follow,
    target::{Secret, Target},
};

/// Reads a variable; empty counts as not set.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The process's environment.
pub(crate) fn process_env(key: &str) -> Option<String> {
    std::env::var_os(key).map(|value| value.to_string_lossy().into_owned())
}

pub(crate) fn var(env: Env<'_>, key: &str) -> Option<String> {
    env(key).filter(|value| !value.is_empty())
}

pub(crate) fn invalid(key: &'static str) -> impl Fn(InvalidName) -> ConfigError {
    move |wrong| ConfigError::new(key, wrong.to_string())
}

/// Settings of a [`Node`]. Every setting has the environment variable of the same name behind it.
#[derive(Clone, Debug, Default)]
pub struct NodeBuilder {
    target: Target,
    group: Option<String>,
    tags: BTreeMap<String, String>,
    follow: Vec<String>,
    budget: Option<Duration>,
    outbox_bytes: Option<usize>,
    quiet: bool,
}

/// Checked settings of a node.
#[derive(Clone, Debug)]
pub(crate) struct NodeConfig {
    pub(crate) namespace: String,
    pub(crate) group: String,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) follow: Follow,
    pub(crate) budget: Duration,
    pub(crate) outbox_bytes: usize,
    pub(crate) quiet: bool,
}

/// What one wake or sleep may cost unless `DORMOUSE_BUDGET_MS` says otherwise.
const BUDGET: Duration = Duration::from_millis(500);
/// What may wait to be pushed: some thousand small writes.
const OUTBOX_BYTES: usize = 4 << 20;

impl NodeBuilder {
    /// Where the relay is: `https://host:port`, or `http://` without TLS. Default `http://127.0.0.1:7400`. `DORMOUSE_URL`.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.target.url = Some(url.into());
        self
    }

    /// Sent as `authorization: Bearer`. To another machine only under TLS, unless [`insecure`](Self::insecure) is said.
    /// `DORMOUSE_TOKEN`.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.target.token = Some(Secret::new(token));
        self
    }

    /// The certificate authority of an `https://` relay: the path of a file, or the PEM text itself. By default the roots
    /// that are compiled in, those of Mozilla. `DORMOUSE_CA`.
    #[must_use]
    pub fn ca(mut self, ca: impl Into<String>) -> Self {
        self.target.ca = Some(ca.into());
        self
    }

    /// The certificate that this node shows where the relay asks for one, and its key: each the path of a file, or the PEM
    /// text itself. `DORMOUSE_CLIENT_CERT`, `DORMOUSE_CLIENT_KEY`.
    #[must_use]
    pub fn client_cert(mut self, cert: impl Into<String>, key: impl Into<String>) -> Self {
        self.target.client_cert = Some(cert.into());
        self.target.client_key = Some(Secret::new(key));
        self
    }

    /// Lets the token travel to another machine in the clear. For a network that is closed by other means.
    /// `DORMOUSE_INSECURE`.
    #[must_use]
    pub fn insecure(mut self) -> Self {
        self.target.insecure = true;
        self
    }

    /// The application, 1-64 of `[a-z0-9._-]`; by default the token's own, or `default`. `DORMOUSE_NAMESPACE`.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.target.namespace = Some(namespace.into());
        self
    }

    /// What this node runs, without its version: 1-64 of `[A-Za-z0-9._-]`. Wake gaps are learned per group. By default
    /// the function's name or the program's. `DORMOUSE_GROUP`.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// A free label; at most 16 of them, 1 KiB in all. `DORMOUSE_TAGS`: `zone=a,stage=prod`.
    #[must_use]
    pub fn tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(name.into(), value.into());
        self
    }

    /// Follows a collection: its rows come with every wake. `*`, the default, stands for all but `@members`, which
    /// brings the names of the other nodes. At most 64. `DORMOUSE_COLLECTIONS`: `ads,flags`.
    #[must_use]
    pub fn follow(mut self, collection: impl Into<String>) -> Self {
        self.follow.push(collection.into());
        self
    }

    /// The most that a wake or a sleep may cost, 1 ms to 60 s; default 500 ms. Never more than a fifth of what is left
    /// of the invocation. `DORMOUSE_BUDGET_MS`.
    #[must_use]
    pub fn budget(mut self, budget: Duration) -> Self {
        self.budget = Some(budget);
        self
    }

    /// What may wait to be pushed, in bytes; default 4 MiB, at least 1 KiB. Beyond it writes are refused.
    #[must_use]
    pub fn outbox_bytes(mut self, bytes: usize) -> Self {
        self.outbox_bytes = Some(bytes);
        self
    }

    /// For functions that mostly read: `wake` announces the sleep that follows, and a [`sleep`](crate::Awake::sleep)
    /// without anything written makes no call.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Checks the settings. Nothing is contacted, only files that are named are read, and no identity is drawn, so the
    /// process may be snapshotted and cloned afterwards.
    ///
    /// # Errors
    /// The first setting that breaks its rule.
    pub fn build(self) -> Result<Node, ConfigError> {
        let connection = Connection::new(&self.target)?;
        Ok(Node::new(self.checked()?, connection))
    }

    pub(crate) fn from_env(env: Env<'_>) -> Result<Self, ConfigError> {
        let mut tags = tags_from(var(env, "DORMOUSE_TAGS").as_deref().unwrap_or(""))?;
        for (name, key) in [
            ("region", "AWS_REGION"),
            ("version", "AWS_LAMBDA_FUNCTION_VERSION"),
            ("memory", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE"),
        ] {
            if let Some(value) = var(env, key) {
                tags.entry(name.to_owned()).or_insert(value);
            }
        }
        let follow = var(env, "DORMOUSE_COLLECTIONS").unwrap_or_default();
        let budget = var(env, "DORMOUSE_BUDGET_MS").map(|text| {
            let wrong = |_| ConfigError::new("DORMOUSE_BUDGET_MS", "must be a whole number of milliseconds");
            text.parse().map(Duration::from_millis).map_err(wrong)
        });
        let platform = ["AWS_LAMBDA_FUNCTION_NAME", "K_SERVICE"];
        Ok(Self {
            target: Target::from_env(env)?,
            group: var(env, "DORMOUSE_GROUP")
                .or_else(|| platform.iter().find_map(|key| var(env, key)).map(|name| group_like(&name))),
            tags,
            follow: split_list(&follow).map(str::to_owned).collect(),
            budget: budget.transpose()?,
            ..Self::default()
        })
    }

    fn checked(self) -> Result<NodeConfig, ConfigError> {
        let group = self.group.unwrap_or_else(program_name);
        let group = Group::try_from(group).map_err(invalid("DORMOUSE_GROUP"))?;
        check_tags(&self.tags)?;
        if self.follow.len() > Follow::MAX {
            return Err(ConfigError::new("DORMOUSE_COLLECTIONS", "at most 64 collections"));
        }
        let follow = if self.follow.is_empty() {
            Follow::everything()
        } else {
            Follow::new(self.follow).map_err(invalid("DORMOUSE_COLLECTIONS"))?
        };
        let budget = self.budget.unwrap_or(BUDGET);
        if !(Duration::from_millis(1)..=Duration::from_secs(60)).contains(&budget) {
            return Err(ConfigError::new("DORMOUSE_BUDGET_MS", "must be between 1 ms and 60 s"));
        }
        let outbox_bytes = self.outbox_bytes.unwrap_or(OUTBOX_BYTES);
        if outbox_bytes < 1024 {
            return Err(ConfigError::new("outbox_bytes", "must be at least 1 KiB"));
        }
        Ok(NodeConfig {
            namespace: self.target.checked_namespace()?,
            group: group.into(),
            tags: self.tags,
            follow,
            budget,
            outbox_bytes,
            quiet: self.quiet,
        })
    }
}

fn split_list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn tags_from(text: &str) -> Result<BTreeMap<String, String>, ConfigError> {
    let pair = |part: &str| {
        let (name, value) = part
            .split_once('=')
            .ok_or_else(|| ConfigError::new("DORMOUSE_TAGS", format!("{part:?} is not name=value")))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    };
    split_list(text).map(pair).collect()
}

fn check_tags(tags: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    let wrong = |rule: String| Err(ConfigError::new("DORMOUSE_TAGS", rule));
    if tags.len() > bounds::TAGS {
        return wrong(format!("{} tags, the limit is {}", tags.len(), bounds::TAGS));
    }
    let bytes: usize = tags.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > bounds::TAG_BYTES {
        return wrong(format!("{bytes} bytes, the limit is {}", bounds::TAG_BYTES));
    }
    let named = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
    for (name, value) in tags {
        if name.is_empty() || !name.bytes().all(named) || value.chars().any(char::is_control) {
            return wrong(format!(
                "{name:?}: a name is of [A-Za-z0-9._/-], a value has no control characters"
            ));
        }
    }
    Ok(())
}

fn program_name() -> String {
    let path = std::env::current_exe().ok();
    let stem = path.as_deref().and_then(std::path::Path::file_stem);
    group_like(&stem.map_or_else(String::new, |stem| stem.to_string_lossy().into_owned()))
}

/// A name that somebody else chose, in the alphabet of groups.
fn group_like(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name: String = name.chars().take(64).map(|c| if allowed(c) { c } else { '-' }).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(vars: &[(&str, &str)]) -> Result<NodeConfig, ConfigError> {
        let env =
            |key: &str| vars.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned());
        NodeBuilder::from_env(&env)?.checked()
    }

    #[test]
    fn with_nothing_set_a_node_follows_everything() {
        let config = checked(&[]).expect("valid");
        assert_eq!(config.follow.names(), ["*"]);
        assert_eq!((config.budget, config.namespace.as_str()), (BUDGET, ""));
        assert!(!config.group.is_empty());
    }

    #[test]
    fn a_function_says_what_and_where_it_is() {
        let config = checked(&[
            ("DORMOUSE_URL", "http://relay:7400"),
            ("AWS_LAMBDA_FUNCTION_NAME", "ads"),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "17"),
            ("DORMOUSE_TAGS", "zone=a, version=own"),
            ("DORMOUSE_COLLECTIONS", "ads,@members"),
        ])
        .expect("valid");
        assert_eq!(config.group, "ads");
        let tags: Vec<_> = config.tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(tags, ["region=eu-west-1", "version=own", "zone=a"]);
        assert!(config.follow.members() && config.follow.covers("ads") && !config.follow.covers("flags"));
    }

    #[test]
    fn inside_a_function_the_relay_must_be_named() {
        let error = checked(&[("K_SERVICE", "ads")]).expect_err("no relay");
        assert_eq!(error.key(), "DORMOUSE_URL");
        assert!(error.to_string().contains("required inside a function"));
    }

    #[test]
    fn a_malformed_setting_is_refused_by_its_name() {
        for (key, value) in [
            ("DORMOUSE_BUDGET_MS", "soon"),
            ("DORMOUSE_BUDGET_MS", "0"),
            ("DORMOUSE_TAGS", "zone"),
            ("DORMOUSE_GROUP", "a b"),
            ("DORMOUSE_COLLECTIONS", "Ads"),
            ("DORMOUSE_NAMESPACE", "Shop"),
        ] {
            assert_eq!(checked(&[(key, value)]).expect_err(value).key(), key);
        }
    }

    #[test]
    fn a_url_that_this_build_cannot_speak_to_is_refused() {
        for url in ["amqp://relay", "relay:7400", "http://", "https://"] {
            let error = NodeBuilder::default().url(url).build().expect_err(url);
            assert_eq!(error.key(), "DORMOUSE_URL");
        }
    }
}
