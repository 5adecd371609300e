//! Streams for long-lived readers: rows, and members.
//!
//! A stream holds nothing but a cursor. The next chunk is built when the reader has taken the one before, from the state
//! as it is then, so a slow reader makes nothing grow: it gets fewer and newer changes. One that takes nothing for too
//! long is told so and cut off; see `stream.rs`.

use std::{collections::HashSet, convert::Infallible, future::pending, time::Duration};

use dormouse_proto::{
    convert::PullRequest,
    ids::{Namespace, NodeId, Revision},
    wire::{encoded, v1},
};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::Status;

use super::{
    Service, encode,
    floors::{self, FloorNews},
    selector::Filter,
    stream::{self, Ended, Outlet},
    sync,
};
use crate::{access::Caller, clock::Clock, error::RelayError, keeper::Turn, liveness::LeaseKey, state::Fold};

/// An empty message this often renews the reader's token.
const QUIET: Duration = Duration::from_secs(15);
/// Changes are gathered for this long, so that a mass event is some messages and not thousands.
const GATHER: Duration = Duration::from_millis(50);
/// Events in one message.
const EVENTS: usize = 1_000;

/// A chunk for a stream.
struct NextChunk {
    message: encoded::WatchResponse,
    caught_up: bool,
    /// It has rows, or says that the reader starts over.
    is_news: bool,
}

impl Service {
    /// Rows, chunk after chunk, for as long as the reader takes them.
    pub(super) fn watch_rows(
        &self,
        caller: &Caller,
        namespace: Namespace,
        pull: PullRequest,
    ) -> Result<impl Stream<Item = Result<encoded::WatchResponse, Status>> + use<>, RelayError> {
        let (mut outlet, messages) = stream::open(&self.relay, self.standing(caller))?;
        let service = self.clone();
        tokio::spawn(async move {
            let Err(ended) = service.tell_rows(&namespace, pull, &mut outlet).await;
            service.end(ended, outlet);
        });
        Ok(messages)
    }

    async fn tell_rows(
        &self,
        namespace: &Namespace,
        mut pull: PullRequest,
        outlet: &mut Outlet<encoded::WatchResponse>,
    ) -> Result<Infallible, Ended> {
        let mut revisions = self.relay.sequencer.revisions();
        let mut told: Option<Instant> = None;
        loop {
            revisions.mark_unchanged();
            let next = self.next_chunk(namespace, &mut pull)?;
            // What changed elsewhere is no news here; the quiet time has its message.
            if next.is_news || told.is_none_or(|at| at.elapsed() >= QUIET) {
                outlet.deliver(next.message).await?;
                told = Some(Instant::now());
            }
            if next.caught_up {
                wait(&mut revisions, outlet).await?;
            }
        }
    }

    /// Says why, if there is somebody to be told.
    fn end<T>(&self, ended: Ended, outlet: Outlet<T>) {
        if let Ended::Refused(error) = ended {
            outlet.end(self.refused(error).into());
        }
    }

    fn next_chunk(&self, namespace: &Namespace, pull: &mut PullRequest) -> Result<NextChunk, RelayError> {
        let chunk = {
            let sequencer = &self.relay.sequencer;
            let applied = sequencer.read();
            let reader = sync::Reader { namespace, node: None, head: Revision::ZERO };
            sync::chunk(&applied.fold, sequencer.log_fingerprint(), &reader, pull, true)?
        };
        pull.token = chunk.token.encode();
        let (caught_up, is_news) = (chunk.caught_up, chunk.rows > 0 || chunk.restart.is_some());
        self.relay.metrics.pulled(chunk.rows, chunk.keys.len());
        let conditions = self.conditions();
        let message = encoded::WatchResponse { chunk: Some(encode::chunk(chunk)), conditions };
        Ok(NextChunk { message, caught_up, is_news })
    }

    /// Changes of membership.
    pub(super) fn watch_events(
        &self,
        caller: &Caller,
        watcher: Watcher,
        activity: bool,
    ) -> Result<impl Stream<Item = Result<v1::WatchMembersResponse, Status>> + use<>, RelayError> {
        let (mut outlet, messages) = stream::open(&self.relay, self.standing(caller))?;
        let turns = activity.then(|| self.relay.keeper.turns());
        let service = self.clone();
        tokio::spawn(async move {
            let Err(ended) = service.tell_events(watcher, turns, &mut outlet).await;
            service.end(ended, outlet);
        });
        Ok(messages)
    }

