//! `doctor`: what is well, what is not, and what to do about it. One line for each finding.

mod compared;
mod unreached;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use dormouse::{Durability, MemberFilter, Reason, Relay, RelayInfo, replica::message::Chunk};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    args::Target,
    failure::Failure,
    screen::Screen,
    show::{condition::meaning, durability, rows},
};

/// Warm round trips; the fastest one is the network's, the others are chance.
const ROUND_TRIPS: usize = 5;
/// How long the search for slips may take, and how many it names.
const SEARCH: Duration = Duration::from_secs(5);
const SLIPS: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, PartialEq, Eq)]
struct Finding(Level, String);

impl Finding {
    fn tell(&self, screen: Screen) -> Result<(), Failure> {
        let level = match self.0 {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        screen.show(&format!("{level:<5} {}", self.1), &json!({ "level": level, "message": self.1 }))
    }
}

/// Examines the relay that the settings name. Fails with the first thing that keeps the other verbs from working.
pub(crate) async fn examine(screen: Screen, target: &Target) -> Result<(), Failure> {
    let (asked, before) = (Instant::now(), wall_clock());
    let relay = target.relay()?;
    let info = match relay.info().await {
        Ok(info) => info,
        Err(reason) => match unreached::diagnosed(target, &reason).await {
            Some((finding, failure)) => {
                finding.tell(screen)?;
                return Err(failure);
            }
            None => return Err(reason.into()),
        },
    };
    let (cold, after) = (asked.elapsed(), wall_clock());
    let warm = warm_round_trip(&relay).await?;
    reached(target.url(), &info, warm, cold).tell(screen)?;
    if target.token_is_exposed() {
        let text = "the token travels in the clear: whoever is on the way can use it; give the relay a certificate and use https://";
        Finding(Level::Warn, text.to_owned()).tell(screen)?;
    }
    let concerns = concerns(&info).into_iter().chain(compared::clocks(&info, before, after));
    for finding in concerns.chain(compared::room(&info)) {
        finding.tell(screen)?;
    }
    match search(&relay).await {
        Ok(found) => {
            let slips = slips(target, &relay, &info, &found).await?;
            found.findings().iter().chain(&slips).try_for_each(|finding| finding.tell(screen))
        }
        Err(reason) => {
            Finding(Level::Fail, format!("the keys cannot be read: {reason}")).tell(screen)?;
            Err(reason.into())
        }
    }
}

/// What can be told of the settings when it is known what there is.
async fn slips(
    target: &Target,
    relay: &Relay,
    info: &RelayInfo,
    found: &Found,
) -> Result<Vec<Finding>, Failure> {
    let is_empty = found.is_whole
        && found.kinds.is_empty()
        && relay.first_members(&MemberFilter::default(), 1).await?.is_empty();
    let followed = std::env::var("DORMOUSE_COLLECTIONS").unwrap_or_default();
    let mut slips =
        if found.is_whole { compared::collections(&followed, &found.collections()) } else { Vec::new() };
    slips.extend(compared::namespace(info, target.namespace(), is_empty));
    slips.extend(compared::behind(info, &relay.info().await?));
    Ok(slips)
}

/// To be compared with the relay's.
#[expect(clippy::disallowed_methods, reason = "this file is where the clock is read")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

async fn warm_round_trip(relay: &Relay) -> Result<Duration, Reason> {
    let mut fastest = Duration::MAX;
    for _ in 0..ROUND_TRIPS {
        let asked = Instant::now();
        relay.info().await?;
        fastest = fastest.min(asked.elapsed());
    }
    Ok(fastest)
}

fn reached(url: &str, info: &RelayInfo, warm: Duration, cold: Duration) -> Finding {
    let ms = |it: Duration| format!("{:.1} ms", it.as_secs_f64() * 1_000.0);
    let host = url.trim_start_matches("http://").trim_start_matches("https://").trim_end_matches('/');
    let (warm, cold, kept) = (ms(warm), ms(cold), durability(info.durability));
    let RelayInfo { version, broker, .. } = info;
    let text =
        format!("{host} answers in {warm} (new connection {cold}), relay {version}, {broker} log, {kept}");
    Finding(Level::Ok, text)
}

/// What the relay itself says that it is short of.
fn concerns(info: &RelayInfo) -> Vec<Finding> {
    let mut found = Vec::new();
    let mine = env!("CARGO_PKG_VERSION");
    if !info.version.is_empty() && info.version != mine {
        let text =
            format!("the relay is {}, this program {mine}: use the same version of both", info.version);
        found.push(Finding(Level::Warn, text));
    }
    match info.durability {
        Durability::Fsync => {}
        Durability::Unknown => {
            let text = "the relay does not say what its log promises: update the relay";
            found.push(Finding(Level::Warn, text.to_owned()));
        }
        weaker => {
            let text = format!(
                "durability is {}: what was acknowledged may be lost with the power; DORMOUSE_DURABILITY=fsync \
                 makes the relay refuse to start like this",
                durability(weaker)
            );
            found.push(Finding(Level::Warn, text));
        }
    }
    found.extend(
        info.conditions.iter().map(|word| Finding(Level::Warn, format!("{word}: {}", meaning(word)))),
    );
    found
}

/// Every key and the types under its name, as far as it was read.
#[derive(Debug, Default)]
struct Found {
    kinds: BTreeMap<String, BTreeSet<&'static str>>,
    is_whole: bool,
}

async fn search(relay: &Relay) -> Result<Found, Reason> {
    let mut found = Found::default();
    let read = async {
        let mut watch = relay.watch(&["*"], b"").await?;
        while let Some(chunk) = watch.next().await? {
            found.is_whole = chunk.caught_up;
            found.take(&chunk);
            if found.is_whole {
                break;
            }
        }
        Ok::<(), Reason>(())
    };
    // Not to have read everything in time is a finding and no failure.
    tokio::time::timeout(SEARCH, read).await.unwrap_or(Ok(()))?;
    Ok(found)
}

impl Found {
    fn collections(&self) -> BTreeSet<String> {
        self.kinds.keys().filter_map(|name| Some(name.split_once('/')?.0.to_owned())).collect()
    }

