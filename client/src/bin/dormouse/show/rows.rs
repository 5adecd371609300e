//! Rows of keys, for people.

use std::fmt::Write as _;

use dormouse::{
    EventRow, HolderRow, Value,
    replica::message::{KeyRows, Rows},
};
use serde_json::Value as Json;

/// The name of a type, as it is written in a command.
pub(crate) const fn kind(rows: &Rows) -> &'static str {
    rows.kind().name()
}

/// Whether a reader sees anything there.
pub(crate) fn is_visible(rows: &Rows) -> bool {
    match rows {
        Rows::Counter { .. } | Rows::Flag { .. } | Rows::DisableWinsFlag { .. } => true,
        Rows::Set { present, .. }
        | Rows::GrowOnlySet { present, .. }
        | Rows::RemoveWinsSet { present, .. } => !present.is_empty(),
        Rows::Register { value, .. } => value.is_some(),
        Rows::Max { value } | Rows::Min { value } => value.is_some(),
        Rows::Events { events, trimmed_upto } => !events.is_empty() || trimmed_upto.0 > 0,
        Rows::Presence { holders } => holders.iter().any(|holder| holder.value.is_some()),
        Rows::Siblings { values } => !values.is_empty(),
    }
}

/// What is there: `ads/shown counter 41`, `carts/42 set "apple" "pear"`, `flags/checkout register {"on":true}`.
pub(crate) fn state(it: &KeyRows) -> String {
    let content = match &it.rows {
        Rows::Set { present, .. }
        | Rows::GrowOnlySet { present, .. }
        | Rows::RemoveWinsSet { present, .. } => quoted("", present),
        rows => changes(rows),
    };
    line(it, &content)
}

/// What has changed: as [`state`], but a set names what came and went, `carts/42 set +"apple" -"pear"`.
pub(crate) fn change(it: &KeyRows) -> String {
    line(it, &changes(&it.rows))
}

fn line(it: &KeyRows, content: &str) -> String {
    format!("{}/{} {}{content}", it.collection, it.key, kind(&it.rows))
}

fn changes(rows: &Rows) -> String {
    match rows {
        Rows::Counter { value, .. } => format!(" {value}"),
        Rows::Set { present, removed }
        | Rows::GrowOnlySet { present, removed }
        | Rows::RemoveWinsSet { present, removed } => quoted("+", present) + &quoted("-", removed),
        Rows::Register { value: None, .. } => " (deleted)".to_owned(),
        Rows::Register { value: Some(value), .. } => format!(" {}", content(value)),
        Rows::Flag { on } | Rows::DisableWinsFlag { on } => if *on { " on" } else { " off" }.to_owned(),
        Rows::Max { value } | Rows::Min { value } => {
            value.map_or_else(|| " (nothing offered)".to_owned(), |value| format!(" {value}"))
        }
        Rows::Events { events, trimmed_upto } => {
            let trimmed = match trimmed_upto.0 {
                0 => String::new(),
                upto => format!(" (trimmed up to {upto})"),
            };
            events.iter().fold(trimmed, |line, it| line + " " + &event(it))
        }
        Rows::Presence { holders } => holders.iter().fold(String::new(), |line, it| line + " " + &holder(it)),
        Rows::Siblings { values } if values.is_empty() => " (deleted)".to_owned(),
        Rows::Siblings { values } => {
            let each: Vec<String> = values.iter().map(|(_, value)| content(value)).collect();
            format!(" {}", each.join(" | "))
        }
    }
}

/// An entry by its name: `123462.0={"click":1}`.
fn event(it: &EventRow) -> String {
    format!("{}.{}={}", it.revision, it.index, content(&it.payload))
}

/// Who holds up what, or no longer does: `00fgzf2qz84tw={"port":80}`, `-00fgzf2qz84tw`.
fn holder(it: &HolderRow) -> String {
    it.value
        .as_ref()
        .map_or_else(|| format!("-{}", it.node), |value| format!("{}={}", it.node, content(value)))
}

/// A content in one line: JSON, a quoted text, or bytes.
pub(crate) fn content(value: &Value) -> String {
    match value {
        Value::Text(text) => one_line(text),
        Value::Data(data) => format!("0x{}", hex(data)),
    }
}

/// Elements may hold blanks, so they stand in quotes.
fn quoted(sign: &str, elements: &[String]) -> String {
    let words = elements.iter().map(|element| format!("{sign}{}", Json::from(element.as_str())));
    words.fold(String::new(), |line, word| line + " " + &word)
}

/// JSON without line breaks; what is no JSON is quoted, so that it cannot be mistaken for it.
fn one_line(text: &str) -> String {
    let parsed: Result<Json, _> = serde_json::from_str(text);
    parsed.unwrap_or_else(|_| Json::from(text)).to_string()
}