    async fn tell_events(
        &self,
        mut watcher: Watcher,
        mut turns: Option<broadcast::Receiver<Turn>>,
        outlet: &mut Outlet<v1::WatchMembersResponse>,
    ) -> Result<Infallible, Ended> {
        let mut revisions = self.relay.sequencer.revisions();
        // Marked before the state is read, so that what changes meanwhile is not missed.
        revisions.mark_unchanged();
        let mut weakened = self.relay.keeper.weakened();
        let (mut floors, below) = FloorNews::begin(&self.relay.floors, &watcher.namespace);
        let mut messages = watcher.begin(self);
        floors::add(below, &mut messages);
        let mut told = Instant::now();
        loop {
            for message in messages {
                outlet.deliver(message).await?;
                told = Instant::now();
            }
            let News { turned, crossed, weakened } =
                next_event(&mut revisions, &mut turns, &mut floors, &mut weakened, outlet).await?;
            revisions.mark_unchanged();
            messages = watcher.next(self, &turned);
            floors::add(crossed, &mut messages);
            let is_empty =
                |it: &v1::WatchMembersResponse| it.events.is_empty() && it.floors.is_empty() && !it.restart;
            // What changed elsewhere is no news here; the quiet time has its message.
            if messages.iter().all(is_empty) && !weakened && told.elapsed() < QUIET {
                messages.clear();
            }
        }
    }
}

/// Waits for something new or for the quiet time to pass.
async fn wait<T>(revisions: &mut watch::Receiver<Revision>, outlet: &mut Outlet<T>) -> Result<(), Ended> {
    tokio::select! {
        changed = revisions.changed() => {
            tokio::time::sleep(GATHER).await;
            changed.map_err(|_| Ended::Silently)
        }
        () = tokio::time::sleep(QUIET) => Ok(()),
        ended = outlet.ended() => Err(ended),
    }
}

/// What a watcher of members hears of beside the log.
#[derive(Default)]
struct News {
    turned: Vec<Turn>,
    crossed: Vec<v1::FloorEvent>,
    /// The conditions have changed.
    weakened: bool,
}

async fn next_event<T>(
    revisions: &mut watch::Receiver<Revision>,
    turns: &mut Option<broadcast::Receiver<Turn>>,
    floors: &mut FloorNews,
    weakened: &mut watch::Receiver<u64>,
    outlet: &mut Outlet<T>,
) -> Result<News, Ended> {
    let mut news = News::default();
    tokio::select! {
        waited = wait(revisions, outlet) => waited?,
        turn = next_turn(turns) => {
            news.turned.extend(turn);
            tokio::time::sleep(GATHER).await;
        }
        crossed = floors.next() => news.crossed = crossed,
        changed = weakened.changed() => {
            changed.map_err(|_| Ended::Silently)?;
            news.weakened = true;
        }
    }
    while news.turned.len() < EVENTS
        && let Some(Ok(turn)) = turns.as_mut().map(broadcast::Receiver::try_recv)
    {
        news.turned.push(turn);
    }
    Ok(news)
}

/// `None`: some were missed.
async fn next_turn(turns: &mut Option<broadcast::Receiver<Turn>>) -> Option<Turn> {
    match turns {
        Some(turns) => turns.recv().await.ok(),
        None => pending().await,
    }
}

/// One reader of membership.
pub(super) struct Watcher {
    pub(super) namespace: Namespace,
    pub(super) filter: Filter,
    /// Everything up to here was told.
    pub(super) after: Option<Revision>,
}

impl Watcher {
    /// What the reader lacks at first: everybody, or what changed since it last read.
    fn begin(&mut self, service: &Service) -> Vec<v1::WatchMembersResponse> {
        let applied = service.relay.sequencer.read();
        let fold = &applied.fold;
        let revision = fold.revision();
        let known = self.after.filter(|after| *after <= revision && fold.is_valid(*after));
        let resumed = known.and_then(|after| self.changed_since(service, fold, after));
        let restart = self.after.is_some() && resumed.is_none();
        let events = resumed.unwrap_or_else(|| self.everybody(service, fold));
        self.after = Some(revision);
        drop(applied);
        let mut messages = split(events, revision, service);
        if let Some(first) = messages.first_mut() {
            first.restart = restart;
        }
        if let Some(last) = messages.last_mut() {
            last.caught_up = true;
        }
        messages
    }