    fn take(&mut self, chunk: &Chunk) {
        for key in chunk.keys.iter().filter(|key| rows::is_visible(&key.rows)) {
            let name = format!("{}/{}", key.collection, key.key);
            self.kinds.entry(name).or_default().insert(rows::kind(&key.rows));
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let slips = self.kinds.iter().filter(|(_, kinds)| kinds.len() > 1);
        let mut told: Vec<Finding> = slips
            .clone()
            .take(SLIPS)
            .map(|(name, kinds)| {
                let kinds = kinds.iter().map(|kind| format!("as {kind}")).collect::<Vec<_>>().join(" and ");
                let text =
                    format!("{name} exists {kinds}: is one of them a slip? Each is a value of its own");
                Finding(Level::Warn, text)
            })
            .collect();
        let more = slips.count().saturating_sub(SLIPS);
        if more > 0 {
            told.push(Finding(Level::Warn, format!("{more} further keys exist under two types")));
        }
        let keys = match self.kinds.len() {
            0 if self.is_whole => return vec![Finding(Level::Ok, "no keys yet".to_owned())],
            1 => "1 key".to_owned(),
            many => format!("{many} keys"),
        };
        told.push(if self.is_whole {
            let verdict = if told.is_empty() { ", each under one type" } else { "" };
            Finding(Level::Ok, format!("{keys}{verdict}"))
        } else {
            let text = format!("only {keys} could be looked at in {} s", SEARCH.as_secs());
            Finding(Level::Warn, text)
        });
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn info() -> RelayInfo {
        RelayInfo {
            relay_id: "1".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            broker: "embedded".to_owned(),
            durability: Durability::Fsync,
            revision: 1,
            limits: BTreeMap::new(),
            conditions: Vec::new(),
            counters: BTreeMap::new(),
            now: None,
            namespaces: Vec::new(),
            log_newest: None,
            log_applied: 0,
            store_free_bytes: None,
        }
    }

    #[test]
    fn a_relay_that_is_well_gives_one_line() {
        let (warm, cold) = (Duration::from_micros(400), Duration::from_micros(900));
        let Finding(level, text) = reached("http://127.0.0.1:7400", &info(), warm, cold);
        let start = "127.0.0.1:7400 answers in 0.4 ms (new connection 0.9 ms), relay ";
        assert!(
            level == Level::Ok && text.starts_with(start) && text.ends_with(", embedded log, fsync"),
            "{text}"
        );
        assert_eq!(concerns(&info()), []);
    }

    #[test]
    fn every_concern_says_what_to_do() {
        let conditions = [
            "LOG_UNREACHABLE",
            "EXPIRY_HELD",
            "MASS_LOSS",
            "BEHIND",
            "STORE_FULL",
            "LEASES_STRETCHED",
            "NEWER",
        ];
        let weak = RelayInfo {
            version: "0.0.0".to_owned(),
            durability: Durability::PageCache,
            conditions: conditions.map(str::to_owned).to_vec(),
            ..info()
        };
        let found = concerns(&weak);
        assert_eq!(found.len(), 2 + conditions.len());
        assert!(found.iter().all(|Finding(level, text)| *level == Level::Warn && text.contains([';', ':'])));
    }

    #[test]
    fn a_key_under_two_types_is_named() {
        let mut found = Found { is_whole: true, ..Found::default() };
        found.kinds.insert("carts/42".to_owned(), ["counter", "set"].into());
        found.kinds.insert("ads/shown".to_owned(), ["counter"].into());
        let [Finding(level, slip), Finding(_, sum)] = &found.findings()[..] else { panic!("{found:?}") };
        assert_eq!((*level, sum.as_str()), (Level::Warn, "2 keys"));
        assert!(slip.starts_with("carts/42 exists as counter and as set: is one of them a slip?"), "{slip}");
    }

    #[test]
    fn many_slips_are_counted_and_not_listed() {
        let mut found = Found::default();
        for key in 0..15 {
            found.kinds.insert(format!("carts/{key}"), ["counter", "set"].into());
        }
        let told = found.findings();
        assert_eq!(told.len(), SLIPS + 2);
        assert_eq!(told[SLIPS].1, "5 further keys exist under two types");
    }
}
