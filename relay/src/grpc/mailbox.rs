//! The Mailbox service.

use std::{pin::Pin, time::Duration};

use dormouse_proto::{
    convert::{Follow, Intent, Mail, PullRequest, SyncCall, Violation, Violations, bounds, deltas_from_wire},
    ids::{Collection, Namespace, OnceId, Revision},
    lattice::{Delta, Type},
    record::{self, Record, Write},
    rows::RowWriter,
    wire::{encoded, services::mailbox_server::Mailbox, v1},
};
use prost::Message as _;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::{Service, caller, encode, namespace, patience, sync::Sync};
use crate::{
    access::Caller,
    error::RelayError,
    metrics::PushResult,
    state::{ReadBounds, SendVerdict, Verdict, WriteVerdict},
};

#[tonic::async_trait]
impl Mailbox for Service {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<encoded::WatchResponse, Status>> + Send>>;

    async fn sync(
        &self,
        request: Request<v1::SyncRequest>,
    ) -> Result<Response<encoded::SyncResponse>, Status> {
        let patience = patience::of(request.metadata());
        let caller = caller(request.extensions()).map_err(|error| self.refused(error))?;
        let message = request.into_inner();
        caller.admits(&message.namespace).map_err(|denied| self.refused(denied.into()))?;
        let call = SyncCall::try_from(message).map_err(|it| self.refused(it.into()))?;
        self.count_call(&call);
        let namespace = call.namespace.clone().unwrap_or_else(|| caller.own());
        let answer = Sync::new(self, call, namespace, patience).run().await;
        Ok(Response::new(answer.map_err(|error| self.refused(error))?))
    }

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<v1::ReadResponse>, Status> {
        let patience = patience::of(request.metadata());
        let caller = caller(request.extensions()).map_err(|error| self.refused(error))?;
        let answer = self.read_keys(&caller, request.into_inner(), patience).await;
        Ok(Response::new(answer.map_err(|error| self.refused(error))?))
    }

    async fn write(&self, request: Request<v1::WriteRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        let patience = patience::of(request.metadata());
        let caller = caller(request.extensions()).map_err(|error| self.refused(error))?;
        let answer = self.write_deltas(&caller, request.into_inner(), patience).await;
        Ok(Response::new(answer.map_err(|error| self.refused(error))?))
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let caller = caller(request.extensions()).map_err(|error| self.refused(error))?;
        let v1::WatchRequest { namespace: name, collections, token } = request.into_inner();
        let namespace = namespace(&caller, name).map_err(|error| self.refused(error))?;
        let follow = Follow::from_names(collections, "collections").map_err(|it| self.refused(it.into()))?;
        let pull = PullRequest {
            token: token.into(),
            follow,
            max_bytes: bounds::CHUNK_DEFAULT as usize,
            ..PullRequest::default()
        };
        let stream = self.watch_rows(&caller, namespace, pull).map_err(|error| self.refused(error))?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn send(&self, request: Request<v1::SendRequest>) -> Result<Response<v1::SendResponse>, Status> {
        let patience = patience::of(request.metadata());
        let caller = caller(request.extensions()).map_err(|error| self.refused(error))?;
        let answer = self.send_mail(&caller, request.into_inner(), patience).await;
        Ok(Response::new(answer.map_err(|error| self.refused(error))?))
    }
}

/// A name in a read: one key, or all with a prefix.
struct Wanted {
    collection: Collection,
    pattern: String,
}

impl Service {
    fn count_call(&self, call: &SyncCall) {
        if call.push.is_none() && call.pull.is_none() {
            self.relay.metrics.beat();
        } else if matches!(call.intent, Intent::Awake { .. }) {
            self.relay.metrics.woke();
        }
    }

