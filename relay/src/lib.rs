//! The relay of Dormouse.

pub mod admin;
pub mod config;
pub mod grpc;
pub mod liveness;
pub mod log;
pub mod metrics;
pub mod state;
pub mod telemetry;
