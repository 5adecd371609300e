//! One function instance: its identity, its replica, and the one call that keeps both current.

use std::{collections::BTreeMap, collections::VecDeque, sync::Arc, time::Duration};

use dormouse_proto::{
    ids::{CallId, PushId},
    wire::v1::{self, mailbox_client::MailboxClient},
};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    awake::{Awake, Deadline, Durability, Freshness},
    config::{NodeBuilder, NodeConfig, process_env},
    connection::{ANSWER_MAX, Connection, Moment},
    convert::{Absorbed, absorb, outgoing},
    error::{ConfigError, Reason},
    replica::{Replica, WriteError, message::Report},
};

/// A function, and hence a member. One per process, made once and outside the handler; clones are the same node.
///
/// Nothing happens in the background, and nothing before the first [`wake`](Self::wake): a process that was only
/// initialised may be snapshotted and cloned.
#[derive(Clone, Debug)]
pub struct Node(Arc<Shared>);

impl Node {
    /// A node as the environment describes it; see [`builder`](Self::builder) for the variables. No I/O happens and
    /// no identity is drawn.
    ///
    /// # Errors
    /// The first variable that breaks its rule.
    pub fn from_env() -> Result<Self, ConfigError> {
        NodeBuilder::from_env(&process_env)?.build()
    }

    /// A node by settings; what is not set has its default, the environment is not read.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    pub(crate) fn new(config: NodeConfig, connection: Connection) -> Self {
        let replica = Replica::new(config.follow.clone(), config.outbox_bytes);
        Self(Arc::new(Shared {
            config,
            connection,
            calling: tokio::sync::Mutex::new(()),
            state: Mutex::new(State::new(replica)),
        }))
    }

    /// Begins an invocation: joins or renews, pushes what waits, pulls what was missed, chunk after chunk, until the
    /// view is complete or the budget used up: at most 500 ms and at most a fifth of what is left.
    ///
    /// Never fails. At worst the view is [`Freshness::Stale`] or [`Freshness::Never`], and
    /// [`require`](Awake::require) makes an error of that. Takes a `SystemTime`, or the `Duration` that is left; one
    /// in the past or of zero means "unknown". Many invocations may overlap.
    pub async fn wake(&self, deadline: impl Into<Deadline>) -> Awake {
        let awake = Awake::enter(&self.0, deadline.into());
        let shared = &self.0;
        let ends_at = Instant::now() + shared.budget(awake.deadline());
        let complete = |state: &State| state.view.rows_left.is_none();
        if let Err(reason) = shared.converse(ends_at, &Says::Awake, complete).await {
            shared.state.lock().view.failed = Some(reason);
        }
        awake
    }

    /// Ends the membership and pushes what waits, for a process that is told of its end (SIGTERM). One round trip,
    /// within the budget; what is not told is found out by the lease.
    pub async fn leave(&self, reason: &str) {
        if self.0.state.lock().boot_id.is_none() {
            return;
        }
        let ends_at = Instant::now() + self.0.config.budget;
        let says = Says::Leaving(reason.to_owned());
        // There is nobody left to tell of a failure, and the lease says the same somewhat later.
        let _ = self.0.converse(ends_at, &says, |_| true).await;
    }
}

/// What a call says of the node's life.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    Awake,
    /// The invocation of that number ends; the others go on.
    Asleep(u64),
    Leaving(String),
}

/// What is known of the view.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// When it was last asked for and turned out to be complete.
    pub(crate) complete: Option<Moment>,
    pub(crate) rows_left: Option<u64>,
    pub(crate) failed: Option<Reason>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) replica: Replica,
    boot_id: Option<[u8; 16]>,
    beat: u64,
    send_tags: bool,
    pub(crate) view: View,
    pub(crate) counts: Option<v1::MemberCounts>,
    pub(crate) inbox: Vec<v1::InboxMessage>,
    /// Running invocations and when they end.
    awake: BTreeMap<u64, Deadline>,
    entered: u64,
    /// The newest call has said that the node sleeps afterwards.
    pub(crate) announced_sleep: bool,
    /// Writes that were taken so far, ...
    pub(crate) said: u64,
    /// ... up to which the push under way speaks for them, ...
    sealed_upto: u64,
    /// ... and up to which their fate is known.
    pub(crate) saved_upto: u64,
    pub(crate) last_ack: Option<(u64, Durability)>,
    reports: VecDeque<Report>,
    pub(crate) reported: u64,
}

/// A program that never asks for its reports keeps the newest of them.
const REPORTS_MAX: usize = 1_024;

