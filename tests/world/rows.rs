//! The rows of the world: few, so that nodes meet on them, in three collections, so that floors and contexts differ.

use std::sync::OnceLock;

use dormouse::Path;
use dormouse_proto::{
    ids::Element,
    lattice::{Change, Delta, Type, Value},
    wire::v1::{self, key_state::State},
};

/// The collections.
pub const COLLECTIONS: [&str; 3] = ["a", "b", "c"];

/// One row: a whole counter, a whole register, or one element of a set.
#[derive(Clone, Debug)]
pub struct Row {
    /// Where it lives.
    pub path: Path,
    /// Its type.
    pub kind: Type,
    /// Which element; `None` unless it is one.
    pub element: Option<Element>,
    /// The number of its collection.
    pub collection: usize,
}

/// A row's number in [`all`].
pub type RowNo = usize;

/// What a reader sees of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Whether the element is in the set.
    Element(bool),
    /// The counter's value.
    Counter(i64),
    /// The register's content.
    Register(Option<Value>),
}

impl Shown {
    /// What a reader sees where nothing is.
    pub fn nothing(kind: Type) -> Self {
        match kind {
            Type::Set => Self::Element(false),
            Type::Counter => Self::Counter(0),
            Type::Register => Self::Register(None),
        }
    }
}

fn build() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |collection: usize, key: &str, kind: Type, element: Option<&str>| {
        let path = format!("{}/{key}", COLLECTIONS[collection]).parse().expect("a path of the world is one");
        let element = element.map(|name| name.parse().expect("an element of the world is one"));
        rows.push(Row { path, kind, element, collection });
    };
    for collection in 0..2 {
        for it in ["w", "x", "y", "z"] {
            add(collection, "s", Type::Set, Some(it));
        }
        for it in ["w", "x"] {
            add(collection, "t", Type::Set, Some(it));
        }
        for key in ["n", "m"] {
            add(collection, key, Type::Counter, None);
        }
        // The same name as a counter: the type is part of a row's name.
        for key in ["r", "n"] {
            add(collection, key, Type::Register, None);
        }
    }
    add(2, "s", Type::Set, Some("w"));
    add(2, "n", Type::Counter, None);
    add(2, "r", Type::Register, None);
    rows
}

/// All rows.
pub fn all() -> &'static [Row] {
    static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
    ROWS.get_or_init(build)
}

/// The number of a row; `None`: the world has no such row.
pub fn find(collection: &str, key: &str, kind: Type, element: Option<&str>) -> Option<RowNo> {
    all().iter().position(|row| {
        row.kind == kind
            && row.path.key.as_str() == key
            && row.path.collection.as_str() == collection
            && row.element.as_ref().map(Element::as_str) == element
    })
}

/// The rows that a delta touches.
pub fn touched(delta: &Delta) -> Vec<RowNo> {
    let (collection, key) = (delta.collection.as_str(), delta.key.as_str());
    let kind = delta.change.kind();
    match &delta.change {
        Change::Set(set) => {
            let removed = set.remove.iter().flat_map(|it| &it.elements);
            let named = set.add.iter().chain(removed);
            named.filter_map(|it| find(collection, key, kind, Some(it.as_str()))).collect()
        }
        Change::Counter(_) | Change::Register(_) => find(collection, key, kind, None).into_iter().collect(),
    }
}

/// A row as the wire tells it; of a register also the winning stamp.
#[derive(Clone, Debug)]
pub struct Told {
    /// Which.
    pub row: RowNo,
    /// What a reader sees.
    pub shown: Shown,
    /// Of a register.
    pub stamp_ms: u64,
}

/// Takes wire rows apart; rows that the world does not have are errors of their own.
///
/// # Errors
/// A row that nobody ever wrote.
pub fn told(keys: &[v1::KeyState]) -> Result<Vec<Told>, String> {
    let mut rows = Vec::new();
    for it in keys {
        let mut add = |kind: Type, element: Option<&str>, shown: Shown, stamp_ms: u64| {
            let row = find(&it.collection, &it.key, kind, element)
                .ok_or_else(|| format!("a row that nobody wrote: {it:?}"))?;
            rows.push(Told { row, shown, stamp_ms });
            Ok::<(), String>(())
        };
        match &it.state {
            Some(State::Counter(counter)) => {
                add(Type::Counter, None, Shown::Counter(counter.value), 0)?;
            }
            Some(State::Set(set)) => {
                for name in &set.present {
                    add(Type::Set, Some(name), Shown::Element(true), 0)?;
                }
                for name in &set.removed {
                    add(Type::Set, Some(name), Shown::Element(false), 0)?;
                }
            }
            Some(State::Register(register)) => {
                let value = register.value.clone().and_then(|value| Value::try_from(value).ok());
                add(Type::Register, None, Shown::Register(value), register.stamp_ms)?;
            }
            other => return Err(format!("a row of a type that nobody wrote: {other:?}")),
        }
    }
    Ok(rows)
}

/// A row's name, for traces.
pub fn name(row: RowNo) -> String {
    let it = &all()[row];
    let element = it.element.as_ref().map(|it| format!("[{}]", it.as_str())).unwrap_or_default();
    format!("{} {}{element}", it.kind.name(), it.path)
}
