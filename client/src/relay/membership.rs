//! Who is alive, for callers that are no members.

mod wire;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use dormouse_proto::wire::v1::{self, membership_client::MembershipClient};
use tonic::transport::Channel;

use super::{MemberWatch, Relay};
use crate::{connection::ANSWER_MAX, error::Reason, outcome::Durability};

/// The most members that one page may hold.
const PAGE_MAX: u32 = 1_000;

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
    /// Pushes that it has sealed, as far as they arrived.
    pub pushes: u64,
    /// Records in the log that it had not been shown when the relay last heard of it.
    pub behind: u64,
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
    /// Half of the group's sleeps end within this time. It and the next two are told only where members are counted by
    /// `group` and nothing else, and once they are known.
    pub wake_gap_p50: Option<Duration>,
    /// 99 of 100 sleeps end within this time.
    pub wake_gap_p99: Option<Duration>,
    /// What a member that falls asleep now is granted, before its jitter.
    pub asleep_lease: Option<Duration>,
}

/// The number of live members fell below what the relay's owner wants, or is there again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloorEvent {
    /// Its name in the relay's configuration.
    pub floor: String,
    /// Of the tag that it counts by; empty: it counts all that match.
    pub value: String,
    /// AWAKE and ASLEEP members.
    pub live: u64,
    /// How many there should be.
    pub minimum: u64,
    /// Whether there are fewer.
    pub below: bool,
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
    /// What has happened since it started, in all namespaces, by name: `joins`, `readmissions`, `ends`, `false_deaths`,
    /// `pushes`, `pulls`; and `uptime_ms` and `state_bytes`. An older relay tells none.
    pub counters: BTreeMap<String, u64>,
    /// What its clock says. An older relay does not tell.
    pub now: Option<SystemTime>,
    /// The namespaces that hold anything, at most 100; empty for callers who may not use all of them.
    pub namespaces: Vec<String>,
    /// The position of the newest frame in its log, if that could be asked.
    pub log_newest: Option<u64>,
    /// The position of the newest frame that it has applied.
    pub log_applied: u64,
    /// Room where an embedded log is kept, in bytes.
    pub store_free_bytes: Option<u64>,
}

impl Relay {
    /// All members that match, in the order of their ids, in full. Whoever is a member throughout appears once.
    ///
    /// # Errors
    /// When the relay refuses or is not reached.
    pub async fn members(&self, filter: &MemberFilter) -> Result<Vec<Member>, Reason> {
        let mut members = Vec::new();
        let mut token = String::new();
        loop {
            let page = self.member_page(filter, PAGE_MAX, token).await?;
            members.extend(page.members.into_iter().map(Member::from_wire));
            if page.next_page_token.is_empty() {
                return Ok(members);
            }
            token = page.next_page_token;
        }
    }

    /// The first members that match, in the order of their ids, in full: at most `at_most` of 1 to 1,000. For whoever
    /// shows some; [`members`](Self::members) brings all of them.
    ///
    /// # Errors
    /// When the relay refuses or is not reached.
    pub async fn first_members(&self, filter: &MemberFilter, at_most: u32) -> Result<Vec<Member>, Reason> {
        let page = self.member_page(filter, at_most.clamp(1, PAGE_MAX), String::new()).await?;
        Ok(page.members.into_iter().map(Member::from_wire).collect())
    }

    async fn member_page(
        &self,
        filter: &MemberFilter,
        page_size: u32,
        page_token: String,
    ) -> Result<v1::ListMembersResponse, Reason> {
        let message = v1::ListMembersRequest {
            namespace: self.namespace.clone(),
            filter: Some(filter.to_wire()),
            page_size,
            page_token,
            view: v1::list_members_request::View::Full.into(),
        };
        self.call(|channel, attempt| {
            let request = attempt.request(message.clone());
            async move { membership(channel).list_members(request).await }
        })
        .await
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
        Ok(answer.counts.into_iter().map(MemberCount::from_wire).collect())
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
        Ok(Explanation::from_wire(answer))
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
        Ok(RelayInfo::from_wire(answer.relay.unwrap_or_default()))
    }
}

fn membership(channel: Channel) -> MembershipClient<Channel> {
    MembershipClient::new(channel).max_decoding_message_size(ANSWER_MAX)
}
