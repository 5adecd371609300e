//! Nodes that push increments under bad luck: they say a push twice at once, late, or after its answer, they lose answers, and
//! they call another relay whenever they like. What they have settled is counted, so that nothing can be lost or doubled
//! unnoticed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use dormouse_proto::wire::v1::{
    self, counter_delta::Once, delta::Change, key_state::State, lease::Admission,
    mailbox_client::MailboxClient, sync_request::Next, sync_response::PushResult,
};
use fastrand::Rng;
use tokio::task::JoinSet;
use tonic::{Code, Status, transport::Endpoint};

use crate::relay::Outcome;

pub(crate) const NODES: u64 = 32;
/// Nodes, a tenth of all, that have a second one in another container, which repeats what they say under the same ids.
const REPEATED: u64 = 3;
pub(crate) const COUNTERS: usize = 120;
/// Counters that one push raises by one each.
pub(crate) const DELTAS: usize = 100;
/// How often a push is tried before the test gives up on it.
const TRIES: u32 = 1_000;
/// The longest that one answer is waited for.
const ANSWER: Duration = Duration::from_secs(2);

type Mailbox = MailboxClient<tonic::transport::Channel>;

/// What all nodes do, counted.
#[derive(Default)]
pub(crate) struct Tally {
    /// What each counter must be in the end.
    pub(crate) counters: Vec<AtomicU64>,
    pub(crate) increments: AtomicU64,
    pub(crate) pushes: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) repeated_ids: AtomicU64,
    pub(crate) lost_answers: AtomicU64,
    pub(crate) failures: AtomicU64,
}

impl Tally {
    /// Nothing was counted yet.
    pub(crate) fn new() -> Arc<Self> {
        let counters = (0..COUNTERS).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { counters, ..Self::default() })
    }

    /// By how much the counters that a relay shows differ from what was settled.
    pub(crate) fn differs(&self, values: &[i64]) -> (u64, u64) {
        let mut lost_and_doubled = (0, 0);
        for (is, must) in values.iter().zip(&self.counters) {
            let must = must.load(Relaxed).cast_signed();
            lost_and_doubled.0 += u64::try_from(must - is).unwrap_or(0);
            lost_and_doubled.1 += u64::try_from(is - must).unwrap_or(0);
        }
        lost_and_doubled
    }
}

fn key(counter: usize) -> String {
    format!("counter{counter:03}")
}

/// A node, and what it keeps between its calls.
struct Caller {
    relays: Arc<[String]>,
    /// The relay that was called last.
    at: usize,
    mailbox: Option<Mailbox>,
    identity: v1::NodeIdentity,
    beat: u64,
    head: u64,
    push_no: u64,
    rng: Rng,
    tally: Arc<Tally>,
    /// Copies of pushes that are still on their way when the node has gone on.
    late: JoinSet<()>,
}

/// How a push is sent a second time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Twice {
    No,
    AtOnce,
    AfterItsAnswer,
    Late,
}

impl Caller {
    fn new(relays: &Arc<[String]>, seed: u64, tally: &Arc<Tally>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let boot_id = rng.u128(..).to_be_bytes().to_vec().into();
        let identity = v1::NodeIdentity { boot_id, group: "once".into(), ..Default::default() };
        Self {
            relays: Arc::clone(relays),
            at: 0,
            mailbox: None,
            identity,
            beat: 0,
            head: 0,
            push_no: 0,
            rng,
            tally: Arc::clone(tally),
            late: JoinSet::new(),
        }
    }

    /// The kept channel; a fresh one, to another of the relays, after an error and now and then. Whoever asked the same one
    /// again might be heard for ten seconds by nobody but a relay that is cut off, and would rightly be taken for gone.
    async fn mailbox(&mut self) -> Result<Mailbox, Status> {
        let others = self.relays.len() - 1;
        if others > 0 && self.rng.u32(..100) < 30 {
            self.mailbox = None;
        }
        if self.mailbox.is_none() {
            if others > 0 {
                self.at = (self.at + 1 + self.rng.usize(..others)) % self.relays.len();
            }
            let url = self.relays[self.at].clone();
            let endpoint = Endpoint::from_shared(url).expect("a URL").tcp_nodelay(true);
            let channel = endpoint.connect_timeout(ANSWER).connect().await;
            self.mailbox =
                Some(Mailbox::new(channel.map_err(|error| Status::unavailable(error.to_string()))?));
        }
        Ok(self.mailbox.clone().expect("just connected"))
    }

