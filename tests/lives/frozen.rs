//! Two hundred functions at once (sixty, unless `DORMOUSE_LONG=1`): some are frozen asleep, some in the middle of an
//! invocation, some lose their line and are killed, and the others go on all the while.
#![expect(clippy::disallowed_methods, reason = "real processes are waited for in real time")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use dormouse::{
    GoneReason, Member, MemberEvent, MemberFilter, MemberState, MemberWatch, Relay, replica::message::Rows,
};
use tokio::runtime::Runtime;

use crate::{
    fleet::{Fleet, Step},
    line::Line,
    relay::{Outcome, PATIENCE, RelayProcess},
};

/// Long enough for a busy machine, short enough to be waited for: the lease of an invocation is 3 s.
const LEASES: &[(&str, &str)] = &[("DORMOUSE_SUSPECT_GRACE_MS", "1000")];
const SHORT: &[&str] = &["--gap", "1000", "--invocation", "600"];
/// Longer than the lease, which its beats renew.
const LONG: &[&str] = &["--gap", "1000", "--invocation", "3500", "--beat", "1000"];
/// How many are thawed one by one, so that the calls of each can be counted.
const ALONE: usize = 5;
const EXPIRED: &str = "dormouse_ends_total{cause=\"expired\"}";
const FALSE_DEATHS: &str = "dormouse_false_deaths_total";

fn functions() -> usize {
    if std::env::var("DORMOUSE_LONG").as_deref() == Ok("1") { 200 } else { 60 }
}

/// What a watcher was told of silence.
#[derive(Debug, Default)]
struct Told {
    suspect: BTreeSet<String>,
    /// Each end, and whether the watcher had been told before that the node is SUSPECT.
    ended: BTreeMap<String, (Option<GoneReason>, bool)>,
}

async fn watch(mut changes: MemberWatch, told: Arc<Mutex<Told>>) {
    while let Ok(Some(change)) = changes.next().await {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        for event in change.events {
            match event {
                MemberEvent::Activity(member) if member.state == MemberState::Suspect => {
                    told.suspect.insert(member.node_id);
                }
                MemberEvent::Ended(member) => {
                    let was_suspect = told.suspect.contains(&member.node_id);
                    told.ended.insert(member.node_id, (member.gone_reason, was_suspect));
                }
                _ => {}
            }
        }
    }
}

struct World {
    relay: RelayProcess,
    back_end: Relay,
    runtime: Runtime,
    fleet: Fleet,
    /// The lines of those that have one of their own.
    lines: BTreeMap<usize, Line>,
    told: Arc<Mutex<Told>>,
}

impl World {
    /// So many functions, the first quarter on lines that can go dead, the last with long invocations; all have joined.
    fn of(count: usize) -> Outcome<Self> {
        let relay = RelayProcess::start(LEASES)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let back_end = Relay::builder().url(relay.url()).build()?;
        let told = Arc::new(Mutex::new(Told::default()));
        let changes = runtime.block_on(back_end.watch_members(&MemberFilter::default(), None, true))?;
        runtime.spawn(watch(changes, Arc::clone(&told)));
        let (mut fleet, mut lines) = (Fleet::new()?, BTreeMap::new());
        for name in 0..count {
            let mut url = relay.url();
            if name < count / 4 {
                let line = runtime.block_on(Line::open(&url))?;
                url.clone_from(&line.url);
                lines.insert(name, line);
            }
            fleet.start(name, &url, if name < count * 3 / 4 { SHORT } else { LONG })?;
        }
        let all: Vec<_> = fleet.names().into_iter().map(|name| (name, 0)).collect();
        fleet.await_sleep(&all)?;
        Ok(Self { relay, back_end, runtime, fleet, lines, told })
    }

    /// Everybody, the ended ones too, by the names of the functions.
    fn members(&self) -> Outcome<BTreeMap<usize, Member>> {
        use MemberState::{Asleep, Awake, Gone, Suspect};
        let filter = MemberFilter { states: vec![Awake, Asleep, Suspect, Gone], ..MemberFilter::default() };
        let members = self.runtime.block_on(self.back_end.members(&filter))?;
        let count = members.len();
        let named: BTreeMap<usize, Member> = members
            .into_iter()
            .map(|member| Ok((member.tags.get("name").ok_or("a member without a name")?.parse()?, member)))
            .collect::<Outcome<_>>()?;
        assert_eq!(named.len(), count, "a function is one member");
        Ok(named)
    }

    fn counter(&self) -> Outcome<i64> {
        let reading = self.runtime.block_on(self.back_end.read(&["lives/*"]))?;
        let value = reading.keys.iter().find_map(|it| match &it.rows {
            Rows::Counter { value, .. } => Some(*value),
            _ => None,
        });
        Ok(value.ok_or("no counter")?)
    }

    fn nths(&self, names: &[usize]) -> Outcome<Vec<(usize, u64)>> {
        names.iter().map(|name| Ok((*name, self.fleet.said(*name)?.nth))).collect()
    }

