//! Rows as readers are told of them: in a chunk, in an acknowledgement, in a read.

use dormouse_proto::{
    convert::bounds,
    ids::{Element, Incarnation, NodeId, Revision},
    lattice::{Change, Delta, EventsDelta, PresenceDelta, RegisterDelta, Type},
    rows::{RowWriter, decode_value, encode_value},
};

use super::{
    collection::{Collection, RowBody},
    keys::KeyId,
    namespace::NamespaceState,
    rows::Row,
};

/// What a record touched.
#[derive(Clone, Copy, Debug)]
pub struct Touched<'a> {
    /// Its deltas.
    pub deltas: &'a [Delta],
    /// The revision that they were bound at.
    pub bound_at: Revision,
    /// Whose they are; `None`: a caller that is no node.
    pub author: Option<NodeId>,
}

/// How much is read at once.
#[derive(Clone, Copy, Debug)]
pub struct ReadBounds {
    /// Bytes of a page; the last key may exceed it.
    pub max_bytes: usize,
    /// Of events only those after this revision, ...
    pub events_after: Revision,
    /// ... and at most so many of each key; a single revision is never split.
    pub max_events: usize,
}

impl ReadBounds {
    /// So many bytes, and the first events of each key.
    pub const fn bytes(max_bytes: usize) -> Self {
        Self { max_bytes, events_after: Revision::ZERO, max_events: bounds::READ_EVENTS }
    }
}

/// What a row costs on the wire, at the most, after a row of the key `open`.
pub(super) fn row_len(collection: &Collection, row: &Row<RowBody>, open: Option<KeyId>) -> usize {
    let Some(key) = row.body.key() else { return 0 };
    let names = if open == Some(key) {
        0
    } else {
        RowWriter::key_len(collection.name.as_str(), &collection.keys().entry(key).name)
    };
    let content = match &row.body {
        RowBody::Register(_, register) => register.value.as_ref().map_or(0, |value| value.len()),
        RowBody::Siblings(_, siblings) => {
            siblings.iter().map(|(_, value)| RowWriter::ROW_LEN + value.len()).sum()
        }
        RowBody::Event(_, entry) => entry.event.len(),
        RowBody::Presence(_, holder) => holder.state.value.as_ref().map_or(0, |value| value.len()),
        body => match body.element() {
            Some(element) => return names + RowWriter::element_len(element),
            None => 0,
        },
    };
    names + RowWriter::ROW_LEN + content
}

/// Writes a row, opening its key if another one is open.
pub(super) fn write_row(
    collection: &Collection,
    row: &Row<RowBody>,
    open: &mut Option<KeyId>,
    out: &mut RowWriter<'_>,
) {
    let Some(key) = row.body.key() else { return };
    if *open != Some(key) {
        let entry = collection.keys().entry(key);
        out.key(collection.name.as_str(), &entry.name, entry.kind);
        *open = Some(key);
    }
    match &row.body {
        RowBody::Vacant => {}
        RowBody::Counter(_, counter) => out.counter(counter.value(), counter.total),
        RowBody::Element(_, name, element) => out.element(name, element.is_present()),
        RowBody::Register(_, register) => out.register(register.value.as_deref(), register.stamp_ms),
        RowBody::Flag(_, flag) => out.flag(flag.is_on()),
        RowBody::Max(_, max) => out.number(Some(max.0)),
        RowBody::Min(_, min) => out.number(Some(min.0)),
        RowBody::Siblings(_, siblings) => out.siblings(siblings.iter().map(|(at, value)| (at, &**value))),
        RowBody::Grown(_, name) => out.element(name, true),
        RowBody::Guarded(_, element) => out.element(&element.name, element.state.is_present()),
        RowBody::GuardedFlag(_, flag) => out.flag(flag.is_present()),
        RowBody::EventsHead(_, head) => out.trimmed(head.trimmed_upto),
        RowBody::Event(_, entry) => out.event(&entry.event),
        RowBody::Presence(_, holder) => {
            out.holder(holder.node, holder.state.incarnation, holder.state.value.as_deref());
        }
    }
}

// ---- what an acknowledgement carries ----

