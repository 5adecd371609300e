//! Streams for long-lived readers: rows, and members.
//!
//! A stream holds nothing but a cursor. The next chunk is built when the reader has taken the one before, from the state
//! as it is then, so a slow reader makes nothing grow: it gets fewer and newer changes. One that takes nothing for too
//! long is told so and cut off; see `stream.rs`.

mod watcher;

use std::{convert::Infallible, future::pending, time::Duration};

use dormouse_proto::{
    convert::PullRequest,
    ids::{Namespace, NodeId, Revision},
    wire::{
        encoded::{self, WatchMembersResponse},
        v1,
    },
};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::Status;

use super::{
    Service,
    encode::{self, Life},
    floors::{self, FloorNews},
    stream::{self, Ended, Outlet},
    sync,
};
use crate::{
    access::Caller,
    clock::Clock,
    error::RelayError,
    keeper::Turn,
    liveness::LeaseKey,
    state::{Fold, RosterEntry},
};

pub(super) use watcher::Watcher;

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
    ) -> Result<impl Stream<Item = Result<WatchMembersResponse, Status>> + use<>, RelayError> {
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
        outlet: &mut Outlet<WatchMembersResponse>,
    ) -> Result<Infallible, Ended> {
        let mut revisions = self.relay.sequencer.revisions();
        let mut weakened = self.relay.keeper.weakened();
        let (mut floors, below) = FloorNews::begin(&self.relay.floors, watcher.namespace());
        let mut news = News { crossed: below, ..News::default() };
        let mut told = Instant::now();
        loop {
            // Taken before anything is read, so that what changes meanwhile is not missed.
            let head = *revisions.borrow_and_update();
            let (message, is_all) = watcher.next(self, head);
            let own = Self::of_this_reader(&message, watcher.activity(self, &news.turned));
            let mut messages: Vec<_> = std::iter::once(message).chain(own).collect();
            floors::add(news.crossed, &mut messages);
            // What changed elsewhere is no news here; the quiet time has its message.
            if news.is_due || told.elapsed() >= QUIET || !messages.iter().all(is_empty) {
                for message in messages {
                    outlet.deliver(message).await?;
                }
                told = Instant::now();
            }
            news = if is_all {
                next_event(&mut revisions, &mut turns, &mut floors, &mut weakened, outlet).await?
            } else {
                // A reader that is behind is one of many: the others, and the calls, come in between.
                tokio::task::yield_now().await;
                News::default()
            };
        }
    }

    /// A message behind another one, with events that no other reader is told of; `None`: there are none.
    fn of_this_reader(
        before: &WatchMembersResponse,
        events: Vec<v1::MemberEvent>,
    ) -> Option<WatchMembersResponse> {
        let v1::WatchMembersResponse { revision, conditions, .. } = &before.rest;
        let (revision, conditions) = (*revision, conditions.clone());
        let message = v1::WatchMembersResponse { events, revision, conditions, ..Default::default() };
        (!message.events.is_empty()).then(|| message.into())
    }
}

/// It tells of nobody and of no floor, and neither begins nor ends anything.
fn is_empty(message: &WatchMembersResponse) -> bool {
    let v1::WatchMembersResponse { events, floors, restart, caught_up, .. } = &message.rest;
    message.encoded.is_empty() && events.is_empty() && floors.is_empty() && !restart && !caught_up
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
    /// The conditions have changed, so a message is due even if it tells of nothing else.
    is_due: bool,
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
            news.is_due = true;
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
        let life = Life::of(member, view.inbox_waiting(node));
        Some(self.live(fold, view.number(), (member.revision, entry, &life), full))
    }

    /// A member by the revision of its row, the row and its life, with its lease as it is now.
    fn live(
        &self,
        fold: &Fold,
        namespace: u32,
        (at, entry, life): (Revision, &RosterEntry, &Life),
        full: bool,
    ) -> v1::Member {
        let lease = self.relay.keeper.view(LeaseKey { namespace, node: entry.node });
        let mut message = encode::live_member((at, entry, life), lease.as_ref(), Clock::wall_ms(), full);
        if full {
            message.behind = fold.records_after(lease.map_or(Revision::ZERO, |it| it.head));
        }
        message
    }
}
