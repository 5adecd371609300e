//! Several relays of their own processes on one broker, while the broker is killed and stopped over and over, relays are
//! killed and frozen, and every node calls whichever relay it likes: nothing that was acknowledged is lost, nothing counts
//! twice, no node is taken for dead, and all relays show the same.
//!
//! `DORMOUSE_LONG=1` kills each broker a hundred times.

#[path = "../processes/caller.rs"]
mod caller;
mod disturbed;
#[path = "../brokers/nats.rs"]
#[allow(dead_code, reason = "the contract of the log asks more of a server")]
mod nats;
#[path = "../processes/relay.rs"]
mod relay;

use disturbed::{Broker, Soak};
use relay::Outcome;

impl Broker for nats::NatsServer {
    const NAME: &'static str = "nats";

    fn url(&self) -> String {
        self.address("soak").to_string()
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
