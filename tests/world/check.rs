//! The comparisons: what arrives, and what a node shows.

use std::collections::BTreeSet;

use dormouse_proto::{
    ids::NodeId,
    lattice::{Change, Siblings, Value},
    wire::v1::{self, sync_response as response},
};

use crate::{
    namespace,
    node::Node,
    rows::{self, Event, RowNo, Shown},
    told::{Part, Told, told},
    truth::Truth,
    violation::{Violation, ensure, violation},
    world::World,
};

impl World {
    /// The history that a relay has applied.
    pub(crate) fn truth_of(&self, relay: usize) -> &Truth {
        &self.truths[self.relays[relay].history]
    }

    /// I3: every row that arrives is what the row was at the revision that it is told for.
    pub(crate) fn check_rows(
        &self,
        node: usize,
        relay: usize,
        answer: &v1::SyncResponse,
    ) -> Result<(), Violation> {
        if let Some(response::PullResult::Chunk(chunk)) = &answer.pull_result {
            self.check_told(node, relay, &told(&chunk.keys).map_err(violation)?, chunk.as_of)?;
            self.check_told_letters(node, relay, answer, chunk)?;
        }
        let (Some(response::PushResult::Pushed(ack)), Some(push)) =
            (&answer.push_result, self.nodes[node].replica.sealed())
        else {
            return Ok(());
        };
        let rows_told = told(&ack.keys).map_err(violation)?;
        self.check_told(node, relay, &rows_told, ack.as_of)?;
        let (truth, it) = (self.truth_of(relay), &self.nodes[node]);
        for delta in push.deltas() {
            for row in rows::touched(delta) {
                if rows_told.iter().any(|told| told.row == row) {
                    continue;
                }
                let was = truth.shown(it.space, row, ack.as_of);
                let holds = match asked_for(&delta.change, row) {
                    Asked::Shown(is) => *was == is,
                    Asked::Holder(value) => holder(was, it.id()) == value.as_ref(),
                    // Only entries that are still there are told.
                    Asked::Events => truth.bound(push.push_id()).is_none_or(|at| !has_of(was, at)),
                    Asked::Unknown => false,
                };
                ensure(holds, || {
                    let name = rows::name(row);
                    format!("I3: node {node} is not told of {name} as of {}, which was {was:?}", ack.as_of)
                })?;
            }
        }
        Ok(())
    }

    /// I3, for rows however they came.
    pub(crate) fn check_told(
        &self,
        node: usize,
        relay: usize,
        told: &[Told],
        at: u64,
    ) -> Result<(), Violation> {
        let (truth, space) = (self.truth_of(relay), self.nodes[node].space);
        for it in told {
            let was = truth.shown(space, it.row, at);
            let holds = match &it.part {
                Part::Whole(is, _) => is == was,
                Part::Event(event, author) => {
                    has(was, event) && truth.author_of(space, it.row, event.at) == *author
                }
                Part::Trimmed(upto) => {
                    let all = events(was);
                    all.iter().all(|event| event.at.0 > *upto) && *upto <= truth.trimmed_beside(space, it.row)
                }
                Part::Holder(who, _, value) => holder(was, Some(*who)) == value.as_ref(),
            };
            ensure(holds, || {
                let (name, part) = (rows::name(it.row), &it.part);
                format!("I3: node {node} is told {part:?} of {name} as of {at}, but it was {was:?}")
            })?;
        }
        Ok(())
    }

