//! One relay over real connections: what it answers, and what it refuses.

mod behind;
mod calls;
mod events;
mod fleet;
mod floors;
mod harness;
mod json;
mod knowing;
mod mail;
mod mass;
mod refusals;
mod relays;
mod watching;
