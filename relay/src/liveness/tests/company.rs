//! What relays owe each other, told as short stories of one relay. Random histories of several are in `tests/relays`.

use super::*;

const ME: Session = Session(5);
const OTHER: Session = Session(2);

/// A relay on a shared log that has begun with one member, and that hears itself.
fn company() -> Company {
    let settings = LeaseSettings { asleep: Millis::from_secs(600), ..LeaseSettings::default() };
    let policy = LeasePolicy::new(settings, []).expect("settings of a test are valid");
    let company = Company::new(policy, true, Timestamp(0));
    let group = "ads".parse().expect("a valid name");
    let restored = Restored { key: KEY, group, evidence: evidence(1, AWAKE, 3_000), holder: OTHER };
    company.begin(Timestamp(0), ME, [restored]);
    speak(&company, 1_000);
    company
}

/// The same, and the log has told of a contact since.
fn settled() -> Company {
    let company = company();
    tell(&company, 1_000, 2);
    company
}

fn tell(company: &Company, now: u64, beat: u64) {
    company.leases().evidence_applied(Timestamp(now), KEY, &evidence(beat, AWAKE, 3_000), OTHER);
}

fn speak(company: &Company, now: u64) {
    company.spoke(Timestamp(now));
    company.came_back(Timestamp(now), &[]);
    company.look(Timestamp(now), None, &mut Vec::new());
}

fn hear(company: &Company, now: u64, beat: u64, told: Told) -> Heard {
    hear_of(company, now, beat, AWAKE, told)
}

fn hear_of(company: &Company, now: u64, beat: u64, activity: Activity, told: Told) -> Heard {
    let call_id = CallId(beat + 100);
    let contact = Contact { incarnation: FIRST, beat: Beat(beat), call_id, activity, head: Revision::ZERO };
    company.hear(Timestamp(now), || false, KEY, &contact, told)
}

fn promised(heard: Heard) -> u64 {
    match heard {
        Heard::Granted { ttl, .. } => ttl.0,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_relay_that_starts_promises_a_member_nothing_before_the_log_has_told_of_it_once_more() {
    let company = company();
    assert_eq!(promised(hear(&company, 1_100, 2, Told::ByDigest)), 0, "somebody may have asked about it");
    tell(&company, 1_200, 2);
    assert_eq!(promised(hear(&company, 1_300, 3, Told::ByDigest)), 3_000);
}

#[test]
fn whoever_has_read_a_question_promises_nothing_until_the_log_has_told_of_a_newer_contact() {
    for by in [ME, OTHER] {
        let company = settled();
        company.asked(Timestamp(1_100), by, (KEY, FIRST, Beat(2)));
        assert_eq!(promised(hear(&company, 1_200, 3, Told::ByDigest)), 0);
        tell(&company, 1_300, 2);
        assert_eq!(promised(hear(&company, 1_400, 4, Told::ByDigest)), 0, "a copy of what was known");
        tell(&company, 1_500, 4);
        assert_eq!(promised(hear(&company, 1_600, 5, Told::ByDigest)), 3_000);
    }
}

#[test]
fn a_contact_is_told_in_every_digest_until_one_of_them_has_come_back() {
    let company = settled();
    hear(&company, 1_100, 3, Told::ByDigest);
    company.placed(Timestamp(1_200), OTHER, 40);
    let first = company.telling();
    assert_eq!((first.contacts.len(), first.upto), (1, 40));
    company.spoke(Timestamp(1_200));
    let second = company.telling();
    assert_eq!(second, first, "the first one may be refused, and this one says that all is told");
    company.did_not_come_back(Timestamp(1_300), Timestamp(1_200));
    company.look(Timestamp(1_300), None, &mut Vec::new());
    assert_eq!(promised(hear(&company, 1_400, 4, Told::ByDigest)), 0, "nobody hears this relay");
    let third = company.telling();
    company.came_back(Timestamp(1_500), &third.contacts);
    assert_eq!(company.telling().contacts, []);
}

#[test]
fn a_copy_of_a_call_writes_the_evidence_that_the_call_itself_has_earned() {
    let company = settled();
    let first = hear_of(&company, 1_100, 3, Activity::Asleep, Told::ByCaller);
    assert_eq!(first, granted(3_000, 600_000, LeaseState::Awake));
    let copy = hear_of(&company, 1_400, 3, Activity::Asleep, Told::ByCaller);
    assert_eq!(copy, granted(2_700, 600_000, LeaseState::Asleep));
}

#[test]
fn what_could_not_be_written_for_one_incarnation_is_not_promised_the_lease_of_the_next() {
    let company = settled();
    hear(&company, 1_100, 3, Told::ByCaller);
    let left = |beat| company.tell_later(Timestamp(1_200), || false, KEY, evidence(beat, AWAKE, 3_000));
    assert_eq!(left(3), Millis(2_900));
    assert_eq!(left(2), Millis(0), "what is left is of a newer contact");
    let next = Evidence { incarnation: Incarnation(2), ..evidence(3, AWAKE, 3_000) };
    let group = "ads".parse().expect("a valid name");
    company.leases().admitted(Timestamp(1_300), KEY, &group, &next, OTHER);
    assert_eq!(left(3), Millis(0));
}

#[test]
fn a_lease_that_was_counted_from_a_log_time_that_stood_still_is_not_ended_early_after_a_restart() {
    let left = company().leases().view(KEY, Timestamp(0)).map(|view| view.left);
    assert_eq!(left, Some(Millis(8_000)), "a step of log time more");
}

#[test]
fn an_end_waits_for_all_others_and_for_nobody_who_was_heard_of_since() {
    let company = settled();
    let mut due = Vec::new();
    for now in [2_000, 5_900, 11_000] {
        speak(&company, now);
        company.placed(Timestamp(now), OTHER, 0);
    }
    let now = Timestamp(11_000);
    company.asked(now, OTHER, (LeaseKey { namespace: 1, node: NodeId(8) }, FIRST, Beat(1)));
    assert!(company.take_asked() && !company.take_asked());
    // The holder of the lease is another relay, so this one asks only after its silence.
    company.look(now, None, &mut due);
    assert_eq!(due, [], "another relay answers for it");
    let now = Timestamp(21_000);
    company.look(now, None, &mut due);
    let silent: Vec<Silent> = due
        .iter()
        .filter_map(|due| match due {
            Due::Gone { key, incarnation, beat } => Some((*key, *incarnation, *beat)),
            Due::Suspect { .. } => None,
        })
        .collect();
    assert_eq!(silent, [(KEY, FIRST, Beat(2))]);
    assert_eq!(company.end(now, silent.clone()), Ends::Ask(silent.clone()));
    assert_eq!(company.conclude(now), [], "the mark has not come back");
    company.asked(now, ME, silent[0]);
    company.placed(now, ME, 50);
    assert_eq!(company.conclude(now), silent, "nobody else lives");
}
