//! Which members a caller asks for: a [`Filter`], and in it a label selector over their tags.

use std::collections::{BTreeMap, BTreeSet};

use dormouse_proto::{
    convert::{Violation, Violations},
    ids::Group,
    wire::v1::{MemberFilter, member::State},
};

use crate::selector::Selector;

/// What a caller asks of members; all of it must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Filter {
    /// Empty: every group.
    groups: BTreeSet<Group>,
    /// Empty: every state but GONE.
    states: Vec<State>,
    min_p_alive: f32,
    selector: Selector,
}

impl Filter {
    /// Checks a filter of the wire, whose field is called `filter` in every request; `None`: everybody but the GONE.
    pub(super) fn from_wire(filter: Option<MemberFilter>) -> Result<Self, Violations> {
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

    /// Whether members of that group with these tags are asked for, whatever their state.
    pub(super) fn concerns(&self, group: &str, tags: &BTreeMap<String, String>) -> bool {
        (self.groups.is_empty() || self.groups.contains(group)) && self.selector.matches(tags)
    }

    /// Whether members in that state that are as likely to live are asked for.
    pub(super) fn lives(&self, state: State, p_alive: f32) -> bool {
        self.state(state) && p_alive >= self.min_p_alive
    }

    /// Whether it asks for everybody but the GONE.
    pub(super) fn is_everybody(&self) -> bool {
        *self == Self::default()
    }

    /// Whether members in that state may be asked for. GONE only by its name.
    pub(super) fn state(&self, state: State) -> bool {
        if self.states.is_empty() { state != State::Gone } else { self.states.contains(&state) }
    }

    /// Whether it names states. Those come and go without a revision, so a watch needs `activity` for it.
    pub(super) fn names_states(&self) -> bool {
        !self.states.is_empty()
    }
}

#[cfg(test)]
mod tests;
