//! The relay of Dormouse.

pub mod liveness;
pub mod log;
pub mod state;
