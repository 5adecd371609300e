use dormouse_proto::wire::v1::Member;

use super::*;
use crate::grpc::encode;

fn matches(filter: &Filter, group: &str, state: State, p_alive: f32, tags: &[(&str, &str)]) -> bool {
    let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let member = Member { group: group.to_owned(), state: state.into(), p_alive, tags, ..Member::default() };
    encode::matches(filter, &member)
}

#[test]
fn the_gone_are_found_only_by_their_name() {
    let asked = |states: &[State]| {
        let states = states.iter().map(|state| i32::from(*state)).collect();
        Filter::from_wire(Some(MemberFilter { states, ..MemberFilter::default() })).unwrap_or_default()
    };
    let everybody = Filter::default();
    assert!(matches(&everybody, "ads", State::Suspect, 0.1, &[]) && !everybody.names_states());
    assert!(!matches(&everybody, "ads", State::Gone, 0.0, &[]));
    assert!(!matches(&asked(&[State::Awake]), "ads", State::Gone, 0.0, &[]));
    let both = asked(&[State::Gone, State::Awake, State::Gone]);
    assert!(matches(&both, "ads", State::Gone, 0.0, &[]) && both.names_states());
    assert!(!matches(&both, "ads", State::Asleep, 1.0, &[]));
}

#[test]
fn all_of_a_filter_must_hold() -> Result<(), Box<dyn std::error::Error>> {
    let filter = Filter::from_wire(Some(MemberFilter {
        groups: vec!["ads".to_owned(), "mail".to_owned()],
        min_p_alive: 0.5,
        tags: "zone=a".to_owned(),
        ..MemberFilter::default()
    }))
    .map_err(|wrong| format!("{wrong:?}"))?;
    let here = [("zone", "a")];
    assert!(matches(&filter, "ads", State::Asleep, 0.5, &here));
    assert!(!matches(&filter, "carts", State::Asleep, 0.5, &here));
    assert!(!matches(&filter, "ads", State::Asleep, 0.4, &here));
    assert!(!matches(&filter, "ads", State::Asleep, 0.5, &[]));
    Ok(())
}

#[test]
fn every_wrong_field_is_named() {
    let wrong = Filter::from_wire(Some(MemberFilter {
        groups: vec!["ads".to_owned(), "a b".to_owned()],
        states: vec![1, 0, 99],
        min_p_alive: f32::NAN,
        tags: "zone>a".to_owned(),
    }))
    .err()
    .unwrap_or_default();
    let fields: Vec<_> = wrong.0.iter().map(|it| it.field.as_str()).collect();
    assert_eq!(
        fields,
        ["filter.groups[1]", "filter.states[1]", "filter.states[2]", "filter.min_p_alive", "filter.tags"]
    );
    let many = MemberFilter { groups: vec![String::new(); 100], ..MemberFilter::default() };
    assert_eq!(Filter::from_wire(Some(many)).err().map(|wrong| wrong.0.len()), Some(Violations::NAMED));
}
