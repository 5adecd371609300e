//! Every log keeps the same contract.

#[path = "log_contract/cluster.rs"]
mod cluster;
#[path = "log_contract/nats.rs"]
mod nats;
#[path = "brokers/nats_cluster.rs"]
mod nats_cluster;
#[path = "brokers/nats.rs"]
mod nats_server;
#[path = "log_contract/rabbitmq.rs"]
mod rabbitmq;
#[path = "brokers/rabbitmq.rs"]
mod rabbitmq_server;
#[path = "log_contract/steps.rs"]
mod steps;

use std::sync::{Arc, Mutex};

use dormouse_relay::log::{
    Log, LogId, contract,
    embedded::{Embedded, Options},
    memory::Memory,
};
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_log_keeps_the_contract() {
    let dirs: Mutex<Vec<TempDir>> = Mutex::default();
    contract::check_all(async || {
        let dir = tempfile::tempdir().expect("a folder");
        let log = Embedded::open(dir.path(), Options::default()).expect("a new log");
        dirs.lock().expect("not poisoned").push(dir);
        Arc::new(log) as Arc<dyn Log>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_in_memory_keeps_the_contract() {
    contract::check_all(async || Arc::new(Memory::new(LogId(1))) as Arc<dyn Log>).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_log_keeps_everything_over_a_reopening() {
    let dir = tempfile::tempdir().expect("a folder");
    contract::check_reopen(async || {
        Arc::new(Embedded::open(dir.path(), Options::default()).expect("the log opens")) as Arc<dyn Log>
    })
    .await;
}
