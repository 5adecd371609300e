//! Where this machine's settings and the relay do not fit each other, and what the relay lacks room or time for.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use dormouse::RelayInfo;

use super::{Finding, Level};

/// Clocks further apart than this mislead people; registers bear a minute (`stamp_skew_ms`).
const SKEW: Duration = Duration::from_secs(5);
/// Names that are offered instead of one that leads nowhere.
const NAMES: usize = 5;
/// Room of so many states lets a snapshot and the log behind it be written beside the old ones.
const STATES: u64 = 3;
/// Less room than this is little for any state.
const ROOM: u64 = 256 << 20;

/// The relay's clock against one that was read before it was asked and one that was read after.
pub(super) fn clocks(info: &RelayInfo, before: SystemTime, after: SystemTime) -> Option<Finding> {
    let theirs = info.now?;
    let (apart, word) = match (before.duration_since(theirs), theirs.duration_since(after)) {
        (Ok(ahead), _) => (ahead, "ahead of"),
        (_, Ok(behind)) => (behind, "behind"),
        _ => return None,
    };
    let text = format!(
        "this machine's clock is {:.0} s {word} the relay's: set both by NTP; the last write of a register is told by its \
         author's clock, and certificates are judged by it",
        apart.as_secs_f64()
    );
    (apart > SKEW).then_some(Finding(Level::Warn, text))
}

/// Nothing is here, and something elsewhere.
pub(super) fn namespace(info: &RelayInfo, own: &str, is_empty: bool) -> Option<Finding> {
    let own = if own.is_empty() { "default" } else { own };
    let others: Vec<&str> = info.namespaces.iter().map(String::as_str).filter(|name| *name != own).collect();
    if !is_empty || others.is_empty() {
        return None;
    }
    let text = format!(
        "nothing is in the namespace {own}, but in {}: is DORMOUSE_NAMESPACE (or --namespace) a slip?",
        listed(&others)
    );
    Some(Finding(Level::Warn, text))
}

/// What functions with the `DORMOUSE_COLLECTIONS` of this environment would never see, and what they would wait for in vain.
pub(super) fn collections(followed: &str, there: &BTreeSet<String>) -> Vec<Finding> {
    let followed: BTreeSet<&str> = followed.split(',').map(str::trim).filter(|it| !it.is_empty()).collect();
    if followed.is_empty() || followed.contains("*") {
        return Vec::new();
    }
    let unseen: Vec<&str> = there.iter().map(String::as_str).filter(|it| !followed.contains(it)).collect();
    let named = followed.iter().filter(|it| !it.starts_with('@') && !there.contains(**it));
    let empty: Vec<&str> = named.copied().collect();
    let mut found = Vec::new();
    if !empty.is_empty() {
        let instead =
            if unseen.is_empty() { String::new() } else { format!("; there is {}", listed(&unseen)) };
        let text = format!("DORMOUSE_COLLECTIONS follows {}, where nothing is{instead}", listed(&empty));
        found.push(Finding(Level::Warn, text));
    } else if !unseen.is_empty() {
        let text = format!(
            "DORMOUSE_COLLECTIONS does not follow {}: functions read nothing there; add it, or `*` for all",
            listed(&unseen)
        );
        found.push(Finding(Level::Warn, text));
    }
    found
}

/// Frames that were in the log before `later` was asked for and that it has still not applied.
pub(super) fn behind(earlier: &RelayInfo, later: &RelayInfo) -> Option<Finding> {
    let missing = earlier.log_newest?.checked_sub(later.log_applied).filter(|it| *it > 0)?;
    let text = format!(
        "the relay is behind its log by {missing} positions: it is starting, short of processor, or cut off from the broker; \
         `dormouse_log_position` and its own log say which, and another relay may be called meanwhile"
    );
    Some(Finding(Level::Warn, text))
}

/// A log that cannot grow refuses every write.
pub(super) fn room(info: &RelayInfo) -> Option<Finding> {
    let free = info.store_free_bytes?;
    let state = info.counters.get("state_bytes").copied().unwrap_or_default();
    let needed = state.saturating_mul(STATES).max(ROOM);
    let mib = |bytes: u64| bytes >> 20;
    let text = format!(
        "{} MiB are free where the log is kept, {} MiB should be: a log without room refuses every write (STORE_FULL); make room, \
         or move DORMOUSE_DATA_DIR",
        mib(free),
        mib(needed)
    );
    (free < needed).then_some(Finding(Level::Warn, text))
}

fn listed(names: &[&str]) -> String {
    let more = names.len().saturating_sub(NAMES);
    let named = names.iter().take(NAMES).copied().collect::<Vec<_>>().join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::{super::tests::info, *};

    fn at(s: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(s)
    }

    fn text(finding: Option<Finding>) -> String {
        finding.map_or_else(String::new, |Finding(_, text)| text)
    }

    #[test]
    fn clocks_that_are_far_apart_are_named_in_the_right_direction() {
        let relay = RelayInfo { now: Some(at(1_000)), ..info() };
        assert_eq!(clocks(&relay, at(999), at(1_001)), None, "it was asked meanwhile");
        assert_eq!(clocks(&relay, at(1_004), at(1_005)), None, "a little is nothing");
        assert!(text(clocks(&relay, at(1_073), at(1_074))).contains("is 73 s ahead of the relay's"));
        assert!(text(clocks(&relay, at(899), at(900))).contains("is 100 s behind the relay's"));
        assert_eq!(clocks(&info(), at(0), at(0)), None, "an older relay does not tell");
    }

    #[test]
    fn an_empty_namespace_beside_full_ones_may_be_a_slip() {
        let relay = RelayInfo { namespaces: vec!["shop".to_owned()], ..info() };
        assert!(
            text(namespace(&relay, "shpo", true)).contains("nothing is in the namespace shpo, but in shop")
        );
        assert!(text(namespace(&relay, "", true)).contains("namespace default"));
        assert_eq!(namespace(&relay, "shpo", false), None);
        assert_eq!(namespace(&relay, "shop", true), None, "there is no other");
    }

    #[test]
    fn collections_that_nobody_follows_are_named() {
        let there: BTreeSet<String> = ["ads", "flags"].map(str::to_owned).into();
        let told = |followed: &str| collections(followed, &there).pop().map_or_else(String::new, |it| it.1);
        assert_eq!((told(""), told("*"), told("ads,flags,@members")), Default::default());
        assert!(told("ads").contains("does not follow flags"));
        assert!(told("adz, flags").contains("follows adz, where nothing is; there is ads"));
    }

    #[test]
    fn a_relay_is_behind_when_it_lacks_what_was_there_before() {
        let (mut earlier, mut later) = (info(), info());
        assert_eq!(behind(&earlier, &later), None, "the log did not answer");
        (earlier.log_newest, later.log_newest, later.log_applied) = (Some(10), Some(90), 10);
        assert_eq!(behind(&earlier, &later), None, "what came since is no lag");
        later.log_applied = 4;
        assert!(text(behind(&earlier, &later)).contains("by 6 positions"));
    }

    #[test]
    fn room_is_judged_by_the_state() {
        let mut relay = RelayInfo { store_free_bytes: Some(1 << 30), ..info() };
        assert_eq!(room(&relay), None);
        relay.counters.insert("state_bytes".to_owned(), 1 << 30);
        assert!(text(room(&relay)).contains("1024 MiB are free where the log is kept, 3072 MiB should be"));
        relay.store_free_bytes = None;
        assert_eq!(room(&relay), None, "a broker's disk is the broker's");
    }
}
