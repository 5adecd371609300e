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
            trim_upto: if no.is_multiple_of(7) { upto } else { Revision::ZERO },
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

/// What this very record appends was promised to whoever appended it, so a trim can never reach it; but a trim that is
/// asked for may name everything before, and then the places of those entries are free at once.
#[test]
fn a_record_does_not_trim_what_it_appends() {
    let mut story = member();
    story.policy(Policy { events_max: Some(500), ..Policy::default() });
    let many = vec!["x"; 500];
    story.bound(1, 1, vec![append("log", &many)]);
    let last = story.bound(1, 2, vec![append("log", &many), count("n", 1)]);
    let left = read(&story, "log", Revision::ZERO, 500);
    assert_eq!(left.events.len(), 500);
    assert!(left.events.iter().all(|event| event.revision == last.0));
    agrees_with_its_snapshot(&story);
}

fn restored(story: &Story) -> Story {
    let mut bytes = Vec::new();
    story.fold.write_snapshot(|piece| bytes.extend_from_slice(piece));
    Story { fold: Fold::restore([&bytes]).expect("whole"), stamp_ms: story.stamp_ms }
}

fn agrees_with_its_snapshot(story: &Story) {
    let sizes = |fold: &Fold| fold.namespace(&Namespace::default()).map(|view| (view.rows(), view.bytes()));
    let restored = restored(story);
    assert_eq!(restored.fold.hash(), story.fold.hash());
    assert_eq!(sizes(&restored.fold), sizes(&story.fold));
}

fn digest(story: &mut Story, log_time_ms: u64) {
    story.say(Record::Digest(Digest { log_time_ms, ..Digest::default() }));
}

#[test]
fn logs_that_were_appended_to_at_one_revision_age_in_one_order_before_and_after_a_restart() {
    let mut story = member();
    story.policy(Policy { events_age_ms: Some(1_000), ..Policy::default() });
    story.bound(1, 1, (0..20).map(|n| append(&format!("k{n}"), &["x"])).collect());
    let mut other = restored(&story);
    for it in [&mut story, &mut other] {
        digest(it, 2_000);
    }
    assert_eq!(other.fold.hash(), story.fold.hash());
}

#[test]
fn what_went_through_a_log_is_not_remembered_by_how_it_ages() {
    let mut story = member();
    story.policy(Policy { events_age_ms: Some(1_000), ..Policy::default() });
    let mut last = Revision::ZERO;
    for no in 1..=1_100 {
        let change = EventsDelta {
            append: vec![Append { payload: Value::Text("x".into()), id: None }],
            trim_upto: last,
        };
        last = story.bound(1, no, vec![delta("a", Change::Events(change))]);
    }
    story.bound(1, 1_101, vec![trim("a", last), append("b", &["x"])]);
    let mut other = restored(&story);
    for it in [&mut story, &mut other] {
        digest(it, 2_000);
    }
    assert_eq!(other.fold.hash(), story.fold.hash());
    assert!(!story.fold.awaits_log_time(), "nothing is left that could age");
}

#[test]
fn a_log_that_dies_of_age_is_collected_like_every_dead_row() {
    let mut story = member();
    story.policy(Policy { events_age_ms: Some(1_000), dead_rows_min: Some(1), ..Policy::default() });
    for n in 0..10_u64 {
        story.bound(1, 2 * n + 1, vec![append(&format!("k{n}"), &["x"])]);
        story.bound(1, 2 * n + 2, vec![append(&format!("k{n}"), &["y"])]);
    }
    digest(&mut story, 2_000);
    let view = story.fold.namespace(&Namespace::default()).expect("there");
    assert_eq!(view.dead_rows(), 1);
}

#[test]
fn a_consumer_hears_of_a_gap_even_if_the_log_was_forgotten_meanwhile() {
    let mut story = member();
    story.policy(Policy { dead_rows_min: Some(1), ..Policy::default() });
    let first = story.bound(1, 1, vec![append("log", &["a"])]);
    let second = story.bound(1, 2, vec![append("log", &["b"])]);
    story.bound(1, 3, vec![trim("log", second)]);
    for n in 0..3 {
        story.bound(1, 4 + 2 * n, vec![count(&format!("c{n}"), 1)]);
        story.bound(1, 5 + 2 * n, vec![count(&format!("c{n}"), -1)]);
    }
    assert!(read(&story, "log", Revision::ZERO, 500) == v1::EventsState::default(), "the log is forgotten");
    story.bound(1, 20, vec![append("log", &["c"])]);
    assert!(read(&story, "log", first, 500).trimmed_upto >= second.0);
    agrees_with_its_snapshot(&story);
}
