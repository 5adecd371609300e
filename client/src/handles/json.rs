//! Contents as JSON, so that everybody can read them.

use dormouse_proto::lattice::Value;
use serde::{Serialize, de::DeserializeOwned};

use crate::replica::WriteError;

pub(crate) fn read<T: DeserializeOwned>(value: &Value) -> Result<T, WriteError> {
    let parsed = match value {
        Value::Text(text) => serde_json::from_str(text),
        Value::Data(data) => serde_json::from_slice(data),
    };
    parsed.map_err(|wrong| WriteError::NotJson(wrong.to_string()))
}

pub(crate) fn write<T: Serialize>(value: &T) -> Result<Value, WriteError> {
    serde_json::to_string(value).map(Value::Text).map_err(|wrong| WriteError::NotJson(wrong.to_string()))
}
