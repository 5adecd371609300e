//! What happens beside the round trips of nodes: messages, reads of single keys, writes of callers that are no nodes,
//! limits that change, time that passes.

use dormouse::{Path, simulation};
use dormouse_proto::{
    ids::{Collection, Key, NodeId, OnceId, Revision},
    lattice::{
        Append, Change, CounterDelta, Delta, EventsDelta, FlagDelta, GrowOnlySetDelta, GuardedAdd, Once,
        RegisterDelta, Remove, RemoveWinsSetDelta, Reset, SetDelta, SiblingsDelta, Type,
    },
    record::{Digest, Policy, Record, Send, Write},
    wire::v1,
};

use crate::{
    namespace,
    rows::{self, RowNo},
    told::told,
    truth::{Letter, read_key},
    violation::{Violation, ensure, violation},
    world::World,
};

// ---- messages ----

impl World {
    /// Somebody sends a message to a node, or sends an earlier one again because no answer came.
    ///
    /// # Errors
    /// What the fold did and the reference would not.
    pub fn send(&mut self, node: usize, relay: usize) -> Result<(), Violation> {
        let send = if !self.sent.is_empty() && self.chance(0.35) {
            self.sent[self.rng.usize(..self.sent.len())].clone()
        } else {
            let Some(id) = self.nodes[node].id() else { return Ok(()) };
            let ttl_ms = if self.chance(0.3) { self.rng.u64(1..120) } else { 1 << 30 };
            let send = Send {
                namespace: namespace(self.nodes[node].space).clone(),
                node: id,
                message_id: self.rng.u64(..).to_string().parse().expect("an id"),
                sender: "somebody".into(),
                payload: self.content(),
                ttl_ms,
            };
            self.sent.push(send.clone());
            send
        };
        let told = format!("{} to {}", send.message_id, send.node);
        let verdict = self.write(relay, Record::Send(send))?;
        self.say(|| format!("message {told}: {verdict:?}"));
        Ok(())
    }

    /// Every message that a chunk carries is one that waits for the node.
    pub(crate) fn check_told_letters(
        &self,
        node: usize,
        relay: usize,
        answer: &v1::SyncResponse,
        chunk: &v1::Chunk,
    ) -> Result<(), Violation> {
        let space = self.nodes[node].space;
        let Some(id) = answer.lease.as_ref().and_then(|lease| lease.node_id.parse::<NodeId>().ok()) else {
            return Ok(());
        };
        for message in &chunk.inbox {
            let payload = message.payload.clone().and_then(|it| it.try_into().ok());
            let same = |letter: &Letter| {
                letter.at == message.revision
                    && letter.id == message.message_id
                    && Some(&letter.payload) == payload.as_ref()
            };
            let waits = self.truth_of(relay).letters(space, id, chunk.as_of).any(same);
            ensure(waits, || format!("mail: node {node} is told of {message:?} as of {}", chunk.as_of))?;
        }
        Ok(())
    }

    /// The program takes its messages: each once, in the order in which the log accepted them.
    pub(crate) fn take_letters(&mut self, node: usize, relay: usize) -> Result<(), Violation> {
        let it = &mut self.nodes[node];
        let arrived = it.replica.take_inbox();
        for message in arrived {
            let in_order = message.revision.0 > it.newest_letter;
            it.newest_letter = message.revision.0;
            let id = message.message_id;
            ensure(in_order && it.letters.insert(id.clone()), || {
                format!("mail: node {node} gets message {id} twice, or late, from relay {relay}")
            })?;
            let me = it.id().ok_or_else(|| violation("mail: a message to nobody"))?;
            self.registry.delivered.insert((me, id));
            self.stats.letters += 1;
        }
        Ok(())
    }

    /// A node that is caught up has every message that waited for it.
    pub(crate) fn check_letters(&self, node: usize, relay: usize, at: u64) -> Result<(), Violation> {
        let it = &self.nodes[node];
        let Some(id) = it.id() else { return Ok(()) };
        let mut waiting = self.truth_of(relay).letters(it.space, id, at);
        let missing = waiting.find(|letter| !it.letters.contains(&letter.id));
        ensure(missing.is_none(), || format!("mail: node {node}, caught up as of {at}, lacks {missing:?}"))
    }
}

// ---- reads ----

impl World {
    /// A node reads one key on its own, at any time.
    ///
    /// # Errors
    /// A row that is not what it was.
    pub fn read(&mut self, node: usize, relay: usize) -> Result<(), Violation> {
        let head = self.nodes[node].replica.head();
        if self.relays[relay].connected && self.relays[relay].revision() < head {
            self.catch_up(relay, self.log.len())?;
        }
        let (it, space) = (&self.relays[relay], self.nodes[node].space);
        // Only a chunk can say that a history is lost: until then a read of another history would hide that it is.
        if !it.has_state || it.revision() < head || !it.machine.fold.is_valid(head) {
            return Ok(());
        }
        let row = self.palette[self.rng.usize(..self.palette.len())];
        let path = &rows::all()[row].path;
        let key: Vec<RowNo> = (0..rows::all().len()).filter(|row| rows::all()[*row].path == *path).collect();
        let it = &self.relays[relay];
        let keys = read_key(&it.machine.fold, space, path.collection.as_str(), path.key.as_str());
        let at = it.revision();
        self.say(|| format!("node {node} reads {path} at relay {relay} as of {at}"));
        if self.chance(self.loss) {
            return Ok(());
        }
        let all_told = told(&keys).map_err(violation)?;
        self.check_told(node, relay, &all_told, at.0)?;
        let it = &mut self.nodes[node];
        simulation::absorb_read(&mut it.replica, at, std::slice::from_ref::<Path>(path), keys);
        for row in &key {
            it.shadow.fetch(*row);
        }
        let truth = &self.truths[self.relays[relay].history];
        for told in &all_told {
            it.shadow.show(told.row, at.0, truth.dots(space, told.row, at.0));
        }
        self.stats.reads += 1;
        self.check_read(node, relay, &key, at.0)
    }
}

