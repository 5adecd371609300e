//! `get` and `push`.

use dormouse::{
    Append, Path, Relay, Revision, Value, Written, delta,
    replica::message::{KeyRows, Rows},
};
use dormouse_proto::{
    convert::bounds,
    ids::Element,
    lattice::{Change as Lattice, Delta},
};

use crate::{
    args::{Change, CounterChange, EventsChange, GrowOnlySetChange, RegisterChange, SetChange},
    failure::Failure,
    screen::Screen,
    show::{durability, json, rows},
};

pub(crate) async fn get(screen: Screen, relay: &Relay, paths: &[String]) -> Result<(), Failure> {
    for paths in paths.chunks(bounds::READ_KEYS) {
        let names: Vec<&str> = paths.iter().map(String::as_str).collect();
        let reading = relay.read(&names).await?;
        let keys = rows::joined(reading.keys);
        warn_of_long_logs(&keys);
        for key in keys.iter().filter(|key| rows::is_visible(&key.rows)) {
            let mut json = json::of_key(key);
            json.insert("asOf".to_owned(), reading.as_of.into());
            screen.show(&rows::state(key), &json.into())?;
        }
        for path in paths.iter().filter(|path| !is_there(path, &keys)) {
            eprintln!("dormouse: {path}: nothing there");
        }
    }
    Ok(())
}

/// A read brings the oldest entries of a log and no more than one delta may append.
fn warn_of_long_logs(keys: &[KeyRows]) {
    for key in keys {
        if matches!(&key.rows, Rows::Events { events, .. } if events.len() >= bounds::READ_EVENTS) {
            let path = format!("{}/{}", key.collection, key.key);
            eprintln!("dormouse: {path} may have more entries: `dormouse consume` brings all of them");
        }
    }
}

fn is_there(pattern: &str, keys: &[KeyRows]) -> bool {
    let visible = keys.iter().filter(|key| rows::is_visible(&key.rows));
    let mut names = visible.map(|key| format!("{}/{}", key.collection, key.key));
    match pattern.strip_suffix('*') {
        Some(prefix) => names.any(|name| name.starts_with(prefix)),
        None => names.any(|name| name == pattern),
    }
}

pub(crate) async fn push(screen: Screen, relay: &Relay, path: Path, change: Change) -> Result<(), Failure> {
    let asked = asked_for(&path, &change);
    let delta = into_delta(&path, change);
    let kind = delta.change.kind();
    let written = relay.write(None, vec![delta]).await?;
    let mut keys = became(asked, &written);
    if keys.is_empty() {
        keys = rows::joined(relay.read(&[&path.to_string()]).await?.keys);
        keys.retain(|key| key.rows.kind() == kind);
    }
    for key in keys {
        let kept = durability(written.durability);
        let text = format!("{}   revision {}, {kept}", rows::change(&key), written.revision);
        let mut json = json::of_key(&key);
        json.insert("revision".to_owned(), written.revision.into());
        json.insert("durability".to_owned(), kept.into());
        screen.show(&text, &json.into())?;
    }
    Ok(())
}

fn into_delta(path: &Path, change: Change) -> Delta {
    match change {
        Change::Counter { change: CounterChange::Add { n } } => delta::counter_add(path, n),
        Change::Counter { change: CounterChange::Subtract { n } } => delta::counter_add(path, -n),
        Change::Counter { change: CounterChange::Reset { n } } => {
            let mut reset = delta::counter_reset(path);
            if let Lattice::Counter(counter) = &mut reset.change {
                counter.amount = n;
            }
            reset
        }
        Change::Set { change: SetChange::Add { elements } } => delta::set_add(path, elements),
        Change::Set { change: SetChange::Remove { elements } } => delta::set_remove(path, elements),
        Change::Register { change: RegisterChange::Set { value } } => {
            delta::register_set(path, Some(Value::Text(value)))
        }
        Change::Register { change: RegisterChange::Delete } => delta::register_set(path, None),
        Change::Flag { on } => delta::flag_set(path, on),
        Change::DisableWinsFlag { on } => delta::disable_wins_flag_set(path, on),
        Change::Max { n } => delta::max_offer(path, n),
        Change::Min { n } => delta::min_offer(path, n),
        Change::Events { change } => into_events(path, change),
        Change::Siblings { change: RegisterChange::Set { value } } => {
            delta::siblings_set(path, Some(Value::Text(value)))
        }
        Change::Siblings { change: RegisterChange::Delete } => delta::siblings_set(path, None),
        Change::GrowOnlySet { change: GrowOnlySetChange::Add { elements } } => {
            delta::grow_only_set_add(path, elements)
        }
        Change::RemoveWinsSet { change: SetChange::Add { elements } } => {
            delta::remove_wins_set_add(path, elements)
        }
        Change::RemoveWinsSet { change: SetChange::Remove { elements } } => {
            delta::remove_wins_set_remove(path, elements)
        }
    }
}

