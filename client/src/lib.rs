//! The client of Dormouse: one round trip when a function wakes, one before it sleeps.
//!
//! ```no_run
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let node = dormouse::Node::builder().url("http://127.0.0.1:7400").group("demo").build()?;
//!     let awake = node.wake(std::time::Duration::from_secs(5)).await;
//!     awake.require(std::time::Duration::from_secs(1))?;
//!     awake.counter("demo/hits").add(1)?;
//!     println!("{} hits, {} awake", awake.counter("demo/hits").value(), awake.members().awake);
//!     println!("{:?}", awake.sleep().await);
//!     Ok(())
//! }
//! ```
//!
//! A Lambda handler (with `lambda_runtime` and `serde_json`):
//!
//! ```text
//! use dormouse::Node; use lambda_runtime::{run, service_fn, Error, LambdaEvent};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Error> {
//!     let node = &Node::from_env()?;
//!     run(service_fn(move |event: LambdaEvent<serde_json::Value>| async move {
//!         let awake = node.wake(event.context.deadline()).await;
//!         let shown = awake.counter("ads/shown");
//!         let show = !shown.reached(1_000);                  // may overshoot by what others have not pushed yet
//!         if show { shown.add_once(&event.context.request_id, 1)?; }
//!         awake.sleep().await.warn_if_unsaved();
//!         Ok::<_, Error>(serde_json::json!({ "show": show }))
//!     })).await
//! }
//! ```
//!
//! # What to expect
//! - [`Node::wake`] never fails. Without a relay the view is old or empty, [`Awake::freshness`] says so, and writes
//!   wait in a bounded outbox.
//! - Reads show own writes at once. What others wrote arrives with the next wake.
//! - A write counts once, whatever is retried. If nobody can know whether it did, [`Awake::reports`] says so.
//! - Nothing runs in the background: a frozen process could not run it. An invocation that outlasts its lease may call
//!   [`Awake::beat`] at convenient points.
//! - No identity is drawn before the first wake, so an initialised process may be snapshotted and cloned.
//!
//! # What can be kept
//! | handle | what it is | concurrent words |
//! |---|---|---|
//! | [`Counter`] | a number that is added to and reset | all count; a reset takes away what it saw |
//! | [`Max`], [`Min`] | the extreme of all offers | the best offer stays, for ever |
//! | [`Set`], [`RemoveWinsSet`], [`GrowOnlySet`] | texts | the add wins; the remove wins; nothing is removed |
//! | [`Flag`], [`DisableWinsFlag`] | on or off | on wins; off wins |
//! | [`Register`], [`Siblings`] | a value | the last one wins; all stay until somebody has seen them |
//! | [`Events`] | a log of entries, trimmed by hand or by retention | all stay, in the log's order |
//! | [`Presence`] | a value for each node, while it is a member | one author each |
//! | [`Map`] | keys below a path | a leaf that was not seen survives a clear |
//!
//! Back ends, which are no members, use [`Relay`]. The replica below the handles is [`replica::Replica`]: pure, for
//! simulations and for other shells.

mod awake;
mod config;
mod connection;
mod convert;
pub mod delta;
mod error;
mod handles;
mod inbox;
mod mail;
mod members;
mod node;
mod outcome;
mod relay;
pub mod replica;
#[cfg(feature = "traps")]
pub mod simulation;
mod state;
mod target;
mod trace;

pub use awake::{Awake, Deadline};
pub use config::NodeBuilder;
pub use dormouse_proto::{
    ids::{Element, Incarnation, NodeId, OnceId, Revision},
    lattice::{Append, Change, Delta, Value},
};
pub use error::{ConfigError, Reason, Stale};
pub use handles::{
    Counter, DisableWinsFlag, Event, Events, Flag, GrowOnlySet, Holder, Map, Max, Min, Presence, Register,
    RemoveWinsSet, Set, Siblings,
};
pub use inbox::InboxMessage;
pub use mail::{SendOptions, Sent};
pub use members::{MemberName, Members};
pub use node::Node;
pub use outcome::{Durability, Freshness, Slept};
pub use relay::{
    Backup, Batch, Consumer, Explanation, FloorEvent, GoneReason, Member, MemberChanges, MemberCount,
    MemberEvent, MemberFilter, MemberState, MemberWatch, NewEvent, Reading, Relay, RelayBuilder, RelayInfo,
    Watch, Written,
};
pub use replica::{
    Cleared, Missed, Path, Pending, WriteError,
    message::{Chunk, EventRow, Fate, HolderRow, InboxRow, KeyRows, Report, Rows},
};