    /// What has changed meanwhile; one empty message if nothing has.
    fn next(&mut self, service: &Service, turned: &[Turn]) -> Vec<v1::WatchMembersResponse> {
        let after = self.after.unwrap_or_default();
        let applied = service.relay.sequencer.read();
        let fold = &applied.fold;
        let Some(mut events) = self.changed_since(service, fold, after) else {
            drop(applied);
            return self.begin(service);
        };
        events.extend(self.activity(service, fold, turned));
        let revision = fold.revision();
        self.after = Some(revision);
        drop(applied);
        split(events, revision, service)
    }

    fn everybody(&self, service: &Service, fold: &Fold) -> Vec<v1::MemberEvent> {
        let Some(view) = fold.namespace(&self.namespace) else { return Vec::new() };
        let nodes =
            view.members().keys().filter_map(|node| service.member(fold, &self.namespace, *node, true));
        nodes
            .filter(|member| encode::matches(&self.filter, member))
            .map(|member| event(v1::member_event::Kind::Joined, member))
            .collect()
    }

    /// Each member that changed, once, as it is now; `None`: some changes have been dropped.
    fn changed_since(&self, service: &Service, fold: &Fold, after: Revision) -> Option<Vec<v1::MemberEvent>> {
        let Some(view) = fold.namespace(&self.namespace) else { return Some(Vec::new()) };
        let mut events = Vec::new();
        for (revision, entry) in view.roster_after(after)? {
            let kind = match (entry.gone, entry.incarnation.0) {
                (Some(_), _) => v1::member_event::Kind::Ended,
                (None, 1) => v1::member_event::Kind::Joined,
                (None, _) => v1::member_event::Kind::Changed,
            };
            let member = match entry.gone {
                Some(_) => Some(encode::ended_member(revision.0, entry)),
                None => service.member(fold, &self.namespace, entry.node, true),
            };
            // An end is told to whoever watches the group: its state is GONE, which no filter by state would show.
            let matches = |member: &v1::Member| {
                if entry.gone.is_some() {
                    encode::concerns(&self.filter, member)
                } else {
                    encode::matches(&self.filter, member)
                }
            };
            events.extend(member.filter(matches).map(|member| event(kind, member)));
        }
        Some(events)
    }

    fn activity(&self, service: &Service, fold: &Fold, turned: &[Turn]) -> Vec<v1::MemberEvent> {
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
                        .map(|it| event(v1::member_event::Kind::Activity, it)),
                );
            }
        }
        events
    }
}

fn event(kind: v1::member_event::Kind, member: v1::Member) -> v1::MemberEvent {
    v1::MemberEvent { kind: kind as i32, member: Some(member) }
}

fn split(
    mut events: Vec<v1::MemberEvent>,
    revision: Revision,
    service: &Service,
) -> Vec<v1::WatchMembersResponse> {
    let conditions = service.conditions();
    let mut messages = Vec::new();
    loop {
        let rest = events.split_off(events.len().min(EVENTS));
        let whole = rest.is_empty();
        // A reader that stops in the middle resumes from before it.
        let revision = if whole { revision.0 } else { 0 };
        messages.push(v1::WatchMembersResponse {
            events,
            revision,
            conditions: conditions.clone(),
            ..Default::default()
        });
        if whole {
            return messages;
        }
        events = rest;
    }
}

impl Service {
    /// A live member as it is now.
    pub(super) fn member(
        &self,
        fold: &Fold,
        namespace: &Namespace,
        node: NodeId,
        full: bool,
    ) -> Option<v1::Member> {
        let view = fold.namespace(namespace)?;
        let member = view.member(node)?;
        let (_, entry) = view.roster_entry(node)?;
        let lease = self.relay.keeper.view(LeaseKey { namespace: view.number(), node });
        let mut message = encode::live_member(entry, member, lease.as_ref(), Clock::wall_ms(), full);
        if full {
            message.behind = fold.records_after(lease.map_or(Revision::ZERO, |it| it.head));
            message.inbox_waiting = u32::try_from(view.inbox_waiting(node)).unwrap_or(u32::MAX);
        }
        Some(message)
    }
}
