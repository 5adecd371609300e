//! One invocation.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use dormouse_proto::wire::v1::{self, mailbox_client::MailboxClient};
use tokio::time::Instant;

use crate::{
    connection::{self, Budget},
    convert::key_rows,
    error::{Reason, Stale},
    handles::{
        Counter, DisableWinsFlag, Events, Flag, GrowOnlySet, Invocation, Map, Max, Min, Place, Presence,
        Register, RemoveWinsSet, Set, Siblings,
    },
    inbox::InboxMessage,
    mail::{SendOptions, Sent},
    members::Members,
    node::Shared,
    outcome::{Durability, Freshness, Slept},
    replica::{
        Path, Pending,
        message::{KeyRows, Report},
    },
    state::{Says, State},
};

/// When an invocation ends, if that is known. From a `SystemTime` or the `Duration` that is left; one in the past or of
/// zero means "unknown", because emulators state such deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// Nobody knows.
    pub const UNKNOWN: Self = Self(None);

    /// The time that is left; `None`: unknown.
    pub(crate) fn left(self) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(Instant::now()))
    }
}

impl From<Duration> for Deadline {
    fn from(left: Duration) -> Self {
        let at = Instant::now().checked_add(left);
        Self(at.filter(|_| !left.is_zero()))
    }
}

impl From<SystemTime> for Deadline {
    fn from(at: SystemTime) -> Self {
        let left = at.duration_since(connection::wall_clock());
        left.map_or(Self::UNKNOWN, Self::from)
    }
}

/// One invocation, from [`wake`](crate::Node::wake) to [`sleep`](Self::sleep). Dropped without `sleep`, its writes go
/// with the next wake. Many may overlap; they share one view and one outbox.
#[derive(Debug)]
pub struct Awake {
    shared: Arc<Shared>,
    number: u64,
    deadline: Deadline,
    /// Something was written through one of its handles.
    wrote: Arc<AtomicBool>,
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.shared.state.lock().exit(self.number);
    }
}

impl Awake {
    pub(crate) fn enter(shared: &Arc<Shared>, deadline: Deadline) -> Self {
        let mut state = shared.state.lock();
        Self { number: state.enter(deadline), wrote: Arc::default(), shared: Arc::clone(shared), deadline }
    }

    pub(crate) const fn deadline(&self) -> Deadline {
        self.deadline
    }

