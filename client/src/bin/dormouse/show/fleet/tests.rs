use std::{
    collections::BTreeMap,
    time::{Duration, UNIX_EPOCH},
};

use dormouse::{Durability, Member, MemberCount, MemberState, RelayInfo};

use super::{
    BY, BY_GROUP, Fleet, Rates, groups, json,
    lines::{Line, Size, Tone, lines, room},
    worst_first,
};
use crate::show::width::columns;

const WIDE: Size = Size { columns: 200, rows: 50 };

fn count(by: &[&str], values: &[&str], members: u64) -> MemberCount {
    MemberCount {
        by: by.iter().zip(values).map(|(by, value)| ((*by).to_owned(), (*value).to_owned())).collect(),
        members,
        expected_alive: members as f64 * 0.99,
        wake_gap_p50: None,
        wake_gap_p99: None,
        asleep_lease: None,
    }
}

fn counts() -> Vec<MemberCount> {
    vec![
        count(&BY, &["ASLEEP", "ads", "16"], 80),
        count(&BY, &["ASLEEP", "ads", "17"], 340),
        count(&BY, &["AWAKE", "ads", "17"], 301),
        count(&BY, &["SUSPECT", "ads", "16"], 2),
        count(&BY, &["AWAKE", "mail", ""], 1),
    ]
}

fn taught() -> Vec<MemberCount> {
    let ads = MemberCount {
        wake_gap_p50: Some(Duration::from_secs(31)),
        wake_gap_p99: Some(Duration::from_secs(580)),
        asleep_lease: Some(Duration::from_secs(870)),
        ..count(&BY_GROUP, &["ads"], 723)
    };
    vec![ads, count(&BY_GROUP, &["mail"], 1)]
}

fn relay(counters: &[(&str, u64)]) -> RelayInfo {
    RelayInfo {
        relay_id: "1".to_owned(),
        version: "0.1.0".to_owned(),
        broker: "embedded".to_owned(),
        durability: Durability::Fsync,
        revision: 123_456,
        limits: BTreeMap::new(),
        conditions: Vec::new(),
        counters: counters.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        now: None,
        namespaces: Vec::new(),
        log_newest: None,
        log_applied: 0,
        store_free_bytes: None,
    }
}

fn member(name: &str, state: MemberState, age: u64) -> Member {
    Member {
        node_id: name.to_owned(),
        group: "ads".to_owned(),
        state,
        p_alive: 0.5,
        last_seen: Some(UNIX_EPOCH + Duration::from_secs(1_000 - age)),
        tags: [("region".to_owned(), "東京-1".to_owned())].into(),
        pushes: 12,
        behind: 7,
        ..Member::default()
    }
}

/// 724 members, of whom five are shown in detail.
fn fleet() -> Fleet {
    let now = UNIX_EPOCH + Duration::from_secs(1_000);
    let started =
        relay(&[("joins", 1_000), ("pushes", 9_000), ("false_deaths", 1), ("uptime_ms", 10_800_000)]);
    let members = worst_first(vec![
        member("00000000000aw", MemberState::Awake, 1),
        member("00000000000as", MemberState::Asleep, 600),
        member("00000000000s1", MemberState::Suspect, 8),
        member("00000000000s2", MemberState::Suspect, 90),
        member("00000000000ax", MemberState::Awake, 3),
    ]);
    let groups = groups(&counts(), &taught());
    Fleet { asked_at: now, now, lost: None, relay: started, rates: None, groups, members }
}

