//! One reader of membership: what it lacks at first, and what changes from there on.
//!
//! What it lacks is listed under the state's lock in one moment and encoded stretch by stretch, as the reader takes it.
//! Changes are read from the chronicle, which has each of them encoded for all readers alike.
//!
//! Invariants: whoever is told of everybody, or of what has changed since a revision, is told as of one revision and of
//! each later change after it; the state is never locked for longer than one list, or the encoding of one stretch.

use std::{collections::HashSet, vec};

use bytes::Bytes;
use dormouse_proto::{
    ids::{Namespace, NodeId, Revision},
    wire::{
        encoded::{self, WatchMembersResponse},
        v1::{self, member::State, member_event::Kind},
    },
};

use super::{EVENTS, Service};
use crate::{
    chronicle::{Followed, Next, Page},
    grpc::{encode, selector::Filter},
    keeper::Turn,
    state::{Member, RosterEntry, View},
};

/// One reader of membership.
pub(in crate::grpc) struct Watcher {
    namespace: Namespace,
    filter: Filter,
    /// Everything up to here was told, or stands in what it lacks.
    after: Option<Revision>,
    /// Where changes are read; set when it is first told something.
    followed: Option<Followed>,
    lacks: Lacks,
}

/// What is still to be told as of one revision.
#[derive(Default)]
struct Lacks {
    rows: vec::IntoIter<(Revision, RosterEntry, Option<encode::Life>)>,
    /// All of them are members that the reader has never heard of.
    is_everybody: bool,
    /// The reader must forget whom it knew; not said yet.
    restart: bool,
    /// The last of it was told.
    is_told: bool,
}

impl Watcher {
    /// A reader that knows nothing, or what was there at the revision `after`.
    pub(in crate::grpc) fn new(namespace: Namespace, filter: Filter, after: Option<Revision>) -> Self {
        let lacks = Lacks { is_told: true, ..Lacks::default() };
        Self { namespace, filter, after, followed: None, lacks }
    }

    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The next message, and whether it tells all that there is. `head`: a revision that was applied. One that says
    /// nothing new is empty.
    pub(super) fn next(&mut self, service: &Service, head: Revision) -> (WatchMembersResponse, bool) {
        if self.lacks.is_told
            && let Some(told) = self.changes(service, head)
        {
            return told;
        }
        if self.lacks.is_told {
            self.list(service);
        }
        let message = self.stretch(service);
        (message.into(), false)
    }

    /// Lists what the reader lacks: everybody, or what changed since it last read. From there on it is told of changes.
    fn list(&mut self, service: &Service) {
        let applied = service.relay.sequencer.read();
        let fold = &applied.fold;
        self.followed = Some(service.relay.chronicle.follow(fold, &self.namespace));
        let known = self.after.filter(|after| *after <= fold.revision() && fold.is_valid(*after));
        let view = fold.namespace(&self.namespace);
        let rows = |view: View<'_>, after| {
            let rows = view.roster_after(after)?.map(|(at, entry)| (at, entry.clone(), life(&view, entry)));
            Some(rows.collect::<Vec<_>>())
        };
        let resumed = known.and_then(|after| view.map_or(Some(Vec::new()), |view| rows(view, after)));
        let (restart, is_everybody) = (self.after.is_some() && resumed.is_none(), resumed.is_none());
        let everybody = || view.map_or(Vec::new(), everybody);
        let rows = resumed.unwrap_or_else(everybody).into_iter();
        self.lacks = Lacks { rows, is_everybody, restart, is_told: false };
        self.after = Some(fold.revision());
    }

    /// Tells a stretch of what the reader lacks. One that stops in the middle resumes from before all of it.
    fn stretch(&mut self, service: &Service) -> v1::WatchMembersResponse {
        let mut events = Vec::new();
        {
            let applied = service.relay.sequencer.read();
            let number = applied.fold.namespace(&self.namespace).map(|view| view.number());
            for (at, entry, life) in self.lacks.rows.by_ref().take(EVENTS) {
                let member = match (life, number) {
                    (Some(life), Some(namespace)) => {
                        service.live(&applied.fold, namespace, (at, &entry, &life), true)
                    }
                    _ => encode::ended_member(at.0, &entry),
                };
                let kind = if self.lacks.is_everybody { Kind::Joined } else { kind(&entry) };
                if is_told_of(&self.filter, &member) {
                    events.push(event(kind, member));
                }
            }
        }
        self.lacks.is_told = self.lacks.rows.len() == 0;
        if self.lacks.is_told {
            // The room that a long list took is given back, too.
            self.lacks.rows = Vec::new().into_iter();
        }
        v1::WatchMembersResponse {
            events,
            revision: self.after.filter(|_| self.lacks.is_told).unwrap_or_default().0,
            restart: std::mem::take(&mut self.lacks.restart),
            caught_up: self.lacks.is_told,
            conditions: service.conditions(),
            ..Default::default()
        }
    }

    /// What has changed meanwhile, as much as one message holds; `None`: it was told nothing yet, or is too far behind.
    fn changes(&mut self, service: &Service, head: Revision) -> Option<(WatchMembersResponse, bool)> {
        let (Some(followed), Some(mut after)) = (&self.followed, self.after) else { return None };
        let (mut pieces, mut looked_at, mut is_all) = (Vec::new(), 0, false);
        while looked_at < EVENTS {
            match followed.next(after).ok()? {
                Next::Page(page) if looked_at > 0 && looked_at + page.len() > EVENTS => break,
                Next::Page(page) => {
                    pick(&self.filter, &page, after, &mut pieces);
                    (looked_at, after) = (looked_at + page.len().max(1), page.upto());
                }
                Next::Unwritten => write(service, followed, &self.namespace),
                Next::Nothing => {
                    // The head was read before: whatever changed up to it has been told.
                    after = after.max(head);
                    is_all = true;
                    break;
                }
            }
        }
        self.after = Some(after);
        let conditions = service.conditions();
        let rest = v1::WatchMembersResponse { revision: after.0, conditions, ..Default::default() };
        Some((WatchMembersResponse { encoded: pieces, rest }, is_all))
    }

    /// Members that turned AWAKE, ASLEEP or SUSPECT, each once.
    pub(super) fn activity(&self, service: &Service, turned: &[Turn]) -> Vec<v1::MemberEvent> {
        if turned.is_empty() {
            return Vec::new();
        }
        let applied = service.relay.sequencer.read();
        let fold = &applied.fold;
        let number = fold.namespace(&self.namespace).map(|view| view.number());
        let mut told: HashSet<NodeId> = HashSet::new();
        let mut events = Vec::new();
        // The newest turn of each is what it is now, so each is told once.
        for turn in turned.iter().rev().filter(|turn| Some(turn.namespace) == number) {
            if told.insert(turn.node) {
                let member = service.member(fold, &self.namespace, turn.node, true);
                events.extend(
                    member
                        .filter(|it| encode::concerns(&self.filter, it))
                        .map(|it| event(Kind::Activity, it)),
                );
            }
        }
        events
    }
}

