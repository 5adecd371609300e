//! The relay of Dormouse.

pub mod clock;
pub mod liveness;
pub mod log;
pub mod sequencer;
pub mod state;
