//! What a relay's reader does: applies frames, and tells the keeper of them.

use dormouse_proto::{
    ids::{Namespace, NodeId},
    record::{Frame, Record},
    traps::Trap,
};
use dormouse_relay::{
    keeper::{activity_of, evidence_of},
    liveness::{Ended, Evidence, LeaseKey, Millis, Restored, Session, Timestamp},
    state::{Fold, JoinVerdict, Verdict},
};

use crate::relay::{Phase, Relay};

impl Relay {
    /// Applies the next frame of the log.
    pub(crate) fn apply(&mut self, now: u64, frame: &Frame) {
        let (at, by) = (self.now(now), Session(frame.header.session));
        let own = by.0 == self.session;
        let mut fold = std::mem::take(&mut self.fold);
        let mut verdicts = Vec::new();
        fold.apply_frame(frame, |fold, _, record, verdict| {
            if self.phase == Phase::Serving {
                self.witness(at, by, fold, record, &verdict);
            }
            if self.log_time.0 != fold.log_time_ms() {
                self.log_time = (fold.log_time_ms(), at);
            }
            verdicts.push(verdict);
        });
        self.fold = fold;
        self.applied += 1;
        if self.phase == Phase::Serving {
            if self.has_trap == Some(Trap::HeaderTells) {
                self.is_stirred |= self.company.told(by, frame.header.applied_position);
            }
            self.is_stirred |= self.company.placed(at, by, self.applied as u64);
        }
        if own && let Some(pending) = self.pending.get_mut(&frame.header.counter) {
            pending.verdicts.get_or_insert(verdicts);
        }
        if own && self.phase == Phase::Opening {
            self.begin(at);
        }
    }

    /// The Open was read back: from here on it serves.
    fn begin(&mut self, at: Timestamp) {
        self.phase = Phase::Serving;
        self.log_time = (self.fold.log_time_ms(), at);
        let restored: Vec<Restored> = self.members().collect();
        self.company.begin(at, Session(self.session), restored);
    }

    fn members(&self) -> impl Iterator<Item = Restored> {
        let log_time_ms = self.fold.log_time_ms();
        let view = self.fold.namespace(&Namespace::default());
        view.into_iter().flat_map(move |view| {
            view.members().iter().map(move |(node, member)| Restored {
                key: LeaseKey { namespace: view.number(), node: *node },
                group: member.group.clone(),
                evidence: Evidence {
                    incarnation: member.incarnation,
                    beat: member.soft.beat,
                    activity: activity_of(member.soft.asleep, 0),
                    ttl: Millis(member.soft.ends_at_ms.saturating_sub(log_time_ms)),
                },
                holder: Session(member.soft.holder),
            })
        })
    }

    fn witness(&mut self, at: Timestamp, by: Session, fold: &Fold, record: &Record, verdict: &Verdict) {
        let Some(view) = fold.namespace(&Namespace::default()) else { return };
        let key = |node| LeaseKey { namespace: view.number(), node };
        let leases = self.company.leases();
        match (record, verdict) {
            (Record::Push(push), _) => {
                if let Some(contact) = push.contact {
                    let evidence = evidence_of(push.incarnation, contact);
                    leases.evidence_applied(at, key(push.node), &evidence, by);
                }
            }
            (Record::Join(join), Verdict::Join(JoinVerdict::Admitted { .. })) => {
                let contact = join.contact.expect("every Join of this world has one");
                let evidence = evidence_of(join.incarnation, contact);
                leases.admitted(at, key(join.node), &join.group, &evidence, by);
            }
            (Record::Gone(gone), Verdict::Gone(true)) => {
                leases.ended(at, key(gone.node), gone.incarnation, Ended::Silent);
                self.company.forget_contact(key(gone.node));
            }
            (Record::Gone(gone), _) => {
                leases.gone_rejected(at, key(gone.node), gone.incarnation, gone.beat);
            }
            (Record::Digest(digest), _) => {
                for mark in &digest.suspects {
                    self.company.asked(at, by, (key(mark.node), mark.incarnation, mark.beat));
                }
                if self.has_trap != Some(Trap::HeaderTells) {
                    self.is_stirred |= self.company.told(by, digest.told_upto);
                }
                for heard in &digest.evidence {
                    let evidence = evidence_of(heard.incarnation, heard.contact);
                    leases.evidence_applied(at, key(heard.node), &evidence, by);
                }
            }
            _ => {}
        }
    }

    /// How many of these nodes are not members for the fold and the leases alike, in the same incarnation.
    pub(crate) fn disagreements(&self, now: u64, nodes: impl Iterator<Item = NodeId>) -> usize {
        let view = self.fold.namespace(&Namespace::default());
        let differs = |node: &NodeId| {
            let member = view.as_ref().and_then(|view| view.member(*node)).map(|it| it.incarnation);
            let lease = self.key(*node).and_then(|key| self.company.leases().view(key, self.now(now)));
            lease.map(|it| it.incarnation) != member
        };
        nodes.filter(differs).count()
    }
}