// ---- writes of callers that are no nodes ----

impl World {
    /// A back end writes one key, or repeats a write.
    ///
    /// # Errors
    /// What the fold did and the reference would not.
    pub fn back_end(&mut self, relay: usize) -> Result<(), Violation> {
        let row = self.palette[self.rng.usize(..self.palette.len())];
        let floods = rows::all()[row].kind == Type::Siblings && self.chance(0.02);
        // More siblings than may stand side by side, each by somebody who has seen none of them.
        for _ in 0..if floods { 70 } else { 1 } {
            let Some(change) = self.change(row, floods) else { return Ok(()) };
            let space = usize::from(self.faults.second && self.chance(0.3));
            let path = &rows::all()[row].path;
            let (collection, key): (Collection, Key) = (path.collection.clone(), path.key.clone());
            let request_id =
                if floods { self.rng.u64(..).to_string().parse().expect("an id") } else { self.once_id() };
            self.say(|| format!("a back end writes {} in {space}: {change:?}", rows::name(row)));
            let write = Write {
                namespace: namespace(space).clone(),
                request_id,
                deltas: vec![Delta { collection, key, change }],
            };
            self.write(relay, Record::Write(write))?;
        }
        Ok(())
    }

    fn change(&mut self, row: RowNo, floods: bool) -> Option<Change> {
        let it = &rows::all()[row];
        let (on, content, id) = (self.chance(0.6), self.content(), self.once_id());
        let element: Vec<_> = it.element.clone().into_iter().collect();
        let (add, remove) = if on { (element, Vec::new()) } else { (Vec::new(), element) };
        Some(match it.kind {
            Type::Set => {
                let remove = (!on).then_some(Remove { elements: remove, as_of: None });
                Change::Set(SetDelta { add, remove: remove.into_iter().collect() })
            }
            Type::GrowOnlySet => Change::GrowOnlySet(GrowOnlySetDelta { add: [add, remove].concat() }),
            Type::RemoveWinsSet => {
                let add = on.then_some(GuardedAdd { elements: add, as_of: None });
                Change::RemoveWinsSet(RemoveWinsSetDelta { add: add.into_iter().collect(), remove })
            }
            Type::Flag => Change::Flag(FlagDelta { on, as_of: None }),
            Type::DisableWinsFlag => Change::DisableWinsFlag(FlagDelta { on, as_of: None }),
            Type::Counter => {
                let once = on.then_some(Once { id, amount: 7 }).into_iter().collect();
                let reset = (!on).then_some(Reset { as_of: None, total: 0 });
                Change::Counter(CounterDelta { reset, amount: i64::from(self.chance(0.5)), once })
            }
            Type::Register => {
                let (stamp_ms, value) = (if self.chance(0.5) { 0 } else { self.now }, on.then_some(content));
                Change::Register(RegisterDelta { value, stamp_ms, as_of: None })
            }
            Type::Max => Change::Max(self.rng.i64(-20..20)),
            Type::Min => Change::Min(self.rng.i64(-20..20)),
            Type::Siblings => {
                let as_of = (floods || self.chance(0.5)).then_some(Revision::ZERO);
                Change::Siblings(SiblingsDelta { value: (on || floods).then_some(content), as_of })
            }
            Type::Events => {
                let id: Option<OnceId> = self.chance(0.5).then_some(id);
                let more = Append { payload: self.content(), id: None };
                let append = vec![Append { payload: content, id }, more];
                Change::Events(EventsDelta { append, trim_upto: Revision::ZERO })
            }
            Type::Presence => return None,
        })
    }
}

// ---- limits and time ----

impl World {
    /// Limits change under way.
    ///
    /// # Errors
    /// What the fold did and the reference would not.
    pub fn change_limits(&mut self, relay: usize) -> Result<(), Violation> {
        let few = [4, 8, 12, 20, 1_000];
        let policy = Policy {
            namespace: (self.faults.second && self.chance(0.3)).then(|| namespace(1).clone()),
            rows_max: Some(few[self.rng.usize(..few.len())]),
            bytes_max: self.by_bytes.then(|| 120 * few[self.rng.usize(..few.len())]),
            nodes_max: Some(self.rng.u64(2..9)),
            inbox_max: Some(self.rng.u64(1..5)),
            ..Policy::default()
        };
        self.say(|| format!("limits are now {policy:?}"));
        self.write(relay, Record::Policy(policy))?;
        Ok(())
    }

    /// A relay tells what time it is.
    ///
    /// # Errors
    /// What the fold did and the reference would not.
    pub fn tell_time(&mut self, relay: usize) -> Result<(), Violation> {
        let log_time_ms = self.now.saturating_sub(self.rng.u64(..20));
        self.write(relay, Record::Digest(Digest { log_time_ms, ..Digest::default() }))?;
        Ok(())
    }
}
