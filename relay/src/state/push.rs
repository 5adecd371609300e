//! Deltas on their way into the rows: all checks before anything is touched, then all of them at one revision.

use std::collections::HashSet;

use dormouse_proto::{
    ids::Revision,
    lattice::{Change, CounterDelta, Delta, RegisterDelta, SetDelta},
    record::{Push, Write},
    rows::encode_value,
    traps::{Trap, Traps},
};

use super::{
    Reason,
    members::{LastPush, Refused},
    namespace::NamespaceState,
    once::OnceKey,
    policy::Limits,
    segments::Segments,
};

/// What became of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushVerdict {
    /// It took effect, now or, if it is a duplicate, then.
    Bound {
        /// The revision that it was bound at.
        revision: Revision,
        /// It was bound before; nothing has changed now.
        duplicate: bool,
    },
    /// It took no effect and never will; its number is used up.
    Refused(Refused),
    /// The same number with another id: another process holds this node's identity.
    Fork,
    /// A newer push of this node was accepted before: a clone's, or a late copy that nobody waits for.
    Old,
    /// No such member in that incarnation; nothing is remembered.
    Unknown,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteVerdict {
    /// It took effect, now or then.
    Bound {
        /// The revision that it was bound at.
        revision: Revision,
        /// It was bound before; nothing has changed now.
        duplicate: bool,
    },
    /// It took no effect, and a retry with the same id never will.
    Refused(Refused),
}

/// What checking and binding need beside the namespace.
pub(super) struct Context<'a> {
    pub(super) at: Revision,
    pub(super) segments: &'a Segments,
    pub(super) limits: &'a Limits,
    pub(super) log_time_ms: u64,
    pub(super) stamp_ms: u64,
    pub(super) traps: Traps,
}

/// A node's push, at the revision that its record took.
pub(super) fn push(
    namespace: &mut NamespaceState,
    push: &Push,
    context: &Context<'_>,
    session: u64,
) -> PushVerdict {
    let known = namespace.members.get_mut(push.node).filter(|member| member.incarnation == push.incarnation);
    let Some(member) = known else { return PushVerdict::Unknown };
    if let Some(contact) = push.contact {
        member.hear(contact, session, context.log_time_ms);
    }
    if push.push_no == member.last.push_no {
        let same = push.push_id == member.last.push_id || context.traps.has(Trap::NoClone);
        return if same { repeated(&member.last) } else { PushVerdict::Fork };
    }
    if push.push_no < member.last.push_no {
        return PushVerdict::Old;
    }
    let mut last =
        LastPush { push_no: push.push_no, push_id: push.push_id, refused: None, revision: context.at };
    let verdict = match check(namespace, &push.deltas, context) {
        Ok(()) => PushVerdict::Bound { revision: context.at, duplicate: false },
        Err(refused) => {
            // The number is used up: a late copy must not bind what the node was told is refused.
            last.refused = Some(refused.clone());
            last.revision = Revision::ZERO;
            PushVerdict::Refused(refused)
        }
    };
    let forgotten = last.refused.is_some() && context.traps.has(Trap::VoidFree);
    if let Some(member) = namespace.members.get_mut(push.node).filter(|_| !forgotten) {
        member.last = last;
    }
    if matches!(verdict, PushVerdict::Bound { .. }) {
        bind(namespace, &push.deltas, context);
    }
    verdict
}

fn repeated(last: &LastPush) -> PushVerdict {
    match &last.refused {
        None => PushVerdict::Bound { revision: last.revision, duplicate: true },
        Some(refused) => PushVerdict::Refused(refused.clone()),
    }
}