    async fn write_deltas(
        &self,
        caller: &Caller,
        request: v1::WriteRequest,
        patience: Duration,
    ) -> Result<v1::WriteResponse, RelayError> {
        caller.admits(&request.namespace)?;
        let bytes = request.encoded_len();
        if bytes > bounds::PUSH_BYTES {
            return Err(RelayError::Invalid(
                Violation::too_large("deltas", bytes, bounds::PUSH_BYTES, "bytes").into(),
            ));
        }
        let v1::WriteRequest { namespace: name, request_id, deltas } = request;
        let namespace = namespace(caller, name)?;
        let request_id: OnceId =
            request_id.try_into().map_err(|error| Violations::from(Violation::new("request_id", error)))?;
        let deltas = deltas_from_wire(deltas, "deltas")?;
        refuse_presence(&deltas)?;
        let count = deltas.len();
        let record = Record::Write(Write { namespace: namespace.clone(), request_id, deltas });
        let outcome = self.relay.sequencer.write(record, bytes, Some(RowWriter::WRITE), patience).await?;
        let Verdict::Write(verdict) = outcome.verdict else { return Err(RelayError::LogUnreachable) };
        match verdict {
            WriteVerdict::Bound { revision, duplicate } => {
                let result = if duplicate { PushResult::Duplicate } else { PushResult::Bound };
                self.relay.metrics.pushed(&namespace, result, count);
                // Back ends read few rows, so these become messages again.
                let touched = v1::WriteResponse::decode(outcome.touched.as_slice()).unwrap_or_default();
                Ok(v1::WriteResponse {
                    revision: revision.0,
                    // 0: the rows did not fit into an answer and are to be read.
                    as_of: if outcome.is_whole { outcome.revision.0 } else { 0 },
                    durability: encode::durability(self.relay.sequencer.log().durability) as i32,
                    keys: touched.keys,
                })
            }
            WriteVerdict::Refused(refused) => {
                self.relay.metrics.pushed(&namespace, PushResult::Refused, count);
                Err(RelayError::Refused { refused, path: "deltas" })
            }
        }
    }

    async fn send_mail(
        &self,
        caller: &Caller,
        request: v1::SendRequest,
        patience: Duration,
    ) -> Result<v1::SendResponse, RelayError> {
        caller.admits(&request.namespace)?;
        let bytes = request.encoded_len();
        let Mail { namespace, node, message_id, sender, payload, ttl_ms } = request.try_into()?;
        let namespace = namespace.unwrap_or_else(|| caller.own());
        let limits = {
            let applied = self.relay.sequencer.read();
            applied.fold.namespace(&namespace).map_or(*applied.fold.limits(), |view| *view.limits())
        };
        let send = record::Send { namespace, node, message_id, sender, payload, ttl_ms };
        let outcome = self.relay.sequencer.write(Record::Send(send), bytes, None, patience).await?;
        let Verdict::Send(verdict) = outcome.verdict else { return Err(RelayError::LogUnreachable) };
        match verdict {
            SendVerdict::Accepted { revision, .. } => Ok(v1::SendResponse {
                revision: revision.0,
                durability: encode::durability(self.relay.sequencer.log().durability) as i32,
            }),
            SendVerdict::Unknown => Err(RelayError::NodeUnknown(node.to_string())),
            SendVerdict::Gone => Err(RelayError::NodeEnded(node.to_string())),
            SendVerdict::Full => {
                Err(RelayError::InboxFull { messages: limits.inbox_max, bytes: limits.inbox_bytes_max })
            }
        }
    }

    async fn read_keys(
        &self,
        caller: &Caller,
        request: v1::ReadRequest,
        patience: Duration,
    ) -> Result<v1::ReadResponse, RelayError> {
        let v1::ReadRequest {
            namespace: name,
            min_revision,
            max_bytes,
            page_token,
            events_after,
            max_events,
            keys,
        } = request;
        let namespace = namespace(caller, name)?;
        let wanted = wanted(keys)?;
        let (first, after) = read_page_token(&page_token, wanted.len())?;
        let min_revision = Revision(min_revision);
        self.catch_up(Revision::ZERO, min_revision, patience).await;
        let max_bytes = match max_bytes {
            0 => bounds::CHUNK_DEFAULT,
            wanted => wanted.clamp(bounds::CHUNK_MIN, bounds::CHUNK_MAX),
        };
        let max_events = match max_events as usize {
            0 => bounds::READ_EVENTS,
            wanted => wanted.min(bounds::READ_EVENTS),
        };
        let bounds =
            ReadBounds { max_bytes: max_bytes as usize, events_after: Revision(events_after), max_events };
        self.read_page(&namespace, &wanted, (first, after), bounds, min_revision)
    }

