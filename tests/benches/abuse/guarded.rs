//! Relays: one in plaintext, one under TLS, one that asks for a token.

use std::{fs, net::SocketAddr};

use tempfile::TempDir;

use crate::{certificates::Authority, relay::RelayProcess};

/// The token that is known; its hash is the standard's own example.
pub(crate) const TOKEN: &str = "abc";
const TOKEN_LINE: &str =
    "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad default node\n";

/// A relay and the way to it.
pub(crate) struct Target {
    pub(crate) relay: RelayProcess,
    pub(crate) to: SocketAddr,
    pub(crate) url: String,
    pub(crate) ca: Option<String>,
    pub(crate) token: Option<&'static str>,
    _dir: TempDir,
}

impl Target {
    pub(crate) fn plain() -> Self {
        Self::start(None, false)
    }

    pub(crate) fn under_tls() -> Self {
        Self::start(Some(Authority::new()), false)
    }

    pub(crate) fn with_token() -> Self {
        Self::start(None, true)
    }

    fn start(authority: Option<Authority>, with_token: bool) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let put = |name: &str, content: &str| {
            let path = dir.path().join(name);
            fs::write(&path, content).expect("written");
            path.to_str().expect("a path of text").to_owned()
        };
        let mut env = Vec::new();
        if let Some(authority) = &authority {
            let certified = authority.relay();
            env.push(("DORMOUSE_TLS_CERT", put("cert", &certified.cert)));
            env.push(("DORMOUSE_TLS_KEY", put("key", &certified.key)));
        }
        if with_token {
            env.push(("DORMOUSE_TOKENS_FILE", put("tokens", TOKEN_LINE)));
        }
        // Two million lines of refusals would be another attack, on the terminal.
        env.push(("DORMOUSE_LOG", "error".to_owned()));
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let relay = RelayProcess::start(&env).expect("a relay");
        let to: SocketAddr = relay.url().trim_start_matches("http://").parse().expect("an address");
        let scheme = if authority.is_some() { "https" } else { "http" };
        let token = with_token.then_some(TOKEN);
        Self {
            relay,
            to,
            url: format!("{scheme}://{to}"),
            ca: authority.map(|it| it.pem()),
            token,
            _dir: dir,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.relay.pid().expect("it runs")
    }
}
