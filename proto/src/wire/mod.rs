//! The generated messages. Everything beside [`encoded`] is written by `tests/generated.rs`, never by hand.

pub mod encoded;

/// What is served: package `dormouse.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated from the commented .proto files"
)]
pub mod v1 {
    include!("dormouse.v1.rs");
}

/// What is stored: package `dormouse.log.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated from the commented .proto files"
)]
pub mod log_v1 {
    include!("dormouse.log.v1.rs");
}

/// The services as the relay implements them: the same wire, with answers that carry encoded rows.
#[cfg(feature = "server")]
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    clippy::all,
    reason = "generated from the commented .proto files"
)]
pub mod services {
    include!("dormouse.v1.services.rs");
}

/// The descriptors of what is served, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("descriptor.bin");
