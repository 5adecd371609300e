//! client
pub mod replica;
pub use replica::{Path, WriteError};