impl State {
    fn new(replica: Replica) -> Self {
        Self {
            replica,
            boot_id: None,
            beat: 0,
            send_tags: true,
            view: View::default(),
            counts: None,
            inbox: Vec::new(),
            awake: BTreeMap::new(),
            entered: 0,
            announced_sleep: false,
            said: 0,
            sealed_upto: 0,
            saved_upto: 0,
            last_ack: None,
            reports: VecDeque::new(),
            reported: 0,
        }
    }

    pub(crate) fn enter(&mut self, deadline: Deadline) -> u64 {
        self.entered += 1;
        self.awake.insert(self.entered, deadline);
        self.inbox.clear();
        self.entered
    }

    pub(crate) fn exit(&mut self, number: u64) {
        self.awake.remove(&number);
    }

    /// Whether other invocations than that one are running.
    pub(crate) fn has_others(&self, number: u64) -> bool {
        self.awake.keys().any(|other| *other != number)
    }

    pub(crate) fn take_reports(&mut self) -> Vec<Report> {
        self.reports.drain(..).collect()
    }

    /// The time until the last running invocation ends; 0: unknown.
    fn remaining_ms(&self, except: Option<u64>) -> u32 {
        let running = self.awake.iter().filter(|(number, _)| Some(**number) != except);
        let left: Option<Vec<Duration>> = running.map(|(_, deadline)| deadline.left()).collect();
        let longest = left.into_iter().flatten().max().unwrap_or_default();
        u32::try_from(longest.as_millis()).unwrap_or(u32::MAX)
    }

    fn next(&mut self, says: &Says, quiet: bool) -> v1::sync_request::Next {
        use v1::sync_request::Next;
        let (next, sleeps) = match says {
            Says::Leaving(reason) => (
                Next::Leaving(v1::Leaving {
                    reason: reason.clone(),
                }),
                true,
            ),
            Says::Asleep(number) if !self.has_others(*number) => {
                (Next::Asleep(v1::Asleep { expected_ms: 0 }), true)
            }
            Says::Awake | Says::Asleep(_) => {
                let except = if let Says::Asleep(number) = says {
                    Some(*number)
                } else {
                    None
                };
                let then_asleep = quiet && self.awake.len() == 1;
                let remaining_ms = self.remaining_ms(except);
                (
                    Next::Awake(v1::Awake {
                        remaining_ms,
                        then_asleep,
                    }),
                    then_asleep,
                )
            }
        };
        self.announced_sleep = sleeps;
        next
    }

    fn absorb(&mut self, answer: v1::SyncResponse, asked_at: Moment) -> Absorbed {
        let mut absorbed = absorb(&mut self.replica, answer);
        self.send_tags = absorbed.send_tags;
        if let Some((revision, durability)) = absorbed.acked {
            self.last_ack = Some((revision.0, Durability::from_wire(durability)));
            self.saved_upto = self.saved_upto.max(self.sealed_upto);
        }
        if self.replica.pending().deltas == 0 {
            self.saved_upto = self.said;
        }
        let reports = self.replica.take_reports();
        self.reported += reports.len() as u64;
        self.reports.extend(reports);
        let surplus = self.reports.len().saturating_sub(REPORTS_MAX);
        self.reports.drain(..surplus);
        self.counts = absorbed.members.take().or(self.counts.take());
        self.inbox.append(&mut absorbed.inbox);
        self.view.absorb(&absorbed, asked_at);
        absorbed
    }
}

impl View {
    fn absorb(&mut self, absorbed: &Absorbed, asked_at: Moment) {
        self.failed = absorbed.pull_refused.as_ref().map(refused);
        self.rows_left = None;
        match absorbed.progress {
            Some(progress) if progress.caught_up => self.complete = Some(asked_at),
            Some(progress) => self.rows_left = Some(progress.rows_left),
            None => {}
        }
    }

    pub(crate) fn freshness(&self) -> Freshness {
        let reason = || self.failed.clone().unwrap_or(Reason::NoAnswerYet);
        match (&self.failed, self.rows_left, self.complete) {
            (None, Some(rows_left), _) => Freshness::CatchingUp { rows_left },
            (None, None, Some(_)) => Freshness::Current,
            (Some(_), _, Some(at)) => Freshness::Stale {
                age: at.elapsed(),
                reason: reason(),
            },
            (_, _, None) => Freshness::Never { reason: reason() },
        }
    }
}

