//! The client and the command line against relays with certificates and tokens, and against those that are not what was
//! expected.

#[path = "../../tests/access/certificates.rs"]
mod certificates;

use std::{fs, path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use certificates::{Authority, Certified};
use dormouse::{Freshness, Node, NodeBuilder, Reason, Relay, Slept};
use dormouse_relay::{
    access::{Hash, Role, TokenTable},
    config::Config,
    grpc,
    log::embedded::{Embedded, Options},
    relay,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, process::Command};

/// The hash of "abc", in the standard's own example.
const ABC_LINE: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad shop node\n";
const TOKEN: &str = "abc";

/// A relay on a port of its own.
struct World {
    port: u16,
    folder: TempDir,
}

impl World {
    async fn start(certified: Option<&Certified>, client_ca: Option<&str>, tokens: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let put = |name: &str, content: Option<&str>| -> Option<PathBuf> {
            let path = folder.path().join(name);
            fs::write(&path, content?).expect("written");
            Some(path)
        };
        let config = Config {
            tls_cert: put("cert", certified.map(|it| it.cert.as_str())),
            tls_key: put("key", certified.map(|it| it.key.as_str())),
            tls_client_ca: put("ca", client_ca),
            tokens_file: put("tokens", tokens),
            ..Config::default()
        };
        let options = Options { max_frame_bytes: 2 << 20, ..Options::default() };
        let log = Embedded::open(folder.path().join("log"), options).expect("a log");
        let started = relay::Relay::start(config, Arc::new(log)).await.expect("a relay");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            let served = grpc::serve(started.relay.clone(), listener, std::future::pending()).await;
            drop((served, started));
        });
        Self { port, folder }
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}", self.port)
    }

    fn node(&self, ca: &str) -> NodeBuilder {
        Node::builder().url(self.url("https")).ca(ca).token(TOKEN).group("g").budget(Duration::from_secs(10))
    }

    /// Exit code, and both outputs of `dormouse doctor`.
    async fn doctor(&self, scheme: &str, env: &[(&str, &str)]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
        command.arg("doctor").env_clear().env("DORMOUSE_URL", self.url(scheme)).envs(env.iter().copied());
        let output = command.stdin(Stdio::null()).output().await.expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_works_under_tls_with_its_token() {
    let authority = Authority::new();
    let world = World::start(Some(&authority.relay()), None, Some(ABC_LINE)).await;
    let path = world.folder.path().join("authority");
    fs::write(&path, authority.pem()).expect("written");
    for ca in [authority.pem(), path.to_str().expect("text").to_owned()] {
        let node = world.node(&ca).build().expect("valid");
        assert!(!format!("{node:?}").contains(TOKEN));
        let awake = node.wake(Duration::from_secs(60)).await;
        assert_eq!(awake.freshness(), Freshness::Current);
        awake.counter("ads/shown").add(1).expect("room");
        assert!(matches!(awake.sleep().await, Slept::Saved { .. }));
    }
    let relay = Relay::builder().url(world.url("https")).ca(authority.pem()).token(TOKEN).build();
    let reading = relay.expect("valid").read(&["ads/*"]).await.expect("read");
    assert_eq!(reading.keys.len(), 1, "both wrote into the namespace of the token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_of_another_authority_or_another_name_is_not_spoken_to() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for (certified, words) in [
        (theirs.relay(), "UnknownIssuer"),
        (ours.other_relay(), "not valid for name"),
        (ours.expired_relay(), "expired"),
    ] {
        let world = World::start(Some(&certified), None, Some(ABC_LINE)).await;
        let node = world.node(&ours.pem()).build().expect("valid");
        let awake = node.wake(Duration::from_secs(60)).await;
        let Freshness::Never { reason: Reason::NotReached(why) } = awake.freshness() else {
            panic!("{:?}", awake.freshness())
        };
        assert!(why.contains(words), "{why}");
    }
    // Nobody vouches for it but its own authority, which is not among the bundled roots.
    let world = World::start(Some(&ours.relay()), None, Some(ABC_LINE)).await;
    let relay = Relay::builder().url(world.url("https")).token(TOKEN).build().expect("valid");
    let Err(Reason::NotReached(why)) = relay.info().await else { panic!("it was trusted") };
    assert!(why.contains("UnknownIssuer"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_shows_its_certificate() {
    let (authority, callers) = (Authority::new(), Authority::new());
    let world = World::start(Some(&authority.relay()), Some(&callers.pem()), None).await;
    let Certified { cert, key } = callers.caller();
    let relay = Relay::builder().url(world.url("https")).ca(authority.pem());
    assert!(relay.clone().client_cert(cert, key).build().expect("valid").info().await.is_ok());
    assert!(relay.build().expect("valid").info().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_what_is_wrong_with_a_certificate() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (ca, token) = (ours.pem(), ("DORMOUSE_TOKEN", TOKEN));
    let trusting = [("DORMOUSE_CA", ca.as_str()), token];
    for (certified, words) in [
        (theirs.relay(), "authority that is not known here: set DORMOUSE_CA"),
        (ours.other_relay(), "is for another name"),
        (ours.expired_relay(), "has expired"),
        (ours.itself(), "is that of an authority"),
    ] {
        let world = World::start(Some(&certified), None, Some(ABC_LINE)).await;
        let (code, said) = world.doctor("https", &trusting).await;
        assert!(said.starts_with("fail  https://localhost:") && said.contains(words), "{said}");
        assert_eq!(code, Some(1), "{said}");
    }
    let world = World::start(Some(&ours.relay()), None, Some(ABC_LINE)).await;
    let (code, said) = world.doctor("https", &trusting).await;
    assert!(said.starts_with("ok    localhost:") && said.contains("no keys yet"), "{said}");
    assert_eq!(code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_that_certificates_of_callers_are_asked_for() {
    let (ours, callers, others) = (Authority::new(), Authority::new(), Authority::new());
    let world = World::start(Some(&ours.relay()), Some(&callers.pem()), None).await;
    let ca = ours.pem();
    let (code, said) = world.doctor("https", &[("DORMOUSE_CA", &ca)]).await;
    assert!(said.contains("it asks callers for a certificate: set DORMOUSE_CLIENT_CERT"), "{said}");
    assert_eq!(code, Some(1));
    let Certified { cert, key } = others.caller();
    let shown =
        [("DORMOUSE_CA", ca.as_str()), ("DORMOUSE_CLIENT_CERT", &cert), ("DORMOUSE_CLIENT_KEY", &key)];
    let (_, said) = world.doctor("https", &shown).await;
    assert!(said.contains("does not accept the certificate of DORMOUSE_CLIENT_CERT"), "{said}");
    assert!(!said.contains(key.lines().nth(1).expect("a key of some lines")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_tells_tls_from_plaintext() {
    let authority = Authority::new();
    let ca = authority.pem();
    let plain = World::start(None, None, Some(ABC_LINE)).await;
    let (code, said) = plain.doctor("https", &[("DORMOUSE_CA", &ca), ("DORMOUSE_TOKEN", TOKEN)]).await;
    let cure = format!("the relay there speaks plaintext: set DORMOUSE_URL={}", plain.url("http"));
    assert!(said.contains(&cure), "{said}");
    assert_eq!(code, Some(2));
    let tls = World::start(Some(&authority.relay()), None, Some(ABC_LINE)).await;
    let (code, said) = tls.doctor("http", &[("DORMOUSE_TOKEN", TOKEN)]).await;
    let cure = format!("the relay there speaks TLS: set DORMOUSE_URL={}", tls.url("https"));
    assert!(said.contains(&cure), "{said}");
    assert_eq!(code, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_what_is_wrong_with_a_token() {
    let world = World::start(None, None, Some(ABC_LINE)).await;
    let (code, said) = world.doctor("http", &[]).await;
    assert!(
        said.contains("fail  ") && said.contains("the relay asks for a token: set DORMOUSE_TOKEN"),
        "{said}"
    );
    assert_eq!(code, Some(1));
    let (code, said) = world.doctor("http", &[("DORMOUSE_TOKEN", "dm_wrong")]).await;
    assert!(said.contains("does not know this token") && said.contains("dormouse token new"), "{said}");
    assert!(!said.contains("dm_wrong"));
    assert_eq!(code, Some(1));
    let (code, said) = world.doctor("http", &[("DORMOUSE_TOKEN", TOKEN)]).await;
    assert_eq!(code, Some(0), "{said}");
    let (_, said) = world.doctor("http", &[("DORMOUSE_TOKEN", TOKEN), ("DORMOUSE_NAMESPACE", "ads")]).await;
    assert!(said.contains("NAMESPACE_DENIED"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_and_its_line_belong_together() {
    let made = async |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
        let output = command.args(["token", "new"]).args(words).env_clear().output().await.expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (_, one) = made(&["shop", "node", "--json"]).await;
    let (_, other) = made(&["*", "admin", "--json"]).await;
    let field = |json: &str, name: &str| {
        let value: serde_json::Value = serde_json::from_str(json).expect("JSON");
        value[name].as_str().expect("a text").to_owned()
    };
    let table =
        TokenTable::parse(&[field(&one, "line"), field(&other, "line")].join("\n")).expect("valid lines");
    for (json, role) in [(&one, Role::Node), (&other, Role::Admin)] {
        let token = field(json, "token");
        assert!(token.starts_with("dm_") && token.len() == 67, "{token}");
        assert_eq!(table.find(&Hash::of(token.as_bytes())).map(|holder| holder.role), Some(role));
    }
    let (_, text) = made(&["shop", "node"]).await;
    assert_eq!(text.lines().filter(|line| line.starts_with("dm_") || line.starts_with("sha256:")).count(), 2);
    for wrong in [&["*", "node"][..], &["Shop", "node"], &["shop", "owner"], &["shop"]] {
        assert_eq!(made(wrong).await.0, Some(2), "{wrong:?}");
    }
}
