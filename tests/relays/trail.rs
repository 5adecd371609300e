//! What the log tells of one node, for whoever reads about a violation.

use std::rc::Rc;

use dormouse_proto::{
    ids::NodeId,
    record::{Frame, Record},
};

use crate::world::World;

/// How many entries are told.
const TOLD: usize = 30;

/// A frame in the log.
pub(crate) struct Entry {
    pub(crate) at: u64,
    pub(crate) relay: usize,
    pub(crate) frame: Rc<Frame>,
}

impl World {
    /// The last entries of the log that say anything of a node or of how far a relay has told.
    pub(crate) fn trail(&self, node: usize) -> String {
        let id = self.nodes[node].id;
        let said = self.entries.iter().zip(1..).flat_map(|(entry, position)| told(entry, position, id));
        let said: Vec<String> = said.collect();
        said[said.len().saturating_sub(TOLD)..].join("\n")
    }
}

fn told(entry: &Entry, position: usize, id: NodeId) -> Vec<String> {
    let Entry { at, relay, frame } = entry;
    let applied = frame.header.applied_position;
    let said = frame.records.iter().filter_map(|record| of(record, id));
    said.map(|said| format!("{at} @{position} relay {relay}, which is at {applied}: {said}")).collect()
}

fn of(record: &Record, id: NodeId) -> Option<String> {
    match record {
        Record::Open { .. } => Some("opens".to_owned()),
        Record::Join(join) if join.node == id => Some(format!("joins as {}", join.incarnation)),
        Record::Push(push) if push.node == id => {
            Some(format!("push, incarnation {}, {:?}", push.incarnation, push.contact))
        }
        Record::Gone(gone) if gone.node == id => {
            Some(format!("GONE, incarnation {}, if not heard after beat {}", gone.incarnation, gone.beat.0))
        }
        Record::Digest(digest) => {
            let heard = digest.evidence.iter().find(|it| it.node == id);
            let heard = heard.map(|it| format!(" heard in incarnation {}: {:?}", it.incarnation, it.contact));
            let asked = digest.suspects.iter().find(|it| it.node == id);
            let asked = asked.map(|it| format!(" asks since beat {}", it.beat.0));
            let upto = (digest.told_upto > 0).then(|| format!(" has told up to {}", digest.told_upto));
            let said: String = [heard, asked, upto].into_iter().flatten().collect();
            (!said.is_empty()).then_some(said)
        }
        _ => None,
    }
}