fn refused(refusal: &v1::Refusal) -> Reason {
    Reason::Refused {
        word: refusal.reason.clone(),
        message: refusal.message.clone(),
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: NodeConfig,
    pub(crate) connection: Connection,
    /// One call at a time: a node has one push under way and one place in the backlog.
    calling: tokio::sync::Mutex<()>,
    /// Never held across an await.
    pub(crate) state: Mutex<State>,
}

impl Shared {
    pub(crate) fn with<T>(&self, read: impl FnOnce(&Replica) -> T) -> T {
        read(&self.state.lock().replica)
    }

    pub(crate) fn write(
        &self,
        write: impl FnOnce(&mut Replica) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let mut state = self.state.lock();
        write(&mut state.replica)?;
        state.said += 1;
        Ok(())
    }

    /// At most a fifth of what is left of the invocation.
    pub(crate) fn budget(&self, deadline: Deadline) -> Duration {
        let left = deadline.left().map_or(Duration::MAX, |left| left / 5);
        self.config.budget.min(left)
    }

    /// Calls until `enough`, an error, or the end of the budget; the latter is an error only before the first answer.
    pub(crate) async fn converse(
        &self,
        ends_at: Instant,
        says: &Says,
        enough: impl Fn(&State) -> bool,
    ) -> Result<(), Reason> {
        let used_up =
            |_| Reason::NotReached("other invocations of this process used up the budget".to_owned());
        let _turn = tokio::time::timeout_at(ends_at, self.calling.lock())
            .await
            .map_err(used_up)?;
        loop {
            self.sync(ends_at.saturating_duration_since(Instant::now()), says)
                .await?;
            if enough(&self.state.lock()) || Instant::now() >= ends_at {
                return Ok(());
            }
        }
    }

    /// One round trip.
    async fn sync(&self, budget: Duration, says: &Says) -> Result<(), Reason> {
        self.draw_identity()?;
        let drawn = || getrandom::u64().map_err(|_| Reason::NoRandomness);
        let (call_id, push_id) = (CallId(drawn()?), PushId(drawn()?));
        let asked_at = Moment::now();
        let send = |channel, attempt: crate::connection::Attempt| {
            let request = attempt.request(self.request(says, call_id, push_id));
            async move {
                let client = MailboxClient::new(channel);
                client.max_decoding_message_size(ANSWER_MAX).sync(request).await
            }
        };
        let answer = self.connection.call(budget, send).await?;
        let absorbed = self.state.lock().absorb(answer, asked_at);
        // Refused deltas were reported and the rest can be sent; a push that is to be sent later is not for now.
        let is_open = self.with(|replica| replica.sealed().is_some());
        match &absorbed.push_refused {
            Some(refusal) if is_open => Err(refused(refusal)),
            None if is_open && !matches!(says, Says::Awake) => Err(Reason::NotReached(
                "the relay said nothing of the push".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// An identity is drawn at the first wake and never before: a snapshot of an initialised process has none.
    fn draw_identity(&self) -> Result<(), Reason> {
        let mut state = self.state.lock();
        if state.boot_id.is_none() {
            let mut boot_id = [0; 16];
            getrandom::fill(&mut boot_id).map_err(|_| Reason::NoRandomness)?;
            state.boot_id = Some(boot_id);
        }
        Ok(())
    }

    /// What one transmission carries.
    fn request(&self, says: &Says, call_id: CallId, push_id: PushId) -> v1::SyncRequest {
        let state = &mut *self.state.lock();
        state.beat += 1;
        let is_new = state.replica.sealed().is_none();
        state.replica.seal(push_id);
        if is_new && state.replica.waiting() == 0 {
            state.sealed_upto = state.said;
        }
        let next = state.next(says, self.config.quiet);
        // Who falls asleep has no time to read; what fits beside the acknowledgement is welcome.
        let max_bytes = if matches!(says, Says::Awake) { 0 } else { 16 << 10 };
        let node = state.replica.node();
        let tags = state.send_tags || node.is_none();
        let (push, pull, head) = outgoing(state.replica.outgoing(), max_bytes);
        v1::SyncRequest {
            namespace: self.config.namespace.clone(),
            node: Some(v1::NodeIdentity {
                boot_id: state.boot_id.unwrap_or_default().to_vec().into(),
                node_id: node.map_or_else(String::new, |(id, _)| id.to_string()),
                incarnation: node.map_or(0, |(_, incarnation)| incarnation.into()),
                group: self.config.group.clone(),
                tags: if tags {
                    self.config.tags.clone()
                } else {
                    BTreeMap::new()
                },
            }),
            push,
            pull: Some(pull),
            beat: state.beat,
            call_id: call_id.0.to_be_bytes().to_vec().into(),
            head,
            next: Some(next),
        }
    }
}
