//! Who else is alive, as a node sees it.

use dormouse_proto::wire::v1;

/// How many members the namespace has. All of them will be paused and eventually ended, so the answer is graded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members {
    /// Inside an invocation.
    pub awake: u32,
    /// Declared sleep.
    pub asleep: u32,
    /// The lease ran out.
    pub suspect: u32,
    /// The sum of their probabilities to be alive.
    pub expected_alive: f32,
    /// Their names, in order; empty unless `@members` is followed.
    pub names: Vec<MemberName>,
}

/// One member, as its row names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberName {
    /// Who.
    pub node_id: String,
    /// Rises with every re-admission; with the id it is a fencing token.
    pub incarnation: u64,
    /// What it runs.
    pub group: String,
}

impl Members {
    pub(crate) fn new(counts: Option<&v1::MemberCounts>, replica: &crate::replica::Replica) -> Self {
        let counts = counts.copied().unwrap_or_default();
        let names = replica.members().into_iter().flatten().map(|row| MemberName {
            node_id: row.node.to_string(),
            incarnation: row.incarnation.into(),
            group: row.group.clone(),
        });
        Self {
            awake: counts.awake,
            asleep: counts.asleep,
            suspect: counts.suspect,
            expected_alive: counts.expected_alive,
            names: names.collect(),
        }
    }
}
