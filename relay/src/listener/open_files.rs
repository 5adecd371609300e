//! How many files, hence connections, this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// For the log, its snapshots, the admin port, brokers and webhooks.
const OTHERS: u64 = 256;

/// As many of the wanted connections as there can be files for. The soft limit is raised to the hard one first: it is low
/// for programs that cannot deal with high numbers, of which this is none.
pub(super) fn connections(wanted: u64) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let needed = wanted.saturating_add(OTHERS);
    let may = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    let mut has = may(current);
    if has < needed {
        let raised = needed.min(may(maximum));
        let raising = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum });
        has = if raising.is_ok() { raised } else { has };
    }
    // Half of a very low limit, so that there is a relay at all.
    let in_force = wanted.min(has.saturating_sub(OTHERS).max(has / 2));
    let why =
        "this process may not open a file for each connection; raise its limit (LimitNOFILE, ulimit -n)";
    if in_force < wanted / 2 {
        warn!(connections_max = wanted, open_files = has, in_force, "{why}");
    } else if in_force < wanted {
        info!(connections_max = wanted, open_files = has, in_force, "{why}");
    }
    usize::try_from(in_force).unwrap_or(usize::MAX)
}
