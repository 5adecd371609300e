//! The relay of Dormouse.

pub mod admin;
pub mod clock;
pub mod config;
pub mod error;
pub mod grpc;
pub mod keeper;
pub mod liveness;
pub mod log;
pub mod metrics;
pub mod relay;
pub mod sequencer;
pub mod state;
pub mod telemetry;
