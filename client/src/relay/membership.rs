//! Who is alive, for callers that are no members.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dormouse_proto::wire::v1::{self, membership_client::MembershipClient};
use tonic::transport::Channel;

use super::{MemberWatch, Relay};
use crate::{connection::ANSWER_MAX, error::Reason, outcome::Durability};

/// What is known of a member's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberState {
    /// Not said.
    #[default]
    Unknown,
    /// Inside an invocation.
    Awake,
    /// Declared sleep.
    Asleep,
    /// The lease ran out; the mailbox is kept.
    Suspect,
    /// Ended.
    Gone,
}

/// Why a membership ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoneReason {
    /// It said so.
    Left,
    /// Its lease ran out.
    Expired,
    /// Somebody ended it.
    Evicted,
}

/// One member.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Member {
    /// Who.
    pub node_id: String,
    /// Rises with every re-admission; with the id it is a fencing token.
    pub incarnation: u64,
    /// What it runs.
    pub group: String,
    /// What is known of its life.
    pub state: MemberState,
    /// Why it ended.
    pub gone_reason: Option<GoneReason>,
    /// Of its join, re-admission or end.
    pub revision: u64,
    /// 0 to 1, from the group's wake gaps and death rate.
    pub p_alive: f32,
    /// Free labels; only in full views.
    pub tags: BTreeMap<String, String>,
    /// For display; only in full views.
    pub joined_at: Option<SystemTime>,
    /// For display; only in full views.
    pub last_seen: Option<SystemTime>,
    /// What is left of its lease; only in full views.
    pub lease_left: Duration,
}

/// Which members; all conditions must hold. The default is everybody who is not GONE.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemberFilter {
    /// One of these groups; empty: any.
    pub groups: Vec<String>,
    /// In one of these states; empty: any but GONE.
    pub states: Vec<MemberState>,
    /// At least this likely to be alive, 0 to 1.
    pub min_p_alive: f32,
    /// A Kubernetes label selector, at most 16 terms: `zone in (a,b),stage!=test,canary,!old`.
    pub tags: String,
}

/// How many members share some properties.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberCount {
    /// The properties: `state`, `group` or `tags.zone`.
    pub by: BTreeMap<String, String>,
    /// How many.
    pub members: u64,
    /// The sum of their probabilities to be alive.
    pub expected_alive: f64,
}

/// A change of the membership.
#[derive(Clone, Debug, PartialEq)]
pub enum MemberEvent {
    /// It is new to the watcher.
    Joined(Member),
    /// It was re-admitted.
    Changed(Member),
    /// It is a member no more.
    Ended(Member),
    /// It woke, fell asleep or became suspect.
    Activity(Member),
}

/// Why a member is believed to be in its state.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The member.
    pub member: Member,
    /// One sentence.
    pub summary: String,
    /// What it was concluded from.
    pub facts: Vec<(String, String)>,
}

/// What a relay says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayInfo {
    /// Its name.
    pub relay_id: String,
    /// Of its program.
    pub version: String,
    /// Its log.
    pub broker: String,
    /// What its log promises of what it has accepted.
    pub durability: Durability,
    /// What it has applied.
    pub revision: u64,
    /// Every bound by its name.
    pub limits: BTreeMap<String, u64>,
    /// Why its word is weaker than usual, in the contract's words: `EXPIRY_HELD`.
    pub conditions: Vec<String>,
}

impl Relay {
    /// All members that match, in the order of their ids, in full. Whoever is a member throughout appears once.
    ///
    /// # Errors
    /// When the relay refuses or is not reached.
    pub async fn members(&self, filter: &MemberFilter) -> Result<Vec<Member>, Reason> {
        let mut message = v1::ListMembersRequest {
            namespace: self.namespace.clone(),
            filter: Some(filter.to_wire()),
            page_size: 1_000,
            page_token: String::new(),
            view: v1::list_members_request::View::Full.into(),
        };
        let mut members = Vec::new();
        loop {
            let page = self
                .call(|channel, attempt| {
                    let request = attempt.request(message.clone());
                    async move { membership(channel).list_members(request).await }
                })
                .await?;
            members.extend(page.members.into_iter().map(Member::from_wire));
            if page.next_page_token.is_empty() {
                return Ok(members);
            }
            message.page_token = page.next_page_token;
        }
    }

