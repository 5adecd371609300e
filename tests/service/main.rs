//! One relay over real connections: what it answers, and what it refuses.

mod calls;
mod harness;
mod refusals;
mod watching;