/// A write of a caller that is no node, at the revision that its record took.
pub(super) fn write(namespace: &mut NamespaceState, write: &Write, context: &Context<'_>) -> WriteVerdict {
    let key = OnceKey::of_write(write.request_id.as_str());
    match namespace.once.get(key) {
        Some(Ok(revision)) => {
            return WriteVerdict::Bound { revision, duplicate: true };
        }
        Some(Err(reason)) => {
            return WriteVerdict::Refused(Refused { reason, deltas: Vec::new() });
        }
        None => {}
    }
    let checked = check(namespace, &write.deltas, context);
    let outcome = checked.as_ref().map(|()| context.at).map_err(|refused| refused.reason);
    namespace.once.insert(key, outcome, context.log_time_ms, context.limits);
    match checked {
        Ok(()) => {
            bind(namespace, &write.deltas, context);
            WriteVerdict::Bound { revision: context.at, duplicate: false }
        }
        Err(refused) => WriteVerdict::Refused(refused),
    }
}

/// All deltas are checked before any is applied: one failure voids the whole push.
fn check(namespace: &NamespaceState, deltas: &[Delta], context: &Context<'_>) -> Result<(), Refused> {
    let mut refused: Option<Refused> = None;
    let offences = (0_u32..)
        .zip(deltas)
        .filter_map(|(nth, delta)| Some((nth, check_delta(namespace, delta, context).err()?)));
    for (nth, reason) in offences.take(Refused::NAMED) {
        refused.get_or_insert(Refused { reason, deltas: Vec::new() }).deltas.push(nth);
    }
    if refused.is_none() && exceeds_quota(namespace, deltas, context.limits) {
        refused = Some(Refused { reason: Reason::Quota, deltas: Vec::new() });
    }
    refused.map_or(Ok(()), Err)
}

fn check_delta(namespace: &NamespaceState, delta: &Delta, context: &Context<'_>) -> Result<(), Reason> {
    match &delta.change {
        Change::Counter(change) => check_counter(namespace, delta, change, context),
        Change::Set(change) => change.remove.iter().try_for_each(|remove| context.check_as_of(remove.as_of)),
        Change::Register(change) => check_register(namespace, delta, change, context),
    }
}