    fn request(&mut self, push: &v1::Push, call_id: u64) -> v1::SyncRequest {
        self.beat += 1;
        v1::SyncRequest {
            node: Some(self.identity.clone()),
            push: Some(push.clone()),
            beat: self.beat,
            call_id: call_id.to_be_bytes().to_vec().into(),
            head: self.head,
            next: Some(Next::Awake(v1::Awake { remaining_ms: 20_000, then_asleep: false })),
            ..Default::default()
        }
    }

    /// Says it until its fate is known: the revision at which it is bound.
    async fn settle(&mut self, deltas: Vec<v1::Delta>) -> u64 {
        self.push_no += 1;
        let push_id = self.rng.u64(..).to_be_bytes().to_vec().into();
        let mut push = v1::Push { push_no: self.push_no, push_id, deltas, retried: false };
        let twice = match self.rng.u32(..100) {
            0..10 => Twice::AtOnce,
            10..20 => Twice::AfterItsAnswer,
            20..30 => Twice::Late,
            _ => Twice::No,
        };
        self.tally.duplicates.fetch_add(u64::from(twice != Twice::No), Relaxed);
        let call_id = self.rng.u64(..);
        for _ in 0..TRIES {
            if let Some(revision) = self.try_once(&push, call_id, twice).await {
                if twice == Twice::AfterItsAnswer {
                    self.say_again(&push, revision).await;
                }
                return revision;
            }
            push.retried = true;
        }
        panic!("push {} was not settled in {TRIES} tries", self.push_no);
    }

    /// One transmission, or two at once.
    async fn try_once(&mut self, push: &v1::Push, call_id: u64, twice: Twice) -> Option<u64> {
        let outcome = match self.mailbox().await {
            Ok(mailbox) => {
                let first = transmit(mailbox.clone(), self.request(push, call_id));
                match twice {
                    Twice::AtOnce => {
                        let second = transmit(mailbox, self.request(push, call_id));
                        let (first, second) = tokio::join!(first, second);
                        first.or(second)
                    }
                    Twice::Late => {
                        let copy = self.request(push, call_id);
                        self.send_late(mailbox, copy);
                        first.await
                    }
                    _ => first.await,
                }
            }
            Err(status) => Err(status),
        };
        self.hear(outcome).await
    }

    /// A copy that overtakes nobody: it arrives when the node may be pushes further on.
    fn send_late(&mut self, mailbox: Mailbox, copy: v1::SyncRequest) {
        let wait = Duration::from_millis(self.rng.u64(..60));
        self.late.spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = transmit(mailbox, copy).await;
        });
        while self.late.try_join_next().is_some() {}
    }

    /// A push whose fate is known, once more; the answer, if there is one, is the same.
    async fn say_again(&mut self, push: &v1::Push, revision: u64) {
        let push = v1::Push { retried: true, ..push.clone() };
        let call_id = self.rng.u64(..);
        if let Some(again) = self.try_once(&push, call_id, Twice::No).await {
            assert_eq!(again, revision, "one push, one revision");
        }
    }

    /// What an answer says of the push; `None`: nothing, and it is to be sent again.
    async fn hear(&mut self, outcome: Result<v1::SyncResponse, Status>) -> Option<u64> {
        let answer = match outcome {
            Ok(_) if self.rng.u32(..100) == 0 => {
                self.tally.lost_answers.fetch_add(1, Relaxed);
                self.mailbox = None;
                return None;
            }
            Ok(answer) => answer,
            Err(status) => {
                assert!(may_be_retried(status.code()), "{status:?}");
                return self.fail().await;
            }
        };
        let lease = answer.lease.expect("a lease");
        assert!(!matches!(lease.admission(), Admission::Forked | Admission::Forgotten), "{lease:?}");
        (self.identity.node_id, self.identity.incarnation) = (lease.node_id, lease.incarnation);
        match answer.push_result {
            Some(PushResult::Pushed(ack)) => {
                assert_eq!(ack.push_no, self.push_no);
                self.head = self.head.max(ack.as_of);
                Some(ack.revision)
            }
            Some(PushResult::PushRefused(refusal)) => {
                assert!(may_be_retried(Code::from(refusal.code)), "{refusal:?}");
                self.fail().await
            }
            None => self.fail().await,
        }
    }

    /// A fresh channel, a moment later.
    async fn fail(&mut self) -> Option<u64> {
        self.tally.failures.fetch_add(1, Relaxed);
        self.mailbox = None;
        tokio::time::sleep(Duration::from_millis(self.rng.u64(10..60))).await;
        None
    }
}