    /// One member in full, or what is left of it.
    ///
    /// # Errors
    /// `NODE_UNKNOWN`, or when the relay refuses or is not reached.
    pub async fn member(&self, node_id: &str) -> Result<Member, Reason> {
        let message = v1::GetMemberRequest { namespace: self.namespace.clone(), node_id: node_id.to_owned() };
        let answer = self
            .call(|channel, attempt| {
                let request = attempt.request(message.clone());
                async move { membership(channel).get_member(request).await }
            })
            .await?;
        Ok(Member::from_wire(answer.member.unwrap_or_default()))
    }

    /// Counts members by at most three of `state`, `group` and `tags.<name>`.
    ///
    /// # Errors
    /// When the relay refuses or is not reached.
    pub async fn count(&self, filter: &MemberFilter, group_by: &[&str]) -> Result<Vec<MemberCount>, Reason> {
        let message = v1::CountMembersRequest {
            namespace: self.namespace.clone(),
            filter: Some(filter.to_wire()),
            group_by: group_by.iter().map(|name| (*name).to_owned()).collect(),
        };
        let answer = self
            .call(|channel, attempt| {
                let request = attempt.request(message.clone());
                async move { membership(channel).count_members(request).await }
            })
            .await?;
        let count = |it: v1::MemberCount| MemberCount {
            by: it.by,
            members: it.members,
            expected_alive: it.expected_alive,
        };
        Ok(answer.counts.into_iter().map(count).collect())
    }

    /// Why a member is believed to be in its state.
    ///
    /// # Errors
    /// `NODE_UNKNOWN`, or when the relay refuses or is not reached.
    pub async fn explain(&self, node_id: &str) -> Result<Explanation, Reason> {
        let message =
            v1::ExplainMemberRequest { namespace: self.namespace.clone(), node_id: node_id.to_owned() };
        let answer = self
            .call(|channel, attempt| {
                let request = attempt.request(message.clone());
                async move { membership(channel).explain_member(request).await }
            })
            .await?;
        Ok(Explanation {
            member: Member::from_wire(answer.member.unwrap_or_default()),
            summary: answer.summary,
            facts: answer.facts.into_iter().map(|fact| (fact.name, fact.value)).collect(),
        })
    }

    /// Changes of the membership. Without `after_revision` everybody is named first; with it, who changed since.
    /// `activity` also tells who wakes and falls asleep, live only.
    ///
    /// # Errors
    /// When the relay refuses or is not reached.
    pub async fn watch_members(
        &self,
        filter: &MemberFilter,
        after_revision: Option<u64>,
        activity: bool,
    ) -> Result<MemberWatch, Reason> {
        let message = v1::WatchMembersRequest {
            namespace: self.namespace.clone(),
            filter: Some(filter.to_wire()),
            after_revision,
            activity,
        };
        let stream = self
            .call(|channel, attempt| {
                let request = attempt.stream(message.clone());
                async move { membership(channel).watch_members(request).await }
            })
            .await?;
        Ok(MemberWatch(stream))
    }

    /// Ends a membership. The node is told at its next call.
    ///
    /// # Errors
    /// `NODE_UNKNOWN`, `NODE_GONE`, or when the relay refuses or is not reached.
    pub async fn evict(&self, node_id: &str, reason: &str) -> Result<Member, Reason> {
        let message = v1::EvictMemberRequest {
            namespace: self.namespace.clone(),
            node_id: node_id.to_owned(),
            reason: reason.to_owned(),
        };
        let answer = self
            .call(|channel, attempt| {
                let request = attempt.request(message.clone());
                async move { membership(channel).evict_member(request).await }
            })
            .await?;
        Ok(Member::from_wire(answer.member.unwrap_or_default()))
    }

