//! Every type between two nodes of a real relay, messages, consumers, and following at any time.

mod world;

use std::time::Duration;

use dormouse::{Awake, NewEvent, Node, Relay, Revision, SendOptions, Slept, Value};
use world::World;

const TIME: Duration = Duration::from_secs(120);

async fn sleeps(awake: Awake) {
    let slept = awake.sleep().await;
    assert!(matches!(slept, Slept::Saved { .. } | Slept::Nothing), "{slept:?}");
}

async fn wakes(node: &Node) -> Awake {
    let awake = node.wake(TIME).await;
    awake.require(TIME).expect("the relay answers");
    awake
}

fn text(json: &str) -> Value {
    Value::Text(json.to_owned())
}

fn relay(world: &World) -> Relay {
    Relay::builder().url(&world.url).build().expect("valid")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_says_the_other_sees() {
    let world = World::start().await;
    let (one, other) = (world.node("one"), world.node("other"));
    let awake = wakes(&one).await;
    awake.flag("t/flag").on().expect("fits");
    awake.disable_wins_flag("t/careful").on().expect("fits");
    awake.max("t/max").offer(7).expect("fits");
    awake.min("t/min").offer(-7).expect("fits");
    awake.grow_only_set("t/grown").add("x").expect("fits");
    awake.remove_wins_set("t/guarded").add("x").expect("fits");
    awake.siblings("t/beside").set(&1_u32).expect("fits");
    awake.events("t/events").append(&"first".to_owned()).expect("fits");
    awake.events("t/events").append_once("one", &"second".to_owned()).expect("fits");
    awake.presence("t/here").hold_up(&8080_u32).expect("fits");
    sleeps(awake).await;

    let awake = wakes(&other).await;
    assert!(awake.flag("t/flag").is_on() && awake.disable_wins_flag("t/careful").is_on());
    assert_eq!((awake.max("t/max").value(), awake.min("t/min").value()), (Some(7), Some(-7)));
    assert!(awake.grow_only_set("t/grown").contains("x") && awake.remove_wins_set("t/guarded").contains("x"));
    assert_eq!(awake.siblings::<u32>("t/beside").values(), Ok(vec![1]));
    let events = awake.events::<String>("t/events").entries().expect("JSON");
    let seen: Vec<_> =
        events.iter().map(|it| (it.index, it.payload.as_str(), it.node_id.is_some())).collect();
    assert_eq!(seen, [(0, "first", true), (1, "second", true)]);
    let holders = awake.presence::<u32>("t/here").holders().expect("JSON");
    assert_eq!((holders.len(), holders[0].value), (1, 8080));
    assert!(events[0].revision.is_some() && events[0].accepted_at.is_some());

    awake.flag("t/flag").off().expect("fits");
    awake.disable_wins_flag("t/careful").off().expect("fits");
    awake.remove_wins_set("t/guarded").remove("x").expect("fits");
    awake.siblings::<u32>("t/beside").delete().expect("fits");
    awake.events::<String>("t/events").trim_upto(events[1].revision.expect("accepted")).expect("fits");
    sleeps(awake).await;
    one.leave("done").await;

    let awake = wakes(&other).await;
    assert!(!awake.flag("t/flag").is_on() && !awake.disable_wins_flag("t/careful").is_on());
    assert!(awake.remove_wins_set("t/guarded").elements().is_empty());
    assert!(awake.siblings::<u32>("t/beside").raw().is_empty());
    assert!(awake.events::<String>("t/events").raw().is_empty());
    assert!(awake.presence::<u32>("t/here").raw().is_empty(), "it ends with the membership");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_did_not_see_each_other_stand_side_by_side_until_somebody_decides() {
    let world = World::start().await;
    let (one, other) = (world.node("one"), world.node("other"));
    let (first, second) = (wakes(&one).await, wakes(&other).await);
    first.siblings("t/v").set(&"a").expect("fits");
    second.siblings("t/v").set(&"b").expect("fits");
    sleeps(first).await;
    sleeps(second).await;
    let awake = wakes(&one).await;
    let values = awake.siblings::<String>("t/v");
    assert_eq!(values.values(), Ok(vec!["a".to_owned(), "b".to_owned()]));
    values.set(&"both".to_owned()).expect("fits");
    assert_eq!(values.values(), Ok(vec!["both".to_owned()]));
    sleeps(awake).await;
    assert_eq!(wakes(&other).await.siblings::<String>("t/v").values(), Ok(vec!["both".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clear_takes_away_what_was_seen_and_no_leaf_that_was_written_meanwhile() {
    let world = World::start().await;
    let (one, other) = (world.node("one"), world.node("other"));
    let awake = wakes(&one).await;
    let cart = awake.map("carts/42");
    cart.counter("qty").add(3).expect("fits");
    cart.set("tags").add("x").expect("fits");
    cart.map("sub").register("note").set(&1_u32).expect("fits");
    awake.max("carts/42/top").offer(1).expect("fits");
    assert!(cart.counter("").add(1).is_err() && awake.map("carts").counter("qty").add(1).is_err());
    sleeps(awake).await;

    let (first, second) = (wakes(&one).await, wakes(&other).await);
    assert_eq!(second.map("carts/42").keys(), ["qty", "sub/note", "tags", "top"]);
    second.map("carts/42").counter("qty").add(2).expect("fits");
    let cleared = first.map("carts/42").clear().expect("fits");
    assert_eq!((cleared.rows, cleared.kept), (3, vec!["carts/42/top".to_owned()]));
    sleeps(second).await;
    sleeps(first).await;
    let awake = wakes(&other).await;
    assert_eq!(awake.map("carts/42").keys(), ["qty", "top"]);
    assert_eq!(awake.counter("carts/42/qty").value(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_are_followed_and_given_up_at_any_time() {
    let world = World::start().await;
    let path = |text: &str| text.parse::<dormouse::Path>().expect("a path");
    let written =
        vec![dormouse::delta::counter_add(&path("a/n"), 1), dormouse::delta::counter_add(&path("b/n"), 2)];
    relay(&world).write(None, written).await.expect("accepted");
    let node = world.builder("ads").follow("a").build().expect("valid");
    let awake = wakes(&node).await;
    assert_eq!((awake.counter("a/n").known(), awake.counter("b/n").known()), (Some(1), None));
    for _ in 0..2 {
        node.follow("b").expect("a name");
        assert_eq!(awake.counter("b/n").known(), None, "its rows come with the next call");
        awake.beat().await.expect("reached");
        awake.beat().await.expect("reached");
        assert_eq!(awake.counter("b/n").known(), Some(2));
        assert!(node.unfollow("b"));
        assert_eq!(awake.counter("b/n").known(), None);
    }
    assert!(node.follow("Not a name").is_err());
    sleeps(awake).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_arrives_at_the_next_wake_and_once() {
    let world = World::start().await;
    let (one, other) = (world.node("one"), world.node("other"));
    let awake = wakes(&one).await;
    let sent_to = relay(&world).members(&dormouse::MemberFilter::default()).await.expect("members");
    let to = sent_to[0].node_id.clone();
    sleeps(awake).await;
    let sender = wakes(&other).await;
    for nth in ["1", "2"] {
        sender.send(&to, None, text(nth), SendOptions::default()).await.expect("accepted");
    }
    let awake = wakes(&one).await;
    let taken = awake.take_inbox();
    assert_eq!(taken.iter().map(|it| it.payload.clone()).collect::<Vec<_>>(), [text("1"), text("2")]);
    assert!(!taken[0].sender.is_empty() && taken[0].sender != to, "the sender's own id");
    assert_eq!((awake.take_inbox().len(), awake.inbox().len()), (0, 2));
    awake.beat().await.expect("reached");
    assert!(awake.take_inbox().is_empty());
    sleeps(awake).await;
    assert!(wakes(&one).await.inbox().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_gets_every_entry_in_batches_and_is_told_what_it_missed() {
    let world = World::start().await;
    let relay = relay(&world);
    let append = async |from: u32, to: u32| {
        let entry = |n: u32| NewEvent { payload: text(&n.to_string()), id: None };
        relay.append("orders/clicks", (from..to).map(entry).collect()).await.expect("accepted");
    };
    for nth in 0..3 {
        append(nth * 400, (nth + 1) * 400).await;
    }
    let mut billing = relay.consumer("orders/clicks", "billing");
    let first = billing.next_batch().await.expect("read").expect("entries");
    assert_eq!((first.events.len(), first.missed), (400, None), "whole revisions, at most 500");
    let upto = first.upto;
    drop(first);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut again = relay.consumer("orders/clicks", "billing"); // as another process would
        let batch = again.next_batch().await.expect("read").expect("entries");
        seen.extend(batch.events.iter().map(|event| event.json::<u32>().expect("JSON")));
        batch.done().await.expect("accepted");
    }
    assert_eq!(seen, (0..1_200).collect::<Vec<_>>());
    assert!(relay.consumer("orders/clicks", "billing").next_batch().await.expect("read").is_none());
    let kept = billing.next_batch().await.expect("read").expect("it had not moved on");
    assert_eq!(kept.upto, upto);
    kept.done().await.expect("the position never moves back");
    assert!(relay.consumer("orders/clicks", "billing").next_batch().await.expect("read").is_none());

    append(1_200, 1_300).await;
    let path = "orders/clicks".parse().expect("a path");
    let written = relay.append("orders/clicks", vec![NewEvent { payload: text("1300"), id: None }]).await;
    let at = written.expect("accepted").revision;
    relay.write(None, vec![dormouse::delta::events_trim(&path, Revision(at - 1))]).await.expect("accepted");
    let mut billing = relay.consumer("orders/clicks", "billing");
    let batch = billing.next_batch().await.expect("read").expect("an entry");
    assert_eq!(batch.events.len(), 1);
    assert!(batch.missed.is_some_and(|missed| missed.upto < batch.upto), "{:?}", batch.missed);
    batch.done().await.expect("accepted");
    assert!(relay.consumer("orders", "billing").next_batch().await.is_err(), "malformed");
}
