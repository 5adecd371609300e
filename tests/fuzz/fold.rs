//! The fold, fed with arbitrary histories.

use dormouse_proto::{ids::NodeId, record::Frame};
use dormouse_relay::state::{Fold, Mail, Pull, Restore, Verdict};

use crate::{BRIEFLY, choices::Choices, history, long_input};

fn apply(fold: &mut Fold, frame: &Frame) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    fold.apply_frame(frame, |_, _, _, verdict| verdicts.push(verdict));
    verdicts
}

pub(crate) fn snapshot(fold: &Fold) -> Vec<u8> {
    let mut bytes = Vec::new();
    fold.write_snapshot(|piece| bytes.extend_from_slice(piece));
    bytes
}

/// Takes a snapshot back in pieces of the given size.
fn restored(bytes: &[u8], piece: usize) -> Fold {
    let mut restore = Restore::new();
    bytes.chunks(piece).for_each(|piece| restore.take(piece).expect("its own snapshot is whole"));
    restore.finish().expect("its own snapshot is complete")
}

/// What a reader gets in one chunk: `(as_of, rows, members, messages, encoded rows)`.
type Got = (u64, usize, usize, Vec<Mail>, Vec<u8>);

/// All that a reader gets who pulls until it is caught up.
fn drained(fold: &Fold, choices: &mut Choices<'_>) -> Vec<Got> {
    const CHUNKS: usize = 10_000;
    let namespace = history::namespace(choices);
    let max_bytes = 1 + choices.below(256);
    let node = choices.perhaps(|it| NodeId(it.below(4) as u64));
    let (mut token, mut chunks) = (None, Vec::new());
    while chunks.len() < CHUNKS {
        let pull =
            Pull { token, all: true, members: true, node, max_bytes, log_is_read: true, ..Pull::default() };
        let chunk = fold.pull(1, &namespace, &pull).expect("it asks for no revision");
        chunks.push((chunk.as_of.0, chunk.rows, chunk.members.len(), chunk.inbox, chunk.keys));
        if chunk.caught_up {
            return chunks;
        }
        token = Some(Ok(chunk.token));
    }
    panic!("the reader is never caught up");
}

/// I5 of the design, with a snapshot in the middle: whoever applied the same records holds, says and serves the same.
#[test]
fn a_history_has_one_state_however_it_was_reached() {
    bolero::check!().with_generator(long_input()).with_test_time(3 * BRIEFLY).for_each(|bytes| {
        let mut choices = Choices::new(bytes);
        let (restart_after, piece) = (choices.below(32), 1 + choices.below(256));
        let mut reading = Choices::new(bytes);
        let frames = history::frames(&mut choices);
        let (mut tidied, mut untidied, mut restarted) = (Fold::new(), Fold::new(), Fold::new());
        for (nth, frame) in frames.iter().enumerate() {
            let said = apply(&mut tidied, frame);
            assert_eq!(said, apply(&mut untidied, frame), "tidying changes no verdict");
            assert_eq!(said, apply(&mut restarted, frame), "a restart changes no verdict");
            tidied.tidy();
            if nth == restart_after {
                restarted = restored(&snapshot(&untidied), piece);
                assert_eq!(restarted.hash(), untidied.hash(), "a snapshot is the whole state");
            }
        }
        assert_eq!(tidied.hash(), untidied.hash(), "tidying is no part of the state");
        assert_eq!(restarted.hash(), untidied.hash(), "a restart is no part of the state");
        let served = drained(&untidied, &mut reading);
        assert_eq!(served, drained(&tidied, &mut Choices::new(bytes)), "tidying changes no answer");
        assert_eq!(served, drained(&restarted, &mut Choices::new(bytes)), "a restart changes no answer");
    });
}
