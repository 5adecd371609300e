//! What a node knows between its calls, beside the rows.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use dormouse_proto::{convert::bounds, wire::v1};

use crate::{
    awake::Deadline,
    connection::Moment,
    convert::{Absorbed, absorb},
    error::Reason,
    inbox::Inbox,
    outcome::{Durability, Freshness},
    replica::{Replica, message::Report},
};

/// What a call says of the node's life.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    Awake,
    /// The invocation of that number ends; the others go on.
    Asleep(u64),
    Leaving(String),
}

/// What is known of the view.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// When it was last asked for and turned out to be complete.
    pub(crate) complete: Option<Moment>,
    pub(crate) rows_left: Option<u64>,
    pub(crate) failed: Option<Reason>,
}

/// How many bytes a pull asks for: as many as have lately arrived within the budget, and some more.
///
/// A chunk that does not arrive in time is no progress at all, and a wake that asks for the same again makes none
/// either. So every timeout halves the size and every chunk doubles it; a call whose first transmission has used up
/// half of its time asks for the least with the second one, so that this wake, too, gets somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkSize(u32);

impl ChunkSize {
    /// What a new node asks for, and the most that it does.
    const MOST: Self = Self(bounds::CHUNK_DEFAULT);
    pub(crate) const LEAST: Self = Self(bounds::CHUNK_MIN);

    pub(crate) const fn bytes(self) -> u32 {
        self.0
    }

    /// Nothing arrived in time.
    pub(crate) fn timed_out(&mut self) {
        self.0 = (self.0 / 2).max(Self::LEAST.0);
    }

    /// A chunk arrived.
    pub(crate) fn arrived(&mut self) {
        self.0 = self.0.saturating_mul(2).min(Self::MOST.0);
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) replica: Replica,
    /// Drawn at the first wake.
    pub(crate) boot_id: Option<[u8; 16]>,
    pub(crate) beat: u64,
    pub(crate) send_tags: bool,
    pub(crate) chunk_size: ChunkSize,
    pub(crate) view: View,
    pub(crate) counts: Option<v1::MemberCounts>,
    pub(crate) inbox: Inbox,
    /// Running invocations and when they end.
    awake: BTreeMap<u64, Deadline>,
    entered: u64,
    /// The newest call has said that the node sleeps afterwards.
    pub(crate) announced_sleep: bool,
    /// Writes that were taken so far, ...
    pub(crate) said: u64,
    /// ... up to which the push under way speaks for them, ...
    pub(crate) sealed_upto: u64,
    /// ... and up to which their fate is known.
    pub(crate) saved_upto: u64,
    pub(crate) last_ack: Option<(u64, Durability)>,
    reports: VecDeque<Report>,
    pub(crate) reported: u64,
}

/// A program that never asks for its reports keeps the newest of them.
const REPORTS_MAX: usize = 1_024;

impl State {
    pub(crate) fn new(replica: Replica) -> Self {
        Self {
            replica,
            boot_id: None,
            beat: 0,
            send_tags: true,
            chunk_size: ChunkSize::MOST,
            view: View::default(),
            counts: None,
            inbox: Inbox::default(),
            awake: BTreeMap::new(),
            entered: 0,
            announced_sleep: false,
            said: 0,
            sealed_upto: 0,
            saved_upto: 0,
            last_ack: None,
            reports: VecDeque::new(),
            reported: 0,
        }
    }

    pub(crate) fn enter(&mut self, deadline: Deadline) -> u64 {
        self.entered += 1;
        self.awake.insert(self.entered, deadline);
        self.inbox.forget_before(self.awake.keys().next().copied().unwrap_or(self.entered));
        self.entered
    }

    pub(crate) fn exit(&mut self, number: u64) {
        self.awake.remove(&number);
    }

    /// Whether other invocations than that one are running.
    pub(crate) fn has_others(&self, number: u64) -> bool {
        self.awake.keys().any(|other| *other != number)
    }

    pub(crate) fn take_reports(&mut self) -> Vec<Report> {
        self.reports.drain(..).collect()
    }

