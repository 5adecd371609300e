//! Logs of events.

use dormouse_proto::{
    lattice::{Append, EventsDelta},
    rows::RowWriter,
    wire::v1::key_state::State,
};

use super::*;
use crate::state::ReadBounds;

fn append(key: &str, payloads: &[&str]) -> Delta {
    let event = |text: &&str| Append { payload: Value::Text((*text).to_owned()), id: None };
    let append = payloads.iter().map(event).collect();
    delta(key, Change::Events(EventsDelta { append, trim_upto: Revision::ZERO }))
}

fn append_once(key: &str, payload: &str, id: &str) -> Delta {
    let event = Append { payload: Value::Text(payload.to_owned()), id: Some(id.parse().expect("valid")) };
    delta(key, Change::Events(EventsDelta { append: vec![event], trim_upto: Revision::ZERO }))
}

fn trim(key: &str, upto: Revision) -> Delta {
    delta(key, Change::Events(EventsDelta { append: Vec::new(), trim_upto: upto }))
}

fn member() -> Story {
    let mut story = Story { stamp_ms: 5_000, ..Story::default() };
    story.join(1, 1, None);
    story
}

fn text(value: Option<v1::Value>) -> String {
    match value.and_then(|it| it.kind) {
        Some(v1::value::Kind::Text(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// What a read of the log says.
fn read(story: &Story, key: &str, after: Revision, max_events: usize) -> v1::EventsState {
    let view = story.fold.namespace(&Namespace::default()).expect("there");
    let mut bytes = Vec::new();
    let mut writer = RowWriter::new(&mut bytes, RowWriter::READ);
    let bounds = ReadBounds { max_bytes: 1 << 20, events_after: after, max_events };
    assert_eq!(view.write_matching("c", key, None, bounds, &mut writer), None);
    writer.finish();
    let read = v1::ReadResponse::decode(bytes.as_slice()).expect("decodes");
    match read.keys.into_iter().next().and_then(|it| it.state) {
        Some(State::Events(state)) => state,
        None => v1::EventsState::default(),
        other => panic!("{other:?}"),
    }
}

fn payloads(state: &v1::EventsState) -> Vec<String> {
    state.events.iter().map(|event| text(event.payload.clone())).collect()
}

#[test]
fn events_are_told_in_order_once_and_never_again() {
    let mut story = member();
    let first = story.bound(1, 1, vec![append("log", &["a", "b"])]);
    let token = story.pull(&story.everything()).token;
    story.bound(1, 2, vec![append("log", &["c"])]);
    let chunk = story.pull(&story.after(token));
    assert_eq!(chunk.rows, 1);
    let state = read(&story, "log", Revision::ZERO, 500);
    assert_eq!(payloads(&state), ["a", "b", "c"]);
    let named: Vec<_> = state.events.iter().map(|event| (event.revision, event.index)).collect();
    assert_eq!(named[..2], [(first.0, 0), (first.0, 1)]);
    assert_eq!(state.events[0].node_id, NodeId(1).to_string());
}

#[test]
fn a_trim_drops_what_it_names_and_readers_hear_of_it_once() {
    let mut story = member();
    let first = story.bound(1, 1, vec![append("log", &["a"])]);
    story.bound(1, 2, vec![append("log", &["b"])]);
    let token = story.pull(&story.everything()).token;
    story.bound(1, 3, vec![trim("log", first)]);
    let chunk = story.pull(&story.after(token.clone()));
    let expected = v1::EventsState { events: Vec::new(), trimmed_upto: first.0 };
    assert_eq!(keys(&chunk)[0].state, Some(State::Events(expected)));
    assert_eq!(payloads(&read(&story, "log", Revision::ZERO, 500)), ["b"]);
    // A trim of what is gone is no news.
    story.bound(1, 4, vec![trim("log", first)]);
    assert_eq!(story.pull(&story.after(chunk.token)).rows, 0);
    let refused = story.push(1, 5, vec![trim("log", Revision(1 << 40))]);
    assert!(matches!(refused, PushVerdict::Refused(why) if why.reason == Reason::ContextInvalid));
}

#[test]
fn a_read_ends_between_two_revisions_and_goes_on_behind_one() {
    let mut story = member();
    for no in 1..=4 {
        story.bound(1, no, vec![append("log", &["x", "y", "z"])]);
    }
    let page = read(&story, "log", Revision::ZERO, 7);
    assert_eq!(page.events.len(), 6, "the third revision would be split");
    let last = Revision(page.events.last().expect("some").revision);
    assert_eq!(read(&story, "log", last, 7).events.len(), 6);
    assert_eq!(read(&story, "log", Revision::ZERO, 1).events.len(), 3, "one revision always comes");
}

#[test]
fn an_event_with_an_id_is_appended_once_whoever_repeats_it() {
    let mut story = member();
    story.join(2, 1, None);
    story.bound(1, 1, vec![append_once("log", "a", "request-7")]);
    story.bound(2, 1, vec![append_once("log", "again", "request-7")]);
    story.bound(2, 2, vec![append_once("other", "a", "request-7")]);
    assert_eq!(payloads(&read(&story, "log", Revision::ZERO, 500)), ["a"]);
    assert_eq!(payloads(&read(&story, "other", Revision::ZERO, 500)), ["a"]);
}

#[test]
fn a_log_keeps_within_its_count_in_steps_of_an_eighth() {
    let mut story = member();
    story.policy(Policy { events_max: Some(16), ..Policy::default() });
    let mut most = 0;
    for no in 1..=100 {
        story.bound(1, no, vec![append("log", &["x"])]);
        most = most.max(read(&story, "log", Revision::ZERO, 500).events.len());
    }
    assert_eq!(most, 16);
    let view = story.fold.namespace(&Namespace::default()).expect("there");
    assert!((84..100).contains(&view.collapsed().events), "{:?}", view.collapsed());
    let rows = view.rows();
    assert!(rows <= 17, "{rows} rows: trimmed entries leave nothing");
}

#[test]
fn a_log_keeps_within_its_bytes() {
    let mut story = member();
    story.policy(Policy { events_bytes_max: Some(4_000), ..Policy::default() });
    let large = "x".repeat(900);
    for no in 1..=20 {
        story.bound(1, no, vec![append("log", &[&large])]);
        let left = read(&story, "log", Revision::ZERO, 500).events.len();
        assert!(left <= 4, "{left} events of more than 900 bytes are there");
    }
}

#[test]
fn events_that_are_too_old_go_when_a_record_says_that_time_has_passed() {
    let mut story = member();
    story.policy(Policy { events_age_ms: Some(10_000), ..Policy::default() });
    let digest = |story: &mut Story, log_time_ms| {
        story.say(Record::Digest(Digest { log_time_ms, ..Digest::default() }));
    };
    story.bound(1, 1, vec![append("log", &["old"])]);
    digest(&mut story, 5_000);
    story.bound(1, 2, vec![append("log", &["young"])]);
    digest(&mut story, 10_000);
    assert_eq!(read(&story, "log", Revision::ZERO, 500).events.len(), 2);
    digest(&mut story, 11_000);
    let state = read(&story, "log", Revision::ZERO, 500);
    assert_eq!(payloads(&state), ["young"]);
    assert!(story.fold.awaits_log_time());
    digest(&mut story, 16_000);
    assert_eq!(read(&story, "log", Revision::ZERO, 500).events.len(), 0);
    assert!(!story.fold.awaits_log_time());
}

#[test]
fn logs_survive_a_snapshot_and_age_on_alike() {
    let mut story = member();
    let policy = Policy { events_age_ms: Some(20_000), dead_rows_min: Some(1), ..Policy::default() };
    story.policy(policy);
    let step = |story: &mut Story, no: u64| {
        let key = format!("log{}", no % 3);
        let upto = Revision(story.fold.revision().0.saturating_sub(no % 5));
        let change = EventsDelta {
            append: (0..no % 4).map(|_| Append { payload: Value::Text("e".into()), id: None }).collect(),
            trim_upto: if no % 7 == 0 { upto } else { Revision::ZERO },
        };
        story.push(1, no, vec![delta(&key, Change::Events(change)), append(&format!("b{no}"), &["x"])]);
        story.say(Record::Digest(Digest { log_time_ms: no * 900, ..Digest::default() }));
    };
    (1..=50).for_each(|no| step(&mut story, no));
    let mut bytes = Vec::new();
    story.fold.write_snapshot(|piece| bytes.extend_from_slice(piece));
    let mut restored = Story { fold: Fold::restore(bytes.chunks(13)).expect("whole"), stamp_ms: 5_000 };
    for no in 51..=120 {
        assert_eq!(restored.fold.hash(), story.fold.hash(), "before push {no}");
        step(&mut story, no);
        step(&mut restored, no);
    }
}

#[test]
fn the_place_of_an_entry_that_came_and_went_in_one_push_may_be_taken_at_once() {
    let mut story = member();
    story.policy(Policy { events_max: Some(2), ..Policy::default() });
    // Three entries are one too many, so all of this revision go, and the counter gets the place of one of them.
    story.bound(1, 1, vec![append("e", &["1", "2", "3"]), count("n", 1)]);
    let chunk = story.pull(&story.everything());
    assert_eq!(chunk.rows, 1, "the counter, once; of a log with no entry a new reader need not hear");
    let mut bytes = Vec::new();
    story.fold.write_snapshot(|piece| bytes.extend_from_slice(piece));
    let restored = Fold::restore([&bytes]).expect("whole");
    assert_eq!(restored.hash(), story.fold.hash());
    let view = |fold: &Fold| fold.namespace(&Namespace::default()).map(|view| (view.rows(), view.bytes()));
    assert_eq!(view(&restored), view(&story.fold));
}

/// The same fold, from its own snapshot.
fn restarted(story: &Story) -> Story {
    let mut bytes = Vec::new();
    story.fold.write_snapshot(|piece| bytes.extend_from_slice(piece));
    Story { fold: Fold::restore([&bytes]).expect("whole"), stamp_ms: story.stamp_ms }
}

#[test]
fn a_relay_that_was_restarted_ages_events_like_one_that_was_not() {
    let digest = |log_time_ms| Record::Digest(Digest { log_time_ms, ..Digest::default() });
    let mut story = member();
    story.policy(Policy { events_max: Some(1), events_age_ms: Some(10), ..Policy::default() });
    story.bound(1, 1, vec![append("f", &["1"]), append("d", &["1"])]);
    let mut again = restarted(&story);
    for it in [&mut story, &mut again] {
        it.say(digest(20));
    }
    assert_eq!(again.fold.hash(), story.fold.hash(), "two logs that were appended to in one push");
    // More appends than one record may trim by their age, all but one of them gone already for their number.
    for no in 2..1_100 {
        story.bound(1, no, vec![append("e", &["1"])]);
    }
    let mut again = restarted(&story);
    for it in [&mut story, &mut again] {
        it.say(digest(40));
    }
    assert_eq!(again.fold.hash(), story.fold.hash(), "a log whose entries are gone for their number");
}
