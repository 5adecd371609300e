//! The tokens file while the relay runs.

use dormouse_proto::wire::v1;
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::{
    door::{Door, SHOP_NODE, SHOP_READER, line},
    harness::{Outcome, add, get, reason},
};

async fn can_read(door: &Door, token: &str) -> Outcome<Result<(), String>> {
    let request = v1::ReadRequest { keys: vec!["ads/*".to_owned()], ..Default::default() };
    let answer = door.mailbox(token).await?.read(request).await;
    Ok(answer.map(|_| ()).map_err(|status| reason(&status)))
}

fn unknown() -> Result<(), String> {
    Err("TOKEN_UNKNOWN".to_owned())
}

#[tokio::test]
async fn a_token_is_replaced_by_another_while_both_are_good() -> Outcome {
    let (old, new) = (line("dm_old", "shop", "node"), line("dm_new", "shop", "node"));
    let door = Door::open(Some(&old), None, None).await?;
    assert_eq!((can_read(&door, "dm_old").await?, can_read(&door, "dm_new").await?), (Ok(()), unknown()));
    door.rewrite(&[("tokens", &format!("{old}{new}"))])?;
    assert_eq!((can_read(&door, "dm_old").await?, can_read(&door, "dm_new").await?), (Ok(()), Ok(())));
    door.rewrite(&[("tokens", &new)])?;
    assert_eq!((can_read(&door, "dm_old").await?, can_read(&door, "dm_new").await?), (unknown(), Ok(())));
    Ok(())
}

#[tokio::test]
async fn a_file_that_cannot_be_used_leaves_the_tokens_as_they_were() -> Outcome {
    let good = line("dm_good", "shop", "node");
    let door = Door::open(Some(&good), None, None).await?;
    let next = line("dm_next", "shop", "node");
    for broken in ["", "# all gone\n", &format!("{next}sha256:12"), &format!("{next}dm_good shop node")] {
        door.rewrite(&[("tokens", broken)])?;
        // The same content a second time is no second failure.
        door.rewrite(&[])?;
        assert_eq!(
            (can_read(&door, "dm_good").await?, can_read(&door, "dm_next").await?),
            (Ok(()), unknown())
        );
    }
    door.rewrite(&[("tokens", &next)])?;
    assert_eq!((can_read(&door, "dm_good").await?, can_read(&door, "dm_next").await?), (unknown(), Ok(())));
    let page = get(&door.served.admin_url, "/metrics").await?;
    assert!(page.contains("dormouse_tokens_reads_total{outcome=\"refused\"} 4\n"), "{page}");
    assert!(page.contains("dormouse_tokens_reads_total{outcome=\"taken\"} 1\n"), "{page}");
    Ok(())
}

#[tokio::test]
async fn a_stream_ends_when_its_token_does() -> Outcome {
    let door = Door::with_tokens().await?;
    let mut rows = door.mailbox(SHOP_READER).await?.watch(v1::WatchRequest::default()).await?.into_inner();
    let watch = v1::WatchMembersRequest::default();
    let mut members = door.membership(SHOP_READER).await?.watch_members(watch).await?.into_inner();
    rows.next().await.ok_or("no chunk")??;
    members.next().await.ok_or("no members")??;
    let rest = [line(SHOP_NODE, "shop", "node"), line("dm_another", "shop", "reader")].concat();
    door.rewrite(&[("tokens", &rest)])?;
    for ended in [rows.next().await.map(|it| it.map(|_| ())), members.next().await.map(|it| it.map(|_| ()))] {
        let status = ended.ok_or("it ended in silence")?.expect_err("its token is gone");
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "TOKEN_UNKNOWN"));
    }
    Ok(())
}

#[tokio::test]
async fn a_stream_goes_on_when_other_tokens_change() -> Outcome {
    let door = Door::with_tokens().await?;
    let watch = v1::WatchRequest { collections: vec!["ads".to_owned()], ..Default::default() };
    let mut rows = door.mailbox(SHOP_READER).await?.watch(watch).await?.into_inner();
    rows.next().await.ok_or("no chunk")??;
    let rest = [line(SHOP_READER, "shop", "reader"), line(SHOP_NODE, "shop", "node")].concat();
    door.rewrite(&[("tokens", &rest)])?;
    let write =
        v1::WriteRequest { request_id: "w".to_owned(), deltas: vec![add("k", 1)], ..Default::default() };
    door.mailbox(SHOP_NODE).await?.write(write).await?;
    let next = rows.next().await.ok_or("it ended")??;
    assert_eq!(next.chunk.map(|chunk| chunk.keys.len()), Some(1));
    Ok(())
}

/// A request as somebody without gRPC makes it: the status line, and the body.
async fn posted(address: &str, headers: &str) -> Outcome<(String, String)> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!(
        "POST /dormouse.v1.Mailbox/Read HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: 1\r\n{headers}\r\n{{"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    Ok((head.lines().next().unwrap_or_default().to_owned(), body.to_owned()))
}

#[tokio::test]
async fn who_speaks_json_is_refused_in_json() -> Outcome {
    let door = Door::with_tokens().await?;
    let (status, body) = posted(door.address(), "").await?;
    assert!(status.starts_with("HTTP/1.1 401 "), "{status}");
    assert!(
        body.contains("\"code\":\"unauthenticated\"") && body.contains("\"reason\":\"TOKEN_MISSING\""),
        "{body}"
    );
    let (status, body) = posted(door.address(), "authorization: Bearer dm_nobody\r\n").await?;
    assert!(
        status.starts_with("HTTP/1.1 401 ") && body.contains("\"reason\":\"TOKEN_UNKNOWN\""),
        "{status} {body}"
    );
    assert!(!body.contains("dm_nobody"));
    Ok(())
}
