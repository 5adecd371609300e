//! What a delta may say. Nothing here touches a row: one failure voids the whole push.

use std::collections::HashSet;

use dormouse_proto::{
    ids::Revision,
    lattice::{
        Change, CounterDelta, Delta, EventsDelta, FlagDelta, PRESENCES_PER_NODE, PresenceDelta,
        RegisterDelta, RemoveWinsSetDelta, Type, Value,
    },
    traps::Trap,
};

use super::{Context, quota};
use crate::state::{
    Reason, collection::Collection, members::Refused, namespace::NamespaceState, once::OnceKey,
};

/// All deltas are checked before any is applied.
pub(super) fn check(
    namespace: &NamespaceState,
    deltas: &[Delta],
    context: &Context<'_>,
) -> Result<(), Refused> {
    let mut refused: Option<Refused> = None;
    let offences = (0_u32..)
        .zip(deltas)
        .filter_map(|(nth, delta)| Some((nth, check_delta(namespace, delta, context).err()?)));
    for (nth, reason) in offences.take(Refused::NAMED) {
        refused.get_or_insert(Refused { reason, deltas: Vec::new() }).deltas.push(nth);
    }
    if refused.is_none() {
        let named = too_much(namespace, deltas, context);
        let all = named.is_empty() && quota::exceeds(namespace, deltas, context);
        refused = (all || !named.is_empty()).then_some(Refused { reason: Reason::Quota, deltas: named });
    }
    refused.map_or(Ok(()), Err)
}

fn check_delta(namespace: &NamespaceState, delta: &Delta, context: &Context<'_>) -> Result<(), Reason> {
    match &delta.change {
        Change::Counter(change) => check_counter(namespace, delta, change, context),
        Change::Set(change) => change.remove.iter().try_for_each(|remove| context.check_as_of(remove.as_of)),
        Change::Register(change) => check_register(namespace, delta, change, context),
        Change::Flag(change) => context.check_as_of(change.as_of),
        Change::Siblings(change) => context.check_as_of(change.as_of),
        Change::Events(change) => check_events(change, context),
        Change::RemoveWinsSet(change) => check_remove_wins(namespace, delta, change, context),
        Change::DisableWinsFlag(change) => check_disable_wins(namespace, delta, change, context),
        // Only a node can hold something up.
        Change::Presence(_) if context.author.is_none() => Err(Reason::ContextInvalid),
        Change::Presence(_) | Change::Max(_) | Change::Min(_) | Change::GrowOnlySet(_) => Ok(()),
    }
}

impl Context<'_> {
    /// What "whatever is there when the log accepts it" means: everything before this record.
    pub(super) fn resolve(&self, as_of: Option<Revision>) -> Revision {
        as_of.unwrap_or(Revision(self.at.0 - 1))
    }

    fn check_as_of(&self, as_of: Option<Revision>) -> Result<(), Reason> {
        match as_of {
            None => Ok(()),
            Some(as_of) if as_of >= self.at => Err(Reason::ContextInvalid),
            Some(as_of) if self.segments.contains(as_of) || self.blind() || self.traps.has(Trap::NoOpen) => {
                Ok(())
            }
            Some(_) => Err(Reason::Stale),
        }
    }

    fn blind(&self) -> bool {
        self.traps.has(Trap::GcBlind)
    }

    /// An author's clock may not run ahead of the log's by more than the skew bound. 0 stands for the log's own time.
    pub(super) fn clamp(&self, change: &RegisterDelta) -> u64 {
        match change.stamp_ms {
            0 => self.stamp_ms,
            stamp => stamp.min(self.stamp_ms.saturating_add(self.limits.stamp_skew_ms)),
        }
    }
}

fn check_counter(
    namespace: &NamespaceState,
    delta: &Delta,
    change: &CounterDelta,
    context: &Context<'_>,
) -> Result<(), Reason> {
    let row = namespace.collection(delta.collection.as_str()).and_then(|it| it.counter(delta.key.as_str()));
    if let Some(reset) = change.reset {
        context.check_as_of(reset.as_of)?;
        let born_later = row.is_none_or(|row| context.resolve(reset.as_of) < row.born);
        if born_later && reset.as_of.is_some() && !context.blind() {
            return Err(Reason::Stale);
        }
    }
    let amount = fresh_amount(namespace, delta, change).ok_or(Reason::OutOfRange)?;
    let mut row = row.copied().unwrap_or_default();
    let reset = resolve_reset(change, row.total, context);
    row.apply(reset, amount).map_err(|_| Reason::OutOfRange)
}

pub(super) fn resolve_reset(
    change: &CounterDelta,
    total: i64,
    context: &Context<'_>,
) -> Option<(Revision, i64)> {
    let reset = change.reset?;
    Some((context.resolve(reset.as_of), if reset.as_of.is_some() { reset.total } else { total }))
}

