//! Who may do what: roles, methods, and the tokens that stand for a role in a namespace. Pure; `doors` reads the file.
//!
//! A relay holds hashes of tokens and never a token, so whoever reads its files or its memory dump cannot call it with
//! what is found there. A token is 32 random bytes, which is why a plain SHA-256 is enough: there is no shorter way than
//! to try all of them.
//!
//! Invariants: what stands in no table is refused, a method as well as a token; no error text holds what was sent or
//! what stood in the file, because either may be a secret in the wrong place.

mod caller;
mod role;
mod tokens;

pub use caller::{Caller, Denied, Holder, Scope};
pub use role::{Method, Role, may};
pub use tokens::{Hash, TokenTable, TokensError};