/// Writes the rows that a delta touched, unless they are exactly what it asked for.
pub(super) fn write_touched(
    state: &NamespaceState,
    delta: &Delta,
    touched: &Touched<'_>,
    out: &mut RowWriter<'_>,
) {
    let (name, key, kind) = (delta.collection.as_str(), delta.key.as_str(), delta.change.kind());
    let collection = state.collection(name);
    let present = |element: &str| collection.is_some_and(|it| it.is_present(key, kind, element));
    let unexpected = match &delta.change {
        Change::Set(change) => {
            unexpected(&change.add, change.remove.iter().flat_map(|it| &it.elements), present)
        }
        Change::GrowOnlySet(change) => unexpected(&change.add, [].iter(), present),
        Change::RemoveWinsSet(change) => {
            unexpected(change.add.iter().flat_map(|it| &it.elements), &change.remove, present)
        }
        _ => return write_touched_key(collection, delta, touched, out),
    };
    if !unexpected.is_empty() {
        out.key(name, key, kind);
    }
    for (element, present) in unexpected {
        out.element(element.as_str(), present);
    }
}

/// The elements that are not there although they were added, and those that are although they were removed.
fn unexpected<'a>(
    added: impl IntoIterator<Item = &'a Element>,
    removed: impl IntoIterator<Item = &'a Element>,
    present: impl Fn(&str) -> bool,
) -> Vec<(&'a Element, bool)> {
    let missing = added.into_iter().filter(|it| !present(it.as_str())).map(|it| (it, false));
    let left = removed.into_iter().filter(|it| present(it.as_str())).map(|it| (it, true));
    missing.chain(left).collect()
}

fn write_touched_key(
    collection: Option<&Collection>,
    delta: &Delta,
    touched: &Touched<'_>,
    out: &mut RowWriter<'_>,
) {
    let (name, key, kind) = (delta.collection.as_str(), delta.key.as_str(), delta.change.kind());
    let id = collection.and_then(|it| it.scalar_id(key, kind));
    let body = collection.zip(id).map(|(it, id)| &it.table().row(id).body);
    match &delta.change {
        Change::Events(change) => write_touched_events(collection, delta, change, touched, out),
        Change::Presence(change) => write_touched_presence(collection, delta, change, touched, out),
        change if is_as_asked(body, change) => {}
        change => {
            out.key(name, key, kind);
            match (body, collection.zip(id)) {
                (Some(_), Some((collection, id))) => {
                    let mut open = collection.table().row(id).body.key();
                    write_row(collection, collection.table().row(id), &mut open, out);
                }
                _ => write_nothing(change, out),
            }
        }
    }
}

/// Whether a key shows what the delta asked for. Of counters and siblings nobody can tell beforehand.
fn is_as_asked(body: Option<&RowBody>, change: &Change) -> bool {
    match (change, body) {
        (Change::Flag(change), Some(RowBody::Flag(_, flag))) => flag.is_on() == change.on,
        (Change::DisableWinsFlag(change), Some(RowBody::GuardedFlag(_, flag))) => {
            flag.is_present() == change.on
        }
        (Change::Flag(change) | Change::DisableWinsFlag(change), None) => !change.on,
        (Change::Max(offer), Some(RowBody::Max(_, max))) => max.0 == *offer,
        (Change::Min(offer), Some(RowBody::Min(_, min))) => min.0 == *offer,
        (Change::Register(change), Some(RowBody::Register(_, register))) => {
            let RegisterDelta { value, stamp_ms, .. } = change;
            register.stamp_ms == *stamp_ms && register.value.as_deref().and_then(decode_value) == *value
        }
        (Change::Register(change), None) => change.stamp_ms == 0 && change.value.is_none(),
        _ => false,
    }
}

/// The row of a key that is not there, or not any more.
fn write_nothing(change: &Change, out: &mut RowWriter<'_>) {
    match change {
        Change::Counter(_) => out.counter(0, 0),
        Change::Register(_) => out.register(None, 0),
        Change::Flag(_) | Change::DisableWinsFlag(_) => out.flag(false),
        Change::Max(_) | Change::Min(_) => out.number(None),
        Change::Siblings(_) => out.siblings(std::iter::empty()),
        _ => {}
    }
}

