//! What a relay is told when it starts: read once, refused if wrong, passed by value.
//!
//! A setting has one name, in lower case in the file and as `DORMOUSE_` with capitals in the environment, and one
//! parser for both. With nothing set the relay starts, on its own log in its own folder.
//!
//! Invariants: the environment wins over the file; a name that is not known is refused and never ignored, because a
//! slip of the pen would otherwise run with a default; each bound is inside its limits.

mod connections;
mod floors;
mod keys;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    env, fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use dormouse_proto::{
    ids::{Group, Namespace},
    record::Policy,
};
use thiserror::Error;

pub use connections::ConnectionSettings;
pub use floors::FloorSettings;

use crate::{
    liveness::{LeasePolicy, LeaseSettings, LeaseSettingsError},
    log::{Durability, nats::Address, rabbitmq},
};

/// Where the file is looked for when `DORMOUSE_CONFIG` does not say.
const USUAL_FILE: &str = "dormouse.toml";

/// The settings of one relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where functions call: an IP address and a port. Elsewhere than on this machine only with TLS and tokens, or
    /// together with `insecure`.
    pub listen: SocketAddr,
    /// Whether `listen` may be reached from elsewhere without TLS, without tokens or without both. For a network that is
    /// closed by other means.
    pub insecure: bool,
    /// Where `/livez`, `/readyz` and `/metrics` are. It shows numbers and no state, but belongs to operators alone.
    pub admin_listen: SocketAddr,
    /// The relay's certificate and those between it and its authority, in PEM. `None`: no TLS. Read again when it changes.
    pub tls_cert: Option<PathBuf>,
    /// The key of that certificate, in PEM. Both or neither.
    pub tls_key: Option<PathBuf>,
    /// The authorities of the certificates that callers must show, in PEM. `None`: they need none.
    pub tls_client_ca: Option<PathBuf>,
    /// The hashes of the tokens that callers must send. `None`: nobody is asked. Read again when it changes.
    pub tokens_file: Option<PathBuf>,
    /// Which log holds everything.
    pub broker: Broker,
    /// The folder of the embedded log. On a local disk that keeps what it was told to sync; one relay per folder.
    pub data_dir: PathBuf,
    /// What the log must promise at least; the relay refuses to start on less. `None`: whatever the log can do.
    pub durability: Option<Durability>,
    /// What is logged: a tracing filter, like `RUST_LOG`.
    pub log: String,
    /// How a line of it looks.
    pub log_format: LogFormat,
    /// A collector of spans: the URL of its OTLP port for gRPC, such as `http://127.0.0.1:4317`. `None`: they go nowhere.
    pub otlp_endpoint: Option<String>,
    /// What callers may take before the relay knows them.
    pub connections: ConnectionSettings,
    /// The leases of every group that has none of its own.
    pub leases: LeaseSettings,
    /// The groups that differ. What a group does not say is as in `leases`.
    pub groups: BTreeMap<Group, LeaseSettings>,
    /// Pushes that may wait for the log; the next one is told to come back. What the log takes in one answer time of a
    /// client (half a second) is plenty: a push that waits longer is sent again. At most 1,048,576.
    pub queue_max: usize,
    /// Bytes of the waiting pushes. A fraction of the memory that the relay may use; at least one push (1 MiB),
    /// at most 16 GiB.
    pub queue_bytes_max: u64,
    /// Joins that may wait. Well below `queue_max`, so that a storm of cold starts leaves room for those who are in
    /// already; at most 1,048,576.
    pub joins_max: usize,
    /// Watch streams that may be open. Each holds a task and at most four chunks of 1 MiB; at most 65,536.
    pub watchers_max: usize,
    /// How long a watch stream waits for a reader that takes nothing, before it is cut off. Well above the longest pause
    /// of a reader that is well; 100 ms to 1 h.
    pub watch_patience_ms: u64,
    /// Bytes of log after which a snapshot is taken. A start reads about as much log behind the newest snapshot; a
    /// small value writes the whole state often. Of the order of the state's own size, and well below the room in
    /// `data_dir`; 1 MiB to 1 TiB.
    pub snapshot_every_bytes: u64,
    /// What every namespace may grow to. The fold enforces it, so it goes into the log when the relay starts, and what is
    /// not set here stays as the log has it.
    pub limits: Policy,
    /// The namespaces that differ.
    pub namespaces: BTreeMap<Namespace, Policy>,
    /// How many members must be alive, by the name of each floor.
    pub floors: BTreeMap<String, FloorSettings>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7400)),
            insecure: false,
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 7401)),
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            tokens_file: None,
            broker: Broker::Embedded,
            data_dir: PathBuf::from("./dormouse-data"),
            durability: None,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            otlp_endpoint: None,
            connections: ConnectionSettings::default(),
            leases: LeaseSettings::default(),
            groups: BTreeMap::new(),
            queue_max: 8_192,
            queue_bytes_max: 64 << 20,
            joins_max: 256,
            watchers_max: 1_024,
            watch_patience_ms: 30_000,
            snapshot_every_bytes: 64 << 20,
            limits: Policy::default(),
            namespaces: BTreeMap::new(),
            floors: BTreeMap::new(),
        }
    }
}