/// What the delta adds beside what its idempotency ids have added before.
pub(super) fn fresh_amount(namespace: &NamespaceState, delta: &Delta, change: &CounterDelta) -> Option<i64> {
    let mut amount = change.amount;
    let mut seen = HashSet::with_capacity(change.once.len());
    for once in &change.once {
        let key = OnceKey::of_counter(delta.collection.as_str(), delta.key.as_str(), once.id.as_str());
        let repeated = !seen.insert(once.id.as_str());
        if !repeated && namespace.once.get(key).is_none() {
            amount = amount.checked_add(once.amount)?;
        }
    }
    Some(amount)
}

fn check_register(
    namespace: &NamespaceState,
    delta: &Delta,
    change: &RegisterDelta,
    context: &Context<'_>,
) -> Result<(), Reason> {
    context.check_as_of(change.as_of)?;
    let Some(collection) = namespace.collection(delta.collection.as_str()) else {
        return Ok(());
    };
    let as_of = context.resolve(change.as_of);
    let stamped = collection.stamp(delta.key.as_str(), as_of, context.clamp(change));
    if stamped.is_none() && !context.blind() { Err(Reason::Stale) } else { Ok(()) }
}

/// Nobody can have seen an event that is still to come.
fn check_events(change: &EventsDelta, context: &Context<'_>) -> Result<(), Reason> {
    match change.trim_upto {
        Revision::ZERO => Ok(()),
        upto => context.check_as_of(Some(upto)),
    }
}

/// A dropped dead row was the only memory of its remove, and an older add would win over it.
fn check_remove_wins(
    namespace: &NamespaceState,
    delta: &Delta,
    change: &RemoveWinsSetDelta,
    context: &Context<'_>,
) -> Result<(), Reason> {
    let collection = namespace.collection(delta.collection.as_str());
    for add in &change.add {
        context.check_as_of(add.as_of)?;
        let forgotten = |collection: &Collection| {
            let unknown = |name: &str| !collection.has_element(delta.key.as_str(), Type::RemoveWinsSet, name);
            context.resolve(add.as_of) < collection.marks.remove_wins
                && add.elements.iter().any(|it| unknown(it.as_str()))
        };
        if collection.is_some_and(forgotten) && !context.blind() {
            return Err(Reason::Stale);
        }
    }
    Ok(())
}

fn check_disable_wins(
    namespace: &NamespaceState,
    delta: &Delta,
    change: &FlagDelta,
    context: &Context<'_>,
) -> Result<(), Reason> {
    context.check_as_of(change.as_of)?;
    let forgotten = |collection: &Collection| {
        context.resolve(change.as_of) < collection.marks.remove_wins
            && collection.scalar_id(delta.key.as_str(), Type::DisableWinsFlag).is_none()
    };
    let collection = namespace.collection(delta.collection.as_str());
    if change.on && collection.is_some_and(forgotten) && !context.blind() {
        return Err(Reason::Stale);
    }
    Ok(())
}

/// Deltas that are too much by themselves, whatever room there is.
fn too_much(namespace: &NamespaceState, deltas: &[Delta], context: &Context<'_>) -> Vec<u32> {
    let mut named = held_up_too_much(namespace, deltas, context);
    named.extend(too_many_siblings(namespace, deltas, context));
    named.truncate(Refused::NAMED);
    named
}

/// What one node holds up is bounded, because the record that ends it takes all of it away at once.
fn held_up_too_much(namespace: &NamespaceState, deltas: &[Delta], context: &Context<'_>) -> Vec<u32> {
    let Some((node, _)) = context.author else { return Vec::new() };
    let presences = (0_u32..).zip(deltas).filter_map(|(nth, delta)| match &delta.change {
        Change::Presence(PresenceDelta { value }) => {
            let collection = namespace.collection(delta.collection.as_str());
            let state = collection.and_then(|it| it.presence(delta.key.as_str(), node));
            Some((nth, value.is_some(), state.is_some_and(|it| !it.is_dead())))
        }
        _ => None,
    });
    let (mut more, mut withdrawn) = (Vec::new(), 0);
    for (nth, holds, held) in presences {
        match (holds, held) {
            (true, false) => more.push(nth),
            (false, true) => withdrawn += 1,
            _ => {}
        }
    }
    let room = (PRESENCES_PER_NODE + withdrawn).saturating_sub(namespace.presences.of(node));
    more.split_off(more.len().min(room))
}

/// Rows of one revision are never split over answers, and siblings are told as a whole: what they are together after this
/// push has to fit into one.
fn too_many_siblings(namespace: &NamespaceState, deltas: &[Delta], context: &Context<'_>) -> Vec<u32> {
    const BYTES: usize = 2 << 20;
    let (mut bytes, mut named) = (0, Vec::new());
    for (nth, delta) in (0_u32..).zip(deltas) {
        let Change::Siblings(change) = &delta.change else { continue };
        let collection = namespace.collection(delta.collection.as_str());
        let as_of = context.resolve(change.as_of);
        bytes += collection.map_or(0, |it| it.sibling_bytes(delta.key.as_str(), as_of));
        bytes += change.value.as_ref().map_or(0, Value::len);
        if bytes > BYTES {
            named.push(nth);
        }
    }
    named
}
