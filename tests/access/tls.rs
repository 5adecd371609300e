//! The relay's certificate, and those of its callers.

use std::{error::Error, time::Duration};

use dormouse_proto::wire::v1::{self, membership_client::MembershipClient};
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tonic::transport::Channel;

use crate::{
    certificates::Authority,
    door::Door,
    harness::{Outcome, get},
};

async fn version(channel: Channel) -> Outcome<String> {
    let answer = MembershipClient::new(channel).get_relay(v1::GetRelayRequest {}).await?.into_inner();
    Ok(answer.relay.ok_or("no relay")?.version)
}

/// What went wrong, down to its cause.
fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Connects and makes a call; with TLS 1.3 a server that refuses says so behind the client's end of the handshake.
async fn tried(door: &Door, ca: &str, caller: Option<&crate::certificates::Certified>) -> Result<(), String> {
    let channel = door.tls_channel(ca, caller).await.map_err(|error| whole(&*error))?;
    version(channel).await.map(|_| ()).map_err(|error| whole(&*error))
}

#[tokio::test]
async fn a_relay_with_a_certificate_serves_those_who_know_its_authority() -> Outcome {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let door = Door::open(None, Some(&ours.relay()), None).await?;
    assert_eq!(tried(&door, &ours.pem(), None).await, Ok(()));
    let refused = tried(&door, &theirs.pem(), None).await.expect_err("another authority");
    assert!(refused.contains("UnknownIssuer"), "{refused}");
    let page = get(&door.served.admin_url, "/metrics").await?;
    assert!(page.contains("dormouse_tls_handshakes_total{outcome=\"done\"} 1\n"), "{page}");
    assert!(page.contains("dormouse_tls_handshakes_total{outcome=\"failed\"} 1\n"), "{page}");
    Ok(())
}

#[tokio::test]
async fn plaintext_finds_nobody_there_and_is_counted_apart() -> Outcome {
    let door = Door::open(None, Some(&Authority::new().relay()), None).await?;
    assert!(door.channel().await.is_err() || version(door.channel().await?).await.is_err());
    let page = get(&door.served.admin_url, "/metrics").await?;
    assert!(!page.contains("dormouse_tls_handshakes_total{outcome=\"plaintext\"} 0\n"), "{page}");
    assert!(page.contains("dormouse_tls_handshakes_total{outcome=\"failed\"} 0\n"), "{page}");
    Ok(())
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_whoever_comes_next() -> Outcome {
    let (before, after) = (Authority::new(), Authority::new());
    let (first, second) = (before.relay(), after.relay());
    let door = Door::open(None, Some(&first), None).await?;
    let kept = door.tls_channel(&before.pem(), None).await?;
    version(kept.clone()).await?;

    // The files are written one after the other, and may be looked at in between.
    door.rewrite(&[("cert", &second.cert)])?;
    assert_eq!(tried(&door, &before.pem(), None).await, Ok(()), "it does not go together with the key");
    door.rewrite(&[("key", &second.key)])?;
    assert_eq!(tried(&door, &after.pem(), None).await, Ok(()));
    assert!(tried(&door, &before.pem(), None).await.is_err());
    version(kept).await?;

    for broken in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &second.key] {
        door.rewrite(&[("cert", broken)])?;
        assert_eq!(tried(&door, &after.pem(), None).await, Ok(()), "what was read before stays in force");
    }
    let page = get(&door.served.admin_url, "/metrics").await?;
    assert!(page.contains("dormouse_tls_reads_total{outcome=\"refused\"} 4\n"), "{page}");
    assert!(page.contains("dormouse_tls_reads_total{outcome=\"taken\"} 1\n"), "{page}");
    Ok(())
}

#[tokio::test]
async fn callers_must_show_a_certificate_where_one_is_asked_for() -> Outcome {
    let (relay, callers, others) = (Authority::new(), Authority::new(), Authority::new());
    let door = Door::open(None, Some(&relay.relay()), Some(&callers.pem())).await?;
    assert_eq!(tried(&door, &relay.pem(), Some(&callers.caller())).await, Ok(()));
    assert!(tried(&door, &relay.pem(), None).await.is_err());
    assert!(tried(&door, &relay.pem(), Some(&others.caller())).await.is_err());
    // Authorities change while the relay runs, too.
    door.rewrite(&[("ca", &others.pem())])?;
    assert_eq!(tried(&door, &relay.pem(), Some(&others.caller())).await, Ok(()));
    assert!(tried(&door, &relay.pem(), Some(&callers.caller())).await.is_err());
    Ok(())
}

#[tokio::test]
async fn who_never_finishes_a_handshake_is_cut_off_and_keeps_nobody_out() -> Outcome {
    let authority = Authority::new();
    let door = Door::open(None, Some(&authority.relay()), None).await?;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(door.address()).await?);
    }
    assert_eq!(tried(&door, &authority.pem(), None).await, Ok(()));
    for stream in &mut silent {
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut [0; 64])).await?;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    let page = get(&door.served.admin_url, "/metrics").await?;
    assert!(page.contains("dormouse_tls_handshakes_total{outcome=\"timed_out\"} 64\n"), "{page}");
    Ok(())
}

#[tokio::test]
async fn a_relay_does_not_start_with_what_it_cannot_use() -> Outcome {
    let authority = Authority::new();
    let (one, other) = (authority.relay(), authority.relay());
    let mixed = crate::certificates::Certified { cert: one.cert.clone(), key: other.key };
    let no_key = crate::certificates::Certified { cert: one.cert.clone(), key: one.cert.clone() };
    let no_cert = crate::certificates::Certified { cert: one.key.clone(), key: one.key.clone() };
    let refused =
        async |certified: &_, tokens: Option<&str>| match Door::open(tokens, Some(certified), None).await {
            Ok(_) => "it starts".to_owned(),
            Err(error) => error.to_string(),
        };
    assert!(refused(&mixed, None).await.contains("does not go together with tls_key"));
    assert!(refused(&no_key, None).await.contains("must be a private key in PEM"));
    assert!(refused(&no_cert, None).await.contains("must be one or more certificates in PEM"));
    assert!(refused(&one, Some("")).await.ends_with("there is no token in it"));
    assert!(refused(&one, Some("# a\n1 2 3\n")).await.contains("line 2: a token-hash is"));
    let missing = dormouse_relay::config::Config {
        tokens_file: Some("/nowhere/tokens".into()),
        ..dormouse_relay::config::Config::default()
    };
    let error = dormouse_relay::doors::Doors::open(&missing).expect_err("no such file").to_string();
    assert!(error.starts_with("tokens_file = /nowhere/tokens: cannot be read: "), "{error}");
    Ok(())
}
