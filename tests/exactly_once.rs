//! Increments that are pushed again and again, to a relay that is killed over and over, count once each.
//!
//! The relay is its own binary on its own log. The nodes say every field by hand, so that they can do what a client
//! does under bad luck: send a push twice at once, late, or after its answer; lose an answer; meet a relay that has
//! just been killed. `DORMOUSE_LONG=1` makes ten million increments of it.

#[path = "processes/relay.rs"]
mod relay;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use dormouse_proto::wire::v1::{
    self, counter_delta::Once, delta::Change, key_state::State, lease::Admission,
    mailbox_client::MailboxClient, sync_request::Next, sync_response::PushResult,
};
use fastrand::Rng;
use relay::{Outcome, RelayProcess};
use tokio::task::JoinSet;
use tonic::{Code, Status, transport::Endpoint};

const SEED: &str = "DORMOUSE_EXACTLY_ONCE_SEED";
const NODES: u64 = 32;
/// Nodes, a tenth of all, that have a second one in another container, which repeats what they say under the same ids.
const REPEATED: u64 = 3;
const COUNTERS: usize = 120;
/// Counters that one push raises by one each.
const DELTAS: usize = 100;
/// How often a push is tried before the test gives up on it.
const TRIES: u32 = 1_000;
/// The longest that one answer is waited for.
const ANSWER: Duration = Duration::from_secs(2);

type Mailbox = MailboxClient<tonic::transport::Channel>;

/// How much of it there is.
#[derive(Clone, Copy)]
struct Size {
    increments: u64,
    /// Milliseconds between a start of the relay and its next end.
    lives: (u64, u64),
    kills_min: u64,
}

impl Size {
    fn of_this_run() -> Self {
        match std::env::var("DORMOUSE_LONG").as_deref() {
            Ok("1") => Self { increments: 10_000_000, lives: (2_000, 5_000), kills_min: 5 },
            _ => Self { increments: 300_000, lives: (500, 1_500), kills_min: 1 },
        }
    }
}

/// What all nodes do, counted.
#[derive(Default)]
struct Tally {
    /// What each counter must be in the end.
    counters: Vec<AtomicU64>,
    increments: AtomicU64,
    pushes: AtomicU64,
    duplicates: AtomicU64,
    repeated_ids: AtomicU64,
    lost_answers: AtomicU64,
    failures: AtomicU64,
}

fn key(counter: usize) -> String {
    format!("counter{counter:03}")
}

// ---- one node ----

/// A node, and what it keeps between its calls.
struct Caller {
    url: String,
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
    fn new(url: &str, seed: u64, tally: &Arc<Tally>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let boot_id = rng.u128(..).to_be_bytes().to_vec().into();
        let identity = v1::NodeIdentity { boot_id, group: "once".into(), ..Default::default() };
        Self {
            url: url.to_owned(),
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

    /// The kept channel, or a fresh one after an error.
    async fn mailbox(&mut self) -> Result<Mailbox, Status> {
        if self.mailbox.is_none() {
            let endpoint = Endpoint::from_shared(self.url.clone()).expect("a URL").tcp_nodelay(true);
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
async fn run_node(url: String, number: u64, seed: u64, pushes: u64, tally: Arc<Tally>) {
    let mut caller = Caller::new(&url, seed ^ number, &tally);
    let mut second = (number < REPEATED).then(|| Caller::new(&url, !seed ^ number, &tally));
    for nth in 0..pushes {
        let first = caller.rng.usize(..COUNTERS);
        if let Some(second) = &mut second {
            let id = format!("{number}-{nth}");
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

// ---- the relay's lives ----

/// Kills the relay and starts it again until it is told to stop; gives it back, and how often it was killed.
fn kill_over_and_over(
    mut relay: RelayProcess,
    size: Size,
    mut rng: Rng,
    stop: mpsc::Receiver<()>,
) -> Result<(RelayProcess, u64), String> {
    let mut kills = 0;
    loop {
        let life = Duration::from_millis(rng.u64(size.lives.0..size.lives.1));
        // A sender that is gone says the same as a word.
        if !matches!(stop.recv_timeout(life), Err(mpsc::RecvTimeoutError::Timeout)) {
            return Ok((relay, kills));
        }
        relay.kill().map_err(|error| error.to_string())?;
        relay.restart().map_err(|error| error.to_string())?;
        kills += 1;
    }
}

async fn counters(url: String) -> Outcome<Vec<i64>> {
    let mut values = vec![0; COUNTERS];
    let mut mailbox = Mailbox::connect(url).await?;
    let request = v1::ReadRequest { keys: vec!["ads/counter*".into()], ..Default::default() };
    let answer = mailbox.read(request).await?.into_inner();
    assert!(answer.next_page_token.is_empty(), "so few counters fit into one page");
    for state in answer.keys {
        let number: usize = state.key.trim_start_matches("counter").parse()?;
        if let Some(State::Counter(counter)) = state.state {
            values[number] = counter.value;
        }
    }
    Ok(values)
}

fn report(tally: &Tally, kills: u64, error: u64) {
    let lines = [
        ("increments", &tally.increments),
        ("pushes", &tally.pushes),
        ("duplicates", &tally.duplicates),
        ("repeated_ids", &tally.repeated_ids),
        ("lost_answers", &tally.lost_answers),
        ("failed_calls", &tally.failures),
    ];
    for (name, count) in lines {
        println!("exactly_once_{name} {} count", count.load(Relaxed));
    }
    println!("exactly_once_kills {kills} count");
    println!("exactly_once_error {error} count");
}

#[test]
fn every_increment_counts_once_through_kills_duplicates_and_lost_answers() -> Outcome {
    let seed = std::env::var(SEED).ok().and_then(|it| it.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("replay with {SEED}={seed} cargo test -p dormouse-tests --test exactly_once");
    let size = Size::of_this_run();
    // Small, so that most lives begin with a snapshot and some log behind it.
    let relay = RelayProcess::start(&[("DORMOUSE_SNAPSHOT_EVERY_BYTES", "4194304")])?;
    let url = relay.url();
    let counted = (0..COUNTERS).map(|_| AtomicU64::new(0)).collect();
    let tally = Arc::new(Tally { counters: counted, ..Tally::default() });
    let (stop, stopped) = mpsc::channel();
    let killer = thread::spawn(move || kill_over_and_over(relay, size, Rng::with_seed(seed), stopped));

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let pushes = size.increments / DELTAS as u64;
    let nodes = (0..NODES).map(|number| {
        let of_this_one = pushes / NODES + u64::from(number < pushes % NODES);
        runtime.spawn(run_node(url.clone(), number, seed, of_this_one, Arc::clone(&tally)))
    });
    let nodes: Vec<_> = nodes.collect();
    let ended: Result<Vec<()>, _> = nodes.into_iter().map(|node| runtime.block_on(node)).collect();
    // Whatever became of the nodes, the relay is not left behind.
    drop(stop);
    let (relay, kills) = killer.join().map_err(|_| "the killer panicked")??;
    ended?;

    let values = runtime.block_on(counters(relay.url()))?;
    let wrong =
        values.iter().zip(&tally.counters).map(|(is, must)| is.abs_diff(must.load(Relaxed).cast_signed()));
    let error: u64 = wrong.sum();
    report(&tally, kills, error);
    assert_eq!(error, 0, "{values:?}");
    assert_eq!(values.iter().sum::<i64>(), size.increments.cast_signed());
    assert_eq!(relay.metric("dormouse_false_deaths_total")?, 0, "no relay blames a node for its own absence");
    assert!(kills >= size.kills_min, "{kills} kills show little");
    Ok(())
}
