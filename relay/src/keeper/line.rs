//! Ends that wait for their turn to be proposed, so that a mass of them leaves room before the log for everybody else.

use std::collections::{HashMap, VecDeque};

use dormouse_proto::ids::{Beat, Incarnation};

use crate::liveness::{LeaseKey, Silent};

/// Ends in the order in which they came, each node once.
#[derive(Debug, Default)]
pub(super) struct Line {
    order: VecDeque<LeaseKey>,
    waiting: HashMap<LeaseKey, (Incarnation, Beat)>,
    /// Somebody works it off.
    is_attended: bool,
}

impl Line {
    /// Puts nodes in line; what is newest of one that waits already counts. Answers whether the line is to be attended to:
    /// nobody does, and somebody waits.
    pub(super) fn join(&mut self, silent: impl IntoIterator<Item = Silent>) -> bool {
        for (key, incarnation, beat) in silent {
            if self.waiting.insert(key, (incarnation, beat)).is_none() {
                self.order.push_back(key);
            }
        }
        !self.order.is_empty() && !std::mem::replace(&mut self.is_attended, true)
    }

    /// The next ones, at most so many. None is left: the line is attended to no more.
    pub(super) fn next(&mut self, at_most: usize) -> Vec<Silent> {
        let count = self.order.len().min(at_most);
        let waiting = &mut self.waiting;
        let named = |key| waiting.remove(&key).map(|(incarnation, beat)| (key, incarnation, beat));
        let next: Vec<_> = self.order.drain(..count).filter_map(named).collect();
        self.is_attended = !next.is_empty();
        if self.order.is_empty() {
            // What a mass has needed is not kept.
            *self = Self { is_attended: self.is_attended, ..Self::default() };
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use dormouse_proto::ids::NodeId;

    use super::*;

    fn silent(node: u64, beat: u64) -> Silent {
        (LeaseKey { namespace: 0, node: NodeId(node) }, Incarnation(1), Beat(beat))
    }

    #[test]
    fn each_waits_once_in_the_order_in_which_it_came_and_one_attends() {
        let mut line = Line::default();
        assert!(!line.join([]), "nobody waits");
        assert!(line.join((0..5).map(|node| silent(node, 1))));
        assert!(!line.join([silent(1, 2), silent(7, 1)]), "somebody attends already");
        assert_eq!(line.next(3), [silent(0, 1), silent(1, 2), silent(2, 1)]);
        assert!(!line.join([silent(0, 3)]), "it may come again");
        assert_eq!(line.next(100), [silent(3, 1), silent(4, 1), silent(7, 1), silent(0, 3)]);
        assert_eq!(line.next(100), []);
        assert!(line.join([silent(0, 4)]), "whoever attended has gone");
    }
}
