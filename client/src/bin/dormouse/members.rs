//! `members` and `explain`.

use std::time::SystemTime;

use dormouse::{MemberFilter, MemberState, Relay};
use dormouse_proto::ids::NodeId;

use crate::{
    args::Who,
    failure::Failure,
    screen::Screen,
    show::{self, member},
};

impl From<Who> for MemberFilter {
    fn from(who: Who) -> Self {
        Self { groups: who.group, tags: who.tags, ..Self::default() }
    }
}

pub(crate) async fn list(
    screen: Screen,
    relay: &Relay,
    who: Who,
    states: Vec<MemberState>,
    full: bool,
) -> Result<(), Failure> {
    let filter = MemberFilter { states, ..MemberFilter::from(who) };
    let members = relay.members(&filter).await?;
    if screen.json {
        return members.iter().try_for_each(|it| screen.show("", &member::json(it)));
    }
    let now = now();
    let mut table = vec![member::heading(full)];
    table.extend(members.iter().map(|it| member::cells(it, now, full)));
    show::table(&table, member::RIGHT).iter().try_for_each(|line| screen.text(line))
}

pub(crate) async fn explain(screen: Screen, relay: &Relay, node: NodeId) -> Result<(), Failure> {
    let explanation = relay.explain(&node.to_string()).await?;
    if screen.json {
        return screen.show("", &member::explanation_json(&explanation));
    }
    member::explanation(&explanation).iter().try_for_each(|line| screen.text(line))
}

/// The only clock of the command line.
pub(crate) fn now() -> SystemTime {
    #[expect(
        clippy::disallowed_methods,
        reason = "a person reads how long ago something was, nothing is decided"
    )]
    SystemTime::now()
}