    /// What the relay says of itself.
    ///
    /// # Errors
    /// When the relay refuses or is not reached.
    pub async fn info(&self) -> Result<RelayInfo, Reason> {
        let answer = self
            .call(|channel, attempt| {
                let request = attempt.request(v1::GetRelayRequest {});
                async move { membership(channel).get_relay(request).await }
            })
            .await?;
        let info = answer.relay.unwrap_or_default();
        let conditions = info.conditions().map(|it| it.as_str_name().to_owned()).collect();
        Ok(RelayInfo {
            conditions,
            relay_id: info.relay_id,
            version: info.version,
            broker: info.broker,
            durability: Durability::from_wire(info.durability),
            revision: info.revision,
            limits: info.limits,
        })
    }
}

fn membership(channel: Channel) -> MembershipClient<Channel> {
    MembershipClient::new(channel).max_decoding_message_size(ANSWER_MAX)
}

impl MemberFilter {
    fn to_wire(&self) -> v1::MemberFilter {
        v1::MemberFilter {
            groups: self.groups.clone(),
            states: self.states.iter().map(|state| state.to_wire().into()).collect(),
            min_p_alive: self.min_p_alive,
            tags: self.tags.clone(),
        }
    }
}

impl MemberState {
    const fn to_wire(self) -> v1::member::State {
        match self {
            Self::Unknown => v1::member::State::Unspecified,
            Self::Awake => v1::member::State::Awake,
            Self::Asleep => v1::member::State::Asleep,
            Self::Suspect => v1::member::State::Suspect,
            Self::Gone => v1::member::State::Gone,
        }
    }

    const fn from_wire(state: v1::member::State) -> Self {
        match state {
            v1::member::State::Unspecified => Self::Unknown,
            v1::member::State::Awake => Self::Awake,
            v1::member::State::Asleep => Self::Asleep,
            v1::member::State::Suspect => Self::Suspect,
            v1::member::State::Gone => Self::Gone,
        }
    }
}

impl Member {
    fn from_wire(it: v1::Member) -> Self {
        let gone_reason = match it.gone_reason() {
            v1::member::GoneReason::Unspecified => None,
            v1::member::GoneReason::Left => Some(GoneReason::Left),
            v1::member::GoneReason::Expired => Some(GoneReason::Expired),
            v1::member::GoneReason::Evicted => Some(GoneReason::Evicted),
        };
        Self {
            state: MemberState::from_wire(it.state()),
            gone_reason,
            node_id: it.node_id,
            incarnation: it.incarnation,
            group: it.group,
            revision: it.revision,
            p_alive: it.p_alive,
            tags: it.tags,
            joined_at: it.joined_at.and_then(time),
            last_seen: it.last_seen.and_then(time),
            lease_left: Duration::from_millis(it.lease_left_ms.into()),
        }
    }
}

fn time(at: prost_types::Timestamp) -> Option<SystemTime> {
    let since = Duration::new(u64::try_from(at.seconds).ok()?, u32::try_from(at.nanos).ok()?);
    UNIX_EPOCH.checked_add(since)
}

impl MemberEvent {
    pub(super) fn from_wire(it: v1::MemberEvent) -> Option<Self> {
        use v1::member_event::Kind;
        let kind = it.kind();
        let member = Member::from_wire(it.member?);
        match kind {
            Kind::Unspecified => None,
            Kind::Joined => Some(Self::Joined(member)),
            Kind::Changed => Some(Self::Changed(member)),
            Kind::Ended => Some(Self::Ended(member)),
            Kind::Activity => Some(Self::Activity(member)),
        }
    }
}
