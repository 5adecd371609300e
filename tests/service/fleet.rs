//! Several relays on one log in memory, each of which can be cut off from it.

use std::{sync::Arc, time::Duration};

use dormouse_proto::{
    ids::Revision,
    wire::v1::{self, member::State},
};
use dormouse_relay::{
    config::Config,
    liveness::Millis,
    log::{LogId, faults::Faulty, memory::Memory},
    metrics::Gauges,
};
use tokio::time::sleep;

use crate::harness::{Caller, Outcome, Served};

/// Some relays on one log, and the way of each to it.
pub(crate) struct Fleet {
    pub(crate) log: Memory,
    pub(crate) ways: Vec<Faulty<Memory>>,
    pub(crate) relays: Vec<Served>,
    config: Config,
}

impl Fleet {
    pub(crate) async fn of(count: usize) -> Result<Self, Box<dyn std::error::Error>> {
        Self::with_leases(count, Millis(1_000)).await
    }

    /// Whoever is silent while a log is given back its tail is not declared gone, which would be news that must not be undone.
    pub(crate) async fn of_patient(count: usize) -> Result<Self, Box<dyn std::error::Error>> {
        Self::with_leases(count, Millis(60_000)).await
    }

    async fn with_leases(count: usize, awake: Millis) -> Result<Self, Box<dyn std::error::Error>> {
        let mut config = Config::default();
        config.leases.awake = awake;
        config.leases.suspect_grace = Millis(200);
        Self::with(count, config).await
    }

    pub(crate) async fn with(count: usize, config: Config) -> Result<Self, Box<dyn std::error::Error>> {
        let log = Memory::new(LogId(9)).shared();
        let mut fleet = Self { log, ways: Vec::new(), relays: Vec::new(), config };
        for _ in 0..count {
            fleet.start_another().await?;
        }
        Ok(fleet)
    }

    pub(crate) async fn start_another(&mut self) -> Outcome {
        let way = Faulty::by_hand(self.log.clone());
        self.relays.push(Served::new(self.config.clone(), Arc::new(way.clone())).await?);
        self.ways.push(way);
        Ok(())
    }

    /// Waits until all relays have applied the whole log, and compares their states.
    pub(crate) async fn agrees(&self) -> u64 {
        let newest = self.revisions().max().expect("there are relays");
        for relay in &self.relays {
            assert!(relay.relay().sequencer.reached(newest, Duration::from_secs(10)).await, "all catch up");
        }
        // They go on speaking each second, so all are looked at between two words.
        for _ in 0..200 {
            let at: Vec<_> = self.relays.iter().map(|it| it.relay().sequencer.read()).collect();
            if at.windows(2).all(|pair| pair[0].fold.revision() == pair[1].fold.revision()) {
                let hashes: Vec<_> = at.iter().map(|it| it.fold.hash()).collect();
                assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "I5: {hashes:?}");
                return at[0].fold.revision().0;
            }
            drop(at);
            sleep(Duration::from_millis(5)).await;
        }
        panic!("never at the same place")
    }

    pub(crate) fn revisions(&self) -> impl Iterator<Item = Revision> {
        self.relays.iter().map(|it| it.relay().sequencer.read().fold.revision())
    }

    pub(crate) async fn move_to(&self, caller: &mut Caller, relay: usize) {
        caller.mailbox = self.relays[relay].mailbox().await;
    }

    pub(crate) async fn state_of(&self, relay: usize, node_id: &str) -> Option<(State, u64)> {
        let request = v1::GetMemberRequest { namespace: String::new(), node_id: node_id.to_owned() };
        let member =
            self.relays[relay].membership().await.get_member(request).await.ok()?.into_inner().member?;
        Some((member.state(), member.incarnation))
    }
}

impl Fleet {
    /// Waits until every relay has applied something behind that revision and has no trouble with its log.
    pub(crate) async fn is_well_behind(&self, revision: Revision) -> Outcome {
        let well = async {
            for relay in &self.relays {
                let sequencer = &relay.relay().sequencer;
                while sequencer.trouble().is_some() || sequencer.read().fold.revision() <= revision {
                    sleep(Duration::from_millis(20)).await;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), well).await.map_err(|_| {
            let at =
                |it: &Served| (it.relay().sequencer.trouble(), it.relay().sequencer.read().fold.revision());
            format!(
                "not behind {revision}: {:?}, {:?}",
                self.relays.iter().map(at).collect::<Vec<_>>(),
                self.reseeds()
            )
            .into()
        })
    }

    /// How often each outcome was counted, by all relays together.
    pub(crate) fn reseeds(&self) -> [usize; 3] {
        let pages =
            self.relays.iter().map(|it| it.relay().metrics.encode(&Gauges::default()).expect("a page"));
        let pages: Vec<String> = pages.collect();
        ["healed", "healed_by_another", "log_won"].map(|outcome| {
            let series = format!("dormouse_reseeds_total{{outcome=\"{outcome}\"}} ");
            let value = |page: &String| page.split(&series).nth(1)?.lines().next()?.parse::<usize>().ok();
            pages.iter().filter_map(value).sum::<usize>()
        })
    }
}
