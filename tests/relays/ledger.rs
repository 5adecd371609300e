//! What was promised to whom, as the nodes themselves count it, and whether any GONE broke it.

use std::fmt;

use dormouse_proto::ids::Incarnation;

/// A promise that a relay gave, counted from when the node had sent its request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Promise {
    pub(crate) incarnation: Incarnation,
    pub(crate) relay: usize,
    pub(crate) beat: u64,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) end: u64,
}

/// A promise and the end that broke it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Broken {
    pub(crate) node: usize,
    pub(crate) promise: Promise,
    pub(crate) gone: u64,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, promise, gone } = self;
        let Promise { incarnation, relay, beat, sent, answered, end } = promise;
        write!(
            f,
            "node {node} was GONE at {gone}, in incarnation {incarnation}; for beat {beat}, sent at {sent}, relay {relay} \
             had promised at {answered} that it lives until {end}"
        )
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    promise: Option<Promise>,
    /// The newest end that took effect.
    gone: Option<(Incarnation, u64)>,
}

/// The promises to all nodes.
#[derive(Debug)]
pub(crate) struct Ledger {
    accounts: Vec<Account>,
}

impl Ledger {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { accounts: vec![Account::default(); nodes] }
    }

    /// A node sends again: what it says of itself now counts, and no longer what it said before.
    pub(crate) fn gives_up_beyond(&mut self, node: usize, end: u64) {
        if let Some(promise) = &mut self.accounts[node].promise {
            promise.end = promise.end.min(end);
        }
    }

    /// A relay promises. The end may have taken effect before, where that relay has not read it yet.
    pub(crate) fn promised(&mut self, node: usize, promise: Promise) -> Result<(), Broken> {
        let account = &mut self.accounts[node];
        let before = account.promise.filter(|it| it.incarnation == promise.incarnation);
        if before.is_none_or(|it| it.end < promise.end) {
            account.promise = Some(promise);
        }
        match account.gone {
            Some((incarnation, gone)) if incarnation == promise.incarnation && gone < promise.end => {
                Err(Broken { node, promise, gone })
            }
            _ => Ok(()),
        }
    }

    /// A GONE took effect. Answers since when nothing was promised any more, if anything ever was.
    pub(crate) fn ended(
        &mut self,
        now: u64,
        node: usize,
        incarnation: Incarnation,
    ) -> Result<Option<u64>, Broken> {
        let account = &mut self.accounts[node];
        account.gone = Some((incarnation, now));
        match account.promise.filter(|it| it.incarnation == incarnation) {
            Some(promise) if promise.end > now => Err(Broken { node, promise, gone: now }),
            promise => Ok(promise.map(|it| it.end)),
        }
    }
}