impl Context<'_> {
    /// What "whatever is there when the log accepts it" means: everything before this record.
    fn resolve(&self, as_of: Option<Revision>) -> Revision {
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

fn resolve_reset(change: &CounterDelta, total: i64, context: &Context<'_>) -> Option<(Revision, i64)> {
    let reset = change.reset?;
    Some((context.resolve(reset.as_of), if reset.as_of.is_some() { reset.total } else { total }))
}

/// What the delta adds beside what its idempotency ids have added before.
fn fresh_amount(namespace: &NamespaceState, delta: &Delta, change: &CounterDelta) -> Option<i64> {
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
    let stamped = collection.stamp(delta.key.as_str(), context.resolve(change.as_of), clamp(change, context));
    if stamped.is_none() && !context.blind() { Err(Reason::Stale) } else { Ok(()) }
}

/// An author's clock may not run ahead of the log's by more than the skew bound. 0 stands for the log's own time.
fn clamp(change: &RegisterDelta, context: &Context<'_>) -> u64 {
    match change.stamp_ms {
        0 => context.stamp_ms,
        stamp => stamp.min(context.stamp_ms.saturating_add(context.limits.stamp_skew_ms)),
    }
}

fn exceeds_quota(namespace: &NamespaceState, deltas: &[Delta], limits: &Limits) -> bool {
    if new_collections(namespace, deltas) > limits.collections_max {
        return true;
    }
    let growth = growth_bound(deltas);
    if growth == 0 {
        return false; // removals still pass
    }
    let fits = namespace.rows() + growth <= limits.rows_max && namespace.bytes() <= limits.bytes_max;
    !fits && new_rows(namespace, deltas) > 0
}

/// How many rows these deltas can add at the most, without looking at the rows.
fn growth_bound(deltas: &[Delta]) -> u64 {
    let bound = |delta: &Delta| match &delta.change {
        Change::Counter(_) | Change::Register(_) => 1,
        Change::Set(change) => change.add.len() as u64,
    };
    deltas.iter().map(bound).sum()
}

/// How many rows these deltas add.
fn new_rows(namespace: &NamespaceState, deltas: &[Delta]) -> u64 {
    let new = |delta: &Delta| {
        let (collection, key) = (namespace.collection(delta.collection.as_str()), delta.key.as_str());
        let is_new = match &delta.change {
            Change::Counter(_) => collection.is_none_or(|it| it.counter(key).is_none()),
            Change::Register(_) => collection.is_none_or(|it| it.register(key).is_none()),
            Change::Set(change) => {
                let known = |element: &str| collection.is_some_and(|it| it.has_element(key, element));
                return change.add.iter().filter(|element| !known(element.as_str())).count() as u64;
            }
        };
        u64::from(is_new)
    };
    deltas.iter().map(new).sum()
}

/// How many collections there would be; zero when these deltas make none.
fn new_collections(namespace: &NamespaceState, deltas: &[Delta]) -> u64 {
    let mut new: Vec<&str> = Vec::new();
    let mut last: Option<&str> = None;
    for delta in deltas {
        if !makes_collection(delta) {
            continue;
        }
        let name = delta.collection.as_str();
        if last.replace(name) != Some(name) && namespace.find(name).is_none() {
            new.push(name);
        }
    }
    new.sort_unstable();
    new.dedup();
    if new.is_empty() { 0 } else { (namespace.collections().len() + new.len()) as u64 }
}

/// A collection's name is kept for ever, so what only removes from one that is not there does not make it.
fn makes_collection(delta: &Delta) -> bool {
    match &delta.change {
        Change::Counter(change) => change.amount != 0 || !change.once.is_empty(),
        Change::Set(change) => !change.add.is_empty(),
        // A delete of a register that is not there is remembered: it wins over sets with older stamps.
        Change::Register(_) => true,
    }
}

fn bind(namespace: &mut NamespaceState, deltas: &[Delta], context: &Context<'_>) {
    for delta in deltas {
        if !makes_collection(delta) && namespace.find(delta.collection.as_str()).is_none() {
            continue; // nothing there, nothing to remove
        }
        match &delta.change {
            Change::Counter(change) => bind_counter(namespace, delta, change, context),
            Change::Set(change) => bind_set(namespace, delta, change, context),
            Change::Register(change) => bind_register(namespace, delta, change, context),
        }
    }
    namespace.after_push(deltas, usize::try_from(context.limits.dead_rows_min).unwrap_or(usize::MAX));
}

fn bind_counter(namespace: &mut NamespaceState, delta: &Delta, change: &CounterDelta, context: &Context<'_>) {
    let Some(amount) = fresh_amount(namespace, delta, change) else {
        return;
    };
    for once in &change.once {
        let key = OnceKey::of_counter(delta.collection.as_str(), delta.key.as_str(), once.id.as_str());
        if namespace.once.get(key).is_none() {
            namespace.once.insert(key, Ok(context.at), context.log_time_ms, context.limits);
        }
    }
    let collection = namespace.collection_mut(&delta.collection);
    let total = collection.counter(delta.key.as_str()).map_or(0, |row| row.total);
    let reset = resolve_reset(change, total, context);
    let by_value = context.traps.has(Trap::RedundantByValue);
    collection.change_counter(delta.key.as_str(), reset, amount, context.at, by_value);
}

fn bind_set(namespace: &mut NamespaceState, delta: &Delta, change: &SetDelta, context: &Context<'_>) {
    let collection = namespace.collection_mut(&delta.collection);
    for remove in &change.remove {
        let as_of = context.resolve(remove.as_of);
        for element in &remove.elements {
            collection.remove_element(delta.key.as_str(), element.as_str(), as_of, context.at);
        }
    }
    for element in &change.add {
        collection.add_element(delta.key.as_str(), element.as_str(), context.at);
    }
}

fn bind_register(
    namespace: &mut NamespaceState,
    delta: &Delta,
    change: &RegisterDelta,
    context: &Context<'_>,
) {
    let collection = namespace.collection_mut(&delta.collection);
    let clamped = clamp(change, context);
    let stamp = collection.stamp(delta.key.as_str(), context.resolve(change.as_of), clamped);
    let value = change.value.as_ref().map(encode_value);
    collection.set_register(delta.key.as_str(), stamp.unwrap_or(clamped), value, context.at);
}
