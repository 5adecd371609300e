//! What `top` knows of a fleet at one moment, and how it follows from what the relay was asked. Pure: [`lines`] and
//! [`json`] show it, somebody else asks.

pub(crate) mod json;
pub(crate) mod lines;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::SystemTime};

use dormouse::{Member, MemberCount, MemberState, RelayInfo};

/// By what the living are counted; [`groups`] reads the answer.
pub(crate) const BY: [&str; 3] = ["state", "group", "tags.version"];
/// By what a group is asked for what it has taught.
pub(crate) const BY_GROUP: [&str; 1] = ["group"];

/// The states of those who are still members, the worst first.
const WORST_FIRST: [MemberState; 3] = [MemberState::Suspect, MemberState::Awake, MemberState::Asleep];

/// How many members of each state are looked at, by the order of their names. Of a larger state the worst may be
/// among the others: to find them, everybody would have to be listed each second.
pub(crate) const LOOKED_AT: u32 = 200;

/// A fleet at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    /// When the relay was asked.
    pub(crate) asked_at: SystemTime,
    /// When this is shown; later than `asked_at` while the relay does not answer.
    pub(crate) now: SystemTime,
    /// Why there is nothing newer.
    pub(crate) lost: Option<String>,
    pub(crate) relay: RelayInfo,
    /// `None` at first: a rate needs two answers.
    pub(crate) rates: Option<Rates>,
    /// The largest first.
    pub(crate) groups: Vec<Group>,
    /// As many as are shown, the worst first.
    pub(crate) members: Vec<Member>,
}

/// How many are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Living {
    pub(crate) awake: u64,
    pub(crate) asleep: u64,
    pub(crate) suspect: u64,
    pub(crate) expected_alive: f64,
}

/// The members of one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) living: Living,
    /// Its row of the count by group alone, once there is one.
    pub(crate) taught: Option<MemberCount>,
    /// Members by their tag `version`, the most first; an empty name: they have none.
    pub(crate) versions: Vec<(String, u64)>,
}

impl Living {
    fn add(&mut self, more: &Self) {
        self.awake += more.awake;
        self.asleep += more.asleep;
        self.suspect += more.suspect;
        self.expected_alive += more.expected_alive;
    }

    fn of(count: &MemberCount) -> Self {
        let members = |state: &str| if value(count, "state") == state { count.members } else { 0 };
        Self {
            awake: members("AWAKE"),
            asleep: members("ASLEEP"),
            suspect: members("SUSPECT"),
            expected_alive: count.expected_alive,
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.awake + self.asleep + self.suspect
    }

    fn in_state(&self, state: MemberState) -> u64 {
        match state {
            MemberState::Awake => self.awake,
            MemberState::Asleep => self.asleep,
            MemberState::Suspect => self.suspect,
            MemberState::Gone | MemberState::Unknown => 0,
        }
    }
}

fn value<'a>(count: &'a MemberCount, by: &str) -> &'a str {
    count.by.get(by).map_or("", String::as_str)
}

/// The groups, the largest first, from a count by [`BY`] and one by [`BY_GROUP`].
pub(crate) fn groups(counts: &[MemberCount], taught: &[MemberCount]) -> Vec<Group> {
    let mut found: BTreeMap<&str, (Living, BTreeMap<&str, u64>)> = BTreeMap::new();
    for count in counts {
        let (living, versions) = found.entry(value(count, BY[1])).or_default();
        living.add(&Living::of(count));
        *versions.entry(value(count, BY[2])).or_default() += count.members;
    }
    let group = |(name, (living, versions)): (&str, (Living, BTreeMap<&str, u64>))| {
        let mut versions: Vec<_> =
            versions.into_iter().map(|(name, members)| (name.to_owned(), members)).collect();
        versions.sort_by_key(|(_, members)| u64::MAX - members);
        let taught = taught.iter().find(|count| value(count, BY_GROUP[0]) == name).cloned();
        Group { name: name.to_owned(), living, taught, versions }
    };
    let mut groups: Vec<Group> = found.into_iter().map(group).collect();
    groups.sort_by_key(|group| u64::MAX - group.living.total());
    groups
}

impl Fleet {
    pub(crate) fn living(&self) -> Living {
        let mut all = Living::default();
        self.groups.iter().for_each(|group| all.add(&group.living));
        all
    }

    /// Which states have to be asked for members to fill so many lines, the worst first.
    pub(crate) fn worst_states(&self, at_most: usize) -> Vec<MemberState> {
        let living = self.living();
        let mut left = u64::try_from(at_most).unwrap_or(u64::MAX);
        let fits = |state: &MemberState| {
            let members = living.in_state(*state);
            let is_asked = left > 0 && members > 0;
            left = left.saturating_sub(members);
            is_asked
        };
        WORST_FIRST.into_iter().filter(fits).collect()
    }

    /// Whether some state has more members than are looked at.
    fn is_looked_at_in_part(&self) -> bool {
        let living = self.living();
        WORST_FIRST.iter().any(|state| living.in_state(*state) > LOOKED_AT.into())
    }
}

/// SUSPECT first, then AWAKE, then ASLEEP; among them whoever was not heard of for longest. Whoever changed its state
/// while the states were asked for one after the other is there as the last answer has it.
pub(crate) fn worst_first(members: Vec<Member>) -> Vec<Member> {
    let newest: BTreeMap<String, Member> = members.into_iter().map(|it| (it.node_id.clone(), it)).collect();
    let mut members: Vec<Member> = newest.into_values().collect();
    let rank = |state| WORST_FIRST.iter().position(|it| *it == state).unwrap_or(WORST_FIRST.len());
    members.sort_by_key(|it| (rank(it.state), it.last_seen));
    members
}

/// What happened in each second between two answers of one relay, by the names of its counters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rates(pub(crate) BTreeMap<String, f64>);

/// The counter that counts time and nothing that happens.
const UPTIME: &str = "uptime_ms";

impl Rates {
    /// `None` if the two were not told by the same run of one relay, or not some time apart. The relay's own clock
    /// measures, so neither the network nor this machine stretches a rate.
    pub(crate) fn between(earlier: &RelayInfo, later: &RelayInfo) -> Option<Self> {
        if earlier.relay_id != later.relay_id {
            return None;
        }
        let ms =
            later.counters.get(UPTIME)?.checked_sub(*earlier.counters.get(UPTIME)?).filter(|ms| *ms > 0)?;
        let rate = |(name, count): (&String, &u64)| {
            let more = count.checked_sub(*earlier.counters.get(name)?)?;
            Some((name.clone(), more as f64 * 1_000.0 / ms as f64))
        };
        Some(Self(later.counters.iter().filter(|(name, _)| *name != UPTIME).filter_map(rate).collect()))
    }
}
