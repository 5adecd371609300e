//! Whatever arrives, a decoder answers or refuses; and what it answers survives being written and read again.

use std::{fmt, path::Path, str::FromStr};

use dormouse_proto::{
    convert::{Mail, PullRequest, SyncCall, bounds, deltas_from_wire},
    ids::{Collection, Element, Group, Key, Namespace, NodeId, OnceId, PushId, PushNo},
    record::{self, Frame, FrameHeader, Push, Record},
    rows::{decode_value, encode_value},
    wire::v1,
};
use dormouse_relay::{
    config::Config,
    selector::Selector,
    state::{Fold, Token},
};
use prost::{Message as _, encoding::encode_varint};

use crate::{BRIEFLY, choices::Choices, fold::snapshot, history, long_input};

/// A request that a client might send, before its bytes are damaged.
fn sync_request(choices: &mut Choices<'_>) -> v1::SyncRequest {
    use v1::sync_request::Next;
    v1::SyncRequest {
        namespace: choices.one_of(&["", "default", "no namespace"]).to_owned(),
        node: choices.perhaps(|it| v1::NodeIdentity {
            boot_id: it.bytes_of(&[16, 16, 16, 0, 15]).into(),
            node_id: it.perhaps(|it| NodeId(it.number()).to_string()).unwrap_or_default(),
            incarnation: it.number(),
            group: it.one_of(&["ads", "", "no group"]).to_owned(),
            tags: it
                .list(2, |it| (it.one_of(&["zone", "a b", ""]).to_owned(), "a".to_owned()))
                .into_iter()
                .collect(),
        }),
        push: choices.perhaps(|it| v1::Push {
            push_no: it.number(),
            deltas: history::Author::default().deltas(it).into_iter().map(Into::into).collect(),
            push_id: it.bytes_of(&[8, 0, 7]).into(),
            retried: it.sometimes(),
        }),
        pull: choices.perhaps(pull),
        beat: choices.number(),
        call_id: choices.bytes(8).into(),
        head: choices.number(),
        next: choices.perhaps(|it| match it.below(3) {
            0 => Next::Awake(v1::Awake { remaining_ms: u32::from(it.byte()), then_asleep: it.sometimes() }),
            1 => Next::Asleep(v1::Asleep { expected_ms: u32::from(it.byte()) }),
            _ => Next::Leaving(v1::Leaving { reason: String::new() }),
        }),
    }
}

fn pull(choices: &mut Choices<'_>) -> v1::Pull {
    v1::Pull {
        token: choices.bytes_of(&[0, 1, 17, 24]).into(),
        collections: choices.list(70, |it| it.one_of(&["ads", "*", "@members", "@other", ""]).to_owned()),
        acked: choices.list(3, Choices::number),
        held_since: choices.number(),
        max_bytes: u32::try_from(choices.number()).unwrap_or(u32::MAX),
        min_revision: choices.number(),
    }
}

#[test]
fn a_sync_request_is_understood_or_refused() {
    bolero::check!().with_test_time(BRIEFLY).for_each(|bytes| {
        let mut choices = Choices::new(bytes);
        let mut request = sync_request(&mut choices).encode_to_vec();
        choices.damage(&mut request);
        let Ok(request) = v1::SyncRequest::decode(&*request) else { return };
        let Ok(call) = SyncCall::try_from(request) else { return };
        if let Some(Ok(push)) = call.push {
            assert!(push.push_no > PushNo(0) && push.deltas.len() <= bounds::DELTAS);
            admitted_deltas_survive(push.deltas);
        }
        if let Some(Ok(pull)) = call.pull {
            assert!(pull.acked.is_sorted() && pull.max_bytes <= bounds::CHUNK_MAX as usize);
        }
    });
}

/// A message that somebody might send.
fn send_request(choices: &mut Choices<'_>) -> v1::SendRequest {
    v1::SendRequest {
        namespace: choices.one_of(&["", "default", "no namespace"]).to_owned(),
        node_id: choices.perhaps(|it| NodeId(it.number()).to_string()).unwrap_or_default(),
        message_id: choices.byte().to_string().repeat(choices.one_of(&[1, 1, 0, 40])),
        payload: choices.perhaps(|it| history::value(it).into()),
        ttl_ms: u32::try_from(choices.number()).unwrap_or(u32::MAX),
        sender: choices.one_of(&["", "somebody", "some\nbody"]).repeat(choices.one_of(&[1, 9])),
    }
}

