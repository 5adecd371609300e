//! Several relays on one log: the same state, no lease that one promised and another broke, nothing lost.

use std::time::Duration;

use dormouse_proto::{
    record::{Frame, Record},
    wire::v1::{chunk::Restart, member::State},
};
use dormouse_relay::log::{Log, Position, faults::Faulty, memory::Memory};
use tokio::time::sleep;

use crate::{
    fleet::Fleet,
    harness::{Caller, Outcome, add, asleep, awake, chunk, counter, pushed, set_add},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_may_call_any_relay_at_any_time_and_all_have_the_same_state() -> Outcome {
    let mut fleet = Fleet::of(3).await?;
    let mut rng = fastrand::Rng::with_seed(5);
    let mut callers = Vec::new();
    for name in 0..8 {
        callers.push(Caller::new(&fleet.relays[usize::from(name) % 3], name).await);
    }
    let (mut pushed_by, mut total) = ([0_i64; 8], 0);
    for step in 0..400 {
        let (nth, relay) = (rng.usize(..8), rng.usize(..fleet.relays.len()));
        fleet.move_to(&mut callers[nth], relay).await;
        let key = format!("of-{nth}");
        let answer = callers[nth].sync(vec![add(&key, 1), set_add("seen", &[&format!("{step}")])]).await?;
        pushed(&answer);
        pushed_by[nth] += 1;
        total += 1;
        let chunk = chunk(&answer);
        assert_eq!(
            Restart::try_from(chunk.restart)?,
            Restart::Unspecified,
            "the token is good at every relay"
        );
        if step == 200 {
            fleet.start_another().await?;
        }
    }
    // What it wrote elsewhere it reads here: `head` says how much this relay must have.
    for (nth, caller) in callers.iter_mut().enumerate() {
        let mut reader = Caller::new(&fleet.relays[(nth + 1) % 4], 100 + u8::try_from(nth)?).await;
        reader.head = caller.head;
        let answer = reader.sync(Vec::new()).await?;
        assert_eq!(counter(&chunk(&answer).keys, &format!("of-{nth}")), Some(pushed_by[nth]));
    }
    assert_eq!(total, 400);
    fleet.agrees().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_is_heard_by_any_relay_dies_and_whoever_is_silent_does() -> Outcome {
    let fleet = Fleet::of(3).await?;
    let mut living = Vec::new();
    for name in 0..6 {
        let mut caller = Caller::new(&fleet.relays[usize::from(name) % 3], name).await;
        caller.wake().await?;
        living.push(caller);
    }
    let mut dead = Caller::new(&fleet.relays[0], 90).await;
    dead.wake().await?;
    let mut rng = fastrand::Rng::with_seed(6);
    for round in 0..48 {
        // One relay is cut off from the log for four seconds, and everybody goes on calling it, too.
        match round {
            10 => fleet.ways[1].cut(),
            26 => fleet.ways[1].mend(),
            _ => {}
        }
        for caller in &mut living {
            let relay = rng.usize(..3);
            fleet.move_to(caller, relay).await;
            let mut request = tonic::Request::new(caller.request(awake(60_000)));
            request.set_timeout(Duration::from_millis(100));
            let answer = caller.mailbox.sync(request).await;
            let promised = answer.ok().and_then(|it| it.into_inner().lease).map_or(0, |lease| lease.ttl_ms);
            if promised == 0 {
                // What the relay cannot promise, another one can.
                fleet.move_to(caller, (relay + if relay == 0 { 2 } else { 2 * (3 - relay) }) % 3).await;
                let lease = caller.wake().await?.lease.expect("a lease");
                assert!(lease.ttl_ms > 0, "round {round}: a relay that is heard promises");
            }
        }
        sleep(Duration::from_millis(250)).await;
    }
    for relay in 0..3 {
        for caller in &living {
            let (state, incarnation) =
                fleet.state_of(relay, &caller.identity.node_id).await.expect("a member");
            assert_eq!((state, incarnation), (State::Awake, 1), "at relay {relay}");
        }
        let (state, _) = fleet.state_of(relay, &dead.identity.node_id).await.expect("still told of");
        assert_eq!(state, State::Gone, "at relay {relay}");
    }
    fleet.agrees().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_cut_off_promises_nothing_ends_nobody_and_opens_its_session_anew() -> Outcome {
    let fleet = Fleet::of(2).await?;
    let mut caller = Caller::new(&fleet.relays[0], 1).await;
    let mut silent = Caller::new(&fleet.relays[0], 2).await;
    caller.wake().await?;
    silent.wake().await?;
    sleep(Duration::from_secs(7)).await;
    let at = fleet.log.barrier().await?.expect("not empty");
    fleet.ways[0].cut();
    sleep(Duration::from_secs(3)).await;
    let mut request = tonic::Request::new(caller.request(awake(60_000)));
    request.set_timeout(Duration::from_millis(400));
    let lease = caller.mailbox.sync(request).await?.into_inner().lease.expect("a lease");
    assert_eq!(lease.ttl_ms, 0, "nobody else hears of it");
    let (state, _) = fleet.state_of(0, &silent.identity.node_id).await.expect("a member");
    assert_ne!(state, State::Gone, "without the log nobody is ended");
    fleet.ways[0].mend();
    let session = fleet.relays[0].relay().sequencer.session();
    caller.wake().await?;
    assert_eq!(first_record_behind(&fleet.log, at, session).await?, "Open");
    fleet.agrees().await;
    Ok(())
}

/// The kind of the first record that a session wrote behind a position, its last words from before a cut left out.
async fn first_record_behind(
    log: &Memory,
    at: Position,
    session: u64,
) -> Result<&'static str, Box<dyn std::error::Error>> {
    let mut reader = log.read(at.next());
    loop {
        let batch = reader.next_batch().await?;
        if let Some(stored) = batch.frames.iter().find(|it| it.record_id.session == session) {
            return Ok(match Frame::decode(&stored.frame)?.records.first() {
                Some(Record::Open { .. }) => "Open",
                Some(_) => "another",
                None => "nothing",
            });
        }
        if batch.at_tail {
            return Ok("nothing at all");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leases_of_a_relay_that_is_gone_are_taken_over() -> Outcome {
    let mut fleet = Fleet::of(3).await?;
    let mut orphan = Caller::new(&fleet.relays[2], 1).await;
    let mut sleeper = Caller::new(&fleet.relays[2], 2).await;
    orphan.wake().await?;
    let request = sleeper.request(asleep());
    sleeper.send(request).await?;
    // Killed: it says nothing more to anybody.
    fleet.ways[2].cut();
    let killed = fleet.relays.pop().expect("three");
    drop(killed);
    let mut states = Vec::new();
    for _ in 0..300 {
        states.clear();
        for relay in 0..2 {
            states.push(fleet.state_of(relay, &orphan.identity.node_id).await.expect("told of").0);
        }
        if states == [State::Gone, State::Gone] {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(states, [State::Gone, State::Gone], "somebody draws the conclusion");
    let (state, _) = fleet.state_of(0, &sleeper.identity.node_id).await.expect("a member");
    assert_eq!(state, State::Asleep, "a lease that was granted holds");
    fleet.agrees().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_the_log_lost_is_given_back_by_the_relays_that_hold_it() -> Outcome {
    let mut fleet = Fleet::of_patient(3).await?;
    let mut caller = Caller::new(&fleet.relays[0], 1).await;
    let mut quiet = Caller::new(&fleet.relays[1], 2).await;
    caller.sync(vec![add("shown", 1)]).await?;
    quiet.sync(Vec::new()).await?;
    fleet.agrees().await;
    let kept = fleet.log.barrier().await?.expect("not empty");
    // What is acknowledged from here on goes with the tail, and so does somebody's joining.
    for relay in 0..3 {
        fleet.move_to(&mut caller, relay).await;
        caller.sync(vec![add("shown", 10), set_add("lost", &[&format!("by {relay}")])]).await?;
    }
    let mut newcomer = Caller::new(&fleet.relays[2], 3).await;
    newcomer.sync(vec![add("shown", 100)]).await?;
    fleet.agrees().await;
    let before = fleet.revisions().max().expect("there are relays");
    fleet.log.lose_tail(kept);
    fleet.is_well_behind(before).await?;
    fleet.agrees().await;
    assert_eq!(fleet.reseeds(), [1, 2, 0], "one gives it back, the others follow");

    fleet.move_to(&mut quiet, 2).await;
    let answer = quiet.sync(Vec::new()).await?;
    assert_eq!(
        Restart::try_from(chunk(&answer).restart)?,
        Restart::Unspecified,
        "a token from before the cut"
    );
    assert_eq!(counter(&chunk(&answer).keys, "shown"), Some(131), "nothing that was acknowledged is lost");
    let answer = caller.sync(Vec::new()).await?;
    assert_eq!(Restart::try_from(chunk(&answer).restart)?, Restart::Lost, "it was shown numbers of the tail");
    assert_eq!(counter(&chunk(&answer).keys, "shown"), Some(131));
    let answer = newcomer.sync(vec![add("shown", 1_000)]).await?;
    assert!(pushed(&answer).revision > before.0, "who joined in the tail is known: {answer:?}");
    // Whoever starts now finds all of it, and so do the relays that have been there.
    fleet.start_another().await?;
    fleet.agrees().await;
    fleet.move_to(&mut quiet, 3).await;
    let answer = quiet.sync(Vec::new()).await?;
    assert_eq!(counter(&chunk(&answer).keys, "shown"), Some(1_131));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_is_lost_for_good_when_somebody_wrote_to_the_log_since_and_who_had_seen_it_is_told() -> Outcome
{
    let mut fleet = Fleet::of_patient(2).await?;
    let mut caller = Caller::new(&fleet.relays[0], 1).await;
    caller.sync(vec![add("shown", 1)]).await?;
    fleet.agrees().await;
    let kept = fleet.log.barrier().await?.expect("not empty");
    caller.sync(vec![add("shown", 1)]).await?;
    fleet.agrees().await;
    // The relays that hold the tail hear of its loss only when one that holds nothing of it has served a push.
    fleet.ways.iter().for_each(Faulty::cut);
    fleet.log.lose_tail(kept);
    fleet.start_another().await?;
    let again = fleet.relays.pop().expect("just started");
    let mut other = Caller::new(&again, 2).await;
    other.sync(vec![add("others", 1)]).await?;
    fleet.ways.iter().for_each(Faulty::mend);
    for relay in &fleet.relays {
        let why = tokio::time::timeout(Duration::from_secs(30), relay.relay().sequencer.lost()).await?;
        assert!(why.contains("so the log counts as it is"), "{why}");
    }
    assert_eq!(fleet.reseeds(), [0, 0, 2]);
    caller.mailbox = again.mailbox().await;
    let answer = caller.sync(Vec::new()).await?;
    assert_eq!(Restart::try_from(chunk(&answer).restart)?, Restart::Lost);
    assert_eq!(counter(&chunk(&answer).keys, "shown"), Some(1));
    again.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_lost_nothing_takes_over_what_another_gives_back() -> Outcome {
    let mut fleet = Fleet::of_patient(2).await?;
    let mut caller = Caller::new(&fleet.relays[0], 1).await;
    caller.sync(vec![add("shown", 1)]).await?;
    fleet.agrees().await;
    // The second one is cut off, so it never reads the tail.
    fleet.ways[1].cut();
    let kept = fleet.log.barrier().await?.expect("not empty");
    caller.sync(vec![add("shown", 10)]).await?;
    let before = fleet.relays[0].relay().sequencer.read().fold.revision();
    fleet.log.lose_tail(kept);
    fleet.ways[1].mend();
    fleet.is_well_behind(before).await?;
    fleet.agrees().await;
    assert_eq!(fleet.reseeds(), [1, 1, 0]);
    fleet.start_another().await?;
    fleet.move_to(&mut caller, 1).await;
    let answer = caller.sync(Vec::new()).await?;
    assert_eq!(counter(&chunk(&answer).keys, "shown"), Some(11));
    fleet.agrees().await;
    Ok(())
}
