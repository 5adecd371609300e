//! What was dropped because there was too much of it, counted since this process began.

/// What the fold has dropped on its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collapsed {
    /// Dead rows beyond the cap; whoever had not heard of their end starts over.
    pub dead_rows: u64,
    /// Values of siblings beyond 64, or beyond 256 KiB of one row.
    pub siblings: u64,
    /// Events beyond the bounds of their log, or too old.
    pub events: u64,
    /// Tombstones that were too many or too old.
    pub tombstones: u64,
    /// Idempotency ids that were too many or too old.
    pub once_ids: u64,
}