    /// Waits until so many memberships have ended by silence, and not one more.
    fn await_ends(&self, count: usize) -> Outcome {
        let (wanted, began) = (u64::try_from(count)?, Instant::now());
        let is_told = || self.told.lock().unwrap_or_else(PoisonError::into_inner).ended.len() >= count;
        while self.relay.metric(EXPIRED)? < wanted || !is_told() {
            assert!(began.elapsed() < PATIENCE, "{} of {count} ended", self.relay.metric(EXPIRED)?);
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(self.relay.metric(EXPIRED)?, wanted, "nobody else was silent");
        Ok(())
    }

    /// They were asleep, and frozen for longer than the lease of an invocation.
    fn frozen_asleep_they_live_and_go_on(&mut self, asleep: &[usize]) -> Outcome {
        assert_eq!(self.relay.metric(FALSE_DEATHS)?, 0);
        let before = self.nths(asleep)?;
        self.fleet.thaw(asleep)?;
        self.fleet.await_sleep(&before)?;
        assert_eq!(self.relay.metric(FALSE_DEATHS)?, 0, "a declared freeze is no death");
        let members = self.members()?;
        for name in asleep {
            let member = &members[name];
            assert_eq!((member.incarnation, member.gone_reason), (1, None), "{member:?}");
        }
        Ok(())
    }

    /// They said nothing of it, so their silence counted: SUSPECT, then GONE, and told so.
    fn silent_awake_they_became_suspect_and_ended(&self, silent: &[usize]) -> Outcome {
        let members = self.members()?;
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for name in silent {
            let member = &members[name];
            assert_eq!(
                (member.state, member.gone_reason, member.incarnation),
                (MemberState::Gone, Some(GoneReason::Expired), 1),
                "{member:?}"
            );
            let end = told.ended.get(&member.node_id);
            assert_eq!(end, Some(&(Some(GoneReason::Expired), true)), "first SUSPECT, then GONE");
        }
        assert_eq!(told.ended.len(), silent.len(), "nobody else was told to have ended");
        Ok(())
    }

    /// Calls that were answered (each of a function pulls), and pushes that came again because an answer was late.
    fn calls(&self) -> Outcome<(u64, u64)> {
        let again = self.relay.metric("dormouse_pushes_total{result=\"duplicate\"}")?;
        Ok((self.relay.metric("dormouse_pulls_total")?, again))
    }

    /// Thawed, a function ends its invocation with one call, and that one brings it back and binds what it wrote.
    fn thawed_it_is_back_with_one_call(&mut self, name: usize) -> Outcome {
        let before = self.calls()?;
        let nth = self.fleet.said(name)?.nth;
        self.fleet.thaw(&[name])?;
        self.fleet.await_sleep(&[(name, nth - 1)])?;
        self.fleet.freeze(&[name], Step::Asleep)?;
        let after = self.calls()?;
        let (calls, again) = (after.0 - before.0, after.1 - before.1);
        // If the machine was too slow to freeze it before its next invocation, that one made two calls as well.
        let further = self.fleet.said(name)?.nth - nth;
        assert!(calls <= 1 + again + 2 * further, "{calls} calls, {again} again, {further} invocations");
        Ok(())
    }

    fn they_are_who_they_were(&self, back: &[usize], was: &BTreeMap<usize, Member>) -> Outcome {
        let members = self.members()?;
        for name in back {
            let (now, was) = (&members[name], &was[name]);
            assert_eq!((&now.node_id, now.incarnation), (&was.node_id, was.incarnation + 1));
            assert_eq!(now.gone_reason, None, "{now:?}");
        }
        let back = u64::try_from(back.len())?;
        assert_eq!(self.relay.metric("dormouse_joins_total{admission=\"readmitted\"}")?, back);
        assert_eq!(self.relay.metric(FALSE_DEATHS)?, back, "counted as what they were");
        Ok(())
    }
}

#[test]
fn a_declared_freeze_is_no_death_and_a_silent_one_is_undone_and_no_write_is_lost_or_doubled() -> Outcome {
    let count = functions();
    let mut world = World::of(count)?;
    let was = world.members()?;
    assert_eq!(was.len(), count);
    let names = |part: usize| (count * part / 4..count * (part + 1) / 4).collect::<Vec<_>>();
    let (cut_off, asleep, awake, others) = (names(0), names(1), names(2), names(3));

    // Whoever is silent awake from here on ends later than a lease of those who are frozen asleep.
    world.fleet.freeze(&asleep, Step::Asleep)?;
    world.fleet.freeze(&awake, Step::Awake)?;
    world.fleet.freeze(&cut_off, Step::Awake)?;
    let pushed_by_the_killed: u64 = world.nths(&cut_off)?.iter().map(|(_, nth)| nth - 1).sum();
    world.lines.values().for_each(Line::die);
    world.fleet.kill(&cut_off)?;
    let silent = [cut_off, awake.clone()].concat();
    world.await_ends(silent.len())?;
    world.silent_awake_they_became_suspect_and_ended(&silent)?;
    world.frozen_asleep_they_live_and_go_on(&asleep)?;

    world.fleet.freeze(&[asleep.clone(), others].concat(), Step::Asleep)?;
    let (alone, together) = awake.split_at(ALONE);
    for name in alone {
        world.thawed_it_is_back_with_one_call(*name)?;
    }
    let frozen_at: Vec<_> = world.nths(together)?.into_iter().map(|(name, nth)| (name, nth - 1)).collect();
    world.fleet.thaw(together)?;
    world.fleet.await_sleep(&frozen_at)?;
    world.fleet.freeze(together, Step::Asleep)?;
    world.they_are_who_they_were(&awake, &was)?;

    let pushed: u64 = world.nths(&world.fleet.names())?.iter().map(|(_, nth)| nth).sum();
    assert_eq!(world.counter()?, (pushed + pushed_by_the_killed).cast_signed(), "each write counts once");
    assert_eq!(world.relay.metric(EXPIRED)?, u64::try_from(silent.len())?);
    Ok(())
}
