//! Who lives and who does not, with real processes and the relay's own binary: functions that are frozen, cut off, killed
//! and cloned, and a watcher that must not miss any of it although the relay is killed, too.

mod clones;
#[path = "../processes/fleet.rs"]
mod fleet;
mod frozen;
#[path = "../processes/line.rs"]
mod line;
#[path = "../processes/relay.rs"]
mod relay;
mod stopped;
mod watching;