pub(super) fn hex(data: &[u8]) -> String {
    data.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What is there and what is not, of rows that are elements of a set of some kind.
pub(crate) fn elements(rows: &mut Rows) -> Option<(&mut Vec<String>, &mut Vec<String>)> {
    match rows {
        Rows::Set { present, removed }
        | Rows::GrowOnlySet { present, removed }
        | Rows::RemoveWinsSet { present, removed } => Some((present, removed)),
        _ => None,
    }
}

/// Pages cut what is large, so the rows of one key may come in several parts.
pub(crate) fn joined(keys: Vec<KeyRows>) -> Vec<KeyRows> {
    let mut whole: Vec<KeyRows> = Vec::new();
    for next in keys {
        let same = |last: &&mut KeyRows| {
            (&last.collection, &last.key, last.rows.kind()) == (&next.collection, &next.key, next.rows.kind())
        };
        match whole.last_mut().filter(same).map(|last| &mut last.rows) {
            Some(last) => {
                if let Some(apart) = join(last, next.rows.clone()) {
                    whole.push(KeyRows { rows: apart, ..next });
                }
            }
            None => whole.push(next),
        }
    }
    whole
}

/// Adds rows to others of the same key and type; `Some`: they are one row, and stand for themselves.
fn join(rows: &mut Rows, next: Rows) -> Option<Rows> {
    let mut next = next;
    if let (Some((present, removed)), Some((more, gone))) = (elements(rows), elements(&mut next)) {
        present.append(more);
        removed.append(gone);
        return None;
    }
    match (rows, next) {
        (Rows::Events { events, trimmed_upto }, Rows::Events { events: more, trimmed_upto: upto }) => {
            events.extend(more);
            *trimmed_upto = upto.max(*trimmed_upto);
            None
        }
        (Rows::Presence { holders }, Rows::Presence { holders: more }) => {
            holders.extend(more);
            None
        }
        (_, next) => Some(next),
    }
}

#[cfg(test)]
mod tests {
    use dormouse::{Incarnation, NodeId, Revision};

    use super::*;

    fn key(rows: Rows) -> KeyRows {
        KeyRows { collection: "ads".to_owned(), key: "it".to_owned(), rows }
    }

    fn texts(elements: &[&str]) -> Vec<String> {
        elements.iter().map(|it| (*it).to_owned()).collect()
    }

    fn register(value: Option<Value>) -> KeyRows {
        key(Rows::Register { value, stamp_ms: 0 })
    }

    #[test]
    fn a_counter_is_its_value() {
        let it = key(Rows::Counter { value: 41, total: 50 });
        assert_eq!((state(&it), change(&it)), ("ads/it counter 41".into(), "ads/it counter 41".into()));
    }

    #[test]
    fn a_set_names_its_elements_and_a_change_what_came_and_went() {
        let it = key(Rows::Set { present: texts(&["a b"]), removed: texts(&["c"]) });
        assert_eq!(state(&it), "ads/it set \"a b\"");
        assert_eq!(change(&it), "ads/it set +\"a b\" -\"c\"");
    }

    #[test]
    fn a_register_is_one_line_whatever_it_holds() {
        let text = |text: &str| state(&register(Some(Value::Text(text.to_owned()))));
        assert_eq!(text("{\n\"a\": 1 }"), "ads/it register {\"a\":1}");
        assert_eq!(text("no\njson"), "ads/it register \"no\\njson\"");
        let data = register(Some(Value::Data(vec![1, 255])));
        assert_eq!(state(&data), "ads/it register 0x01ff");
        assert_eq!(state(&register(None)), "ads/it register (deleted)");
    }

    #[test]
    fn a_set_that_came_in_pages_is_one_set() {
        let part = |present| key(Rows::Set { present: texts(present), removed: Vec::new() });
        let whole = joined(vec![part(&["a"]), part(&["b"]), key(Rows::Counter { value: 1, total: 1 })]);
        assert_eq!(whole.len(), 2);
        assert_eq!(state(&whole[0]), "ads/it set \"a\" \"b\"");
    }

    #[test]
    fn every_other_type_is_one_line_too() {
        let value = |text: &str| Value::Text(text.to_owned());
        assert_eq!(state(&key(Rows::Flag { on: true })), "ads/it flag on");
        assert_eq!(state(&key(Rows::DisableWinsFlag { on: false })), "ads/it disable-wins-flag off");
        assert_eq!(state(&key(Rows::Max { value: Some(-3) })), "ads/it max -3");
        assert_eq!(state(&key(Rows::Min { value: None })), "ads/it min (nothing offered)");
        let values = vec![(Revision(3), value("1")), (Revision(4), value("{ }"))];
        assert_eq!(state(&key(Rows::Siblings { values })), "ads/it siblings 1 | {}");
        let grown = Rows::GrowOnlySet { present: texts(&["a"]), removed: Vec::new() };
        assert_eq!(change(&key(grown)), "ads/it grow-only-set +\"a\"");
        let event = EventRow {
            revision: Revision(7),
            index: 1,
            payload: value("[1]"),
            node: None,
            accepted_at_ms: 0,
        };
        let events = Rows::Events { events: vec![event], trimmed_upto: Revision(5) };
        assert_eq!(state(&key(events)), "ads/it events (trimmed up to 5) 7.1=[1]");
        let holder = |node, value| HolderRow { node: NodeId(node), incarnation: Incarnation(1), value };
        let holders = vec![holder(1, Some(value("80"))), holder(2, None)];
        let shown = state(&key(Rows::Presence { holders }));
        assert_eq!(shown, "ads/it presence 0000000000001=80 -0000000000002");
    }

    #[test]
    fn a_log_that_came_in_pages_is_one_log_and_siblings_stand_for_themselves() {
        let log = |revision| {
            let payload = Value::Text("1".to_owned());
            let event =
                EventRow { revision: Revision(revision), index: 0, payload, node: None, accepted_at_ms: 0 };
            key(Rows::Events { events: vec![event], trimmed_upto: Revision(1) })
        };
        let one = key(Rows::Siblings { values: Vec::new() });
        assert_eq!(joined(vec![log(2), log(3), one.clone(), one]).len(), 3);
    }
}
