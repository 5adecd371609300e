//! The rows of the world: few, so that nodes meet on them, in three collections, so that floors and contexts differ.

use std::{collections::BTreeMap, sync::OnceLock};

use dormouse::Path;
use dormouse_proto::{
    ids::{Element, NodeId},
    lattice::{Change, Delta, Type, Value},
};

/// The collections.
pub const COLLECTIONS: [&str; 3] = ["a", "b", "c"];
/// Below this key lie the leaves of a map.
pub const MAP: &str = "m";

/// One row as the reference counts them: a whole scalar, one element of a set of any kind, a whole log of events, all
/// that nodes hold up under one key.
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

/// An event, as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where it was accepted, and its place there; zero: not bound yet.
    pub at: (u64, u32),
    /// Its content.
    pub payload: Value,
}

/// What a reader sees of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Whether the element is in the set, or the flag on.
    Present(bool),
    /// The counter's value.
    Counter(i64),
    /// The register's content.
    Register(Option<Value>),
    /// The best offer.
    Number(Option<i64>),
    /// The values that stand side by side, each with the revision of its write; zero: not bound yet.
    Siblings(Vec<(u64, Value)>),
    /// The entries that are there.
    Events(Vec<Event>),
    /// Who holds what up.
    Holders(BTreeMap<NodeId, Value>),
}

impl Shown {
    /// What a reader sees where nothing is.
    pub const fn nothing(kind: Type) -> Self {
        match kind {
            Type::Set | Type::GrowOnlySet | Type::RemoveWinsSet | Type::Flag | Type::DisableWinsFlag => {
                Self::Present(false)
            }
            Type::Counter => Self::Counter(0),
            Type::Register => Self::Register(None),
            Type::Max | Type::Min => Self::Number(None),
            Type::Siblings => Self::Siblings(Vec::new()),
            Type::Events => Self::Events(Vec::new()),
            Type::Presence => Self::Holders(BTreeMap::new()),
        }
    }
}

/// The keys of the first two collections, with their elements.
const KEYS: [(&str, Type, &[&str]); 21] = [
    ("s", Type::Set, &["w", "x", "y"]),
    ("m/s", Type::Set, &["w", "x"]),
    ("n", Type::Counter, &[]),
    ("m/n", Type::Counter, &[]),
    ("r", Type::Register, &[]),
    // The same name as a counter: the type is part of a row's name.
    ("n", Type::Register, &[]),
    ("m/r", Type::Register, &[]),
    ("f", Type::Flag, &[]),
    ("m/f", Type::Flag, &[]),
    ("f", Type::DisableWinsFlag, &[]),
    ("m/f", Type::DisableWinsFlag, &[]),
    ("x", Type::Max, &[]),
    ("x", Type::Min, &[]),
    ("g", Type::GrowOnlySet, &["w", "x", "y"]),
    ("q", Type::RemoveWinsSet, &["w", "x"]),
    ("m/q", Type::RemoveWinsSet, &["w"]),
    ("v", Type::Siblings, &[]),
    ("m/v", Type::Siblings, &[]),
    ("e", Type::Events, &[]),
    ("d", Type::Events, &[]),
    ("p", Type::Presence, &[]),
];

/// Those of the third.
const FEWER: [(&str, Type, &[&str]); 10] = [
    ("s", Type::Set, &["w"]),
    ("n", Type::Counter, &[]),
    ("r", Type::Register, &[]),
    ("f", Type::Flag, &[]),
    ("f", Type::DisableWinsFlag, &[]),
    ("q", Type::RemoveWinsSet, &["w"]),
    ("v", Type::Siblings, &[]),
    ("e", Type::Events, &[]),
    ("p", Type::Presence, &[]),
    ("x", Type::Max, &[]),
];

fn build() -> Vec<Row> {
    let mut rows = Vec::new();
    for (collection, name) in COLLECTIONS.iter().enumerate() {
        let keys: &[_] = if collection < 2 { &KEYS } else { &FEWER };
        for (key, kind, elements) in keys {
            let path: Path = format!("{name}/{key}").parse().expect("a path of the world is one");
            let mut add = |element: Option<Element>| {
                rows.push(Row { path: path.clone(), kind: *kind, element, collection });
            };
            for element in *elements {
                add(Some(element.parse().expect("an element of the world is one")));
            }
            if elements.is_empty() {
                add(None);
            }
        }
    }
    rows
}

/// All rows.
pub fn all() -> &'static [Row] {
    static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
    ROWS.get_or_init(build)
}

/// The rows of each type, by its number.
fn by_kind(kind: Type) -> &'static [RowNo] {
    static ROWS: OnceLock<Vec<Vec<RowNo>>> = OnceLock::new();
    let rows = ROWS.get_or_init(|| {
        let of = |number: u8| (0..all().len()).filter(|row| all()[*row].kind.number() == number).collect();
        (0..=u8::try_from(Type::ALL.len() + 4).expect("few types")).map(of).collect()
    });
    &rows[usize::from(kind.number())]
}

/// The rows of these types.
pub fn of_types(kinds: impl Fn(Type) -> bool) -> Vec<RowNo> {
    (0..all().len()).filter(|row| kinds(all()[*row].kind)).collect()
}

/// The number of a row; `None`: the world has no such row.
pub fn find(collection: &str, key: &str, kind: Type, element: Option<&str>) -> Option<RowNo> {
    by_kind(kind).iter().copied().find(|row| {
        let row = &all()[*row];
        row.path.key.as_str() == key
            && row.path.collection.as_str() == collection
            && row.element.as_ref().map(Element::as_str) == element
    })
}

/// The rows that a delta touches.
pub fn touched(delta: &Delta) -> Vec<RowNo> {
    let (collection, key) = (delta.collection.as_str(), delta.key.as_str());
    let kind = delta.change.kind();
    let find = |it: Option<&Element>| find(collection, key, kind, it.map(Element::as_str));
    match &delta.change {
        Change::Set(set) => {
            let removed = set.remove.iter().flat_map(|it| &it.elements);
            set.add.iter().chain(removed).filter_map(|it| find(Some(it))).collect()
        }
        Change::GrowOnlySet(set) => set.add.iter().filter_map(|it| find(Some(it))).collect(),
        Change::RemoveWinsSet(set) => {
            let added = set.add.iter().flat_map(|it| &it.elements);
            set.remove.iter().chain(added).filter_map(|it| find(Some(it))).collect()
        }
        _ => find(None).into_iter().collect(),
    }
}

/// A row's name, for traces.
pub fn name(row: RowNo) -> String {
    let it = &all()[row];
    let element = it.element.as_ref().map(|it| format!("[{}]", it.as_str())).unwrap_or_default();
    format!("{} {}{element}", it.kind.name(), it.path)
}
