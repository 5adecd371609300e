//! Which calls there are, and what their messages look like, from the descriptors that reflection serves.

use std::{collections::BTreeMap, sync::Arc};

use bytes::{BufMut as _, Bytes, BytesMut};
use dormouse_proto::{
    convert::{Violation, Violations},
    wire::DESCRIPTORS,
};
use prost::Message as _;
use prost_reflect::{DescriptorError, DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor};
use tonic::Status;

use crate::error::RelayError;

/// What stands before a message in a gRPC body: a flag for compression, and four bytes of length.
pub(super) const FRAME_HEAD: usize = 5;

/// How the messages of a call are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// The canonical JSON of protobuf.
    Json,
    /// Protobuf itself, without gRPC around it.
    Proto,
}

impl Format {
    /// Of a media type, without its parameters.
    pub(super) fn of(media_type: &str) -> Option<Self> {
        match media_type {
            "application/json" => Some(Self::Json),
            "application/proto" => Some(Self::Proto),
            _ => None,
        }
    }

    pub(super) const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Proto => "application/proto",
        }
    }
}

/// One call of a service.
#[derive(Debug)]
pub(super) struct Call {
    request: MessageDescriptor,
    response: MessageDescriptor,
    pub(super) is_stream: bool,
}

/// Every call that is served, by its path.
#[derive(Debug)]
pub(super) struct Calls {
    by_path: BTreeMap<String, Arc<Call>>,
    /// What the details of an error look like.
    details: DescriptorPool,
}

impl Calls {
    /// The calls of this relay, and the standard health service.
    pub(super) fn served() -> Result<Self, DescriptorError> {
        let served = DescriptorPool::decode(DESCRIPTORS)?;
        let health = DescriptorPool::decode(tonic_health::pb::FILE_DESCRIPTOR_SET)?;
        let services = [&served, &health].into_iter().flat_map(DescriptorPool::services);
        let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
        let by_path = methods.map(|method| {
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            let is_stream = method.is_client_streaming() || method.is_server_streaming();
            (path, Arc::new(Call { request: method.input(), response: method.output(), is_stream }))
        });
        Ok(Self {
            by_path: by_path.collect(),
            details: DescriptorPool::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)?,
        })
    }

    pub(super) fn get(&self, path: &str) -> Option<&Arc<Call>> {
        self.by_path.get(path)
    }

    /// The paths that answer JSON.
    pub(super) fn unary(&self) -> impl Iterator<Item = &str> {
        self.by_path.iter().filter(|(_, call)| !call.is_stream).map(|(path, _)| path.as_str())
    }

    /// The detail of an error as JSON; `None`: of a type that is not known here.
    pub(super) fn detail(&self, name: &str, bytes: &[u8]) -> Option<serde_json::Value> {
        let message = DynamicMessage::decode(self.details.get_message_by_name(name)?, bytes).ok()?;
        serde_json::to_value(message).ok()
    }
}

impl Call {
    /// The request as the body of a gRPC request.
    pub(super) fn frame(&self, format: Format, text: &[u8]) -> Result<Bytes, RelayError> {
        let mut frame = BytesMut::with_capacity(FRAME_HEAD + text.len());
        frame.put_bytes(0, FRAME_HEAD);
        match format {
            Format::Proto => frame.extend_from_slice(text),
            Format::Json => {
                let message = read(&self.request, text).map_err(not_json)?;
                message.encode(&mut frame).map_err(not_json)?;
            }
        }
        let length = u32::try_from(frame.len() - FRAME_HEAD).map_err(not_json)?;
        frame[1..FRAME_HEAD].copy_from_slice(&length.to_be_bytes());
        Ok(frame.freeze())
    }

    /// The response in the caller's format.
    pub(super) fn response(&self, format: Format, message: Bytes) -> Result<Bytes, Status> {
        if format == Format::Proto {
            return Ok(message);
        }
        let broken = |error: &dyn std::error::Error| Status::internal(format!("the answer: {error}"));
        let message = DynamicMessage::decode(self.response.clone(), message).map_err(|it| broken(&it))?;
        serde_json::to_vec(&message).map(Bytes::from).map_err(|it| broken(&it))
    }
}

