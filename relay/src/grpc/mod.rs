//! The services: decode, ask, encode.

pub mod selector;
