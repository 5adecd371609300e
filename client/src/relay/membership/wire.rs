//! Wire messages become the words of the membership, and filters become messages.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dormouse_proto::wire::v1;

use super::{
    Explanation, FloorEvent, GoneReason, Member, MemberCount, MemberEvent, MemberFilter, MemberState,
    RelayInfo,
};
use crate::outcome::Durability;

impl MemberFilter {
    pub(super) fn to_wire(&self) -> v1::MemberFilter {
        v1::MemberFilter {
            groups: self.groups.clone(),
            states: self.states.iter().map(|state| state.to_wire().into()).collect(),
            min_p_alive: self.min_p_alive,
            tags: self.tags.clone(),
        }
    }
}

impl MemberState {
    const fn to_wire(self) -> v1::member::State {
        match self {
            Self::Unknown => v1::member::State::Unspecified,
            Self::Awake => v1::member::State::Awake,
            Self::Asleep => v1::member::State::Asleep,
            Self::Suspect => v1::member::State::Suspect,
            Self::Gone => v1::member::State::Gone,
        }
    }

    const fn from_wire(state: v1::member::State) -> Self {
        match state {
            v1::member::State::Unspecified => Self::Unknown,
            v1::member::State::Awake => Self::Awake,
            v1::member::State::Asleep => Self::Asleep,
            v1::member::State::Suspect => Self::Suspect,
            v1::member::State::Gone => Self::Gone,
        }
    }
}

impl Member {
    pub(super) fn from_wire(it: v1::Member) -> Self {
        let gone_reason = match it.gone_reason() {
            v1::member::GoneReason::Unspecified => None,
            v1::member::GoneReason::Left => Some(GoneReason::Left),
            v1::member::GoneReason::Expired => Some(GoneReason::Expired),
            v1::member::GoneReason::Evicted => Some(GoneReason::Evicted),
        };
        Self {
            state: MemberState::from_wire(it.state()),
            gone_reason,
            node_id: it.node_id,
            incarnation: it.incarnation,
            group: it.group,
            revision: it.revision,
            p_alive: it.p_alive,
            tags: it.tags,
            joined_at: it.joined_at.and_then(time),
            last_seen: it.last_seen.and_then(time),
            lease_left: Duration::from_millis(it.lease_left_ms.into()),
            pushes: it.pushes,
            behind: it.behind,
        }
    }
}

fn time(at: prost_types::Timestamp) -> Option<SystemTime> {
    let since = Duration::new(u64::try_from(at.seconds).ok()?, u32::try_from(at.nanos).ok()?);
    UNIX_EPOCH.checked_add(since)
}

impl MemberEvent {
    pub(in crate::relay) fn from_wire(it: v1::MemberEvent) -> Option<Self> {
        use v1::member_event::Kind;
        let kind = it.kind();
        let member = Member::from_wire(it.member?);
        match kind {
            Kind::Unspecified => None,
            Kind::Joined => Some(Self::Joined(member)),
            Kind::Changed => Some(Self::Changed(member)),
            Kind::Ended => Some(Self::Ended(member)),
            Kind::Activity => Some(Self::Activity(member)),
        }
    }
}

impl MemberCount {
    pub(super) fn from_wire(it: v1::MemberCount) -> Self {
        // No gap and no lease is that short: 0 stands for what is not known.
        let known = |ms: u32| (ms > 0).then(|| Duration::from_millis(ms.into()));
        Self {
            by: it.by,
            members: it.members,
            expected_alive: it.expected_alive,
            wake_gap_p50: known(it.wake_gap_p50_ms),
            wake_gap_p99: known(it.wake_gap_p99_ms),
            asleep_lease: known(it.asleep_lease_ms),
        }
    }
}

impl FloorEvent {
    pub(in crate::relay) fn from_wire(it: v1::FloorEvent) -> Self {
        let v1::FloorEvent { floor, value, live, minimum, below } = it;
        Self { floor, value, live, minimum, below }
    }
}

impl Explanation {
    pub(super) fn from_wire(it: v1::ExplainMemberResponse) -> Self {
        Self {
            member: Member::from_wire(it.member.unwrap_or_default()),
            summary: it.summary,
            facts: it.facts.into_iter().map(|fact| (fact.name, fact.value)).collect(),
        }
    }
}

impl RelayInfo {
    pub(super) fn from_wire(it: v1::RelayInfo) -> Self {
        Self {
            conditions: it.conditions().map(|word| word.as_str_name().to_owned()).collect(),
            relay_id: it.relay_id,
            version: it.version,
            broker: it.broker,
            durability: Durability::from_wire(it.durability),
            revision: it.revision,
            limits: it.limits,
            counters: it.counters,
            now: it.now.and_then(time),
            namespaces: it.namespaces,
            log_newest: it.log_newest,
            log_applied: it.log_applied,
            store_free_bytes: it.store_free_bytes,
        }
    }
}
