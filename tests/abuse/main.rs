//! What somebody who means harm can do with a port that he can reach, and what comes of it: a refusal that says what the
//! limit is, or a connection that is closed; either is counted. The relay is a process of its own whose memory stays flat
//! meanwhile, and somebody else who calls all the time never notices.

mod callers;
#[path = "../access/certificates.rs"]
#[allow(dead_code, reason = "one certificate is enough here")]
mod certificates;
mod connections;
mod malformed;
mod oversize;
mod regular;
#[path = "../processes/relay.rs"]
#[allow(dead_code, reason = "this relay is never restarted")]
mod relay;
mod siege;
mod slow;
#[path = "../processes/usage.rs"]
#[allow(dead_code, reason = "processor time shows nothing here")]
mod usage;
mod wire;
