//! Members and what happens to them.

use std::time::{SystemTime, UNIX_EPOCH};

use dormouse::{Explanation, FloorEvent, GoneReason, Member, MemberEvent, MemberState};
use serde_json::{Value, json};

use super::{age, length, table};

/// The columns that hold numbers: SINCE, LEASE, `P_ALIVE`.
pub(crate) const RIGHT: &[usize] = &[3, 4, 5];

const HEADING: [&str; 7] = ["NODE", "GROUP", "STATE", "SINCE", "LEASE", "P_ALIVE", "TAGS"];
const FULL: [&str; 3] = ["INCARNATION", "REVISION", "JOINED"];

pub(crate) fn heading(full: bool) -> Vec<String> {
    let mut heading: Vec<&str> = HEADING.to_vec();
    if full {
        heading.splice(6..6, FULL);
    }
    heading.into_iter().map(str::to_owned).collect()
}

/// A line of the table. SINCE is the time since the relay last heard of the member, LEASE what is left of it.
pub(crate) fn cells(it: &Member, now: SystemTime, full: bool) -> Vec<String> {
    let ago = |at: Option<SystemTime>| {
        at.map_or_else(|| "-".to_owned(), |at| age(now.duration_since(at).unwrap_or_default()))
    };
    let lease = if it.lease_left.is_zero() { "-".to_owned() } else { length(it.lease_left) };
    let mut cells = vec![
        it.node_id.clone(),
        it.group.clone(),
        state(it.state).to_owned(),
        ago(it.last_seen),
        lease,
        format!("{:.2}", it.p_alive),
    ];
    if full {
        cells.extend([it.incarnation.to_string(), it.revision.to_string(), ago(it.joined_at)]);
    }
    cells.push(tags(it));
    cells
}

fn tags(it: &Member) -> String {
    it.tags.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

pub(crate) const fn state(it: MemberState) -> &'static str {
    match it {
        MemberState::Awake => "AWAKE",
        MemberState::Asleep => "ASLEEP",
        MemberState::Suspect => "SUSPECT",
        MemberState::Gone => "GONE",
        MemberState::Unknown => "UNKNOWN",
    }
}

const fn reason(it: GoneReason) -> &'static str {
    match it {
        GoneReason::Left => "LEFT",
        GoneReason::Expired => "EXPIRED",
        GoneReason::Evicted => "EVICTED",
    }
}

pub(crate) fn json(it: &Member) -> Value {
    let ms = |at: Option<SystemTime>| {
        let since = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        since.and_then(|since| u64::try_from(since.as_millis()).ok())
    };
    json!({
        "nodeId": it.node_id,
        "incarnation": it.incarnation,
        "group": it.group,
        "state": state(it.state),
        "goneReason": it.gone_reason.map(reason),
        "revision": it.revision,
        "pAlive": (f64::from(it.p_alive) * 1_000.0).round() / 1_000.0,
        "tags": it.tags,
        "joinedAtMs": ms(it.joined_at),
        "lastSeenMs": ms(it.last_seen),
        "leaseLeftMs": u64::try_from(it.lease_left.as_millis()).unwrap_or(u64::MAX),
        "pushes": it.pushes,
        "behind": it.behind,
    })
}

/// The kind of an event, and whom it concerns.
fn parts(event: &MemberEvent) -> (&'static str, &Member) {
    match event {
        MemberEvent::Joined(member) => ("JOINED", member),
        MemberEvent::Changed(member) => ("CHANGED", member),
        MemberEvent::Ended(member) => ("ENDED", member),
        MemberEvent::Activity(member) => ("ACTIVITY", member),
    }
}

/// `123461 ENDED ads-2k8x incarnation 2 EXPIRED`. The last word says what the kind leaves open.
pub(crate) fn event(event: &MemberEvent) -> String {
    let (kind, member) = parts(event);
    let last = match event {
        MemberEvent::Joined(_) | MemberEvent::Changed(_) => member.group.as_str(),
        MemberEvent::Ended(_) => member.gone_reason.map_or("UNKNOWN", reason),
        MemberEvent::Activity(_) => state(member.state),
    };
    format!("{} {kind} {} incarnation {} {last}", member.revision, member.node_id, member.incarnation)
}

pub(crate) fn event_json(event: &MemberEvent) -> Value {
    let (kind, member) = parts(event);
    json!({ "kind": kind, "member": json(member) })
}

/// `FLOOR ads-in-a a: 1 live, minimum 2, below`. It has no revision: floors are counted by the relay and stand in no log.
pub(crate) fn floor(it: &FloorEvent) -> String {
    let value = if it.value.is_empty() { String::new() } else { format!(" {}", it.value) };
    let verdict = if it.below { "below" } else { "met" };
    format!("FLOOR {}{value}: {} live, minimum {}, {verdict}", it.floor, it.live, it.minimum)
}