fn into_events(path: &Path, change: EventsChange) -> Delta {
    match change {
        EventsChange::Append { entries } => {
            let entry = |json| Append { payload: Value::Text(json), id: None };
            delta::events_append(path, entries.into_iter().map(entry))
        }
        EventsChange::Trim { revision } => delta::events_trim(path, Revision(revision)),
    }
}

/// The rows as the change wants them; `None`: that depends on what is there.
fn asked_for(path: &Path, change: &Change) -> Option<KeyRows> {
    let texts = |elements: &[Element]| elements.iter().map(ToString::to_string).collect();
    let rows = match change {
        Change::Counter { .. } | Change::Events { .. } | Change::Siblings { .. } => return None,
        Change::Set { change: SetChange::Add { elements } } => {
            Rows::Set { present: texts(elements), removed: Vec::new() }
        }
        Change::Set { change: SetChange::Remove { elements } } => {
            Rows::Set { present: Vec::new(), removed: texts(elements) }
        }
        Change::Register { change: RegisterChange::Set { value } } => {
            Rows::Register { value: Some(Value::Text(value.clone())), stamp_ms: 0 }
        }
        Change::Register { change: RegisterChange::Delete } => Rows::Register { value: None, stamp_ms: 0 },
        Change::Flag { on } => Rows::Flag { on: *on },
        Change::DisableWinsFlag { on } => Rows::DisableWinsFlag { on: *on },
        Change::Max { n } => Rows::Max { value: Some(*n) },
        Change::Min { n } => Rows::Min { value: Some(*n) },
        Change::GrowOnlySet { change: GrowOnlySetChange::Add { elements } } => {
            Rows::GrowOnlySet { present: texts(elements), removed: Vec::new() }
        }
        Change::RemoveWinsSet { change: SetChange::Add { elements } } => {
            Rows::RemoveWinsSet { present: texts(elements), removed: Vec::new() }
        }
        Change::RemoveWinsSet { change: SetChange::Remove { elements } } => {
            Rows::RemoveWinsSet { present: Vec::new(), removed: texts(elements) }
        }
    };
    let (collection, key) = (path.collection.to_string(), path.key.to_string());
    Some(KeyRows { collection, key, rows })
}

/// What the touched rows became. An acknowledgement leaves out those that are exactly what was asked for.
fn became(asked: Option<KeyRows>, written: &Written) -> Vec<KeyRows> {
    let Some(mut asked) = asked else { return written.keys.clone() };
    for key in &written.keys {
        let mut is = key.rows.clone();
        match (rows::elements(&mut asked.rows), rows::elements(&mut is)) {
            (Some((present, removed)), Some((is, is_not))) => {
                present.retain(|element| !is_not.contains(element) && !is.contains(element));
                removed.retain(|element| !is_not.contains(element) && !is.contains(element));
                present.append(is);
                removed.append(is_not);
            }
            _ => asked.rows = is,
        }
    }
    vec![asked]
}

#[cfg(test)]
mod tests {
    use dormouse::Durability;

    use super::*;

    fn written(keys: Vec<KeyRows>) -> Written {
        Written { revision: 7, durability: Durability::Fsync, as_of: 7, keys }
    }

    fn path() -> Path {
        "carts/42".parse().expect("a path")
    }

    fn key(rows: Rows) -> KeyRows {
        KeyRows { collection: "carts".to_owned(), key: "42".to_owned(), rows }
    }

    #[test]
    fn what_an_acknowledgement_leaves_out_is_what_was_asked_for() {
        let elements = ["a", "b"].map(|it| it.parse().expect("an element")).to_vec();
        let asked = asked_for(&path(), &Change::Set { change: SetChange::Add { elements } });
        assert_eq!(
            rows::change(&became(asked.clone(), &written(Vec::new()))[0]),
            "carts/42 set +\"a\" +\"b\""
        );
        let lost = key(Rows::Set { present: Vec::new(), removed: vec!["b".to_owned()] });
        assert_eq!(rows::change(&became(asked, &written(vec![lost]))[0]), "carts/42 set +\"a\" -\"b\"");
    }

    #[test]
    fn a_counter_is_shown_as_it_became() {
        let change = Change::Counter { change: CounterChange::Add { n: 3 } };
        let it = key(Rows::Counter { value: 41, total: 41 });
        assert_eq!(became(asked_for(&path(), &change), &written(vec![it.clone()])), [it]);
    }

    #[test]
    fn a_reset_may_leave_a_number() {
        let change = Change::Counter { change: CounterChange::Reset { n: 5 } };
        let delta = into_delta(&path(), change);
        assert!(matches!(delta.change, Lattice::Counter(it) if it.amount == 5 && it.reset.is_some()));
    }

    #[test]
    fn a_pattern_is_there_if_any_key_begins_so() {
        let keys = [key(Rows::Counter { value: 0, total: 0 })];
        assert!(is_there("carts/*", &keys) && is_there("carts/42", &keys));
        assert!(!is_there("carts/4", &keys) && !is_there("ads/*", &keys));
    }
}
