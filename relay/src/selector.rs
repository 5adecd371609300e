//! The label selector of Kubernetes, over the tags of nodes.
//!
//! The grammar and its meaning are those of `kubectl -l`, so `!=` and `notin` also hold where the tag is absent, `key=`
//! asks for an empty value, and nothing at all asks for everybody. What can never match is refused rather than
//! answered with nobody: an order (`<`, `>`), a key that no tag can have. The room is pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

mod parse;

/// A label selector: all of its terms must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    key: String,
    test: Test,
}

/// `=` and `!=` are sets of one value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    Absent,
}

impl Selector {
    /// Terms of one selector.
    pub const TERMS: usize = 16;

    /// A selector from its text, or what is wrong with that.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse::terms(text).map(|terms| Self { terms })
    }

    /// Whether a node with these tags is asked for.
    pub fn matches(&self, tags: &BTreeMap<String, String>) -> bool {
        self.terms.iter().all(|term| {
            let value = tags.get(&term.key);
            match &term.test {
                Test::In(values) => value.is_some_and(|value| values.contains(value)),
                Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
            }
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, Term { key, test }) in self.terms.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            match test {
                Test::In(values) => listed(f, key, "=", "in", values)?,
                Test::NotIn(values) => listed(f, key, "!=", "notin", values)?,
                Test::Exists => f.write_str(key)?,
                Test::Absent => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

fn listed(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    one: &str,
    many: &str,
    values: &BTreeSet<String>,
) -> fmt::Result {
    let mut values = values.iter().map(String::as_str);
    match (values.next(), values.next()) {
        (Some(value), None) => write!(f, "{key}{one}{value}"),
        (first, second) => {
            write!(f, "{key} {many} ({}", first.unwrap_or_default())?;
            for value in second.into_iter().chain(values) {
                write!(f, ",{value}")?;
            }
            f.write_str(")")
        }
    }
}

#[cfg(test)]
mod tests;