pub(crate) fn floor_json(it: &FloorEvent) -> Value {
    json!({
        "kind": "FLOOR",
        "floor": it.floor,
        "value": it.value,
        "live": it.live,
        "minimum": it.minimum,
        "below": it.below,
    })
}

/// One sentence, and below it what it was concluded from: two columns.
pub(crate) fn explanation(it: &Explanation) -> Vec<String> {
    let facts: Vec<_> = it.facts.iter().map(|(name, value)| vec![name.clone(), value.clone()]).collect();
    let mut lines = vec![it.summary.clone()];
    lines.extend(table(&facts, &[]));
    lines
}

pub(crate) fn explanation_json(it: &Explanation) -> Value {
    let fact = |(name, value): &(String, String)| json!({ "name": name, "value": value });
    json!({
        "member": json(&it.member),
        "summary": it.summary,
        "facts": it.facts.iter().map(fact).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ended() -> Member {
        Member {
            node_id: "ads-2k8x".to_owned(),
            incarnation: 2,
            group: "ads".to_owned(),
            state: MemberState::Gone,
            gone_reason: Some(GoneReason::Expired),
            revision: 123_461,
            ..Member::default()
        }
    }

    #[test]
    fn an_event_is_one_line() {
        let line = event(&MemberEvent::Ended(ended()));
        assert_eq!(line, "123461 ENDED ads-2k8x incarnation 2 EXPIRED");
        let awake = Member { state: MemberState::Awake, gone_reason: None, ..ended() };
        let line = event(&MemberEvent::Activity(awake.clone()));
        assert_eq!(line, "123461 ACTIVITY ads-2k8x incarnation 2 AWAKE");
        assert_eq!(event(&MemberEvent::Joined(awake)), "123461 JOINED ads-2k8x incarnation 2 ads");
    }

    #[test]
    fn a_member_is_shown_as_in_the_contract() {
        let now = UNIX_EPOCH + Duration::from_secs(100);
        let member = Member {
            state: MemberState::Awake,
            p_alive: 1.0,
            lease_left: Duration::from_millis(2_100),
            last_seen: Some(now - Duration::from_secs(2)),
            tags: [("version", "17"), ("zone", "a")].map(|(a, b)| (a.to_owned(), b.to_owned())).into(),
            ..ended()
        };
        assert_eq!(
            cells(&member, now, false),
            ["ads-2k8x", "ads", "AWAKE", "2s", "2.1s", "1.00", "version=17 zone=a"]
        );
        assert_eq!(cells(&member, now, true).len(), heading(true).len());
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        let cells = cells(&ended(), UNIX_EPOCH, false);
        assert_eq!(cells[3..], ["-", "-", "0.00", ""]);
    }

    #[test]
    fn the_json_of_an_end_names_its_reason() {
        let json = event_json(&MemberEvent::Ended(ended()));
        assert_eq!((&json["kind"], &json["member"]["goneReason"]), (&"ENDED".into(), &"EXPIRED".into()));
        assert_eq!(json["member"]["revision"], 123_461);
    }

    #[test]
    fn a_floor_says_what_it_counts_and_whether_it_is_met() {
        let below = FloorEvent {
            floor: "ads-in-a".to_owned(),
            value: "a".to_owned(),
            live: 1,
            minimum: 2,
            below: true,
        };
        assert_eq!(floor(&below), "FLOOR ads-in-a a: 1 live, minimum 2, below");
        assert_eq!(floor_json(&below)["below"], true);
        let met = FloorEvent { value: String::new(), live: 2, below: false, ..below };
        assert_eq!(floor(&met), "FLOOR ads-in-a: 2 live, minimum 2, met");
    }

    #[test]
    fn an_explanation_is_a_sentence_and_its_facts() {
        let fact = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let it = Explanation {
            member: ended(),
            summary: "GONE, EXPIRED: silent for 8.2 s while AWAKE".to_owned(),
            facts: vec![fact("lease", "3 s"), fact("longest pause", "3 ms")],
        };
        let lines =
            ["GONE, EXPIRED: silent for 8.2 s while AWAKE", "lease          3 s", "longest pause  3 ms"];
        assert_eq!(explanation(&it), lines);
        let json = explanation_json(&it);
        assert_eq!(json["facts"][1], json!({ "name": "longest pause", "value": "3 ms" }));
        assert_eq!(
            (&json["member"]["state"], &json["summary"]),
            (&"GONE".into(), &it.summary.as_str().into())
        );
        let bare = Explanation { facts: Vec::new(), ..it };
        assert_eq!(explanation(&bare).len(), 1);
    }
}
