//! One function instance: its identity, its replica, and the one call that keeps both current.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dormouse_proto::{
    ids::{CallId, PushId},
    wire::v1::{self, mailbox_client::MailboxClient},
};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    awake::{Awake, Deadline},
    config::{NodeBuilder, NodeConfig, process_env},
    connection::{ANSWER_MAX, Attempt, Budget, Connection, Moment},
    convert::outgoing,
    error::{ConfigError, Reason},
    replica::{Replica, WriteError},
    state::{ChunkSize, Says, State, refused},
    trace,
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
    /// Never fails. At worst the view is [`Stale`](crate::Freshness::Stale) or [`Never`](crate::Freshness::Never), and
    /// [`require`](Awake::require) makes an error of that. Takes a `SystemTime`, or the `Duration` that is left; one
    /// in the past or of zero means "unknown". Many invocations may overlap.
    pub async fn wake(&self, deadline: impl Into<Deadline>) -> Awake {
        let awake = Awake::enter(&self.0, deadline.into());
        let shared = &self.0;
        let ends_at = Instant::now() + shared.budget(awake.deadline());
        // What this node holds up and a relay took away by mistake is said again at once, not when it falls asleep.
        let complete = |state: &State| state.view.rows_left.is_none() && !state.replica.says_again();
        if let Err(reason) = shared.converse(ends_at, &Says::Awake, complete).await {
            shared.state.lock().view.failed = Some(reason);
        }
        awake
    }

    /// Says to which trace the calls from here on belong: a `traceparent` of W3C Trace Context, or what AWS Lambda has in
    /// `_X_AMZN_TRACE_ID`. The relay tells its own spans below it. Anything else ends the last trace. Returns whether it
    /// was understood; invocations that overlap share their calls, and the newest trace.
    ///
    /// ```no_run
    /// # let node = dormouse::Node::builder().build()?;
    /// if let Ok(header) = std::env::var("_X_AMZN_TRACE_ID") {
    ///     node.trace(&header);
    /// }
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn trace(&self, parent: &str) -> bool {
        let parent = trace::parent(parent);
        let is_understood = parent.is_some();
        self.0.connection.trace(parent);
        is_understood
    }

    /// Follows one more collection, `*` or `@members`; its rows come with the next [`wake`](Self::wake) or
    /// [`beat`](Awake::beat), and until then its keys read as unknown. What was [fetched](Awake::fetch) of it is forgotten.
    ///
    /// ```no_run
    /// # async fn doc(node: dormouse::Node, awake: dormouse::Awake) -> Result<(), Box<dyn std::error::Error>> {
    /// node.follow("carts")?;
    /// awake.beat().await?;
    /// println!("{:?}", awake.map("carts/42").keys());
    /// node.unfollow("carts");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`WriteError::Malformed`] when the name breaks its rule, or 64 are followed already.
    pub fn follow(&self, collection: &str) -> Result<(), WriteError> {
        self.0.state.lock().replica.follow(collection)
    }

    /// Follows a collection no longer and drops its rows; writes to it that wait are pushed all the same. Returns whether
    /// it was followed by that name: a collection that only `*` covers cannot be given up alone.
    pub fn unfollow(&self, collection: &str) -> bool {
        self.0.state.lock().replica.unfollow(collection)
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

fn left(ends_at: Instant) -> Duration {
    ends_at.saturating_duration_since(Instant::now())
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

    pub(crate) fn write<T>(
        &self,
        write: impl FnOnce(&mut Replica) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let mut state = self.state.lock();
        let written = write(&mut state.replica)?;
        state.said += 1;
        Ok(written)
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
        let _turn = tokio::time::timeout_at(ends_at, self.calling.lock()).await.map_err(used_up)?;
        self.sync(Budget::new(left(ends_at)), says).await?;
        while !enough(&self.state.lock()) {
            let left = left(ends_at);
            if left.is_zero() {
                break;
            }
            match self.sync(Budget::on_proven_channel(left), says).await {
                // What has arrived counts, and how much is missing is known.
                Err(Reason::NotReached(_)) if matches!(says, Says::Awake) => break,
                result => result?,
            }
        }
        Ok(())
    }

    /// One round trip.
    async fn sync(&self, budget: Budget, says: &Says) -> Result<(), Reason> {
        self.draw_identity()?;
        let drawn = || getrandom::u64().map_err(|_| Reason::NoRandomness);
        let (call_id, push_id) = (CallId(drawn()?), PushId(drawn()?));
        let asked_at = Moment::now();
        let ends_at = budget.ends_at();
        let send = |channel, attempt: Attempt| {
            if attempt.after_timeout() {
                self.state.lock().chunk_size = ChunkSize::LEAST;
            }
            let request = attempt.request(self.request(says, call_id, push_id));
            async move {
                let client = MailboxClient::new(channel);
                client.max_decoding_message_size(ANSWER_MAX).sync(request).await
            }
        };
        let answer = self.connection.call(budget, send).await.inspect_err(|_| {
            // What failed at once says nothing of the size.
            if left(ends_at).is_zero() {
                self.state.lock().chunk_size.timed_out();
            }
        })?;
        let absorbed = self.state.lock().absorb(answer, says, asked_at);
        // Refused deltas were reported and the rest can be sent; a push that is to be sent later is not for now.
        let is_open = self.with(|replica| replica.sealed().is_some());
        match &absorbed.push_refused {
            Some(refusal) if is_open => Err(refused(refusal)),
            None if is_open && !matches!(says, Says::Awake) => {
                Err(Reason::NotReached("the relay said nothing of the push".to_owned()))
            }
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
        let size = if matches!(says, Says::Awake) { state.chunk_size } else { ChunkSize::LEAST };
        let node = state.replica.node();
        let tags = state.send_tags || node.is_none();
        let (push, pull, head) = outgoing(&state.replica.outgoing(), size.bytes());
        v1::SyncRequest {
            namespace: self.config.namespace.clone(),
            node: Some(v1::NodeIdentity {
                boot_id: state.boot_id.unwrap_or_default().to_vec().into(),
                node_id: node.map_or_else(String::new, |(id, _)| id.to_string()),
                incarnation: node.map_or(0, |(_, incarnation)| incarnation.into()),
                group: self.config.group.clone(),
                tags: if tags { self.config.tags.clone() } else { BTreeMap::new() },
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
