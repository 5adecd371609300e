//! Deltas as a back end writes them: without a context, so they mean whatever is there when the log accepts them.
//!
//! ```
//! use dormouse::delta;
//! let path = "ads/shown".parse()?;
//! let deltas = vec![delta::counter_add(&path, 3), delta::set_add(&path, ["a".parse().unwrap()])];
//! assert_eq!(deltas[0].change.kind().name(), "counter");
//! # Ok::<(), dormouse::WriteError>(())
//! ```

use dormouse_proto::{
    ids::{Element, OnceId},
    lattice::{Change, CounterDelta, Delta, Once, RegisterDelta, Remove, Reset, SetDelta, Value},
};

use crate::replica::Path;

fn delta(path: &Path, change: Change) -> Delta {
    Delta {
        collection: path.collection.clone(),
        key: path.key.clone(),
        change,
    }
}

/// Adds to a counter; negative amounts subtract. At most 2^48 either way.
pub fn counter_add(path: &Path, amount: i64) -> Delta {
    let change = CounterDelta {
        amount,
        ..CounterDelta::default()
    };
    delta(path, Change::Counter(change))
}

/// Adds to a counter once per `id`.
pub fn counter_add_once(path: &Path, id: OnceId, amount: i64) -> Delta {
    let change = CounterDelta {
        once: vec![Once { id, amount }],
        ..CounterDelta::default()
    };
    delta(path, Change::Counter(change))
}

/// Resets a counter.
pub fn counter_reset(path: &Path) -> Delta {
    let change = CounterDelta {
        reset: Some(Reset {
            as_of: None,
            total: 0,
        }),
        ..CounterDelta::default()
    };
    delta(path, Change::Counter(change))
}

/// Adds elements to a set.
pub fn set_add(path: &Path, elements: impl IntoIterator<Item = Element>) -> Delta {
    let change = SetDelta {
        add: elements.into_iter().collect(),
        remove: Vec::new(),
    };
    delta(path, Change::Set(change))
}

/// Removes elements from a set.
pub fn set_remove(path: &Path, elements: impl IntoIterator<Item = Element>) -> Delta {
    let elements = elements.into_iter().collect();
    let change = SetDelta {
        add: Vec::new(),
        remove: vec![Remove {
            elements,
            as_of: None,
        }],
    };
    delta(path, Change::Set(change))
}

/// Writes a register, at the log's own time; `None` deletes it.
pub fn register_set(path: &Path, value: Option<Value>) -> Delta {
    let change = RegisterDelta {
        value,
        stamp_ms: 0,
        as_of: None,
    };
    delta(path, Change::Register(change))
}
