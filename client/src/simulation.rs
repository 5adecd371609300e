//! What the shell does around a [`Replica`], for simulations that have a network of their own.

use dormouse_proto::{ids::Revision, wire::v1};

use crate::{
    convert,
    replica::{Path, Progress, Replica},
};

/// Push, pull and head of one transmission, as the shell sends them.
pub fn outgoing(replica: &mut Replica) -> (Option<v1::Push>, v1::Pull, u64) {
    convert::outgoing(&replica.outgoing(), 0)
}

/// Takes a whole answer in, as the shell does.
pub fn absorb(replica: &mut Replica, answer: v1::SyncResponse) -> Option<Progress> {
    convert::absorb(replica, answer).progress
}

/// Takes in keys that were read on their own, as the shell does.
pub fn absorb_read(replica: &mut Replica, as_of: Revision, paths: &[Path], keys: Vec<v1::KeyState>) {
    replica.absorb_read(as_of, paths, keys.into_iter().filter_map(convert::key_rows).collect());
}
