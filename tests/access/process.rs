//! The relay's own process: where it listens, what it says, and what it never says.
#![expect(clippy::disallowed_methods, reason = "real processes are waited for in real time")]

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use dormouse_proto::wire::v1::{self, mailbox_client::MailboxClient};
use tempfile::TempDir;
use tonic::{
    service::interceptor::InterceptedService,
    transport::{Certificate, ClientTlsConfig, Endpoint},
};

use crate::{
    certificates::Authority,
    door::{Token, line},
    harness::{Outcome, add, reason},
    relay::{PATIENCE, relay_binary},
};

/// A relay that is killed when it is dropped. What it says goes into files.
struct Running {
    child: Child,
    dir: TempDir,
}

impl Running {
    fn start(dir: TempDir, env: &[(&str, &str)]) -> Outcome<Self> {
        let mut command = Command::new(relay_binary());
        for (name, _) in std::env::vars_os().filter(|it| it.0.to_string_lossy().starts_with("DORMOUSE_")) {
            command.env_remove(name);
        }
        let out = fs::File::create(dir.path().join("out"))?;
        let err = fs::File::create(dir.path().join("err"))?;
        let child = command
            .env("DORMOUSE_LISTEN", "127.0.0.1:0")
            .env("DORMOUSE_ADMIN_LISTEN", "127.0.0.1:0")
            .env("DORMOUSE_DATA_DIR", dir.path().join("data"))
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()?;
        Ok(Self { child, dir })
    }

    fn said(&self) -> Outcome<String> {
        let read = |name| fs::read(self.dir.path().join(name));
        Ok(String::from_utf8_lossy(&[read("out")?, read("err")?].concat()).into_owned())
    }

