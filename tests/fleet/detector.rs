//! Failure detectors: each is told what nodes say, and says who is dead.
//!
//! Dormouse is the project's own lease table. The others are told here again from their documentation: the class of
//! chitchat is not public, foca's licence is not one that this workspace takes in, and Nomad and etcd are servers. So
//! they are formulas with documented defaults, in a world that is kind to them: no call is late and none is lost.

mod deadlines;
mod dormouse;
mod phi;
mod swim;
mod ttl;

pub use dormouse::Dormouse;
pub use phi::Phi;
pub use swim::Swim;
pub use ttl::{FixedTtl, ScaledTtl};

/// What a detector has come to think of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opinion {
    /// It may be dead. Detectors without such a state never say it.
    Suspect,
    /// It is dead.
    Gone,
}

/// A change of a detector's mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Of whom.
    pub node: u32,
    /// What it is now taken for. When a node is taken for alive again is not said.
    pub opinion: Opinion,
}

/// A failure detector. Times are virtual milliseconds, and never run back.
pub trait Detector {
    /// A node that was never seen before begins its first invocation.
    fn joined(&mut self, now_ms: u64, node: u32, group: u32);

    /// An invocation begins. The detector may have said before that the node was dead.
    fn woke(&mut self, now_ms: u64, node: u32);

    /// A node inside an invocation says so.
    fn beat(&mut self, now_ms: u64, node: u32);

    /// An invocation ends, and the node says so. To a detector that knows no sleep it is one more beat.
    fn slept(&mut self, now_ms: u64, node: u32);

    /// A node says that it ends.
    fn left(&mut self, now_ms: u64, node: u32);

    /// From now on the node answers nobody, frozen or dead. Only a detector that asks its members can know, and only
    /// when it asks next; all others must not listen.
    fn unreachable(&mut self, _now_ms: u64, _node: u32) {}

    /// Time has come to this point; called each 100 ms. Says who is taken for what, if that changed.
    fn judge(&mut self, now_ms: u64, verdicts: &mut Vec<Verdict>);

    /// How many nodes are alive, as the detector sees it; `None` if it makes no such estimate.
    fn expected_alive(&self) -> Option<f64> {
        None
    }

    /// How likely a member is alive, 0 to 1; `None` if it is none, or if the detector makes no such estimate.
    fn p_alive(&self, _now_ms: u64, _node: u32) -> Option<f64> {
        None
    }
}
