//! What an acknowledgement of each log means, and what survives what: the one place that says so.
//!
//! The table of the README, `GetRelay` and `/readyz` show these words; a test compares the pages with them, and looks for
//! every test that is named. What no test of ours can show, because a killed process keeps its page cache, names its source.

use std::collections::BTreeMap;

use super::Durability;

/// Why a claim may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The test of that name shows it.
    Test(&'static str),
    /// It was measured or published elsewhere.
    Source(&'static str),
}

/// What is said, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// For people.
    pub says: &'static str,
    /// Why they may believe it.
    pub because: Evidence,
}

/// What one kind of log promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Which log, and how it is kept.
    pub log: &'static str,
    /// Where a write is when it is acknowledged.
    pub acknowledged: Claim,
    /// What is lost when a process is killed: the relay or a server.
    pub process_killed: Claim,
    /// What is lost with a machine: its power, or its disk.
    pub machine_lost: Claim,
    /// What is lost when what keeps the log forgets all of it.
    pub log_wiped: Claim,
}

impl Claims {
    /// Each claim by its name, as they go over the wire.
    pub fn named(&self) -> BTreeMap<String, String> {
        self.all().map(|(name, claim)| (name.to_owned(), claim.says.to_owned())).into()
    }

    /// Each claim with its name, in the order of the README's columns.
    pub fn all(&self) -> [(&'static str, Claim); 4] {
        [
            ("acknowledged", self.acknowledged),
            ("process_killed", self.process_killed),
            ("machine_lost", self.machine_lost),
            ("log_wiped", self.log_wiped),
        ]
    }
}

const fn tested(says: &'static str, test: &'static str) -> Claim {
    Claim { says, because: Evidence::Test(test) }
}

const fn known(says: &'static str, source: &'static str) -> Claim {
    Claim { says, because: Evidence::Source(source) }
}

const NOTHING: &str = "nothing is lost";
const NEWER: &str = "what is newer than the last copy of the folder; nodes are told";
const POWER_NOTHING: &str = "its power: nothing; its disk: what is newer than the last copy of it";
const ALL: &str = "nothing, if a relay lives on that holds it and nothing was written since; otherwise everything, and nodes are told";
const ONE_OF_THEM: &str =
    "one server: nothing, the others fill it again; all: everything, and nodes are told";

const NATS_KILL: &str = "no_frame_is_lost_or_moved_when_a_current_nats_is_killed";
const NATS_WIPED: &str = "a_wiped_nats_is_given_back_what_a_live_relay_holds";
const NATS_DURABILITY: &str = "durability_is_what_the_server_says_it_is";
const NATS_LEADER: &str = "nothing_is_lost_with_the_leader_of_three_servers_or_with_its_disk";
const NATS_SYNC: &str = "strace of nats-server 2.15.1: 5,000 acknowledged messages, 0 fsync by default, 5,004 with sync_interval: always";
const NATS_POWER: &str = "sync_interval is 2 min by default; Jepsen, NATS 2.12.1 (2025-12-08): a power cut of all machines lost 131,418 of \
                          930,005 acknowledged messages, and one power cut beside pauses or a partition can lose some too";
const RABBIT_SYNC: &str = "strace of RabbitMQ 3.10.8: 20,000 confirmed messages of a stream, no sync of any segment file; the same is said in \
                           amazon-mq/rabbitmq-stream-s3 #46";
const RABBIT_QUORUM: &str = "RabbitMQ's documentation of streams: a message is confirmed once a majority of the replicas has it; no test here \
                             starts three servers";

const RABBIT_REJOIN: &str = "RabbitMQ's documentation of clusters: a server that comes back empty has to be forgotten first, then \
                             joins and gets its replica anew";

/// On a disk of the relay's own.
const EMBEDDED: Claims = Claims {
    log: "embedded",
    acknowledged: known(
        "on the disk of the relay, synced",
        "redb commits with an fsync before it returns, seen with strace",
    ),
    process_killed: tested(NOTHING, "what_was_acknowledged_survives_kill_9"),
    machine_lost: known(
        POWER_NOTHING,
        "redb's two checksummed commit slots, and the fsync before the answer",
    ),
    log_wiped: tested(NEWER, "a_node_of_a_log_that_was_wiped_is_told_so_and_served"),
};

const NATS_ONE: Claims = Claims {
    log: "NATS, one server",
    acknowledged: tested("in the page cache of the server", NATS_DURABILITY),
    process_killed: tested(NOTHING, NATS_KILL),
    machine_lost: known(
        "its power: up to two minutes; its disk: what is newer than the last copy of it",
        NATS_POWER,
    ),
    log_wiped: tested(ALL, NATS_WIPED),
};

const NATS_ONE_SYNCED: Claims = Claims {
    log: "NATS, one server, `sync_interval: always`",
    acknowledged: tested("on the disk of the server, synced", NATS_DURABILITY),
    process_killed: tested(NOTHING, NATS_KILL),
    machine_lost: known(POWER_NOTHING, NATS_SYNC),
    log_wiped: tested(ALL, NATS_WIPED),
};

const NATS_SEVERAL: Claims = Claims {
    log: "NATS, three servers or five",
    acknowledged: tested("in the page caches of most of the servers", NATS_LEADER),
    process_killed: tested(NOTHING, NATS_LEADER),
    machine_lost: known("one: nothing; the power of all at once: up to two minutes", NATS_POWER),
    log_wiped: tested(ONE_OF_THEM, NATS_LEADER),
};

const NATS_SEVERAL_SYNCED: Claims = Claims {
    log: "NATS, three servers or five, all with `sync_interval: always`",
    acknowledged: known("on the disks of most of the servers, synced", NATS_SYNC),
    process_killed: tested(NOTHING, NATS_LEADER),
    machine_lost: known("one: nothing; the power of all at once: nothing", NATS_SYNC),
    log_wiped: tested(ONE_OF_THEM, NATS_LEADER),
};

const RABBIT_ONE: Claims = Claims {
    log: "RabbitMQ, one server",
    acknowledged: known("in the page cache of the server", RABBIT_SYNC),
    process_killed: tested(NOTHING, "no_frame_is_lost_or_moved_whatever_ends_the_server"),
    machine_lost: known(
        "its power: what the kernel had not written; its disk: what is newer than the last copy of it",
        RABBIT_SYNC,
    ),
    log_wiped: tested(ALL, "a_stream_that_was_deleted_is_given_back_what_a_live_relay_holds"),
};

const RABBIT_SEVERAL: Claims = Claims {
    log: "RabbitMQ, three servers or five",
    acknowledged: known("in the page caches of most of the servers", RABBIT_QUORUM),
    process_killed: known(NOTHING, RABBIT_QUORUM),
    machine_lost: known(
        "one: nothing; the power of all at once: what the kernels had not written",
        RABBIT_SYNC,
    ),
    log_wiped: known(
        "one server: nothing, but it is let in again by hand; all: everything, and nodes are told",
        RABBIT_REJOIN,
    ),
};

/// A log that only tests have.
const MEMORY: Claims = Claims {
    log: "memory",
    acknowledged: known("in the memory of the process", "it keeps a list"),
    process_killed: known("everything", "it keeps a list"),
    machine_lost: known("everything", "it keeps a list"),
    log_wiped: known("everything", "it keeps a list"),
};

/// Every kind of log that a relay can be told to use, in the order of the README's rows.
pub const ALL_LOGS: [Claims; 7] =
    [EMBEDDED, NATS_ONE, NATS_ONE_SYNCED, NATS_SEVERAL, NATS_SEVERAL_SYNCED, RABBIT_ONE, RABBIT_SEVERAL];

/// What a log promises, by the kind and durability that it has and by how many machines keep it.
pub fn of(kind: &str, durability: Durability, copies: usize) -> &'static Claims {
    let several = copies >= 3 || durability == Durability::Majority;
    let is_synced = durability == Durability::Fsync;
    match (kind, several, is_synced) {
        ("embedded", ..) => &EMBEDDED,
        ("nats", false, false) => &NATS_ONE,
        ("nats", false, true) => &NATS_ONE_SYNCED,
        ("nats", true, false) => &NATS_SEVERAL,
        ("nats", true, true) => &NATS_SEVERAL_SYNCED,
        ("rabbitmq", false, _) => &RABBIT_ONE,
        ("rabbitmq", true, _) => &RABBIT_SEVERAL,
        _ => &MEMORY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_log_and_durability_has_its_claims() {
        for (kind, durability, copies, log) in [
            ("embedded", Durability::Fsync, 1, EMBEDDED.log),
            ("nats", Durability::PageCache, 1, NATS_ONE.log),
            ("nats", Durability::Fsync, 1, NATS_ONE_SYNCED.log),
            ("nats", Durability::Majority, 3, NATS_SEVERAL.log),
            ("nats", Durability::Fsync, 5, NATS_SEVERAL_SYNCED.log),
            ("rabbitmq", Durability::PageCache, 1, RABBIT_ONE.log),
            ("rabbitmq", Durability::Majority, 1, RABBIT_SEVERAL.log),
            ("memory", Durability::PageCache, 1, MEMORY.log),
        ] {
            assert_eq!(of(kind, durability, copies).log, log);
        }
    }

    /// One copy is not several, however much is promised of it.
    #[test]
    fn nothing_but_a_sync_outlives_the_loss_of_all_power() {
        for claims in ALL_LOGS {
            let says = claims.machine_lost.says;
            let survives = says.starts_with("its power: nothing") || says.ends_with("at once: nothing");
            assert_eq!(survives, claims.acknowledged.says.ends_with("synced"), "{}", claims.log);
        }
    }
}
