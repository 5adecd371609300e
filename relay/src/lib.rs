//! The relay of Dormouse.

pub mod config;
pub mod liveness;
pub mod log;
pub mod state;
