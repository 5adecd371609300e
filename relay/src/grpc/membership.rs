//! The Membership service: who is alive, as far as anybody can know.

use std::{collections::BTreeMap, pin::Pin, time::Duration};

use dormouse_proto::{
    convert::{Violation, Violations},
    ids::{Beat, Namespace, NodeId, Revision},
    record::{Cause, Gone, Record},
    wire::{
        encoded::WatchMembersResponse,
        services::membership_server::Membership,
        v1::{self, list_members_request::View as Detail},
    },
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::{Service, caller, encode, namespace, patience, selector::Filter, watch::Watcher};
use crate::{
    access::Caller,
    error::RelayError,
    state::{Fold, Verdict},
};

/// Members of a page, when the caller does not say.
const PAGE: usize = 100;
/// Members of a page at the most.
const PAGE_MAX: usize = 1_000;
/// What members are counted by, at the most.
const GROUP_BY: usize = 3;
/// Longest reason of an eviction, in bytes.
const REASON_BYTES: usize = 256;

#[tonic::async_trait]
impl Membership for Service {
    type WatchMembersStream = Pin<Box<dyn Stream<Item = Result<WatchMembersResponse, Status>> + Send>>;

    async fn list_members(
        &self,
        request: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        let caller = caller(request.extensions()).map_err(|error| self.refused(error))?;
        Ok(Response::new(self.list(&caller, request.into_inner()).map_err(|error| self.refused(error))?))
    }

    async fn get_member(
        &self,
        request: Request<v1::GetMemberRequest>,
    ) -> Result<Response<v1::GetMemberResponse>, Status> {
        let caller = caller(request.extensions()).map_err(|error| self.refused(error))?;
        let v1::GetMemberRequest { namespace: name, node_id } = request.into_inner();
        let member = self.find(&caller, name, &node_id).map_err(|error| self.refused(error))?;
        Ok(Response::new(v1::GetMemberResponse { member: Some(member), conditions: self.conditions() }))
    }

    async fn count_members(
        &self,
        request: Request<v1::CountMembersRequest>,
    ) -> Result<Response<v1::CountMembersResponse>, Status> {
        let caller = caller(request.extensions()).map_err(|error| self.refused(error))?;
        Ok(Response::new(self.count(&caller, request.into_inner()).map_err(|error| self.refused(error))?))
    }

    async fn explain_member(
        &self,
        request: Request<v1::ExplainMemberRequest>,
    ) -> Result<Response<v1::ExplainMemberResponse>, Status> {
        let caller = caller(request.extensions()).map_err(|error| self.refused(error))?;
        let v1::ExplainMemberRequest { namespace: name, node_id } = request.into_inner();
        Ok(Response::new(self.explain(&caller, name, &node_id).map_err(|error| self.refused(error))?))
    }

    async fn watch_members(
        &self,
        request: Request<v1::WatchMembersRequest>,
    ) -> Result<Response<Self::WatchMembersStream>, Status> {
        let caller = caller(request.extensions()).map_err(|error| self.refused(error))?;
        let v1::WatchMembersRequest { namespace: name, filter, after_revision, activity } =
            request.into_inner();
        let namespace = namespace(&caller, name).map_err(|error| self.refused(error))?;
        let filter = Filter::from_wire(filter).map_err(|wrong| self.refused(wrong.into()))?;
        if filter.names_states() && !activity {
            let why = "states come and go without a revision: a filter by state needs activity";
            return Err(self.refused(invalid("filter.states", why)).into());
        }
        let after = after_revision.map(Revision);
        let stream = self.watch_events(&caller, Watcher::new(namespace, filter, after), activity);
        let stream = stream.map_err(|error| self.refused(error))?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn evict_member(
        &self,
        request: Request<v1::EvictMemberRequest>,
    ) -> Result<Response<v1::EvictMemberResponse>, Status> {
        let patience = patience::of(request.metadata());
        let caller = caller(request.extensions()).map_err(|error| self.refused(error))?;
        let member =
            self.evict(&caller, request.into_inner(), patience).await.map_err(|error| self.refused(error))?;
        Ok(Response::new(v1::EvictMemberResponse { member: Some(member) }))
    }

    async fn get_relay(
        &self,
        request: Request<v1::GetRelayRequest>,
    ) -> Result<Response<v1::GetRelayResponse>, Status> {
        let caller = caller(request.extensions()).map_err(|error| self.refused(error))?;
        let relay = self.about(&caller).await;
        Ok(Response::new(v1::GetRelayResponse { relay: Some(relay) }))
    }
}

fn invalid(field: &str, description: impl ToString) -> RelayError {
    RelayError::Invalid(Violations(vec![Violation::new(field, description)]))
}

/// A node by its name.
pub(super) fn node(node_id: &str) -> Result<NodeId, RelayError> {
    node_id.parse().map_err(|error| invalid("node_id", error))
}

impl Service {
    fn list(
        &self,
        caller: &Caller,
        request: v1::ListMembersRequest,
    ) -> Result<v1::ListMembersResponse, RelayError> {
        let full = request.view() == Detail::Full;
        let v1::ListMembersRequest { namespace: name, filter, page_size, page_token, view: _ } = request;
        let (namespace, filter) = (namespace(caller, name)?, Filter::from_wire(filter)?);
        let after: Option<NodeId> = match page_token.as_str() {
            "" => None,
            token => Some(token.parse().map_err(|_| RelayError::PageTokenInvalid)?),
        };
        let size = match page_size as usize {
            0 => PAGE,
            size => size.min(PAGE_MAX),
        };
        let applied = self.relay.sequencer.read();
        let fold = &applied.fold;
        let mut members = Vec::new();
        let mut next_page_token = String::new();
        for member in self.members(fold, &namespace, &filter, after) {
            if members.len() == size {
                next_page_token =
                    members.last().map_or_else(String::new, |last: &v1::Member| last.node_id.clone());
                break;
            }
            members.push(if full { member } else { brief(member) });
        }
        let revision = fold.revision().0;
        Ok(v1::ListMembersResponse { members, next_page_token, revision, conditions: self.conditions() })
    }

    /// Members that match, by node id: live ones, and ended ones if they are asked for.
    fn members<'a>(
        &'a self,
        fold: &'a Fold,
        namespace: &'a Namespace,
        filter: &'a Filter,
        after: Option<NodeId>,
    ) -> impl Iterator<Item = v1::Member> + 'a {
        let view = fold.namespace(namespace);
        let mut nodes: Vec<NodeId> = Vec::new();
        if let Some(view) = view {
            nodes.extend(
                view.members().keys().copied().filter(|node| after.is_none_or(|after| *node > after)),
            );
            if filter.state(v1::member::State::Gone) {
                let ended = view
                    .roster_entries()
                    .filter(|(_, entry)| entry.gone.is_some())
                    .map(|(_, entry)| entry.node);
                nodes.extend(ended.filter(|node| after.is_none_or(|after| *node > after)));
                nodes.sort_unstable();
            }
        }
        nodes
            .into_iter()
            .filter_map(move |node| self.any_member(fold, namespace, node))
            .filter(|member| encode::matches(filter, member))
    }

    /// A member or an ended one, as it is now.
    pub(super) fn any_member(&self, fold: &Fold, namespace: &Namespace, node: NodeId) -> Option<v1::Member> {
        self.member(fold, namespace, node, true).or_else(|| {
            let (revision, entry) = fold.namespace(namespace)?.roster_entry(node)?;
            Some(encode::ended_member(revision.0, entry))
        })
    }

    /// What this relay has counted since it started.
    fn find(&self, caller: &Caller, name: String, node_id: &str) -> Result<v1::Member, RelayError> {
        let namespace = namespace(caller, name)?;
        let node = node(node_id)?;
        let applied = self.relay.sequencer.read();
        self.any_member(&applied.fold, &namespace, node)
            .ok_or_else(|| RelayError::NodeUnknown(node_id.to_owned()))
    }

    fn count(
        &self,
        caller: &Caller,
        request: v1::CountMembersRequest,
    ) -> Result<v1::CountMembersResponse, RelayError> {
        let v1::CountMembersRequest { namespace: name, filter, group_by } = request;
        let (namespace, filter) = (namespace(caller, name)?, Filter::from_wire(filter)?);
        if group_by.len() > GROUP_BY {
            let too_many = Violation::too_large("group_by", group_by.len(), GROUP_BY, "names");
            return Err(RelayError::Invalid(too_many.into()));
        }
        if let Some(nth) = group_by
            .iter()
            .position(|by| !matches!(by.as_str(), "state" | "group") && !by.starts_with("tags."))
        {
            return Err(invalid(&format!("group_by[{nth}]"), "must be state, group or tags.NAME"));
        }
        let applied = self.relay.sequencer.read();
        let mut counts: BTreeMap<Vec<String>, (u64, f64)> = BTreeMap::new();
        for member in self.members(&applied.fold, &namespace, &filter, None) {
            let by = group_by.iter().map(|by| value_of(&member, by)).collect();
            let (members, alive) = counts.entry(by).or_default();
            *members += 1;
            *alive += f64::from(member.p_alive);
        }
        if group_by.is_empty() {
            counts.entry(Vec::new()).or_default();
        }
        let number = applied.fold.namespace(&namespace).map(|view| view.number());
        let by_group = group_by == ["group"];
        let counts = counts.into_iter().map(|(values, (members, expected_alive))| {
            let group = values.first().filter(|_| by_group).and_then(|name| name.parse().ok());
            let learned =
                number.zip(group).and_then(|(number, group)| self.relay.keeper.learned(number, &group));
            let by = group_by.iter().cloned().zip(values).collect();
            encode::count(
                v1::MemberCount { by, members, expected_alive, ..Default::default() },
                learned.as_ref(),
            )
        });
        let revision = applied.fold.revision().0;
        Ok(v1::CountMembersResponse { counts: counts.collect(), revision, conditions: self.conditions() })
    }

    /// Members by state, from counters: what every Sync answers.
    pub(super) fn member_counts(&self, namespace: u32, revision: Revision) -> v1::MemberCounts {
        let counts = self.relay.keeper.counts(namespace);
        v1::MemberCounts {
            awake: encode::millis(counts.awake),
            asleep: encode::millis(counts.asleep),
            suspect: encode::millis(counts.suspect),
            expected_alive: encode::likely(self.relay.keeper.expected_alive(namespace)),
            revision: revision.0,
        }
    }

    async fn evict(
        &self,
        caller: &Caller,
        request: v1::EvictMemberRequest,
        patience: Duration,
    ) -> Result<v1::Member, RelayError> {
        let v1::EvictMemberRequest { namespace: name, node_id, reason } = request;
        let namespace = namespace(caller, name)?;
        let node = node(&node_id)?;
        if reason.len() > REASON_BYTES {
            return Err(RelayError::Invalid(
                Violation::too_large("reason", reason.len(), REASON_BYTES, "bytes").into(),
            ));
        }
        let known = {
            let applied = self.relay.sequencer.read();
            applied
                .fold
                .namespace(&namespace)
                .and_then(|view| view.member(node))
                .map(|member| member.incarnation)
        };
        let incarnation = known.ok_or_else(|| RelayError::NodeUnknown(node_id.clone()))?;
        let gone = Gone {
            namespace: namespace.clone(),
            node,
            incarnation,
            cause: Cause::Evicted,
            beat: Beat(0),
            reason,
        };
        let outcome = self.relay.sequencer.write(Record::Gone(gone), 512, None, patience).await?;
        if outcome.verdict != Verdict::Gone(true) {
            return Err(RelayError::NodeUnknown(node_id));
        }
        let applied = self.relay.sequencer.read();
        self.any_member(&applied.fold, &namespace, node).ok_or(RelayError::NodeUnknown(node_id))
    }
}

fn value_of(member: &v1::Member, by: &str) -> String {
    match by {
        "state" => member.state().as_str_name().to_owned(),
        "group" => member.group.clone(),
        tag => tag.strip_prefix("tags.").and_then(|tag| member.tags.get(tag)).cloned().unwrap_or_default(),
    }
}

/// Without what only the FULL view has.
fn brief(member: v1::Member) -> v1::Member {
    v1::Member { tags: BTreeMap::new(), joined_at: None, last_seen: None, lease_left_ms: 0, ..member }
}
