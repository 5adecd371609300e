//! Logs of events for back ends: appending, and consuming in batches from a place that the relay keeps.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use dormouse_proto::{
    convert::bounds,
    ids::{Group, OnceId, Revision},
    lattice::{Append, Value},
    wire::v1,
};

use super::{Relay, Written, mailbox};
use crate::{
    convert::key_rows,
    delta,
    error::Reason,
    handles::Event,
    replica::{
        Missed, Path,
        message::{EventRow, KeyRows, Rows},
    },
};

/// An entry to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// Its content, at most 256 KiB; other clients expect JSON in a text.
    pub payload: Value,
    /// With an id (1-64 bytes) it is appended once, whoever repeats it within an hour.
    pub id: Option<OnceId>,
}

/// Reads a log of events from where it stopped, batch by batch, each at least once.
///
/// Its position is a maximum beside the log, at the key `<key>@<consumer>`: it never moves back, also when two processes of
/// one name are at work, and a later process goes on from there. Only one batch is held at a time.
///
/// ```no_run
/// # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
/// let relay = dormouse::Relay::from_env()?;
/// let mut billing = relay.consumer("orders/clicks", "billing");
/// loop {
///     let Some(batch) = billing.next_batch().await? else {
///         tokio::time::sleep(std::time::Duration::from_secs(1)).await; // nothing new
///         continue;
///     };
///     if let Some(missed) = batch.missed {
///         eprintln!("entries up to {} were dropped before they were consumed", missed.upto);
///     }
///     for event in &batch.events {
///         println!("{:?}: {:?}", event.revision, event.payload);
///     }
///     batch.done().await?; // until then the same batch comes again, also to another process
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Consumer<'a> {
    relay: &'a Relay,
    names: Result<Names, Reason>,
    /// `None`: to be read.
    position: Option<Revision>,
    /// Nothing older than this may be shown: neither the position nor the log goes back at another relay.
    seen: u64,
}

/// The log, and where the position is kept.
#[derive(Clone, Debug)]
struct Names {
    log: Path,
    position: Path,
}

/// Some entries of a log, whole revisions, in their order: at most 500, and at most 3 MiB, unless a single revision has
/// more.
#[derive(Debug)]
#[must_use = "a batch that is not done comes again"]
pub struct Batch<'c, 'a> {
    /// The entries; none: all were dropped before they were consumed.
    pub events: Vec<Event>,
    /// The newest revision among them.
    pub upto: Revision,
    /// Entries were dropped before they were consumed. Also told to a new consumer of a log that was trimmed before.
    pub missed: Option<Missed>,
    consumer: &'c mut Consumer<'a>,
}

impl Names {
    fn new(log: &str, consumer: &str) -> Result<Self, Reason> {
        let malformed = |wrong: &dyn ToString| Reason::Malformed(wrong.to_string());
        let log: Path = log.parse().map_err(|wrong: crate::WriteError| malformed(&wrong))?;
        if consumer.parse::<Group>().is_err() {
            let rule = format!("{consumer:?}: a consumer's name must be 1-64 bytes of [A-Za-z0-9._-]");
            return Err(Reason::Malformed(rule));
        }
        let position = format!("{log}@{consumer}");
        let position = position.parse().map_err(|wrong: crate::WriteError| malformed(&wrong))?;
        Ok(Self { log, position })
    }

    /// Names the move to that revision; its repeat is harmless anyway.
    fn request_id(&self, upto: Revision) -> String {
        let mut hasher = DefaultHasher::new();
        self.position.hash(&mut hasher);
        format!("{:016x}-{upto}", hasher.finish())
    }
}

/// What a read has brought of a log.
#[derive(Debug, Default)]
struct Found {
    events: Vec<EventRow>,
    trimmed_upto: Revision,
}

impl Found {
    fn take(&mut self, log: &Path, key: KeyRows) {
        let is_log =
            (key.collection.as_str(), key.key.as_str()) == (log.collection.as_str(), log.key.as_str());
        if let (true, Rows::Events { events, trimmed_upto }) = (is_log, key.rows) {
            self.events.extend(events);
            self.trimmed_upto = self.trimmed_upto.max(trimmed_upto);
        }
    }

    /// Gives up the newest revision, of which more may be on a further page. Whether anything is left.
    fn only_whole_revisions(&mut self) -> bool {
        let newest = self.events.last().map(|event| event.revision);
        let whole = self.events.partition_point(|event| Some(event.revision) < newest);
        if whole > 0 {
            self.events.truncate(whole);
        }
        whole > 0
    }
}

impl Relay {
    /// Appends entries to a log of events, at most 500.
    ///
    /// # Errors
    /// When the path is malformed, the relay refuses or is not reached; in the latter case they may be appended all the
    /// same, and only those with an id may be appended again.
    pub async fn append(&self, path: &str, events: Vec<NewEvent>) -> Result<Written, Reason> {
        let path: Path =
            path.parse().map_err(|wrong: crate::WriteError| Reason::Malformed(wrong.to_string()))?;
        let append = events.into_iter().map(|NewEvent { payload, id }| Append { payload, id });
        self.write(None, vec![delta::events_append(&path, append)]).await
    }