#[test]
fn a_message_is_understood_or_refused() {
    bolero::check!().with_test_time(BRIEFLY).for_each(|bytes| {
        let mut choices = Choices::new(bytes);
        let mut request = send_request(&mut choices).encode_to_vec();
        choices.damage(&mut request);
        let Ok(Ok(mail)) = v1::SendRequest::decode(&*request).map(Mail::try_from) else { return };
        assert!(mail.payload.len() <= bounds::MAIL_BYTES && mail.sender.len() <= bounds::SENDER_BYTES);
        assert!((1..=bounds::MAIL_TTL_MAX_MS).contains(&mail.ttl_ms));
        let Mail { namespace, node, message_id, sender, payload, ttl_ms } = mail;
        let namespace = namespace.unwrap_or_default();
        let send = record::Send { namespace, node, message_id, sender, payload, ttl_ms };
        let frame = Frame { header: FrameHeader::default(), records: vec![Record::Send(send)] };
        assert_eq!(Frame::decode(&frame.clone().encode()).as_ref(), Ok(&frame));
    });
}

/// What was admitted can be stored, read back, and said again.
fn admitted_deltas_survive(deltas: Vec<dormouse_proto::lattice::Delta>) {
    let again = deltas.iter().cloned().map(v1::Delta::from).collect();
    assert_eq!(deltas_from_wire(again, "push.deltas").as_ref(), Ok(&deltas));
    let push = Push {
        namespace: Namespace::default(),
        node: NodeId(1),
        incarnation: dormouse_proto::ids::Incarnation(1),
        push_no: PushNo(1),
        push_id: PushId(1),
        deltas,
        contact: None,
    };
    let frame = Frame { header: FrameHeader::default(), records: vec![Record::Push(push)] };
    assert_eq!(Frame::decode(&frame.clone().encode()).as_ref(), Ok(&frame));
}

#[test]
fn a_pull_and_deltas_of_arbitrary_bytes_are_understood_or_refused() {
    bolero::check!().with_test_time(BRIEFLY).for_each(|bytes: &[u8]| {
        let _ = v1::Pull::decode(bytes).map(PullRequest::try_from);
        let Ok(push) = v1::Push::decode(bytes) else { return };
        if let Ok(deltas) = deltas_from_wire(push.deltas, "deltas") {
            admitted_deltas_survive(deltas);
        }
    });
}

#[test]
fn a_frame_is_read_as_it_was_written_or_refused() {
    bolero::check!().with_test_time(BRIEFLY).for_each(|bytes| {
        let mut choices = Choices::new(bytes);
        let frame = history::Author::default().frame(&mut choices);
        let mut stored = frame.clone().encode();
        assert_eq!(Frame::decode(&stored), Ok(frame));
        choices.damage(&mut stored);
        for stored in [&*stored, bytes] {
            if let Ok(frame) = Frame::decode(stored) {
                assert_eq!(Frame::decode(&frame.clone().encode()).as_ref(), Ok(&frame));
                let mut fold = Fold::new();
                fold.apply_frame(&frame, |_, _, _, _| ());
                fold.apply_frame(&frame, |_, _, _, _| ());
            }
        }
    });
}

#[test]
fn a_snapshot_is_whole_or_refused() {
    bolero::check!().with_generator(long_input()).with_test_time(BRIEFLY).for_each(|bytes| {
        let mut choices = Choices::new(bytes);
        let damage = choices.bytes(32);
        let mut fold = Fold::new();
        for frame in history::frames(&mut choices) {
            fold.apply_frame(&frame, |_, _, _, _| ());
        }
        let mut stored = snapshot(&fold);
        Choices::new(&damage).damage(&mut stored);
        if let Ok(restored) = Fold::restore(stored.chunks(1 + usize::from(damage[0]))) {
            assert_eq!(restored.hash(), fold.hash(), "damage that the hash does not show");
        }
        assert!(Fold::restore([&**bytes]).is_err(), "a snapshot by chance");
    });
}

#[test]
fn a_stored_value_is_read_as_it_was_written_or_refused() {
    bolero::check!().with_test_time(BRIEFLY).for_each(|bytes: &[u8]| {
        if let Some(value) = decode_value(bytes) {
            assert_eq!(decode_value(&encode_value(&value)), Some(value));
        }
    });
}

