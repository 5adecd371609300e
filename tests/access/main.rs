//! A relay that can be put on the internet: who is let in, who is not, and that nothing is learned by trying.

#[allow(dead_code, reason = "the client is tried with the rest of them")]
mod certificates;
mod door;
#[path = "../service/harness.rs"]
#[allow(dead_code, reason = "other tests use the rest of it")]
mod harness;
mod namespaces;
mod process;
#[path = "../processes/relay.rs"]
#[allow(dead_code, reason = "only the path of the binary is asked for here")]
mod relay;
mod roles;
mod tls;
mod tokens;
