//! One relay over real connections: what it answers, and what it refuses.

mod calls;
mod events;
mod floors;
mod harness;
mod json;
mod knowing;
mod mail;
mod mass;
mod refusals;
mod relays;
mod watching;
