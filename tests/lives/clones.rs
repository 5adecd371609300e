//! Two processes with one identity: the second one becomes somebody else, and loses nothing of what it wrote.
//!
//! What tells them apart by their pushes stands in `tests/service/calls.rs`; here it is the boot id, and the call id.

use dormouse_proto::wire::v1::{
    self, delta::Change, key_state::State, lease::Admission, mailbox_client::MailboxClient,
    sync_request::Next, sync_response::PushResult,
};
use tonic::transport::Channel;

use crate::relay::{Outcome, RelayProcess};

/// A node that says every field by hand, so that it can be cloned.
#[derive(Clone)]
struct Caller {
    mailbox: MailboxClient<Channel>,
    identity: v1::NodeIdentity,
    beat: u64,
    push_no: u64,
}

impl Caller {
    async fn joined(url: String) -> Outcome<Self> {
        let boot_id = fastrand::u128(..).to_be_bytes().to_vec().into();
        let identity = v1::NodeIdentity { boot_id, group: "clones".into(), ..Default::default() };
        let mailbox = MailboxClient::connect(url).await?;
        let mut caller = Self { mailbox, identity, beat: 0, push_no: 0 };
        assert_eq!(caller.call(0).await?.admission(), Admission::Joined);
        Ok(caller)
    }

    /// One call with the next beat; pushes so many increments of one counter, if any.
    async fn call(&mut self, add: u64) -> Outcome<v1::Lease> {
        self.beat += 1;
        let push = (add > 0).then(|| {
            self.push_no += 1;
            increments(self.push_no, add)
        });
        let pushes = push.is_some();
        let request = v1::SyncRequest {
            node: Some(self.identity.clone()),
            push,
            beat: self.beat,
            call_id: fastrand::u64(..).to_be_bytes().to_vec().into(),
            next: Some(Next::Awake(v1::Awake::default())),
            ..Default::default()
        };
        let answer = self.mailbox.sync(request).await?.into_inner();
        let lease = answer.lease.ok_or("no lease")?;
        let bound = matches!(answer.push_result, Some(PushResult::Pushed(_)));
        let forked = lease.admission() == Admission::Forked;
        assert_eq!(
            bound,
            pushes && !forked,
            "what a clone pushed is certainly not bound: {:?}",
            answer.push_result
        );
        (self.identity.node_id, self.identity.incarnation) = (lease.node_id.clone(), lease.incarnation);
        if forked {
            // It is somebody new, and what it wrote is sealed anew.
            self.push_no = 0;
        }
        Ok(lease)
    }
}

fn increments(push_no: u64, add: u64) -> v1::Push {
    let change = Change::Counter(v1::CounterDelta { add, ..Default::default() });
    let delta = v1::Delta { collection: "clones".into(), key: "calls".into(), change: Some(change) };
    let push_id = fastrand::u64(..).to_be_bytes().to_vec().into();
    v1::Push { push_no, push_id, deltas: vec![delta], retried: false }
}

async fn total(mailbox: &mut MailboxClient<Channel>) -> Outcome<i64> {
    let request = v1::ReadRequest { keys: vec!["clones/calls".into()], ..Default::default() };
    let keys = mailbox.read(request).await?.into_inner().keys;
    match keys.into_iter().next().and_then(|key| key.state) {
        Some(State::Counter(counter)) => Ok(counter.value),
        other => Err(format!("no counter: {other:?}").into()),
    }
}

#[tokio::test]
async fn a_second_process_with_the_node_id_of_another_gets_its_own_and_keeps_what_it_wrote() -> Outcome {
    let relay = RelayProcess::start(&[])?;
    let mut first = Caller::joined(relay.url()).await?;
    first.call(1).await?;
    // Its identity was written down and read by a process that drew a boot id of its own.
    let mut second = first.clone();
    second.identity.boot_id = fastrand::u128(..).to_be_bytes().to_vec().into();

    let lease = second.call(10).await?;
    assert_eq!(lease.admission(), Admission::Forked);
    assert_ne!(lease.node_id, first.identity.node_id);
    assert_eq!(second.call(10).await?.admission(), Admission::Renewed);
    assert_eq!(first.call(1).await?.node_id, first.identity.node_id, "the first one is who it was");
    assert_eq!(total(&mut first.mailbox).await?, 12);
    Ok(())
}

#[tokio::test]
async fn a_clone_that_says_the_same_beat_in_another_call_gets_its_own_node_id_and_keeps_what_it_wrote()
-> Outcome {
    let relay = RelayProcess::start(&[])?;
    let mut first = Caller::joined(relay.url()).await?;
    first.call(1).await?;
    let mut second = first.clone();

    assert_eq!(first.call(0).await?.admission(), Admission::Renewed);
    let lease = second.call(0).await?;
    assert_eq!(lease.admission(), Admission::Forked, "the beat is the same, the call is not");
    assert_ne!(lease.node_id, first.identity.node_id);
    assert_eq!(second.call(10).await?.admission(), Admission::Renewed);
    assert_eq!(first.call(1).await?.admission(), Admission::Renewed);
    assert_eq!(total(&mut first.mailbox).await?, 12);
    Ok(())
}
