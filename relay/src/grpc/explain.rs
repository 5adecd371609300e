//! Why a member is taken for what it is: one sentence for a person, and the numbers behind it.

use dormouse_proto::{
    ids::Group,
    wire::v1::{self, explain_member_response::Fact, member::GoneReason},
};

use super::{Service, membership, namespace};
use crate::{
    access::Caller,
    error::RelayError,
    keeper::Obituary,
    liveness::{LeaseKey, LeaseSettings, LeaseState, LeaseView, Millis, UndeclaredFreeze},
    state::Fold,
};

impl Service {
    pub(super) fn explain(
        &self,
        caller: &Caller,
        name: String,
        node_id: &str,
    ) -> Result<v1::ExplainMemberResponse, RelayError> {
        let namespace = namespace(caller, name)?;
        let node = membership::node(node_id)?;
        let applied = self.relay.sequencer.read();
        let fold = &applied.fold;
        let unknown = || RelayError::NodeUnknown(node_id.to_owned());
        let member = self.any_member(fold, &namespace, node).ok_or_else(unknown)?;
        let view = fold.namespace(&namespace).ok_or_else(unknown)?;
        let (_, entry) = view.roster_entry(node).ok_or_else(unknown)?;
        let key = LeaseKey { namespace: view.number(), node };
        let settings = self.relay.keeper.settings_of(&entry.group);
        let lease = self.relay.keeper.view(key);
        let summary = match (&lease, entry.gone) {
            (_, Some(_)) => self.of_ended(&member, self.relay.keeper.obituary(key), &settings),
            (Some(lease), None) => self.of_live(&member, lease, &settings, key.namespace, &entry.group),
            (None, None) => "SUSPECT: this relay has just learned of it and knows no lease yet".to_owned(),
        };
        let facts = self.facts(fold, key.namespace, &entry.group, lease.as_ref());
        Ok(v1::ExplainMemberResponse { member: Some(member), summary, facts })
    }

    fn of_live(
        &self,
        member: &v1::Member,
        lease: &LeaseView,
        settings: &LeaseSettings,
        namespace: u32,
        group: &Group,
    ) -> String {
        let percent = 100.0 * lease.p_alive;
        let slept = lease.asleep_for.map(seconds);
        match (lease.state, slept) {
            (LeaseState::Awake, _) => {
                let (silent, left) = (seconds(lease.silent), seconds(lease.left));
                format!("AWAKE: heard of {silent} ago, its lease ends in {left}")
            }
            (LeaseState::Asleep, slept) => {
                let learned = self.relay.keeper.learned(namespace, group);
                let wakes = learned.map_or(0.0, |it| it.wakes);
                let basis = format!("as far as the {wakes:.0} wakes of group {group} tell");
                format!(
                    "ASLEEP for {}: {percent:.1} % of such sleeps end in a wake, {basis}; its lease ends in {}",
                    slept.unwrap_or_default(),
                    seconds(lease.left)
                )
            }
            (LeaseState::Suspect, Some(slept)) => {
                format!(
                    "SUSPECT: asleep for {slept}, longer than its lease; {percent:.1} % of such sleeps end in a wake"
                )
            }
            (LeaseState::Suspect, None) => format!(
                "SUSPECT: silent for {} while AWAKE, lease {}, GONE after a grace of {}; {percent:.0} % of {}'s leases \
                 that ran out so were heard of again",
                seconds(lease.silent),
                seconds(settings.awake),
                seconds(settings.suspect_grace),
                member.group,
            ),
        }
    }

    fn of_ended(&self, member: &v1::Member, known: Option<Obituary>, settings: &LeaseSettings) -> String {
        let stood_still = self.relay.keeper.stood_still();
        let itself = match stood_still {
            Millis(0) => "this relay itself was awake throughout".to_owned(),
            lost => format!("the {} for which this relay stood still are not counted", seconds(lost)),
        };
        match (member.gone_reason(), known) {
            (GoneReason::Left, _) => "GONE, LEFT: it said so itself".to_owned(),
            (GoneReason::Evicted, _) => "GONE, EVICTED: somebody with the right to do so ended it".to_owned(),
            (_, Some(Obituary { lease, .. })) => match lease.asleep_for {
                Some(slept) => {
                    format!("GONE, EXPIRED: asleep for {}, longer than its lease; {itself}", seconds(slept))
                }
                None => format!(
                    "GONE, EXPIRED: silent for {} while AWAKE, lease {}, grace {}; {itself}",
                    seconds(lease.silent),
                    seconds(settings.awake),
                    seconds(settings.suspect_grace),
                ),
            },
            (_, None) => "GONE, EXPIRED: its lease ran out; this relay does not remember how".to_owned(),
        }
    }

    fn facts(&self, fold: &Fold, namespace: u32, group: &Group, lease: Option<&LeaseView>) -> Vec<Fact> {
        let mut facts = Facts::default();
        if let Some(lease) = lease {
            facts.add("p_alive", format!("{:.4}", lease.p_alive));
            facts.add("silent_ms", lease.silent.0);
            facts.add("lease_left_ms", lease.left.0);
            facts
                .add("asleep_for_ms", lease.asleep_for.map_or_else(|| "-".to_owned(), |it| it.0.to_string()));
            facts.add("beat", lease.beat.0);
            facts.add("records_behind", fold.records_after(lease.head));
        }
        let keeper = &self.relay.keeper;
        let settings = keeper.settings_of(group);
        facts.add("awake_lease_ms", settings.awake.0);
        facts.add("suspect_grace_ms", settings.suspect_grace.0);
        let allow = settings.undeclared_freeze == UndeclaredFreeze::Allow;
        facts.add("undeclared_freeze", if allow { "allow" } else { "deny" });
        if let Some(learned) = keeper.learned(namespace, group) {
            facts.add("group_asleep_lease_ms", learned.asleep_lease.unwrap_or(settings.asleep).0);
            facts.add("group_asleep_lease_is_learned", learned.asleep_lease.is_some());
            facts.add("group_wakes", format!("{:.1}", learned.wakes));
            facts.add("group_wake_gap_p50_ms", learned.gap_p50.0);
            facts.add("group_wake_gap_p99_ms", learned.gap_p99.0);
            facts.add("group_deaths_per_sleep", format!("{:.5}", learned.deaths));
            facts.add("group_lapses_heard_of_again", format!("{:.3}", learned.lapses_back));
        }
        facts.add("awake_lease_percent", keeper.lease_percent());
        facts.add("expiry_held", keeper.expiry_held());
        facts.add("mass_loss_held", keeper.mass_loss_held());
        facts.add("relay_stood_still_ms", keeper.stood_still().0);
        facts.add("relay_uptime_ms", keeper.uptime().0);
        facts.0
    }
}

#[derive(Default)]
struct Facts(Vec<Fact>);

impl Facts {
    fn add(&mut self, name: &str, value: impl ToString) {
        self.0.push(Fact { name: name.to_owned(), value: value.to_string() });
    }
}

fn seconds(length: Millis) -> String {
    format!("{:.1} s", length.0 as f64 / 1_000.0)
}
