//! Before a node's end is proposed, the other relays are asked whether they have heard of it (rule L5).
//!
//! A question stands in the log as a mark. Whoever has applied it promises that node nothing more by itself and tells
//! what it had heard; when all others have, the question is answered.

use std::collections::HashMap;

use dormouse_proto::ids::{Beat, Incarnation};

use super::{LeaseKey, Millis, Timestamp};

/// A question that was not answered by all is asked anew.
const PATIENCE: Millis = Millis(5_000);

/// A silent node whose end is due: whose lease, in which incarnation, and the newest beat that the log has told.
pub type Silent = (LeaseKey, Incarnation, Beat);

#[derive(Debug)]
struct Question {
    incarnation: Incarnation,
    beat: Beat,
    since: Timestamp,
    /// Where the mark stands in the log.
    position: Option<u64>,
}

/// The questions that were decided.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decided {
    /// All others have told.
    pub(super) answered: Vec<Silent>,
    /// Somebody has not, for too long.
    pub(super) unanswered: Vec<Silent>,
}

/// All questions of one relay that are open.
#[derive(Debug, Default)]
pub(super) struct Questions {
    open: HashMap<LeaseKey, Question>,
    /// Marks of the frame that is being applied: its position comes with its end.
    placing: Vec<Silent>,
}

impl Questions {
    /// A mark is on its way.
    pub(super) fn ask(&mut self, now: Timestamp, (key, incarnation, beat): Silent) {
        self.open.insert(key, Question { incarnation, beat, since: now, position: None });
    }

    /// An own mark came back, in a frame that is not at its end yet.
    pub(super) fn read_back(&mut self, mark: Silent) {
        self.placing.push(mark);
    }

    /// The frame stands at `position`, and so do the marks in it.
    pub(super) fn placed(&mut self, position: u64) {
        for (key, incarnation, beat) in self.placing.drain(..) {
            // A mark that names an older beat is of a question that was given up, and answers nothing.
            if let Some(question) = self.open.get_mut(&key)
                && (question.incarnation, question.beat) == (incarnation, beat)
            {
                question.position = Some(position);
            }
        }
    }

    /// Takes out what is decided. `have_told`: whether all others have told what they had heard before they applied a
    /// position.
    pub(super) fn decided(&mut self, now: Timestamp, have_told: impl Fn(u64) -> bool) -> Decided {
        let mut decided = Decided::default();
        self.open.retain(|key, question| {
            let done = question.position.is_some_and(&have_told);
            let late = question.since + PATIENCE < now;
            let list = if late { &mut decided.unanswered } else { &mut decided.answered };
            if done || late {
                list.push((*key, question.incarnation, question.beat));
            }
            !(done || late)
        });
        decided
    }

    /// Whether nobody is asked about.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use dormouse_proto::ids::NodeId;

    use super::*;

    const NODE: Silent = (LeaseKey { namespace: 0, node: NodeId(7) }, Incarnation(1), Beat(3));

    fn asked() -> Questions {
        let mut questions = Questions::default();
        questions.ask(Timestamp(1_000), NODE);
        questions
    }

    #[test]
    fn a_question_is_answered_when_all_have_told_what_they_had_heard_before_its_mark() {
        let mut questions = asked();
        assert_eq!(questions.decided(Timestamp(1_100), |_| true), Decided::default(), "it is not in the log");
        questions.read_back(NODE);
        questions.placed(9);
        assert_eq!(questions.decided(Timestamp(1_200), |position| position < 9), Decided::default());
        let decided = questions.decided(Timestamp(1_300), |position| position <= 9);
        assert_eq!(decided, Decided { answered: vec![NODE], unanswered: Vec::new() });
        assert!(questions.is_empty());
    }

    #[test]
    fn a_mark_of_an_older_question_does_not_place_the_newer_one() {
        let mut questions = asked();
        let (key, incarnation, _) = NODE;
        questions.read_back((key, incarnation, Beat(2)));
        questions.placed(8);
        assert_eq!(questions.decided(Timestamp(1_100), |_| true), Decided::default());
    }

    #[test]
    fn a_question_that_is_too_old_is_given_up_whoever_answers_it_then() {
        let mut questions = asked();
        questions.read_back(NODE);
        questions.placed(9);
        assert_eq!(questions.decided(Timestamp(6_000), |_| false), Decided::default());
        let decided = questions.decided(Timestamp(6_001), |_| true);
        assert_eq!(decided, Decided { answered: Vec::new(), unanswered: vec![NODE] });
    }
}
