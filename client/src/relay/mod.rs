//! For back ends, deploy scripts and people: callers that are no members.

mod consumer;
mod membership;
mod operations;
mod watch;

use std::time::Duration;

use dormouse_proto::{
    lattice::{Delta, Value},
    wire::v1::{self, mailbox_client::MailboxClient},
};

pub use consumer::{Batch, Consumer, NewEvent};
pub use membership::{
    Explanation, FloorEvent, GoneReason, Member, MemberCount, MemberEvent, MemberFilter, MemberState,
    RelayInfo,
};
pub use operations::Backup;
pub use watch::{MemberChanges, MemberWatch, Watch};

use crate::{
    config::process_env,
    connection::{ANSWER_MAX, Attempt, Budget, Connection},
    convert::key_rows,
    error::{ConfigError, Reason},
    mail::{SendOptions, Sent, drawn_id},
    outcome::Durability,
    replica::message::KeyRows,
    target::{Secret, Target},
};

/// A relay, seen from outside. Every call may be repeated, and is, once, on a new connection if the first one fails.
///
/// ```no_run
/// # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
/// let relay = dormouse::Relay::from_env()?;
/// relay.write(None, vec![dormouse::delta::counter_add(&"ads/shown".parse()?, 3)]).await?;
/// for key in relay.read(&["ads/*"]).await?.keys {
///     println!("{}/{} {:?}", key.collection, key.key, key.rows);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Relay {
    connection: Connection,
    namespace: String,
    timeout: Duration,
}

/// Settings of a [`Relay`].
#[derive(Clone, Debug, Default)]
pub struct RelayBuilder {
    target: Target,
    timeout: Option<Duration>,
}

/// What a call may take unless the builder says otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);

impl RelayBuilder {
    /// Where the relay is: `https://host:port`, or `http://` without TLS. Default `http://127.0.0.1:7400`.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.target.url = Some(url.into());
        self
    }

    /// Sent as `authorization: Bearer`. To another machine only under TLS, unless [`insecure`](Self::insecure) is said.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.target.token = Some(Secret::new(token));
        self
    }

    /// The certificate authority of an `https://` relay: the path of a file, or the PEM text itself. By default the roots
    /// that are compiled in, those of Mozilla.
    #[must_use]
    pub fn ca(mut self, ca: impl Into<String>) -> Self {
        self.target.ca = Some(ca.into());
        self
    }

    /// The certificate to show where the relay asks for one, and its key: each the path of a file, or the PEM text itself.
    #[must_use]
    pub fn client_cert(mut self, cert: impl Into<String>, key: impl Into<String>) -> Self {
        self.target.client_cert = Some(cert.into());
        self.target.client_key = Some(Secret::new(key));
        self
    }

    /// Lets the token travel to another machine in the clear. For a network that is closed by other means.
    #[must_use]
    pub fn insecure(mut self) -> Self {
        self.target.insecure = true;
        self
    }

    /// The application; by default the token's own, or `default`.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.target.namespace = Some(namespace.into());
        self
    }

    /// What one call may take, a retry included; default 5 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Checks the settings. Nothing is contacted; files that are named are read.
    ///
    /// # Errors
    /// The first setting that breaks its rule.
    pub fn build(self) -> Result<Relay, ConfigError> {
        Ok(Relay {
            connection: Connection::new(&self.target)?,
            namespace: self.target.checked_namespace()?,
            timeout: self.timeout.unwrap_or(TIMEOUT),
        })
    }
}

/// Keys as they were at one revision, or somewhat later in further pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The revision of the first page.
    pub as_of: u64,
    /// What is there. Every type under a name is returned; a set names its present elements.
    pub keys: Vec<KeyRows>,
}

/// A write was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Where it was bound, now or, if its id was known, then.
    pub revision: u64,
    /// What the log promises.
    pub durability: Durability,
    /// When `keys` were read.
    pub as_of: u64,
    /// The touched rows. What is left out is exactly what was asked for.
    pub keys: Vec<KeyRows>,
}

impl Relay {
    /// A relay as `DORMOUSE_URL`, `_TOKEN`, `_CA`, `_CLIENT_CERT`, `_CLIENT_KEY`, `_INSECURE` and `_NAMESPACE` describe it.
    ///
    /// # Errors
    /// The first variable that breaks its rule.
    pub fn from_env() -> Result<Self, ConfigError> {
        let target = Target::from_env(&process_env)?;
        RelayBuilder { target, timeout: None }.build()
    }

