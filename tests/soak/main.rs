//! Several relays of their own processes on one broker, while the broker is killed and stopped over and over, relays are
//! killed, frozen and cut off from it, and every node calls whichever relay it likes: nothing that was acknowledged is lost, nothing counts
//! twice, no node is taken for dead, and all relays show the same. And relays that come and go while others write, whose
//! whole states are compared.
//!
//! `DORMOUSE_LONG=1` kills each broker a hundred times (`DORMOUSE_SOAK_KILLS` as often as it says), and compares over ten million deltas (in a release build).

mod agreement;
#[path = "../processes/caller.rs"]
mod caller;
mod disturbed;
#[path = "../service/harness.rs"]
#[allow(dead_code, reason = "the tests of the service say more")]
mod harness;
#[path = "../brokers/nats.rs"]
#[allow(dead_code, reason = "the contract of the log asks more of a server")]
mod nats;
#[path = "../brokers/rabbitmq.rs"]
#[allow(dead_code, reason = "the contract of the log asks more of a server")]
mod rabbitmq;
#[path = "../processes/relay.rs"]
mod relay;
mod road;

use disturbed::{Broker, Soak};
use relay::Outcome;

/// Where a server of such a URL listens.
fn port_of(url: &str) -> u16 {
    let host = url.split(['/', '?']).nth(2).and_then(|host| host.rsplit(':').next());
    host.and_then(|port| port.parse().ok()).expect("a URL with a port")
}

impl Broker for nats::NatsServer {
    const NAME: &'static str = "nats";

    fn port(&self) -> u16 {
        port_of(&self.address("soak").to_string())
    }

    fn url_at(port: u16) -> String {
        format!("nats://127.0.0.1:{port}/soak")
    }

    fn kill(&mut self) {
        self.kill();
    }

    fn stop(&mut self) {
        self.stop();
    }

    fn run(&mut self) {
        self.run();
    }
}

impl Broker for rabbitmq::RabbitServer {
    const NAME: &'static str = "rabbitmq";

    fn port(&self) -> u16 {
        port_of(&self.url())
    }

    fn url_at(port: u16) -> String {
        // Smaller than it may be: in a soak of hours the oldest frames go, too.
        format!("amqp://127.0.0.1:{port}?stream=soak&retention_mb=256")
    }

    fn kill(&mut self) {
        self.kill();
    }

    fn stop(&mut self) {
        self.stop();
    }

    fn run(&mut self) {
        self.run();
    }
}

#[test]
fn nothing_is_lost_or_doubled_while_nats_and_relays_are_killed() -> Outcome {
    let Some(broker) = nats::NatsServer::start(nats::Release::Current, nats::Settings::default()) else {
        return Ok(());
    };
    let told = Soak { broker, relays: 3, kills: Soak::kills_of_this_run(20) }.run()?;
    // Generous: an absolute time says little on a loaded machine. The figures are printed.
    assert!(told.back_after.iter().all(|it| it.as_secs() < 30), "{:?}", told.back_after);
    Ok(())
}

#[test]
fn nothing_is_lost_or_doubled_while_rabbitmq_and_relays_are_killed() -> Outcome {
    let Some(broker) = rabbitmq::RabbitServer::start() else { return Ok(()) };
    // A start of this broker takes many seconds.
    let told = Soak { broker, relays: 3, kills: Soak::kills_of_this_run(4) }.run()?;
    assert!(told.back_after.iter().all(|it| it.as_secs() < 30), "{:?}", told.back_after);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_that_come_and_go_have_the_same_state() -> Outcome {
    let Some(broker) = nats::NatsServer::start(nats::Release::Current, nats::Settings::default()) else {
        return Ok(());
    };
    let seed = disturbed::seed();
    println!("replay with {}={seed} cargo test -p dormouse-tests --test soak same_state", disturbed::SEED);
    let deltas = if Soak::is_long() { 10_000_000 } else { 300_000 };
    let told = agreement::run(broker.address("agreement"), deltas, seed).await?;
    println!("relays_deltas {} count\nrelays_restarts {} count", told.deltas, told.restarts);
    println!("relays_state_hash_comparisons {} count", told.comparisons);
    println!("relays_state_hash_mismatches {} count", told.mismatches);
    assert_eq!(told.mismatches, 0, "I5");
    assert!(told.deltas >= deltas && told.restarts > 0);
    Ok(())
}
