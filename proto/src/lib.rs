//! The contract of Dormouse.

pub mod ids;
