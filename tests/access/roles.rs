//! Each method, called with each role. The bodies are no messages, so that it shows whether a decoder saw them.

use std::collections::BTreeSet;

use dormouse_proto::wire::DESCRIPTORS;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::Code;

use crate::{
    door::{ADS_NODE, ALL_ADMIN, Door, SHOP_ADMIN, SHOP_NODE, SHOP_READER, raw},
    harness::{Outcome, reason},
};

/// No message begins like that.
const GARBAGE: &[u8] = &[0xff; 32];

/// What a reader may call, and beyond it a node, and beyond that an admin.
const READER: &[&str] = &[
    "Mailbox/Read",
    "Mailbox/Watch",
    "Membership/ListMembers",
    "Membership/GetMember",
    "Membership/CountMembers",
    "Membership/ExplainMember",
    "Membership/WatchMembers",
    "Membership/GetRelay",
];
const NODE: &[&str] = &["Mailbox/Sync", "Mailbox/Write", "Mailbox/Send"];
const ADMIN: &[&str] = &["Membership/EvictMember", "Operations/Backup"];

/// Every method of the contract, from its own description.
fn methods() -> BTreeSet<String> {
    let files = FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors").file;
    let services = files.into_iter().flat_map(|file| file.service);
    let named = services.flat_map(|service| {
        let name = service.name().to_owned();
        service.method.into_iter().map(move |method| format!("{name}/{}", method.name()))
    });
    named.collect()
}

#[test]
fn the_table_has_every_method_once() {
    let table = [READER, NODE, ADMIN].concat();
    let listed: BTreeSet<String> = table.iter().map(ToString::to_string).collect();
    assert_eq!((listed.len(), listed), (table.len(), methods()));
}

#[tokio::test]
async fn a_role_decides_before_any_decoder_runs() -> Outcome {
    let door = Door::with_tokens().await?;
    let channel = door.channel().await?;
    let rank = |method: &str| [READER, NODE, ADMIN].iter().position(|list| list.contains(&method));
    let mut decoded = 0;
    for method in methods() {
        let path = format!("/dormouse.v1.{method}");
        let needs = rank(&method).expect("it is in the table");
        for (has, token) in [(0, SHOP_READER), (1, SHOP_NODE), (1, ADS_NODE), (2, SHOP_ADMIN), (2, ALL_ADMIN)]
        {
            let status = raw(channel.clone(), token, &path, GARBAGE).await.expect_err("garbage");
            if has >= needs {
                // The words of the codec, which has tried.
                assert!(status.message().contains("decode"), "{method} {token}: {status:?}");
                decoded += 1;
            } else {
                assert_eq!(
                    (status.code(), reason(&status).as_str()),
                    (Code::PermissionDenied, "ROLE_DENIED")
                );
            }
        }
        for (token, word) in [("", "TOKEN_MISSING"), ("dm_nobody", "TOKEN_UNKNOWN"), ("x", "TOKEN_UNKNOWN")] {
            let status = raw(channel.clone(), token, &path, GARBAGE).await.expect_err("garbage");
            assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, word), "{method}");
        }
    }
    assert_eq!(decoded, READER.len() * 5 + NODE.len() * 4 + ADMIN.len() * 2);
    let page = crate::harness::get(&door.served.admin_url, "/metrics").await?;
    let missing = format!("dormouse_refusals_total{{reason=\"TOKEN_MISSING\"}} {}\n", methods().len());
    assert!(page.contains(&missing), "{page}");
    Ok(())
}

#[tokio::test]
async fn what_is_no_method_is_told_to_nobody_without_a_token() -> Outcome {
    let door = Door::with_tokens().await?;
    let channel = door.channel().await?;
    for path in ["/dormouse.v1.Mailbox/Purge", "/dormouse.v2.Mailbox/Sync", "/", "/x"] {
        let outside = raw(channel.clone(), "", path, GARBAGE).await.expect_err("no method");
        assert_eq!(outside.code(), Code::Unauthenticated, "{path}");
        let node = raw(channel.clone(), SHOP_NODE, path, GARBAGE).await.expect_err("no method");
        assert_eq!(node.code(), Code::PermissionDenied, "{path}");
        let admin = raw(channel.clone(), SHOP_ADMIN, path, GARBAGE).await.expect_err("no method");
        assert_eq!(admin.code(), Code::Unimplemented, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn health_is_for_everybody_and_reflection_is_not() -> Outcome {
    let door = Door::with_tokens().await?;
    let channel = door.channel().await?;
    let health = "/grpc.health.v1.Health/Check";
    // An empty message asks for the server as a whole; field 1, value 1: SERVING.
    assert_eq!(raw(channel.clone(), "", health, b"").await?.into_inner().as_ref(), [8, 1]);
    assert_eq!(raw(channel.clone(), "dm_nobody", health, b"").await?.into_inner().as_ref(), [8, 1]);
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    // Field 7: list the services.
    let list = b"\x3a\x00";
    let refused = raw(channel.clone(), "", reflection, list).await.expect_err("no token");
    assert_eq!(reason(&refused), "TOKEN_MISSING");
    let answer = raw(channel, SHOP_READER, reflection, list).await?.into_inner();
    assert!(String::from_utf8_lossy(&answer).contains("dormouse.v1.Mailbox"));
    Ok(())
}
