//! A relay behind tokens, TLS or both, and callers that try it.

use std::{fmt::Write as _, fs, path::PathBuf, sync::Arc};

use bytes::{Buf as _, BufMut as _, Bytes};
use dormouse_proto::wire::v1::{
    mailbox_client::MailboxClient, membership_client::MembershipClient, operations_client::OperationsClient,
};
use dormouse_relay::{
    access::Hash,
    config::Config,
    log::{LogId, memory::Memory},
};
use tempfile::TempDir;
use tonic::{
    Request, Response, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::{
    certificates::Certified,
    harness::{Outcome, Served},
};

/// What each of these may do stands in the file of [`Door::with_tokens`].
pub(crate) const SHOP_READER: &str = "dm_shop_reader";
pub(crate) const SHOP_NODE: &str = "dm_shop_node";
pub(crate) const SHOP_ADMIN: &str = "dm_shop_admin";
pub(crate) const ADS_NODE: &str = "dm_ads_node";
pub(crate) const ALL_ADMIN: &str = "dm_all_admin";

/// A line of a tokens file.
pub(crate) fn line(token: &str, namespace: &str, role: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    let hex = digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    format!("sha256:{hex} {namespace} {role}\n")
}

/// A relay, and the folder of its certificate and its tokens.
pub(crate) struct Door {
    pub(crate) served: Served,
    dir: TempDir,
}

impl Door {
    /// Plaintext, with one token for each role.
    pub(crate) async fn with_tokens() -> Outcome<Self> {
        let tokens = [
            line(SHOP_READER, "shop", "reader"),
            line(SHOP_NODE, "shop", "node"),
            line(SHOP_ADMIN, "shop", "admin"),
            line(ADS_NODE, "ads", "node"),
            line(ALL_ADMIN, "*", "admin"),
        ];
        Self::open(Some(&tokens.concat()), None, None).await
    }

    pub(crate) async fn open(
        tokens: Option<&str>,
        certified: Option<&Certified>,
        client_ca: Option<&str>,
    ) -> Outcome<Self> {
        let dir = tempfile::tempdir()?;
        let put = |name: &str, content: Option<&str>| -> Outcome<Option<PathBuf>> {
            let path = dir.path().join(name);
            content.map(|content| fs::write(&path, content)).transpose()?;
            Ok(content.map(|_| path))
        };
        let config = Config {
            tokens_file: put("tokens", tokens)?,
            tls_cert: put("cert", certified.map(|it| it.cert.as_str()))?,
            tls_key: put("key", certified.map(|it| it.key.as_str()))?,
            tls_client_ca: put("ca", client_ca)?,
            ..Config::default()
        };
        let served = Served::new(config, Arc::new(Memory::new(LogId(7)))).await?;
        Ok(Self { served, dir })
    }

    /// Puts another content into `tokens`, `cert`, `key` or `ca`, and has it looked at.
    pub(crate) fn rewrite(&self, files: &[(&str, &str)]) -> Outcome {
        for (name, content) in files {
            fs::write(self.dir.path().join(name), content)?;
        }
        self.served.doors.refresh(&self.served.relay().metrics);
        Ok(())
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        self.served.url.trim_start_matches("http://")
    }

    pub(crate) async fn channel(&self) -> Outcome<Channel> {
        Ok(Endpoint::from_shared(self.served.url.clone())?.connect().await?)
    }

    /// A new connection under TLS to whoever has a certificate of that authority.
    pub(crate) async fn tls_channel(&self, ca: &str, caller: Option<&Certified>) -> Outcome<Channel> {
        let mut tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name("localhost");
        if let Some(Certified { cert, key }) = caller {
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address()))?.tls_config(tls)?;
        Ok(endpoint.connect().await?)
    }

    pub(crate) async fn mailbox(&self, token: &str) -> Outcome<MailboxClient<WithToken>> {
        Ok(MailboxClient::new(InterceptedService::new(self.channel().await?, Token(token.to_owned()))))
    }

    pub(crate) async fn operations(&self, token: &str) -> Outcome<OperationsClient<WithToken>> {
        Ok(OperationsClient::new(InterceptedService::new(self.channel().await?, Token(token.to_owned()))))
    }

    pub(crate) async fn membership(&self, token: &str) -> Outcome<MembershipClient<WithToken>> {
        Ok(MembershipClient::new(InterceptedService::new(self.channel().await?, Token(token.to_owned()))))
    }
}

pub(crate) type WithToken = InterceptedService<Channel, Token>;
pub(crate) type Mailbox = MailboxClient<WithToken>;

/// Sends a token along; an empty one is none.
#[derive(Clone, Debug)]
pub(crate) struct Token(pub(crate) String);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if !self.0.is_empty() {
            let bearer = format!("Bearer {}", self.0);
            request.metadata_mut().insert("authorization", bearer.parse().expect("ASCII"));
        }
        Ok(request)
    }
}

/// Any bytes to any method.
pub(crate) async fn raw(
    channel: Channel,
    token: &str,
    path: &str,
    body: &'static [u8],
) -> Result<Response<Bytes>, Status> {
    let mut client = tonic::client::Grpc::new(InterceptedService::new(channel, Token(token.to_owned())));
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path = path.parse().expect("a path");
    client.unary(Request::new(Bytes::from_static(body)), path, AsIs).await
}

/// Messages are what they are.
#[derive(Clone, Copy, Debug)]
struct AsIs;

impl Codec for AsIs {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AsIs {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for AsIs {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}

#[test]
fn a_line_has_the_hash_that_the_relay_makes_of_the_token() {
    let table = dormouse_relay::access::TokenTable::parse(&line("dm_a", "shop", "node")).expect("valid");
    assert!(table.find(&Hash::of(b"dm_a")).is_some());
}