/// How a line of the relay's own words looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// An object for each, for programs.
    Json,
}

/// Which log holds everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broker {
    /// A file in `data_dir`.
    Embedded,
    /// A stream of NATS `JetStream`.
    Nats(Address),
    /// A stream of `RabbitMQ`.
    RabbitMq(rabbitmq::Address),
}

impl FromStr for Broker {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "embedded" => Ok(Self::Embedded),
            _ if text.starts_with("nats://") || text.starts_with("tls://") => text.parse().map(Self::Nats),
            _ if text.starts_with("amqp://") || text.starts_with("amqps://") => {
                text.parse().map(Self::RabbitMq)
            }
            _ => Err("\"embedded\", nats://... or amqp://...".to_owned()),
        }
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded"),
            Self::Nats(address) => address.fmt(f),
            Self::RabbitMq(address) => address.fmt(f),
        }
    }
}

/// Why the relay does not start with these settings.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file that was named, or the usual one, is there but cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{path}: {error}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Line, column and reason.
        error: String,
    },
    /// A name that is no setting.
    #[error("{name} is no setting of the relay{}", did_you_mean(.nearest.as_deref()))]
    Unknown {
        /// The name, and where it stood.
        name: String,
        /// A setting with a similar name.
        nearest: Option<String>,
    },
    /// A value that breaks its rule.
    #[error("{name} = {value}: must be {rule}")]
    Invalid {
        /// The name, and where it stood.
        name: String,
        /// What it was set to, without what may be secret in it.
        value: String,
        /// What it may be.
        rule: String,
    },
    /// A variable of the environment that is no text.
    #[error("{0} is not valid Unicode")]
    NotUnicode(String),
    /// Everybody who reaches that address could read and write everything, or read along.
    #[error(
        "listen = {0} is reached from other machines: set tls_cert, tls_key and tokens_file, or keep to a loopback address, or \
         set insecure = true (DORMOUSE_INSECURE=1) if the network is closed by other means"
    )]
    Open(SocketAddr),
    /// Settings that exclude each other, or a name that no group can have.
    #[error("{0}")]
    Refused(String),
    /// Leases that make no sense.
    #[error(
        "awake_lease_ms, asleep_lease_ms, asleep_lease_min_ms, asleep_lease_max_ms, lease_margin_ms, suspect_grace_ms: {0}"
    )]
    Leases(#[from] LeaseSettingsError),
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

/// Whether nobody else can connect to it.
pub fn is_on_this_machine(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

impl Config {
    /// The settings from this process's environment and the file.
    pub fn load() -> Result<Self, ConfigError> {
        let variables = env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(keys::PREFIX))
            .map(|(name, value)| match value.into_string() {
                Ok(value) => Ok((name, value)),
                Err(_) => Err(ConfigError::NotUnicode(name)),
            })
            .collect::<Result<BTreeMap<_, _>, _>>()?;
        let named = variables.get(keys::FILE).filter(|path| !path.is_empty());
        let path = PathBuf::from(named.map_or(USUAL_FILE, String::as_str));
        let file = match fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(ConfigError::Unreadable { path, source }),
        };
        Self::from_sources(variables, file.as_deref().map(|text| (path.as_path(), text)))
    }

    /// The settings from these variables and the text of this file, whose path is for messages only. Variables of
    /// other programs are passed over; an empty one counts as not set.
    pub fn from_sources(
        env: impl IntoIterator<Item = (String, String)>,
        file: Option<(&Path, &str)>,
    ) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let file = file.map(|(path, text)| keys::File::parse(path, text)).transpose()?;
        if let Some(file) = &file {
            file.apply(&mut config)?;
        }
        for (name, value) in env {
            keys::apply_variable(&mut config, &name, &value)?;
        }
        // After the environment, because a group differs from the defaults that hold in the end.
        if let Some(file) = &file {
            file.apply_groups(&mut config)?;
            file.apply_namespaces(&mut config)?;
            file.apply_floors(&mut config)?;
        }
        config.check()?;
        Ok(config)
    }

    /// What `GetRelay` tells of the bounds. All but the leases of single groups.
    pub fn limits(&self) -> BTreeMap<String, u64> {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        [
            ("queue_max", count(self.queue_max)),
            ("queue_bytes_max", self.queue_bytes_max),
            ("joins_max", count(self.joins_max)),
            ("watchers_max", count(self.watchers_max)),
            ("watch_patience_ms", self.watch_patience_ms),
            ("snapshot_every_bytes", self.snapshot_every_bytes),
            ("awake_lease_ms", self.leases.awake.0),
            ("asleep_lease_ms", self.leases.asleep.0),
            ("asleep_lease_min_ms", self.leases.asleep_min.0),
            ("asleep_lease_max_ms", self.leases.asleep_max.0),
            ("lease_margin_ms", self.leases.margin.0),
            ("suspect_grace_ms", self.leases.suspect_grace.0),
        ]
        .into_iter()
        .chain(self.connections.limits())
        .map(|(name, limit)| (name.to_owned(), limit))
        .collect()
    }

    /// The leases of all groups.
    pub fn lease_policy(&self) -> Result<LeasePolicy, LeaseSettingsError> {
        let groups = self.groups.iter().map(|(group, leases)| (group.clone(), *leases));
        LeasePolicy::new(self.leases, groups)
    }

    /// What whoever reaches `listen` from another machine could do; empty: nothing, or nobody reaches it.
    pub fn exposed(&self) -> &'static str {
        if is_on_this_machine(self.listen) {
            return "";
        }
        match (self.tls_cert.is_some(), self.tokens_file.is_some()) {
            (true, true) => "",
            (true, false) => "whoever reaches it may read and write everything: there are no tokens",
            (false, true) => "whoever is on the way reads tokens and everything else: there is no TLS",
            (false, false) => {
                "whoever reaches it may read and write everything: there are neither TLS nor tokens"
            }
        }
    }

    /// What no setting can be judged for alone.
    fn check(&self) -> Result<(), ConfigError> {
        let refused = |message: &str| Err(ConfigError::Refused(message.to_owned()));
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return refused("tls_cert and tls_key belong together: set both, or neither");
        }
        if self.tls_client_ca.is_some() && self.tls_cert.is_none() {
            return refused(
                "tls_client_ca asks callers for certificates, which takes TLS: set tls_cert and tls_key too",
            );
        }
        if !self.insecure && !self.exposed().is_empty() {
            return Err(ConfigError::Open(self.listen));
        }
        if self.listen == self.admin_listen && self.listen.port() != 0 {
            let message = format!("listen and admin_listen are both {}, but must differ", self.listen);
            return Err(ConfigError::Refused(message));
        }
        if self.connections.answer_ms < self.connections.request_ms {
            return refused(
                "answer_ms must not be below request_ms: a call ends after its request has arrived",
            );
        }
        self.lease_policy()?;
        Ok(())
    }
}