    /// The time until the last running invocation ends; 0: unknown.
    fn remaining_ms(&self, except: Option<u64>) -> u32 {
        let running = self.awake.iter().filter(|(number, _)| Some(**number) != except);
        let left: Option<Vec<Duration>> = running.map(|(_, deadline)| deadline.left()).collect();
        let longest = left.into_iter().flatten().max().unwrap_or_default();
        u32::try_from(longest.as_millis()).unwrap_or(u32::MAX)
    }

    pub(crate) fn next(&mut self, says: &Says, quiet: bool) -> v1::sync_request::Next {
        use v1::sync_request::Next;
        let (next, sleeps) = match says {
            Says::Leaving(reason) => (Next::Leaving(v1::Leaving { reason: reason.clone() }), true),
            Says::Asleep(number) if !self.has_others(*number) => {
                (Next::Asleep(v1::Asleep { expected_ms: 0 }), true)
            }
            Says::Awake | Says::Asleep(_) => {
                let except = if let Says::Asleep(number) = says { Some(*number) } else { None };
                let then_asleep = quiet && self.awake.len() == 1;
                let remaining_ms = self.remaining_ms(except);
                (Next::Awake(v1::Awake { remaining_ms, then_asleep }), then_asleep)
            }
        };
        self.announced_sleep = sleeps;
        next
    }

    pub(crate) fn absorb(&mut self, answer: v1::SyncResponse, says: &Says, asked_at: Moment) -> Absorbed {
        let mut absorbed = absorb(&mut self.replica, answer);
        self.send_tags = absorbed.send_tags;
        if let Some((revision, durability)) = absorbed.acked {
            self.last_ack = Some((revision.0, Durability::from_wire(durability)));
            self.saved_upto = self.saved_upto.max(self.sealed_upto);
        }
        if self.replica.pending().deltas == 0 {
            self.saved_upto = self.said;
        }
        let reports = self.replica.take_reports();
        self.reported += reports.len() as u64;
        self.reports.extend(reports);
        let surplus = self.reports.len().saturating_sub(REPORTS_MAX);
        self.reports.drain(..surplus);
        self.counts = absorbed.members.take().or(self.counts.take());
        self.take_in_messages(says);
        if absorbed.progress.is_some() && matches!(says, Says::Awake) {
            self.chunk_size.arrived();
        }
        self.view.absorb(&absorbed, asked_at);
        absorbed
    }

    /// What arrives with the call in which the last invocation falls asleep can only be seen by the next one.
    fn take_in_messages(&mut self, says: &Says) {
        let is_late = matches!(says, Says::Asleep(number) if !self.has_others(*number));
        let until = if is_late { self.entered + 1 } else { self.entered };
        self.inbox.put(self.replica.take_inbox(), until);
    }
}

impl View {
    fn absorb(&mut self, absorbed: &Absorbed, asked_at: Moment) {
        self.failed = absorbed.pull_refused.as_ref().map(refused);
        self.rows_left = None;
        match absorbed.progress {
            Some(progress) if progress.caught_up => self.complete = Some(asked_at),
            Some(progress) => self.rows_left = Some(progress.rows_left),
            None => {}
        }
    }

    pub(crate) fn freshness(&self) -> Freshness {
        let reason = || self.failed.clone().unwrap_or(Reason::NoAnswerYet);
        match (&self.failed, self.rows_left, self.complete) {
            (None, Some(rows_left), _) => Freshness::CatchingUp { rows_left },
            (None, None, Some(_)) => Freshness::Current,
            (Some(_), _, Some(at)) => Freshness::Stale { age: at.elapsed(), reason: reason() },
            (_, _, None) => Freshness::Never { reason: reason() },
        }
    }
}

pub(crate) fn refused(refusal: &v1::Refusal) -> Reason {
    Reason::Refused { word: refusal.reason.clone(), message: refusal.message.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_whose_pulls_time_out_comes_down_to_the_least_and_stays_there() {
        let mut size = ChunkSize::MOST;
        for half in [512, 256, 128, 64, 32, 16, 16] {
            size.timed_out();
            assert_eq!(size.bytes(), half << 10);
        }
    }

    #[test]
    fn a_node_whose_chunks_arrive_comes_back_to_the_default_and_no_further() {
        let mut size = ChunkSize::LEAST;
        for twice in [32, 64, 128, 256, 512, 1_024, 1_024] {
            size.arrived();
            assert_eq!(size.bytes(), twice << 10);
        }
    }
}
