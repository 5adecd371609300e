//! Claims of the lease table, each told as a short story about one node, and one told of random schedules.

mod company;
mod contact;
mod expiry;
mod learning;
mod reference;
mod silence;
mod upkeep;

use dormouse_proto::ids::{Beat, CallId, Group, Incarnation, NodeId, Revision};

use super::*;
use crate::liveness::guard::HoldReason;

const KEY: LeaseKey = LeaseKey { namespace: 1, node: NodeId(7) };
const HERE: Session = Session(1);
const ELSEWHERE: Session = Session(2);
const AWAKE: Activity = Activity::Awake { remaining: None, then_asleep: false };
const FIRST: Incarnation = Incarnation(1);

struct World {
    table: LeaseTable,
    group: Group,
}

fn world_with(settings: LeaseSettings) -> World {
    let policy = LeasePolicy::new(settings, []).expect("settings of a test are valid");
    World { table: LeaseTable::new(policy), group: "ads".parse().expect("a valid name") }
}

/// One member, admitted at 0 with beat 1 and the usual leases: 3 s awake, 600 s asleep, 5 s of grace.
fn world() -> World {
    let world = world_with(LeaseSettings { asleep: Millis::from_secs(600), ..LeaseSettings::default() });
    world.admit(0, KEY);
    world
}

fn evidence(beat: u64, activity: Activity, ttl: u64) -> Evidence {
    Evidence { incarnation: FIRST, beat: Beat(beat), activity, ttl: Millis(ttl) }
}

impl World {
    fn admit(&self, now: u64, key: LeaseKey) {
        self.table.admitted(Timestamp(now), key, &self.group, &evidence(1, AWAKE, 3_000), HERE);
    }

    fn hear(&self, now: u64, beat: u64, activity: Activity) -> Heard {
        let contact = Contact {
            incarnation: FIRST,
            beat: Beat(beat),
            call_id: CallId(beat + 100),
            activity,
            head: Revision::ZERO,
        };
        self.table.heard(Timestamp(now), KEY, &contact)
    }

    fn confirm(&self, now: u64, beat: u64, activity: Activity, ttl: u64) -> bool {
        self.table.evidence_applied(Timestamp(now), KEY, &evidence(beat, activity, ttl), HERE)
    }

    /// Heard and, as fast as logs are, told by the log.
    fn sleep(&self, now: u64, beat: u64) {
        self.hear(now, beat, Activity::Asleep);
        self.confirm(now, beat, Activity::Asleep, 600_000);
    }

    fn due(&self, now: u64) -> Vec<Due> {
        self.due_when(now, None)
    }

    fn due_when(&self, now: u64, hold: Option<HoldReason>) -> Vec<Due> {
        let mut out = Vec::new();
        self.table.due(Timestamp(now), hold, |holder| holder == HERE, &mut out);
        out
    }

    fn view(&self, now: u64) -> LeaseView {
        self.table.view(KEY, Timestamp(now)).expect("still a member")
    }

    fn state(&self) -> LeaseState {
        self.view(0).state
    }
}

fn suspect(beat: u64) -> Due {
    Due::Suspect { key: KEY, incarnation: FIRST, beat: Beat(beat) }
}

fn gone(beat: u64) -> Due {
    Due::Gone { key: KEY, incarnation: FIRST, beat: Beat(beat) }
}

fn granted(ttl: u64, ttl_applied: u64, was: LeaseState) -> Heard {
    Heard::Granted { ttl: Millis(ttl), ttl_applied: Millis(ttl_applied), was }
}