fn texts(lines: &[Line]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

#[test]
fn a_fleet_is_shown_as_in_the_contract() {
    let mut fleet = fleet();
    let later = relay(&[("joins", 1_026), ("pushes", 9_681), ("false_deaths", 1), ("uptime_ms", 10_802_000)]);
    fleet.rates = Rates::between(&fleet.relay, &later);
    let shown = lines(&fleet, WIDE);
    assert_eq!(
        texts(&shown),
        [
            "302 awake  420 asleep  2 suspect  (717 expected alive)   relay: 13 joins/s  340 pushes/s  \
             1 false death since it started 3h ago   revision 123456, fsync",
            "",
            "GROUP  AWAKE  ASLEEP  SUSPECT  EXPECTED  WAKE GAP P50/P99  LEASE  VERSIONS",
            "ads      301     420        2       716          31s / 9m    14m  17: 641  16: 82",
            "mail       1       0        0         1                 -      -  (none): 1",
            "",
            "NODE           GROUP  REGION  STATE    AGE  P_ALIVE  BEHIND  PUSHES",
            "00000000000s2  ads    東京-1  SUSPECT  90s     0.50       7      12",
            "00000000000s1  ads    東京-1  SUSPECT   8s     0.50       7      12",
            "00000000000ax  ads    東京-1  AWAKE     3s     0.50       7      12",
            "00000000000aw  ads    東京-1  AWAKE     1s     0.50       7      12",
            "00000000000as  ads    東京-1  ASLEEP   10m     0.50       7      12",
            "and 719 more members: of each state 200 were looked at, `dormouse members` lists all",
        ]
    );
    let tones = |tone: Tone| shown.iter().filter(|line| line.tone == tone).count();
    assert_eq!((tones(Tone::Heading), tones(Tone::Warning)), (2, 2));
}

#[test]
fn among_few_a_tenth_of_a_member_is_shown() {
    let mut fleet = fleet();
    fleet.groups = groups(&[count(&BY, &["ASLEEP", "ads", "17"], 40)], &[]);
    let first = texts(&lines(&fleet, WIDE))[0].to_owned();
    assert!(first.starts_with("0 awake  40 asleep  0 suspect  (39.6 expected alive)   "), "{first}");
}

#[test]
fn before_there_are_rates_the_counters_stand_for_themselves() {
    let first = texts(&lines(&fleet(), WIDE))[0].to_owned();
    assert!(
        first.contains("   relay: 1000 joins  9000 pushes  1 false death since it started 3h ago   "),
        "{first}"
    );
    let older = Fleet { relay: relay(&[]), ..fleet() };
    let first = texts(&lines(&older, WIDE))[0].to_owned();
    assert!(first.ends_with(" expected alive)   revision 123456, fsync"), "{first}");
}

#[test]
fn no_line_is_wider_or_lower_than_the_terminal() {
    let mut fleet = fleet();
    fleet.relay.conditions = vec!["MASS_LOSS".to_owned()];
    for columns_left in 1..160 {
        for rows in 1..30 {
            let shown = lines(&fleet, Size { columns: columns_left, rows });
            assert!(shown.len() <= rows, "{columns_left} x {rows}");
            let widest = shown.iter().map(|line| columns(&line.text)).max();
            assert!(widest <= Some(columns_left), "{columns_left} x {rows}: {shown:?}");
        }
    }
}

#[test]
fn a_narrow_terminal_gets_the_sums_in_several_lines_and_loses_the_right_columns() {
    let shown = lines(&fleet(), Size { columns: 60, rows: 50 });
    assert_eq!(
        texts(&shown)[..6],
        [
            "302 awake  420 asleep  2 suspect  (717 expected alive)",
            "relay: 1000 joins  9000 pushes  1 false death since it star…",
            "revision 123456, fsync",
            "",
            "GROUP  AWAKE  ASLEEP  SUSPECT  EXPECTED  WAKE GAP P50/P99  …",
            "ads      301     420        2       716          31s / 9m  …",
        ]
    );
}

#[test]
fn a_letter_of_two_columns_is_shown_whole_or_not_at_all() {
    // The region begins at column 22: `東` takes 23 and 24, `京` 25 and 26.
    for (at_most, end) in [(24, " …"), (25, "東…"), (26, "東…"), (27, "東京…")] {
        let shown = lines(&fleet(), Size { columns: at_most, rows: 50 });
        let row = shown.iter().find(|line| line.text.starts_with("00000000000s2")).expect("a member");
        assert!(row.text.ends_with(end), "{at_most}: {}", row.text);
    }
}

#[test]
fn a_low_terminal_says_who_is_left_out() {
    let size = Size { columns: 200, rows: 10 };
    let shown = lines(&fleet(), size);
    let texts = texts(&shown);
    assert_eq!((shown.len(), room(&fleet(), size)), (10, 2));
    assert!(texts[7].starts_with("00000000000s2") && texts[8].starts_with("00000000000s1"), "{texts:?}");
    assert!(texts[9].starts_with("and 722 more members"), "{texts:?}");
}

#[test]
fn a_terminal_too_low_for_two_tables_shows_the_members() {
    let size = Size { columns: 200, rows: 6 };
    let shown = lines(&fleet(), size);
    let texts = texts(&shown);
    assert!(texts[2].starts_with("NODE ") && texts[3].starts_with("00000000000s2"), "{texts:?}");
    assert!(texts[5].starts_with("and 722 more members"), "{texts:?}");
    assert_eq!((shown.len(), room(&fleet(), size)), (6, 2));
}

#[test]
fn many_groups_leave_half_of_the_room_to_members() {
    let many: Vec<MemberCount> =
        (0..40).map(|it| count(&BY, &["AWAKE", &format!("g{it}"), ""], 10)).collect();
    let fleet = Fleet { groups: groups(&many, &[]), ..fleet() };
    let size = Size { columns: 200, rows: 25 };
    let shown = lines(&fleet, size);
    assert_eq!(room(&fleet, size), 9);
    assert_eq!(shown.iter().filter(|line| line.text.starts_with('g')).count(), 9);
    assert!(shown.iter().any(|line| line.text == "and 31 more groups"), "{shown:?}");
}

#[test]
fn an_empty_fleet_is_told_as_such() {
    let fleet = Fleet { groups: Vec::new(), members: Vec::new(), ..fleet() };
    let shown = lines(&fleet, WIDE);
    assert!(shown[0].text.starts_with("0 awake  0 asleep  0 suspect  (0 expected alive)   "));
    assert_eq!(texts(&shown)[1..], ["no members"]);
    assert_eq!(room(&fleet, WIDE), 0);
    assert!(fleet.worst_states(50).is_empty());
}

#[test]
fn an_old_picture_says_how_old_it_is_and_a_weak_relay_why() {
    let mut fleet = fleet();
    fleet.now += Duration::from_secs(5);
    fleet.lost = Some("the relay was not reached: no".to_owned());
    fleet.relay.conditions = vec!["LEASES_STRETCHED".to_owned()];
    let shown = lines(&fleet, WIDE);
    assert_eq!(shown[1].text, "this is how it was 5.0s ago: the relay was not reached: no");
    assert!(shown[2].text.starts_with("LEASES_STRETCHED: this relay answers late"), "{}", shown[2].text);
    assert_eq!((shown[1].tone, shown[2].tone), (Tone::Warning, Tone::Warning));
    // Ages go on.
    assert!(shown.iter().any(|line| line.text.contains(" 95s ")), "{shown:?}");
}

#[test]
fn only_the_states_that_fill_the_room_are_asked_for() {
    use MemberState::{Asleep, Awake, Suspect};
    let fleet = fleet();
    assert_eq!(fleet.worst_states(0), []);
    assert_eq!(fleet.worst_states(2), [Suspect]);
    assert_eq!(fleet.worst_states(3), [Suspect, Awake]);
    assert_eq!(fleet.worst_states(305), [Suspect, Awake, Asleep]);
}

#[test]
fn whoever_fell_asleep_between_two_answers_is_there_once() {
    let awake = member("00000000000aw", MemberState::Awake, 1);
    let asleep = Member { state: MemberState::Asleep, ..awake.clone() };
    assert_eq!(worst_first(vec![awake, asleep.clone()]), [asleep]);
}

#[test]
fn a_relay_that_started_anew_has_no_rates_yet() {
    let earlier = relay(&[("joins", 10), ("uptime_ms", 5_000)]);
    let rate = |later: &RelayInfo| Rates::between(&earlier, later).map(|rates| rates.0["joins"]);
    assert_eq!(rate(&relay(&[("joins", 13), ("uptime_ms", 7_000)])), Some(1.5));
    assert_eq!(rate(&relay(&[("joins", 13), ("uptime_ms", 5_000)])), None);
    assert_eq!(rate(&relay(&[("joins", 13), ("uptime_ms", 400)])), None);
    assert_eq!(
        rate(&RelayInfo { relay_id: "2".to_owned(), ..relay(&[("joins", 13), ("uptime_ms", 7_000)]) }),
        None
    );
    assert_eq!(rate(&relay(&[])), None);
}

#[test]
fn the_json_has_the_same_content() {
    let mut fleet = fleet();
    let later = relay(&[("joins", 1_026), ("uptime_ms", 10_802_000)]);
    fleet.rates = Rates::between(&fleet.relay, &later);
    let json = json::of_fleet(&fleet);
    assert_eq!(json["totals"]["awake"], 302);
    assert_eq!(json["rates"], serde_json::json!({ "joinsPerS": 13.0 }));
    let ads = &json["groups"][0];
    assert_eq!(
        (&ads["group"], &ads["wakeGapP99Ms"], &ads["asleepLeaseMs"]),
        (&"ads".into(), &580_000.into(), &870_000.into())
    );
    assert_eq!(
        (&ads["versions"]["16"], &json["groups"][1]["wakeGapP50Ms"]),
        (&82.into(), &serde_json::Value::Null)
    );
    assert_eq!(
        (&json["members"][0]["nodeId"], &json["members"][0]["behind"]),
        (&"00000000000s2".into(), &7.into())
    );
    assert_eq!((&json["moreMembers"], &json["relay"]["counters"]["pushes"]), (&719.into(), &9_000.into()));
}