/// An end is told to whoever watches the group: its state is GONE, which no filter by state would show.
fn is_told_of(filter: &Filter, member: &v1::Member) -> bool {
    if member.state() == State::Gone {
        encode::concerns(filter, member)
    } else {
        encode::matches(filter, member)
    }
}

fn life(view: &View<'_>, entry: &RosterEntry) -> Option<encode::Life> {
    let member = view.member(entry.node).filter(|_| entry.gone.is_none())?;
    Some(encode::Life::of(member, view.inbox_waiting(entry.node)))
}

fn everybody(view: View<'_>) -> Vec<(Revision, RosterEntry, Option<encode::Life>)> {
    let known = |(node, member): (&NodeId, &Member)| {
        let (at, entry) = view.roster_entry(*node)?;
        Some((at, entry.clone(), Some(encode::Life::of(member, view.inbox_waiting(*node)))))
    };
    view.members().iter().filter_map(known).collect()
}

fn kind(entry: &RosterEntry) -> Kind {
    match (entry.gone, entry.incarnation.0) {
        (Some(_), _) => Kind::Ended,
        (None, 1) => Kind::Joined,
        (None, _) => Kind::Changed,
    }
}

/// Takes from a page what the filter lets through.
fn pick(filter: &Filter, page: &Page, after: Revision, pieces: &mut Vec<Bytes>) {
    if filter.is_everybody()
        && let Some(all) = page.whole(after)
    {
        pieces.extend((!all.is_empty()).then_some(all));
        return;
    }
    // As in `is_told_of`.
    pieces.extend(page.pick(after, |told| {
        let lives = told.live.is_none_or(|(state, p_alive)| filter.lives(state, p_alive));
        lives && filter.concerns(told.group.as_str(), &told.tags)
    }));
}

/// Each member that changed, once, as it is now: the first reader writes it for all.
fn write(service: &Service, followed: &Followed, namespace: &Namespace) {
    let applied = service.relay.sequencer.read();
    let fold = &applied.fold;
    let view = fold.namespace(namespace);
    service.relay.chronicle.write(followed, |at, entry, into| {
        let newest = view.and_then(|view| view.roster_entry(entry.node)).map(|(newest, _)| newest);
        let member = match entry.gone {
            // Its row may have been dropped already.
            Some(_) => newest.is_none_or(|newest| newest == at).then(|| encode::ended_member(at.0, entry)),
            None => service.member(fold, namespace, entry.node, true).filter(|_| newest == Some(at)),
        };
        let member = member?;
        let live = entry.gone.is_none().then(|| (member.state(), member.p_alive));
        encoded::event(&event(kind(entry), member), into);
        Some(live)
    });
}

fn event(kind: Kind, member: v1::Member) -> v1::MemberEvent {
    v1::MemberEvent { kind: kind as i32, member: Some(member) }
}
