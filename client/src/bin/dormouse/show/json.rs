//! Rows of keys, for programs.

use dormouse::{
    EventRow, HolderRow, Value,
    replica::message::{KeyRows, Rows},
};
use serde_json::{Map, Value as Json, json};

use super::rows::{hex, kind};

/// Rows as one object. Sets have `present`, and `removed` where something was.
pub(crate) fn of_key(it: &KeyRows) -> Map<String, Json> {
    let mut object = Map::new();
    object.insert("path".to_owned(), format!("{}/{}", it.collection, it.key).into());
    object.insert("type".to_owned(), kind(&it.rows).into());
    object.extend(rows(&it.rows));
    object
}

fn rows(rows: &Rows) -> Map<String, Json> {
    let one = |name: &str, value: Json| Map::from_iter([(name.to_owned(), value)]);
    match rows {
        Rows::Counter { value, .. } => one("value", (*value).into()),
        Rows::Set { present, removed }
        | Rows::GrowOnlySet { present, removed }
        | Rows::RemoveWinsSet { present, removed } => {
            let mut set = one("present", json!(present));
            if !removed.is_empty() {
                set.insert("removed".to_owned(), json!(removed));
            }
            set
        }
        Rows::Register { value: None, .. } => one("deleted", true.into()),
        Rows::Register { value: Some(value), .. } => content(value),
        Rows::Flag { on } | Rows::DisableWinsFlag { on } => one("on", (*on).into()),
        Rows::Max { value } | Rows::Min { value } => one("value", json!(value)),
        Rows::Events { events, trimmed_upto } => {
            let mut log = one("events", events.iter().map(event).map(Json::from).collect());
            if trimmed_upto.0 > 0 {
                log.insert("trimmedUpto".to_owned(), trimmed_upto.0.into());
            }
            log
        }
        Rows::Presence { holders } => one("holders", holders.iter().map(holder).map(Json::from).collect()),
        Rows::Siblings { values } => {
            let sibling = |(revision, value): &(dormouse::Revision, Value)| {
                let mut it = content(value);
                it.insert("revision".to_owned(), revision.0.into());
                Json::from(it)
            };
            one("siblings", values.iter().map(sibling).collect())
        }
    }
}

/// `value` where it is JSON, `text` or `hex` where it is not.
pub(crate) fn content(value: &Value) -> Map<String, Json> {
    let (name, value) = match value {
        Value::Data(data) => ("hex", hex(data).into()),
        Value::Text(text) => {
            serde_json::from_str(text).map_or_else(|_| ("text", text.as_str().into()), |json| ("value", json))
        }
    };
    Map::from_iter([(name.to_owned(), value)])
}

fn event(it: &EventRow) -> Map<String, Json> {
    let mut object = content(&it.payload);
    object.insert("revision".to_owned(), it.revision.0.into());
    object.insert("index".to_owned(), it.index.into());
    object.insert("acceptedAtMs".to_owned(), it.accepted_at_ms.into());
    object.extend(it.node.map(|node| ("nodeId".to_owned(), node.to_string().into())));
    object
}

fn holder(it: &HolderRow) -> Map<String, Json> {
    let withdrawn = || Map::from_iter([("withdrawn".to_owned(), true.into())]);
    let mut object = it.value.as_ref().map_or_else(withdrawn, content);
    object.insert("nodeId".to_owned(), it.node.to_string().into());
    object.insert("incarnation".to_owned(), it.incarnation.0.into());
    object
}

#[cfg(test)]
mod tests {
    use dormouse::Revision;

    use super::*;

    fn key(rows: Rows) -> Json {
        of_key(&KeyRows { collection: "ads".to_owned(), key: "it".to_owned(), rows }).into()
    }

    #[test]
    fn a_row_is_an_object_of_its_type() {
        let counter = key(Rows::Counter { value: 41, total: 50 });
        assert_eq!(counter, json!({ "path": "ads/it", "type": "counter", "value": 41 }));
        let set = key(Rows::Set { present: Vec::new(), removed: vec!["c".to_owned()] });
        assert_eq!(set["removed"], json!(["c"]));
        assert_eq!(key(Rows::Register { value: None, stamp_ms: 0 })["deleted"], true);
        assert_eq!(key(Rows::DisableWinsFlag { on: true })["on"], true);
        assert_eq!(key(Rows::Max { value: None })["value"], Json::Null);
        let values = vec![(Revision(3), Value::Text("[1]".to_owned()))];
        assert_eq!(key(Rows::Siblings { values })["siblings"], json!([{ "value": [1], "revision": 3 }]));
        let payload = Value::Data(vec![255]);
        let event = EventRow { revision: Revision(7), index: 1, payload, node: None, accepted_at_ms: 5 };
        let log = key(Rows::Events { events: vec![event], trimmed_upto: Revision(2) });
        let expected = json!([{ "hex": "ff", "revision": 7, "index": 1, "acceptedAtMs": 5 }]);
        assert_eq!((&log["events"], &log["trimmedUpto"]), (&expected, &json!(2)));
    }
}
