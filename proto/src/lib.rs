//! The contract of Dormouse.

#[cfg(feature = "wire")]
pub mod convert;
pub mod ids;
pub mod lattice;
#[cfg(feature = "wire")]
pub mod record;
#[cfg(feature = "wire")]
pub mod rows;
pub mod traps;
#[cfg(feature = "wire")]
pub mod wire;
