//! The stream that is the log: how it is made, how one knows that it is ours, and what it holds now.
//!
//! Its one subject ends in the log's incarnation. That is atomic with its making, survives every truncation, works on
//! servers that keep no metadata, and keeps a relay that has not noticed yet from writing into a log that was made anew.

use std::error::Error as _;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{
    Context, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind, RequestError, RequestErrorKind,
};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, PersistenceMode, RetentionPolicy, State, StorageType,
};

use super::address::Address;
use super::{OpenError, Options};
use crate::log::{LogId, Position};

/// The broker drops a copy of a frame that it got within this time before. A bonus: nothing relies on it.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// A stream that another relay makes at the same moment is found at the second look.
const LOOKS: u32 = 3;

/// The ends of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edges {
    /// The oldest frame held; right behind the tail if there is none any more, 1 if there never was one.
    pub(super) first: Position,
    /// The newest frame there ever was.
    pub(super) tail: Option<Position>,
}

impl Edges {
    pub(super) fn of(state: &State) -> Self {
        Self {
            first: Position(state.first_sequence.max(1)),
            tail: (state.last_sequence > 0).then_some(Position(state.last_sequence)),
        }
    }

    /// Where the next frame will be.
    pub(super) fn end(&self) -> Position {
        self.tail.map_or(Position::FIRST, Position::next)
    }
}

pub(super) fn subject(stream: &str, log_id: LogId) -> String {
    format!("dormouse.{stream}.{log_id}")
}

/// The stream, found or made, and its incarnation.
pub(super) async fn open(
    context: &Context,
    address: &Address,
    options: &Options,
) -> Result<(Info, LogId), OpenError> {
    for _ in 0..LOOKS {
        match context.get_stream(&address.stream).await {
            Ok(stream) => return recognized(stream.cached_info(), address),
            Err(error) if is_not_found(&error) => create(context, address, options).await?,
            Err(error) => return Err(unavailable(address, &error)),
        }
    }
    Err(OpenError::Unreachable {
        address: address.to_string(),
        detail: "the stream was made and cannot be found".to_owned(),
    })
}

async fn create(context: &Context, address: &Address, options: &Options) -> Result<(), OpenError> {
    let words = [getrandom::u64(), getrandom::u64()];
    let [Ok(low), Ok(high)] = words else {
        return Err(OpenError::NoRandomness);
    };
    let log_id = LogId((u128::from(high) << 64) | u128::from(low));
    let config = Config {
        name: address.stream.clone(),
        subjects: vec![subject(&address.stream, log_id)],
        description: Some("the log of a Dormouse deployment".to_owned()),
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        // A full disk refuses frames; it never eats those that no snapshot covers yet.
        discard: DiscardPolicy::New,
        max_bytes: options.max_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        num_replicas: address.replicas,
        duplicate_window: DUPLICATE_WINDOW,
        deny_delete: true,
        ..Config::default()
    };
    match context.create_stream(config).await {
        Ok(_) => {
            tracing::info!(%address, %log_id, "a new log");
            Ok(())
        }
        Err(error) => match error.kind() {
            CreateStreamErrorKind::JetStream(inner) if inner.error_code() == ErrorCode::STREAM_NAME_EXIST => {
                Ok(())
            }
            _ => Err(OpenError::NotMade { address: address.to_string(), detail: error.to_string() }),
        },
    }
}

/// Whether the server says that there is no such stream. No answer at all is something else.
pub(super) fn is_not_found(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(inner) if inner.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn unavailable(address: &Address, error: &GetStreamError) -> OpenError {
    let address = address.to_string();
    let request = error.source().and_then(|source| source.downcast_ref::<RequestError>());
    if request.is_some_and(|it| it.kind() == RequestErrorKind::NoResponders) {
        OpenError::NoJetStream { address }
    } else {
        OpenError::Unreachable { address, detail: error.to_string() }
    }
}

fn recognized(info: &Info, address: &Address) -> Result<(Info, LogId), OpenError> {
    let address = address.to_string();
    let Some(log_id) = incarnation(&info.config) else {
        return Err(OpenError::NotALog { address });
    };
    if let Some(setting) = unsuitable(&info.config) {
        return Err(OpenError::Unsuitable { address, setting });
    }
    Ok((info.clone(), log_id))
}

/// The incarnation of a stream that is a log.
pub(super) fn incarnation(config: &Config) -> Option<LogId> {
    let [only] = config.subjects.as_slice() else { return None };
    let hex = only.strip_prefix("dormouse.")?.strip_prefix(config.name.as_str())?.strip_prefix('.')?;
    let log_id = LogId(u128::from_str_radix(hex, 16).ok()?);
    (subject(&config.name, log_id) == *only).then_some(log_id)
}

/// What somebody has set that would make the server drop frames on its own, or acknowledge what it does not have.
fn unsuitable(config: &Config) -> Option<&'static str> {
    let rules = [
        (config.retention == RetentionPolicy::Limits, "retention is not limits"),
        (config.discard == DiscardPolicy::New, "discard is not new, so that a full stream drops old frames"),
        (config.max_age.is_zero(), "max_age drops frames that no snapshot covers"),
        (config.storage == StorageType::File, "storage is not file"),
        (config.mirror.is_none() && config.sources.is_none(), "it gets messages from another stream"),
        (!config.no_ack, "no_ack leaves appends without an answer"),
        (!config.sealed, "it is sealed"),
        (
            !matches!(config.persist_mode, Some(PersistenceMode::Async)),
            "persist_mode async acknowledges frames before they are written",
        ),
    ];
    rules.into_iter().find_map(|(holds, complaint)| (!holds).then_some(complaint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_config() -> Config {
        Config {
            name: "fleet".to_owned(),
            subjects: vec!["dormouse.fleet.000000000000000000000000000000ff".to_owned()],
            discard: DiscardPolicy::New,
            ..Config::default()
        }
    }

    #[test]
    fn a_log_is_known_by_its_subject() {
        assert_eq!(incarnation(&log_config()), Some(LogId(255)));
        for subjects in [
            vec![],
            vec!["dormouse.fleet.ff".to_owned()],
            vec!["dormouse.other.000000000000000000000000000000ff".to_owned()],
            vec!["orders.>".to_owned()],
            vec![subject("fleet", LogId(1)), subject("fleet", LogId(2))],
        ] {
            assert_eq!(incarnation(&Config { subjects, ..log_config() }), None);
        }
    }

    #[test]
    fn a_stream_that_drops_frames_on_its_own_is_unsuitable() {
        assert_eq!(unsuitable(&log_config()), None);
        for config in [
            Config { discard: DiscardPolicy::Old, ..log_config() },
            Config { max_age: Duration::from_secs(3_600), ..log_config() },
            Config { retention: RetentionPolicy::Interest, ..log_config() },
            Config { storage: StorageType::Memory, ..log_config() },
            Config { persist_mode: Some(PersistenceMode::Async), ..log_config() },
        ] {
            assert!(unsuitable(&config).is_some(), "{config:?}");
        }
    }
}