#[test]
fn a_token_is_read_as_it_was_written_or_refused() {
    bolero::check!().with_test_time(BRIEFLY).for_each(|bytes| {
        let mut choices = Choices::new(bytes);
        // The version, two fingerprints, and then nothing but numbers.
        let mut token = [vec![2], choices.bytes(16)].concat();
        while choices.are_left() && token.len() < Token::MAX_BYTES {
            encode_varint(choices.number(), &mut token);
        }
        for bytes in [bytes, &token] {
            if let Ok(token) = Token::decode(bytes) {
                assert_eq!(Token::decode(&token.encode()), Ok(token));
            }
        }
    });
}

/// A text of known pieces and arbitrary ones.
fn text(choices: &mut Choices<'_>, pieces: &[&str]) -> String {
    let mut text = String::new();
    while choices.are_left() {
        match choices.below(pieces.len() + 1) {
            0 => text.push_str(&String::from_utf8_lossy(&choices.bytes(4))),
            piece => text.push_str(pieces[piece - 1]),
        }
    }
    text
}

#[test]
fn a_selector_says_again_what_it_understood() {
    const PIECES: &[&str] =
        &["zone", "a", " ", ",", "=", "==", "!=", "!", "in", "notin", "(", ")", " in (a,b)", "x/y", "-", "<"];
    bolero::check!().with_test_time(BRIEFLY).with_max_len(256).for_each(|bytes| {
        let text = text(&mut Choices::new(bytes), PIECES);
        if let Ok(selector) = Selector::parse(&text) {
            assert_eq!(Selector::parse(&selector.to_string()).as_ref(), Ok(&selector), "{text:?}");
        }
    });
}

#[test]
fn a_configuration_is_taken_or_refused() {
    const PIECES: &[&str] = &[
        "listen",
        "admin_listen",
        "insecure",
        "data_dir",
        "queue_max",
        "awake_lease_ms",
        "asleep_lease_ms",
        "asleep_lease_max_ms",
        "lease_margin_ms",
        "undeclared_freeze",
        "[group.a]",
        "[group]",
        "[[group]]",
        "[floor.a]",
        "minimum",
        "values",
        "webhook",
        "\"http://127.0.0.1/\"",
        "broker",
        "\"nats://127.0.0.1/a?replicas=3\"",
        "\"amqp://a:b@127.0.0.1/v?stream=a&retention_mb=64\"",
        "\n",
        "\n",
        " = ",
        " = ",
        "\"",
        "'",
        "true",
        "0",
        "1",
        "18446744073709551615",
        "-1",
        "1.5",
        "\"127.0.0.1:7400\"",
        "[",
        "]",
        "{}",
        "#",
        "\"deny\"",
    ];
    bolero::check!().with_test_time(BRIEFLY).with_max_len(256).for_each(|bytes| {
        let file = text(&mut Choices::new(bytes), PIECES);
        let variable = ("DORMOUSE_LISTEN".to_owned(), file.clone());
        for env in [None, Some(variable)] {
            match Config::from_sources(env, Some((Path::new("dormouse.toml"), &file))) {
                Ok(config) => assert!(config.lease_policy().is_ok() && !config.limits().is_empty()),
                Err(refusal) => assert!(!refusal.to_string().is_empty()),
            }
        }
    });
}

#[test]
fn an_id_keeps_its_text_or_is_refused() {
    fn keeps<T: FromStr + fmt::Display>(text: &str, longest: usize) {
        if let Ok(name) = text.parse::<T>() {
            assert_eq!(name.to_string(), text);
            assert!(text.len() <= longest);
        }
    }
    bolero::check!().with_test_time(BRIEFLY).with_max_len(2_048).for_each(|bytes| {
        let text = text(&mut Choices::new(bytes), &["a", "b", "0", ".", "-", "@", "/", "ab0123456789cdef"]);
        keeps::<Namespace>(&text, 64);
        keeps::<Collection>(&text, 64);
        keeps::<Key>(&text, 512);
        keeps::<Group>(&text, 64);
        keeps::<Element>(&text, 1_024);
        keeps::<OnceId>(&text, 64);
        keeps::<NodeId>(text.get(..13).unwrap_or(&text), 13);
        let node =
            NodeId(Choices::new(bytes).bytes(8).iter().fold(0, |all, byte| all << 8 | u64::from(*byte)));
        assert_eq!(node.to_string().parse(), Ok(node));
    });
}