    /// A consumer of the log of events at `collection/key`, by its name: 1-64 of `[A-Za-z0-9._-]`. No I/O happens; a
    /// malformed name is an error of the first batch.
    pub fn consumer(&self, path: &str, name: &str) -> Consumer<'_> {
        Consumer { relay: self, names: Names::new(path, name), position: None, seen: 0 }
    }
}

impl<'a> Consumer<'a> {
    /// The next entries after the last batch that was done; `None`: there are none now.
    ///
    /// # Errors
    /// When a name is malformed, the relay refuses or is not reached.
    pub async fn next_batch(&mut self) -> Result<Option<Batch<'_, 'a>>, Reason> {
        let names = self.names.clone()?;
        let after = match self.position {
            Some(position) => position,
            None => self.read_position(&names).await?,
        };
        self.position = Some(after);
        let found = self.read_after(&names.log, after).await?;
        let missed = (found.trimmed_upto > after).then_some(Missed { after, upto: found.trimmed_upto });
        let newest = found.events.last().map(|event| event.revision);
        let Some(upto) = newest.or(missed.map(|missed| missed.upto)) else { return Ok(None) };
        let events = found.events.into_iter().map(Event::of_row).collect();
        Ok(Some(Batch { events, upto, missed, consumer: self }))
    }

    async fn read_position(&mut self, names: &Names) -> Result<Revision, Reason> {
        let request = v1::ReadRequest { keys: vec![names.position.to_string()], ..self.request() };
        let page = self.read(request).await?;
        let mut rows = page.keys.into_iter().filter_map(key_rows).map(|key| key.rows);
        let position = rows.find_map(|rows| if let Rows::Max { value } = rows { value } else { None });
        Ok(Revision(position.and_then(|it| u64::try_from(it).ok()).unwrap_or(0)))
    }

    /// One page, or as many as a single revision takes.
    async fn read_after(&mut self, log: &Path, after: Revision) -> Result<Found, Reason> {
        let mut request = v1::ReadRequest {
            keys: vec![log.to_string()],
            events_after: after.0,
            max_events: u32::try_from(bounds::READ_EVENTS).unwrap_or(0),
            max_bytes: bounds::CHUNK_MAX,
            ..self.request()
        };
        let mut found = Found::default();
        loop {
            let page = self.read(request.clone()).await?;
            for key in page.keys.into_iter().filter_map(key_rows) {
                found.take(log, key);
            }
            if page.next_page_token.is_empty() || found.only_whole_revisions() {
                return Ok(found);
            }
            request.page_token = page.next_page_token;
        }
    }

    fn request(&self) -> v1::ReadRequest {
        v1::ReadRequest {
            namespace: self.relay.namespace.clone(),
            min_revision: self.seen,
            ..v1::ReadRequest::default()
        }
    }

    async fn read(&mut self, request: v1::ReadRequest) -> Result<v1::ReadResponse, Reason> {
        let page = self
            .relay
            .call(|channel, attempt| {
                let request = attempt.request(request.clone());
                async move { mailbox(channel).read(request).await }
            })
            .await?;
        self.seen = self.seen.max(page.as_of);
        Ok(page)
    }
}

impl Batch<'_, '_> {
    /// Moves the position behind this batch. Without this, or when it fails, the batch comes again.
    ///
    /// # Errors
    /// When the relay refuses or is not reached; in the latter case the position may have moved all the same.
    pub async fn done(self) -> Result<(), Reason> {
        let Self { consumer, upto, .. } = self;
        // Until the answer says so, nobody knows where the position is.
        consumer.position = None;
        let names = consumer.names.clone()?;
        let offer = i64::try_from(upto.0).unwrap_or(i64::MAX);
        let moves = vec![delta::max_offer(&names.position, offer)];
        let written = consumer.relay.write(Some(&names.request_id(upto)), moves).await?;
        consumer.seen = consumer.seen.max(written.as_of);
        consumer.position = Some(upto);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: u64, index: u32) -> EventRow {
        EventRow {
            revision: Revision(revision),
            index,
            payload: Value::Text("1".into()),
            node: None,
            accepted_at_ms: 0,
        }
    }

    #[test]
    fn the_position_is_a_key_beside_the_log() {
        let names = Names::new("orders/eu/clicks", "billing").expect("valid");
        assert_eq!(names.position.to_string(), "orders/eu/clicks@billing");
        assert!(names.request_id(Revision(u64::MAX)).len() <= 64);
        let other = Names::new("orders/views", "billing").expect("valid");
        assert_ne!(names.request_id(Revision(7)), other.request_id(Revision(7)));
        for (log, consumer) in [("orders", "billing"), ("orders/clicks", ""), ("orders/clicks", "a@b")] {
            assert!(matches!(Names::new(log, consumer), Err(Reason::Malformed(_))), "{log} {consumer}");
        }
    }

    #[test]
    fn of_a_page_that_was_cut_only_whole_revisions_are_taken() {
        let mut cut = Found { events: vec![event(3, 0), event(3, 1), event(4, 0)], ..Found::default() };
        assert!(cut.only_whole_revisions());
        assert_eq!(cut.events.len(), 2);
        assert!(!cut.only_whole_revisions(), "one revision is not given up: the rest of it is read");
        assert_eq!(cut.events.len(), 2);
    }
}
