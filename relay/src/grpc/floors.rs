//! Floors, as a watcher of members is told of them.

use std::{future::pending, sync::Arc};

use dormouse_proto::{
    ids::Namespace,
    wire::{encoded::WatchMembersResponse, v1},
};
use tokio::sync::broadcast::{
    Receiver,
    error::{RecvError, TryRecvError},
};

use crate::{
    floors::{Crossed, Floors},
    liveness::FloorEvent,
};

/// Events in one message.
const EVENTS: usize = 1_000;

/// What one watcher hears of the floors of its namespace.
pub(super) struct FloorNews {
    floors: Arc<Floors>,
    namespace: Namespace,
    events: Receiver<Crossed>,
}

impl FloorNews {
    /// From here on; and what is below already.
    pub(super) fn begin(floors: &Arc<Floors>, namespace: &Namespace) -> (Self, Vec<v1::FloorEvent>) {
        let (below, events) = floors.subscribe(namespace);
        let news = Self { floors: Arc::clone(floors), namespace: namespace.clone(), events };
        (news, below.into_iter().map(event).collect())
    }

    /// Waits for the next events. Nothing is lost if nobody waits for it to come to its end.
    pub(super) async fn next(&mut self) -> Vec<v1::FloorEvent> {
        loop {
            let mut told = match self.events.recv().await {
                Ok(crossed) => self.own(crossed).into_iter().collect(),
                Err(RecvError::Lagged(_)) => self.catch_up(),
                Err(RecvError::Closed) => pending().await,
            };
            self.what_waits(&mut told);
            if !told.is_empty() {
                return told;
            }
        }
    }

    /// What has happened at the same time belongs into the same message.
    fn what_waits(&mut self, told: &mut Vec<v1::FloorEvent>) {
        while told.len() < EVENTS {
            match self.events.try_recv() {
                Ok(crossed) => told.extend(self.own(crossed)),
                Err(TryRecvError::Lagged(_)) => *told = self.catch_up(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    /// Some events were missed: what they have led to stands in for them.
    fn catch_up(&mut self) -> Vec<v1::FloorEvent> {
        let (standing, events) = self.floors.subscribe_again(&self.namespace);
        self.events = events;
        standing.into_iter().map(event).collect()
    }

    fn own(&self, crossed: Crossed) -> Option<v1::FloorEvent> {
        (crossed.namespace == self.namespace).then(|| event(crossed.event))
    }
}

fn event(event: FloorEvent) -> v1::FloorEvent {
    let FloorEvent { floor, value, live, minimum, below } = event;
    v1::FloorEvent { floor: floor.to_string(), value: value.to_string(), live, minimum, below }
}

/// Has the messages tell of floors too. What does not fit into the first one follows behind the last.
pub(super) fn add(floors: Vec<v1::FloorEvent>, messages: &mut Vec<WatchMembersResponse>) {
    let mut parts = floors.chunks(EVENTS).map(<[_]>::to_vec);
    let (Some(message), Some(part)) = (messages.first_mut(), parts.next()) else {
        return;
    };
    message.rest.floors = part;
    let Some(last) = messages.last().map(|it| &it.rest) else { return };
    let (revision, conditions) = (last.revision, last.conditions.clone());
    messages.extend(parts.map(|floors| {
        let conditions = conditions.clone();
        v1::WatchMembersResponse { floors, revision, conditions, ..Default::default() }.into()
    }));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        config::FloorSettings,
        liveness::{Millis, Timestamp},
    };

    const VALUES: usize = 1_000;

    fn floors() -> Arc<Floors> {
        let settings = FloorSettings {
            by: Some("zone".to_owned()),
            minimum: 1,
            settle: Millis(0),
            ..FloorSettings::default()
        };
        Floors::new(&[("workers".to_owned(), settings)].into())
    }

    fn look(floors: &Floors, live: impl Fn(usize) -> u64) {
        let counts: BTreeMap<String, u64> = (0..VALUES).map(|nth| (format!("{nth:04}"), live(nth))).collect();
        floors.look(0, Timestamp(0), None, &counts);
    }

    #[tokio::test]
    async fn a_watcher_hears_each_event_once_and_what_is_below_at_first() {
        let (floors, here) = (floors(), Namespace::default());
        look(&floors, |nth| u64::from(nth != 3));
        let (mut news, below) = FloorNews::begin(&floors, &here);
        assert_eq!(below.iter().map(|it| it.value.as_str()).collect::<Vec<_>>(), ["0003"]);
        look(&floors, |nth| u64::from(nth != 4));
        let told: Vec<_> = news.next().await.into_iter().map(|it| (it.value, it.below)).collect();
        assert_eq!(told, [("0003".to_owned(), false), ("0004".to_owned(), true)]);
        let elsewhere = "elsewhere".parse().expect("a name");
        assert_eq!(FloorNews::begin(&floors, &elsewhere).1, []);
    }

    #[tokio::test]
    async fn a_watcher_that_missed_events_hears_what_they_have_led_to() {
        let floors = floors();
        let (mut news, below) = FloorNews::begin(&floors, &Namespace::default());
        assert_eq!(below, []);
        look(&floors, |_| 0);
        look(&floors, |_| 1);
        look(&floors, |nth| u64::from(nth == 5));
        let told = news.next().await;
        assert_eq!(told.len(), VALUES, "each value once");
        assert!(told.iter().all(|it| it.below == (it.value != "0005")));
        look(&floors, |_| 1);
        assert_eq!(news.next().await.iter().filter(|it| !it.below).count(), VALUES - 1);
    }

    #[test]
    fn events_that_are_too_many_for_one_message_follow_behind() {
        let message = |revision, caught_up| {
            WatchMembersResponse::from(v1::WatchMembersResponse { revision, caught_up, ..Default::default() })
        };
        let mut messages = vec![message(0, false), message(8, true)];
        add(vec![v1::FloorEvent::default(); 2 * EVENTS + 1], &mut messages);
        let told: Vec<_> = messages.iter().map(|it| (it.rest.floors.len(), it.rest.revision)).collect();
        assert_eq!(told, [(EVENTS, 0), (0, 8), (EVENTS, 8), (1, 8)]);
    }
}
