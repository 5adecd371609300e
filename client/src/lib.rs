//! client
mod awake;
mod config;
mod connection;
mod convert;
mod error;
mod handles;
mod members;
mod node;
pub mod replica;
pub use awake::{Awake, Deadline, Durability, Freshness, InboxMessage, Slept};
pub use config::NodeBuilder;
pub use error::{ConfigError, Reason, Stale};
pub use handles::{Counter, Register, Set};
pub use members::{MemberName, Members};
pub use node::Node;
pub use replica::{Path, Pending, WriteError};
