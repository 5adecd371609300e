//! The numbers of groups and of namespaces. Callers make up both names, so the first [`SHOWN`] have series of their own
//! and the rest is counted together under [`OTHER`].

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// How many of each have series of their own.
pub(super) const SHOWN: usize = 200;
/// What all others are called. A group or a namespace of that very name is among them.
pub(super) const OTHER: &str = "other";

/// The members of one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupGauge {
    /// Where.
    pub namespace: String,
    /// How it is called.
    pub group: String,
    /// Members inside an invocation.
    pub awake: u64,
    /// Members that said they sleep.
    pub asleep: u64,
    /// Members whose lease ran out.
    pub suspect: u64,
    /// Members that are alive, as the sum of their likelihoods.
    pub expected_alive: f64,
    /// Members that were declared GONE for their silence.
    pub expired: u64,
    /// How many of those were heard of again.
    pub back: u64,
}

impl GroupGauge {
    /// All members.
    pub const fn members(&self) -> u64 {
        self.awake + self.asleep + self.suspect
    }
}

/// The state of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceGauge {
    /// How it is called.
    pub namespace: String,
    /// Rows that are visible.
    pub rows: u64,
    /// Rows that exist only to tell those who have not heard of their end.
    pub dead_rows: u64,
    /// What it takes in memory, estimated.
    pub memory_estimate_bytes: u64,
}

type PerGroup = [(&'static str, String); 2];
type PerState = [(&'static str, String); 3];
type PerNamespace = [(&'static str, String); 1];

/// Adds the numbers of groups and namespaces to those of a scrape.
pub(super) fn register(registry: &mut Registry, groups: &[GroupGauge], namespaces: &[NamespaceGauge]) {
    let members = Family::<PerState, Gauge<u64, AtomicU64>>::default();
    let expected = Family::<PerGroup, Gauge<f64, AtomicU64>>::default();
    let (expired, back) = (Family::<PerGroup, Counter>::default(), Family::<PerGroup, Counter>::default());
    for (nth, it) in groups.iter().enumerate() {
        let name = |own: &str| if nth < SHOWN { own.to_owned() } else { OTHER.to_owned() };
        let labels = || [("namespace", name(&it.namespace)), ("group", name(&it.group))];
        for (state, number) in [("awake", it.awake), ("asleep", it.asleep), ("suspect", it.suspect)] {
            let [namespace, group] = labels();
            members.get_or_create(&[namespace, group, ("state", state.to_owned())]).inc_by(number);
        }
        expected.get_or_create(&labels()).inc_by(it.expected_alive);
        expired.get_or_create(&labels()).inc_by(it.expired);
        back.get_or_create(&labels()).inc_by(it.back);
    }
    registry.register("group_members", "Members of a group, by state", members);
    let help = "Members of a group that are alive, as the sum of their likelihoods";
    registry.register("group_members_expected_alive", help, expected);
    registry.register("group_expired", "Members of a group declared GONE for their silence", expired);
    registry.register("group_false_deaths", "How many of those were heard of again", back);
    let by_namespace = |number: fn(&NamespaceGauge) -> u64| {
        let family = Family::<PerNamespace, Gauge<u64, AtomicU64>>::default();
        for (nth, it) in namespaces.iter().enumerate() {
            let name = if nth < SHOWN { it.namespace.clone() } else { OTHER.to_owned() };
            family.get_or_create(&[("namespace", name)]).inc_by(number(it));
        }
        family
    };
    let rows = by_namespace(|it| it.rows);
    registry.register("namespace_rows", "Visible rows of a namespace", rows);
    let dead = by_namespace(|it| it.dead_rows);
    registry.register("namespace_dead_rows", "Rows of a namespace kept only to tell of their end", dead);
    let memory = by_namespace(|it| it.memory_estimate_bytes);
    registry.register("namespace_memory_estimate_bytes", "Memory of a namespace, estimated", memory);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Gauges, Metrics};

    fn group(nth: usize) -> GroupGauge {
        let group = format!("g{nth}");
        GroupGauge {
            namespace: "shop".to_owned(),
            group,
            awake: 1,
            asleep: 2,
            suspect: 3,
            expected_alive: 2.5,
            expired: 4,
            back: 1,
        }
    }

    #[test]
    fn the_first_groups_have_their_own_series_and_the_rest_is_counted_together() {
        let groups: Vec<GroupGauge> = (0..SHOWN + 30).map(group).collect();
        let namespaces: Vec<NamespaceGauge> = (0..SHOWN + 2)
            .map(|nth| NamespaceGauge { namespace: format!("n{nth}"), rows: 7, ..NamespaceGauge::default() })
            .collect();
        let gauges = Gauges { groups, namespaces, ..Gauges::default() };
        let page = Metrics::default().encode(&gauges).unwrap_or_default();
        for line in [
            r#"dormouse_group_members{namespace="shop",group="g0",state="awake"} 1"#,
            r#"dormouse_group_members{namespace="shop",group="g199",state="suspect"} 3"#,
            r#"dormouse_group_members{namespace="other",group="other",state="asleep"} 60"#,
            r#"dormouse_group_members_expected_alive{namespace="shop",group="g7"} 2.5"#,
            r#"dormouse_group_members_expected_alive{namespace="other",group="other"} 75.0"#,
            r#"dormouse_group_expired_total{namespace="shop",group="g0"} 4"#,
            r#"dormouse_group_false_deaths_total{namespace="other",group="other"} 30"#,
            r#"dormouse_namespace_rows{namespace="n199"} 7"#,
            r#"dormouse_namespace_rows{namespace="other"} 14"#,
        ] {
            assert!(page.lines().any(|it| it == line), "{line} is not in:\n{page}");
        }
        let series = page.lines().filter(|line| line.starts_with("dormouse_group_members{")).count();
        assert_eq!(series, (SHOWN + 1) * 3);
    }
}