    /// Waits until it has said that.
    fn says(&mut self, words: &str) -> Outcome<String> {
        let began = Instant::now();
        loop {
            let said = self.said()?;
            if said.contains(words) {
                return Ok(said);
            }
            if began.elapsed() > PATIENCE || self.child.try_wait()?.is_some() {
                let newest = said.lines().rev().take(20).collect::<Vec<_>>().join("\n");
                return Err(format!("it did not say {words:?}, but, newest first: {newest}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where it serves, as `host:port`.
    fn address(&mut self) -> Outcome<String> {
        let said = self.says(" ready")?;
        let line = said.lines().find_map(|line| line.strip_prefix("serving on ")).ok_or("no address")?;
        Ok(line.split(',').next().unwrap_or_default().to_owned())
    }

    /// What it said, if it has ended by itself.
    fn refused(&mut self) -> Outcome<String> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                let said = self.said()?;
                return if status.success() { Err(said.into()) } else { Ok(said) };
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("it goes on".into())
    }

    fn hang_up(&self) -> Outcome {
        let pid = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(pid, rustix::process::Signal::HUP)?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn put(dir: &Path, name: &str, content: &str) -> Outcome<String> {
    let path = dir.join(name);
    fs::write(&path, content)?;
    Ok(path.to_str().ok_or("a path of text")?.to_owned())
}

const EVERYWHERE: (&str, &str) = ("DORMOUSE_LISTEN", "0.0.0.0:0");

#[test]
fn other_machines_reach_it_only_with_tls_and_tokens_or_as_a_matter_of_record() -> Outcome {
    let certified = Authority::new().relay();
    let dir = tempfile::tempdir()?;
    let tokens = put(dir.path(), "tokens", &line("dm_a", "shop", "node"))?;
    let (cert, key) = (put(dir.path(), "cert", &certified.cert)?, put(dir.path(), "key", &certified.key)?);
    let tls = [("DORMOUSE_TLS_CERT", cert.as_str()), ("DORMOUSE_TLS_KEY", key.as_str())];
    let tokens = ("DORMOUSE_TOKENS_FILE", tokens.as_str());
    let start = |env: &[(&str, &str)]| Running::start(tempfile::tempdir()?, &[&[EVERYWHERE], env].concat());
    for env in [&[][..], &tls, &[tokens]] {
        let said = start(env)?.refused()?;
        assert!(
            said.contains("is reached from other machines: set tls_cert, tls_key and tokens_file"),
            "{said}"
        );
    }
    let warned = start(&[("DORMOUSE_INSECURE", "1")])?.says(" ready")?;
    assert!(warned.contains("WARN") && warned.contains("there are neither TLS nor tokens"), "{warned}");
    let warned = start(&[tokens, ("DORMOUSE_INSECURE", "1")])?.says(" ready")?;
    assert!(warned.contains("there is no TLS"), "{warned}");
    let quiet = start(&[tls[0], tls[1], tokens])?.says(" ready")?;
    assert!(!quiet.contains("WARN"), "{quiet}");
    Ok(())
}

#[test]
fn an_admin_port_that_others_reach_is_said_at_every_start() -> Outcome {
    let open = [("DORMOUSE_ADMIN_LISTEN", "0.0.0.0:0")];
    let said = Running::start(tempfile::tempdir()?, &open)?.says(" ready")?;
    assert!(said.contains("other machines reach the admin port"), "{said}");
    Ok(())
}

/// One write, and what came of it.
async fn written(address: &str, ca: &str, token: &str, id: &str) -> Outcome<Result<(), String>> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name("localhost");
    let channel = Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?.connect().await?;
    let mut mailbox = MailboxClient::new(InterceptedService::new(channel, Token(token.to_owned())));
    let deltas = vec![add("k", 1)];
    let request = v1::WriteRequest { request_id: id.to_owned(), deltas, ..Default::default() };
    Ok(mailbox.write(request).await.map(|_| ()).map_err(|status| reason(&status)))
}

#[tokio::test]
async fn a_hangup_makes_it_read_and_no_secret_is_ever_said() -> Outcome {
    let authority = Authority::new();
    let (first, second) = (authority.relay(), authority.relay());
    let dir = tempfile::tempdir()?;
    let tokens = put(dir.path(), "tokens", &line("dm_first-secret", "shop", "node"))?;
    let (cert, key) = (put(dir.path(), "cert", &first.cert)?, put(dir.path(), "key", &first.key)?);
    let env = [
        ("DORMOUSE_TLS_CERT", cert.as_str()),
        ("DORMOUSE_TLS_KEY", key.as_str()),
        ("DORMOUSE_TOKENS_FILE", tokens.as_str()),
        ("DORMOUSE_LOG", "trace"),
    ];
    let mut relay = Running::start(dir, &env)?;
    let (address, ca) = (relay.address()?, authority.pem());
    assert_eq!(written(&address, &ca, "dm_first-secret", "1").await?, Ok(()));
    let unknown = Err("TOKEN_UNKNOWN".to_owned());
    assert_eq!(written(&address, &ca, "dm_second-secret", "2").await?, unknown);

    // A token that was put where its hash belongs is refused, and not repeated either.
    fs::write(&tokens, "dm_third-secret shop node\n")?;
    relay.hang_up()?;
    relay.says("line 1: holds a token where its hash belongs")?;
    fs::write(&key, "not a key: hidden-secret")?;
    relay.hang_up()?;
    relay.says("must be a private key in PEM")?;

    fs::write(&tokens, line("dm_second-secret", "shop", "node"))?;
    fs::write(&key, &second.key)?;
    fs::write(&cert, &second.cert)?;
    relay.hang_up()?;
    relay.says("settings=tokens_file")?;
    assert_eq!(written(&address, &ca, "dm_second-secret", "3").await?, Ok(()));
    assert_eq!(written(&address, &ca, "dm_first-secret", "4").await?, unknown);

    let said = relay.said()?;
    assert!(said.contains("TRACE"), "it was asked for everything");
    assert!(
        !said.contains("-secret"),
        "{}",
        said.lines().find(|it| it.contains("-secret")).unwrap_or_default()
    );
    for certified in [first, second] {
        let secret = certified.key.lines().nth(1).ok_or("a key of some lines")?.to_owned();
        assert!(!said.contains(&secret));
    }
    Ok(())
}

#[tokio::test]
async fn a_line_is_an_object_for_programs_and_names_its_request() -> Outcome {
    let env = [("DORMOUSE_LOG_FORMAT", "json"), ("DORMOUSE_LOG", "info,dormouse_relay=debug")];
    let mut relay = Running::start(tempfile::tempdir()?, &env)?;
    relay.says("\"ready\"")?;
    let said = relay.said()?;
    let line = said.lines().find_map(|line| line.strip_prefix("serving on ")).ok_or("no address")?;
    let address = line.split(',').next().unwrap_or_default();
    let mut mailbox = MailboxClient::connect(format!("http://{address}")).await?;
    let mut request = tonic::Request::new(v1::WriteRequest {
        request_id: "1".to_owned(),
        deltas: vec![add("shown", 1)],
        ..Default::default()
    });
    request.metadata_mut().insert("x-request-id", "order-17".parse()?);
    mailbox.write(request).await?;
    relay.says("\"answered\"")?;
    let lines = fs::read_to_string(relay.dir.path().join("err"))?;
    let objects = lines.lines().map(serde_json::from_str).collect::<Result<Vec<serde_json::Value>, _>>()?;
    let answered = objects.iter().find(|it| it["message"] == "answered").ok_or("no line of the call")?;
    assert_eq!(answered["spans"][0]["request_id"], "order-17", "{answered}");
    assert_eq!(answered["spans"][0]["outcome"], "Ok", "{answered}");
    Ok(())
}
