//! What the shell does around a [`Replica`], for simulations that have a network of their own.

use dormouse_proto::wire::v1;

use crate::{
    convert,
    replica::{Progress, Replica},
};

/// Push, pull and head of one transmission, as the shell sends them.
pub fn outgoing(replica: &mut Replica) -> (Option<v1::Push>, v1::Pull, u64) {
    convert::outgoing(&replica.outgoing(), 0)
}

/// Takes a whole answer in, as the shell does.
pub fn absorb(replica: &mut Replica, answer: v1::SyncResponse) -> Option<Progress> {
    convert::absorb(replica, answer).progress
}
