//! Whether each writer's frames come without a hole.
//!
//! The broker takes offsets for records of its own, so a gap between offsets proves nothing. A writer numbers what it
//! publishes on a channel, and leaves the channel at the first answer that is not a plain acknowledgement: what a
//! channel has stored is 1, 2, 3, ... up to some number. A hole in that is a frame that the broker has lost.

use std::collections::VecDeque;

use super::envelope::Writer;

/// Writers that are remembered: each relay has one at a time.
const WRITERS_MAX: usize = 64;

/// What has been read of each writer, the one that was heard last at the end.
#[derive(Debug, Default)]
pub(super) struct Chain {
    writers: VecDeque<(Writer, u64)>,
}

impl Chain {
    /// Notes a frame; the error is the number that was missed. The first frame that is read of a writer may have any.
    pub(super) fn follow(&mut self, writer: Writer, number: u64) -> Result<(), u64> {
        let known = self.writers.iter().position(|(it, _)| *it == writer);
        if let Some((_, last)) = known.and_then(|at| self.writers.remove(at))
            && number != last + 1
        {
            self.writers.push_back((writer, last));
            return Err(last + 1);
        }
        if self.writers.len() == WRITERS_MAX {
            self.writers.pop_front();
        }
        self.writers.push_back((writer, number));
        Ok(())
    }

    /// The newest frame that was read of a writer.
    pub(super) fn newest_of(&self, writer: Writer) -> Option<u64> {
        self.writers.iter().find(|(it, _)| *it == writer).map(|(_, number)| *number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(process: u64) -> Writer {
        Writer { process, channel: 0 }
    }

    #[test]
    fn a_hole_in_what_one_writer_wrote_is_noticed_and_stays_one() {
        let mut chain = Chain::default();
        for (process, number) in [(1, 7), (2, 1), (1, 8), (2, 2)] {
            assert_eq!(chain.follow(writer(process), number), Ok(()));
        }
        assert_eq!(chain.follow(writer(1), 10), Err(9));
        assert_eq!(chain.follow(writer(1), 11), Err(9));
        assert_eq!(chain.newest_of(writer(1)), Some(8));
        assert_eq!(chain.follow(writer(1), 9), Ok(()));
    }

    #[test]
    fn the_writers_that_were_heard_last_are_remembered() {
        let mut chain = Chain::default();
        let many = WRITERS_MAX as u64 + 1;
        for process in 0..many {
            assert_eq!(chain.follow(writer(process), 1), Ok(()));
        }
        assert_eq!(chain.newest_of(writer(0)), None);
        assert_eq!(chain.newest_of(writer(1)), Some(1));
        assert_eq!(chain.writers.len(), WRITERS_MAX);
    }
}