    const fn invocation(&self) -> Invocation<'_> {
        Invocation { shared: &self.shared, wrote: &self.wrote }
    }

    fn place(&self, path: &str) -> Place {
        Place::new(self.invocation(), path)
    }

    /// The counter at `collection/key`.
    pub fn counter(&self, path: &str) -> Counter {
        Counter::at(self.place(path))
    }

    /// The set at `collection/key`.
    pub fn set(&self, path: &str) -> Set {
        Set::at(self.place(path))
    }

    /// The register at `collection/key`, which holds a `T` as JSON.
    pub fn register<T>(&self, path: &str) -> Register<T> {
        Register::at(self.place(path))
    }

    /// The flag at `collection/key`, in which an on wins.
    pub fn flag(&self, path: &str) -> Flag {
        Flag::at(self.place(path))
    }

    /// The flag at `collection/key`, in which an off wins.
    pub fn disable_wins_flag(&self, path: &str) -> DisableWinsFlag {
        DisableWinsFlag::at(self.place(path))
    }

    /// The largest number that was offered at `collection/key`.
    pub fn max(&self, path: &str) -> Max {
        Max::at(self.place(path))
    }

    /// The smallest number that was offered at `collection/key`.
    pub fn min(&self, path: &str) -> Min {
        Min::at(self.place(path))
    }

    /// The set at `collection/key` from which nothing is removed.
    pub fn grow_only_set(&self, path: &str) -> GrowOnlySet {
        GrowOnlySet::at(self.place(path))
    }

    /// The set at `collection/key`, in which a remove wins.
    pub fn remove_wins_set(&self, path: &str) -> RemoveWinsSet {
        RemoveWinsSet::at(self.place(path))
    }

    /// What was written concurrently at `collection/key`, each a `T` as JSON.
    pub fn siblings<T>(&self, path: &str) -> Siblings<T> {
        Siblings::at(self.place(path))
    }

    /// The log of events at `collection/key`, each a `T` as JSON.
    pub fn events<T>(&self, path: &str) -> Events<T> {
        Events::at(self.place(path))
    }

    /// What nodes hold up at `collection/key`, each a `T` as JSON.
    pub fn presence<T>(&self, path: &str) -> Presence<T> {
        Presence::at(self.place(path))
    }

    /// The nested map at `collection/key`, whose leaves are the keys below it.
    pub fn map(&self, path: &str) -> Map {
        Map::at(self.place(path))
    }

    /// How much the view can be trusted.
    pub fn freshness(&self) -> Freshness {
        self.shared.state.lock().view.freshness()
    }

    /// For code that would rather fail than act on an old view.
    ///
    /// # Errors
    /// [`Stale`] if the view was last complete longer than `max_age` ago, or never.
    pub fn require(&self, max_age: Duration) -> Result<(), Stale> {
        let state = self.shared.state.lock();
        match state.view.complete.map(|at| at.elapsed()) {
            Some(age) if age <= max_age => Ok(()),
            age => Err(Stale { age, reason: state.view.failed.clone().unwrap_or(Reason::NoAnswerYet) }),
        }
    }

    /// How many members there are, and who, if `@members` is followed.
    pub fn members(&self) -> Members {
        let state = self.shared.state.lock();
        Members::new(state.counts.as_ref(), &state.replica)
    }

    /// Messages to this node that have arrived since it woke, or while it last fell asleep, in the order in which the log
    /// accepted them. A process is given each once, whatever is delivered again.
    pub fn inbox(&self) -> Vec<InboxMessage> {
        self.shared.state.lock().inbox.list()
    }

    /// Those of [`inbox`](Self::inbox) that nobody has taken yet; each is handed out once, also where invocations overlap.
    pub fn take_inbox(&self) -> Vec<InboxMessage> {
        self.shared.state.lock().inbox.take()
    }

    /// Sends a message into the inbox of one node, which is given it at its next wake. Delivered once per `message_id` (1-64
    /// bytes), whoever repeats it; without one an id is drawn, so only this call's own retries are harmless. It counts at
    /// once and does not wait for [`sleep`](Self::sleep). At most 64 KiB; about 40 bytes more on the wire. Unless the
    /// options say otherwise the sender is this node's id.
    ///
    /// ```no_run
    /// # async fn doc(awake: dormouse::Awake, node_id: &str) -> Result<(), dormouse::Reason> {
    /// let text = dormouse::Value::Text("{\"stop\":true}".to_owned());
    /// awake.send(node_id, None, text, dormouse::SendOptions::default()).await?;
    /// for message in awake.take_inbox() {
    ///     println!("{} says {:?}", message.sender, message.payload);
    /// }
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
        payload: dormouse_proto::lattice::Value,
        options: SendOptions,
    ) -> Result<Sent, Reason> {
        let me = self.shared.with(crate::replica::Replica::node);
        let sender = options.sender.or_else(|| me.map(|(me, _)| me.to_string()));
        let options = SendOptions { sender, ..options };
        let namespace = &self.shared.config.namespace;
        let request = crate::mail::request(namespace, node_id, message_id, payload, options)?;
        let budget = Budget::new(self.shared.budget(self.deadline));
        crate::mail::send(&self.shared.connection, budget, request).await
    }

    /// Writes, or parts of them, that did not end as the program was told: refused, or sent with an outcome that
    /// nobody can know. Each is told once; the newest 1,024 are kept.
    pub fn reports(&self) -> Vec<Report> {
        self.shared.state.lock().take_reports()
    }

    /// What the relay has not confirmed yet.
    pub fn pending(&self) -> Pending {
        self.shared.with(crate::replica::Replica::pending)
    }

    /// Pushes, pulls and renews the lease now. Nothing does so in the background, so an invocation that outlasts its
    /// lease (3 s unless `wake` was told a deadline) may call this at convenient points, about once a second.
    ///
    /// # Errors
    /// Why the relay could not be asked; the view is unchanged then.
    pub async fn beat(&self) -> Result<(), Reason> {
        let ends_at = Instant::now() + self.shared.budget(self.deadline);
        let beaten = self.shared.converse(ends_at, &Says::Awake, |_| true).await;
        if let Err(reason) = &beaten {
            self.shared.state.lock().view.failed = Some(reason.clone());
        }
        beaten
    }

    /// Reads keys of collections that are too large to follow; afterwards their handles show them. Of a log of events the
    /// oldest 500 entries are read. At most 100 paths go with one round trip.
    ///
    /// # Errors
    /// [`Stale`], with the reason; what was held of those keys is unchanged then.
    pub async fn fetch(&self, paths: &[&str]) -> Result<(), Stale> {
        self.fetch_all(paths).await.map_err(|reason| Stale {
            age: self.shared.state.lock().view.complete.map(|at| at.elapsed()),
            reason,
        })
    }

    async fn fetch_all(&self, paths: &[&str]) -> Result<(), Reason> {
        let parsed: Result<Vec<Path>, _> = paths.iter().map(|path| path.parse()).collect();
        let parsed = parsed.map_err(|wrong| Reason::Malformed(wrong.to_string()))?;
        let ends_at = Instant::now() + self.shared.budget(self.deadline);
        for paths in parsed.chunks(dormouse_proto::convert::bounds::READ_KEYS) {
            let (as_of, keys) = self.read(paths, ends_at).await?;
            let mut state = self.shared.state.lock();
            state.replica.absorb_read(as_of, paths, keys);
        }
        Ok(())
    }

    /// All pages of one read, as of the first: rows of later pages are at least as new.
    async fn read(
        &self,
        paths: &[Path],
        ends_at: Instant,
    ) -> Result<(dormouse_proto::ids::Revision, Vec<KeyRows>), Reason> {
        let mut message = v1::ReadRequest {
            namespace: self.shared.config.namespace.clone(),
            min_revision: self.shared.with(|replica| replica.head().0),
            keys: paths.iter().map(ToString::to_string).collect(),
            ..v1::ReadRequest::default()
        };
        let (mut as_of, mut keys) = (u64::MAX, Vec::new());
        loop {
            let left = ends_at.saturating_duration_since(Instant::now());
            let send = |channel, attempt: crate::connection::Attempt| {
                let request = attempt.request(message.clone());
                async move {
                    let client = MailboxClient::new(channel);
                    let mut client = client.max_decoding_message_size(crate::connection::ANSWER_MAX);
                    client.read(request).await
                }
            };
            let page = self.shared.connection.call(Budget::new(left), send).await?;
            as_of = as_of.min(page.as_of);
            keys.extend(page.keys.into_iter().filter_map(key_rows));
            if page.next_page_token.is_empty() {
                return Ok((dormouse_proto::ids::Revision(as_of), keys));
            }
            message.page_token = page.next_page_token;
        }
    }

    /// Ends the invocation: pushes what was written and declares sleep, in one round trip unless more than 1,024 rows
    /// were written. With [`quiet`](crate::NodeBuilder::quiet), and nothing written, no call is made.
    pub async fn sleep(self) -> Slept {
        let (said, reported, silent) = {
            let state = self.shared.state.lock();
            let nothing = state.saved_upto >= state.said;
            let announced = self.shared.config.quiet && state.announced_sleep;
            let silent = nothing && (announced || state.has_others(self.number));
            (state.said, state.reported, silent)
        };
        let mut called = Ok(());
        if !silent {
            let ends_at = Instant::now() + self.shared.budget(self.deadline);
            let saved = |state: &State| state.saved_upto >= said && !state.replica.says_again();
            called = self.shared.converse(ends_at, &Says::Asleep(self.number), saved).await;
        }
        self.outcome(said, reported, called)
    }

    fn outcome(&self, said: u64, reported_before: u64, called: Result<(), Reason>) -> Slept {
        let state = self.shared.state.lock();
        let refused = usize::try_from(state.reported - reported_before).unwrap_or(usize::MAX);
        if state.saved_upto < said {
            let reason = called.err();
            return Slept::Unsaved {
                deltas: state.replica.pending().deltas,
                reason: reason.unwrap_or_else(|| Reason::NotReached("the budget is used up".to_owned())),
            };
        }
        if refused > 0 {
            return Slept::Unsaved {
                deltas: refused,
                reason: Reason::Refused {
                    word: "REFUSED".to_owned(),
                    message: "some writes were refused, see reports()".to_owned(),
                },
            };
        }
        if !self.wrote.load(Ordering::Relaxed) {
            return Slept::Nothing;
        }
        let (revision, durability) = state.last_ack.unwrap_or((state.replica.head().0, Durability::Unknown));
        Slept::Saved { revision, durability }
    }
}
