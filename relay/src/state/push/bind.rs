//! Deltas that were checked take effect, all at one revision.

use dormouse_proto::{
    ids::Revision,
    lattice::{
        Change, CounterDelta, Delta, EventsDelta, PresenceDelta, RegisterDelta, RemoveWinsSetDelta, SetDelta,
    },
    rows::encode_value,
    traps::Trap,
};

use super::{
    Context,
    check::{fresh_amount, resolve_reset},
    quota::makes_collection,
};
use crate::state::{collection::Appending, namespace::NamespaceState, once::OnceKey};

pub(super) fn bind(namespace: &mut NamespaceState, deltas: &[Delta], context: &Context<'_>) {
    for delta in deltas {
        if !makes_collection(delta) && namespace.find(delta.collection.as_str()).is_none() {
            continue; // nothing there, nothing to remove
        }
        match &delta.change {
            Change::Counter(change) => bind_counter(namespace, delta, change, context),
            Change::Events(change) => bind_events(namespace, delta, change, context),
            Change::Presence(change) => bind_presence(namespace, delta, change, context),
            _ => bind_rows(namespace, delta, context),
        }
    }
    namespace.after_push(deltas, usize::try_from(context.limits.dead_rows_min).unwrap_or(usize::MAX));
}

/// The types that change nothing but rows of their collection.
fn bind_rows(namespace: &mut NamespaceState, delta: &Delta, context: &Context<'_>) {
    let (key, at) = (delta.key.as_str(), context.at);
    let collection = namespace.collection_mut(&delta.collection);
    match &delta.change {
        Change::Set(change) => bind_set(collection, key, change, context),
        Change::Register(change) => bind_register(collection, key, change, context),
        Change::Flag(change) => collection.set_flag(key, change.on, context.resolve(change.as_of), at),
        Change::DisableWinsFlag(change) => {
            collection.set_guarded_flag(key, change.on, context.resolve(change.as_of), at);
        }
        Change::Max(value) => collection.offer_max(key, *value, at),
        Change::Min(value) => collection.offer_min(key, *value, at),
        Change::Siblings(change) => {
            let value = change.value.as_ref().map(encode_value);
            let crowded = collection.write_siblings(key, value, context.resolve(change.as_of), at);
            namespace.collapsed.siblings += crowded as u64;
        }
        Change::GrowOnlySet(change) => {
            change.add.iter().for_each(|element| collection.grow(key, element.as_str(), at));
        }
        Change::RemoveWinsSet(change) => bind_remove_wins(collection, key, change, context),
        Change::Counter(_) | Change::Events(_) | Change::Presence(_) => {}
    }
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

type Collection = crate::state::collection::Collection;

fn bind_set(collection: &mut Collection, key: &str, change: &SetDelta, context: &Context<'_>) {
    for remove in &change.remove {
        let as_of = context.resolve(remove.as_of);
        for element in &remove.elements {
            collection.remove_element(key, element.as_str(), as_of, context.at);
        }
    }
    for element in &change.add {
        collection.add_element(key, element.as_str(), context.at);
    }
}

fn bind_remove_wins(
    collection: &mut Collection,
    key: &str,
    change: &RemoveWinsSetDelta,
    context: &Context<'_>,
) {
    let at = context.at;
    for element in &change.remove {
        collection.change_guarded(key, element.as_str(), |row| row.remove(at), at);
    }
    for add in &change.add {
        let as_of = context.resolve(add.as_of);
        for element in &add.elements {
            collection.change_guarded(key, element.as_str(), |row| row.add(as_of), at);
        }
    }
}

fn bind_register(collection: &mut Collection, key: &str, change: &RegisterDelta, context: &Context<'_>) {
    let clamped = context.clamp(change);
    let stamp = collection.stamp(key, context.resolve(change.as_of), clamped);
    let value = change.value.as_ref().map(encode_value);
    collection.set_register(key, stamp.unwrap_or(clamped), value, context.at);
}

fn bind_events(namespace: &mut NamespaceState, delta: &Delta, change: &EventsDelta, context: &Context<'_>) {
    let (name, key) = (delta.collection.as_str(), delta.key.as_str());
    let mut fresh = Vec::with_capacity(change.append.len());
    for (index, append) in (0_u32..).zip(&change.append) {
        if let Some(id) = &append.id {
            let once = OnceKey::of_event(name, key, id.as_str());
            if namespace.once.get(once).is_some() {
                continue;
            }
            namespace.once.insert(once, Ok(context.at), context.log_time_ms, context.limits);
        }
        fresh.push((index, &append.payload));
    }
    let by = Appending {
        at: context.at,
        author: context.author.map(|(node, _)| node),
        log_time_ms: context.log_time_ms,
        stamp_ms: context.stamp_ms,
    };
    let number = namespace.find_or_add(&delta.collection);
    let trimmed = namespace.change_log(number, key, |collection| {
        if change.trim_upto > Revision::ZERO {
            collection.trim_events(key, change.trim_upto, context.at);
        }
        collection.append_events(key, &fresh, by);
        collection.retain_events(key, context.limits, context.at)
    });
    namespace.collapsed.events += trimmed;
}

fn bind_presence(
    namespace: &mut NamespaceState,
    delta: &Delta,
    change: &PresenceDelta,
    context: &Context<'_>,
) {
    let Some((node, incarnation)) = context.author else { return };
    let value = change.value.as_ref().map(encode_value);
    let holds = value.is_some();
    let collection = namespace.collection_mut(&delta.collection);
    collection.set_presence(delta.key.as_str(), (node, incarnation), value, context.at);
    namespace.presences.note(node, &delta.collection, &delta.key, holds);
}
