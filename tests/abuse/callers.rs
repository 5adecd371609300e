//! Calls that are well formed and mean harm: joins without end, tokens that are guessed, names that are none.

use std::collections::HashMap;

use dormouse_proto::wire::v1::{
    self, counter_delta::Once, delta::Change, mailbox_client::MailboxClient, sync_request::Next,
    sync_response::PushResult,
};
use tokio::task::JoinSet;
use tonic::{Code, Request, Status, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{oversize::words, regular::connect, relay::Outcome, siege::Siege};

fn joining(boot_id: u128) -> v1::SyncRequest {
    let identity = v1::NodeIdentity {
        boot_id: boot_id.to_be_bytes().to_vec().into(),
        group: "flood".into(),
        tags: HashMap::from([("zone".to_owned(), "z".repeat(200))]).into_iter().collect(),
        ..Default::default()
    };
    v1::SyncRequest {
        node: Some(identity),
        beat: 1,
        call_id: boot_id.to_be_bytes()[8..].to_vec().into(),
        next: Some(Next::Awake(v1::Awake { remaining_ms: 1_000, then_asleep: false })),
        ..Default::default()
    }
}

#[tokio::test]
async fn joins_without_end_are_told_to_come_back_and_renewals_pass() -> Outcome {
    let siege = Siege::begin(&[("DORMOUSE_JOINS_MAX", "8")]).await?;
    let channel = connect(&siege.url, None).await?;
    let (mut calls, mut joined, mut busy) = (JoinSet::new(), 0, 0);
    let count = |answer: Result<v1::SyncResponse, Status>, joined: &mut u64, busy: &mut u64| match answer {
        Ok(_) => *joined += 1,
        Err(status) => {
            assert_eq!(words(&status).0, "BUSY", "{status:?}");
            assert!(status.get_error_details().retry_info().is_some(), "it says when to come back");
            *busy += 1;
        }
    };
    for _ in 0..3_000 {
        let mut mailbox = MailboxClient::new(channel.clone());
        let request = joining(fastrand::u128(..));
        calls.spawn(async move { mailbox.sync(request).await.map(tonic::Response::into_inner) });
        if calls.len() >= 200
            && let Some(answer) = calls.join_next().await
        {
            count(answer?, &mut joined, &mut busy);
        }
    }
    while let Some(answer) = calls.join_next().await {
        count(answer?, &mut joined, &mut busy);
    }
    assert_eq!((joined + busy, siege.refused("BUSY")?), (3_000, busy));
    assert!(joined > 0 && busy > 0, "{joined} joined, {busy} were told to come back");
    siege.end().await
}

#[tokio::test]
async fn guessed_tokens_are_refused_and_then_take_a_new_connection() -> Outcome {
    let siege = Siege::begin_with_token(&[]).await?;
    let guess = |channel: Channel, token: String| async move {
        let mut request = Request::new(v1::ReadRequest::default());
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("ASCII"));
        MailboxClient::new(channel).read(request).await.expect_err("a guess")
    };
    let channel = connect(&siege.url, None).await?;
    for n in 0..400_u32 {
        let status = guess(channel.clone(), format!("dm_{n:064}")).await;
        // The call that meets the end of a connection is the exception; the next one has a new connection.
        let is_refused = status.code() == Code::Unauthenticated && words(&status).0 == "TOKEN_UNKNOWN";
        assert!(
            is_refused || status.code() == Code::Unavailable || status.code() == Code::Unknown,
            "{status:?}"
        );
    }
    siege.closes("sent_away", 3).await?;
    for garbage in ["a".repeat(600), "%00%ff".to_owned(), "\u{7e}".repeat(9)] {
        assert_eq!(guess(channel.clone(), garbage).await.code(), Code::Unauthenticated);
    }
    siege.end().await
}

#[tokio::test]
async fn names_with_control_characters_are_refused_by_the_name_of_their_field() -> Outcome {
    let siege = Siege::begin(&[]).await?;
    let mut mailbox = MailboxClient::new(connect(&siege.url, None).await?);
    let bad = ["a\nb", "a\0", "\u{1b}[2J", "a\u{7f}", "\u{85}"];
    let mut refused = 0;
    for text in bad {
        let mut group = joining(1);
        group.node.as_mut().expect("there").group = text.to_owned();
        let mut name = joining(2);
        name.node.as_mut().expect("there").tags.insert(text.to_owned(), "a".to_owned());
        let mut value = joining(3);
        value.node.as_mut().expect("there").tags.insert("zone".to_owned(), text.to_owned());
        for (request, field) in [(group, "node.group"), (name, "node.tags"), (value, "node.tags")] {
            let status = mailbox.sync(request).await.expect_err(text);
            let (word, named) = words(&status);
            assert!(
                word == "FIELD_INVALID" && named.starts_with(field),
                "{text:?} {field}: {status:?} {named}"
            );
            assert!(!status.message().contains(text), "{status:?}");
            refused += 1;
        }
        for (collection, key) in [(text, "k"), ("ads", text)] {
            let once = vec![Once { id: "1".into(), amount: 1 }];
            let change = Change::Counter(v1::CounterDelta { once, ..Default::default() });
            let delta = v1::Delta { collection: collection.into(), key: key.into(), change: Some(change) };
            let push =
                v1::Push { push_no: 1, push_id: vec![1; 8].into(), deltas: vec![delta], retried: false };
            let answer = mailbox.sync(v1::SyncRequest { push: Some(push), ..joining(4) }).await?.into_inner();
            let Some(PushResult::PushRefused(refusal)) = answer.push_result else { panic!("{answer:?}") };
            assert_eq!(refusal.reason, "FIELD_INVALID", "{text:?}");
            refused += 1;
        }
    }
    assert_eq!(siege.refused("FIELD_INVALID")?, refused);
    siege.end().await
}