/// The entries that this very record appended, and how far the log is trimmed.
fn write_touched_events(
    collection: Option<&Collection>,
    delta: &Delta,
    change: &EventsDelta,
    touched: &Touched<'_>,
    out: &mut RowWriter<'_>,
) {
    let Some(collection) = collection else { return };
    let Some(log) = collection.events_key(delta.key.as_str()) else { return };
    out.key(delta.collection.as_str(), delta.key.as_str(), Type::Events);
    if !change.append.is_empty() {
        let before = Revision(touched.bound_at.0.saturating_sub(1));
        let mine = collection.entries_after(log, before).take_while(|(at, _)| *at == touched.bound_at);
        mine.for_each(|(_, entry)| out.event(&entry.event));
    }
    out.trimmed(collection.trimmed_upto(log));
}

fn write_touched_presence(
    collection: Option<&Collection>,
    delta: &Delta,
    change: &PresenceDelta,
    touched: &Touched<'_>,
    out: &mut RowWriter<'_>,
) {
    let Some(node) = touched.author else { return };
    let state = collection.and_then(|it| it.presence(delta.key.as_str(), node));
    let held = state.and_then(|it| it.value.as_deref());
    if held != change.value.as_ref().map(encode_value).as_deref() {
        out.key(delta.collection.as_str(), delta.key.as_str(), Type::Presence);
        out.holder(node, state.map_or(Incarnation(0), |it| it.incarnation), held);
    }
}

// ---- what a read carries ----

/// Writes the keys that match: one name, or all with a prefix that ends with `*`, in the order of their names.
pub(super) fn write_matching(
    collection: &Collection,
    pattern: &str,
    after: Option<&str>,
    bounds: ReadBounds,
    out: &mut RowWriter<'_>,
) -> Option<String> {
    let (prefix, exact) = pattern.strip_suffix('*').map_or((pattern, true), |prefix| (prefix, false));
    let keys = if exact { collection.keys().named(prefix) } else { collection.keys().with_prefix(prefix) };
    let matching = keys.into_iter().filter(|(name, ..)| after.is_none_or(|after| *name > after));
    let matching: Vec<_> = matching.collect();
    let several = matching.iter().filter(|it| has_several_rows(it.1)).map(|it| it.2);
    let live = collection.live_rows_of(several);
    let mut last: Option<&str> = None;
    for (name, kind, key) in matching {
        // All types of one name go together, so that a page ends between two names.
        if last.is_some_and(|last| last != name) && out.len() >= bounds.max_bytes {
            return last.map(str::to_owned);
        }
        let mut open = Some(key);
        out.key(collection.name.as_str(), name, kind);
        match live.get(&key) {
            Some(rows) => rows.iter().for_each(|row| write_row(collection, row, &mut open, out)),
            None if kind == Type::Events => write_events(collection, key, bounds, out),
            None => collection
                .scalar_row(key)
                .into_iter()
                .for_each(|row| write_row(collection, row, &mut open, out)),
        }
        last = Some(name);
    }
    None
}

/// Whether a key of that type has several rows that are found under no head.
fn has_several_rows(kind: Type) -> bool {
    matches!(kind, Type::Set | Type::GrowOnlySet | Type::RemoveWinsSet | Type::Presence)
}

/// Whole revisions of events, the oldest first.
fn write_events(collection: &Collection, log: KeyId, bounds: ReadBounds, out: &mut RowWriter<'_>) {
    let (mut count, mut open) = (0, None);
    let mut entries = collection.entries_after(log, bounds.events_after).peekable();
    while let Some((at, _)) = entries.peek().copied() {
        if open != Some(at) {
            // The next revision only if all of it finds room; the first one always does.
            let together = collection.entries_after(log, Revision(at.0 - 1)).take_while(|it| it.0 == at);
            let (more, bytes) = together.fold((0, 0), |(n, bytes), it| (n + 1, bytes + it.1.event.len()));
            let full = count + more > bounds.max_events || out.len() + bytes > bounds.max_bytes;
            if count > 0 && full {
                break;
            }
            open = Some(at);
        }
        if let Some((_, entry)) = entries.next() {
            out.event(&entry.event);
            count += 1;
        }
    }
    out.trimmed(collection.trimmed_upto(log));
}
