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
    handles::{Counter, Invocation, Register, Set},
    inbox::InboxMessage,
    members::Members,
    node::Shared,
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

/// How much the view can be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Complete as of the newest answer.
    Current,
    /// The budget ended in the middle of the backlog.
    CatchingUp {
        /// An upper bound of the rows that are missing.
        rows_left: u64,
    },
    /// The newest call failed; the view is what it was.
    Stale {
        /// Since the view was last complete.
        age: Duration,
        /// Why it is no newer.
        reason: Reason,
    },
    /// The view was never complete.
    Never {
        /// Why not.
        reason: Reason,
    },
}

/// What the log promises of what it has accepted. Kinds, not a scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Not said.
    #[default]
    Unknown,
    /// In the page cache of one machine.
    PageCache,
    /// In the memory of most machines of a cluster.
    Majority,
    /// On a disk.
    Fsync,
}

impl Durability {
    pub(crate) fn from_wire(kind: i32) -> Self {
        use v1::push_ack::Durability as Wire;
        match Wire::try_from(kind) {
            Ok(Wire::PageCache) => Self::PageCache,
            Ok(Wire::Majority) => Self::Majority,
            Ok(Wire::Fsync) => Self::Fsync,
            Ok(Wire::Unspecified) | Err(_) => Self::Unknown,
        }
    }
}

/// How an invocation's writes ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "writes that are not saved are lost if the process is killed while it sleeps"]
pub enum Slept {
    /// All of them are in the log.
    Saved {
        /// Where.
        revision: u64,
        /// What the log promises.
        durability: Durability,
    },
    /// Nothing was written.
    Nothing,
    /// Not all of them are. They are kept and go with the next wake, but are lost if the process is killed before;
    /// what was refused is in [`reports`](Awake::reports) of the next wake.
    Unsaved {
        /// Rows that still wait, or were refused.
        deltas: usize,
        /// Why.
        reason: Reason,
    },
}

impl Slept {
    /// Prints one line to standard error if something is not saved.
    pub fn warn_if_unsaved(&self) {
        if let Self::Unsaved { deltas, reason } = self {
            eprintln!("dormouse: {deltas} writes are not saved: {reason}");
        }
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

    /// The counter at `collection/key`.
    pub fn counter(&self, path: &str) -> Counter {
        Counter::new(self.invocation(), path)
    }

    /// The set at `collection/key`.
    pub fn set(&self, path: &str) -> Set {
        Set::new(self.invocation(), path)
    }

    /// The register at `collection/key`, which holds a `T` as JSON.
    pub fn register<T>(&self, path: &str) -> Register<T> {
        Register::new(self.invocation(), path)
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

    /// Reads keys of collections that are too large to follow; afterwards their handles show them. At most 100 paths
    /// go with one round trip.
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
            let saved = |state: &State| state.saved_upto >= said;
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
