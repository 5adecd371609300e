//! `watch` and `tail`: streams, until somebody ends them.

use std::time::Duration;

use dormouse::{Reason, Relay};
use dormouse_proto::ids::Collection;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args::Who,
    failure::Failure,
    screen::{self, Screen},
    show::{json, member, rows as show_rows},
};

/// How often a stream that was open once is asked for again, a second apart: a relay needs a moment to start anew.
const RETRIES: u32 = 30;

/// Runs until it fails, somebody interrupts, or nobody reads the output any more. The latter two are its proper ends.
pub(crate) async fn until_ended(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        done = work => done,
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        _ = terminated.recv() => Ok(()),
        () = screen::closed() => Ok(()),
    }
}

/// Opens a stream; after an earlier one was lost, with patience.
async fn open<S, F>(lost: bool, mut start: impl FnMut() -> F) -> Result<S, Failure>
where
    F: Future<Output = Result<S, Reason>>,
{
    let mut left = if lost { RETRIES } else { 0 };
    loop {
        match start().await {
            Err(Reason::NotReached(_)) if left > 0 => left -= 1,
            opened => return Ok(opened?),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// A lost stream is worth a word; what is final is returned. Who read too slowly, because a pager held the output or
/// Ctrl-Z the program, was cut off and may go on at once.
fn lost(ended: Option<Reason>) -> Result<bool, Failure> {
    match ended {
        Some(Reason::Refused { word, .. }) if word == "SLOW_READER" => {
            eprintln!("dormouse: nothing was read for too long, going on from there");
            Ok(true)
        }
        Some(refused @ Reason::Refused { .. }) => Err(refused.into()),
        _ => {
            eprintln!("dormouse: the stream has ended, trying to go on from there");
            Ok(true)
        }
    }
}

pub(crate) async fn members(
    screen: Screen,
    relay: &Relay,
    who: Who,
    activity: bool,
    all: bool,
) -> Result<(), Failure> {
    let filter = who.into();
    let (mut after, mut again, mut shown) = (None, false, all);
    loop {
        let mut stream = open(again, || relay.watch_members(&filter, after, activity)).await?;
        let ended = loop {
            let changes = match stream.next().await {
                Ok(Some(changes)) => changes,
                Ok(None) => break None,
                Err(reason) => break Some(reason),
            };
            if changes.restart {
                eprintln!("dormouse: what happened meanwhile is not known any more: everybody again");
            }
            for event in changes.events.iter().filter(|_| shown) {
                screen.show(&member::event(event), &member::event_json(event))?;
            }
            // A floor that is below at the beginning is no history: it is so now.
            for floor in &changes.floors {
                screen.show(&member::floor(floor), &member::floor_json(floor))?;
            }
            shown |= changes.caught_up;
            // 0: in the middle of something that would have to begin again.
            after = Some(changes.revision).filter(|revision| *revision > 0).or(after);
        };
        again = lost(ended)?;
    }
}

pub(crate) async fn rows(
    screen: Screen,
    relay: &Relay,
    collection: &Collection,
    all: bool,
) -> Result<(), Failure> {
    let names = [collection.as_str()];
    let (mut token, mut again, mut shown) = (Vec::new(), false, all);
    loop {
        let mut stream = open(again, || relay.watch(&names, &token)).await?;
        let ended = loop {
            let chunk = match stream.next().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break None,
                Err(reason) => break Some(reason),
            };
            if chunk.restart.is_some() {
                eprintln!("dormouse: what changed meanwhile is not known any more: everything again");
            }
            for key in chunk.keys.iter().filter(|_| shown) {
                let mut json = json::of_key(key);
                json.insert("revision".to_owned(), chunk.as_of.0.into());
                screen.show(&format!("{} {}", chunk.as_of.0, show_rows::change(key)), &json.into())?;
            }
            shown |= chunk.caught_up;
            token = chunk.token;
        };
        again = lost(ended)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(word: &str) -> Reason {
        Reason::Refused { word: word.to_owned(), message: String::new() }
    }

    #[test]
    fn a_stream_that_was_read_too_slowly_goes_on_and_one_that_was_refused_does_not() {
        assert!(matches!(lost(Some(refused("SLOW_READER"))), Ok(true)));
        assert!(matches!(lost(None), Ok(true)));
        assert!(lost(Some(refused("TOKEN_UNKNOWN"))).is_err());
    }
}
