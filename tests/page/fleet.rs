//! Members of a relay, as the client makes them.

use std::time::Duration;

use dormouse::{Awake, Node};
use dormouse_proto::wire::v1::{CountMembersRequest, membership_client::MembershipClient};

use crate::relay::Outcome;

/// How long an invocation may take.
const INVOCATION: Duration = Duration::from_secs(60);

/// Nodes of one relay. Those that are awake are inside an invocation.
pub(crate) struct Fleet {
    url: String,
    asleep: Vec<Node>,
    awake: Vec<(Node, Awake)>,
}

impl Fleet {
    pub(crate) fn of(url: &str) -> Self {
        Self { url: url.to_owned(), asleep: Vec::new(), awake: Vec::new() }
    }

    /// Some more members of a group; those that are to be asleep have been awake before.
    pub(crate) async fn add(&mut self, group: &str, awake: usize, asleep: usize) -> Outcome {
        for nth in 0..awake + asleep {
            let node = Node::builder().url(&self.url).group(group).budget(INVOCATION).build()?;
            let invocation = node.wake(INVOCATION).await;
            if nth < awake {
                self.awake.push((node, invocation));
            } else {
                invocation.sleep().await.warn_if_unsaved();
                self.asleep.push(node);
            }
        }
        Ok(())
    }

    /// Each of those that sleep is invoked so many times, and counts.
    pub(crate) async fn invoke(&self, times: usize) -> Outcome {
        for _ in 0..times {
            for node in &self.asleep {
                let awake = node.wake(INVOCATION).await;
                awake.counter("page/seen").add(1)?;
                awake.sleep().await.warn_if_unsaved();
            }
        }
        Ok(())
    }

    /// What the relay counts: AWAKE, ASLEEP, SUSPECT.
    pub(crate) async fn counted(&self) -> Outcome<[u64; 3]> {
        let mut membership = MembershipClient::connect(self.url.clone()).await?;
        let request =
            CountMembersRequest { group_by: vec!["state".to_owned()], ..CountMembersRequest::default() };
        let counts = membership.count_members(request).await?.into_inner().counts;
        let of = |state: &str| {
            counts
                .iter()
                .filter(|it| it.by.get("state").is_some_and(|it| it == state))
                .map(|it| it.members)
                .sum()
        };
        Ok([of("AWAKE"), of("ASLEEP"), of("SUSPECT")])
    }
}
