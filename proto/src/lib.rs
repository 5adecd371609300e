//! The contract of Dormouse: what is said ([`wire`]) and what it means ([`ids`], [`lattice`]).
//!
//! With `--no-default-features` only [`ids`] and [`lattice`] are built, without any dependency: the compiler itself
//! proves them pure.
//!
//! ```
//! use dormouse_proto::{ids::Revision, lattice::Counter};
//!
//! // A reset takes away the total that its author saw; what was added after that survives.
//! let mut shown = Counter::new(Revision(1));
//! shown.apply(None, 5)?; // revision 1
//! shown.apply(None, 2)?; // revision 2
//! shown.apply(Some((Revision(1), 5)), 0)?;
//! assert_eq!(shown.value(), 2);
//! # Ok::<(), dormouse_proto::lattice::OutOfRange>(())
//! ```

#[cfg(feature = "backup")]
pub mod backup;
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
