//! Which members a caller asks for: a [`Filter`], and in it the label selector of Kubernetes over their tags.
//!
//! The grammar and its meaning are those of `kubectl -l`, so `!=` and `notin` also hold where the tag is absent, `key=`
//! asks for an empty value, and nothing at all asks for everybody. What can never match is refused rather than
//! answered with nobody: an order (`<`, `>`), a key that no tag can have.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use dormouse_proto::{
    convert::{Violation, Violations},
    ids::Group,
    wire::v1::{MemberFilter, member::State},
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

/// What a caller asks of members; all of it must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Empty: every group.
    groups: BTreeSet<Group>,
    /// Empty: every state but GONE.
    states: Vec<State>,
    min_p_alive: f32,
    selector: Selector,
}

impl Filter {
    /// Checks a filter of the wire, whose field is called `filter` in every request; `None`: everybody but the GONE.
    pub fn from_wire(filter: Option<MemberFilter>) -> Result<Self, Violations> {
        let MemberFilter { groups, states, min_p_alive, tags } = filter.unwrap_or_default();
        let mut wrong = Vec::new();
        let mut checked = Self { min_p_alive, ..Self::default() };
        for (place, group) in groups.into_iter().enumerate() {
            match Group::try_from(group) {
                Ok(group) => drop(checked.groups.insert(group)),
                Err(error) => wrong.push(Violation::new(format!("filter.groups[{place}]"), error)),
            }
        }
        // A state of a newer contract is refused: skipping it could turn a question for some into one for all.
        for (place, number) in states.into_iter().enumerate() {
            match State::try_from(number) {
                Ok(state) if state != State::Unspecified => checked.ask_for(state),
                _ => wrong.push(Violation::new(
                    format!("filter.states[{place}]"),
                    format!("{number} is no state that this relay knows"),
                )),
            }
        }
        // Neither holds for a number that is none.
        if !(0.0..=1.0).contains(&min_p_alive) {
            let rule = format!("{min_p_alive}, must be from 0 to 1");
            wrong.push(Violation::new("filter.min_p_alive", rule));
        }
        match Selector::parse(&tags) {
            Ok(selector) => checked.selector = selector,
            Err(error) => wrong.push(Violation::new("filter.tags", error)),
        }
        wrong.truncate(Violations::NAMED);
        if wrong.is_empty() { Ok(checked) } else { Err(Violations(wrong)) }
    }

    fn ask_for(&mut self, state: State) {
        if !self.states.contains(&state) {
            self.states.push(state);
        }
    }

    /// Whether a member is asked for.
    pub fn matches(
        &self,
        group: &Group,
        state: State,
        p_alive: f32,
        tags: &BTreeMap<String, String>,
    ) -> bool {
        self.state(state)
            && (self.groups.is_empty() || self.groups.contains(group))
            && p_alive >= self.min_p_alive
            && self.selector.matches(tags)
    }

    /// Whether members of that group with these tags are asked for, whatever their state.
    pub fn concerns(&self, group: &str, tags: &BTreeMap<String, String>) -> bool {
        (self.groups.is_empty() || self.groups.contains(group)) && self.selector.matches(tags)
    }

    /// The least likelihood to live that is asked for.
    pub fn min_p_alive(&self) -> f32 {
        self.min_p_alive
    }

    /// Whether members in that state may be asked for. GONE only by its name.
    pub fn state(&self, state: State) -> bool {
        if self.states.is_empty() { state != State::Gone } else { self.states.contains(&state) }
    }

    /// Whether it names states. Those come and go without a revision, so a watch needs `activity` for it.
    pub fn names_states(&self) -> bool {
        !self.states.is_empty()
    }
}

#[cfg(test)]
mod tests;
