//! A token of one namespace sees nothing of another one, whatever it asks.

use dormouse_proto::{
    backup::Reader,
    wire::v1::{self, sync_request::Next},
};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};

use crate::{
    door::{ADS_NODE, ALL_ADMIN, Door, SHOP_ADMIN, SHOP_NODE, SHOP_READER},
    harness::{Outcome, add, awake, chunk, counter, reason},
};

fn denied<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let status = answer.expect_err("another namespace");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "NAMESPACE_DENIED"));
    assert!(!status.message().contains("ads"), "{}", status.message());
}

fn sync(namespace: &str, boot: u8, pull_token: &[u8]) -> v1::SyncRequest {
    let identity =
        v1::NodeIdentity { boot_id: vec![boot; 16].into(), group: "g".to_owned(), ..Default::default() };
    v1::SyncRequest {
        namespace: namespace.to_owned(),
        node: Some(identity),
        pull: Some(v1::Pull {
            token: pull_token.to_vec().into(),
            collections: vec!["*".to_owned()],
            ..Default::default()
        }),
        next: Some(awake(5_000)),
        beat: 1,
        call_id: vec![boot; 8].into(),
        ..Default::default()
    }
}

fn write(namespace: &str, id: &str, deltas: Vec<v1::Delta>) -> v1::WriteRequest {
    v1::WriteRequest { namespace: namespace.to_owned(), request_id: id.to_owned(), deltas }
}

fn read(namespace: &str, key: &str) -> v1::ReadRequest {
    v1::ReadRequest { namespace: namespace.to_owned(), keys: vec![key.to_owned()], ..Default::default() }
}

/// A member and some keys of `ads`: its node id, a pull token and a page token.
async fn ads(door: &Door) -> Outcome<(String, Vec<u8>, String)> {
    let mut mailbox = door.mailbox(ADS_NODE).await?;
    mailbox.write(write("", "w1", vec![add("secret-one", 1), add("secret-two", 2)])).await?;
    let answer = mailbox.sync(sync("", 1, b"")).await?.into_inner();
    let node_id = answer.lease.as_ref().ok_or("no lease")?.node_id.clone();
    assert_eq!(counter(&chunk(&answer).keys, "secret-one"), Some(1), "an empty name is the token's own");
    let page = mailbox.read(v1::ReadRequest { max_bytes: 1, ..read("ads", "ads/*") }).await?.into_inner();
    Ok((node_id, chunk(&answer).token.to_vec(), page.next_page_token))
}

#[tokio::test]
async fn another_namespace_is_denied_by_every_method() -> Outcome {
    let door = Door::with_tokens().await?;
    let (node_id, ..) = ads(&door).await?;
    let namespace = || "ads".to_owned();
    for token in [SHOP_NODE, SHOP_ADMIN] {
        let mut mailbox = door.mailbox(token).await?;
        denied(mailbox.sync(sync("ads", 2, b"")).await);
        denied(mailbox.write(write("ads", "w", vec![add("k", 1)])).await);
        let node_id = node_id.clone();
        denied(mailbox.send(v1::SendRequest { namespace: namespace(), node_id, ..Default::default() }).await);
    }
    let mut mailbox = door.mailbox(SHOP_READER).await?;
    denied(mailbox.read(read("ads", "ads/*")).await);
    denied(
        mailbox.watch(v1::WatchRequest { namespace: namespace(), ..Default::default() }).await.map(|_| ()),
    );
    let mut members = door.membership(SHOP_ADMIN).await?;
    let namespace = namespace();
    denied(members.list_members(v1::ListMembersRequest { namespace, ..Default::default() }).await);
    let (namespace, node_id) = ("ads".to_owned(), node_id);
    let (n, id) = (namespace.clone(), node_id.clone());
    denied(members.get_member(v1::GetMemberRequest { namespace: n, node_id: id }).await);
    let n = namespace.clone();
    denied(members.count_members(v1::CountMembersRequest { namespace: n, ..Default::default() }).await);
    let (n, id) = (namespace.clone(), node_id.clone());
    denied(members.explain_member(v1::ExplainMemberRequest { namespace: n, node_id: id }).await);
    let n = namespace.clone();
    let watch = members.watch_members(v1::WatchMembersRequest { namespace: n, ..Default::default() }).await;
    denied(watch.map(|_| ()));
    denied(members.evict_member(v1::EvictMemberRequest { namespace, node_id, reason: String::new() }).await);
    Ok(())
}

#[tokio::test]
async fn a_name_that_is_none_is_denied_like_one_that_is() -> Outcome {
    let door = Door::with_tokens().await?;
    let mut mailbox = door.mailbox(SHOP_NODE).await?;
    for name in ["no-such-one", "ADS", "*", "\u{0}", &"n".repeat(9_000)] {
        denied(mailbox.read(read(name, "ads/*")).await);
        denied(mailbox.sync(sync(name, 2, b"")).await);
    }
    let twice_wrong = v1::SyncRequest { namespace: "ads".to_owned(), ..Default::default() };
    denied(mailbox.sync(twice_wrong).await);
    Ok(())
}

/// What `ads` calls its things must be in no answer.
fn silent(answer: &impl std::fmt::Debug, node_id: &str) {
    let text = format!("{answer:?}");
    assert!(!text.contains("secret") && !text.contains(node_id), "{text}");
}

