//! A relay under attack, somebody who calls it all the while, and what is asked of both afterwards.

use std::{net::SocketAddr, time::Duration};

use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    certificates::Authority,
    regular::Regulars,
    relay::{Outcome, RelayProcess},
    usage::resident_bytes,
};

/// What memory may grow by: buffers of connections and of the allocator. Each attack would take more if it were let.
const GROWTH: f64 = 48.0 * 1024.0 * 1024.0;
/// A token that is known, and the hash of it: the standard's own example.
pub(crate) const TOKEN: &str = "abc";
const TOKEN_LINE: &str =
    "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad default node\n";

pub(crate) struct Siege {
    pub(crate) relay: RelayProcess,
    pub(crate) to: SocketAddr,
    pub(crate) url: String,
    pub(crate) ca: Option<String>,
    regulars: Regulars,
    resident: f64,
    _dir: TempDir,
}

impl Siege {
    /// A relay in plaintext with these settings.
    pub(crate) async fn begin(env: &[(&'static str, &str)]) -> Outcome<Self> {
        Self::begin_with(env, None, None, tempfile::tempdir()?).await
    }

    /// Likewise under TLS.
    pub(crate) async fn begin_under_tls(env: &[(&'static str, &str)]) -> Outcome<Self> {
        let dir = tempfile::tempdir()?;
        let authority = Authority::new();
        let certified = authority.relay();
        let put = |name: &str, content: &str| -> Outcome<String> {
            let path = dir.path().join(name);
            std::fs::write(&path, content)?;
            Ok(path.to_str().ok_or("a path of text")?.to_owned())
        };
        let (cert, key) = (put("cert", &certified.cert)?, put("key", &certified.key)?);
        let tls = [("DORMOUSE_TLS_CERT", cert.as_str()), ("DORMOUSE_TLS_KEY", key.as_str())];
        Self::begin_with(&[env, &tls].concat(), Some(authority.pem()), None, dir).await
    }

    /// Likewise in plaintext, and it asks for [`TOKEN`].
    pub(crate) async fn begin_with_token(env: &[(&'static str, &str)]) -> Outcome<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("tokens");
        std::fs::write(&path, TOKEN_LINE)?;
        let tokens = [("DORMOUSE_TOKENS_FILE", path.to_str().ok_or("a path of text")?)];
        Self::begin_with(&[env, &tokens].concat(), None, Some(TOKEN), dir).await
    }

    async fn begin_with(
        env: &[(&'static str, &str)],
        ca: Option<String>,
        token: Option<&'static str>,
        dir: TempDir,
    ) -> Outcome<Self> {
        let relay = RelayProcess::start(env)?;
        let to = relay.url().trim_start_matches("http://").parse()?;
        let scheme = if ca.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{to}");
        let regulars = Regulars::start(&url, ca.as_deref(), token, 2).await;
        // What is allocated once is allocated by then.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let resident = resident_bytes(relay.pid().ok_or("running")?);
        Ok(Self { relay, to, url, ca, regulars, resident, _dir: dir })
    }

    /// What is counted under that name.
    pub(crate) fn counted(&self, name: &str) -> Outcome<u64> {
        self.relay.metric(name)
    }

    /// Connections that were turned away or closed, for that reason.
    pub(crate) fn closed(&self, reason: &str) -> Outcome<u64> {
        self.counted(&format!("dormouse_connections_closed_total{{reason=\"{reason}\"}}"))
    }

    /// Calls that were refused with that word.
    pub(crate) fn refused(&self, word: &str) -> Outcome<u64> {
        self.counted(&format!("dormouse_refusals_total{{reason=\"{word}\"}}"))
    }

    /// Waits until so many connections were closed for that reason.
    pub(crate) async fn closes(&self, reason: &str, at_least: u64) -> Outcome {
        let began = Instant::now();
        loop {
            let closed = self.closed(reason)?;
            if closed >= at_least {
                return Ok(());
            }
            if began.elapsed() > crate::wire::PATIENCE {
                return Err(format!("{closed} of {at_least} were closed: {reason}").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The relay has not grown, and nobody else has noticed anything.
    pub(crate) async fn end(self) -> Outcome {
        let grown = resident_bytes(self.relay.pid().ok_or("it runs")?) - self.resident;
        let answers = self.regulars.finish().await;
        let calls = answers.len();
        let failed: Vec<_> = answers.into_iter().filter_map(|(_, answer)| answer.err()).collect();
        assert!(failed.is_empty(), "{} of {calls} calls failed: {:?}", failed.len(), failed[0]);
        assert!(calls > 20, "{calls} calls");
        assert!(grown < GROWTH, "the relay has grown by {:.1} MiB", grown / 1024.0 / 1024.0);
        Ok(())
    }
}
