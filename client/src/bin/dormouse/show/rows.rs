//! Rows of keys.

use std::fmt::Write as _;

use dormouse::{
    Value,
    replica::message::{KeyRows, Rows},
};
use serde_json::{Value as Json, json};

/// The name of a type, as it is written in a command.
pub(crate) const fn kind(rows: &Rows) -> &'static str {
    match rows {
        Rows::Counter { .. } => "counter",
        Rows::Set { .. } => "set",
        Rows::Register { .. } => "register",
    }
}

/// Whether a reader sees anything there.
pub(crate) fn is_visible(rows: &Rows) -> bool {
    match rows {
        Rows::Counter { .. } => true,
        Rows::Set { present, .. } => !present.is_empty(),
        Rows::Register { value, .. } => value.is_some(),
    }
}

/// What is there: `ads/shown counter 41`, `carts/42 set "apple" "pear"`, `flags/checkout register {"on":true}`.
pub(crate) fn state(it: &KeyRows) -> String {
    let content = match &it.rows {
        Rows::Set { present, .. } => quoted("", present),
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
        Rows::Set { present, removed } => quoted("+", present) + &quoted("-", removed),
        Rows::Register { value: None, .. } => " (deleted)".to_owned(),
        Rows::Register { value: Some(Value::Text(text)), .. } => format!(" {}", one_line(text)),
        Rows::Register { value: Some(Value::Data(data)), .. } => format!(" 0x{}", hex(data)),
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

fn hex(data: &[u8]) -> String {
    data.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The same for programs. Sets have `present`, and `removed` where something was.
pub(crate) fn json(it: &KeyRows) -> serde_json::Map<String, Json> {
    let content = match &it.rows {
        Rows::Counter { value, .. } => json!({ "value": value }),
        Rows::Set { present, removed } if removed.is_empty() => json!({ "present": present }),
        Rows::Set { present, removed } => json!({ "present": present, "removed": removed }),
        Rows::Register { value: None, .. } => json!({ "deleted": true }),
        Rows::Register { value: Some(Value::Data(data)), .. } => json!({ "hex": hex(data) }),
        Rows::Register { value: Some(Value::Text(text)), .. } => {
            let parsed: Result<Json, _> = serde_json::from_str(text);
            parsed.map_or_else(|_| json!({ "text": text }), |value| json!({ "value": value }))
        }
    };
    let mut object = serde_json::Map::new();
    object.insert("path".to_owned(), format!("{}/{}", it.collection, it.key).into());
    object.insert("type".to_owned(), kind(&it.rows).into());
    if let Json::Object(content) = content {
        object.extend(content);
    }
    object
}

/// Pages cut large sets, so their rows may come in several parts.
pub(crate) fn joined(keys: Vec<KeyRows>) -> Vec<KeyRows> {
    let mut whole: Vec<KeyRows> = Vec::new();
    for next in keys {
        if let Some(last) = whole.last_mut()
            && (&last.collection, &last.key) == (&next.collection, &next.key)
            && let (Rows::Set { present, removed }, Rows::Set { present: more, removed: gone }) =
                (&mut last.rows, &next.rows)
        {
            present.extend(more.iter().cloned());
            removed.extend(gone.iter().cloned());
        } else {
            whole.push(next);
        }
    }
    whole
}

#[cfg(test)]
mod tests {
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
        assert_eq!(Json::from(json(&it)), json!({ "path": "ads/it", "type": "counter", "value": 41 }));
    }

    #[test]
    fn a_set_names_its_elements_and_a_change_what_came_and_went() {
        let it = key(Rows::Set { present: texts(&["a b"]), removed: texts(&["c"]) });
        assert_eq!(state(&it), "ads/it set \"a b\"");
        assert_eq!(change(&it), "ads/it set +\"a b\" -\"c\"");
        assert_eq!(json(&it)["removed"], json!(["c"]));
    }

    #[test]
    fn a_register_is_one_line_whatever_it_holds() {
        let text = |text: &str| state(&register(Some(Value::Text(text.to_owned()))));
        assert_eq!(text("{\n\"a\": 1 }"), "ads/it register {\"a\":1}");
        assert_eq!(text("no\njson"), "ads/it register \"no\\njson\"");
        let data = register(Some(Value::Data(vec![1, 255])));
        assert_eq!(state(&data), "ads/it register 0x01ff");
        assert_eq!(state(&register(None)), "ads/it register (deleted)");
        assert_eq!(json(&register(None))["deleted"], true);
    }

    #[test]
    fn a_set_that_came_in_pages_is_one_set() {
        let part = |present| key(Rows::Set { present: texts(present), removed: Vec::new() });
        let whole = joined(vec![part(&["a"]), part(&["b"]), key(Rows::Counter { value: 1, total: 1 })]);
        assert_eq!(whole.len(), 2);
        assert_eq!(state(&whole[0]), "ads/it set \"a\" \"b\"");
    }
}
