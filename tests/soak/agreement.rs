//! Relays that start and stop while others write: whatever they have read, and from whichever snapshot on, they come to
//! the same state.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use dormouse_proto::{
    ids::Revision,
    wire::v1::{self, mailbox_client::MailboxClient},
};
use dormouse_relay::{
    config::Config,
    log::nats::{Address, Nats, Options},
};
use fastrand::Rng;
use tokio::time::sleep;

use crate::harness::{self, Caller, Outcome, Served};

const RELAYS: usize = 3;
const NODES: usize = 6;
/// Deltas of a push.
const DELTAS: usize = 1_000;
/// Pushes of a node between two comparisons.
const PUSHES: usize = 5;
const KEYS: usize = 20_000;

/// What came of it.
pub(crate) struct Told {
    pub(crate) deltas: u64,
    pub(crate) restarts: u64,
    pub(crate) comparisons: u64,
    pub(crate) mismatches: u64,
}

/// The relays that there are, and where the nodes find them.
struct Fleet {
    address: Address,
    relays: Vec<Served>,
    urls: Arc<Mutex<Vec<String>>>,
}

impl Fleet {
    async fn of(address: Address, count: usize) -> Outcome<Self> {
        let mut fleet = Self { address, relays: Vec::new(), urls: Arc::default() };
        for _ in 0..count {
            let relay = fleet.another().await?;
            fleet.relays.push(relay);
        }
        fleet.tell();
        Ok(fleet)
    }

    async fn another(&self) -> Outcome<Served> {
        // Often, so that whoever starts finds one behind which there is more to read.
        let config = Config { snapshot_every_bytes: 4 << 20, ..Config::default() };
        let log = Nats::open(self.address.clone(), Options::default()).await?;
        Served::new(config, Arc::new(log)).await
    }

    fn tell(&self) {
        let urls = self.relays.iter().map(|relay| relay.url.clone()).collect();
        *self.urls.lock().unwrap_or_else(PoisonError::into_inner) = urls;
    }

    /// One goes and, when the others have written more, another one comes.
    async fn replace(&mut self, rng: &mut Rng) -> Outcome {
        let gone = self.relays.swap_remove(rng.usize(..self.relays.len()));
        self.tell();
        gone.stop().await;
        sleep(Duration::from_millis(rng.u64(..300))).await;
        let relay = self.another().await?;
        self.relays.push(relay);
        self.tell();
        Ok(())
    }

    /// How many of the relays differ from the first when all have applied the same.
    async fn mismatches(&self) -> u64 {
        let newest = self.relays.iter().map(revision).max().expect("there are relays");
        for served in &self.relays {
            let sequencer = &served.relay().sequencer;
            assert!(sequencer.reached(newest, Duration::from_secs(60)).await, "all catch up");
        }
        // They go on speaking each second, so all are looked at between two words.
        for _ in 0..2_000 {
            let at: Vec<_> = self.relays.iter().map(|it| it.relay().sequencer.read()).collect();
            if at.windows(2).all(|pair| pair[0].fold.revision() == pair[1].fold.revision()) {
                let first = at[0].fold.hash();
                return at.iter().map(|it| u64::from(it.fold.hash() != first)).sum();
            }
            drop(at);
            sleep(Duration::from_millis(5)).await;
        }
        panic!("never at the same place")
    }
}

fn revision(served: &Served) -> Revision {
    served.relay().sequencer.read().fold.revision()
}

/// Pushes that many deltas of all kinds through relays that come and go.
pub(crate) async fn run(address: Address, deltas: u64, seed: u64) -> Outcome<Told> {
    let mut fleet = Fleet::of(address, RELAYS).await?;
    let mut rng = Rng::with_seed(seed);
    let mut nodes = Vec::new();
    for name in 0..NODES {
        let caller = Caller::new(&fleet.relays[name % RELAYS], u8::try_from(name)?).await;
        nodes.push(Node { caller, rng: Rng::with_seed(rng.u64(..)), urls: Arc::clone(&fleet.urls) });
    }
    let pushed = Arc::new(AtomicU64::new(0));
    let mut told = Told { deltas: 0, restarts: 0, comparisons: 0, mismatches: 0 };
    while pushed.load(Relaxed) < deltas {
        let pushing: Vec<_> =
            nodes.drain(..).map(|node| tokio::spawn(node.push_all(Arc::clone(&pushed)))).collect();
        if rng.bool() {
            fleet.replace(&mut rng).await?;
            told.restarts += 1;
        }
        for node in pushing {
            nodes.push(node.await?);
        }
        told.comparisons += 1;
        told.mismatches += fleet.mismatches().await;
    }
    told.deltas = pushed.load(Relaxed);
    for relay in fleet.relays {
        relay.stop().await;
    }
    Ok(told)
}

struct Node {
    caller: Caller,
    rng: Rng,
    urls: Arc<Mutex<Vec<String>>>,
}

impl Node {
    async fn push_all(mut self, pushed: Arc<AtomicU64>) -> Self {
        for _ in 0..PUSHES {
            self.push().await;
            pushed.fetch_add(DELTAS as u64, Relaxed);
        }
        self
    }

    /// One push, said until a relay has acknowledged it.
    async fn push(&mut self) {
        let deltas = self.deltas();
        let mut push = self.caller.push(deltas);
        push.push_id = self.rng.u64(..).to_be_bytes().to_vec().into();
        for _ in 0..1_000 {
            let mut request = self.caller.request(harness::awake(30_000));
            request.push = Some(push.clone());
            if let Ok(answer) = self.caller.send(request).await
                && let Some(v1::sync_response::PushResult::Pushed(_)) = answer.push_result
            {
                return;
            }
            push.retried = true;
            sleep(Duration::from_millis(self.rng.u64(5..50))).await;
            self.move_on().await;
        }
        panic!("a push is never acknowledged")
    }

    async fn move_on(&mut self) {
        let url = {
            let urls = self.urls.lock().unwrap_or_else(PoisonError::into_inner);
            urls[self.rng.usize(..urls.len())].clone()
        };
        if let Ok(mailbox) = MailboxClient::connect(url).await {
            self.caller.mailbox = mailbox;
        }
    }

    /// Of each key and type at most one.
    fn deltas(&mut self) -> Vec<v1::Delta> {
        let first = self.rng.usize(..KEYS);
        (first..first + DELTAS).map(|nth| self.delta(&format!("k{}", nth % KEYS))).collect()
    }

    fn delta(&mut self, key: &str) -> v1::Delta {
        let element = format!("e{}", self.rng.u32(..4));
        match self.rng.u32(..5) {
            0 => harness::add(key, self.rng.u64(1..9)),
            1 => harness::set_add(key, &[&element]),
            2 => harness::set_remove(key, &[&element], None),
            3 => harness::register(key, &element, None),
            _ => {
                let max = v1::NumberDelta { value: self.rng.i64(..) >> 16 };
                harness::delta("ads", key, v1::delta::Change::Max(max))
            }
        }
    }
}
