//! What whoever runs a relay does with it: back it up, restore it, stop it and start it again, and start it on what an
//! older release has written.

#[path = "../processes/relay.rs"]
mod relay;

mod backup;
mod brokers;
mod files;
mod golden;
#[path = "../service/harness.rs"]
#[allow(dead_code, reason = "other tests need the rest")]
mod harness;
#[path = "../brokers/nats.rs"]
#[allow(dead_code, reason = "other tests need the rest")]
mod nats_server;
#[path = "../brokers/rabbitmq.rs"]
#[allow(dead_code, reason = "other tests need the rest")]
mod rabbitmq_server;
mod restart;