    fn read_page(
        &self,
        namespace: &Namespace,
        wanted: &[Wanted],
        (first, mut after): (usize, Option<String>),
        bounds: ReadBounds,
        min_revision: Revision,
    ) -> Result<v1::ReadResponse, RelayError> {
        let applied = self.relay.sequencer.read();
        let has = applied.fold.revision();
        if has < min_revision {
            return Err(RelayError::Behind { wanted: min_revision, has });
        }
        let (mut rows, mut next_page_token) = (Vec::new(), String::new());
        if let Some(view) = applied.fold.namespace(namespace) {
            let mut writer = RowWriter::new(&mut rows, RowWriter::READ);
            for (nth, Wanted { collection, pattern }) in wanted.iter().enumerate().skip(first) {
                if writer.len() >= bounds.max_bytes {
                    next_page_token = page_token(nth, None);
                    break;
                }
                let after = after.take();
                if let Some(last) =
                    view.write_matching(collection.as_str(), pattern, after.as_deref(), bounds, &mut writer)
                {
                    next_page_token = page_token(nth, Some(&last));
                    break;
                }
            }
            writer.finish();
        }
        drop(applied);
        let read = v1::ReadResponse::decode(rows.as_slice()).unwrap_or_default();
        Ok(v1::ReadResponse { as_of: has.0, keys: read.keys, next_page_token, conditions: self.conditions() })
    }
}

/// Only a node can hold something up, and a caller of Write is none.
fn refuse_presence(deltas: &[Delta]) -> Result<(), RelayError> {
    let of_a_node = |it: &(usize, &Delta)| it.1.change.kind() == Type::Presence;
    match deltas.iter().enumerate().find(of_a_node) {
        None => Ok(()),
        Some((nth, _)) => {
            let field = format!("deltas[{nth}].presence");
            Err(Violations::from(Violation::new(field, "presence is pushed by its node, with Sync")).into())
        }
    }
}

fn wanted(keys: Vec<String>) -> Result<Vec<Wanted>, RelayError> {
    if keys.len() > bounds::READ_KEYS {
        return Err(RelayError::Invalid(
            Violation::too_large("keys", keys.len(), bounds::READ_KEYS, "names").into(),
        ));
    }
    let mut wrong = Vec::new();
    let mut wanted = Vec::new();
    for (nth, path) in keys.into_iter().enumerate() {
        let Some((collection, pattern)) = path.split_once('/') else {
            wrong
                .push(Violation::new(format!("keys[{nth}]"), "must be collection/key or collection/prefix*"));
            continue;
        };
        match collection.parse() {
            Ok(collection) => wanted.push(Wanted { collection, pattern: pattern.to_owned() }),
            Err(error) => wrong.push(Violation::new(format!("keys[{nth}]"), error)),
        }
    }
    wrong.truncate(Violations::NAMED);
    if wrong.is_empty() { Ok(wanted) } else { Err(RelayError::Invalid(Violations(wrong))) }
}

/// Which of the names comes next, and behind which key of it.
fn page_token(nth: usize, after: Option<&str>) -> String {
    match after {
        Some(after) => format!("{nth}/{after}"),
        None => nth.to_string(),
    }
}

fn read_page_token(token: &str, names: usize) -> Result<(usize, Option<String>), RelayError> {
    if token.is_empty() {
        return Ok((0, None));
    }
    let (nth, after) =
        token.split_once('/').map_or((token, None), |(nth, after)| (nth, Some(after.to_owned())));
    let nth: usize = nth.parse().map_err(|_| RelayError::PageTokenInvalid)?;
    if nth < names { Ok((nth, after)) } else { Err(RelayError::PageTokenInvalid) }
}
