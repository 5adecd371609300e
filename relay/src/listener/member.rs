//! One connection as those see it who take care of it: the one that accepted it, the one that serves it, its calls.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::conduct::{Conduct, Ended, Millis, Patience, Rank, Verdict, Why};

/// Shared; each method takes the connection's own lock for a moment.
#[derive(Debug)]
pub(crate) struct Member {
    number: u64,
    address: IpAddr,
    conduct: Mutex<Conduct>,
    /// Something has happened that may end it.
    look: Notify,
    /// How many have not said yet what they want.
    newcomers: Arc<AtomicUsize>,
}

impl Member {
    pub(super) fn new(number: u64, address: IpAddr, conduct: Conduct, newcomers: Arc<AtomicUsize>) -> Self {
        newcomers.fetch_add(1, Relaxed);
        Self { number, address, conduct: Mutex::new(conduct), look: Notify::new(), newcomers }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    pub(super) fn rank(&self, now: Millis) -> Option<Rank> {
        self.conduct.lock().rank(now)
    }

    pub(super) fn is_newcomer(&self) -> bool {
        !self.conduct.lock().has_greeted()
    }

    /// It has said what it wants.
    pub(super) fn greet(&self) {
        if self.conduct.lock().greeted() {
            self.newcomers.fetch_sub(1, Relaxed);
            self.look.notify_one();
        }
    }

    pub(super) fn shook_hands(&self, now: Millis) {
        self.conduct.lock().shook_hands(now);
    }

    /// Ends it; answers whether that is new.
    pub(super) fn end(&self, why: Why) -> bool {
        let new = self.conduct.lock().end(why);
        if new {
            self.look.notify_one();
        }
        new
    }

    /// Returns when it has to be looked at before the time that was told last.
    pub(crate) async fn changed(&self) {
        self.look.notified().await;
    }

    pub(crate) fn verdict(&self, patience: &Patience, now: Millis) -> Verdict {
        self.conduct.lock().verdict(patience, now)
    }

    pub(super) fn received(&self, bytes: usize, now: Millis) {
        if self.conduct.lock().received(bytes as u64, now) {
            self.look.notify_one();
        }
    }

    /// So many of the bytes that came were part of a call.
    pub(crate) fn meant(&self, bytes: usize) {
        self.conduct.lock().meant(bytes as u64);
    }

    /// A body was refused, or given up, before its end.
    pub(crate) fn left_unread(&self, now: Millis) {
        self.conduct.lock().left_unread(now);
    }

    /// A body broke off.
    pub(crate) fn broke_off(&self, now: Millis) {
        if self.conduct.lock().broke_off(now) {
            self.look.notify_one();
        }
    }

    /// A call begins; the number is for its end.
    pub(crate) fn call_began(&self, now: Millis) -> u64 {
        self.greet();
        self.conduct.lock().call_began(true, now)
    }

    pub(crate) fn call_goes_on(&self, number: u64) {
        self.conduct.lock().goes_on(number);
    }

    pub(crate) fn call_ended(&self, number: u64, how: Ended, now: Millis) {
        if self.conduct.lock().call_ended(number, how, now) {
            self.look.notify_one();
        }
    }

    pub(crate) fn let_in(&self) {
        self.conduct.lock().let_in();
    }

    pub(crate) fn sent_away(&self) {
        if self.conduct.lock().sent_away() {
            self.look.notify_one();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.conduct.get_mut().greeted() {
            self.newcomers.fetch_sub(1, Relaxed);
        }
    }
}
