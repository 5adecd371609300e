//! A simulated fleet of functions on virtual time, and what failure detectors make of it.
//!
//! Each detector is shown the same fleet, which follows from a seed: when nodes are called, how long they are frozen in
//! between, and which of them never come back. What is simulated is the fleet; the lease table is the project's own,
//! told what a relay tells it. No network is simulated: a call arrives at once and none is lost, for every detector.
//!
//! [`workload`] makes the fleets, [`detector`] the detectors, [`trial`] brings the two together and knows who is truly
//! dead, [`best_ttl`] and [`tuning`] find the rivals that are fairly held against it, [`figures`] prints what came of it. [`schedules`] is the other kind of run: short, adverse and very many, with
//! an [`oracle`] that checks each answer of the lease table.

pub mod best_ttl;
pub mod detector;
pub mod figures;
pub mod oracle;
pub mod schedules;
pub mod trial;
pub mod tuning;
pub mod workload;
