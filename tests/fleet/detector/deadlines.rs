//! Who has been silent for too long: one deadline for each node, cheap to move ahead.

use std::{cmp::Reverse, collections::BinaryHeap};

const NEVER: u64 = u64::MAX;

/// Deadlines of nodes, in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// Where to look. A deadline that moved ahead is found at its old place and put where it belongs.
    looks: BinaryHeap<Reverse<(u64, u32)>>,
    nodes: Vec<Deadline>,
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    at_ms: u64,
    /// The look that counts; any other one is out of date.
    look_ms: u64,
}

impl Deadlines {
    /// The one deadline of a node.
    pub(super) fn set(&mut self, node: u32, at_ms: u64) {
        let index = node as usize;
        if index >= self.nodes.len() {
            self.nodes.resize(index + 1, Deadline { at_ms: NEVER, look_ms: NEVER });
        }
        let deadline = &mut self.nodes[index];
        deadline.at_ms = at_ms;
        if at_ms < deadline.look_ms {
            deadline.look_ms = at_ms;
            self.looks.push(Reverse((at_ms, node)));
        }
    }

    /// The node has none any more.
    pub(super) fn clear(&mut self, node: u32) {
        if let Some(deadline) = self.nodes.get_mut(node as usize) {
            deadline.at_ms = NEVER;
        }
    }

    /// Takes out one whose deadline is not after `now_ms`.
    pub(super) fn pop(&mut self, now_ms: u64) -> Option<u32> {
        while let Some(Reverse((look_ms, node))) = self.looks.peek().copied() {
            if look_ms > now_ms {
                return None;
            }
            self.looks.pop();
            let deadline = &mut self.nodes[node as usize];
            if deadline.look_ms != look_ms {
                continue;
            }
            deadline.look_ms = NEVER;
            let at_ms = deadline.at_ms;
            if at_ms <= now_ms {
                deadline.at_ms = NEVER;
                return Some(node);
            }
            if at_ms != NEVER {
                self.set(node, at_ms);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_moves_counts_only_where_it_is() {
        let mut deadlines = Deadlines::default();
        deadlines.set(0, 100);
        deadlines.set(1, 500);
        deadlines.set(2, 300);
        deadlines.set(0, 400);
        deadlines.set(1, 200);
        deadlines.clear(2);
        assert_eq!(deadlines.pop(199), None);
        assert_eq!(deadlines.pop(399), Some(1));
        assert_eq!(deadlines.pop(399), None);
        assert_eq!(deadlines.pop(400), Some(0));
        assert_eq!(deadlines.pop(1_000), None);
    }
}
