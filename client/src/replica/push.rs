//! The way up: sealing, and what becomes of a sealed push.

use dormouse_proto::{
    ids::{Incarnation, NodeId, PushId, PushNo, Revision},
    lattice::{Change, Delta},
    traps::Trap,
};

use super::{
    Path, Replica, SealedPush,
    asked::asked_for,
    intent::{Intent, change_of, each},
    message::{Ack, Admission, Fate, Refusal, Report, Settled, Verdict},
    outbox::Saying,
    sealed::delta_of,
};

/// More would not be accepted; to leave one out costs some bytes and nothing else.
const ACKED_MAX: usize = 1_024;

impl Replica {
    /// The push under way; if there is none, what waits is sealed, under the next number and this freshly drawn id.
    /// `None`: nothing waits. Never to be called before the process may have been cloned.
    pub fn seal(&mut self, push_id: PushId) -> Option<&SealedPush> {
        if self.sealed.is_none() && !self.outbox.list().is_empty() {
            let mut said = self.outbox.split();
            self.says_again = false;
            for Saying { path, intent } in &mut said {
                each!(intent, it => it.resolve(path, &self.held));
            }
            let push_no = PushNo(self.push_no.0 + 1);
            self.sealed = SealedPush::new(push_no, push_id, said);
            self.push_no = self.sealed.as_ref().map_or(self.push_no, SealedPush::push_no);
        }
        self.sealed.as_ref()
    }

    /// The push that waits for its fate.
    pub const fn sealed(&self) -> Option<&SealedPush> {
        self.sealed.as_ref()
    }

    /// The relay has bound the push: the rows take over from what was said.
    pub fn absorb_ack(&mut self, ack: Ack) {
        let Some(push) = self.sealed.take_if(|push| push.push_no() == ack.push_no) else {
            return;
        };
        // What the relay leaves out is what was asked for; what it names differs, and comes second for that reason.
        self.hold(ack.as_of, push.deltas().iter().filter_map(|it| asked_for(it, self.node)).collect());
        self.hold(ack.as_of, ack.keys);
        if self.acked.len() < ACKED_MAX {
            self.acked.push(ack.revision);
        }
        self.head = self.head.max(ack.as_of);
    }

    /// The fate of the last push, to be taken in before the rows of the same answer.
    pub fn absorb_settled(&mut self, settled: Settled) {
        if self.traps.has(Trap::NoSettled) {
            return;
        }
        // It was shown a revision like any other: if the log loses that, a chunk must be able to say so. A relay without
        // its log may still tell of what is lost, and then no chunk comes along.
        self.head = self.head.max(settled.bound.unwrap_or(Revision::ZERO));
        let mine =
            |push: &&mut SealedPush| push.push_no() == settled.push_no && push.push_id() == settled.push_id;
        if let Some(push) = self.sealed.as_mut().filter(mine) {
            push.bound = settled.bound;
            push.void = settled.bound.is_none();
        }
        self.settle_what_arrived(Revision::ZERO);
    }

    /// Settles the sealed push when every collection that it touches is known as of its revision. A cursor beyond it
    /// would not do: the row may have moved up and still be on its way.
    pub(super) fn settle_what_arrived(&mut self, cursor: Revision) {
        let Some(push) = &self.sealed else { return };
        let Some(bound) = push.bound else { return };
        let by_cursor = self.traps.has(Trap::CursorSettle) && cursor >= bound;
        let arrived = |delta: &Delta| self.held.barrier(delta.collection.as_str()) >= bound;
        if by_cursor || push.deltas().iter().all(arrived) {
            self.sealed = None;
        }
    }

    /// The relay has refused the push.
    pub fn absorb_refusal(&mut self, refusal: &Refusal) {
        if refusal.verdict == Verdict::Later {
            return;
        }
        let Some(push) = self.sealed.take() else { return };
        if refusal.verdict == Verdict::OutcomeUnknown {
            return self.at_risk(push);
        }
        let (mut kept, mut amended) = (Vec::new(), false);
        for (nth, mut saying) in push.said.into_list().into_iter().enumerate() {
            if refusal.deltas.is_empty() || refusal.deltas.contains(&nth) {
                amended |= self.amend(&mut saying, refusal);
            }
            if !each!(&saying.intent, it => it.is_empty()) {
                kept.push(saying);
            }
        }
        // What would be sent again just as it was would be refused again, for ever.
        if !amended {
            for saying in std::mem::take(&mut kept) {
                self.report_dropped(&saying.path, change_of(&saying.intent), &refusal.reason);
            }
        }
        self.outbox.put_back(kept);
        if self.traps.has(Trap::VoidFree) {
            self.push_no = PushNo(self.push_no.0 - 1);
        }
    }