#[tokio::test]
async fn names_and_tokens_of_another_namespace_open_nothing() -> Outcome {
    let door = Door::with_tokens().await?;
    let (node_id, pull_token, page_token) = ads(&door).await?;
    let mut mailbox = door.mailbox(SHOP_NODE).await?;
    let mut members = door.membership(SHOP_ADMIN).await?;

    let answer = mailbox.sync(sync("", 3, &pull_token)).await?.into_inner();
    let own = answer.lease.clone().ok_or("no lease")?.node_id;
    silent(&answer, &node_id);
    assert_eq!(chunk(&answer).restart(), v1::chunk::Restart::BadToken);
    assert_eq!(answer.members.map(|it| it.awake), Some(1), "the member of ads is not counted");

    // With the name of a member of the other one: here it is nobody.
    let mut stolen = sync("", 4, b"");
    if let Some(node) = &mut stolen.node {
        (node.node_id, node.incarnation) = (node_id.clone(), 1);
    }
    let answer = mailbox.sync(stolen).await?.into_inner();
    silent(&answer, &node_id);

    let page = mailbox.read(v1::ReadRequest { page_token, ..read("", "ads/*") }).await?.into_inner();
    assert!(page.keys.is_empty(), "{page:?}");
    let watch = v1::WatchRequest {
        collections: vec!["*".to_owned(), "@members".to_owned()],
        token: pull_token.into(),
        ..Default::default()
    };
    let first = mailbox.watch(watch).await?.into_inner().next().await.ok_or("no chunk")??;
    silent(&first, &node_id);

    let listed = v1::ListMembersRequest { page_token: node_id.clone(), ..Default::default() };
    silent(&members.list_members(listed).await?.into_inner(), &node_id);
    let all = members.list_members(v1::ListMembersRequest::default()).await?.into_inner();
    silent(&all, &node_id);
    assert!(all.members.iter().any(|it| it.node_id == own));
    let first = members.watch_members(v1::WatchMembersRequest::default()).await?.into_inner().next().await;
    silent(&first.ok_or("nothing")??, &node_id);

    // That it exists elsewhere must not show: it is as unknown as one that never was.
    let unknown = |status: Status| {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "NODE_UNKNOWN"));
        status.message().replace(&node_id, "N").replace("0000000000009", "N")
    };
    let mut said = Vec::new();
    for id in [node_id.as_str(), "0000000000009"] {
        let (namespace, id) = (String::new(), || id.to_owned());
        let get = v1::GetMemberRequest { namespace: namespace.clone(), node_id: id() };
        let explain = v1::ExplainMemberRequest { namespace: namespace.clone(), node_id: id() };
        let evict =
            v1::EvictMemberRequest { namespace: namespace.clone(), node_id: id(), reason: String::new() };
        let payload = Some(v1::Value { kind: Some(v1::value::Kind::Text("1".to_owned())) });
        let send = v1::SendRequest {
            namespace,
            node_id: id(),
            message_id: "m".to_owned(),
            payload,
            ..Default::default()
        };
        said.push([
            unknown(members.get_member(get).await.expect_err("unknown")),
            unknown(members.explain_member(explain).await.expect_err("unknown")),
            unknown(members.evict_member(evict).await.expect_err("unknown")),
            unknown(mailbox.send(send).await.expect_err("unknown")),
        ]);
    }
    assert_eq!(said[0], said[1]);
    Ok(())
}

#[tokio::test]
async fn the_admin_of_all_works_in_each_and_by_default_in_default() -> Outcome {
    let door = Door::with_tokens().await?;
    ads(&door).await?;
    let mut mailbox = door.mailbox(ALL_ADMIN).await?;
    mailbox.write(write("", "w", vec![add("k", 4)])).await?;
    let of = async |mailbox: &mut crate::door::Mailbox, namespace: &str, key: &str| {
        let read = mailbox.read(read(namespace, "ads/*")).await.expect("read").into_inner();
        counter(&read.keys, key)
    };
    assert_eq!(of(&mut mailbox, "ads", "secret-two").await, Some(2));
    assert_eq!(of(&mut mailbox, "default", "k").await, Some(4));
    assert_eq!(of(&mut mailbox, "shop", "k").await, None);
    let asleep =
        v1::SyncRequest { next: Some(Next::Asleep(v1::Asleep { expected_ms: 0 })), ..sync("shop", 9, b"") };
    assert!(mailbox.sync(asleep).await?.into_inner().lease.is_some());
    Ok(())
}

/// It has what every namespace holds, so the role alone does not open it.
#[tokio::test]
async fn a_backup_is_for_an_admin_of_all_namespaces() -> Outcome {
    let door = Door::with_tokens().await?;
    ads(&door).await?;
    let mut of_one = door.operations(SHOP_ADMIN).await?;
    let refused = of_one.backup(v1::BackupRequest {}).await.expect_err("of one namespace");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "ROLE_DENIED"));
    assert!(
        refused.message().contains("shop") && !refused.message().contains("ads"),
        "{}",
        refused.message()
    );

    let mut of_all = door.operations(ALL_ADMIN).await?;
    let mut messages = of_all.backup(v1::BackupRequest {}).await?.into_inner();
    let first = messages.message().await?.ok_or("a first message")?;
    let mut file = first.data.to_vec();
    while let Some(more) = messages.message().await? {
        file.extend(more.data);
    }
    let mut reader = Reader::default();
    reader.take(&file, |_| ())?;
    assert_eq!(reader.finish()?.namespaces, 1);
    Ok(())
}