    /// I2: a node that is caught up shows the state at that revision, with its own writes that are not in it; and of
    /// what it neither follows nor has fetched it shows nothing.
    pub(crate) fn check_view(
        &mut self,
        node: usize,
        relay: usize,
        at: u64,
        asked: &[String],
    ) -> Result<(), Violation> {
        self.stats.barriers += 1;
        let it = &self.nodes[node];
        for row in self.palette.iter().copied() {
            let collection = rows::all()[row].collection;
            if !it.shadow.follows(collection) {
                let unknown = it.shadow.is_fetched(row) || it.view(row).is_none();
                ensure(unknown, || format!("I2: node {node} shows {}, not followed", rows::name(row)))?;
                continue;
            }
            let known = it.shadow.barrier(collection) == at && it.shadow.held_at(row) <= at;
            if known && !it.shadow.waiting.contains_key(&row) {
                self.check_row(it, relay, row, at)?;
            }
        }
        self.check_letters(node, relay, at)?;
        self.check_members(node, relay, at, asked)
    }

    fn check_row(&self, it: &Node, relay: usize, row: RowNo, at: u64) -> Result<(), Violation> {
        let truth = self.truth_of(relay);
        let state = truth.shown(it.space, row, at);
        // A push of another process of the same name, which a lost tail has kept from being told apart, hides the fate of
        // this one's: then it is under way until it is sent again.
        let hidden = self.faults.clone && self.faults.regress && it.settled_other;
        let under_way = it.replica.sealed().filter(|push| {
            let decided = truth.decided(push.push_id());
            decided.is_none_or(|decided| decided > at || hidden)
                && it.shadow.told_refused != Some(push.push_id())
        });
        let delta =
            under_way.and_then(|push| push.deltas().iter().find(|it| rows::touched(it).contains(&row)));
        let is = it.view(row);
        let want = match (delta, state) {
            (_, Shown::Holders(_)) => return check_holders(it, row, state, is.as_ref(), at),
            (None, _) => Some(state.clone()),
            (Some(delta), _) => foretold(&delta.change, row, state),
        };
        let Some(want) = want else { return Ok(()) };
        ensure(is.as_ref() == Some(&want), || {
            let (name, pending, node) = (rows::name(row), delta.is_some(), it.name);
            format!(
                "I2: node {node}, caught up as of {at}, shows {is:?} for {name}, must be {want:?}, own write under way: {pending}"
            )
        })
    }

    fn check_members(&self, node: usize, relay: usize, at: u64, asked: &[String]) -> Result<(), Violation> {
        let it = &self.nodes[node];
        let fold = &self.relays[relay].machine.fold;
        let follows = |names: &[String]| names.iter().any(|name| name == "@members");
        if !follows(asked) || !follows(&it.shadow.follow) || fold.revision().0 != at {
            return Ok(());
        }
        let shown: BTreeSet<_> =
            it.replica.members().into_iter().flatten().map(|row| (row.node, row.incarnation)).collect();
        let live = fold.namespace(namespace(it.space)).map(|view| view.members());
        let live: BTreeSet<_> =
            live.into_iter().flatten().map(|(id, member)| (*id, member.incarnation)).collect();
        ensure(shown == live, || format!("I2: node {node} shows the members {shown:?}, must be {live:?}"))
    }

    /// After a read of one key: what the node shows of it is what it was, unless it has something newer or of its own.
    pub(crate) fn check_read(
        &self,
        node: usize,
        relay: usize,
        key: &[RowNo],
        at: u64,
    ) -> Result<(), Violation> {
        let it = &self.nodes[node];
        let own = |row: &RowNo| it.replica.sealed().is_some() || it.shadow.waiting.contains_key(row);
        for row in key.iter().copied().filter(|row| !own(row)) {
            let followed = it.shadow.follows(rows::all()[row].collection);
            if !followed || it.shadow.barrier(rows::all()[row].collection) == at {
                self.check_row(it, relay, row, at)?;
            }
        }
        Ok(())
    }
}