    /// Takes out of a refused saying what can never be accepted, and says so. Whether that changed anything.
    fn amend(&mut self, saying: &mut Saying, refusal: &Refusal) -> bool {
        let before = saying.intent.clone();
        let dropped = match refusal.verdict {
            Verdict::Stale => each!(&mut saying.intent, it => it.without_context()),
            Verdict::Quota if refusal.deltas.is_empty() => {
                each!(&mut saying.intent, it => it.without_growth())
            }
            _ => whole(saying),
        };
        let dropped =
            if saying.intent == before && !refusal.deltas.is_empty() { whole(saying) } else { dropped };
        self.report_dropped(&saying.path, dropped, &refusal.reason);
        saying.intent != before
    }

    pub(super) fn report_dropped(&mut self, path: &Path, dropped: Option<Change>, reason: &str) {
        if let Some(change) = &dropped {
            self.let_go_of_refused(path, change);
        }
        self.reports.extend(dropped.map(|change| Report {
            delta: Delta { collection: path.collection.clone(), key: path.key.clone(), change },
            fate: Fate::Dropped { reason: reason.to_owned() },
        }));
    }

    /// How the relay found the node. To be taken in before the push's own result.
    pub fn absorb_lease(&mut self, admission: Admission, node: NodeId, incarnation: Incarnation) {
        let renamed = self.node.is_some_and(|(known, _)| known != node);
        let was_known = self.node.is_some();
        self.node = Some((node, incarnation));
        match admission {
            Admission::Readmitted if self.traps.has(Trap::Resend) => {
                self.seal_anew();
                self.push_no = PushNo(0);
            }
            Admission::Forked => self.seal_anew(),
            // A new id that nobody explained is treated as the worst that it can mean.
            Admission::Forgotten if was_known => self.forgotten(),
            _ if renamed => self.forgotten(),
            Admission::Renewed | Admission::Joined | Admission::Readmitted | Admission::Forgotten => {}
        }
        let ended = [Admission::Readmitted, Admission::Forked, Admission::Forgotten].contains(&admission);
        if ended || renamed {
            self.hold_up_again();
        }
    }

    /// Nobody knows the old id. What this very call carried cannot have been bound; what an earlier one did, may.
    fn forgotten(&mut self) {
        match self.sealed.take() {
            Some(push) if push.sent > 1 && !push.void => self.at_risk(push),
            Some(push) => self.outbox.put_back(push.said.into_list()),
            None => {}
        }
    }

    fn seal_anew(&mut self) {
        if let Some(push) = self.sealed.take() {
            self.outbox.put_back(push.said.into_list());
        }
    }

    /// Every delta is reported; what says the same however often it is applied is pushed again, the rest never.
    fn at_risk(&mut self, push: SealedPush) {
        let mut repeat = Vec::new();
        for mut saying in push.said.into_list() {
            let lost = each!(&mut saying.intent, it => it.without_repeats());
            let delta = |change| Delta {
                collection: saying.path.collection.clone(),
                key: saying.path.key.clone(),
                change,
            };
            let report = |delta, repeated| Report { delta, fate: Fate::Unknown { repeated } };
            self.reports.extend(lost.map(delta).map(|delta| report(delta, false)));
            self.reports.extend(delta_of(&saying).map(|delta| report(delta, true)));
            if !each!(&saying.intent, it => it.is_empty()) {
                repeat.push(saying);
            }
        }
        self.outbox.put_back(repeat);
    }
}

/// Takes everything out of a saying and returns it as a change.
fn whole(saying: &mut Saying) -> Option<Change> {
    each!(&mut saying.intent, it => it.whole())
}