fn may_be_retried(code: Code) -> bool {
    !matches!(
        code,
        Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::NotFound
            | Code::Aborted
            | Code::Unimplemented
    )
}

async fn transmit(mut mailbox: Mailbox, request: v1::SyncRequest) -> Result<v1::SyncResponse, Status> {
    match tokio::time::timeout(ANSWER, mailbox.sync(request)).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}

/// One more on each of a hundred counters; with an id, whoever says it again adds nothing.
fn increments(first: usize, id: Option<&str>) -> Vec<v1::Delta> {
    let change = |id: Option<&str>| match id {
        None => v1::CounterDelta { add: 1, ..Default::default() },
        Some(id) => {
            v1::CounterDelta { once: vec![Once { id: id.to_owned(), amount: 1 }], ..Default::default() }
        }
    };
    let delta = |nth: usize| v1::Delta {
        collection: "ads".into(),
        key: key((first + nth) % COUNTERS),
        change: Some(Change::Counter(change(id))),
    };
    (0..DELTAS).map(delta).collect()
}

/// All pushes of one node, and of the one that repeats them.
pub(crate) async fn run_node(relays: Arc<[String]>, number: u64, seed: u64, pushes: u64, tally: Arc<Tally>) {
    let mut caller = Caller::new(&relays, seed ^ number, &tally);
    let mut second = (number < REPEATED).then(|| Caller::new(&relays, !seed ^ number, &tally));
    for nth in 0..pushes {
        let first = caller.rng.usize(..COUNTERS);
        if let Some(second) = &mut second {
            let id = format!("{seed:x}-{number}-{nth}");
            let deltas = increments(first, Some(&id));
            tokio::join!(caller.settle(deltas.clone()), second.settle(deltas));
            tally.repeated_ids.fetch_add(DELTAS as u64, Relaxed);
        } else {
            caller.settle(increments(first, None)).await;
        }
        for counter in 0..DELTAS {
            tally.counters[(first + counter) % COUNTERS].fetch_add(1, Relaxed);
        }
        tally.increments.fetch_add(DELTAS as u64, Relaxed);
        tally.pushes.fetch_add(1, Relaxed);
    }
    for caller in [Some(caller), second].into_iter().flatten() {
        caller.late.join_all().await;
    }
}

/// What a relay shows, once it has that revision.
pub(crate) async fn counters(url: String, min_revision: u64) -> Outcome<(Vec<i64>, u64)> {
    let mut values = vec![0; COUNTERS];
    let mut mailbox = Mailbox::connect(url).await?;
    let request = v1::ReadRequest { keys: vec!["ads/counter*".into()], min_revision, ..Default::default() };
    let answer = mailbox.read(request).await?.into_inner();
    assert!(answer.next_page_token.is_empty(), "so few counters fit into one page");
    for state in answer.keys {
        let number: usize = state.key.trim_start_matches("counter").parse()?;
        if let Some(State::Counter(counter)) = state.state {
            values[number] = counter.value;
        }
    }
    Ok((values, answer.as_of))
}
