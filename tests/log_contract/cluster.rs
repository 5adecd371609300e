//! The log on three NATS servers: one of them is lost with its disk, then another is killed.

use std::{sync::Arc, time::Duration};

use dormouse_relay::log::{
    Durability, Health, Log,
    nats::{Nats, OpenError, Options},
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    nats_cluster::NatsCluster,
    nats_server::Release,
    steps::{Load, PATIENCE},
};

const STREAM: &str = "cluster";
/// Frames between two disturbances.
const FRAMES: u64 = 150;

/// A cluster that has just met may say for a moment that it has no room for three copies.
async fn open(cluster: &NatsCluster) -> Arc<Nats> {
    let opening = async {
        loop {
            match Nats::open(cluster.address(STREAM), Options::default()).await {
                Ok(log) => return Arc::new(log),
                Err(OpenError::NotMade { .. } | OpenError::Unreachable { .. }) => {
                    sleep(Duration::from_millis(200)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(PATIENCE, opening).await.expect("the log opens")
}

/// Kills the leader of the log, and answers which it was and how long nothing was acknowledged.
async fn kill_leader(cluster: &mut NatsCluster, load: &Load) -> (usize, Duration) {
    let leader = cluster.leader(STREAM);
    cluster.kill(leader);
    // The answer to one append may have been on its way already; the one behind it needs the new leader.
    let (began, before) = (Instant::now(), load.committed());
    load.reached(before + 2).await;
    (leader, began.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_with_the_leader_of_three_servers_or_with_its_disk() {
    let Some(mut cluster) = NatsCluster::start(Release::Current) else { return };
    let log = open(&cluster).await;
    assert_eq!(log.info().await.expect("info").durability, Durability::Majority);
    assert_eq!(log.copies(), 3);
    let load = Load::start(Arc::clone(&log) as Arc<dyn Log>);
    load.reached(FRAMES).await;

    // A machine that does not come back: its server ends, and all that it had is gone.
    let (lost, after_loss) = kill_leader(&mut cluster, &load).await;
    cluster.wipe(lost);
    load.reached(load.committed() + FRAMES).await;
    cluster.run(lost);
    cluster.wait_until_all_are_current(STREAM);

    // Of the two that are left one is the server that came back empty: without its copy there would be no majority.
    let (killed, after_kill) = kill_leader(&mut cluster, &load).await;
    load.reached(load.committed() + FRAMES).await;
    cluster.run(killed);
    cluster.wait_until_all_are_current(STREAM);
    load.reached(load.committed() + FRAMES).await;

    let (acknowledged, twice) = load.finish().await;
    assert_eq!(log.health(), Health::Serving);
    println!("{acknowledged} frames acknowledged over the loss of two leaders, {twice} stored twice");
    for after in [after_loss, after_kill] {
        println!("back_after_leader_kill_s {:.2} s", after.as_secs_f64());
    }
}
