//! Who counts for one floor, and how many of them are alive for each value of its tag.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use dormouse_proto::ids::{Group, Namespace, NodeId, Revision};
use tokio::sync::broadcast::{Receiver, error::TryRecvError};

use super::Surroundings;
use crate::{
    config::FloorSettings,
    keeper::{Keeper, Turn},
    liveness::{LeaseKey, LeaseState, MemberCounts},
    state::{Fold, Tags},
};

/// Leases that are looked at in one go, so that a walk over many members leaves room for calls.
const STRETCH: usize = 4_096;

/// Namespaces in which somebody turned SUSPECT meanwhile.
pub(super) enum Silenced {
    In(HashSet<u32>),
    /// More turned than could be followed.
    Anywhere,
}

impl Silenced {
    /// What has happened since this was last asked for.
    pub(super) fn since_last_time(turns: &mut Receiver<Turn>) -> Self {
        let (mut namespaces, mut missed) = (HashSet::new(), false);
        loop {
            match turns.try_recv() {
                Ok(turn) if turn.state == LeaseState::Suspect => drop(namespaces.insert(turn.namespace)),
                Ok(_) => {}
                Err(TryRecvError::Lagged(_)) => missed = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        if missed { Self::Anywhere } else { Self::In(namespaces) }
    }

    fn touches(&self, namespace: u32) -> bool {
        match self {
            Self::In(namespaces) => namespaces.contains(&namespace),
            Self::Anywhere => true,
        }
    }
}

/// The members of one floor.
pub(super) struct Census {
    settings: FloorSettings,
    /// The revision that `members` is of.
    revision: Option<Revision>,
    members: HashMap<NodeId, Tags>,
    /// How many of the whole namespace lived and were SUSPECT before they were last counted.
    before: Option<(u64, u64)>,
    counts: BTreeMap<String, u64>,
}

impl Census {
    /// Of a floor with these settings; nobody is known yet.
    pub(super) fn new(settings: FloorSettings) -> Self {
        Self { settings, revision: None, members: HashMap::new(), before: None, counts: BTreeMap::new() }
    }

    pub(super) fn namespace(&self) -> &Namespace {
        &self.settings.namespace
    }

    /// The revision of the newest counts.
    pub(super) fn revision(&self) -> Revision {
        self.revision.unwrap_or_default()
    }

    /// Live members by value, those with 0 too.
    pub(super) fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }

    /// Counts, if the counts can have changed.
    pub(super) async fn take(&mut self, around: &Surroundings, silenced: &Silenced) {
        let (number, changed) = self.read(&around.sequencer.read().fold);
        let Some(number) = number else {
            self.counts.clear();
            return;
        };
        // Before the walk: what turns meanwhile shows as a difference next time. Of two that change places only the one
        // that fell silent tells, because the sums stay as they are.
        let MemberCounts { awake, asleep, suspect } = around.keeper.counts(number);
        let sums = Some((awake + asleep, suspect));
        if changed || sums != self.before || silenced.touches(number) {
            self.before = sums;
            self.count(&around.keeper, number).await;
        }
    }

    /// Takes over who came and went. Answers the number of the namespace, if it exists, and whether anything changed.
    fn read(&mut self, fold: &Fold) -> (Option<u32>, bool) {
        let since = self.revision.replace(fold.revision());
        let Some(view) = fold.namespace(&self.settings.namespace) else {
            let changed = !self.members.is_empty();
            self.members.clear();
            return (None, changed);
        };
        let number = Some(view.number());
        let since = since.filter(|since| *since <= fold.revision() && fold.is_valid(*since));
        let Some(rows) = since.and_then(|since| view.roster_after(since)) else {
            self.members.clear();
            for (node, member) in view.members() {
                self.note(*node, &member.group, &member.tags, true);
            }
            return (number, true);
        };
        let mut changed = false;
        for (_, entry) in rows {
            self.note(entry.node, &entry.group, &entry.tags, entry.gone.is_none());
            changed = true;
        }
        (number, changed)
    }

    fn note(&mut self, node: NodeId, group: &Group, tags: &Tags, is_member: bool) {
        let FloorSettings { selector, group: wanted, by, .. } = &self.settings;
        let counts = is_member
            && wanted.as_ref().is_none_or(|wanted| wanted == group)
            && by.as_ref().is_none_or(|by| tags.contains_key(by))
            && selector.matches(tags);
        if counts {
            self.members.insert(node, Arc::clone(tags));
        } else {
            self.members.remove(&node);
        }
    }

    async fn count(&mut self, keeper: &Keeper, namespace: u32) {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for (place, (node, tags)) in self.members.iter().enumerate() {
            if place % STRETCH == STRETCH - 1 {
                tokio::task::yield_now().await;
            }
            let value = self.settings.by.as_ref().and_then(|by| tags.get(by)).map_or("", String::as_str);
            let lease = keeper.view(LeaseKey { namespace, node: *node });
            let lives = lease.is_some_and(|it| it.state != LeaseState::Suspect);
            *counts.entry(value).or_default() += u64::from(lives);
        }
        self.counts = counts.into_iter().map(|(value, live)| (value.to_owned(), live)).collect();
    }
}

#[cfg(test)]
mod tests {
    use dormouse_proto::{
        ids::{Beat, BootId, Incarnation},
        record::{Cause, Frame, FrameHeader, Gone, Join, Policy, Record},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::selector::Selector;

    /// A node comes, with a tag that it may not have had before, or goes; then the census looks, or does not.
    #[derive(Clone, Debug)]
    struct Step {
        node: u64,
        joins: bool,
        zone: Option<u8>,
        group: &'static str,
        looks: bool,
    }

    fn step() -> impl Strategy<Value = Step> {
        let parts =
            (0..8_u64, any::<bool>(), prop::option::of(0..3_u8), prop::bool::weighted(0.8), any::<bool>());
        parts.prop_map(|(node, joins, zone, ads, looks)| {
            let group = if ads { "ads" } else { "mail" };
            Step { node, joins, zone, group, looks }
        })
    }

    /// `age` counts the lives of each node.
    fn record(step: &Step, age: &mut HashMap<u64, u64>) -> Record {
        let (namespace, node) = (Namespace::default(), NodeId(step.node));
        let age = age.entry(step.node).or_default();
        if step.joins {
            let previous = (*age > 0).then_some(Incarnation(*age));
            *age += 1;
            let zone = step.zone.map(|zone| ("zone".to_owned(), format!("{zone}")));
            Record::Join(Join {
                namespace,
                node,
                incarnation: Incarnation(*age),
                previous,
                boot_id: BootId([1; 16]),
                group: step.group.parse().expect("a group"),
                tags: zone.into_iter().collect(),
                contact: None,
            })
        } else {
            let incarnation = Incarnation(*age);
            let (cause, beat, reason) = (Cause::Left, Beat(u64::MAX), String::new());
            Record::Gone(Gone { namespace, node, incarnation, cause, beat, reason })
        }
    }

    fn apply(fold: &mut Fold, record: Record) {
        let header = FrameHeader { session: 1, ..FrameHeader::default() };
        fold.apply_frame(&Frame { header, records: vec![record] }, |_, _, _, _| {});
    }

    fn census() -> Census {
        Census::new(FloorSettings {
            group: Some("ads".parse().expect("a group")),
            by: Some("zone".to_owned()),
            selector: Selector::parse("zone!=2").expect("a selector"),
            ..FloorSettings::default()
        })
    }

    proptest! {
        #[test]
        fn who_is_followed_from_change_to_change_is_who_is_found_at_once(steps in prop::collection::vec(step(), 1..80)) {
            let (mut fold, mut followed, mut age) = (Fold::new(), census(), HashMap::new());
            apply(&mut fold, Record::Policy(Policy { dead_rows_min: Some(1), ..Policy::default() }));
            for step in steps {
                apply(&mut fold, record(&step, &mut age));
                if step.looks {
                    followed.read(&fold);
                    let mut found = census();
                    found.read(&fold);
                    prop_assert_eq!(&followed.members, &found.members);
                    prop_assert_eq!(followed.revision(), fold.revision());
                    prop_assert!(!followed.read(&fold).1, "nothing has changed since");
                }
            }
        }
    }
}