    /// A relay by settings; the environment is not read.
    pub fn builder() -> RelayBuilder {
        RelayBuilder::default()
    }

    /// Reads keys, at most 100 of `collection/key` or `collection/prefix*`. Of a log of events the oldest 500 entries are
    /// read; [`consumer`](Self::consumer) brings all of them.
    ///
    /// # Errors
    /// When the relay refuses or is not reached.
    pub async fn read(&self, keys: &[&str]) -> Result<Reading, Reason> {
        let mut message = v1::ReadRequest {
            namespace: self.namespace.clone(),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            ..v1::ReadRequest::default()
        };
        let mut reading = None;
        loop {
            let page = self
                .call(|channel, attempt| {
                    let request = attempt.request(message.clone());
                    async move { mailbox(channel).read(request).await }
                })
                .await?;
            let reading: &mut Reading =
                reading.get_or_insert_with(|| Reading { as_of: page.as_of, keys: Vec::new() });
            reading.keys.extend(page.keys.into_iter().filter_map(key_rows));
            if page.next_page_token.is_empty() {
                return Ok(reading.clone());
            }
            message.page_token = page.next_page_token;
        }
    }

    /// Applies deltas, all or none: at most 1,024, and one for each collection, key and type. `request_id`, 1-64 bytes,
    /// makes a repeat of the whole call harmless for an hour; without one an id is drawn, so only this call's own
    /// retries are.
    ///
    /// # Errors
    /// When the relay refuses or is not reached; in the latter case it may be accepted all the same.
    pub async fn write(&self, request_id: Option<&str>, deltas: Vec<Delta>) -> Result<Written, Reason> {
        let request_id = match request_id {
            Some(id) => id.to_owned(),
            None => drawn_id()?,
        };
        let message = v1::WriteRequest {
            namespace: self.namespace.clone(),
            request_id,
            deltas: deltas.into_iter().map(Into::into).collect(),
        };
        let written = self
            .call(|channel, attempt| {
                let request = attempt.request(message.clone());
                async move { mailbox(channel).write(request).await }
            })
            .await?;
        Ok(Written {
            revision: written.revision,
            durability: Durability::from_wire(written.durability),
            as_of: written.as_of,
            keys: written.keys.into_iter().filter_map(key_rows).collect(),
        })
    }

    /// Changes of collections as they happen, after everything that is there. `token`: of the newest chunk that was
    /// received before; empty: from the beginning.
    ///
    /// # Errors
    /// When the relay refuses or is not reached.
    pub async fn watch(&self, collections: &[&str], token: &[u8]) -> Result<Watch, Reason> {
        let message = v1::WatchRequest {
            namespace: self.namespace.clone(),
            collections: collections.iter().map(|name| (*name).to_owned()).collect(),
            token: token.to_vec().into(),
        };
        let stream = self
            .call(|channel, attempt| {
                let request = attempt.stream(message.clone());
                async move { mailbox(channel).watch(request).await }
            })
            .await?;
        Ok(Watch::new(stream))
    }

    /// Sends a message into the inbox of one node, which is given it at its next wake. Delivered once per `message_id` (1-64
    /// bytes), whoever repeats it; without one an id is drawn, so only this call's own retries are harmless. At most 64 KiB.
    ///
    /// ```no_run
    /// # async fn doc(relay: dormouse::Relay) -> Result<(), dormouse::Reason> {
    /// let stop = dormouse::Value::Text("{\"stop\":true}".to_owned());
    /// let options = dormouse::SendOptions { sender: Some("deploy".to_owned()), ..Default::default() };
    /// relay.send("0000000000001", Some("stop-17"), stop, options).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `NODE_UNKNOWN` or `NODE_GONE` when nobody would receive it, or when the relay refuses or is not reached; in the latter
    /// case it may be accepted all the same.
    pub async fn send(
        &self,
        node_id: &str,
        message_id: Option<&str>,
        payload: Value,
        options: SendOptions,
    ) -> Result<Sent, Reason> {
        let request = crate::mail::request(&self.namespace, node_id, message_id, payload, options)?;
        crate::mail::send(&self.connection, Budget::new(self.timeout), request).await
    }

    async fn call<T, F>(&self, send: impl FnMut(tonic::transport::Channel, Attempt) -> F) -> Result<T, Reason>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        self.connection.call(Budget::new(self.timeout), send).await
    }
}

fn mailbox(channel: tonic::transport::Channel) -> MailboxClient<tonic::transport::Channel> {
    MailboxClient::new(channel).max_decoding_message_size(ANSWER_MAX)
}