/// What others hold up is exact; what the node itself does, is so already or is what its program said last.
fn check_holders(it: &Node, row: RowNo, state: &Shown, is: Option<&Shown>, at: u64) -> Result<(), Violation> {
    let own = is.and_then(|is| holder(is, it.id()));
    let said = it.standing.get(&row);
    let may_be = own == holder(state, it.id())
        || said.is_some_and(|said| said.0.as_ref() == own || said.1 && own.is_none());
    let without = |shown: &Shown| {
        let Shown::Holders(all) = shown else { return None };
        let mut others = all.clone();
        it.id().and_then(|id| others.remove(&id));
        Some(others)
    };
    ensure(may_be && is.and_then(without) == without(state), || {
        let (name, node) = (rows::name(row), it.name);
        format!(
            "I2: node {node}, caught up as of {at}, shows {is:?} for {name}, must be {state:?} with its own {said:?}"
        )
    })
}

fn events(shown: &Shown) -> &[Event] {
    if let Shown::Events(events) = shown { events } else { &[] }
}

fn has(shown: &Shown, event: &Event) -> bool {
    events(shown).contains(event)
}

/// Whether an entry of that revision is there.
fn has_of(shown: &Shown, at: u64) -> bool {
    events(shown).iter().any(|event| event.at.0 == at)
}

/// What a node holds up.
pub(crate) fn holder(shown: &Shown, node: Option<NodeId>) -> Option<&Value> {
    if let Shown::Holders(holders) = shown { holders.get(&node?) } else { None }
}

/// What a delta asked for; an acknowledgement leaves out rows that are exactly that.
enum Asked {
    Shown(Shown),
    Holder(Option<Value>),
    Events,
    /// Always named.
    Unknown,
}

fn asked_for(change: &Change, row: RowNo) -> Asked {
    let element = rows::all()[row].element.as_ref();
    let present = |is: bool| Asked::Shown(Shown::Present(is));
    match change {
        Change::Counter(_) | Change::Siblings(_) => Asked::Unknown,
        Change::Register(register) => Asked::Shown(Shown::Register(register.value.clone())),
        Change::Set(set) => present(element.is_some_and(|it| set.add.contains(it))),
        Change::GrowOnlySet(_) => present(true),
        Change::RemoveWinsSet(set) => present(element.is_some_and(|it| !set.remove.contains(it))),
        Change::Flag(flag) | Change::DisableWinsFlag(flag) => present(flag.on),
        Change::Max(offer) | Change::Min(offer) => Asked::Shown(Shown::Number(Some(*offer))),
        Change::Events(_) => Asked::Events,
        Change::Presence(presence) => Asked::Holder(presence.value.clone()),
    }
}

/// What a row will show while that delta of it is under way; `None`: it depends on what the log knows.
fn foretold(change: &Change, row: RowNo, state: &Shown) -> Option<Shown> {
    match (change, state) {
        (Change::Counter(delta), Shown::Counter(value)) => {
            (delta.reset.is_none() && delta.once.is_empty()).then(|| Shown::Counter(value + delta.amount))
        }
        (Change::Max(offer), Shown::Number(best)) => Some(Shown::Number((*best).max(Some(*offer)))),
        (Change::Min(offer), Shown::Number(best)) => {
            Some(Shown::Number(Some(best.map_or(*offer, |best| best.min(*offer)))))
        }
        (Change::Siblings(delta), Shown::Siblings(siblings)) => {
            let seen = delta.as_of.map_or(u64::MAX, |it| it.0);
            let left = siblings.iter().filter(|(at, _)| *at > seen).cloned();
            let mut all: Vec<(u64, Value)> = left.chain(delta.value.clone().map(|it| (0, it))).collect();
            let surplus = all.len().saturating_sub(Siblings::<Value>::MAX);
            all.drain(..surplus);
            Some(Shown::Siblings(all))
        }
        (Change::Events(delta), Shown::Events(events)) => {
            let left = events.iter().filter(|event| event.at.0 > delta.trim_upto.0).cloned();
            let own = delta.append.iter().map(|it| Event { at: (0, 0), payload: it.payload.clone() });
            Some(Shown::Events(left.chain(own).collect()))
        }
        _ => match asked_for(change, row) {
            Asked::Shown(shown) => Some(shown),
            _ => None,
        },
    }
}
