//! The relay of Dormouse: mailboxes and leases for functions that sleep.
//!
//! In reading order: [`state`] is the fold of the log, a pure function of its records. [`log`] is where the records lie.
//! [`sequencer`] is the only writer to both. [`liveness`] says, purely, what silence means; [`keeper`] is the shell
//! around it, [`floors`] tells when too few are alive, and [`chronicle`] keeps who came and went lately for all who watch. [`listener`] accepts connections, [`access`] says purely
//! who may do what, and [`doors`] reads certificates and tokens for both. [`grpc`] decodes, asks and encodes. [`relay`] puts them together,
//! [`restore`] begins a log with a backup; [`clock`] alone reads the clock.
//!
//! `ARCHITECTURE.md` has the whole picture.

pub mod access;
pub mod admin;
pub mod chronicle;
pub mod clock;
pub mod config;
pub mod doors;
pub mod error;
pub mod floors;
pub mod grpc;
pub mod history;
pub mod keeper;
pub mod listener;
pub mod liveness;
pub mod log;
pub mod metrics;
pub mod progress;
pub mod relay;
pub mod restore;
pub mod selector;
pub mod sequencer;
pub mod state;
pub mod telemetry;
