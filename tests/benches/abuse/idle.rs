//! What a connection costs on which nobody calls: memory of the relay, of which the kernel's buffers are no part.

use std::time::Duration;

use dormouse_proto::wire::v1::{self, membership_client::MembershipClient};
use tokio::task::JoinSet;

use crate::{guarded::Target, regular::connect, report, usage::resident_bytes};

const COUNT: usize = 5_000;
/// Connected at once; each has had an answer before the next ones come.
const AT_ONCE: usize = 50;
/// For the allocator to give back what it holds in reserve.
const SETTLE: Duration = Duration::from_secs(3);

pub(crate) async fn connections() {
    report("idle_connection_kib", kib_each(&Target::plain()).await, "KiB");
    report("idle_connection_tls_kib", kib_each(&Target::under_tls()).await, "KiB");
}

async fn kib_each(target: &Target) -> f64 {
    // What is allocated with the first connections is none of the others'.
    let mut kept = open(target, AT_ONCE).await;
    tokio::time::sleep(SETTLE).await;
    let before = resident_bytes(target.pid());
    for _ in 0..COUNT / AT_ONCE {
        kept.append(&mut open(target, AT_ONCE).await);
    }
    tokio::time::sleep(SETTLE).await;
    let grown = resident_bytes(target.pid()) - before;
    assert!(target.relay.metric("dormouse_connections_open").expect("a number") >= COUNT as u64);
    grown / COUNT as f64 / 1024.0
}

async fn open(target: &Target, count: usize) -> Vec<MembershipClient<tonic::transport::Channel>> {
    let mut opening = JoinSet::new();
    for _ in 0..count {
        let (url, ca) = (target.url.clone(), target.ca.clone());
        opening.spawn(async move {
            let mut client = MembershipClient::new(connect(&url, ca.as_deref()).await.expect("a connection"));
            client.get_relay(v1::GetRelayRequest {}).await.expect("an answer");
            client
        });
    }
    opening.join_all().await
}