/// A field or a value of an enum that is not known is skipped, as in protobuf itself.
fn read(request: &MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, serde_json::Error> {
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let mut json = serde_json::Deserializer::from_slice(text);
    let message = DynamicMessage::deserialize_with_options(request.clone(), &mut json, &options)?;
    json.end()?;
    Ok(message)
}

fn not_json(error: impl std::fmt::Display) -> RelayError {
    RelayError::Invalid(Violations(vec![Violation::new("body", error)]))
}

#[cfg(test)]
mod tests {
    use dormouse_proto::wire::v1;

    use super::*;

    const SYNC: &str = "/dormouse.v1.Mailbox/Sync";

    fn sync(text: &str) -> Result<v1::SyncRequest, RelayError> {
        let calls = Calls::served().expect("descriptors");
        let frame = calls.get(SYNC).expect("a call").frame(Format::Json, text.as_bytes())?;
        assert_eq!(frame[0], 0);
        assert_eq!(
            frame[1..FRAME_HEAD],
            u32::try_from(frame.len() - FRAME_HEAD).expect("small").to_be_bytes()
        );
        Ok(v1::SyncRequest::decode(&frame[FRAME_HEAD..]).expect("protobuf"))
    }

    fn json(path: &str, message: &impl prost::Message) -> serde_json::Value {
        let calls = Calls::served().expect("descriptors");
        let call = calls.get(path).expect("a call");
        let bytes = call.response(Format::Json, message.encode_to_vec().into()).expect("JSON");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    #[test]
    fn all_unary_calls_are_listed_and_the_streams_are_known() {
        let calls = Calls::served().expect("descriptors");
        let unary: Vec<_> = calls.unary().filter(|path| path.contains("dormouse")).collect();
        let streams: Vec<_> =
            calls.by_path.iter().filter(|it| it.1.is_stream).map(|it| it.0.as_str()).collect();
        assert_eq!(unary.len(), 10, "{unary:?}");
        assert_eq!(
            streams,
            [
                "/dormouse.v1.Mailbox/Watch",
                "/dormouse.v1.Membership/WatchMembers",
                "/dormouse.v1.Operations/Backup",
                "/grpc.health.v1.Health/Watch"
            ]
        );
    }

    #[test]
    fn numbers_of_64_bits_are_texts_or_numbers_and_bytes_are_base64() {
        for beat in ["\"18446744073709551615\"", "18446744073709551615"] {
            let text =
                format!("{{\"beat\":{beat},\"callId\":\"AQIDBAUGBwg=\",\"node\":{{\"bootId\":\"_-8\"}}}}");
            let request = sync(&text).expect("valid");
            assert_eq!(request.beat, u64::MAX);
            assert_eq!(request.call_id[..], [1, 2, 3, 4, 5, 6, 7, 8]);
            assert_eq!(
                request.node.expect("said").boot_id[..],
                [0xff, 0xef],
                "base64 of URLs, without padding"
            );
        }
    }

    #[test]
    fn absent_and_zero_are_different_things() {
        let offs = r#"{"push":{"deltas":[{"key":"a","flag":{}},{"key":"b","flag":{"asOf":"0"}}]}}"#;
        let deltas = sync(offs).expect("valid").push.expect("said").deltas;
        let as_of = |delta: &v1::Delta| match &delta.change {
            Some(v1::delta::Change::Flag(flag)) => flag.as_of,
            other => panic!("{other:?}"),
        };
        assert_eq!(deltas.iter().map(as_of).collect::<Vec<_>>(), [None, Some(0)]);
        let state = |value| v1::KeyState {
            state: Some(v1::key_state::State::Max(v1::NumberState { value })),
            ..v1::KeyState::default()
        };
        let read =
            v1::ReadResponse { keys: vec![state(None), state(Some(0))], ..v1::ReadResponse::default() };
        let keys = &json("/dormouse.v1.Mailbox/Read", &read)["keys"];
        assert_eq!(*keys, serde_json::json!([{"max": {}}, {"max": {"value": "0"}}]));
    }

    #[test]
    fn unknown_fields_are_skipped_and_an_unknown_change_leaves_none() {
        let text = r#"{"beat":"7","colour":{"deep":[1,2]},"push":{"deltas":[{"key":"a","chain":{}}]}}"#;
        let request = sync(text).expect("valid");
        assert_eq!(request.beat, 7);
        assert_eq!(request.push.expect("said").deltas[0].change, None);
    }

    #[test]
    fn what_is_no_request_says_where() {
        for (text, place) in [
            ("", "line 1"),
            ("{\"beat\":\"x\"}", "line 1 column"),
            ("{} {}", "trailing"),
            ("[]", "map"),
            ("{\"awake\":{},\"asleep\":{}}", "next"),
        ] {
            let RelayError::Invalid(Violations(wrong)) = sync(text).expect_err(text) else {
                panic!("{text} is refused as something else");
            };
            assert_eq!(wrong[0].field, "body");
            assert!(wrong[0].description.contains(place), "{text}: {}", wrong[0].description);
        }
    }

    #[test]
    fn names_are_in_lower_camel_case_and_enums_by_name() {
        let lease = v1::Lease {
            node_id: "n".into(),
            ttl_ms: 3_000,
            incarnation: 1,
            admission: v1::lease::Admission::Joined as i32,
            ..v1::Lease::default()
        };
        let answer = v1::SyncResponse { lease: Some(lease), ..v1::SyncResponse::default() };
        let expected =
            serde_json::json!({"nodeId": "n", "incarnation": "1", "ttlMs": 3000, "admission": "JOINED"});
        assert_eq!(json(SYNC, &answer)["lease"], expected);
    }
}
