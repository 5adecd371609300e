//! What happened in histories.

use std::fmt;

/// What happened in a history: one in which nothing happens finds nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stats {
    pub(crate) histories: u64,
    pub(crate) wakes: u64,
    pub(crate) contacts: u64,
    pub(crate) promises: u64,
    pub(crate) weak: u64,
    pub(crate) frames: u64,
    pub(crate) marks: u64,
    pub(crate) gone: u64,
    pub(crate) void: u64,
    pub(crate) deaths: u64,
    pub(crate) faults: u64,
    pub(crate) starts: u64,
    /// From the end of what was promised to the GONE, of each that had died asleep by then.
    pub(crate) delays: Vec<u64>,
}

impl Stats {
    pub(crate) fn add(&mut self, more: Self) {
        self.histories += more.histories;
        self.wakes += more.wakes;
        self.contacts += more.contacts;
        self.promises += more.promises;
        self.weak += more.weak;
        self.frames += more.frames;
        self.marks += more.marks;
        self.gone += more.gone;
        self.void += more.void;
        self.deaths += more.deaths;
        self.faults += more.faults;
        self.starts += more.starts;
        self.delays.extend(more.delays);
    }
}

impl Stats {
    /// So many percent of the delays were not longer.
    pub(crate) fn delay(&self, percent: usize) -> u64 {
        let mut delays = self.delays.clone();
        delays.sort_unstable();
        delays.get(delays.len() * percent / 100).copied().unwrap_or_default()
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { histories, faults, starts, wakes, contacts, promises, weak, .. } = self;
        let Self { frames, marks, gone, void, deaths, .. } = self;
        write!(
            f,
            "{histories} histories with {faults} faults and {starts} starts: {wakes} wakes, {contacts} requests, {promises} \
             promises, {weak} requests whose promise waited for the log, {frames} frames, {marks} questions, {gone} GONE, \
             {void} void, {deaths} deaths; from the end of the lease to the GONE of who died asleep {} ms (median), {} ms \
             (90 %)",
            self.delay(50),
            self.delay(90),
        )
    }
}
